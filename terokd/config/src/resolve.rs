//! From files to a [`ProjectConfig`]: inheritance, identity, paths, and the rules that involve several keys.
//!
//! Owns which key inherits from where. Pure: takes trees in normal form, creates and reads nothing (symbolic links
//! of stated paths are followed).

mod origins;
mod rules;
#[cfg(test)]
mod tests;

pub use origins::resolved_config;

use crate::GitIdentity;
use crate::env::Environment;
use crate::global::Global;
use crate::merge::deep_merge;
use crate::roster::Roster;
use crate::schema;
use crate::validate::{Finding, Places, problem};
use crate::yaml::Step;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use terok_proto::config::{
    Authorship, Family, Isolation, OciRuntime, Problem, ProjectConfig, Scope, SecurityClass,
    Severity, ShieldOnRestart,
};

/// What a project is resolved against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The global configuration.
    pub global: &'a Global,
    /// Git's own idea of the user.
    pub identity: &'a GitIdentity,
    /// The daemon's environment.
    pub env: &'a Environment,
    /// Agents that exist, to warn about unknown ones; none means no warning.
    pub roster: Option<&'a Roster>,
}

/// A resolved project with what is not part of [`ProjectConfig`].
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The configuration.
    pub config: ProjectConfig,
    /// `run.gpus` asks for GPUs.
    pub gpu: bool,
    /// What `run.gpus` says, unless it is off: `all` or a CDI name.
    pub gpus: Option<String>,
    /// `project.name`
    pub display_name: Option<String>,
    /// Directory that a relative `snippet_file` starts at: that of the file that states it.
    pub snippet_dir: PathBuf,
}

/// Where a value of the chain was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Project,
    Global,
}

/// Looks keys up in the project, then in the global configuration.
struct Chain<'a> {
    project: &'a Map<String, Value>,
    global: &'a Map<String, Value>,
}

/// Whether a key of `project.yml` inherits from `config.yml`.
fn inherits(key: &str) -> bool {
    match key {
        "run.runtime" => false,
        "default_agent" | "default_login" => true,
        _ => ["run.", "image.", "ssh.", "shield."]
            .iter()
            .any(|section| key.starts_with(section)),
    }
}

/// Whether an empty string in a file counts as unset.
fn empty_is_unset(key: &str) -> bool {
    matches!(key, "default_agent" | "default_login" | "image.agents")
        || key.starts_with("run.hooks.")
}

fn get<'v>(tree: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    let mut steps = key.split('.');
    let first = tree.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.as_object()?.get(step))
}

impl<'a> Chain<'a> {
    fn find(&self, key: &str) -> Option<(&'a Value, Found)> {
        let usable = |value: &&Value| !(empty_is_unset(key) && value.as_str() == Some(""));
        let own = get(self.project, key).filter(usable);
        if let Some(value) = own {
            return Some((value, Found::Project));
        }
        let global = get(self.global, key).filter(|_| inherits(key));
        Some((global.filter(usable)?, Found::Global))
    }

    fn text(&self, key: &str) -> Option<String> {
        Some(self.find(key)?.0.as_str()?.to_owned())
    }

    /// Text that counts as unset when it is blank.
    fn filled(&self, key: &str) -> Option<String> {
        self.text(key).filter(|text| !text.trim().is_empty())
    }

    /// The value, or the default of the tables.
    fn or_default(&self, key: &str) -> Value {
        match self.find(key) {
            Some((value, _)) => value.clone(),
            None => default_of(key),
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.or_default(key).as_bool().unwrap_or_default()
    }

    fn number(&self, key: &str) -> i64 {
        self.or_default(key).as_i64().unwrap_or_default()
    }

    fn word<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.or_default(key)).ok()
    }

    fn list(&self, key: &str) -> Option<Vec<String>> {
        serde_json::from_value(self.find(key)?.0.clone()).ok()
    }
}

