//! site.yml from any state to one ready cluster.

use bytes::Bytes;

use super::super::fake::{Disk, File};
use super::*;

fn assert_up(stage: &Stage) {
    let world = stage.world.lock();
    assert_eq!(world.founded, 1, "one cluster was ever founded");
    assert_eq!(world.clusters.len(), 1);
    let servers = world.hosts.values().filter(|host| host.role == Some(Role::Server)).count();
    assert_eq!(world.clusters.values().next().unwrap().len(), servers);
    for (name, host) in &world.hosts {
        assert!(host.running && host.enabled, "{name}");
        assert_eq!(host.started_with.as_ref(), Some(&world.configured(name)), "{name}");
        assert!(!host.files.keys().any(|path| path.contains("/pending/")), "{name} is owed");
    }
    for host in world.hosts.values().filter(|host| host.role == Some(Role::Server)) {
        let bootstrap = host.files.iter().find(|(path, _)| path.ends_with("bootstrap.yaml"));
        let text = String::from_utf8_lossy(bootstrap.unwrap().1.content.as_ref().unwrap());
        assert_eq!(text.contains("cluster-init: true"), servers == 1, "{text}");
    }
    assert!(!world.quorum_lost);
}

fn good(summary: &RunSummary) {
    assert!(summary.failed.is_empty() && summary.unreachable.is_empty(), "{summary:?}");
}

#[test]
fn from_nothing_to_a_cluster_and_again_without_a_change_in_two_round_trips() {
    block_on(async {
        let mut stage = Stage::new(3, 2);
        let summary = stage.up().await.unwrap();
        assert!(summary.failed.is_empty(), "{:#?}", stage.told(&[Status::Failed]));
        good(&summary);
        assert!(summary.changed);
        assert_up(&stage);
        let end_state = stage.world.lock().end_state();
        let changes = stage.world.lock().changes;
        let again = stage.up().await.unwrap();
        assert!(!again.changed, "{:#?}", stage.told(&[Status::Changed]));
        assert_eq!(stage.world.lock().changes, changes);
        assert_eq!(again.round_trips_max, 2);
        assert_eq!(stage.world.lock().end_state(), end_state);
    });
}

#[test]
fn a_restart_that_an_earlier_run_owes_is_made_also_after_other_changes() {
    block_on(async {
        let mut stage = Stage::new(3, 1);
        good(&stage.up().await.unwrap());
        {
            let mut world = stage.world.lock();
            // Down, so that an earlier play starts them all.
            world.hosts.values_mut().for_each(|host| host.running = false);
            let files = &mut world.host("server3").files;
            let bootstrap = files.keys().find(|path| path.ends_with("bootstrap.yaml")).unwrap();
            let root = bootstrap.split("/etc/").next().unwrap().to_owned();
            for path in ["", "/restart_the_node"] {
                let path = format!("{root}/var/lib/k3sup-rs/pending{path}");
                files.insert(path, File { content: Some(Bytes::new()), mode: 0o600 });
            }
        }
        good(&stage.up().await.unwrap());
        let restarts = stage.told(&[Status::Changed]);
        assert!(restarts.iter().any(|line| line.contains("server3 Restart")), "{restarts:#?}");
        assert_up(&stage);
    });
}

#[test]
fn a_node_that_joins_after_it_was_looked_at_is_no_reason_to_refuse() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        good(&stage.up().await.unwrap());
        {
            let mut world = stage.world.lock();
            for name in ["server2", "server3"] {
                world.host(name).disk = None;
                world.clusters.values_mut().next().unwrap().retain(|_, node| node != name);
            }
            world.host("server3").running = false;
            // Server1's last task is still to be done: its change lets server2 join.
            world.host("server1").files.retain(|path, _| !path.ends_with("bootstrap.yaml"));
            world.joining = Some("server2".to_owned());
        }
        good(&stage.up().await.unwrap());
        assert_eq!(stage.world.lock().joining, None);
        assert_up(&stage);
        assert!(!stage.up().await.unwrap().changed, "{:#?}", stage.told(&[Status::Changed]));
    });
}

