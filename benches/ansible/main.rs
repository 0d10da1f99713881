//! The same playbook, run by Debian's Ansible and by this program on the same hosts: 20 tasks, from
//! nothing and with nothing to change; and a file of 64 MiB beside `scp`. "First run" is on hosts that
//! have no executor; the one "of a build" packs it too.
//!
//! `K3SUP_TEST_HOSTS=$(.ci/hosts target/hosts-python python3) cargo bench --bench ansible [-- ROUNDS hosts=1,5,10]`
//! as root; the recorded results are in docs/benchmarks.md. `BENCH_BINARY` is the program to measure,
//! if not the one that was built for this. Hosts are systemd-nspawn machines with Debian's OpenSSH and
//! systemd. In each round both do the same on the same hosts, and hosts must be the same afterwards.
//!
//! Processor time is counted when this process is in a control group of its own:
//! `mkdir /sys/fs/cgroup/cpuacct/bench; echo $$ >/sys/fs/cgroup/cpuacct/bench/cgroup.procs` in the shell.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a benchmark fails by panicking and tells by printing"
)]

#[allow(dead_code, reason = "not all that tests do with control groups is done here")]
#[path = "../../tests/hosts/cgroups.rs"]
mod cgroups;
#[expect(dead_code, reason = "not all that tests do with machines is done here")]
#[path = "../../tests/hosts/machines.rs"]
mod machines;
mod site;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;
mod took;

use site::{Site, Tool};
use table::Row;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3);
    let hosts = std::env::args().find_map(|word| word.strip_prefix("hosts=").map(str::to_owned));
    let hosts = hosts.unwrap_or_else(|| "1,5,10".to_owned());
    let counts: Vec<usize> =
        hosts.split(',').map(|word| word.parse().expect("hosts=1,5")).collect();
    let most = counts.iter().max().copied().unwrap_or(1);
    let Some(site) = Site::boot(u8::try_from(most).expect("few hosts")) else { return };
    println!("{}\n", site.about());
    for count in counts {
        table::head("Ansible");
        playbook(&site, count, rounds);
        table::head("scp");
        file(&site, count, rounds);
    }
}

/// First runs and runs with nothing to change.
fn playbook(site: &Site, count: usize, rounds: usize) {
    let [mut fresh, mut first, mut known, mut quiet] =
        ["first run of a build", "first run", "first run, pushed before", "no change"]
            .map(|what| Row::new(what, count));
    for _ in 0..rounds {
        site.clean(count, true);
        let theirs = site.play(Tool::Ansible, count, true);
        let made = site.state(count);
        let theirs_quiet = site.play(Tool::Ansible, count, false);
        site.clean(count, true);
        site.forget();
        fresh.add(theirs, site.play(Tool::Ours, count, true));
        site.clean(count, true);
        first.add(theirs, site.play(Tool::Ours, count, true));
        assert_eq!(made, site.state(count), "hosts are not what Ansible made of them");
        quiet.add(theirs_quiet, site.play(Tool::Ours, count, false));
        site.clean(count, false);
        known.add(theirs, site.play(Tool::Ours, count, true));
    }
    for row in [fresh, first, known, quiet] {
        row.print();
    }
}

/// The push of a file; hosts have the executor.
fn file(site: &Site, count: usize, rounds: usize) {
    let mut row = Row::new("64 MiB", count);
    for _ in 0..rounds {
        site.clean(count, false);
        let theirs = site.push(Tool::Scp, count);
        site.clean(count, false);
        row.add(theirs, site.push(Tool::Ours, count));
    }
    row.print();
}
