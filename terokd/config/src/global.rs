//! The global configuration: `config.yml` and `terokd.yml` of every layer, in one immutable value.
//!
//! Owns the layers, what holds while a file or a section is broken, and where each value comes from. Reads the
//! files itself, knows nothing of projects. Secrets never reach a message or `Debug`.

pub(crate) mod layers;
#[cfg(test)]
mod tests;
pub mod typed;

pub use layers::{Layer, Layers};
pub use typed::{GlobalConfig, PollingKeys, Secret, TerokdConfig};

use crate::env::Environment;
use crate::paths::{PathSettings, Paths};
use crate::schema;
use crate::validate::{Finding, problem};
use crate::yaml::Step;
use serde_json::{Map, Value};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use terok_proto::config::{Origin, Problem, ProblemCode, Scope};
use terok_proto::{Fault, Kind};

/// Everything global, as of one moment.
#[derive(Clone)]
pub struct Global {
    /// `config.yml` in force.
    pub config: GlobalConfig,
    /// `terokd.yml` in force.
    pub terokd: TerokdConfig,
    /// All directories.
    pub paths: Paths,
    /// Files of `config.yml`.
    pub config_layers: Layers,
    /// Files of `terokd.yml`.
    pub terokd_layers: Layers,
    /// What is wrong with any of them.
    pub problems: Vec<Problem>,
    /// Files whose change changes this value, whether they exist or not.
    pub watched_paths: Vec<PathBuf>,
}

impl fmt::Debug for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Global")
            .field("config", &self.config)
            .field("terokd", &self.terokd)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("scope", &self.scope)
            .field("invalid", &self.invalid)
            .finish_non_exhaustive()
    }
}

/// Keys that take effect at the next start only.
const RESTART: [[&str; 2]; 7] = [
    ["paths", "root"],
    ["services", "mode"],
    ["vault", "port"],
    ["vault", "ssh_signer_port"],
    ["gate_server", "port"],
    ["network", "port_range_start"],
    ["network", "port_range_end"],
];

/// Reads all layers. With `previous`, what is broken now keeps the value it had.
pub fn load(env: &Environment, previous: Option<&Global>) -> Global {
    let files = config_files(env);
    let siblings: Vec<(Origin, PathBuf)> = files
        .iter()
        .map(|(origin, path)| (*origin, path.with_file_name("terokd.yml")))
        .collect();
    let watched_paths = files
        .iter()
        .chain(&siblings)
        .map(|(_, path)| path.clone())
        .collect();
    let mut config_layers = Layers::load(
        Scope::Global,
        files,
        previous.map(|global| &global.config_layers),
    );
    let terokd_layers = Layers::load(
        Scope::Terokd,
        siblings,
        previous.map(|global| &global.terokd_layers),
    );
    if let Some(previous) = previous {
        hold_back(&mut config_layers, &previous.config_layers);
    }
    passphrase_warnings(&mut config_layers);
    let config: GlobalConfig = typed(Scope::Global, &config_layers.tree);
    let terokd: TerokdConfig = typed(Scope::Terokd, &terokd_layers.tree);
    let paths = Paths::new(env, &path_settings(&config));
    let mut problems = config_layers.problems.clone();
    problems.extend(terokd_layers.problems.clone());
    for warning in &paths.warnings {
        let path: Vec<Step> = warning
            .key
            .map(|key| key.split('.').map(Step::from).collect())
            .unwrap_or_default();
        if !path.is_empty() {
            let finding = Finding::warning(&path, ProblemCode::BadValue, &warning.message);
            problems.push(problem(Scope::Global, finding, &config_layers.places()));
        }
    }
    Global {
        config,
        terokd,
        paths,
        config_layers,
        terokd_layers,
        problems,
        watched_paths,
    }
}

/// Files that `config.yml` is read from, lowest first.
pub fn config_files(env: &Environment) -> Vec<(Origin, PathBuf)> {
    let resolve = |text: &str| env.resolve(text).unwrap_or_else(|_| env.normalise(text));
    if let Some(file) = env.var("TEROK_CONFIG_FILE") {
        return vec![(Origin::Override, resolve(file))];
    }
    let system = PathBuf::from("/etc/terok/config.yml");
    let mut files = vec![(Origin::System, system.clone())];
    let prefix = match env.var("TEROK_PREFIX") {
        Some(prefix) => Some(resolve(prefix)),
        None => env
            .exe
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::parent)
            .filter(|prefix| *prefix != Path::new("/usr"))
            .map(Path::to_owned),
    };
    if let Some(prefix) = prefix {
        let file = prefix.join("etc/terok/config.yml");
        if env.normalise(&file) != env.normalise(&system) {
            files.push((Origin::Prefix, file));
        }
    }
    let config_home = env
        .var("XDG_CONFIG_HOME")
        .map_or_else(|| env.normalise(".config"), resolve);
    let user = config_home.join("terok/config.yml");
    if !files.iter().any(|(_, file)| *file == user) {
        files.push((Origin::User, user));
    }
    files
}

