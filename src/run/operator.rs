//! Who runs this: the person, the machine and the process, for locks and journals.

/// The person, the machine and the process: `ada@laptop pid 4711`.
pub(crate) fn owner() -> String {
    let person = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "somebody".to_owned());
    format!("{person}@{} pid {}", machine(), std::process::id())
}

/// The machine's name.
pub(crate) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
