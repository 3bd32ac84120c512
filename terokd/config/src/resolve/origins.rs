//! Everything in force, with the place that set it: `config.resolve`.

use super::{Chain, Context, Found, IDENTITY, default_of, get, identity, steps};
use crate::global::layers::Layers;
use crate::project::LoadedProject;
use crate::schema::{self, Field};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use terok_proto::config::{Origin, ResolvedConfig, ResolvedValue, Scope};

/// Fields of a `ProjectConfig` and the key that each follows; the others are computed.
const FIELDS: &[(&str, &str)] = &[
    ("id", "project.id"),
    ("security_class", "project.security_class"),
    ("isolation", "project.isolation"),
    ("is_sealed", "project.isolation"),
    ("upstream_url", "git.upstream_url"),
    ("default_branch", "git.default_branch"),
    ("human_name", "git.human_name"),
    ("human_email", "git.human_email"),
    ("git_authorship", "git.authorship"),
    ("ssh_use_personal", "ssh.use_personal"),
    ("tasks_root", "tasks.root"),
    ("task_name_categories", "tasks.name_categories"),
    ("gate_enabled", "gate.enabled"),
    ("gate_path", "gate.path"),
    ("staging_root", "gatekeeping.staging_root"),
    (
        "expose_external_remote",
        "gatekeeping.expose_external_remote",
    ),
    (
        "upstream_polling_enabled",
        "gatekeeping.upstream_polling.enabled",
    ),
    (
        "upstream_polling_interval_minutes",
        "gatekeeping.upstream_polling.interval_minutes",
    ),
    ("auto_sync_enabled", "gatekeeping.auto_sync.enabled"),
    ("auto_sync_branches", "gatekeeping.auto_sync.branches"),
    ("shutdown_timeout", "run.shutdown_timeout"),
    ("memory", "run.memory"),
    ("cpus", "run.cpus"),
    ("nested_containers", "run.nested_containers"),
    ("runtime", "run.runtime"),
    ("timezone", "run.timezone"),
    ("hook_pre_start", "run.hooks.pre_start"),
    ("hook_post_start", "run.hooks.post_start"),
    ("hook_post_ready", "run.hooks.post_ready"),
    ("hook_post_stop", "run.hooks.post_stop"),
    ("shield_drop_on_task_run", "shield.drop_on_task_run"),
    ("shield_on_task_restart", "shield.on_task_restart"),
    ("base_image", "image.base_image"),
    ("family", "image.family"),
    ("agents", "image.agents"),
    ("snippet_inline", "image.user_snippet_inline"),
    ("snippet_file", "image.user_snippet_file"),
    ("agent_config", "agent"),
    ("default_agent", "default_agent"),
    ("default_login", "default_login"),
    ("shared_dir", "shared_dir"),
];

/// Variables that stand above a key of `config.yml`.
const VARIABLES: &[(&str, &[&str])] = &[
    ("paths.root", &["TEROK_ROOT"]),
    ("paths.sandbox_live_dir", &["TEROK_SANDBOX_LIVE_DIR"]),
    ("paths.port_registry_dir", &["TEROK_PORT_REGISTRY_DIR"]),
    (
        "credentials.dir",
        &["TEROK_VAULT_DIR", "TEROK_CREDENTIALS_DIR"],
    ),
    ("run.runtime", &["TEROK_RUNTIME"]),
];

/// All values with their origins: without a project those of `config.yml` and `terokd.yml`, with one the keys of
/// `project.yml` and the fields of its configuration.
pub fn resolved_config(context: Context<'_>, project: Option<&LoadedProject>) -> ResolvedConfig {
    match project {
        None => ResolvedConfig {
            values: global_values(context),
            problems: context.global.problems.clone(),
        },
        Some(project) => ResolvedConfig {
            values: project_values(context, project),
            problems: project.warnings.clone(),
        },
    }
}

