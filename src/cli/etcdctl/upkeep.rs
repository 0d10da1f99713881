//! Keeping a cluster: `alarm`, `compaction`, `defrag`.

use clap::Subcommand;

use super::connection::Connection;
use super::show::Show;
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::rpc::pb::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest};

/// `compaction`.
#[derive(Debug, clap::Args)]
pub(super) struct Compaction {
    /// What was before this revision goes
    revision: i64,

    /// Return when it is gone from the disk too
    #[arg(long)]
    physical: bool,
}

pub(super) async fn compaction(connection: &Connection, args: Compaction) -> Result<(), Failure> {
    let Compaction { revision, physical } = args;
    let mut client = connection.client()?;
    connection.answer(client.kv.compact(CompactionRequest { revision, physical })).await?;
    output::line(&format!("compacted revision {revision}"))
}

#[derive(Debug, Subcommand)]
pub(super) enum AlarmCommand {
    /// Print the alarms that stand
    List,
    /// Lift all alarms
    Disarm,
}

pub(super) async fn alarm(
    connection: &Connection,
    show: Show,
    command: AlarmCommand,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let mut ask = async |action: AlarmAction, member_id, alarm: AlarmType| {
        let request = AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        connection.answer(client.maintenance.alarm(request)).await
    };
    let standing = ask(AlarmAction::Get, 0, AlarmType::None).await?;
    let told = show.formal(&standing)?;
    for alarm in &standing.alarms {
        if matches!(command, AlarmCommand::Disarm) {
            ask(AlarmAction::Deactivate, alarm.member_id, alarm.alarm()).await?;
        }
        if !told {
            let kind = alarm.alarm().as_str_name();
            output::line(&format!("memberID:{} alarm:{kind} ", alarm.member_id))?;
        }
    }
    Ok(())
}

/// `defrag`, on one endpoint after the other: it takes a member's time.
pub(super) async fn defrag(connection: &Connection) -> Result<(), Failure> {
    let mut failed = false;
    for endpoint in connection.endpoints() {
        let own = connection.at(vec![endpoint.clone()]);
        let mut client = own.client()?;
        match own.answer(client.maintenance.defragment(DefragmentRequest {})).await {
            Ok(_) => output::line(&format!("Finished defragmenting etcd member[{endpoint}]"))?,
            Err(failure) => {
                failed = true;
                output::line(&format!(
                    "Failed to defragment etcd member[{endpoint}] ({})",
                    failure.message
                ))?;
            }
        }
    }
    if failed {
        Err(Failure::new(ExitCode::Error, "not every member was defragmented"))
    } else {
        Ok(())
    }
}
