//! The keywords that are known, and Ansible's others that are refused by name.

/// Keywords of a play.
pub(super) const PLAY: &[&str] = &[
    "name",
    "hosts",
    "become",
    "become_user",
    "serial",
    "order",
    "vars",
    "vars_files",
    "pre_tasks",
    "tasks",
    "post_tasks",
    "handlers",
    "tags",
    "gather_facts",
    "any_errors_fatal",
    "max_fail_percentage",
    "environment",
    "ignore_errors",
    "no_log",
    "check_mode",
    "run_once",
    "strategy",
];

/// Keywords that a block and a task share.
pub(super) const INHERITED: &[&str] = &[
    "when",
    "vars",
    "environment",
    "tags",
    "become",
    "become_user",
    "ignore_errors",
    "no_log",
    "check_mode",
    "run_once",
    "delegate_to",
    "any_errors_fatal",
];

/// Keywords of a block alone.
pub(super) const BLOCK: &[&str] = &["name", "block", "rescue", "always"];

/// Keywords of a task alone.
pub(super) const TASK: &[&str] = &[
    "name",
    "register",
    "loop",
    "with_items",
    "loop_control",
    "notify",
    "listen",
    "retries",
    "delay",
    "until",
    "changed_when",
    "failed_when",
    "args",
    "action",
];

/// Keywords of `loop_control`.
pub(super) const LOOP_CONTROL: &[&str] = &["loop_var", "index_var", "label"];

/// What Ansible has and this engine does not, with what to use instead.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("roles", "put the tasks into a file and use import_tasks"),
    ("async", "tasks run to their end; every wait has a time-out of its own"),
    ("poll", "tasks run to their end; every wait has a time-out of its own"),
    ("throttle", "use serial on the play"),
    ("local_action", "use delegate_to with a host of the inventory"),
    ("connection", "set ansible_connection in the inventory"),
    ("remote_user", "set ansible_user in the inventory"),
    ("become_method", "set ansible_become_method in the inventory"),
    ("ignore_unreachable", "an unreachable host leaves the run; the others go on"),
    ("module_defaults", "give the arguments at each task"),
    ("collections", "modules are built in"),
    ("vars_prompt", "give the value with -e"),
    ("debugger", "use -v and the debug module"),
    ("with_dict", "use loop with the dict2items filter"),
    ("with_fileglob", "list the files in loop"),
    ("with_together", "use loop with the zip filter"),
    ("with_nested", "use loop with a list made by a template"),
    ("with_sequence", "use loop with range()"),
    ("import_playbook", "give several plays in one file"),
];
