//! Host certificates (OpenSSH's `PROTOCOL.certkeys`): is this one good for this host, now? Pure.

use russh::keys::{Algorithm, Certificate, HashAlg};

/// Why a certificate whose authority is trusted does not speak for `host` at `now` (seconds since
/// 1970); `None` when it does. As in OpenSSH one without names is good for all hosts.
pub(super) fn problem(certificate: &Certificate, host: &str, now: u64) -> Option<String> {
    if !certificate.cert_type().is_host() {
        return Some("it is a user's certificate".to_owned());
    }
    if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
        return Some("it is signed with SHA-1".to_owned());
    }
    // Whose signature it is was asked before; here it counts that it is right, and the time.
    let own = certificate.signature_key().fingerprint(HashAlg::Sha256);
    if certificate.validate_at(certificate.valid_after(), [&own]).is_err() {
        return Some("its signature is wrong".to_owned());
    }
    if certificate.validate_at(now, [&own]).is_err() {
        return Some("it is not valid at this time".to_owned());
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        let option: String = option.chars().filter(char::is_ascii_graphic).take(64).collect();
        return Some(format!("it demands `{option}`, which is not known"));
    }
    let names = certificate.valid_principals();
    if !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return Some("it is for hosts with other names".to_owned());
    }
    None
}
