//! Clock, load and memory, from the kernel's files.

use std::fs;

use crate::host::files;
use crate::host::protocol::Vitals;

pub(super) fn read() -> Vitals {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let vitals = Vitals { clock_unix_ms: files::unix_ms(), ..Vitals::default() };
    parse(vitals, &text("/proc/loadavg"), &text("/proc/meminfo"), &text("/proc/uptime"))
}

fn parse(vitals: Vitals, load: &str, memory: &str, uptime: &str) -> Vitals {
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Vitals {
        load_milli: milli(load.split_whitespace().next().unwrap_or_default()),
        memory_available_bytes: kib.unwrap_or(0).saturating_mul(1024),
        uptime_s: milli(uptime.split_whitespace().next().unwrap_or_default()) / 1000,
        ..vitals
    }
}

/// A decimal number with up to three places, in thousandths; 0 when it is none.
fn milli(number: &str) -> u64 {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part = format!("{part:0<3}");
    let parse = |digits: &str| digits.parse::<u64>().ok();
    let value = parse(whole).zip(part.get(..3).and_then(parse));
    value.map_or(0, |(whole, part)| whole.saturating_mul(1000).saturating_add(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let memory = "MemTotal:  4000 kB\nMemAvailable:    2000 kB\n";
        let seen = parse(Vitals::default(), "1.25 0.90 0.5 1/200 77\n", memory, "3600.42 7000.1\n");
        assert_eq!((seen.load_milli, seen.uptime_s), (1250, 3600));
        assert_eq!(seen.memory_available_bytes, 2000 * 1024);
        assert_eq!(parse(Vitals::default(), "", "x", "-"), Vitals::default());
        let now = read();
        assert!(now.clock_unix_ms > 0 && now.memory_available_bytes > 0 && now.uptime_s > 0);
    }
}
