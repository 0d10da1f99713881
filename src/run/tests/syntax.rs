//! What Ansible's keywords do, in small playbooks.

use std::fs;

use super::*;

/// Runs `tasks` as a play on `servers` hosts; gives the stage after it and what it came to.
async fn run_on(stage: &mut Stage, playbook: &str) -> Result<RunSummary, Failure> {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("templates")).unwrap();
    fs::write(directory.path().join("templates/t.j2"), "hello {{ name }}\n").unwrap();
    fs::write(directory.path().join("play.yml"), playbook).unwrap();
    stage.play("play.yml", Some(directory.path())).await
}

/// Runs a playbook on two servers; gives `host task: status` (with item and message) in order.
fn told(playbook: &str) -> Vec<String> {
    let mut stage = Stage::new(2, 0);
    block_on(async {
        let ended = run_on(&mut stage, playbook).await;
        if let Err(failure) = ended {
            panic!("{failure}");
        }
    });
    stage
        .results()
        .map(|result| {
            let item = result.item.as_ref().map(|item| format!(" ({item})")).unwrap_or_default();
            let message = result.message.as_ref().map(|text| format!(" {text}"));
            let ignored = if result.ignored { " ignored" } else { "" };
            format!(
                "{} {}{item}: {:?}{}{ignored}",
                result.host,
                result.task,
                result.status,
                message.unwrap_or_default()
            )
        })
        .collect()
}

fn one(tasks: &str) -> Vec<String> {
    told(&format!("- hosts: server1\n  vars: {{name: world, list: [a, b]}}\n  tasks:\n{tasks}"))
}

