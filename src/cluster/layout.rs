//! Names and paths of what is provisioned, for each distribution and for lab hosts.

use serde::{Deserialize, Serialize};

/// What is provisioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// This binary's own node.
    #[default]
    Embedded,
    /// Real K3s.
    K3s,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Member of the store, control plane.
    Server,
    /// Runs work.
    Agent,
    /// Runs the load balancer.
    LoadBalancer,
}

/// Where things are on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Directory of binaries and of what belongs beside them.
    pub bin_dir: String,
    /// The node's binary.
    pub binary: String,
    /// Directory of configuration.
    pub config_dir: String,
    /// The node's configuration file.
    pub config_file: String,
    /// The file with the token the node starts with.
    pub token_file: String,
    /// The node's data directory.
    pub data_dir: String,
    /// Directory of service definitions.
    pub unit_dir: String,
    /// The definition of its service.
    pub unit_file: String,
    /// What the service has in its environment; 0600, for values may be secret.
    pub env_file: String,
    /// Service name.
    pub service: String,
}

impl Layout {
    /// Paths for `distribution` and `role`; `lab_root` is the lab host's own directory, under
    /// which the same tree is made.
    pub fn new(distribution: Distribution, role: Role, lab_root: Option<&str>) -> Self {
        let name = match distribution {
            Distribution::Embedded => "k3sup",
            Distribution::K3s => "k3s",
        };
        let root = lab_root.unwrap_or_default().trim_end_matches('/');
        let (binary, config_dir, data_dir) = match distribution {
            Distribution::Embedded => ("k3sup-rs", "/etc/k3sup", "/var/lib/k3sup"),
            Distribution::K3s => ("k3s", "/etc/rancher/k3s", "/var/lib/rancher/k3s"),
        };
        let bin_dir = format!("{root}/usr/local/bin");
        let service = match role {
            Role::Agent => format!("{name}-agent"),
            Role::Server | Role::LoadBalancer => name.to_owned(),
        };
        let unit_dir = format!("{root}/etc/systemd/system");
        Self {
            binary: format!("{bin_dir}/{binary}"),
            bin_dir,
            config_dir: format!("{root}{config_dir}"),
            config_file: format!("{root}{config_dir}/config.yaml"),
            token_file: format!("{root}{config_dir}/token"),
            data_dir: format!("{root}{data_dir}"),
            unit_file: format!("{unit_dir}/{service}.service"),
            env_file: format!("{unit_dir}/{service}.service.env"),
            unit_dir,
            service,
        }
    }

    /// The same for a host whose services `manager` runs, as facts name it: OpenRC keeps them
    /// elsewhere than systemd, as K3s's `install.sh` does.
    pub fn managed_by(mut self, manager: &str) -> Self {
        if manager == "openrc" {
            "/etc/init.d".clone_into(&mut self.unit_dir);
            self.unit_file = format!("/etc/init.d/{}", self.service);
            self.env_file = format!("{}/{}.env", self.config_dir, self.service);
        }
        self
    }

    /// How the K3s node called `name` is asked, with the credentials that it has on its own disk.
    pub fn k3s_node(&self, role: Role, name: &str) -> K3sNode {
        let is_server = role != Role::Agent;
        K3sNode {
            binary: self.binary.clone(),
            data_dir: self.data_dir.clone(),
            kubeconfig: if is_server {
                format!("{}/k3s.yaml", self.config_dir)
            } else {
                format!("{}/agent/kubelet.kubeconfig", self.data_dir)
            },
            name: name.to_owned(),
            is_server,
            has_kubelet: true,
        }
    }
}

/// How a host's K3s node is asked about itself and its cluster: by `k3s kubectl` on that host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct K3sNode {
    /// The K3s binary.
    pub binary: String,
    /// Its data directory.
    pub data_dir: String,
    /// The credentials to ask with: a server's administrator, an agent's kubelet.
    pub kubeconfig: String,
    /// The node's name.
    pub name: String,
    /// A server may see all nodes, an agent only its own.
    pub is_server: bool,
    /// It is a node of the cluster itself; a server with `disable-agent` is none.
    pub has_kubelet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_host_has_the_same_tree_under_its_root() {
        let real = Layout::new(Distribution::Embedded, Role::Server, None);
        let lab = Layout::new(Distribution::Embedded, Role::Server, Some("/tmp/lab/server1"));
        assert_eq!(real.config_file, "/etc/k3sup/config.yaml");
        assert_eq!(lab.config_file, format!("/tmp/lab/server1{}", real.config_file));
        assert_eq!(lab.service, "k3sup");
    }

    #[test]
    fn openrc_has_its_own_places() {
        let layout = Layout::new(Distribution::Embedded, Role::Agent, None);
        assert_eq!(layout.clone().managed_by("systemd"), layout);
        let openrc = layout.managed_by("openrc");
        assert_eq!(openrc.unit_file, "/etc/init.d/k3sup-agent");
        assert_eq!(openrc.env_file, "/etc/k3sup/k3sup-agent.env");
    }

    #[test]
    fn k3s_has_its_own_names() {
        let layout = Layout::new(Distribution::K3s, Role::Agent, None);
        assert_eq!(layout.service, "k3s-agent");
        assert_eq!(layout.data_dir, "/var/lib/rancher/k3s");
        let node = layout.k3s_node(Role::Agent, "a1");
        assert_eq!(node.kubeconfig, "/var/lib/rancher/k3s/agent/kubelet.kubeconfig");
        let server =
            Layout::new(Distribution::K3s, Role::Server, None).k3s_node(Role::Server, "s1");
        assert_eq!(
            (server.kubeconfig.as_str(), server.is_server),
            ("/etc/rancher/k3s/k3s.yaml", true)
        );
    }
}
