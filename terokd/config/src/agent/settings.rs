//! What the stack and the request come to for one run of one agent.

use super::{Effective, lookup};
use crate::merge::is_inherit;
use crate::validate::quoted;
use serde_json::{Value, json};
use terok_proto::error::Result;
use terok_proto::project::AgentProvider;
use terok_proto::{Fault, Kind};

/// Seconds that a headless run may take unless something else is said.
pub const DEFAULT_TIMEOUT: u64 = 1800;

/// What a caller said explicitly; beats the whole stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Model.
    pub model: Option<String>,
    /// Turn limit.
    pub max_turns: Option<u64>,
    /// Seconds.
    pub timeout: Option<u64>,
    /// Whether the agent may act without asking.
    pub unrestricted: Option<bool>,
}

/// What a run of one agent gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Model, if the agent can be told one.
    pub model: Option<String>,
    /// Turn limit, if the agent can be told one.
    pub max_turns: Option<u64>,
    /// Sentence to append to the prompt of an agent that cannot be told its turn limit.
    pub prompt_suffix: Option<String>,
    /// Seconds.
    pub timeout: u64,
    /// Whether the agent may act without asking.
    pub unrestricted: bool,
    /// What was ignored.
    pub warnings: Vec<String>,
}

/// Settings of one agent. `invalid_config` names the key and the layer of a value that cannot be used.
pub fn settings(
    effective: &Effective,
    provider: &AgentProvider,
    requested: &Requested,
) -> Result<Settings> {
    // A marker that nothing replaced means nothing here.
    let stack = |key: &str| {
        lookup(effective.config.get(key), &provider.name).filter(|value| !is_inherit(value))
    };
    let mut warnings = Vec::new();

    let mut model = match (&requested.model, stack("model")) {
        (Some(model), _) => Some(model.clone()),
        (None, Some(Value::String(model))) => Some(model.clone()),
        (None, None) => None,
        (None, Some(other)) => return Err(wrong(effective, "model", "the name of a model", other)),
    }
    .filter(|model| !model.trim().is_empty());
    if provider.model_flag.is_none() && model.take().is_some() {
        warnings.push(format!(
            "{} cannot be told a model; the setting is ignored",
            provider.label
        ));
    }

    let mut max_turns = match requested.max_turns {
        None => positive(effective, "max_turns", stack("max_turns"))?,
        given => given,
    };
    let mut prompt_suffix = None;
    if let (None, Some(turns)) = (&provider.max_turns_flag, max_turns) {
        max_turns = None;
        prompt_suffix = Some(format!("Finish this task in at most {turns} steps."));
        warnings.push(format!(
            "{} has no turn limit; the prompt asks for at most {turns} steps",
            provider.label
        ));
    }

    let timeout = match requested.timeout {
        None => positive(effective, "timeout", stack("timeout"))?.unwrap_or(DEFAULT_TIMEOUT),
        Some(given) => given,
    };
    let unrestricted = requested
        .unrestricted
        .or_else(|| stack("unrestricted").map(is_true))
        .unwrap_or(true);
    let has_subagents = effective
        .config
        .get("subagents")
        .and_then(Value::as_array)
        .is_some_and(|s| !s.is_empty());
    if has_subagents && !provider.supports_agents_json {
        warnings.push(format!(
            "{} does not support sub-agents; they are ignored",
            provider.label
        ));
    }
    Ok(Settings {
        model,
        max_turns,
        prompt_suffix,
        timeout,
        unrestricted,
        warnings,
    })
}

fn positive(effective: &Effective, key: &str, value: Option<&Value>) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    let number = match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(wrong(effective, key, "a positive integer", value)),
    }
}

/// `25.0` is an integer to whoever wrote it.
fn whole(float: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Whole, positive and exactly representable: the conversion loses nothing.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (float.fract() == 0.0 && (0.0..EXACT).contains(&float)).then_some(float as u64)
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(
            text.trim().to_lowercase().as_str(),
            "" | "false" | "0" | "no" | "off"
        ),
        _ => true,
    }
}

fn wrong(effective: &Effective, key: &str, expected: &str, value: &Value) -> Fault {
    let layer = effective.source(key).unwrap_or("cli");
    let message = format!(
        "`agent.{key}` ({layer}): expected {expected}, got {}",
        quoted(value)
    );
    let problem = json!({
        "loc": ["agent", key], "location": format!("agent.{key}"), "code": "wrong_type", "message": message,
        "severity": "error", "line": null, "column": null, "suggestion": null,
    });
    Fault::new(Kind::InvalidConfig, &message)
        .with("layer", layer)
        .with("text", message)
        .with("errors", vec![problem])
}

#[cfg(test)]
mod tests {
    use super::super::{Layers, resolve_config};
    use super::*;
    use crate::roster::Roster;
    use serde_json::Map;

    fn of(agent: &str, config: Value, requested: &Requested) -> Result<Settings> {
        let Value::Object(config): Value = config else {
            panic!("mapping")
        };
        let effective = resolve_config(&Layers {
            project: Some(&config),
            ..Layers::default()
        });
        settings(
            &effective,
            &Roster::bundled().provider(agent).expect(agent),
            requested,
        )
    }

    #[test]
    fn requests_beat_the_stack_and_the_stack_beats_defaults() {
        let config = json!({"model": {"claude": "opus"}, "max_turns": 5.0, "timeout": "60", "unrestricted": " Off "});
        let got = of("claude", config.clone(), &Requested::default()).expect("settings");
        assert_eq!(
            (
                got.model.as_deref(),
                got.max_turns,
                got.timeout,
                got.unrestricted
            ),
            (Some("opus"), Some(5), 60, false)
        );
        let requested = Requested {
            model: Some("haiku".into()),
            max_turns: Some(1),
            timeout: Some(2),
            unrestricted: Some(true),
        };
        let got = of("claude", config, &requested).expect("settings");
        assert_eq!(
            (
                got.model.as_deref(),
                got.max_turns,
                got.timeout,
                got.unrestricted
            ),
            (Some("haiku"), Some(1), 2, true)
        );
        let got = of("claude", Value::Object(Map::new()), &Requested::default()).expect("settings");
        assert_eq!(
            (got.model, got.max_turns, got.timeout, got.unrestricted),
            (None, None, 1800, true)
        );
    }

    #[test]
    fn what_an_agent_cannot_do_is_said() {
        let config = json!({"model": "x", "max_turns": 7, "subagents": [{"name": "a"}]});
        let got = of("blablador", config, &Requested::default()).expect("settings");
        assert_eq!(
            (got.model, got.max_turns, got.warnings.len()),
            (None, None, 3)
        );
        assert!(got.prompt_suffix.is_some_and(|s| s.contains('7')));
    }

    #[test]
    fn values_of_the_wrong_kind_name_key_and_layer() {
        for config in [
            json!({"max_turns": "many"}),
            json!({"max_turns": 0}),
            json!({"timeout": [1]}),
            json!({"timeout": 1.5}),
            json!({"model": 5}),
            json!({"timeout": true}),
        ] {
            let fault = of("claude", config.clone(), &Requested::default()).expect_err("refused");
            assert_eq!(fault.kind, Kind::InvalidConfig);
            assert!(fault.message.contains("(project)"), "{config}: {fault}");
        }
    }
}
