//! Which snapshots a retention lets go, and whether one is overdue.

use super::SnapshotName;

/// The names that go when the newest `keep` of what `node` took under `base` stay; oldest first. What
/// other nodes took, or what has another base, is never among them. With `keep` 0 all stay, as in K3s.
pub fn expired<'a>(
    names: impl IntoIterator<Item = &'a str>,
    base: &str,
    node: &str,
    keep: usize,
) -> Vec<String> {
    if keep == 0 {
        return Vec::new();
    }
    let parsed = names.into_iter().filter_map(|name| Some((SnapshotName::parse(name)?, name)));
    let mut own: Vec<(u64, &str)> = parsed
        .filter(|(parsed, _)| parsed.is_of(base, node))
        .map(|(parsed, name)| (parsed.unix_s, name))
        .collect();
    own.sort_unstable();
    own.truncate(own.len().saturating_sub(keep));
    own.into_iter().map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_stay_and_nobody_elses_go() {
        let names = [
            "etcd-snapshot-s1-30",
            "etcd-snapshot-s1-9.zip",
            "etcd-snapshot-s1-100",
            "etcd-snapshot-s2-1",
            "etcd-snapshot-extra-s1-1",
            "on-demand-s1-1",
            "etcd-snapshot-s1-30.part",
        ];
        let gone = |keep| expired(names, "etcd-snapshot", "s1", keep);
        assert_eq!(gone(2), ["etcd-snapshot-s1-9.zip"]);
        assert_eq!(gone(1), ["etcd-snapshot-s1-9.zip", "etcd-snapshot-s1-30"]);
        assert_eq!(gone(0), Vec::<String>::new());
        assert_eq!(gone(5), Vec::<String>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// However the names of servers and bases are alike: exactly `keep` of the newest stay, and
        /// only this server's go.
        #[test]
        fn one_server_never_eats_anothers(
            taken in proptest::collection::btree_set((0..3usize, 0..3usize, 0..50u64), 0..60),
            keep in 1..6usize,
        ) {
            let (bases, nodes) = (["a", "a-b", "a-b-b"], ["b", "c", "b-b"]);
            let name = |(base, node, time): &(usize, usize, u64)| {
                SnapshotName::new(bases[*base], nodes[*node], *time, false).to_string()
            };
            let names: Vec<String> = taken.iter().map(name).collect();
            let gone = expired(names.iter().map(String::as_str), "a", "c", keep);
            let own: Vec<&String> = names.iter().filter(|name| name.starts_with("a-c-")).collect();
            prop_assert!(gone.iter().all(|name| own.contains(&name)));
            prop_assert_eq!(own.len() - gone.len(), own.len().min(keep));
        }
    }
}
