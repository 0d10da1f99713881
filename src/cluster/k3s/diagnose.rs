//! Why a K3s node does not come up: from the text of its log to the cause and what to do. Pure.
//!
//! K3s says everything somewhere in its log, and goes on trying for ever with most of it; the texts
//! are those of its sources, older ones among them.

/// What is wrong, and what mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The cause, in one line.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Texts of the log, any of which means the diagnosis. Those that say the cause come before those
/// that only say the consequence.
const TABLE: &[(&[&str], Diagnosis)] = &[
    (
        &["token CA hash does not match the Cluster CA certificate hash"],
        Diagnosis {
            cause: "the token is of another cluster: its CA hash is not that of the CA that the server shows",
            remedy: "take the token from server/node-token in the data directory of a server of this \
                     cluster; or the address leads to another cluster's server",
        },
    ),
    (
        &[
            "bootstrap data already found and encrypted with different token",
            "no bootstrap data found in datastore - check server token value",
            "failed to normalize server token",
            "invalid token format",
            "invalid token CA hash length",
            "token is required to join a cluster",
            "--token is required",
            "not authorized",
            "401 Unauthorized",
        ],
        Diagnosis {
            cause: "the token is not the cluster's",
            remedy: "set `token` to what server/token in the data directory of a running server says; a \
                     server token joins servers and agents, an agent token agents only",
        },
    ),
    (
        &["critical configuration value mismatch", "critical configuration mismatched"],
        Diagnosis {
            cause: "a setting that all servers must share differs from the running servers'",
            remedy: "the log names the setting (`critical configuration mismatched: …`); set it in `config` \
                     of the group of servers, not of one host",
        },
    ),
    (
        &[
            "duplicate node name found",
            "duplicate hostname or contents of '/etc/rancher/node/password'",
        ],
        Diagnosis {
            cause: "the cluster knows another node of this name, or this one from before it was installed \
                    anew",
            remedy: "run again with a reachable server in the inventory: the old node is removed first; or \
                     `kubectl delete node NAME` and its secret NAME.node-password.k3s in kube-system",
        },
    ),
    (
        &["Node password rejected", "unable to verify password for node"],
        Diagnosis {
            cause: "the node's password is not the one that the cluster keeps for its name",
            remedy: "`kubectl -n kube-system delete secret NAME.node-password.k3s`, or keep \
                     /etc/rancher/node when a host is installed anew",
        },
    ),
    (
        &["newer than datastore and could cause a cluster outage"],
        Diagnosis {
            cause: "files of this server are newer than the cluster's: the clocks of the servers differ",
            remedy: "set the clocks right (NTP), move the files that the log names away and start again: they \
                     are made anew from the datastore",
        },
    ),
    (
        &["server time isn't set properly", "certificate has expired or is not yet valid"],
        Diagnosis {
            cause: "the clock of this host, or of the server, is wrong, or a certificate has expired",
            remedy: "set the clock right (NTP); `k3s certificate check` on the host shows certificates",
        },
    ),
    (
        &["tombstone file has been detected", "This node has been removed from the cluster"],
        Diagnosis {
            cause: "this server's member was removed from the cluster",
            remedy: "run again: its data is set aside and it joins as a new member",
        },
    ),
    (
        &[
            "this server is not a member of the etcd cluster",
            "this server is a not a member of the etcd cluster",
        ],
        Diagnosis {
            cause: "the data on this server's disk is of a member that the cluster does not have (its address \
                    may have changed)",
            remedy: "give it its old address, or `k3sup-rs reset --limit` it and run again: it joins anew",
        },
    ),
    (
        &["etcd: snapshot path does not exist", "etcd disabled"],
        Diagnosis {
            cause: "the server to join through has no embedded etcd",
            remedy: "join through one that has, or set `datastore_endpoint` on all servers",
        },
    ),
    (
        &["etcdserver: mvcc: database space exceeded", "NOSPACE"],
        Diagnosis {
            cause: "the datastore is full",
            remedy: "compact and defragment it, or raise `etcd-arg: quota-backend-bytes=…`; then clear the alarm",
        },
    ),
    (
        &["no space left on device"],
        Diagnosis {
            cause: "the disk is full",
            remedy: "make room under /var/lib/rancher and run again",
        },
    ),
    (
        &["bind: address already in use"],
        Diagnosis {
            cause: "another process has a port that K3s needs",
            remedy: "the log names the port; `ss -ltnp` on the host shows who has it",
        },
    ),
    (
        &["invalid datastore endpoint", "unknown driver", "failed to create kine", "building kine"],
        Diagnosis {
            cause: "the external datastore cannot be used",
            remedy: "`datastore_endpoint` must be like postgres://…, mysql://… or https://…:2379, reachable from \
                     every server, with its TLS files",
        },
    ),
    (
        &["requires additional privilege"],
        Diagnosis { cause: "K3s does not run as root", remedy: "set `ansible_become: true`" },
    ),
    (
        &["flag provided but not defined", "Unknown flag"],
        Diagnosis {
            cause: "this version of K3s does not know a setting",
            remedy: "the log names it; take it out of `config`, or use a K3s that has it",
        },
    ),
    (
        &["panic: "],
        Diagnosis {
            cause: "K3s itself crashed",
            remedy: "the log has the trace of its crash; another version may not crash",
        },
    ),
    (
        &[
            "too many learner members",
            "Waiting for other members to finish joining etcd cluster",
            "unhealthy cluster",
        ],
        Diagnosis {
            cause: "another member is still joining, or the cluster is not healthy: etcd takes one at a time",
            remedy: "`k3sup-rs status` shows the members; bring up or remove the one that is not healthy, then \
                     run again",
        },
    ),
    (
        &["has not yet been promoted from learner to voting member"],
        Diagnosis {
            cause: "the member has not caught up with the cluster's data yet",
            remedy: "wait and run again; when it does not move, look at the disks and at port 2380 between the \
                     servers",
        },
    ),
    (
        &["etcdserver: no leader", "Waiting to retrieve etcd cluster member list"],
        Diagnosis {
            cause: "the cluster has no leader: fewer of its servers run than a quorum",
            remedy: "start the other servers; `k3sup-rs up` starts all that have data together",
        },
    ),
    (
        &[
            "connection refused",
            "no route to host",
            "i/o timeout",
            "context deadline exceeded",
            "all servers failed",
        ],
        Diagnosis {
            cause: "the server to join through cannot be reached",
            remedy: "6443 must be open from every node to every server, 2379 and 2380 between servers, each at \
                     the server's own address too",
        },
    ),
];

