//! What a playbook is made of.

use serde_json::{Map, Value as Json};

use crate::modules::Spec;
use crate::yaml::Mark;

/// A playbook: plays in order.
#[derive(Clone, Debug)]
pub struct Playbook {
    /// The file's name, as the person gave it.
    pub file: String,
    /// The plays.
    pub plays: Vec<Play>,
}

/// A text from the playbook, with its place; it may hold a template or be an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As written.
    pub text: String,
    /// Where.
    pub mark: Mark,
}

/// Tasks for a set of hosts.
#[derive(Clone, Debug)]
pub struct Play {
    /// Where it begins.
    pub mark: Mark,
    /// Its name; the host pattern when it has none.
    pub name: String,
    /// Pattern of hosts, for example `servers:!server1`.
    pub hosts: Text,
    /// In which order the hosts come.
    pub order: Order,
    /// Sizes of the waves, each a number or a percentage of the play's hosts; the last one counts
    /// for all that follow. Empty: one wave.
    pub serial: Vec<WaveSize>,
    /// A host's failure ends the run for all.
    pub any_errors_fatal: bool,
    /// More failed hosts than this in a wave end the run for all, in percent.
    pub max_fail_percentage: Option<f64>,
    /// Whether facts are read at all.
    pub gather_facts: bool,
    /// Files with variables, below those of `vars`.
    pub vars_files: Vec<Text>,
    /// What the tasks inherit.
    pub inherited: Inherited,
    /// `pre_tasks`, `tasks` and `post_tasks`, one after another; handlers run after each.
    pub sections: [Vec<Item>; 3],
    /// Handlers.
    pub handlers: Vec<Task>,
}

/// The order of a play's hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// That of the inventory.
    #[default]
    Inventory,
    /// For servers that are stopped one after another: decided anew before each wave from how the
    /// cluster is then; see [`crate::cluster::rolling::order`].
    Rolling,
}

/// Size of a wave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WaveSize {
    /// So many hosts.
    Hosts(usize),
    /// So many percent of the play's hosts, at least one host.
    Percent(f64),
}

/// Keywords that a play or block gives to what is in it; a task's own come first.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// All must be true; the outermost first.
    pub when: Vec<Text>,
    /// Variables; inner ones win.
    pub vars: Map<String, Json>,
    /// Environment of commands.
    pub environment: Map<String, Json>,
    /// Tags, of all levels together.
    pub tags: Vec<String>,
    /// Run as another user.
    pub become_: Option<bool>,
    /// Which user; root when not said.
    pub become_user: Option<Text>,
    /// Go on after a failure.
    pub ignore_errors: Option<bool>,
    /// Show neither arguments nor results.
    pub no_log: Option<bool>,
    /// Force (`true`) or ignore (`false`) check mode.
    pub check_mode: Option<bool>,
    /// One host runs it for all.
    pub run_once: Option<bool>,
    /// Another host runs it.
    pub delegate_to: Option<Text>,
    /// A host's failure ends the run for all.
    pub any_errors_fatal: Option<bool>,
}

impl Inherited {
    /// `self` as seen from inside: what `inner` says wins or is added.
    pub fn under(&self, inner: &Inherited) -> Inherited {
        let mut all = self.clone();
        all.when.extend(inner.when.iter().cloned());
        all.vars.extend(inner.vars.clone());
        all.environment.extend(inner.environment.clone());
        all.tags.extend(inner.tags.iter().cloned());
        let pick = |mine: Option<bool>, theirs: Option<bool>| theirs.or(mine);
        all.become_ = pick(self.become_, inner.become_);
        all.ignore_errors = pick(self.ignore_errors, inner.ignore_errors);
        all.no_log = pick(self.no_log, inner.no_log);
        all.check_mode = pick(self.check_mode, inner.check_mode);
        all.run_once = pick(self.run_once, inner.run_once);
        all.any_errors_fatal = pick(self.any_errors_fatal, inner.any_errors_fatal);
        if inner.become_user.is_some() {
            all.become_user.clone_from(&inner.become_user);
        }
        if inner.delegate_to.is_some() {
            all.delegate_to.clone_from(&inner.delegate_to);
        }
        all
    }
}

/// A task or a block.
#[derive(Clone, Debug)]
pub enum Item {
    /// One task.
    Task(Box<Task>),
    /// Several with `rescue` and `always`; an imported file is one, too.
    Block(Box<Block>),
}

/// Tasks that share keywords and fail together.
#[derive(Clone, Debug)]
pub struct Block {
    /// Where it begins.
    pub mark: Mark,
    /// What its tasks inherit.
    pub inherited: Inherited,
    /// The tasks.
    pub body: Vec<Item>,
    /// Run when one of the body failed; then the host has not failed.
    pub rescue: Vec<Item>,
    /// Run in any case.
    pub always: Vec<Item>,
}

/// One use of a module.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where it begins.
    pub mark: Mark,
    /// Its name (may hold a template); the module's when it has none.
    pub name: String,
    /// The module.
    pub module: &'static Spec,
    /// Its arguments, templates not yet rendered.
    pub args: Map<String, Json>,
    /// Keywords that blocks and plays have, too.
    pub inherited: Inherited,
    /// Variable for the result.
    pub register: Option<String>,
    /// Repeat for each item.
    pub loop_: Option<Loop>,
    /// Handlers to run when it changed something.
    pub notify: Vec<String>,
    /// Other names a handler answers to.
    pub listen: Vec<String>,
    /// Tries in all when `until` is not yet true or the module failed.
    pub retries: Option<u32>,
    /// Seconds between tries.
    pub delay_seconds: u32,
    /// All must be true of the result, else it is tried again.
    pub until: Vec<Text>,
    /// When given, says whether something changed.
    pub changed_when: Option<Vec<Text>>,
    /// When given, says whether it failed.
    pub failed_when: Option<Vec<Text>>,
}

/// The items of a task.
#[derive(Clone, Debug)]
pub struct Loop {
    /// A list, or a template that gives one.
    pub items: Json,
    /// A list within the list is opened, one level deep: what `with_items` does.
    pub flatten: bool,
    /// Name of the item's variable.
    pub variable: String,
    /// Name of the variable with its number from 0.
    pub index_variable: Option<String>,
    /// What the report shows instead of the item.
    pub label: Option<Text>,
}
