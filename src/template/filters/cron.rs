//! What a schedule in cron's five fields means for who waits for it.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use minijinja::{Environment, Error};

use super::{add_filter, invalid};

/// So many times are looked at: a week of minutes and a little more.
const TIMES: usize = 11_000;

/// And none later than so many days after the first: leap years are in it.
const DAYS: i64 = 9 * 366;

pub(super) fn register(env: &mut Environment<'static>) {
    add_filter(env, "cron_gap", gap);
}

/// The longest time between two times of a schedule, in minutes.
fn gap(schedule: String) -> Result<i64, Error> {
    let wrong = |why: &str| invalid(format!("`{schedule}` is not a schedule: {why}"));
    let cron = Cron::from_str(&schedule).map_err(|error| wrong(&error.to_string()))?;
    let next = |after: &DateTime<Utc>| cron.find_next_occurrence(after, false).ok();
    let first = next(&DateTime::UNIX_EPOCH).ok_or_else(|| wrong("it never comes"))?;
    let end = first + TimeDelta::days(DAYS);
    let times = std::iter::successors(Some(first), next).take(TIMES).take_while(|time| *time < end);
    let times: Vec<DateTime<Utc>> = times.collect();
    let gaps =
        times.windows(2).filter_map(|pair| Some((*pair.last()? - *pair.first()?).num_minutes()));
    gaps.max().ok_or_else(|| wrong("it comes only once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_counts() {
        for (schedule, minutes) in [
            ("* * * * *", 1),
            ("0 */12 * * *", 720),
            ("0 3,5 * * *", 22 * 60),
            ("*/5 8-17 * * 1-5", (2 * 24 + 14) * 60 + 5),
            ("* * * * 1-5", 2 * 1440 + 1),
            ("@weekly", 7 * 1440),
            ("0 0 1 * *", 31 * 1440),
        ] {
            assert_eq!(gap(schedule.to_owned()).unwrap(), minutes, "{schedule}");
        }
        assert!(gap("every day".to_owned()).is_err());
    }
}
