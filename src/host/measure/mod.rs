//! Measurements on the host. Each leaves things as they were: files are removed, listeners closed.

mod disk;
mod doors;
mod node;
mod probe;
mod vitals;

pub(crate) use doors::Doors;
pub(crate) use node::certificates;

use crate::host::error::HostResult;
use crate::host::protocol::{Measure, Measured};
use crate::host::serve::blocking;

/// Carries out one measurement; `doors` are the session's own listeners.
pub(crate) async fn measure(what: Measure, doors: &Doors) -> HostResult<Measured> {
    Ok(match what {
        Measure::Vitals => Measured::Vitals(blocking(|| Ok(vitals::read())).await?),
        Measure::DiskSpeed { directory, writes_max, timeout_ms } => {
            let work = move || disk::speed(&directory, writes_max, timeout_ms);
            Measured::DiskSpeed(blocking(work).await?)
        }
        Measure::Listen { doors: wanted, greeting, for_ms } => {
            Measured::Listening(doors.open(&wanted, &greeting, for_ms).await)
        }
        Measure::StopListening => {
            doors.close().await;
            Measured::Stopped
        }
        Measure::Probe { door, greeting, timeout_ms } => {
            Measured::Probe(probe::probe(&door, greeting.as_deref(), timeout_ms).await)
        }
        Measure::Certificates { data_dir } => {
            Measured::Certificates(blocking(move || Ok(node::certificates(&data_dir))).await?)
        }
        Measure::Metrics(source) => Measured::Metrics(node::metrics(&source).await?),
    })
}
