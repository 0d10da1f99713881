//! `certificate check`: one table over all nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;
use futures::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::node::Here;
use crate::cli::ask::Passwords;
use crate::cli::{output, target};
use crate::cluster::layout::{Layout, Role};
use crate::cluster::view::CertificateView;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Measure, Measured, Observed, Read};
use crate::inventory::{Host, Inventory};
use crate::pki::tree::RENEW_DAYS;
use crate::run::reach::Reach;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// How to show certificates: K3s's four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// A table.
    #[default]
    Text,
    /// The same.
    Table,
    /// JSON.
    Json,
    /// YAML (JSON is YAML).
    Yaml,
}

/// Whose certificates.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs certificate check -i inventory.yaml
  k3sup-rs certificate check -i inventory.yaml --output json
  k3sup-rs certificate check --data-dir /var/lib/k3sup       on a host: its own node

STATE is OK, WARNING (fewer than 120 days left) or EXPIRED. Ends with 1 when one is expired, with 4 when a host cannot be reached.")]
pub struct Check {
    /// Inventory file
    #[arg(long, short, env = "K3SUP_INVENTORY", default_value = "inventory.yaml")]
    inventory: PathBuf,
    /// Passwords
    #[command(flatten)]
    passwords: Passwords,
    /// How to show them
    #[arg(long, short, value_enum, default_value_t)]
    output: Shape,
    /// This host's node
    #[command(flatten)]
    node: Here,
}

/// A certificate and whose it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    /// Empty when it is this host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    filename: String,
    subject: String,
    issuer: String,
    expiry_time: String,
    residual_time: String,
    status: &'static str,
}

pub(super) async fn run(args: Check) -> Result<(), Failure> {
    let (mut rows, mut silent) = (Vec::new(), Vec::new());
    if args.node.is_meant(&args.inventory) {
        let views = crate::host::certificates(&args.node.data_dir().to_string_lossy());
        rows.extend(views.into_iter().map(|view| row("", view)));
    } else {
        let inventory = target::inventory(&args.inventory, &[])?;
        let reach = Reach::new(&inventory, &args.passwords.ask()?, false, Arc::new(|_, _| {}));
        let hosts = inventory.hosts.iter();
        let nodes = hosts.filter(|host| matches!(host.role(), Some(Role::Server | Role::Agent)));
        let asked = nodes.map(async |host| (host, of(&inventory, &reach, host).await));
        for (host, answer) in join_all(asked).await {
            match answer {
                Ok(views) => rows.extend(views.into_iter().map(|view| row(&host.name, view))),
                Err(reason) => silent.push(format!("{}: {reason}", host.name)),
            }
        }
    }
    match args.output {
        Shape::Json | Shape::Yaml => output::json(&json!({ "Certificates": rows }))?,
        Shape::Text | Shape::Table => output::line(&table(&rows))?,
    }
    if !silent.is_empty() {
        let message = format!("not all hosts answer\n{}", silent.join("\n"));
        return Err(Failure::new(ExitCode::Unreachable, message));
    }
    let expired: Vec<String> = rows
        .iter()
        .filter(|row| row.status == "EXPIRED")
        .map(|row| format!("{} {}", row.host, row.filename).trim().to_owned())
        .collect();
    if expired.is_empty() {
        return Ok(());
    }
    let message = format!("expired: {}", expired.join(", "));
    Err(Failure::new(ExitCode::Error, message)
        .hint("k3sup-rs certificate rotate makes new ones; a node that is started does so too"))
}

async fn of(
    inventory: &Inventory,
    reach: &Reach,
    host: &Host,
) -> Result<Vec<CertificateView>, String> {
    let session = target::session(reach, host).await;
    let mut session = session.map_err(|failure| failure.message)?;
    let facts = target::facts(session.as_mut()).await?;
    let role = host.role().unwrap_or(Role::Server);
    let data_dir = Layout::new(inventory.distribution, role, facts.lab_root.as_deref()).data_dir;
    let read = Read::Measure(Measure::Certificates { data_dir });
    let answers = session.read(vec![read]).await.map_err(|error| error.to_string())?;
    match answers.into_iter().next() {
        Some(Ok(Observed::Measured(Measured::Certificates(views)))) => Ok(views),
        Some(Err(error)) => Err(error.to_string()),
        _ => Err("the executor answers something else".to_owned()),
    }
}

fn row(host: &str, view: CertificateView) -> Row {
    let now = target::now_unix_s();
    let left = view.not_after_unix_s.saturating_sub(now);
    let until = UNIX_EPOCH.checked_add(Duration::from_secs(view.not_after_unix_s));
    Row {
        host: host.to_owned(),
        filename: view.file,
        subject: view.subject,
        issuer: view.issuer,
        expiry_time: until
            .map_or_else(|| "?".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string()),
        residual_time: output::age(left),
        status: match left / DAY_S {
            _ if left == 0 => "EXPIRED",
            0..RENEW_DAYS => "WARNING",
            _ => "OK",
        },
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = output::table(["HOST", "FILE", "SUBJECT", "ISSUER", "UNTIL", "LEFT", "STATE"]);
    for row in rows {
        table.add_row([
            if row.host.is_empty() { "-" } else { &row.host },
            &row.filename,
            &row.subject,
            &row.issuer,
            &row.expiry_time,
            &row.residual_time,
            row.status,
        ]);
    }
    output::render(&mut table)
}
