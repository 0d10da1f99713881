//! A control group of its own for each machine.
//!
//! systemd-nspawn that is not registered with the outer systemd stays in the group it was started
//! in. Machines of one group would share it: the systemd of each moves its services into
//! `system.slice/ssh.service` and the like below it and removes these when they are empty, under the
//! feet of the others; now and then a service of another machine then could not start. So it is with
//! kubelets and their `kubepods`.

use std::fs;
use std::path::{Path, PathBuf};

/// A group in each hierarchy; removed when dropped.
pub struct Group(Vec<PathBuf>);

impl Group {
    /// A new group beside that of this process, or below it.
    pub fn new(name: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").expect("control groups");
        let made = own.lines().filter_map(|line| {
            let (mount, own) = hierarchy(line)?;
            let path = mount.join(own.trim_start_matches('/')).join(name);
            // A machine that boots again has it already.
            fs::create_dir_all(&path).expect("a control group");
            // Nobody may enter a group without processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let all = path.parent().map(|above| above.join(file));
                if let Some(all) = all.and_then(|all| fs::read(all).ok()) {
                    fs::write(path.join(file), all).expect("processors");
                }
            }
            Some(path)
        });
        Self(made.collect())
    }

    /// Files to which a process writes its number to enter the group.
    pub fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(|path| path.join("cgroup.procs"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| remove(path));
    }
}

/// Where the hierarchy of a line of `/proc/self/cgroup` is mounted, and the process's group in it.
fn hierarchy(line: &str) -> Option<(PathBuf, &str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, own) = rest.split_once(':')?;
    let top = Path::new("/sys/fs/cgroup");
    let mount = match controllers {
        "" if top.join("cgroup.procs").exists() => top.to_owned(),
        "" => top.join("unified"),
        named => top.join(named.trim_start_matches("name=")),
    };
    mount.is_dir().then_some((mount, own))
}

/// Groups are removed from the innermost on. What still has a process, which is about to end, stays.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
