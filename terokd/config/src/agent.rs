//! Agent settings: the stack of layers, what it means for one agent, and the instructions agents get.
//!
//! Owns the meaning of the `agent:` section and of presets. Knows no container, no image and no run; what an image
//! holds is passed in.

mod instructions;
mod settings;
pub mod subagents;

pub use instructions::{
    Guidance, Surroundings, bundled_instructions, read_guidance, resolve_instructions,
};
pub use settings::{DEFAULT_TIMEOUT, Requested, Settings, settings};

use crate::merge::{INHERIT, deep_merge, is_inherit};
use crate::presets::Found;
use crate::roster::Roster;
use crate::validate::{Finding, nearest};
use serde_json::{Map, Value, json};
use terok_proto::Fault;
use terok_proto::config::ProblemCode;
use terok_proto::project::{AgentProvider, PresetSource};

/// The agent of a run for which nothing else is said.
pub const DEFAULT_AGENT: &str = "claude";

/// Key under which a per-agent mapping holds what goes for every other agent.
const OTHERS: &str = "_default";

/// Keys that mean something in an `agent:` section or preset.
const KEYS: [&str; 7] = [
    "model",
    "max_turns",
    "timeout",
    "unrestricted",
    "instructions",
    "subagents",
    "mcp_servers",
];

/// A warning for every key that means nothing, relative to the section.
pub fn unknown_keys(section: &Map<String, Value>) -> Vec<Finding> {
    let unknown = section
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()) && *key != INHERIT);
    unknown
        .map(|key| {
            let nearest = nearest(key, KEYS.into_iter());
            let hint =
                nearest.map_or_else(String::new, |name| format!(" (did you mean \"{name}\"?)"));
            Finding {
                at_key: true,
                suggestion: nearest.map(str::to_owned),
                ..Finding::warning(
                    &[key.as_str().into()],
                    ProblemCode::UnknownKey,
                    format!("unknown key; it has no effect{hint}"),
                )
            }
        })
        .collect()
}

/// The layers of a stack. Sub-agent files are resolved already, see [`subagents::resolve_files`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Layers<'a> {
    /// `agent:` of the global configuration.
    pub global: Option<&'a Map<String, Value>>,
    /// `agent:` of `project.yml`.
    pub project: Option<&'a Map<String, Value>>,
    /// The preset that was asked for.
    pub preset: Option<&'a Found>,
    /// Overrides of the call.
    pub cli: Option<&'a Map<String, Value>>,
}

/// One layer that said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// `global`, `project`, `preset (project)`, `preset (user)`, `preset (bundled)` or `cli`.
    pub label: &'static str,
    /// Its top-level keys, sorted.
    pub keys: Vec<String>,
}

/// The merged agent configuration and where it comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// The merged mapping.
    pub config: Map<String, Value>,
    /// The layers, lowest first; empty ones are left out.
    pub levels: Vec<Level>,
}

/// Merges the layers, lowest first.
pub fn resolve_config(layers: &Layers<'_>) -> Effective {
    let preset = layers
        .preset
        .map(|found| (preset_label(found.source), &found.preset.data));
    let stack = [
        layers.global.map(|map| ("global", map)),
        layers.project.map(|map| ("project", map)),
        preset,
        layers.cli.map(|map| ("cli", map)),
    ];
    let mut out = Effective::default();
    for (label, map) in stack
        .into_iter()
        .flatten()
        .filter(|(_, map)| !map.is_empty())
    {
        let mut keys: Vec<String> = map.keys().cloned().collect();
        keys.sort_unstable();
        out.levels.push(Level { label, keys });
        lift_instructions(&mut out.config, map);
        out.config = deep_merge(&out.config, map);
    }
    out
}

impl Effective {
    /// The highest layer that names a top-level key.
    pub fn source(&self, key: &str) -> Option<&'static str> {
        let has = |level: &&Level| level.keys.iter().any(|k| k == key);
        self.levels.iter().rev().find(has).map(|level| level.label)
    }

    /// Layers and result, for people who wonder.
    pub fn provenance(&self) -> Value {
        let levels: Vec<Value> = self
            .levels
            .iter()
            .map(|level| json!({"level": level.label, "keys": level.keys}))
            .collect();
        json!({"levels": levels, "config": self.config})
    }
}

/// The value for one agent: of a per-agent mapping its own entry, else that of `_default`; other values as they are.
pub fn lookup<'v>(value: Option<&'v Value>, agent: &str) -> Option<&'v Value> {
    let present = |value: &&Value| !value.is_null();
    match value {
        Some(Value::Object(map)) => map
            .get(agent)
            .filter(present)
            .or_else(|| map.get(OTHERS).filter(present)),
        other => other.filter(present),
    }
}