#[test]
fn a_member_whose_node_is_still_joining_is_not_taken_for_one_whose_disk_was_lost() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        good(&stage.up().await.unwrap());
        let members = {
            let mut world = stage.world.lock();
            // It is a member already; what it writes on its disk is there a moment later.
            world.host("server2").disk = None;
            world.host("server1").files.retain(|path, _| !path.ends_with("bootstrap.yaml"));
            world.joining = Some("server2".to_owned());
            world.clusters.clone()
        };
        good(&stage.up().await.unwrap());
        assert_eq!(stage.world.lock().joining, None);
        assert_eq!(stage.world.lock().clusters, members);
        assert_up(&stage);
        assert!(!stage.up().await.unwrap().changed, "{:#?}", stage.told(&[Status::Changed]));
    });
}

#[test]
fn secrets_and_private_files_are_private() {
    block_on(async {
        let mut stage = Stage::new(1, 1);
        stage.up().await.unwrap();
        let world = stage.world.lock();
        for host in world.hosts.values() {
            for (path, file) in &host.files {
                let text = String::from_utf8_lossy(file.content.as_deref().unwrap_or_default());
                if text.contains(SECRET) {
                    assert_eq!(file.mode, 0o600, "{path}");
                    assert!(path.ends_with("/token"), "{path}");
                }
            }
        }
    });
}

#[test]
fn a_check_touches_nothing_and_says_what_a_run_would_do() {
    block_on(async {
        let mut stage = Stage::new(3, 1);
        stage.options.check = true;
        let summary = stage.up().await.unwrap();
        good(&summary);
        assert!(summary.changed);
        assert_eq!(stage.world.lock().changes, 0);
        assert!(stage.world.lock().hosts.values().all(|host| host.lock.is_none()));
        let told = stage.told(&[Status::Changed]);
        for expected in ["server1 Configuration", "server3 Token", "agent1 Service unit"] {
            assert!(told.iter().any(|line| line.starts_with(expected)), "{expected}: {told:#?}");
        }
        assert_eq!(stage.told(&[Status::Failed]), Vec::<String>::new());
        stage.options.check = false;
        stage.up().await.unwrap();
        stage.options.check = true;
        assert!(!stage.up().await.unwrap().changed, "{:#?}", stage.told(&[Status::Changed]));
    });
}

#[test]
fn a_server_that_lost_its_disk_joins_again() {
    block_on(async {
        let mut stage = Stage::new(3, 1);
        stage.up().await.unwrap();
        {
            let mut world = stage.world.lock();
            let host = world.host("server1");
            (host.running, host.disk) = (false, None);
            host.files.clear();
        }
        good(&stage.up().await.unwrap());
        assert_up(&stage);
        assert!(!stage.up().await.unwrap().changed);
    });
}

#[test]
fn a_removed_member_sets_its_data_aside_and_joins_again() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        stage.up().await.unwrap();
        {
            let mut world = stage.world.lock();
            world.host("server2").running = false;
            let Some(Disk::Member { cluster, id }) = world.host("server2").disk.clone() else {
                panic!("server2 has data")
            };
            world.clusters.get_mut(&cluster).unwrap().remove(&id);
            // The directory that is set aside.
            let db = format!("{}/server/db", world.layout("server2").data_dir);
            let directory = super::super::fake::File { content: None, mode: 0o700 };
            world.host("server2").files.insert(db, directory);
        }
        good(&stage.up().await.unwrap());
        assert_up(&stage);
    });
}

#[test]
fn all_down_with_data_start_together() {
    block_on(async {
        let mut stage = Stage::new(3, 1);
        stage.up().await.unwrap();
        stage.world.lock().hosts.values_mut().for_each(|host| host.running = false);
        good(&stage.up().await.unwrap());
        stage.world.lock().quorum_lost = false;
        assert_up(&stage);
    });
}

