//! How fast a disk makes small writes durable: what decides how fast, and how steadily, a log can
//! acknowledge.
//!
//! The same as the test that etcd's makers give: `fio --rw=write --ioengine=sync --fdatasync=1
//! --bs=2300` (<https://etcd.io/docs/latest/faq/>): small writes one after another into a
//! preallocated file, an fdatasync after each.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use crate::host::error::HostResult;
use crate::host::files::absolute;
use crate::host::protocol::{DiskSpeed, HostError};

/// Bytes in one write: what fio's options above say.
const BLOCK_BYTES: usize = 2300;

/// Measures the file system that holds `directory`, or would. Blocks.
pub(super) fn speed(directory: &str, writes_max: u32, timeout_ms: u64) -> HostResult<DiskSpeed> {
    let path = absolute(directory)?;
    let existing = path.ancestors().find(|part| part.is_dir()).unwrap_or(Path::new("/"));
    let failed = |what: &'static str| {
        move |error: std::io::Error| HostError::io(what, existing.display(), &error)
    };
    // It has a name: some file systems do not make a file without one durable.
    let file = tempfile::Builder::new().prefix(".k3sup-rs-speed-").tempfile_in(existing);
    let file = file.map_err(failed("write into"))?;
    let times = times(file.as_file(), writes_max, Duration::from_millis(timeout_ms));
    let times = times.map_err(failed("write into"))?;
    file.close().map_err(failed("remove a file of"))?;
    Ok(summary(times))
}

fn times(mut file: &File, writes_max: u32, timeout: Duration) -> std::io::Result<Vec<Duration>> {
    let total = u64::from(writes_max).saturating_mul(BLOCK_BYTES as u64);
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, total) {
        // Not every file system can; then the file grows, as a log there would.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    let block = [0x5a; BLOCK_BYTES];
    let end = Instant::now() + timeout;
    let mut times = Vec::new();
    for _ in 0..writes_max {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
        if Instant::now() >= end {
            break;
        }
    }
    Ok(times)
}

fn summary(mut times: Vec<Duration>) -> DiskSpeed {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    };
    DiskSpeed {
        writes: u32::try_from(times.len()).unwrap_or(u32::MAX),
        p50_us: at(50),
        p99_us: at(99),
        max_us: at(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = (1..=200).map(Duration::from_micros).rev().collect();
        let speed = DiskSpeed { writes: 200, p50_us: 100, p99_us: 198, max_us: 200 };
        assert_eq!(summary(times), speed);
        assert_eq!(summary(Vec::new()), DiskSpeed::default());
    }

    #[test]
    fn a_disk_is_measured_where_the_directory_would_be_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("not/there/yet");
        let speed = speed(wanted.to_str().unwrap(), 20, 60_000).unwrap();
        assert_eq!(speed.writes, 20);
        assert!(speed.p50_us <= speed.p99_us && speed.p99_us <= speed.max_us);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_write_is_made_however_short_the_time() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(speed(dir.path().to_str().unwrap(), 20, 0).unwrap().writes, 1);
    }
}
