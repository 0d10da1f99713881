//! site.yml and reset.yml with load balancers.

use super::*;

/// The text of a file of a host.
fn text(stage: &Stage, host: &str, path: &str) -> String {
    let world = stage.world.lock();
    let file = world.hosts[host].files.get(&format!("/lab/{host}{path}"));
    let content = file.unwrap_or_else(|| panic!("{host} has no {path}")).content.clone();
    String::from_utf8(content.unwrap().to_vec()).unwrap()
}

const CONFIG: &str = "/etc/haproxy/haproxy.cfg";
const NAMES: &str = "/etc/k3sup/config.yaml.d/loadbalancer.yaml";

#[test]
fn a_balancer_knows_all_servers_and_the_servers_its_name() {
    block_on(async {
        let mut stage = Stage::new(3, 1).with_balancers(1);
        let summary = stage.up().await.unwrap();
        assert!(summary.failed.is_empty(), "{:#?}", stage.told(&[Status::Failed]));
        let config = text(&stage, "lb1", CONFIG);
        for server in ["server1 10.0.0.1:6443 ", "server3 10.0.0.3:6443 ", "server3 10.0.0.3:2379 "]
        {
            assert!(config.contains(&format!("server {server}")), "{config}");
        }
        assert!(!config.contains("agent1") && !config.contains("9345"), "{config}");
        let names = text(&stage, "server2", NAMES);
        assert!(names.ends_with("tls-san+:\n  - 10.0.9.1\n  - lb1\n"), "{names}");
        {
            let world = stage.world.lock();
            let lb1 = &world.hosts["lb1"];
            assert!(lb1.packages.contains("haproxy"));
            let haproxy = lb1.services["haproxy"];
            assert!(haproxy.running && haproxy.enabled && !lb1.running, "{haproxy:?}");
        }
        let again = stage.up().await.unwrap();
        assert!(!again.changed, "{:#?}", stage.told(&[Status::Changed]));
        assert_eq!(again.round_trips_max, 2);
    });
}

#[test]
fn a_new_server_is_added_by_a_reload_and_the_others_stay_as_they_are() {
    block_on(async {
        let mut stage = Stage::new(3, 0).with_balancers(2);
        let fourth = stage.fleet.hosts.remove(2);
        stage.fleet.groups.get_mut("servers").unwrap().pop();
        stage.up().await.unwrap();
        let reloads = |stage: &Stage| stage.world.lock().hosts["lb2"].services["haproxy"].reloads;
        let before = reloads(&stage);
        stage.fleet.hosts.insert(2, fourth);
        stage.fleet.groups.get_mut("servers").unwrap().push("server3".to_owned());
        stage.up().await.unwrap();
        assert!(text(&stage, "lb1", CONFIG).contains("server server3 10.0.0.3:6443 "));
        assert_eq!(reloads(&stage), before + 1);
        let told = stage.told(&[Status::Changed]);
        assert!(!told.iter().any(|line| line.starts_with("server1")), "{told:#?}");
    });
}

#[test]
fn a_run_without_the_balancers_leaves_the_servers_alike() {
    block_on(async {
        let mut stage = Stage::new(3, 0).with_balancers(2);
        stage.up().await.unwrap();
        stage.options.limit = Some("servers".to_owned());
        let limited = stage.up().await.unwrap();
        assert!(!limited.changed, "{:#?}", stage.told(&[Status::Changed]));
    });
}

#[test]
fn a_reset_takes_away_what_came_with_the_balancer() {
    block_on(async {
        let mut stage = Stage::new(1, 0).with_balancers(1);
        stage.up().await.unwrap();
        stage.options.ends_cluster = true;
        let summary = stage.play("reset.yml", None).await.unwrap();
        assert!(summary.failed.is_empty(), "{:#?}", stage.told(&[Status::Failed]));
        let world = stage.world.lock();
        let lb1 = &world.hosts["lb1"];
        assert!(!lb1.services["haproxy"].running && !lb1.packages.contains("haproxy"));
        let left: Vec<_> = lb1.files.keys().filter(|path| path.contains("haproxy")).collect();
        assert!(left.iter().all(|path| path.ends_with("/etc/haproxy")), "{left:?}");
    });
}
