//! The cluster's state as tables: what `status` and `nodes` show. Pure.

use std::fmt::Write as _;

use comfy_table::Table;

use crate::cli::output::{age, bytes, render, table};
use crate::cluster::quorum::{quorum, survives};
use crate::cluster::snapshots::SnapshotStanding;
use crate::cluster::view::{ClusterView, MemberView, NodeView};

/// Certificates with fewer days left than this are pointed out.
const CERTIFICATE_WARN_DAYS: u64 = 30;

/// All that `status` shows: summary, members, nodes, certificates, warnings.
pub fn status(view: &ClusterView, now_unix_s: u64) -> String {
    let mut text = summary(view);
    let _ = write!(text, "\n\n{}", members(view));
    let _ = write!(text, "\n\n{}", nodes(&view.nodes, now_unix_s, false));
    if !view.certificates.is_empty() {
        let _ = write!(text, "\n\n{}", certificates(view, now_unix_s));
    }
    if !view.snapshots.is_empty() {
        let _ = write!(text, "\n\n{}", snapshots(view, now_unix_s));
    }
    for warning in warnings(view, now_unix_s) {
        let _ = write!(text, "\nwarning: {warning}");
    }
    text
}

fn summary(view: &ClusterView) -> String {
    let voters = view.members.iter().filter(|member| member.voter).count();
    let healthy = view.members.iter().filter(|member| member.voter && member.healthy).count();
    let state = match survives(voters, healthy) {
        Some(1) => "survives 1 more failure".to_owned(),
        Some(0) => "survives no further failure".to_owned(),
        Some(more) => format!("survives {more} more failures"),
        None => "QUORUM LOST: writes and linearizable reads fail".to_owned(),
    };
    let needed = quorum(voters);
    let leader = view.leader_id.as_deref().map_or("none", |id| member_name(view, id));
    format!(
        "cluster {}  term {}  revision {}\nleader  {leader}\nquorum  {healthy} of {voters} voters \
         healthy, {needed} needed: {state}",
        view.cluster_id, view.term, view.revision
    )
}

fn member_name<'a>(view: &'a ClusterView, id: &'a str) -> &'a str {
    let member = view.members.iter().find(|member| member.id == id);
    member.map(|member| member.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(id)
}

fn members(view: &ClusterView) -> String {
    let mut rows = table([
        "MEMBER",
        "ID",
        "ROLE",
        "HEALTHY",
        "TERM",
        "LAG",
        "DB SIZE",
        "VERSION",
        "CLIENT URL",
    ]);
    for member in &view.members {
        rows.add_row([
            if member.name.is_empty() { "<unstarted>" } else { &member.name }.to_owned(),
            member.id.clone(),
            role(view, member).to_owned(),
            if member.healthy { "yes" } else { "NO" }.to_owned(),
            if member.healthy { view.term.to_string() } else { "-".to_owned() },
            member.lag.map_or("-".to_owned(), |lag| lag.to_string()),
            member.db_bytes.map_or("-".to_owned(), bytes),
            member.version.clone().unwrap_or_else(|| "-".to_owned()),
            member.client_urls.join(","),
        ]);
    }
    render(&mut rows)
}

fn role(view: &ClusterView, member: &MemberView) -> &'static str {
    if view.leader_id.as_ref() == Some(&member.id) {
        "leader"
    } else if member.voter {
        "voter"
    } else {
        "learner"
    }
}

/// The nodes as `kubectl get nodes` lists them; `wide` adds what `-o wide` adds.
pub fn nodes(nodes: &[NodeView], now_unix_s: u64, wide: bool) -> String {
    let mut rows =
        if wide { wide_header() } else { table(["NAME", "STATUS", "ROLES", "AGE", "VERSION"]) };
    for node in nodes {
        let mut row = vec![
            node.name.clone(),
            if node.ready { "Ready" } else { "NotReady" }.to_owned(),
            if node.roles.is_empty() { "<none>".to_owned() } else { node.roles.join(",") },
            age(now_unix_s.saturating_sub(node.created_unix_s)),
            node.version.clone(),
        ];
        if wide {
            row.extend([node.internal_ip.clone(), node.os_image.clone(), node.kernel.clone()]);
        }
        rows.add_row(row);
    }
    render(&mut rows)
}