/// The agent of a run: the requested one, else the project's or global default, else Claude.
pub fn resolve_provider(
    requested: Option<&str>,
    default_agent: Option<&str>,
    roster: &Roster,
) -> Result<AgentProvider, Fault> {
    let named = |name: Option<&str>| {
        name.map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    };
    let name = named(requested)
        .or_else(|| named(default_agent))
        .unwrap_or_else(|| DEFAULT_AGENT.to_owned());
    roster.provider(&name)
}

const fn preset_label(source: PresetSource) -> &'static str {
    match source {
        PresetSource::Project => "preset (project)",
        PresetSource::Global => "preset (user)",
        PresetSource::Bundled => "preset (bundled)",
    }
}

/// A list of instructions that inherits takes a lower layer's single text in as one element.
fn lift_instructions(config: &mut Map<String, Value>, over: &Map<String, Value>) {
    let splices = over
        .get("instructions")
        .and_then(Value::as_array)
        .is_some_and(|items| items.iter().any(is_inherit));
    if let Some(base) = config.get_mut("instructions")
        && splices
        && !base.is_array()
        && !base.is_object()
        && !base.is_null()
    {
        *base = Value::Array(vec![base.take()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terok_proto::Kind;
    use terok_proto::project::LoadedPreset;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("mapping")
        };
        map
    }

    #[test]
    fn layers_are_merged_in_order_with_their_origin() {
        let (global, project) = (
            map(json!({"model": "opus", "a": 1})),
            map(json!({"model": null})),
        );
        let (empty, cli) = (map(json!({})), map(json!({"b": 2, "a": 3})));
        let found = Found {
            preset: LoadedPreset {
                data: map(json!({"model": "haiku"})),
                path: "builtin:x".into(),
            },
            source: PresetSource::Bundled,
        };
        let layers = Layers {
            global: Some(&global),
            project: Some(&project),
            preset: Some(&found),
            cli: Some(&cli),
        };
        let got = resolve_config(&layers);
        assert_eq!(
            Value::Object(got.config.clone()),
            json!({"a": 3, "model": "haiku", "b": 2})
        );
        assert_eq!(got.source("model"), Some("preset (bundled)"));
        assert_eq!(got.source("a"), Some("cli"));
        let got = resolve_config(&Layers {
            project: Some(&empty),
            cli: Some(&cli),
            ..Layers::default()
        });
        assert_eq!(
            got.levels,
            [Level {
                label: "cli",
                keys: vec!["a".into(), "b".into()]
            }]
        );
        assert_eq!(got.provenance()["levels"][0]["keys"], json!(["a", "b"]));
    }

    #[test]
    fn only_instructions_splice_a_single_text() {
        let below = map(json!({"instructions": "text", "m": "text"}));
        let over = map(json!({"instructions": ["_inherit", "more"], "m": ["_inherit", "more"]}));
        let got = resolve_config(&Layers {
            global: Some(&below),
            cli: Some(&over),
            ..Layers::default()
        });
        assert_eq!(
            Value::Object(got.config),
            json!({"instructions": ["text", "more"], "m": ["_inherit", "more"]})
        );
    }

    #[test]
    fn keys_without_meaning_are_found() {
        let found = unknown_keys(&map(
            json!({"model": 1, "max_turn": 5, "_inherit": true, "zzzzzz": 1}),
        ));
        let shown: Vec<_> = found
            .iter()
            .map(|f| (f.path[0].clone(), f.suggestion.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("max_turn".into(), Some("max_turns")),
                ("zzzzzz".into(), None)
            ]
        );
    }

    #[test]
    fn a_per_agent_mapping_has_a_fallback() {
        let value = json!({"claude": "a", "codex": null, "_default": "c"});
        assert_eq!(lookup(Some(&value), "claude"), Some(&json!("a")));
        assert_eq!(lookup(Some(&value), "codex"), Some(&json!("c")));
        assert_eq!(lookup(Some(&json!({"claude": "a"})), "vibe"), None);
        assert_eq!(lookup(Some(&json!(5)), "vibe"), Some(&json!(5)));
        assert_eq!(lookup(Some(&json!(null)), "vibe"), None);
    }

    #[test]
    fn the_agent_is_the_first_that_is_named() {
        let roster = Roster::bundled();
        let name =
            |requested, default| resolve_provider(requested, default, &roster).map(|p| p.name);
        assert_eq!(name(None, None).as_deref(), Ok("claude"));
        assert_eq!(name(Some(" "), Some("vibe")).as_deref(), Ok("vibe"));
        assert_eq!(name(Some("codex"), Some("vibe")).as_deref(), Ok("codex"));
        let fault = name(None, Some("gh")).expect_err("a tool");
        assert_eq!(fault.kind, Kind::UnknownProvider);
    }
}
