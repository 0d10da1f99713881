//! OpenRC, through `rc-service` and `rc-update`.

use std::path::Path;

use super::{ask, judge, run};
use crate::host::error::HostResult;
use crate::host::protocol::{ServiceAction, ServiceFacts};

/// Where services start with the machine.
const RUNLEVEL: &str = "default";

/// State by the status that `rc-service NAME status` ends with (OpenRC's `functions.sh`): 0 started,
/// 3 stopped, 8 starting, 32 crashed.
pub(super) async fn facts(name: &str) -> HostResult<ServiceFacts> {
    if !Path::new("/etc/init.d").join(name).exists() {
        return Ok(ServiceFacts::default());
    }
    let status = ask(&["rc-service", "--nocolor", name, "status"]).await?.status;
    let pid_file = std::fs::read_to_string(format!("/run/{name}.pid")).ok();
    Ok(ServiceFacts {
        exists: true,
        active: status == 0,
        starting: status == 8,
        failed: status == 32,
        enabled: Path::new("/etc/runlevels").join(RUNLEVEL).join(name).exists(),
        pid: pid_file.and_then(|text| text.trim().parse().ok()).filter(|_| status == 0),
        active_since_unix_ms: None,
    })
}

pub(super) async fn act(name: &str, action: ServiceAction, timeout_ms: u64) -> HostResult<()> {
    let argv: &[&str] = match action {
        // Neither complains about what is as it should be.
        ServiceAction::Start => &["rc-service", "--nocolor", "--ifstopped", name, "start"],
        ServiceAction::Stop => &["rc-service", "--nocolor", "--ifstarted", name, "stop"],
        ServiceAction::Restart | ServiceAction::Reload => {
            &["rc-service", "--nocolor", name, action.verb()]
        }
        ServiceAction::Enable => &["rc-update", "--quiet", "add", name, RUNLEVEL],
        ServiceAction::Disable => {
            if !facts(name).await?.enabled {
                return Ok(());
            }
            &["rc-update", "--quiet", "delete", name, RUNLEVEL]
        }
    };
    let output = run(argv, timeout_ms).await?;
    judge(name, action, &output, &format!("/var/log/{name}.log on the host may say more"))
}
