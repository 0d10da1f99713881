//! How long each host's certificates last.

use super::finding::{Check, Finding};
use super::limits::{CA_DAYS, LEAF_DAYS};
use super::scene::{HostSeen, Scene};
use crate::cluster::layout::Distribution;
use crate::cluster::view::CertificateView;

const DAY_S: u64 = 86_400;

/// For each host one finding for each certificate that ends soon, or one that says how long all last.
pub(super) fn check(scene: &Scene) -> Vec<Finding> {
    let of = |host: &HostSeen| -> Vec<Finding> {
        let found = host_certificates(scene, host).into_iter();
        found.map(|found| found.on(&host.name)).collect()
    };
    scene.hosts.iter().flat_map(of).collect()
}

fn host_certificates(scene: &Scene, host: &HostSeen) -> Vec<Finding> {
    let own = &host.certificates;
    let certificates = match (&host.view, own.is_empty()) {
        (Some(view), true) => &view.certificates,
        _ => own,
    };
    let Some(first) = certificates.iter().map(|one| one.not_after_unix_s).min() else {
        return Vec::new();
    };
    let findings: Vec<Finding> =
        certificates.iter().filter_map(|one| ends(scene, host, one)).collect();
    if findings.is_empty() {
        let days = first.saturating_sub(scene.now_unix_s) / DAY_S;
        return vec![Finding::good(Check::Certificates, format!("{days} days"))];
    }
    findings
}

fn ends(scene: &Scene, host: &HostSeen, one: &CertificateView) -> Option<Finding> {
    let is_ca = one.subject == one.issuer || one.file.ends_with("-ca.crt");
    let left_s = one.not_after_unix_s.checked_sub(scene.now_unix_s);
    let action = if is_ca { renew_ca(scene) } else { renew(scene, host) };
    let file = format!("{}/{}", host.data_dir, one.file);
    let Some(days) = left_s.map(|left| left / DAY_S) else {
        let over = (scene.now_unix_s - one.not_after_unix_s) / DAY_S;
        let message = format!("the certificate {file} is over since {over} days");
        return Some(Finding::bad(Check::Certificates, "over", message).action(action));
    };
    if days >= if is_ca { CA_DAYS } else { LEAF_DAYS } {
        return None;
    }
    let message = format!("the certificate {file} ends in {days} days");
    Some(Finding::warning(Check::Certificates, format!("{days} days"), message).action(action))
}

/// Leaves are made anew at a start, when less than 120 days are left.
fn renew(scene: &Scene, host: &HostSeen) -> String {
    match (host.is_lab(), host.service_name.as_str()) {
        (false, service) if !service.is_empty() => {
            format!(
                "on {}: `systemctl restart {service}`, which makes it anew; one server at a time",
                host.name
            )
        }
        _ => format!(
            "k3sup-rs lab stop {0} && k3sup-rs lab start {0}; then {1}",
            host.name,
            scene.command("up")
        ),
    }
}

fn renew_ca(scene: &Scene) -> String {
    match scene.distribution {
        Distribution::K3s => {
            "`k3s certificate rotate-ca` on a server; see K3s's documentation".to_owned()
        }
        Distribution::Embedded => {
            "nothing renews a CA in place: save a snapshot and make the cluster anew \
                                   before it ends"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity::{self, Bad, Good, Warning};
    use crate::cluster::view::ClusterView;

    const NOW: u64 = 1_800_000_000;

    fn certificate(file: &str, days: i64) -> CertificateView {
        CertificateView {
            file: file.to_owned(),
            subject: "x".to_owned(),
            issuer: "y".to_owned(),
            not_after_unix_s: NOW.checked_add_signed(days * 86_400).unwrap(),
        }
    }

    fn found(
        distribution: Distribution,
        certificates: Vec<CertificateView>,
    ) -> Vec<(Severity, String)> {
        let host = HostSeen {
            name: "s1".to_owned(),
            data_dir: "/data".to_owned(),
            service_name: "k3sup".to_owned(),
            certificates,
            ..HostSeen::default()
        };
        let scene = Scene { distribution, hosts: vec![host], now_unix_s: NOW, ..Scene::default() };
        let told = |found: Finding| {
            (found.severity, format!("{} {}", found.value, found.action.unwrap_or_default()))
        };
        check(&scene).into_iter().map(told).collect()
    }

    #[test]
    fn each_certificate_is_judged_by_its_kind() {
        for (file, days, expected) in [
            ("server/tls/serving.crt", 365, Good),
            ("server/tls/serving.crt", 30, Good),
            ("server/tls/serving.crt", 29, Warning),
            ("server/tls/serving.crt", 0, Warning),
            ("server/tls/serving.crt", -1, Bad),
            ("server/tls/server-ca.crt", 180, Good),
            ("server/tls/server-ca.crt", 179, Warning),
            ("server/tls/server-ca.crt", -1, Bad),
        ] {
            let found = found(Distribution::Embedded, vec![certificate(file, days)]);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].0, expected, "{file} {days}");
        }
    }

    #[test]
    fn what_to_do_depends_on_what_ends() {
        let leaf = || vec![certificate("server/tls/serving.crt", 3)];
        let ca = || vec![certificate("server/tls/server-ca.crt", 3)];
        let action = |distribution, certificates| found(distribution, certificates).remove(0).1;
        assert!(
            action(Distribution::Embedded, leaf())
                .contains("3 days on s1: `systemctl restart k3sup`")
        );
        assert!(action(Distribution::K3s, ca()).contains("rotate-ca"));
        assert!(action(Distribution::Embedded, ca()).contains("snapshot"));
    }

    #[test]
    fn all_that_end_are_named_and_the_nodes_own_word_does_where_the_disk_is_not_seen() {
        let ends =
            vec![certificate("a.crt", 1), certificate("b.crt", 400), certificate("c.crt", -9)];
        let severities: Vec<Severity> =
            found(Distribution::Embedded, ends).iter().map(|found| found.0).collect();
        assert_eq!(severities, [Warning, Bad]);
        assert!(found(Distribution::Embedded, Vec::new()).is_empty());
        let view =
            ClusterView { certificates: vec![certificate("a.crt", 200)], ..ClusterView::default() };
        let host = HostSeen { view: Some(view), ..HostSeen::default() };
        let scene = Scene { hosts: vec![host], now_unix_s: NOW, ..Scene::default() };
        assert_eq!(check(&scene)[0].value, "200 days");
    }
}
