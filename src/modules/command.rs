//! `command` and `shell`: a program that is run. The one kind of task that always says "changed",
//! unless `creates`, `removes` or `changed_when` know better.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Flag, Number, text};
use super::types::{Input, ModulePlan, PlanError, Spec, World, path_read, plain};
use crate::host::protocol::{Change, CommandSpec, Done, Read};

/// A command is killed after this many seconds when `timeout` is not given.
const TIMEOUT_SECONDS_DEFAULT: u64 = 600;

const KEYS: &[&str] =
    &["cmd", "argv", "chdir", "creates", "removes", "stdin", "stdin_add_newline", "timeout"];

pub(super) static COMMAND: Spec = Spec {
    free_form: Some("cmd"),
    conclude,
    ..plain("command", KEYS, &["cmd|argv"], observe, plan_command)
};

pub(super) static SHELL: Spec = Spec {
    free_form: Some("cmd"),
    conclude,
    ..plain(
        "shell",
        &[
            "cmd",
            "chdir",
            "creates",
            "removes",
            "stdin",
            "stdin_add_newline",
            "timeout",
            "executable",
        ],
        &["cmd"],
        observe,
        plan_shell,
    )
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    cmd: Option<String>,
    argv: Option<Vec<Json>>,
    chdir: Option<String>,
    creates: Option<String>,
    removes: Option<String>,
    stdin: Option<String>,
    stdin_add_newline: Option<Flag>,
    timeout: Option<Number>,
    executable: Option<String>,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    [text(args, &["creates"]), text(args, &["removes"])]
        .into_iter()
        .flatten()
        .map(|path| path_read(path, false))
        .collect()
}

fn plan_command(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let words = match (&args.cmd, &args.argv) {
        (Some(cmd), None) => shell_words::split(cmd)
            .map_err(|error| PlanError::failed(format!("cannot split the command: {error}")))?,
        (None, Some(list)) => list.iter().map(word).collect::<Result<_, _>>()?,
        _ => return Err(PlanError::failed("give either `cmd` or `argv`")),
    };
    plan(input, world, args, words)
}

fn plan_shell(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let shell = args.executable.clone().unwrap_or_else(|| "/bin/sh".to_owned());
    let script = args.cmd.clone().unwrap_or_default();
    plan(input, world, args, vec![shell, "-c".to_owned(), script])
}

fn word(value: &Json) -> Result<String, PlanError> {
    match value {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        _ => Err(PlanError::failed("`argv` must be a list of texts")),
    }
}

fn plan(
    input: &Input,
    world: &World,
    args: Args,
    words: Vec<String>,
) -> Result<ModulePlan, PlanError> {
    let mut plan = ModulePlan::default();
    if words.first().is_none_or(String::is_empty) {
        return Err(PlanError::failed("the command is empty"));
    }
    if ["cmd", "argv", "environment"].iter().any(|key| input.is_secret(key)) {
        return Err(PlanError::failed(
            "a secret in a command's arguments or environment can be read by everybody on the \
             host; give it through `stdin` or a file",
        ));
    }
    if let Some(path) = &args.creates
        && world.path(path, false)?.is_some()
    {
        plan.say("msg", format!("{path} is there already"));
        plan.say("rc", 0);
        return Ok(plan);
    }
    if let Some(path) = &args.removes
        && world.path(path, false)?.is_none()
    {
        plan.say("msg", format!("{path} is not there"));
        plan.say("rc", 0);
        return Ok(plan);
    }
    let newline = args.stdin_add_newline.is_none_or(|flag| flag.0);
    let stdin = args.stdin.map(|mut text| {
        if newline {
            text.push('\n');
        }
        Bytes::from(text)
    });
    plan.say("cmd", words.iter().map(String::as_str).collect::<Vec<_>>());
    let reason = match &args.creates {
        Some(path) => format!("{path} is not there"),
        None => "a command always runs".to_owned(),
    };
    let timeout_ms = args.timeout.map_or(TIMEOUT_SECONDS_DEFAULT, |number| number.0) * 1000;
    let env = input.environment.clone();
    plan.change(
        Change::Run(CommandSpec { argv: words, stdin, env, cwd: args.chdir, timeout_ms }),
        reason,
    );
    Ok(plan)
}

fn conclude(result: &mut Map<String, Json>, done: &[Done]) {
    let Some(output) = done.iter().find_map(|done| match done {
        Done::Output(output) => Some(output),
        Done::Ok => None,
    }) else {
        return;
    };
    let mut say = |key: &str, value: Json| result.insert(key.to_owned(), value);
    say("rc", output.status.into());
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches('\n');
        say(name, text.into());
        say(&format!("{name}_lines"), text.lines().collect::<Vec<_>>().into());
    }
    if output.truncated {
        say("truncated", true.into());
    }
    if output.timed_out {
        say("msg", "killed: its time was over".into());
        say("failed", true.into());
    } else if output.status != 0 {
        say("msg", format!("the command ended with status {}", output.status).into());
        say("failed", true.into());
    }
}