#[test]
fn a_changed_setting_restarts_one_server_after_the_other() {
    block_on(async {
        let mut stage = Stage::new(3, 2);
        stage.up().await.unwrap();
        for host in &mut stage.fleet.hosts {
            host.vars.set("config", Var::Template(json!({ "node-label": ["a=b"] })));
        }
        let summary = stage.up().await.unwrap();
        good(&summary);
        assert!(summary.changed);
        assert_up(&stage);
        assert!(!stage.up().await.unwrap().changed, "{:#?}", stage.told(&[Status::Changed]));
    });
}

#[test]
fn a_restart_that_would_cost_quorum_is_refused_before_it() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        stage.up().await.unwrap();
        stage.world.lock().host("server3").running = false;
        stage.world.lock().host("server3").unreachable = true;
        for host in &mut stage.fleet.hosts {
            host.vars.set("config", Var::Template(json!({ "debug": true })));
        }
        let failure = stage.up().await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Refused);
        assert!(failure.message.contains("quorum-risk"), "{failure}");
        let world = stage.world.lock();
        assert!(world.hosts["server1"].running && !world.quorum_lost);
        assert!(world.hosts.values().all(|host| host.lock.is_none()));
    });
}

#[test]
fn data_that_cannot_be_seen_forbids_to_found_a_cluster() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        stage.world.lock().host("server2").unreachable = true;
        let failure = stage.up().await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Refused);
        assert_eq!(stage.world.lock().changes, 0);
    });
}

#[test]
fn only_one_operator_at_a_time() {
    block_on(async {
        let mut stage = Stage::new(3, 0);
        stage.world.lock().host("server2").lock = Some("another".to_owned());
        let failure = stage.up().await.unwrap_err();
        assert_eq!(failure.code, ExitCode::Locked);
        assert_eq!(stage.world.lock().changes, 0);
        assert_eq!(stage.world.lock().host("server1").lock, None, "given back");
        stage.options.break_lock = true;
        good(&stage.up().await.unwrap());
    });
}

#[test]
fn an_unreachable_agent_stops_nobody_else() {
    block_on(async {
        let mut stage = Stage::new(1, 2);
        stage.world.lock().host("agent1").unreachable = true;
        let summary = stage.up().await.unwrap();
        assert_eq!(summary.unreachable, ["agent1"]);
        assert!(summary.failed.is_empty());
        assert!(stage.world.lock().host("agent2").running);
    });
}

#[test]
fn limit_to_agents_takes_the_token_from_the_servers_without_touching_them() {
    block_on(async {
        let mut stage = Stage::new(1, 1);
        stage.options.limit = Some("servers".to_owned());
        good(&stage.up().await.unwrap());
        let servers = stage.world.lock().host("server1").files.clone();
        stage.options.limit = Some("agents".to_owned());
        good(&stage.up().await.unwrap());
        assert!(stage.world.lock().host("agent1").running);
        assert_eq!(stage.world.lock().host("server1").files, servers);
    });
}