#[test]
fn when_and_register() {
    let lines = one("    - {name: a, command: id, register: out}
    - {name: b, debug: {msg: 'rc {{ out.rc }}'}, when: [out.rc == 0, out is changed]}
    - {name: c, debug: {msg: x}, when: out.rc != 0}
    - {name: d, debug: {var: list}}
    - {name: e, assert: {that: [name == 'world', list | length == 2]}}
    - {name: f, set_fact: {made: '{{ name }}!'}}
    - {name: g, debug: {msg: '{{ made }}'}}
");
    assert_eq!(
        lines,
        [
            "server1 a: Changed",
            "server1 b: Ok rc 0",
            "server1 c: Skipped `out.rc != 0` is false",
            "server1 d: Ok list: [\n  \"a\",\n  \"b\"\n]",
            "server1 e: Ok",
            "server1 f: Ok",
            "server1 g: Ok world!",
        ]
    );
}

#[test]
fn loops() {
    let lines =
        one("    - {name: a, debug: {msg: '{{ item }}'}, loop: '{{ list }}', register: all}
    - {name: b, debug: {msg: '{{ all.results | length }} {{ all.results[1].msg }}'}}
    - name: c
      debug: {msg: '{{ thing.n }}{{ at }}'}
      loop: [{n: x}, {n: y}]
      loop_control: {loop_var: thing, index_var: at, label: '<{{ thing.n }}>'}
      when: thing.n == 'y'
    - {name: d, debug: {msg: '{{ item }}'}, with_items: [[1, 2], 3]}
    - {name: e, debug: {msg: x}, loop: '{{ nothing }}', when: false}
");
    assert_eq!(
        lines,
        [
            "server1 a (a): Ok a",
            "server1 a (b): Ok b",
            "server1 b: Ok 2 b",
            "server1 c (<x>): Skipped `thing.n == 'y'` is false",
            "server1 c (<y>): Ok y1",
            "server1 d (1): Ok 1",
            "server1 d (2): Ok 2",
            "server1 d (3): Ok 3",
            "server1 e: Skipped `false` is false",
        ]
    );
}

#[test]
fn failures_and_what_takes_care_of_them() {
    let lines = one("    - {name: a, fail: {msg: nope}, ignore_errors: true}
    - block:
        - {name: b, fail: {msg: bad}}
        - {name: never, debug: {msg: x}}
      rescue: [{name: c, debug: {msg: '{{ ansible_failed_task.name }}'}}]
      always: [{name: d, debug: {msg: always}}]
    - {name: e, command: id, failed_when: true}
    - {name: f, debug: {msg: not reached}}
");
    assert_eq!(
        lines,
        [
            "server1 a: Failed nope ignored",
            "server1 b: Failed bad",
            "server1 c: Ok b",
            "server1 d: Ok always",
            "server1 e: Failed `failed_when` is true",
        ]
    );
}

#[test]
fn changed_when_retries_and_until() {
    let mut stage = Stage::new(1, 0);
    stage.world.lock().commands.insert("no".to_owned(), (1, "sorry".to_owned()));
    let playbook = "- hosts: server1
  tasks:
    - {name: a, command: id, changed_when: false}
    - {name: b, command: 'no', retries: 2, delay: 0, ignore_errors: true, register: out}
    - {name: c, command: id, until: false, retries: 1, delay: 0, ignore_errors: true}
    - {name: d, command: 'no', failed_when: false}
";
    block_on(run_on(&mut stage, playbook)).unwrap();
    let ran = stage.world.lock().ran.len();
    assert_eq!(ran, 1 + 3 + 2 + 1);
    let statuses: Vec<Status> = stage.results().map(|result| result.status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Failed, Status::Failed, Status::Changed]);
    let message = stage.results().nth(1).unwrap().message.clone().unwrap();
    assert!(message.contains("status 1") && message.contains("sorry"), "{message}");
}

#[test]
fn handlers_run_once_in_their_order_at_the_end() {
    let lines = one("    - {name: a, command: id, notify: [second, topic]}
    - {name: b, command: id, notify: second}
    - {name: c, debug: {msg: x}}
  handlers:
    - {name: first, debug: {msg: 1}, listen: topic}
    - {name: second, debug: {msg: 2}}
    - {name: third, debug: {msg: 3}}
");
    let names: Vec<&str> =
        lines.iter().map(|line| line.split([' ', ':']).nth(1).unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "first", "second"]);
}

#[test]
fn a_notification_that_no_handler_answers_to_is_refused_with_its_place() {
    let mut stage = Stage::new(1, 0);
    let playbook = "- hosts: all\n  tasks:\n    - {name: a, command: id, notify: nobody}\n";
    let failure = block_on(run_on(&mut stage, playbook)).unwrap_err();
    assert_eq!(failure.code, ExitCode::BadInput);
    assert!(failure.message.contains("play.yml:3:7") && failure.message.contains("nobody"));
}

#[test]
fn run_once_and_delegate_to() {
    let lines = told(
        "- hosts: all
  tasks:
    - {name: a, command: id, run_once: true, register: out}
    - {name: b, debug: {msg: '{{ out.rc }}'}}
    - {name: c, command: 'touch x', delegate_to: server2}
    - {name: d, debug: {msg: x}, delegate_to: nobody}
",
    );
    let (ends, good): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| line.contains(" d: "));
    assert_eq!(
        good,
        [
            "server1 a: Changed",
            "server1 b: Ok 0",
            "server2 b: Ok 0",
            "server1 c: Changed",
            "server2 c: Changed",
        ]
    );
    assert_eq!(ends.len(), 2);
    assert!(ends[0].contains("play.yml:6:47: nobody takes no part in the run"), "{ends:?}");
}

#[test]
fn waves_of_hosts_and_errors_that_are_fatal_for_all() {
    let order = |keywords: &str| -> Vec<String> {
        let lines = told(&format!(
            "- hosts: all
  {keywords}
  tasks:
    - {{name: a, debug: {{msg: x}}, failed_when: inventory_hostname == 'server1'}}
    - {{name: b, debug: {{msg: x}}}}
- hosts: all
  tasks: [{{name: c, debug: {{msg: x}}}}]
"
        ));
        lines.iter().map(|line| line.split(':').next().unwrap().replace("server", "")).collect()
    };
    assert_eq!(order("gather_facts: false"), ["1 a", "2 a", "2 b", "2 c"]);
    assert_eq!(order("any_errors_fatal: true"), ["1 a", "2 a"]);
    assert_eq!(order("serial: 1"), ["1 a"], "all hosts of a wave failed");
    assert_eq!(order("max_fail_percentage: 40"), ["1 a", "2 a", "2 b"]);
    assert_eq!(order("max_fail_percentage: 50"), ["1 a", "2 a", "2 b", "2 c"]);
}

#[test]
fn a_template_is_rendered_and_shown_as_a_diff() {
    let mut stage = Stage::new(1, 0);
    let playbook = "- hosts: all
  vars: {name: world}
  tasks: [{name: a, template: {src: t.j2, dest: /etc/t}}]
";
    block_on(run_on(&mut stage, playbook)).unwrap();
    let result = stage.results().next().unwrap().clone();
    assert!(result.diff.unwrap().contains("+hello world"));
    let content = stage.world.lock().host("server1").files["/etc/t"].content.clone();
    assert_eq!(content.as_deref(), Some(b"hello world\n".as_slice()));
}

#[test]
fn an_undefined_variable_fails_the_task_with_its_name() {
    let lines = one("    - {name: a, debug: {msg: '{{ nothing }}'}}\n");
    let line = &lines[0];
    assert!(line.starts_with("server1 a: Failed ") && line.contains("nothing"), "{line}");
    // Where the task stands.
    assert!(line.contains("play.yml:4:7: argument `msg`"), "{line}");
}

#[test]
fn a_secret_is_hidden_wherever_it_is_used() {
    let mut stage = Stage::new(1, 0);
    let playbook = "- hosts: all
  tasks:
    - {name: a, debug: {msg: 'it is {{ cluster_token }}'}}
    - {name: b, command: 'login {{ cluster_token }}', ignore_errors: true}
    - {name: c, command: {cmd: login, stdin: '{{ cluster_token }}'}}
    - {name: d, copy: {content: '{{ cluster_token }}', dest: /s}}
    - {name: e, debug: {msg: '{{ item }}'}, loop: ['{{ cluster_token }}']}
    - {name: f, command: id, no_log: true}
";
    // `play` asserts that no event shows it.
    block_on(run_on(&mut stage, playbook)).unwrap();
    let results: Vec<&TaskResult> = stage.results().collect();
    assert_eq!(results[1].status, Status::Failed);
    assert_eq!(results[3].diff.as_deref().map(|diff| diff.contains("********")), Some(true));
    assert!(results[5].message.as_ref().unwrap().contains("no_log"));
    let ran = format!("{:?}", stage.world.lock().ran);
    assert!(!ran.contains(SECRET), "{ran}");
}

#[test]
fn tags_choose_tasks() {
    let mut stage = Stage::new(1, 0);
    stage.options.tags = vec!["x".to_owned()];
    let playbook = "- hosts: all
  tasks:
    - {name: a, debug: {msg: 1}, tags: x}
    - {name: b, debug: {msg: 1}, tags: [y]}
    - {name: c, debug: {msg: 1}, tags: always}
    - {name: d, debug: {msg: 1}}
";
    block_on(run_on(&mut stage, playbook)).unwrap();
    let names: Vec<&str> = stage.results().map(|result| result.task.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_host_that_is_lost_leaves_and_the_others_go_on() {
    let mut stage = Stage::new(2, 0);
    let playbook = "- hosts: all
  tasks:
    - {name: a, command: id}
    - {name: b, command: id}
";
    stage.world.lock().host("server2").unreachable = true;
    let summary = block_on(run_on(&mut stage, playbook));
    // Nobody knows whether server2 has the cluster's data, but this playbook founds none.
    let summary = summary.unwrap();
    assert_eq!(summary.unreachable, ["server2"]);
    assert_eq!(stage.told(&[Status::Changed]).len(), 2);
}

#[test]
fn an_interruption_ends_after_the_step_and_says_what_is_left() {
    let mut stage = Stage::new(1, 0);
    let connector = FakeConnector(Arc::clone(&stage.world));
    let job = Job {
        playbook: "site.yml",
        library: Library::built_in(),
        fleet: stage.fleet.clone(),
        options: Options::default(),
        connector: &connector,
        id: "run".to_owned(),
        stamp: "1".to_owned(),
        journal: None,
        interrupted: Arc::new(AtomicBool::new(true)),
    };
    let failure = block_on(execute(job, &mut stage.events)).unwrap_err();
    assert_eq!(failure.code, ExitCode::Interrupted);
    let Some(Event::Undone { steps }) =
        stage.events.iter().find(|event| matches!(event, Event::Undone { .. }))
    else {
        panic!("it does not say what is left")
    };
    assert!(steps.iter().any(|step| step == "play Agents"), "{steps:?}");
}

#[test]
fn a_command_that_a_cut_link_leaves_unknown_is_not_run_again() {
    let mut stage = Stage::new(1, 0);
    let play =
        "- hosts: all\n  tasks:\n    - {name: a, command: id}\n    - {name: b, command: uname}\n";
    stage.world.lock().cut_after = Some(1);
    block_on(async {
        let summary = run_on(&mut stage, play).await.unwrap();
        assert_eq!(summary.failed, ["server1"]);
    });
    let messages: Vec<_> = stage.results().filter_map(|result| result.message.clone()).collect();
    assert!(messages.concat().contains("not run a second time"), "{messages:?}");
    assert_eq!(stage.world.lock().ran.len(), 1);
}

#[test]
fn a_host_whose_link_is_cut_again_and_again_is_given_up() {
    let mut stage = Stage::new(1, 0);
    let task =
        |n| format!("    - {{name: t{n}, copy: {{dest: /f{n}, content: x, mode: '0600'}}}}\n");
    let tasks = (0..9).map(task).collect::<Vec<_>>().concat();
    stage.world.lock().cut_always = true;
    block_on(async {
        let play = format!("- hosts: all\n  tasks:\n{tasks}");
        let summary = run_on(&mut stage, &play).await.unwrap();
        assert_eq!(summary.unreachable, ["server1"]);
    });
    // What was done before the answer was lost was seen, and not done twice.
    assert_eq!(stage.world.lock().changes, 4);
}

#[test]
fn who_does_not_let_us_become_another_user_fails_and_is_not_away() {
    let mut stage = Stage::new(2, 0);
    stage.fleet.hosts.iter_mut().for_each(|host| host.become_ = Some(true));
    stage.world.lock().host("server1").refuses = true;
    block_on(async {
        let play = "- hosts: all\n  tasks:\n    - debug: {msg: x}\n";
        let summary = run_on(&mut stage, play).await.unwrap();
        assert_eq!((summary.failed.join(" "), summary.unreachable), ("server1".into(), vec![]));
        stage.world.lock().host("server2").refuses = true;
        assert_eq!(stage.up().await.unwrap_err().code, ExitCode::HostFailed);
    });
}
