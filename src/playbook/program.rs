//! A play as a flat list of steps, and which of them a host runs after a failure.
//!
//! Blocks are kept as scopes of a step, so that all hosts can walk one list in step.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::types::{Inherited, Item, Play, Task};

/// A play's tasks in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The steps.
    pub steps: Vec<Step>,
    /// For each block, whether it has a `rescue`.
    rescues: Vec<bool>,
}

/// One entry of a [`Program`].
#[derive(Clone, Debug)]
pub enum Step {
    /// A task.
    Task(Arc<TaskStep>),
    /// The end of a section of the play: handlers that were notified run here.
    Flush,
}

/// A task with all that it inherits and the blocks it is in.
#[derive(Clone, Debug)]
pub struct TaskStep {
    /// The task.
    pub task: Task,
    /// The task's keywords and those of the play and blocks around it.
    pub inherited: Inherited,
    /// Blocks around it, the outermost first.
    scopes: Vec<Scope>,
}

#[derive(Clone, Copy, Debug)]
struct Scope {
    block: usize,
    section: Section,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Body,
    Rescue,
    Always,
}

impl Program {
    /// The steps of all sections of `play`.
    pub fn of(play: &Play) -> Self {
        let mut program = Self::default();
        for section in &play.sections {
            program.add(section, &play.inherited, &[]);
            if !section.is_empty() {
                program.steps.push(Step::Flush);
            }
        }
        program
    }

    /// All tasks, without the flushes.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<TaskStep>> {
        self.steps.iter().filter_map(|step| match step {
            Step::Task(task) => Some(task),
            Step::Flush => None,
        })
    }

    fn add(&mut self, items: &[Item], outer: &Inherited, scopes: &[Scope]) {
        for item in items {
            match item {
                Item::Task(task) => self.steps.push(Step::Task(Arc::new(TaskStep {
                    inherited: outer.under(&task.inherited),
                    task: (**task).clone(),
                    scopes: scopes.to_vec(),
                }))),
                Item::Block(block) => {
                    let number = self.rescues.len();
                    self.rescues.push(!block.rescue.is_empty());
                    let inherited = outer.under(&block.inherited);
                    for (section, items) in [
                        (Section::Body, &block.body),
                        (Section::Rescue, &block.rescue),
                        (Section::Always, &block.always),
                    ] {
                        let mut inner = scopes.to_vec();
                        inner.push(Scope { block: number, section });
                        self.add(items, &inherited, &inner);
                    }
                }
            }
        }
    }
}

/// What failures mean for one host's way through a [`Program`].
#[derive(Clone, Debug, Default)]
pub struct Flow {
    body_failed: BTreeSet<usize>,
    rescue_failed: BTreeSet<usize>,
    always_failed: BTreeSet<usize>,
    dead: bool,
}

/// Who takes care of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    /// A block's `rescue` does; the host goes on there.
    Rescued,
    /// Nobody: the host has failed, and only `always` sections are left for it.
    Nobody,
}

impl Flow {
    /// The host has failed for good.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// The host leaves without running any `always`, as after a lost connection.
    pub fn leave(&mut self) {
        self.dead = true;
        self.body_failed.clear();
        self.rescue_failed.clear();
    }

    /// Notes that the task of `step` failed on this host.
    pub fn fail(&mut self, program: &Program, step: &TaskStep) -> Caught {
        for scope in step.scopes.iter().rev() {
            match scope.section {
                Section::Body => {
                    self.body_failed.insert(scope.block);
                    if program.rescues.get(scope.block).copied().unwrap_or(false) {
                        return Caught::Rescued;
                    }
                }
                Section::Rescue => {
                    self.rescue_failed.insert(scope.block);
                }
                Section::Always => {
                    self.always_failed.insert(scope.block);
                }
            }
        }
        self.dead = true;
        Caught::Nobody
    }

    /// Whether this host runs the task of `step`.
    pub fn runs(&self, step: &TaskStep) -> bool {
        // An `always` of a block that failed runs whatever became of the blocks around it.
        let owed = step.scopes.iter().rposition(|scope| {
            scope.section == Section::Always && self.body_failed.contains(&scope.block)
        });
        let scopes = match owed {
            Some(start) => step.scopes.get(start..).unwrap_or_default(),
            None if self.dead => return false,
            None => &step.scopes,
        };
        scopes.iter().all(|scope| match scope.section {
            Section::Body => !self.body_failed.contains(&scope.block),
            Section::Rescue => {
                self.body_failed.contains(&scope.block)
                    && !self.rescue_failed.contains(&scope.block)
            }
            Section::Always => !self.always_failed.contains(&scope.block),
        })
    }
}