#[test]
fn reset_leaves_nothing_behind() {
    block_on(async {
        let mut stage = Stage::new(3, 1);
        stage.up().await.unwrap();
        stage.options.ends_cluster = true;
        good(&stage.play("reset.yml", None).await.unwrap());
        let world = stage.world.lock();
        for (name, host) in &world.hosts {
            assert!(!host.running && !host.enabled && host.disk.is_none(), "{name}");
            let left: Vec<_> =
                host.files.keys().filter(|path| !path.contains("/k3sup-rs")).collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    });
}

/// Runs to the end after the control machine died after `after` changes; gives the end state.
async fn crash_and_run_again(mut stage: Stage, after: u32) -> (Stage, String) {
    stage.world.lock().changes_left = Some(after);
    // How a run ends whose control machine dies does not matter.
    drop(stage.up().await);
    stage.world.lock().changes_left = None;
    stage.options.break_lock = true;
    let summary = match stage.up().await {
        Ok(summary) => summary,
        Err(failure) => panic!("after {after}: {failure}\n{:#?}", stage.events),
    };
    assert!(summary.failed.is_empty(), "after {after}: {:#?}", stage.told(&[Status::Failed]));
    good(&summary);
    assert!(
        !stage.up().await.unwrap().changed,
        "after {after}: {:#?}",
        stage.told(&[Status::Changed])
    );
    let end_state = stage.world.lock().end_state();
    (stage, end_state)
}

#[test]
fn a_run_cut_off_after_any_change_and_run_again_ends_in_the_same_state() {
    block_on(async {
        let (whole, expected) = crash_and_run_again(Stage::new(3, 2), u32::MAX).await;
        let changes = whole.world.lock().changes;
        assert!(changes > 40, "{changes}");
        for after in 0..changes {
            let (stage, end_state) = crash_and_run_again(Stage::new(3, 2), after).await;
            assert_up(&stage);
            assert_eq!(end_state, expected, "after {after}");
        }
    });
}

#[test]
fn a_rolling_restart_cut_off_anywhere_is_finished_by_the_next_run() {
    block_on(async {
        for after in 0..40 {
            let mut stage = Stage::new(3, 1);
            stage.up().await.unwrap();
            for host in &mut stage.fleet.hosts {
                host.vars.set("config", Var::Template(json!({ "node-label": ["a=b"] })));
            }
            let (stage, _) = crash_and_run_again(stage, after).await;
            assert_up(&stage);
        }
    });
}

#[test]
fn the_lock_of_a_dead_process_of_this_machine_is_taken_over() {
    block_on(async {
        let mut stage = Stage::new(1, 0);
        stage.world.lock().changes_left = Some(3);
        drop(stage.up().await);
        stage.world.lock().changes_left = None;
        let left = stage.world.lock().host("server1").lock.clone().expect("it is left behind");
        assert!(stage.up().await.is_err_and(|failure| failure.code == ExitCode::Locked));
        // As the same process holds it, it counts as alive; no process has this number.
        let path = "/lab/server1/run/k3sup-rs/lock";
        let holder = json!({ "id": left, "owner": "a@b pid 2147483646", "purpose": "up",
            "since_unix_ms": 0, "expires_unix_ms": 0 });
        let content = Some(bytes::Bytes::from(holder.to_string()));
        let file = super::super::fake::File { content, mode: 0o600 };
        stage.world.lock().host("server1").files.insert(path.to_owned(), file);
        good(&stage.up().await.unwrap());
        assert!(stage.events.iter().any(
            |event| matches!(event, Event::Warning { message } if message.contains("taken over"))
        ));
    });
}

#[test]
fn a_link_that_is_cut_after_any_change_is_made_again_and_the_run_goes_on() {
    block_on(async {
        let mut whole = Stage::new(3, 2);
        good(&whole.up().await.unwrap());
        let (expected, changes) = {
            let world = whole.world.lock();
            (world.end_state(), world.changes)
        };
        for after in 1..=changes {
            let mut stage = Stage::new(3, 2);
            stage.world.lock().cut_after = Some(after);
            let summary = stage.up().await.unwrap();
            let failed: Vec<_> =
                stage.results().filter(|result| result.status == Status::Failed).collect();
            assert!(failed.is_empty(), "after {after}: {failed:#?}");
            good(&summary);
            let cut = |event: &Event| matches!(event, Event::Warning { message } if message.contains("connecting again"));
            assert_eq!(stage.events.iter().filter(|event| cut(event)).count(), 1, "after {after}");
            assert_up(&stage);
            assert_eq!(stage.world.lock().end_state(), expected, "after {after}");
            let again = stage.up().await.unwrap();
            assert!(!again.changed, "after {after}: {:#?}", stage.told(&[Status::Changed]));
        }
    });
}
