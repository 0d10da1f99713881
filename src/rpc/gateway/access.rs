//! Who may ask over plain HTTP: names this member answers to, and pages in a browser (etcd
//! `server/embed/serve.go`, `accessController`).

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue, header};

/// Every name or page.
const ALL: &str = "*";

/// Names and pages that are let in; an empty list lets in all, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The origins of pages that may read answers; `*` is all (etcd's `--cors`).
    pub cors: BTreeSet<String>,
    /// The host names that requests without TLS may be for, so that no name of a foreign site can
    /// be made to point here; `*` is all (etcd's `--host-whitelist`).
    pub host_whitelist: BTreeSet<String>,
}

impl Default for Access {
    /// etcd's defaults: everyone.
    fn default() -> Self {
        let all = BTreeSet::from([ALL.to_owned()]);
        Self { cors: all.clone(), host_whitelist: all }
    }
}

impl Access {
    /// Whether a request for this host, without TLS, is answered.
    pub(crate) fn admits(&self, host: &str) -> bool {
        let lists = |name: &str| self.host_whitelist.contains(name);
        self.host_whitelist.is_empty() || lists(ALL) || lists(host)
    }

    /// Lets the page that asked read the answer, if it may.
    pub(crate) fn allow_origin(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let named =
            origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.cors.contains(origin)));
        let all = (self.cors.is_empty() || self.cors.contains(ALL))
            .then(|| HeaderValue::from_static(ALL));
        let Some(allowed) = all.or_else(|| named.cloned()) else { return };
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let headers = HeaderValue::from_static("accept, content-type, authorization");
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
}

/// The name in a request's `Host`, without its port.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
    .trim_start_matches('[')
    .trim_end_matches(']')
}

/// What a request for an unknown host is told.
pub(crate) fn unknown_host(host: &str) -> String {
    format!(
        "\nThis member received the request, but does not answer to the name in its Host header.\n\n\
         Use TLS, or allow the name with --host-whitelist {host:?}: this keeps foreign pages from \
         reaching it by a name of their own (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins_are_let_in_by_name() {
        let all = Access::default();
        assert!(all.admits("anything"));
        let some = Access {
            cors: BTreeSet::from(["https://page".to_owned()]),
            host_whitelist: BTreeSet::from(["etcd.local".to_owned()]),
        };
        assert!(some.admits("etcd.local") && !some.admits("evil"));
        let allowed = |access: &Access, origin: &'static str| {
            let mut answer = HeaderMap::new();
            access.allow_origin(Some(&HeaderValue::from_static(origin)), &mut answer);
            answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|o| o.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed(&all, "https://x").as_deref(), Some("*"));
        assert_eq!(allowed(&some, "https://page").as_deref(), Some("https://page"));
        assert_eq!(allowed(&some, "https://x"), None);
    }

    #[test]
    fn a_host_may_have_a_port() {
        let hosts = ["a:1", "a", "[::1]:2379", "127.0.0.1:2379"];
        assert_eq!(hosts.map(host_name), ["a", "a", "::1", "127.0.0.1"]);
    }
}
