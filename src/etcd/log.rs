//! Log lines as etcd writes them: zap's JSON, or its words. Scripts and test harnesses wait for them.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt as _};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::config::LogConfig;
use crate::error::{ExitCode, Failure};

/// Sets up the log of this process.
///
/// # Errors
/// A file cannot be opened, or there is a log already.
pub fn set_up(config: &LogConfig) -> Result<(), Failure> {
    let level = config.level;
    let filter = EnvFilter::new(format!("warn,openraft=error,k3sup_rs={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .event_format(Lines { json: config.json })
        .with_writer(writer(&config.outputs)?);
    builder.try_init().map_err(|error| Failure::new(ExitCode::Error, error.to_string()))
}

/// Where lines go: to each of the outputs.
fn writer(outputs: &[String]) -> Result<BoxMakeWriter, Failure> {
    let mut writers = outputs.iter().map(|output| one_writer(output));
    let none = || Failure::new(ExitCode::BadInput, "--log-outputs: give an output");
    let first = writers.next().ok_or_else(none)??;
    writers.try_fold(first, |all, next| Ok(BoxMakeWriter::new(all.and(next?))))
}

fn one_writer(output: &str) -> Result<BoxMakeWriter, Failure> {
    match output {
        "stdout" => Ok(BoxMakeWriter::new(std::io::stdout)),
        "default" | "stderr" | "systemd/journal" => Ok(BoxMakeWriter::new(std::io::stderr)),
        path => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            let file = file.map_err(|error| {
                Failure::new(ExitCode::BadInput, format!("--log-outputs: {path}: {error}"))
            })?;
            Ok(BoxMakeWriter::new(std::sync::Mutex::new(file)))
        }
    }
}

/// Writes an event as one line.
struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let now = OffsetDateTime::now_utc().format(&Rfc3339).map_err(|_| fmt::Error)?;
        if !self.json {
            write!(writer, "{now}\t{level}\t{}", fields.message)?;
            if !fields.others.is_empty() {
                write!(writer, "\t{}", Json::Object(fields.others))?;
            }
            return writeln!(writer);
        }
        let mut line = Map::new();
        line.insert("level".to_owned(), level.into());
        line.insert("ts".to_owned(), now.into());
        if let (Some(file), Some(number)) = (event.metadata().file(), event.metadata().line()) {
            let file = file.strip_prefix("src/").unwrap_or(file);
            line.insert("caller".to_owned(), format!("{file}:{number}").into());
        }
        line.insert("msg".to_owned(), fields.message.into());
        line.extend(fields.others);
        writeln!(writer, "{}", Json::Object(line))
    }
}

/// An event's text, and the rest.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Json>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Json) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.others.insert(field.name().replace('_', "-"), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}