impl Global {
    /// The configuration without any file.
    pub fn without_files(env: &Environment) -> Self {
        let config_layers = Layers::load(Scope::Global, Vec::new(), None);
        let terokd_layers = Layers::load(Scope::Terokd, Vec::new(), None);
        let config: GlobalConfig = typed(Scope::Global, &config_layers.tree);
        Self {
            terokd: typed(Scope::Terokd, &terokd_layers.tree),
            paths: Paths::new(env, &path_settings(&config)),
            config,
            config_layers,
            terokd_layers,
            problems: Vec::new(),
            watched_paths: Vec::new(),
        }
    }

    /// `config.yml` in force, in normal form and without defaults: only what somebody set.
    pub fn tree(&self) -> &Map<String, Value> {
        &self.config_layers.tree
    }

    /// The merged `config.yml` as written, also where it is not in force.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.config_layers.merged
    }

    /// The free-form `agent` section.
    pub fn agent(&self) -> &Map<String, Value> {
        &self.config.agent
    }

    /// Sections without a value that could be trusted: broken since the start.
    pub fn invalid_sections(&self) -> Vec<String> {
        let config = self.config_layers.invalid.iter().cloned();
        let terokd = self.terokd_layers.invalid.iter();
        config
            .chain(terokd.map(|section| format!("terokd.yml: {section}")))
            .collect()
    }

    /// Why nothing may be launched or exposed with this configuration, if so.
    pub fn launch_fault(&self) -> Option<Fault> {
        let lost: Vec<&str> = self
            .config_layers
            .lost()
            .chain(self.terokd_layers.lost())
            .map(|layer| layer.name.as_str())
            .collect();
        let sections = self.invalid_sections();
        let message = match (lost.first(), sections.is_empty()) {
            (Some(file), _) => {
                format!("`{file}` cannot be read; fix it first, `config.problems` says where")
            }
            (None, false) => format!(
                "the global configuration is invalid in: {}; fix it first, `config.problems` says where",
                sections.join(", ")
            ),
            (None, true) => return None,
        };
        let errors: Vec<&Problem> = self
            .problems
            .iter()
            .filter(|problem| problem.severity == terok_proto::config::Severity::Error)
            .collect();
        let path = errors.first().and_then(|problem| problem.path.clone());
        let errors = serde_json::to_value(&errors).unwrap_or_default();
        Some(
            Fault::new(Kind::InvalidConfig, &message)
                .with("path", path)
                .with("text", message)
                .with("errors", errors),
        )
    }
}

/// A tree in normal form as its type; the tables and the types say the same, which a test makes sure of.
fn typed<T: serde::de::DeserializeOwned>(scope: Scope, tree: &Map<String, Value>) -> T {
    let full = Value::Object(schema::with_defaults(scope, tree));
    serde_json::from_value(full).unwrap_or_else(|_| {
        let defaults = Value::Object(schema::with_defaults(scope, &Map::new()));
        serde_json::from_value(defaults).expect("the defaults of the tables fit their types")
    })
}

/// The keys of `config.yml` that move directories.
fn path_settings(config: &GlobalConfig) -> PathSettings {
    let paths = &config.paths;
    PathSettings {
        root: paths.root.clone(),
        build_dir: paths.build_dir.clone(),
        sandbox_live_dir: paths.sandbox_live_dir.clone(),
        user_projects_dir: paths.user_projects_dir.clone(),
        user_presets_dir: paths.user_presets_dir.clone(),
        port_registry_dir: paths.port_registry_dir.clone(),
        credentials_dir: config.credentials.dir.clone(),
        gate_repos_dir: config.gate_server.repos_dir.clone(),
    }
}

/// Keeps the running value of keys that a running daemon cannot change, and says so.
fn hold_back(now: &mut Layers, previous: &Layers) {
    for [section, key] in RESTART {
        let get = |tree: &Map<String, Value>| tree.get(section).and_then(|s| s.get(key)).cloned();
        let (new, running) = (get(&now.tree), get(&previous.tree));
        if new == running {
            continue;
        }
        let path = [Step::from(section), Step::from(key)];
        let finding = Finding::warning(
            &path,
            ProblemCode::RestartRequired,
            "the change takes effect at the next start of terokd",
        );
        let placed = problem(now.scope, finding, &now.places());
        now.problems.push(placed);
        let entry = now
            .tree
            .entry(section)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(entry) = entry.as_object_mut() {
            match running {
                Some(value) => entry.insert(key.to_owned(), value),
                None => entry.remove(key),
            };
        }
    }
}

/// Warns about a passphrase in clear, and about one that others can read.
fn passphrase_warnings(layers: &mut Layers) {
    let path = [Step::from("credentials"), Step::from("passphrase")];
    let mut found = Vec::new();
    for layer in &layers.layers {
        let Some(document) = layer.document.as_deref() else {
            continue;
        };
        if layers::lookup(&document.value, &path).is_none_or(serde_json::Value::is_null) {
            continue;
        }
        let places = crate::validate::Places::one(Some(&layer.name), document);
        let mut warn = |message: String| {
            let finding = Finding::warning(&path, ProblemCode::BadValue, message);
            found.push(problem(layers.scope, finding, &places));
        };
        warn(format!(
            "the vault's passphrase stands in clear in `{}`; choose a safer way and remove the key",
            layer.name
        ));
        let mode = std::fs::metadata(&layer.path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            warn(format!(
                "others can read the vault's passphrase in `{}`; run `chmod 600` on it",
                layer.name
            ));
        }
    }
    layers.problems.extend(found);
}