/// The cause that the log of a node tells, if it is one that is known. The last of several causes
/// that exclude each other is not looked for: the table's order decides.
pub fn diagnose(log: &str) -> Option<Diagnosis> {
    let says = |text: &&str| log.contains(*text);
    TABLE.iter().find(|(texts, _)| texts.iter().any(says)).map(|(_, found)| *found)
}

/// Lines of a log that are worth showing: those that name a cause, and the last ones.
pub fn telling_lines(log: &str, last: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.len().saturating_sub(last);
    let telling = |line: &&str| {
        line.contains("level=fatal") || line.contains("critical configuration mismatched")
    };
    let mut kept: Vec<&str> = Vec::new();
    for line in
        lines.iter().take(tail).copied().filter(telling).chain(lines.iter().skip(tail).copied())
    {
        // A unit that is started again and again says the same each time.
        if kept.last() != Some(&line) {
            kept.push(line);
        }
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of K3s's log, and a word of the cause that it must lead to.
    const CASES: &[(&str, &str)] = &[
        (
            "level=fatal msg=\"starting kubernetes: preparing server: token CA hash does not match the Cluster \
             CA certificate hash: ab != cd\"",
            "another cluster",
        ),
        (
            "level=fatal msg=\"Error: preparing server: failed to bootstrap cluster data: bootstrap data already \
             found and encrypted with different token\"",
            "not the cluster's",
        ),
        ("msg=\"failed to get CA certs: dial tcp: i/o timeout\"", "cannot be reached"),
        (
            "level=fatal msg=\"Error: failed to validate server configuration: critical configuration value \
             mismatch between servers\"",
            "must share",
        ),
        (
            "level=fatal msg=\"Error: etcd cluster join failed: duplicate node name found, please use a unique \
             name for this node\"",
            "another node of this name",
        ),
        (
            "msg=\"Waiting to retrieve agent configuration; server is not ready: Node password rejected, duplicate \
             hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry\"",
            "another node of this name",
        ),
        ("unable to verify password for node a1: hash does not match", "password"),
        (
            "msg=\"Waiting for other members to finish joining etcd cluster: etcdserver: too many learner members \
             in cluster\"",
            "one at a time",
        ),
        (
            "Failed to test etcd connection: this server has not yet been promoted from learner to voting member",
            "caught up",
        ),
        (
            "/var/lib/rancher/k3s/server/tls/x newer than datastore and could cause a cluster outage. Remove the \
             file(s) from disk",
            "clocks",
        ),
        ("x509: certificate has expired or is not yet valid: current time", "clock"),
        ("listen tcp 0.0.0.0:6443: bind: address already in use", "port"),
        ("dial tcp 10.0.0.1:6443: connect: connection refused", "cannot be reached"),
        (
            "Get \\\"https://10.0.0.1:6443/cacerts\\\": context deadline exceeded",
            "cannot be reached",
        ),
        ("tombstone file has been detected but --server is empty", "was removed"),
        ("failed to start: etcdserver: no leader", "no leader"),
        ("write /x: no space left on device", "disk is full"),
        ("connection refused\npanic: runtime error: invalid memory address", "crashed"),
        ("level=fatal msg=\"flag provided but not defined: -tls-san\"", "does not know a setting"),
        (
            "level=fatal msg=\"Error: server requires additional privilege when not run with\"",
            "root",
        ),
        (
            "this server is not a member of the etcd cluster. Found [a=b], expect: c=d",
            "does not have",
        ),
    ];

    #[test]
    fn every_known_text_leads_to_its_cause() {
        for (line, expected) in CASES {
            let found = diagnose(line).unwrap_or_else(|| panic!("{line}"));
            assert!(found.cause.contains(expected), "{line}\n{found:?}");
            assert!(!found.remedy.is_empty());
        }
        assert_eq!(diagnose("level=info msg=\"Starting k3s v1.36.3+k3s1\""), None);
        assert_eq!(diagnose(""), None);
    }

    #[test]
    fn the_cause_wins_over_its_consequences() {
        let log = "dial tcp: connection refused\nduplicate node name found\netcdserver: no leader";
        assert!(diagnose(log).unwrap().cause.contains("this name"));
    }

    #[test]
    fn the_telling_lines_are_kept_however_long_ago_they_were() {
        let log = "a\nlevel=fatal msg=x\nlevel=fatal msg=x\nb\nc\nd";
        assert_eq!(telling_lines(log, 2), "level=fatal msg=x\nc\nd");
    }
}
