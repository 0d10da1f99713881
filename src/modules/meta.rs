//! What the engine itself does: `meta`, `pause`, and files of tasks.

use serde::Deserialize;

use super::args::Number;
use super::types::{Input, ModulePlan, PlanError, Spec, Until, Wait, World, nothing_to_see, plain};
use crate::host::protocol::Read;

/// `flush_handlers`, `end_play`, `end_host` and `noop`; the run carries them out.
pub(super) static META: Spec = Spec {
    free_form: Some("action"),
    ..plain("meta", &["action"], &["action"], nothing_to_see, meta)
};

pub(super) static PAUSE: Spec =
    plain("pause", &["seconds", "minutes"], &["seconds|minutes"], nothing_to_see, pause);

/// Opened by the playbook's reader; never reaches a host.
pub(super) static IMPORT_TASKS: Spec = Spec {
    free_form: Some("file"),
    ..plain("import_tasks", &["file"], &["file"], nothing_to_see, nothing)
};

/// Like [`IMPORT_TASKS`].
pub(super) static INCLUDE_TASKS: Spec = Spec {
    free_form: Some("file"),
    ..plain("include_tasks", &["file"], &["file"], nothing_to_see, nothing)
};

#[expect(clippy::unnecessary_wraps, reason = "the table's type")]
fn nothing(_: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    Ok(ModulePlan::default())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    FlushHandlers,
    EndPlay,
    EndHost,
    Noop,
}

/// Only checks the argument.
fn meta(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    match input.decode::<Meta>()?.action {
        Action::FlushHandlers | Action::EndPlay | Action::EndHost | Action::Noop => {
            Ok(ModulePlan::default())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    seconds: Option<Number>,
    minutes: Option<Number>,
}

fn pause(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    let args: Pause = input.decode()?;
    let minutes = args.minutes.map_or(0, |number| number.0);
    let seconds = args.seconds.map_or(0, |number| number.0) + 60 * minutes;
    let wait = Wait {
        what: format!("{seconds} seconds to pass"),
        read: Read::Facts,
        until: Until::Elapsed,
        timeout_ms: seconds * 1000,
        interval_ms: 0,
    };
    Ok(ModulePlan { wait: Some(wait), ..ModulePlan::default() })
}
