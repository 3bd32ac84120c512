//! Every directory by name, and where each comes from.
//!
//! Owns the table of directories. Creates nothing and, symbolic links aside, looks at nothing.

use crate::env::Environment;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use terok_proto::daemon::{DaemonPaths, PathSource};

/// Keys of `config.yml` that move directories; blank means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSettings {
    /// `paths.root`
    pub root: Option<String>,
    /// `paths.build_dir`
    pub build_dir: Option<String>,
    /// `paths.sandbox_live_dir`
    pub sandbox_live_dir: Option<String>,
    /// `paths.user_projects_dir`
    pub user_projects_dir: Option<String>,
    /// `paths.user_presets_dir`
    pub user_presets_dir: Option<String>,
    /// `paths.port_registry_dir`
    pub port_registry_dir: Option<String>,
    /// `credentials.dir`
    pub credentials_dir: Option<String>,
    /// `gate_server.repos_dir`
    pub gate_repos_dir: Option<String>,
}

/// All directories of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Root of everything durable.
    pub state_root: PathBuf,
    /// Root of the system's configuration.
    pub config_root: PathBuf,
    /// Core state: builds, task metadata, panic lock, log.
    pub core_state_dir: PathBuf,
    /// terokd's own durable files.
    pub terokd_dir: PathBuf,
    /// Where images are built.
    pub build_dir: PathBuf,
    /// Archives of deleted projects and tasks.
    pub archive_dir: PathBuf,
    /// Live tasks and mounts.
    pub sandbox_live_dir: PathBuf,
    /// Directories mounted into containers of all tasks.
    pub mounts_dir: PathBuf,
    /// Durable state of the sandbox services.
    pub sandbox_state_dir: PathBuf,
    /// The bare mirrors.
    pub gate_repos_dir: PathBuf,
    /// Clones that speed up new ones.
    pub clone_cache_dir: PathBuf,
    /// State of the executor.
    pub executor_state_dir: PathBuf,
    /// The vault.
    pub vault_dir: PathBuf,
    /// Sockets.
    pub runtime_dir: PathBuf,
    /// Sockets of the sandbox services.
    pub sandbox_runtime_dir: PathBuf,
    /// Runtime files that are no sockets.
    pub runtime_root: PathBuf,
    /// Configuration of the sandbox services.
    pub sandbox_config_dir: PathBuf,
    /// Profiles of the firewall.
    pub shield_profiles_dir: PathBuf,
    /// Where users of a host agree on ports.
    pub port_registry_dir: PathBuf,
    /// Projects of the system.
    pub system_projects_dir: PathBuf,
    /// Projects of the user.
    pub user_projects_dir: PathBuf,
    /// Presets of the user.
    pub user_presets_dir: PathBuf,
    /// The `config.yml` that edits go to.
    pub global_config_path: PathBuf,
    /// Where each comes from.
    pub sources: BTreeMap<&'static str, PathSource>,
    /// Settings that could not be followed, and deprecated variables.
    pub warnings: Vec<PathWarning>,
}

/// A setting of a path that is not what the user may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathWarning {
    /// Dotted key of `config.yml`, unless it is about a variable.
    pub key: Option<&'static str>,
    /// What, and what holds instead.
    pub message: String,
}

