//! Which cluster a K3s server's data is of: the one of before a restore, or the one that it made.
//!
//! K3s keeps nothing on disk that tells. The CA is the same, and etcd computes the cluster's number from the
//! address of the member that founds it. But a member that was reset or joined anew has a new name
//! (`pkg/etcd/etcd.go`, `setName`), and while it is fenced only the restore itself gives it one. So the
//! fence lists the names of before.

use crate::cluster::fence::Fence;
use crate::cluster::safety::node_of;
use crate::cluster::view::DiskView;

/// What stands for the cluster of before.
const BEFORE: &str = "before";

/// The cluster of a server's data: that of before, or the restore that made it. `restored` is what stayed
/// of the last restore that ended. Without either it is the CA's hash, as everywhere else.
pub fn cluster_of_k3s(disk: &DiskView, fence: Option<&Fence>, restored: Option<&Fence>) -> String {
    let Some(known) = fence.or(restored) else {
        return disk.restore_id.clone().unwrap_or_else(|| disk.cluster_id.clone());
    };
    let name = &disk.member_name;
    // A store whose member has no name yet is not one that a restore made.
    if name.is_empty() || known.past.contains(name) {
        return BEFORE.to_owned();
    }
    // It was reset, or joined the server that was. A reset that did not end is the work of nobody.
    let is_first = known.first == node_of(name);
    match &disk.restore_id {
        Some(id) => id.clone(),
        None if is_first && fence.is_some() => BEFORE.to_owned(),
        None => known.restore_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence() -> Fence {
        Fence {
            restore_id: "7-r".into(),
            first: "s1".into(),
            past: vec!["s1-00000001".into(), "s2-00000002".into()],
            ..Fence::default()
        }
    }

    fn disk(member: &str, restore: Option<&str>) -> DiskView {
        DiskView {
            cluster_id: "ca".into(),
            member_name: member.into(),
            restore_id: restore.map(str::to_owned),
            ..DiskView::default()
        }
    }

    #[test]
    fn a_members_name_tells_old_data_from_new() {
        let fence = fence();
        let of = |disk: &DiskView| cluster_of_k3s(disk, Some(&fence), None);
        assert_eq!(of(&disk("s2-00000002", None)), BEFORE);
        assert_eq!(of(&disk("s1-00000001", Some("3-r"))), BEFORE, "an earlier restore made it");
        assert_eq!(of(&disk("", None)), BEFORE);
        assert_eq!(of(&disk("s1-000000aa", Some("7-r"))), "7-r");
        assert_eq!(of(&disk("s2-000000bb", None)), "7-r", "it joined");
        assert_eq!(of(&disk("s1-000000aa", None)), BEFORE, "a reset that did not end");
    }

    #[test]
    fn when_it_is_over_what_stayed_of_it_tells() {
        let fence = fence();
        let of = |disk: &DiskView| cluster_of_k3s(disk, None, Some(&fence));
        assert_eq!(of(&disk("s2-00000002", None)), BEFORE);
        assert_eq!(of(&disk("s2-000000bb", None)), "7-r");
        assert_eq!(of(&disk("s1-000000cc", None)), "7-r", "the first was built anew since");
        assert_eq!(cluster_of_k3s(&disk("s2-00000002", None), None, None), "ca");
    }
}
