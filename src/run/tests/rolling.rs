//! restart.yml and replace.yml: the order, what is refused, and every point at which a run can die.

use super::*;

/// What `replace` does, in two runs.
async fn replace(stage: &mut Stage, node: &str) -> Result<(), Failure> {
    let mut extra = stage.fleet.extra.as_ref().clone();
    for name in ["leaving_node", "leaving_host"] {
        extra.insert(name.to_owned(), Var::Plain(node.into()));
    }
    stage.fleet.extra = Arc::new(extra);
    for playbook in ["replace.yml", "site.yml"] {
        let summary = stage.play(playbook, None).await?;
        assert!(summary.failed.is_empty(), "{:#?}", stage.told(&[Status::Failed]));
    }
    Ok(())
}

/// What `upgrade --to FILE` does.
async fn upgrade(stage: &mut Stage, to: &Path) -> Result<RunSummary, Failure> {
    let mut extra = stage.fleet.extra.as_ref().clone();
    extra.insert("upgrade_to".to_owned(), Var::Plain(to.to_str().unwrap().into()));
    stage.fleet.extra = Arc::new(extra);
    stage.play("upgrade.yml", None).await
}

/// Another binary, as good as any.
fn another_binary(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let path = dir.path().join("k3sup-rs-next");
    std::fs::write(&path, "another binary").unwrap();
    path
}

/// A cluster whose second server has its data where `replace` sets it aside.
async fn cluster() -> Stage {
    let mut stage = Stage::new(3, 1);
    stage.up().await.unwrap();
    keep_data(&stage);
    stage
}

/// The fakes' nodes write no files: where there is data its directory is made.
fn keep_data(stage: &Stage) {
    let mut world = stage.world.lock();
    let data = format!("{}/server/db", world.layout("server2").data_dir);
    let directory = super::super::fake::File { content: None, mode: 0o700 };
    if world.host("server2").disk.is_some() {
        world.host("server2").files.insert(data, directory);
    }
}

fn members(stage: &Stage) -> BTreeMap<String, String> {
    let world = stage.world.lock();
    assert_eq!((world.founded, world.clusters.len()), (1, 1));
    assert!(!world.quorum_lost);
    let members = world.clusters.values().next().unwrap();
    members.iter().map(|(id, node)| (node.clone(), id.clone())).collect()
}

#[test]
fn a_restart_takes_one_server_after_the_other_and_then_the_agents() {
    block_on(async {
        let mut stage = cluster().await;
        let summary = stage.play("restart.yml", None).await.unwrap();
        assert!(summary.failed.is_empty() && summary.changed);
        let plays: Vec<&[String]> = stage
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Play { hosts, .. } => Some(hosts.as_slice()),
                _ => None,
            })
            .collect();
        assert_eq!(plays, [["server1"], ["server2"], ["server3"], ["agent1"]]);
        assert_eq!(members(&stage).len(), 3);
    });
}

#[test]
fn what_would_cost_quorum_is_refused_before_anything_is_stopped() {
    block_on(async {
        for playbook in ["restart.yml", "upgrade.yml"] {
            let mut stage = cluster().await;
            stage.world.lock().host("server3").running = false;
            stage.world.lock().host("server3").unreachable = true;
            let changes = stage.world.lock().changes;
            let failure = stage.play(playbook, None).await.unwrap_err();
            assert_eq!(failure.code, ExitCode::Refused);
            assert!(failure.message.contains("server3 is down"), "{failure}");
            assert_eq!(stage.world.lock().changes, changes);
        }
    });
}

#[test]
fn a_server_that_is_down_is_restarted_first() {
    block_on(async {
        let mut stage = cluster().await;
        stage.world.lock().host("server3").running = false;
        stage.play("restart.yml", None).await.unwrap();
        let first = stage.events.iter().find_map(|event| match event {
            Event::Play { hosts, .. } => Some(hosts.clone()),
            _ => None,
        });
        assert_eq!(first.unwrap(), ["server3"]);
        assert!(stage.world.lock().hosts.values().all(|host| host.running));
        members(&stage);
    });
}