impl Paths {
    /// Computes all directories: variable, then `config.yml`, then default.
    pub fn new(env: &Environment, settings: &PathSettings) -> Self {
        let mut rows = Rows {
            env,
            sources: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let root = env.is_root;
        let home = |tail: &str| env.normalise(env.home.join(tail));
        let data_home = rows.xdg("XDG_DATA_HOME", ".local/share");
        let config_home = rows.xdg("XDG_CONFIG_HOME", ".config");
        let state_home = rows.xdg("XDG_STATE_HOME", ".local/state");

        let state_root = rows.row(
            "state_root",
            &["TEROK_ROOT"],
            ("paths.root", &settings.root),
            either(root, "/var/lib/terok", data_home.join("terok")),
        );
        let config_root = rows.row(
            "config_root",
            &["TEROK_CONFIG_DIR"],
            NONE,
            either(root, "/etc/terok", config_home.join("terok")),
        );
        let core_state_dir = rows.row(
            "core_state_dir",
            &["TEROK_STATE_DIR"],
            NONE,
            state_root.join("core"),
        );
        let build_dir = rows.row(
            "build_dir",
            &[],
            ("paths.build_dir", &settings.build_dir),
            core_state_dir.join("build"),
        );
        let sandbox_live_dir = rows.row(
            "sandbox_live_dir",
            &["TEROK_SANDBOX_LIVE_DIR"],
            ("paths.sandbox_live_dir", &settings.sandbox_live_dir),
            state_root.join("sandbox-live"),
        );
        let sandbox_state_dir = rows.row(
            "sandbox_state_dir",
            &["TEROK_SANDBOX_STATE_DIR"],
            NONE,
            state_root.join("sandbox"),
        );
        let gate_repos_dir = rows.row(
            "gate_repos_dir",
            &[],
            ("gate_server.repos_dir", &settings.gate_repos_dir),
            sandbox_state_dir.join("gate"),
        );
        let executor_state_dir = rows.row(
            "executor_state_dir",
            &["TEROK_EXECUTOR_STATE_DIR"],
            NONE,
            state_root.join("executor"),
        );
        let vault_dir = rows.row(
            "vault_dir",
            &["TEROK_VAULT_DIR", "TEROK_CREDENTIALS_DIR"],
            ("credentials.dir", &settings.credentials_dir),
            state_root.join("vault"),
        );
        if env.var("TEROK_VAULT_DIR").is_none() && env.var("TEROK_CREDENTIALS_DIR").is_some() {
            rows.warnings.push(PathWarning {
                key: None,
                message: "`TEROK_CREDENTIALS_DIR` is deprecated; set `TEROK_VAULT_DIR`".into(),
            });
        }
        let user_runtime = match env.var("XDG_RUNTIME_DIR") {
            Some(dir) => env.normalise(dir).join("terok"),
            None => state_home.join("terok"),
        };
        let runtime_dir = rows.row(
            "runtime_dir",
            &[],
            NONE,
            either(root, "/run/terok", user_runtime),
        );
        if !root && env.var("XDG_RUNTIME_DIR").is_some() {
            rows.sources.insert("runtime_dir", PathSource::Env);
        }
        let sandbox_runtime_dir = rows.row(
            "sandbox_runtime_dir",
            &["TEROK_SANDBOX_RUNTIME_DIR"],
            NONE,
            runtime_dir.join("sandbox"),
        );
        let runtime_root = rows.row(
            "runtime_root",
            &["TEROK_RUNTIME_DIR"],
            NONE,
            either(root, "/run/terok", home(".cache/terok")),
        );
        let sandbox_config_dir = rows.row(
            "sandbox_config_dir",
            &["TEROK_SANDBOX_CONFIG_DIR"],
            NONE,
            config_root.join("sandbox"),
        );
        let port_registry_dir = rows.row(
            "port_registry_dir",
            &["TEROK_PORT_REGISTRY_DIR"],
            ("paths.port_registry_dir", &settings.port_registry_dir),
            env.temp_dir.join("terok-ports"),
        );
        let user_projects_dir = rows.row(
            "user_projects_dir",
            &[],
            ("paths.user_projects_dir", &settings.user_projects_dir),
            config_home.join("terok/projects"),
        );
        let user_presets_dir = rows.row(
            "user_presets_dir",
            &[],
            ("paths.user_presets_dir", &settings.user_presets_dir),
            config_home.join("terok/core/presets"),
        );
        let global_config_path = rows.row(
            "global_config_path",
            &["TEROK_CONFIG_FILE"],
            NONE,
            either(
                root,
                "/etc/terok/config.yml",
                config_home.join("terok/config.yml"),
            ),
        );
        let derived = |rows: &mut Rows<'_>, name, from: &str| {
            let source = match rows.sources.get(from) {
                Some(PathSource::Env) => PathSource::Env,
                _ => PathSource::Default,
            };
            rows.sources.insert(name, source);
        };
        derived(&mut rows, "system_projects_dir", "config_root");
        derived(&mut rows, "shield_profiles_dir", "config_root");
        for name in ["archive_dir", "mounts_dir", "clone_cache_dir", "terokd_dir"] {
            rows.sources.insert(name, PathSource::Default);
        }
        Self {
            archive_dir: state_root.join("archive"),
            terokd_dir: core_state_dir.join("terokd"),
            mounts_dir: sandbox_live_dir.join("mounts"),
            clone_cache_dir: sandbox_state_dir.join("clone-cache"),
            system_projects_dir: config_root.join("projects"),
            shield_profiles_dir: config_root.join("shield/profiles"),
            state_root,
            config_root,
            core_state_dir,
            build_dir,
            sandbox_live_dir,
            sandbox_state_dir,
            gate_repos_dir,
            executor_state_dir,
            vault_dir,
            runtime_dir,
            sandbox_runtime_dir,
            runtime_root,
            sandbox_config_dir,
            port_registry_dir,
            user_projects_dir,
            user_presets_dir,
            global_config_path,
            sources: rows.sources,
            warnings: rows.warnings,
        }
    }