fn wide_header() -> Table {
    let header =
        ["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION"];
    table(header)
}

fn certificates(view: &ClusterView, now_unix_s: u64) -> String {
    let mut rows = table(["CERTIFICATE", "SUBJECT", "ISSUER", "EXPIRES IN"]);
    for certificate in &view.certificates {
        let left = certificate.not_after_unix_s.checked_sub(now_unix_s);
        rows.add_row([
            certificate.file.clone(),
            certificate.subject.clone(),
            certificate.issuer.clone(),
            left.map_or("EXPIRED".to_owned(), age),
        ]);
    }
    render(&mut rows)
}

fn snapshots(view: &ClusterView, now_unix_s: u64) -> String {
    let mut rows = table(["SNAPSHOTS OF", "LAST GOOD", "AGE", "IN S3", "NEXT IN", "SCHEDULE"]);
    let ago = |time: Option<u64>| {
        time.map_or("-".to_owned(), |time| age(now_unix_s.saturating_sub(time)))
    };
    for standing in &view.snapshots {
        let next = standing.next_unix_s.map(|next| next.saturating_sub(now_unix_s));
        rows.add_row([
            standing.node.clone(),
            standing.last.clone().unwrap_or_else(|| "none".to_owned()),
            ago(standing.last_unix_s),
            ago(standing.uploaded_unix_s),
            next.map_or("-".to_owned(), age),
            if standing.schedule.is_empty() { "none" } else { &standing.schedule }.to_owned(),
        ]);
    }
    render(&mut rows)
}

fn warnings(view: &ClusterView, now_unix_s: u64) -> Vec<String> {
    let mut warnings: Vec<String> =
        view.alarms.iter().map(|alarm| format!("alarm {alarm}")).collect();
    let voters = view.members.iter().filter(|member| member.voter).count();
    if voters > 0 && voters.is_multiple_of(2) {
        warnings.push(format!("{voters} voters survive no more failures than {}", voters - 1));
    }
    warnings.extend(view.snapshots.iter().flat_map(SnapshotStanding::warnings));
    for member in view.members.iter().filter(|member| !member.healthy) {
        let name = if member.name.is_empty() { &member.id } else { &member.name };
        warnings.push(format!("member {name} does not answer"));
    }
    for node in view.nodes.iter().filter(|node| !node.ready) {
        warnings.push(format!("node {} is not ready", node.name));
    }
    for certificate in &view.certificates {
        let left_days = certificate.not_after_unix_s.saturating_sub(now_unix_s) / 86_400;
        if left_days < CERTIFICATE_WARN_DAYS {
            warnings.push(format!("{} expires in {left_days} days", certificate.file));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::CertificateView;

    fn member(name: &str, id: &str, healthy: bool) -> MemberView {
        MemberView {
            id: id.into(),
            name: name.into(),
            client_urls: vec![format!("https://{id}:2379")],
            voter: true,
            healthy,
            lag: healthy.then_some(3),
            db_bytes: healthy.then_some(2048),
            version: healthy.then(|| "0.1.0".into()),
            ..MemberView::default()
        }
    }

    fn view() -> ClusterView {
        ClusterView {
            cluster_id: "c1".into(),
            term: 4,
            revision: 77,
            leader_id: Some("b".into()),
            members: vec![
                member("s1-x", "a", true),
                member("s2-x", "b", true),
                member("s3-x", "c", false),
            ],
            nodes: vec![NodeView { name: "agent1".into(), ready: true, ..NodeView::default() }],
            certificates: vec![CertificateView {
                file: "server/tls/x.crt".into(),
                not_after_unix_s: 86_400,
                ..CertificateView::default()
            }],
            ..ClusterView::default()
        }
    }

    #[test]
    fn status_says_what_a_person_needs() {
        insta::assert_snapshot!(status(&view(), 100));
    }

    #[test]
    fn lost_quorum_is_shouted() {
        let mut view = view();
        view.leader_id = None;
        for member in &mut view.members {
            member.healthy = member.id == "a";
        }
        assert!(
            summary(&view)
                .contains("leader  none\nquorum  1 of 3 voters healthy, 2 needed: QUORUM LOST")
        );
    }
}
