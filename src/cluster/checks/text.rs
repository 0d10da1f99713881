//! Numbers as people read them.

use super::limits::MIB;

/// Microseconds as milliseconds with one place: `0.4 ms`; below 100 µs with two.
pub(super) fn ms(us: u64) -> String {
    if us < 100 {
        return format!("0.{:02} ms", us / 10);
    }
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

/// Bytes in GiB with one place, or in MiB when they are fewer.
pub(super) fn size(bytes: u64) -> String {
    const GIB: u64 = 1024 * MIB;
    if bytes < GIB { mib(bytes) } else { format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB) }
}

/// Bytes in MiB.
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

/// Seconds in the largest unit that fits: `40 s`, `12 min`, `5 h`, `9 days`.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Share of a whole in percent; 100 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 100;
    share.checked_div(u128::from(whole)).map_or(100, |share| u64::try_from(share).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([40, 400, 12_345].map(ms), ["0.04 ms", "0.4 ms", "12.3 ms"]);
        assert_eq!([8 * MIB, 1536 * MIB].map(size), ["8 MiB", "1.5 GiB"]);
        assert_eq!(
            [9, 119, 120, 7200, 200_000].map(time),
            ["9 s", "119 s", "2 min", "2 h", "2 days"]
        );
        assert_eq!((percent(1, 4), percent(1, 0)), (25, 100));
    }
}