    /// Directories that hold projects, in order of priority.
    pub fn projects_dirs(&self) -> Vec<&Path> {
        let mut dirs = vec![self.user_projects_dir.as_path()];
        if self.system_projects_dir != self.user_projects_dir {
            dirs.push(&self.system_projects_dir);
        }
        dirs
    }

    /// Metadata of the tasks of a project.
    pub fn task_metadata_dir(&self, project_id: &str) -> PathBuf {
        self.core_state_dir
            .join("projects")
            .join(project_id)
            .join("tasks")
    }

    /// All directories by their names on the wire.
    pub fn named(&self) -> [(&'static str, &Path); 23] {
        [
            ("state_root", &self.state_root),
            ("config_root", &self.config_root),
            ("core_state_dir", &self.core_state_dir),
            ("terokd_dir", &self.terokd_dir),
            ("build_dir", &self.build_dir),
            ("archive_dir", &self.archive_dir),
            ("sandbox_live_dir", &self.sandbox_live_dir),
            ("mounts_dir", &self.mounts_dir),
            ("sandbox_state_dir", &self.sandbox_state_dir),
            ("gate_repos_dir", &self.gate_repos_dir),
            ("clone_cache_dir", &self.clone_cache_dir),
            ("executor_state_dir", &self.executor_state_dir),
            ("vault_dir", &self.vault_dir),
            ("runtime_dir", &self.runtime_dir),
            ("sandbox_runtime_dir", &self.sandbox_runtime_dir),
            ("runtime_root", &self.runtime_root),
            ("sandbox_config_dir", &self.sandbox_config_dir),
            ("shield_profiles_dir", &self.shield_profiles_dir),
            ("port_registry_dir", &self.port_registry_dir),
            ("system_projects_dir", &self.system_projects_dir),
            ("user_projects_dir", &self.user_projects_dir),
            ("user_presets_dir", &self.user_presets_dir),
            ("global_config_path", &self.global_config_path),
        ]
    }

    /// Answer of `daemon.paths`; looks which of them exist.
    pub fn daemon_paths(&self) -> DaemonPaths {
        let named = self.named();
        let owned = |name: &str| name.to_owned();
        DaemonPaths {
            paths: named
                .iter()
                .map(|(name, path)| (owned(name), Value::from(path.to_string_lossy())))
                .collect(),
            sources: self
                .sources
                .iter()
                .map(|(name, source)| (owned(name), *source))
                .collect(),
            exists: named
                .iter()
                .map(|(name, path)| (owned(name), path.exists()))
                .collect(),
        }
    }
}

const NONE: (&str, &Option<String>) = ("", &None);

fn either(root: bool, as_root: &str, as_user: PathBuf) -> PathBuf {
    if root {
        PathBuf::from(as_root)
    } else {
        as_user
    }
}

struct Rows<'a> {
    env: &'a Environment,
    sources: BTreeMap<&'static str, PathSource>,
    warnings: Vec<PathWarning>,
}

