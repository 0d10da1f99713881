//! K3s's token: what K3s calls it by where it must not be told, and which ones K3s cannot go over to.

use sha2::{Digest, Sha256};

use crate::pki::Token;
use crate::secret::Secret;

/// How many digits of a token's hash K3s shows.
const DIGITS: usize = 12;

/// Letters of a bootstrap token's two parts, as in `abcdef.0123456789abcdef`.
const BOOTSTRAP_PARTS: (usize, usize) = (6, 16);

/// The first twelve digits of the hash of a token's `password`: what stands behind `/bootstrap/` in the
/// key of K3s's bootstrap data, which is encrypted with it (`pkg/cluster/encrypt.go`, `storageKey`), and
/// in the annotations of snapshots.
pub fn short_hash(password: &Secret) -> String {
    let mut hash = hex::encode(Sha256::digest(password.expose().as_bytes()));
    hash.truncate(DIGITS);
    hash
}

/// Whether K3s can go over to `token`.
///
/// # Errors
/// Why not: it has the form of a bootstrap token, which K3s then takes for one, so that no node joins
/// any more (k3s-io/k3s#13004); or it admits agents alone.
pub fn check_new(token: &Token) -> Result<(), &'static str> {
    if token.user == crate::pki::token::AGENT_USER {
        return Err("it is one for agents alone");
    }
    let part = |text: &str, length| {
        let fits = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        text.len() == length && text.bytes().all(fits)
    };
    match token.password.expose().split_once('.') {
        Some((id, secret)) if part(id, BOOTSTRAP_PARTS.0) && part(secret, BOOTSTRAP_PARTS.1) => {
            Err("it has the form of a bootstrap token, and K3s takes it for one")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_password_alone() {
        // printf secret | sha256sum
        assert_eq!(short_hash(&"secret".into()), "2bb80d537b1d");
    }

    #[test]
    fn tokens_that_k3s_would_misread_are_refused() {
        let check = |text: &str| check_new(&Token::parse(text).unwrap());
        let full = |credentials: &str| format!("K10{}::{credentials}", "ab".repeat(32));
        for good in ["0123456789abcdef", "abc.def", "abcdef.0123456789ABCDEF", &full("server:x")] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bootstrap = "abcdef.0123456789abcdef";
        for bad in [bootstrap, &full(&format!("server:{bootstrap}"))] {
            assert!(check(bad).unwrap_err().contains("bootstrap"), "{bad}");
        }
        assert!(check(&full("node:x")).unwrap_err().contains("agents alone"));
    }
}