#[test]
fn an_upgrade_with_nothing_to_upgrade_changes_nothing() {
    block_on(async {
        let mut stage = cluster().await;
        let changes = stage.world.lock().changes;
        let summary = stage.play("upgrade.yml", None).await.unwrap();
        assert!(summary.failed.is_empty() && !summary.changed);
        assert_eq!(stage.world.lock().changes, changes);
    });
}

#[test]
fn a_replacement_that_dies_after_any_change_and_is_run_again_ends_in_the_same_state() {
    block_on(async {
        let mut whole = cluster().await;
        let old = members(&whole);
        let before = whole.world.lock().changes;
        replace(&mut whole, "server2").await.unwrap();
        let changes = whole.world.lock().changes - before;
        assert!(changes > 5, "{changes}");
        let expected = whole.world.lock().end_state();
        for after in 0..changes {
            let mut stage = cluster().await;
            stage.world.lock().changes_left = Some(after);
            // It dies somewhere in the first run or in the second.
            let mut extra = stage.fleet.extra.as_ref().clone();
            for name in ["leaving_node", "leaving_host"] {
                extra.insert(name.to_owned(), Var::Plain("server2".into()));
            }
            stage.fleet.extra = Arc::new(extra);
            drop(stage.play("replace.yml", None).await);
            drop(stage.play("site.yml", None).await);
            stage.world.lock().changes_left = None;
            stage.options.break_lock = true;
            keep_data(&stage);
            replace(&mut stage, "server2").await.unwrap();
            let now = members(&stage);
            assert_eq!(now.len(), 3);
            assert_ne!(now["server2"], old["server2"], "after {after}");
            assert_eq!(stage.world.lock().end_state(), expected, "after {after}");
        }
    });
}

#[test]
fn an_upgrade_that_dies_after_any_change_and_is_run_again_ends_in_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let next = another_binary(&dir);
    block_on(async {
        let mut whole = cluster().await;
        let (old, before) = (members(&whole), whole.world.lock().changes);
        let summary = upgrade(&mut whole, &next).await.unwrap();
        assert!(summary.failed.is_empty(), "{:#?}", whole.told(&[Status::Failed]));
        let changes = whole.world.lock().changes - before;
        assert!(changes >= 20, "{changes}");
        let expected = whole.world.lock().end_state();
        assert!(expected.contains("k3sup-rs.previous"), "{expected}");
        assert!(!expected.contains(".upgrading"), "{expected}");
        // It dies once, or a second time when it is run again.
        for (after, again) in (0..changes).flat_map(|after| [(after, None), (after, Some(3))]) {
            let mut stage = cluster().await;
            for left in [Some(after), again].into_iter().flatten() {
                stage.world.lock().changes_left = Some(left);
                drop(upgrade(&mut stage, &next).await);
                stage.options.break_lock = true;
            }
            stage.world.lock().changes_left = None;
            let summary = upgrade(&mut stage, &next).await.unwrap();
            assert!(summary.failed.is_empty(), "{:#?}", stage.told(&[Status::Failed]));
            assert_eq!(members(&stage), old, "after {after}");
            assert_eq!(stage.world.lock().end_state(), expected, "after {after}");
            let again = upgrade(&mut stage, &next).await.unwrap();
            assert!(!again.changed, "after {after}: {:#?}", stage.told(&[Status::Changed]));
        }
    });
}

#[test]
fn an_upgrade_whose_link_is_cut_after_any_change_needs_one_more_run_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let next = another_binary(&dir);
    block_on(async {
        let mut whole = cluster().await;
        let (old, before) = (members(&whole), whole.world.lock().changes);
        upgrade(&mut whole, &next).await.unwrap();
        let changes = whole.world.lock().changes - before;
        let expected = whole.world.lock().end_state();
        for after in 1..=changes {
            let mut stage = cluster().await;
            stage.world.lock().cut_after = Some(after);
            drop(upgrade(&mut stage, &next).await);
            stage.world.lock().cut_after = None;
            upgrade(&mut stage, &next).await.unwrap();
            assert_eq!(members(&stage), old, "after {after}");
            assert_eq!(stage.world.lock().end_state(), expected, "after {after}");
        }
    });
}