impl Rows<'_> {
    fn xdg(&mut self, variable: &'static str, default: &str) -> PathBuf {
        match self.env.var(variable) {
            Some(text) => self.resolve(None, text),
            None => None,
        }
        .unwrap_or_else(|| self.env.normalise(default))
    }

    fn row(
        &mut self,
        name: &'static str,
        variables: &[&'static str],
        (key, setting): (&'static str, &Option<String>),
        default: PathBuf,
    ) -> PathBuf {
        for variable in variables {
            if let Some(text) = self.env.var(variable)
                && let Some(path) = self.resolve(None, text)
            {
                self.sources.insert(name, PathSource::Env);
                return path;
            }
        }
        if let Some(text) = setting
            && !text.trim().is_empty()
            && let Some(path) = self.resolve(Some(key), text)
        {
            self.sources.insert(name, PathSource::Config);
            return path;
        }
        self.sources.insert(name, PathSource::Default);
        default
    }

    fn resolve(&mut self, key: Option<&'static str>, text: &str) -> Option<PathBuf> {
        match self.env.resolve(text) {
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("`{text}` cannot be used, {error}; the default holds");
                self.warnings.push(PathWarning { key, message });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Environment {
        Environment::new(vars.iter().copied(), "/nowhere/u")
    }

    fn paths(vars: &[(&str, &str)]) -> Paths {
        Paths::new(&env(vars), &PathSettings::default())
    }

    #[test]
    fn user_and_system_projects_are_one_directory_by_default() {
        let p = paths(&[("A", "")]);
        assert_eq!(p.user_projects_dir, p.system_projects_dir);
        assert_eq!(p.projects_dirs().len(), 1);
        let p = paths(&[("TEROK_CONFIG_DIR", "/etc/x")]);
        assert_eq!(p.projects_dirs().len(), 2);
        assert_eq!(p.sources["system_projects_dir"], PathSource::Env);
    }

    #[test]
    fn state_dir_moves_the_core_only() {
        let p = paths(&[("TEROK_STATE_DIR", "/s"), ("TEROK_ROOT", "/r")]);
        assert_eq!(p.build_dir, Path::new("/s/build"));
        assert_eq!(p.task_metadata_dir("x"), Path::new("/s/projects/x/tasks"));
        for (path, want) in [
            (&p.archive_dir, "/r/archive"),
            (&p.vault_dir, "/r/vault"),
            (&p.gate_repos_dir, "/r/sandbox/gate"),
            (&p.mounts_dir, "/r/sandbox-live/mounts"),
        ] {
            assert_eq!(path, Path::new(want));
        }
    }

    #[test]
    fn root_has_directories_of_the_system() {
        let mut env = env(&[("XDG_RUNTIME_DIR", "/run/user/0")]);
        env.is_root = true;
        let p = Paths::new(&env, &PathSettings::default());
        assert_eq!(p.state_root, Path::new("/var/lib/terok"));
        assert_eq!(p.runtime_dir, Path::new("/run/terok"));
        assert_eq!(p.runtime_root, Path::new("/run/terok"));
        assert_eq!(p.global_config_path, Path::new("/etc/terok/config.yml"));
        assert_eq!(
            p.user_projects_dir,
            Path::new("/nowhere/u/.config/terok/projects")
        );
        assert_eq!(p.system_projects_dir, Path::new("/etc/terok/projects"));
    }

    #[test]
    fn names_and_sources_agree() {
        let p = paths(&[("XDG_RUNTIME_DIR", "/nowhere/run")]);
        let mut names: Vec<&str> = p.named().iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names, p.sources.keys().copied().collect::<Vec<_>>());
        assert_eq!(
            p.daemon_paths().paths["sandbox_runtime_dir"],
            "/nowhere/run/terok/sandbox"
        );
    }

    #[test]
    fn settings_lie_between_variables_and_defaults() {
        let settings = PathSettings {
            root: Some("~/r".into()),
            credentials_dir: Some("/v".into()),
            build_dir: Some(" ".into()),
            gate_repos_dir: Some("~no-such-user-here/g".into()),
            ..PathSettings::default()
        };
        let p = Paths::new(&env(&[("TEROK_CREDENTIALS_DIR", "/c")]), &settings);
        assert_eq!(p.vault_dir, Path::new("/c"));
        assert_eq!(p.build_dir, Path::new("/nowhere/u/r/core/build"));
        assert_eq!(p.gate_repos_dir, Path::new("/nowhere/u/r/sandbox/gate"));
        assert_eq!(p.warnings.len(), 2);
        assert_eq!(p.sources["state_root"], PathSource::Config);
    }
}
