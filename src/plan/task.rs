//! From a task of the playbook and what is known of a host to a planned task.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::describe::describe;
use crate::host::protocol::Change;
use crate::modules::{Diff, Input, ModulePlan, Spec, Wait};
use crate::playbook::Text;
use crate::template::{Engine, ErrorKind, Evaluated, TemplateError, Vars};

/// One task (one item of it) on one host, ready to be walked or shown.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTask {
    /// The host it changes.
    pub host: String,
    /// The task's name.
    pub task: String,
    /// The module.
    pub module: &'static str,
    /// The loop's item, as the report shows it.
    pub item: Option<String>,
    /// What would be done, in order.
    pub actions: Vec<String>,
    /// Which facts differ.
    pub reasons: Vec<String>,
    /// What changes in files.
    pub diffs: Vec<Diff>,
    /// What is waited for after that.
    pub wait: Option<Wait>,
    /// What is sent to the host, and the rest of the module's plan.
    #[serde(skip)]
    pub plan: ModulePlan,
}

impl PlannedTask {
    /// The plan of a module, for a host.
    pub fn new(
        host: &str,
        task: &str,
        module: &'static str,
        item: Option<String>,
        plan: ModulePlan,
    ) -> Self {
        Self {
            host: host.to_owned(),
            task: task.to_owned(),
            module,
            item,
            actions: plan.changes.iter().map(describe).collect(),
            reasons: plan.reasons.clone(),
            diffs: plan.diffs.clone(),
            wait: plan.wait.clone(),
            plan,
        }
    }

    /// Whether anything would change.
    pub fn changes(&self) -> bool {
        !self.plan.changes.is_empty()
    }

    /// Whether the task counts as changed when all is made. That the service manager reads its units
    /// again does not, as with Ansible: it is done each time it is asked for.
    pub fn counts(&self) -> bool {
        self.plan.changes.iter().any(|change| !matches!(change, Change::ReloadUnits))
    }
}

/// Renders a module's arguments. With `partial`, arguments that cannot be rendered yet are left
/// out: enough to know what to read.
pub fn prepare(
    engine: &Engine,
    spec: &Spec,
    args: &Map<String, Json>,
    environment: &Map<String, Json>,
    vars: &Vars,
    partial: bool,
) -> Result<Input, TemplateError> {
    let mut input = Input::default();
    for (key, value) in args {
        let rendered = if spec.expressions.contains(&key.as_str()) {
            expressions(engine, spec, value, vars)
        } else {
            engine.evaluate(value, vars).map(|evaluated| (evaluated.value, evaluated.secret))
        };
        match rendered {
            Ok((Json::String(text), _)) if text == crate::template::OMIT => {}
            Ok((value, secret)) => {
                if secret {
                    input.secrets.insert(key.clone());
                }
                input.args.insert(key.clone(), value);
            }
            Err(_) if partial => {}
            Err(error) => {
                return Err(TemplateError {
                    message: format!("argument `{key}`: {error}"),
                    ..error
                });
            }
        }
    }
    for (key, value) in environment {
        let evaluated = match engine.evaluate(value, vars) {
            Ok(evaluated) => evaluated,
            Err(_) if partial => continue,
            Err(error) => return Err(error),
        };
        if evaluated.secret {
            input.secrets.insert("environment".to_owned());
        }
        let text = match evaluated.value {
            Json::String(text) => text,
            other => other.to_string(),
        };
        input.environment.push((key.clone(), text));
    }
    Ok(input)
}

/// Expressions come as a list of `{expression, truth}`, or with `value` where a value is asked for.
fn expressions(
    engine: &Engine,
    spec: &Spec,
    value: &Json,
    vars: &Vars,
) -> Result<(Json, bool), TemplateError> {
    let texts: Vec<String> = match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        other => vec![other.to_string()],
    };
    let mut secret = false;
    let mut judged = Vec::new();
    for text in texts {
        judged.push(if spec.name == "debug" {
            let evaluated = value_of(engine, &text, vars)?;
            secret |= evaluated.secret;
            json!({ "expression": text, "value": evaluated.value })
        } else {
            let truth = engine.condition(&text, vars)?;
            json!({ "expression": text, "truth": truth })
        });
    }
    Ok((Json::Array(judged), secret))
}

/// The value of an expression; like Ansible, an undefined variable is shown as such.
fn value_of(engine: &Engine, text: &str, vars: &Vars) -> Result<Evaluated, TemplateError> {
    let evaluated = engine.evaluate(&Json::String(format!("{{{{ {text} }}}}")), vars);
    match evaluated {
        Err(error) if error.kind == ErrorKind::Undefined => {
            Ok(Evaluated { value: "VARIABLE IS NOT DEFINED!".into(), secret: false })
        }
        other => other,
    }
}

/// Whether all `conditions` hold; the first that does not is given.
pub(crate) fn conditions<'a>(
    engine: &Engine,
    conditions: &'a [Text],
    vars: &Vars,
) -> Result<Option<&'a Text>, TemplateError> {
    for condition in conditions {
        let holds = engine.condition(&condition.text, vars).map_err(|error| TemplateError {
            message: format!("{}: `{}`: {error}", condition.mark, condition.text),
            ..error
        })?;
        if !holds {
            return Ok(Some(condition));
        }
    }
    Ok(None)
}
