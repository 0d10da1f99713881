use std::collections::BTreeMap;

use super::program::{Caught, Flow, Program, Step, TaskStep};
use super::*;
use crate::yaml::report;

struct Files(BTreeMap<&'static str, &'static str>);

impl Source for Files {
    fn file(&self, path: &str) -> Result<SourceFile, String> {
        let text = self.0.get(path).ok_or("no such file")?;
        Ok(SourceFile { name: path.to_owned(), text: (*text).to_owned() })
    }
}

fn read_with(text: &str, files: &[(&'static str, &'static str)]) -> Result<Playbook, String> {
    let file = SourceFile { name: "site.yml".to_owned(), text: text.to_owned() };
    parse(&file, &Files(files.iter().copied().collect())).map_err(|findings| report(&findings))
}

fn read(text: &str) -> Result<Playbook, String> {
    read_with(text, &[])
}

#[test]
fn a_play_is_read_with_all_its_keywords() {
    let playbook = read(
        "- name: Servers
  hosts: servers:!server1
  become: yes
  serial: [1, \"50%\"]
  any_errors_fatal: true
  vars: {a: 1}
  tasks:
    - name: Make
      ansible.builtin.file: {path: /x, state: directory, mode: 0750}
      when:
        - a == 1
        - b is defined
      tags: [one, two]
      notify: restart
      register: made
    - command: ls -l
      args: {chdir: /tmp}
      loop: \"{{ things }}\"
      loop_control: {loop_var: thing, label: \"{{ thing.name }}\"}
      retries: 5
      delay: 1
      until: result.rc == 0
      changed_when: false
  handlers:
    - name: restart
      service: {name: x, state: restarted}
      listen: a, b
",
    )
    .unwrap();
    let play = &playbook.plays[0];
    assert_eq!((play.name.as_str(), play.hosts.text.as_str()), ("Servers", "servers:!server1"));
    assert_eq!(play.serial.len(), 2);
    assert_eq!(play.inherited.become_, Some(true));
    let program = Program::of(play);
    let tasks: Vec<_> = program.tasks().collect();
    assert_eq!(tasks[0].inherited.when.len(), 2);
    assert_eq!(tasks[0].inherited.become_, Some(true));
    assert_eq!(tasks[0].task.args["mode"], 0o750);
    assert_eq!(tasks[0].task.register.as_deref(), Some("made"));
    let second = &tasks[1].task;
    assert_eq!(second.args["cmd"], "ls -l");
    assert_eq!(second.args["chdir"], "/tmp");
    assert_eq!(second.loop_.as_ref().unwrap().variable, "thing");
    assert_eq!((second.retries, second.delay_seconds), (Some(5), 1));
    assert_eq!(second.changed_when.as_ref().unwrap()[0].text, "false");
    assert_eq!(play.handlers[0].listen, ["a", "b"]);
}

#[test]
fn what_is_wrong_is_found_with_its_place_all_at_once() {
    let error = read(
        "- hosts: all
  becom: yes
  roles: [x]
  serial: 0
  tasks:
    - nam: x
      debug: {mgs: hello}
    - comand: ls
    - file: {state: directory}
    - name: nothing
    - debug: {msg: a}
      when: \"{{ a }}\"
    - debug: {msg: a}
      fail: {msg: b}
    - include_tasks: other.yml
- tasks: []
",
    )
    .unwrap_err();
    let expected = [
        "site.yml:2:3: unknown keyword of a play `becom` (did you mean `become`?)",
        "site.yml:3:3: `roles` is not supported (put the tasks into a file and use import_tasks)",
        "site.yml:4:11: `serial` must be",
        "site.yml:6:7: unknown keyword of a task `nam` (did you mean `name`?)",
        "site.yml:7:15: unknown argument of debug `mgs` (did you mean `msg`?)",
        "site.yml:8:7: unknown module or keyword `comand` (did you mean `command`?)",
        "site.yml:9:7: `file` needs `path` or `dest` or `name`",
        "site.yml:10:7: the task names no module",
        "site.yml:12:13: `when` is an expression already: leave the braces out",
        "site.yml:14:7: two modules in one task: `debug` and `fail`",
        "site.yml:15:7: cannot import `other.yml`: no such file",
        "site.yml:16:3: the play does not say which `hosts` it is for",
    ];
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n  instead of\n{expected}");
    }
}

#[test]
fn an_imported_file_is_a_block_with_the_keywords_of_the_import() {
    let playbook = read_with(
        "- hosts: all
  tasks:
    - import_tasks: a.yml
      when: x
      tags: t
",
        &[("a.yml", "- debug: {msg: 1}\n  when: y\n- debug: {msg: 2}\n")],
    )
    .unwrap();
    let program = Program::of(&playbook.plays[0]);
    let when: Vec<Vec<&str>> = program
        .tasks()
        .map(|step| step.inherited.when.iter().map(|text| text.text.as_str()).collect())
        .collect();
    assert_eq!(when, [vec!["x", "y"], vec!["x"]]);
}

#[test]
fn files_that_import_each_other_are_refused() {
    let error = read_with(
        "- hosts: all\n  tasks: [{import_tasks: a.yml}]\n",
        &[("a.yml", "- import_tasks: a.yml\n")],
    )
    .unwrap_err();
    assert!(error.contains("more than 16 deep"), "{error}");
}

/// Walks a program, failing at the tasks named so; gives the names of the tasks that ran.
fn walk(text: &str) -> (Vec<String>, bool) {
    let playbook = read(text).unwrap();
    let program = Program::of(&playbook.plays[0]);
    let mut flow = Flow::default();
    let mut ran = Vec::new();
    for step in &program.steps {
        let Step::Task(step) = step else { continue };
        let step: &TaskStep = step;
        if flow.runs(step) {
            ran.push(step.task.name.clone());
            if step.task.name.starts_with("fail") {
                let caught = flow.fail(&program, step);
                assert_eq!(caught == Caught::Nobody, flow.is_dead());
            }
        }
    }
    (ran, flow.is_dead())
}

#[test]
fn rescue_and_always_run_as_in_ansible() {
    let block = |body: &str, rescue: &str, always: &str| {
        let list = |names: &str| {
            let tasks: Vec<_> =
                names.split_whitespace().map(|name| format!("{{name: {name}, ping: }}")).collect();
            format!("[{}]", tasks.join(", "))
        };
        format!(
            "- hosts: all
  tasks:
    - block: {}
      rescue: {}
      always: {}
    - {{name: after, ping: }}
",
            list(body),
            list(rescue),
            list(always)
        )
    };
    let table = [
        (block("a b", "r", "z"), "a b z after", false),
        (block("a fail b", "r", "z"), "a fail r z after", false),
        (block("a fail b", "", "z"), "a fail z", true),
        (block("fail b", "r fail2 s", "z"), "fail r fail2 z", true),
        (block("a", "r", "fail z"), "a fail", true),
    ];
    for (text, expected, dead) in table {
        let (ran, died) = walk(&text);
        assert_eq!((ran.join(" ").as_str(), died), (expected, dead), "{text}");
    }
}

#[test]
fn an_inner_always_runs_before_the_outer_rescue() {
    let (ran, dead) = walk(
        "- hosts: all
  tasks:
    - block:
        - block: [{name: fail, ping: }, {name: b, ping: }]
          always: [{name: inner, ping: }]
        - {name: c, ping: }
      rescue: [{name: rescue, ping: }]
      always: [{name: outer, ping: }]
    - block: [{name: d, ping: }]
      always: [{name: e, ping: }]
",
    );
    assert_eq!(ran, ["fail", "inner", "rescue", "outer", "d", "e"]);
    assert!(!dead);
}