fn global_values(context: Context<'_>) -> BTreeMap<String, ResolvedValue> {
    let global = context.global;
    let mut values = BTreeMap::new();
    for (key, field) in schema::leaves(Scope::Global) {
        let mut value = from_layers(&global.config_layers, global.tree(), &key, field);
        let variables = VARIABLES.iter().find(|(name, _)| *name == key);
        let set =
            variables.and_then(|(_, names)| names.iter().find_map(|name| context.env.var(name)));
        if let Some(text) = set {
            value = ResolvedValue {
                value: json!(text),
                origin: Origin::Env,
                path: None,
                line: None,
            };
        }
        values.insert(key, value);
    }
    let tree = &global.terokd_layers.tree;
    for (key, field) in schema::leaves(Scope::Terokd) {
        if let Some(rest) = key.strip_prefix("projects.<id>.") {
            let projects = tree.get("projects").and_then(Value::as_object);
            for id in projects.into_iter().flat_map(|projects| projects.keys()) {
                let key = format!("projects.{id}.{rest}");
                let value = from_layers(&global.terokd_layers, tree, &key, field);
                values.insert(key, value);
            }
            continue;
        }
        let value = from_layers(&global.terokd_layers, tree, &key, field);
        // One name means something in either file.
        let name = if values.contains_key(&key) {
            format!("terokd.{key}")
        } else {
            key
        };
        values.insert(name, value);
    }
    values
}

fn from_layers(
    layers: &Layers,
    tree: &Map<String, Value>,
    key: &str,
    field: &Field,
) -> ResolvedValue {
    let Some(value) = get(tree, key) else {
        return default_value(field.default.value());
    };
    let value = if field.secret {
        json!("<set>")
    } else {
        value.clone()
    };
    placed(layers, key, value)
}

fn default_value(value: Value) -> ResolvedValue {
    ResolvedValue {
        value,
        origin: Origin::Default,
        path: None,
        line: None,
    }
}

fn placed(layers: &Layers, key: &str, value: Value) -> ResolvedValue {
    match layers.origin(&steps(key)) {
        Some((layer, line)) => ResolvedValue {
            value,
            origin: layer.origin,
            path: Some(layer.name.clone()),
            line,
        },
        None => default_value(value),
    }
}

fn project_values(
    context: Context<'_>,
    project: &LoadedProject,
) -> BTreeMap<String, ResolvedValue> {
    let chain = Chain {
        project: &project.tree,
        global: context.global.tree(),
    };
    let merged = identity(&chain, context.identity);
    let mut values = BTreeMap::new();
    for (key, _) in schema::leaves(Scope::Project) {
        values.insert(key.clone(), one(&key, &chain, &merged, context, project));
    }
    let config = serde_json::to_value(&project.project.config).unwrap_or_default();
    for (name, value) in config.as_object().into_iter().flatten() {
        let source = FIELDS
            .iter()
            .find(|(field, _)| field == name)
            .and_then(|(_, key)| values.get(*key));
        let mut resolved = source
            .cloned()
            .unwrap_or_else(|| default_value(Value::Null));
        resolved.value = value.clone();
        // A key of the same name says what is written; the field says what it comes to.
        values.insert(name.clone(), resolved);
    }
    values
}

fn one(
    key: &str,
    chain: &Chain<'_>,
    merged: &Map<String, Value>,
    context: Context<'_>,
    project: &LoadedProject,
) -> ResolvedValue {
    let in_project = |value: Value| {
        let at = project.document.position(&steps(key));
        ResolvedValue {
            value,
            origin: Origin::Project,
            path: Some(project.yml_path.clone()),
            line: at.map(|at| at.key.map_or(at.line, |key| key.line)),
        }
    };
    let identity_key = key
        .strip_prefix("git.")
        .filter(|name| IDENTITY.contains(name));
    if let Some(name) = identity_key {
        let Some(value) = merged.get(name) else {
            return default_value(Value::Null);
        };
        let stands = |tree: &Map<String, Value>| {
            get(tree, key).is_some_and(|own| own.as_str() != Some(crate::merge::INHERIT))
        };
        return if stands(chain.project) {
            in_project(value.clone())
        } else if stands(chain.global) {
            placed(&context.global.config_layers, key, value.clone())
        } else {
            ResolvedValue {
                value: value.clone(),
                origin: Origin::GitGlobal,
                path: context.identity.path.clone(),
                line: None,
            }
        };
    }
    match chain.find(key) {
        Some((value, Found::Project)) => in_project(value.clone()),
        Some((value, Found::Global)) => placed(&context.global.config_layers, key, value.clone()),
        None => default_value(default_of(key)),
    }
}

/// Whether a field of the configuration follows a key.
#[cfg(test)]
pub(super) fn follows(field: &str) -> bool {
    FIELDS.iter().any(|(name, _)| *name == field)
}