/// The default of a key: that of `project.yml`, or of `config.yml` where the project's only means "inherit".
fn default_of(key: &str) -> Value {
    [Scope::Project, Scope::Global]
        .iter()
        .filter_map(|scope| declared_default(*scope, key))
        .find(|value| !value.is_null())
        .unwrap_or(Value::Null)
}

fn declared_default(scope: Scope, key: &str) -> Option<Value> {
    let mut fields = schema::fields(scope);
    let mut default = None;
    for step in key.split('.') {
        let field = fields.iter().find(|field| field.key == step)?;
        default = Some(field.default.value());
        fields = field.children();
    }
    default
}

/// Collects findings about one project.
struct Report<'a> {
    places: &'a Places<'a>,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn add(&mut self, finding: Finding) {
        self.problems
            .push(problem(Scope::Project, finding, self.places));
    }
}

fn steps(key: &str) -> Vec<Step> {
    key.split('.').map(Step::from).collect()
}

/// Resolves a project. `tree` is its file in normal form; `dir_name` names its directory, `root` is that directory
/// with symbolic links resolved. All problems come back: with an error among them there is no resolution.
pub fn resolve(
    tree: &Map<String, Value>,
    dir_name: &str,
    root: &Path,
    places: &Places<'_>,
    context: Context<'_>,
) -> (Option<Resolution>, Vec<Problem>) {
    let chain = Chain {
        project: tree,
        global: context.global.tree(),
    };
    let mut report = Report {
        places,
        problems: Vec::new(),
    };
    let paths = &context.global.paths;
    let id = rules::id(&chain, dir_name, &mut report);
    let security_class: SecurityClass = chain
        .word("project.security_class")
        .unwrap_or(SecurityClass::Gatekeeping);
    let isolation: Isolation = chain.word("project.isolation").unwrap_or(Isolation::Shared);
    let upstream_url = chain.filled("git.upstream_url");
    rules::upstream(upstream_url.as_deref(), &mut report);
    let gate_enabled = chain.flag("gate.enabled");
    rules::gatekeeping(&id, security_class, gate_enabled, &mut report);
    let stated = |key: &str, report: &mut Report<'_>| {
        rules::stated_path(chain.filled(key), key, context.env, report)
    };
    let tasks_root = stated("tasks.root", &mut report)
        .unwrap_or_else(|| paths.sandbox_live_dir.join("tasks").join(&id));
    let gate_path = stated("gate.path", &mut report)
        .unwrap_or_else(|| paths.gate_repos_dir.join(format!("{id}.git")));
    let staging_root = stated("gatekeeping.staging_root", &mut report)
        .unwrap_or_else(|| paths.build_dir.join(&id));
    let shared_dir = rules::shared_dir(&chain, &tasks_root, &id, context.env, &mut report);
    let identity = identity(&chain, context.identity);
    let authorship = rules::authorship(&identity, &chain, &id, context, &mut report);
    let agent_config = rules::agent_config(&chain, root, context.env, &mut report);
    rules::agents(&chain, context.roster, &mut report);
    let (gpu, gpus) = gpus(&chain);
    let hook = |name: &str| chain.text(&format!("run.hooks.{name}"));
    let who = |key: &str, nobody: &str| {
        let text = identity.get(key).and_then(Value::as_str);
        let text = text.filter(|text| !text.trim().is_empty());
        Some(text.unwrap_or(nobody).to_owned())
    };
    let snippet_dir = match chain.find("image.user_snippet_file") {
        Some((_, Found::Global)) => global_file_dir(context.global, "image.user_snippet_file"),
        _ => root.to_owned(),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let config = ProjectConfig {
        security_class,
        isolation,
        upstream_url,
        default_branch: chain.filled("git.default_branch"),
        root: text(root),
        tasks_root: text(&tasks_root),
        gate_path: text(&gate_path),
        gate_enabled,
        staging_root: (security_class == SecurityClass::Gatekeeping).then(|| text(&staging_root)),
        ssh_use_personal: chain.flag("ssh.use_personal"),
        expose_external_remote: chain.flag("gatekeeping.expose_external_remote"),
        human_name: who("human_name", NOBODY),
        human_email: who("human_email", NOBODY_EMAIL),
        git_authorship: authorship.unwrap_or(Authorship::AgentHuman),
        upstream_polling_enabled: chain.flag("gatekeeping.upstream_polling.enabled"),
        upstream_polling_interval_minutes: chain
            .number("gatekeeping.upstream_polling.interval_minutes"),
        auto_sync_enabled: chain.flag("gatekeeping.auto_sync.enabled"),
        auto_sync_branches: chain
            .list("gatekeeping.auto_sync.branches")
            .unwrap_or_default(),
        default_agent: chain.text("default_agent"),
        default_login: chain.text("default_login"),
        agent_config,
        shutdown_timeout: chain.number("run.shutdown_timeout"),
        memory: chain.text("run.memory"),
        cpus: chain.text("run.cpus"),
        nested_containers: chain.flag("run.nested_containers"),
        runtime: chain.word::<OciRuntime>("run.runtime"),
        timezone: chain.text("run.timezone"),
        task_name_categories: chain.list("tasks.name_categories"),
        shield_drop_on_task_run: chain.flag("shield.drop_on_task_run"),
        shield_on_task_restart: chain
            .word("shield.on_task_restart")
            .unwrap_or(ShieldOnRestart::Retain),
        hook_pre_start: hook("pre_start"),
        hook_post_start: hook("post_start"),
        hook_post_ready: hook("post_ready"),
        hook_post_stop: hook("post_stop"),
        base_image: chain
            .or_default("image.base_image")
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        family: chain.word::<Family>("image.family"),
        agents: chain.text("image.agents").unwrap_or_else(|| "all".into()),
        snippet_inline: chain.text("image.user_snippet_inline"),
        snippet_file: chain.text("image.user_snippet_file"),
        shared_dir: shared_dir.as_deref().map(text),
        is_sealed: isolation == Isolation::Sealed,
        presets_dir: text(&root.join("presets")),
        id,
    };
    let failed = report
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    let resolution = (!failed).then(|| Resolution {
        config,
        gpu,
        gpus,
        display_name: chain.text("project.name"),
        snippet_dir,
    });
    (resolution, report.problems)
}

