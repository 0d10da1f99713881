//! Secrets that are only ever compared: kept as salted hashes, and guesses are slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::pbkdf2;

use crate::pki::TokenError;
use crate::secret::Secret;

const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
const NAME: &str = "pbkdf2-sha256";

/// Rounds of hashing. Generated secrets have 128 bits, which no number of guesses finds; this is for
/// those that a person chose.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(19_999);

/// Longest secret that is compared, in bytes.
const SECRET_BYTES_MAX: usize = 1024;

/// First answer to a wrong secret is delayed by so much, each further one by twice the last, …
const DELAY_FIRST: Duration = Duration::from_millis(200);

/// … up to this.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// A source that was quiet for so long starts afresh.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// Sources that are remembered; beyond, the oldest is forgotten.
const SOURCES_MAX: usize = 4096;

/// A salted hash of `secret`, as text.
pub fn hash(secret: &Secret) -> Result<String, TokenError> {
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(|_| TokenError::Random)?;
    let mut out = [0_u8; 32];
    pbkdf2::derive(ALGORITHM, ROUNDS, &salt, secret.expose().as_bytes(), &mut out);
    Ok(format!("{NAME}${ROUNDS}${}${}", hex::encode(salt), hex::encode(out)))
}

/// Whether `secret` is the one that was hashed. Takes the same time whatever the difference.
pub fn matches(hashed: &str, secret: &Secret) -> bool {
    if secret.expose().len() > SECRET_BYTES_MAX {
        return false;
    }
    let mut parts = hashed.split('$');
    let (Some(NAME), Some(rounds), Some(salt), Some(expected), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(rounds), Ok(salt), Ok(expected)) =
        (rounds.parse::<NonZeroU32>(), hex::decode(salt), hex::decode(expected))
    else {
        return false;
    };
    let secret = secret.expose().as_bytes();
    pbkdf2::verify(ALGORITHM, rounds, &salt, secret, &expected).is_ok()
}

/// Remembers who gave wrong secrets, by address.
#[derive(Debug, Default)]
pub struct Guard {
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Guard {
    /// Notes a wrong secret from `source` and says how long its answer must wait.
    pub fn failed(&self, source: IpAddr, now: Instant) -> Duration {
        let mut failures = self.failures.lock();
        failures.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGET_AFTER);
        if failures.len() >= SOURCES_MAX
            && let Some(oldest) =
                failures.iter().min_by_key(|(_, (_, last))| *last).map(|(source, _)| *source)
        {
            failures.remove(&oldest);
        }
        let (count, last) = failures.entry(source).or_insert((0, now));
        let delay = DELAY_FIRST.saturating_mul(1 << (*count).min(16)).min(DELAY_MAX);
        *count = count.saturating_add(1);
        *last = now;
        delay
    }

    /// Forgets the wrong secrets of `source`: it gave a right one.
    pub fn succeeded(&self, source: IpAddr) {
        self.failures.lock().remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_matches_and_equal_secrets_hash_differently() {
        let secret = Secret::new("s3cret");
        let (one, two) = (hash(&secret).unwrap(), hash(&secret).unwrap());
        assert_ne!(one, two);
        assert!(!one.contains("s3cret"));
        assert!(matches(&one, &secret) && matches(&two, &secret));
        assert!(!matches(&one, &Secret::new("s3cre")));
        assert!(!matches(&one, &Secret::new("")));
        for broken in ["", "s3cret", "pbkdf2-sha256$0$00$00", "pbkdf2-sha256$1$zz$00"] {
            assert!(!matches(broken, &secret), "{broken}");
        }
    }

    #[test]
    fn guesses_wait_longer_and_longer_per_source() {
        let guard = Guard::default();
        let (mallory, ada) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let now = Instant::now();
        let delays: Vec<_> = (0..8).map(|_| guard.failed(mallory, now).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(guard.failed(ada, now), DELAY_FIRST);
        guard.succeeded(mallory);
        assert_eq!(guard.failed(mallory, now), DELAY_FIRST);
        assert_eq!(guard.failed(mallory, now + FORGET_AFTER), DELAY_FIRST);
    }
}
