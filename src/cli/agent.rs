//! `k3sup-rs agent`: the process of an agent.

use sd_notify::NotifyState;

use super::k3s::K3sOnly;
use super::server::{NodeArgs, gather, one};
use crate::error::Failure;
use crate::node::agent::{Agent, is_registered};
use crate::node::config::{AgentConfig, Command, Values};
use crate::node::host;

const EXAMPLES: &str = "\
Examples:
  k3sup-rs agent -s https://10.0.0.11:6443 --token-file /etc/k3sup/token
  k3sup-rs agent -c /etc/k3sup/config.yaml

The host then reaches a live server at https://127.0.0.1:6444 (supervisor) and https://127.0.0.1:2379
(etcd). Ready? curl http://127.0.0.1:6445/readyz";

/// Run an agent: a node with local ports that always lead to a live server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What servers have too
    #[command(flatten)]
    pub node: NodeArgs,

    /// Local port that leads to the servers' supervisors [env: `K3S_LB_SERVER_PORT`] [default: 6444]
    #[arg(long, value_name = "PORT")]
    pub lb_server_port: Option<String>,

    #[command(flatten)]
    k3s: K3sOnly,
}

impl Args {
    /// The configuration from command line, file and environment.
    pub(crate) fn config(&self) -> Result<AgentConfig, Failure> {
        let mut given = self.node.given();
        given.push(one("lb-server-port", self.lb_server_port.as_deref()));
        let line = Values::from_command_line(given);
        let (values, _) = gather(Command::Agent, line, self.node.config.as_deref())?;
        let registered = is_registered(&AgentConfig::data_dir(&values));
        Ok(AgentConfig::from_values(&values, registered)?)
    }
}

/// Runs an agent until it is told to stop.
pub async fn run(args: Args) -> Result<(), Failure> {
    host::harden();
    host::spare_memory();
    let config = args.config()?;
    host::log(config.node.debug, config.node.log.as_deref())?;
    let mut signals = host::StopSignals::new()?;
    let agent = tokio::select! {
        started = Agent::start(config) => started?,
        () = signals.wait() => return Ok(()),
    };
    tracing::info!("k3sup-rs agent is up and running");
    host::notify(&[NotifyState::Ready]);
    signals.wait().await;
    host::notify(&[NotifyState::Stopping]);
    agent.stop().await;
    Ok(())
}