const NOBODY: &str = "Nobody";
const NOBODY_EMAIL: &str = "nobody@localhost";

/// The merged identity: git's own, then the global, then the project's.
fn identity(chain: &Chain<'_>, git: &GitIdentity) -> Map<String, Value> {
    let mut base = Map::new();
    for (key, value) in [("human_name", &git.name), ("human_email", &git.email)] {
        if let Some(value) = value
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            base.insert(key.to_owned(), json!(value));
        }
    }
    let empty = Map::new();
    let layer = |tree: &Map<String, Value>| -> Map<String, Value> {
        let git = tree.get("git").and_then(Value::as_object).unwrap_or(&empty);
        git.iter()
            .filter(|(key, _)| IDENTITY.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let merged = deep_merge(&base, &layer(chain.global));
    deep_merge(&merged, &layer(chain.project))
}

/// Keys of the identity stack.
const IDENTITY: [&str; 3] = ["human_name", "human_email", "authorship"];

fn gpus(chain: &Chain<'_>) -> (bool, Option<String>) {
    let wanted = match chain.find("run.gpus") {
        Some((Value::Bool(true), _)) => Some("all".to_owned()),
        Some((Value::String(text), _)) if text.eq_ignore_ascii_case("all") => {
            Some("all".to_owned())
        }
        Some((Value::String(text), _)) if crate::validate::is_cdi_name(text) => Some(text.clone()),
        _ => None,
    };
    (wanted.is_some(), wanted)
}

/// Directory of the layer that states a global key.
fn global_file_dir(global: &Global, key: &str) -> PathBuf {
    let writable = &global.paths.global_config_path;
    let file = global
        .config_layers
        .origin(&steps(key))
        .map_or(writable, |(layer, _)| &layer.path);
    file.parent().unwrap_or(Path::new("/")).to_owned()
}
