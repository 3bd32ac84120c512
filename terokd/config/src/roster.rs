//! The roster: everything that can be installed into an image or authenticated.
//!
//! Owns the bundled entries and merges the user's files over them. One bad user file is set aside with its error;
//! the others, and the bundled entry it was meant for, stay. Knows no image and no credential.

mod definition;
#[cfg(test)]
mod tests;

pub use definition::{
    Auth, AuthMode, AutoApprove, Capabilities, CredentialType, Definition, GitIdentity, Headless,
    Help, HelpSection, Install, LogFormat, Mount, OauthRefresh, Opencode, PhantomValue, Session,
    Sidecar, Vault, Wrapper,
};

use crate::merge::deep_merge;
use crate::yaml;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use terok_proto::error::printable_line;
use terok_proto::project::{AgentProvider, RosterEntry, RosterOrigin};
use terok_proto::{Fault, Kind};

/// Version of the entry format that this daemon knows.
pub const ROSTER_VERSION: i64 = 1;

/// Agents whose images carry a `terok-NAME-acp` wrapper.
const ACP_WRAPPERS: [&str; 5] = ["claude", "codex", "copilot", "opencode", "vibe"];

/// Whether an image with that agent carries its wrapper for editors.
pub fn has_acp_wrapper(name: &str) -> bool {
    ACP_WRAPPERS.contains(&name)
}

/// User files that are read at most; the rest is reported.
const MAX_USER_FILES: usize = 1000;

macro_rules! bundled {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../roster/", $name, ".yaml")))),*]
    };
}

const BUNDLED: &[(&str, &str)] = bundled![
    "blablador",
    "caddy",
    "claude",
    "coderabbit",
    "codex",
    "copilot",
    "gh",
    "glab",
    "kisski",
    "opencode",
    "openrouter",
    "pi",
    "sonar",
    "toad",
    "vibe",
];

static BUNDLED_ROSTER: LazyLock<Roster> = LazyLock::new(|| {
    let mut roster = Roster::default();
    for (name, text) in BUNDLED {
        let (map, _) = parse_entry(text).expect("bundled entries are YAML mappings");
        let definition =
            Definition::from_map(name, map.clone()).expect("bundled entries are valid");
        roster.maps.insert((*name).to_owned(), map);
        roster
            .entries
            .insert((*name).to_owned(), Entry::bundled(name, definition));
    }
    roster
});

/// One entry and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name in selections.
    pub name: String,
    /// What the files say. A quarantined entry without a bundled one has none.
    pub definition: Option<Definition>,
    /// Where it comes from.
    pub origin: RosterOrigin,
    /// The user's file.
    pub path: Option<String>,
    /// Why the user's file is not in force.
    pub error: Option<String>,
}

impl Entry {
    fn bundled(name: &str, definition: Definition) -> Self {
        Self {
            name: name.to_owned(),
            definition: Some(definition),
            origin: RosterOrigin::Bundled,
            path: None,
            error: None,
        }
    }

    /// Whether it can be selected for an image.
    pub fn installable(&self) -> bool {
        self.definition
            .as_ref()
            .is_some_and(|d| d.install.is_some())
    }

    /// Whether it can run a prompt.
    pub fn is_agent(&self) -> bool {
        self.definition.as_ref().is_some_and(Definition::is_agent)
    }
}

/// Every entry by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    entries: BTreeMap<String, Entry>,
    maps: BTreeMap<String, Map<String, Value>>,
    warnings: Vec<String>,
}

impl Roster {
    /// The entries shipped with the daemon.
    pub fn bundled() -> Self {
        BUNDLED_ROSTER.clone()
    }

    /// The bundled entries with the files `NAME.yaml` of `dir` merged over them. Never fails: see [`Self::warnings`].
    pub fn load(dir: &Path) -> Self {
        let mut roster = Self::bundled();
        let names = match user_files(dir) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return roster,
            Err(error) => {
                roster.warn(format!(
                    "cannot read the roster directory `{}`: {error}",
                    dir.display()
                ));
                return roster;
            }
        };
        if names.len() > MAX_USER_FILES {
            roster.warn(format!(
                "`{}` holds more than {MAX_USER_FILES} roster files; the rest is ignored",
                dir.display()
            ));
        }
        for name in names.into_iter().take(MAX_USER_FILES) {
            roster.add_user_file(&name, &dir.join(format!("{name}.yaml")));
        }
        roster
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// What the files say about that entry.
    pub fn definition(&self, name: &str) -> Option<&Definition> {
        self.get(name)?.definition.as_ref()
    }

    /// All entries by name, quarantined ones included.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What is wrong with the user's files, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Names that a selection may hold.
    pub fn installable(&self) -> BTreeSet<&str> {
        self.entries()
            .filter(|e| e.installable())
            .map(|e| e.name.as_str())
            .collect()
    }

    /// Names that can run a prompt.
    pub fn agents(&self) -> Vec<&str> {
        self.entries()
            .filter(|e| e.is_agent())
            .map(|e| e.name.as_str())
            .collect()
    }

    /// The wire form of every entry, by name.
    pub fn list(&self) -> Vec<RosterEntry> {
        self.entries().map(wire_entry).collect()
    }

    /// How an agent is run; `installed` stays unknown. `unknown_provider` names the agents there are.
    pub fn provider(&self, name: &str) -> Result<AgentProvider, Fault> {
        self.entries
            .get(name)
            .filter(|entry| entry.is_agent())
            .and_then(|entry| Some(provider(name, entry.definition.as_ref()?)))
            .ok_or_else(|| {
                let agents = self.agents();
                let shown: String = name.chars().take(80).collect();
                Fault::new(
                    Kind::UnknownProvider,
                    format!("unknown agent `{shown}`; available: {}", agents.join(", ")),
                )
                .with("provider", shown)
                .with("available", agents)
            })
    }

    /// Shared directories of all entries: the first entry by name that asks for a host directory wins.
    pub fn mounts(&self) -> Vec<(String, Mount)> {
        let mut seen = BTreeSet::new();
        self.entries()
            .filter_map(|e| Some((&e.name, e.definition.as_ref()?)))
            .flat_map(|(name, d)| {
                d.all_mounts()
                    .into_iter()
                    .map(move |mount| (name.clone(), mount))
            })
            .filter(|(_, mount)| seen.insert(mount.host_dir.clone()))
            .collect()
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(printable_line(&warning));
    }

    fn add_user_file(&mut self, name: &str, path: &Path) {
        let outcome = read_user_file(path).and_then(|read| {
            let Some((user, note)) = read else {
                return Ok(None);
            };
            let base = self.maps.get(name).cloned().unwrap_or_default();
            let definition = Definition::from_map(name, deep_merge(&base, &user))?;
            self.check_conflicts(name, &definition)?;
            Ok(Some((definition, note)))
        });
        let is_bundled = self.maps.contains_key(name);
        match outcome {
            Ok(None) => self.warn(format!(
                "roster file `{}` says nothing; it is ignored",
                path.display()
            )),
            Ok(Some((definition, note))) => {
                if let Some(note) = note {
                    self.warn(format!("roster file `{}`: {note}", path.display()));
                }
                let origin = if is_bundled {
                    RosterOrigin::Merged
                } else {
                    RosterOrigin::User
                };
                self.entries.insert(
                    name.to_owned(),
                    Entry {
                        name: name.to_owned(),
                        definition: Some(definition),
                        origin,
                        path: Some(path.to_string_lossy().into_owned()),
                        error: None,
                    },
                );
            }
            Err(error) => {
                let error = printable_line(&error);
                self.warn(format!(
                    "roster file `{}` is not in force: {error}",
                    path.display()
                ));
                let entry = self
                    .entries
                    .entry(name.to_owned())
                    .or_insert_with(|| Entry {
                        name: name.to_owned(),
                        definition: None,
                        origin: RosterOrigin::User,
                        path: None,
                        error: None,
                    });
                entry.path = Some(path.to_string_lossy().into_owned());
                entry.error = Some(error);
            }
        }
    }

    /// What two entries may not both claim: a credential route, or a variable with different values.
    fn check_conflicts(&self, name: &str, new: &Definition) -> Result<(), String> {
        for other in self.entries().filter(|e| e.name != name) {
            let Some(old) = &other.definition else {
                continue;
            };
            if let (Some(a), Some(b)) = (&new.vault, &old.vault)
                && a.route_prefix == b.route_prefix
            {
                return Err(format!(
                    "`vault.route_prefix`: \"{}\" is the route of `{}` already",
                    a.route_prefix, other.name
                ));
            }
            for (variable, value) in &new.auto_approve.env {
                if old
                    .auto_approve
                    .env
                    .get(variable)
                    .is_some_and(|theirs| theirs != value)
                {
                    return Err(format!(
                        "`auto_approve.env.{variable}`: `{}` sets another value",
                        other.name
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Stems of the entry files of a directory, sorted.
fn user_files(dir: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let file = entry?.file_name();
        let Some(stem) = file.to_str().and_then(|name| name.strip_suffix(".yaml")) else {
            continue;
        };
        if is_entry_name(stem) && names.len() <= MAX_USER_FILES {
            names.insert(stem.to_owned());
        }
    }
    Ok(names)
}

/// Names that a selection can express: no comma, no blank, lower case, no leading dash, and not `all`.
fn is_entry_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name != "all"
        && name.starts_with(plain)
        && name
            .chars()
            .all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
}

/// A user's mapping without its marker, and what is odd about the marker. Null if there is nothing else.
type Parsed = Option<(Map<String, Value>, Option<String>)>;

fn read_user_file(path: &Path) -> Result<Parsed, String> {
    let bytes = yaml::read_bytes(path).map_err(|problems| first(&problems))?;
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let (map, note) = parse_entry(&text)?;
    Ok((!map.is_empty()).then_some((map, note)))
}

fn parse_entry(text: &str) -> Result<(Map<String, Value>, Option<String>), String> {
    let document = yaml::parse(text).map_err(|problems| first(&problems))?;
    let mut map = match document.value {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err("the file is no mapping".to_owned()),
    };
    let note = match map.shift_remove("roster_version") {
        None => None,
        Some(version) => match version.as_i64() {
            Some(version) if version <= ROSTER_VERSION => None,
            Some(version) => Some(format!(
                "`roster_version: {version}` is newer than {ROSTER_VERSION}, which this daemon knows; it is loaded all the same"
            )),
            None => Some(format!(
                "`roster_version` is no integer; {ROSTER_VERSION} is assumed"
            )),
        },
    };
    Ok((map, note))
}

fn first(problems: &[yaml::YamlProblem]) -> String {
    match problems.first() {
        None => "unreadable".to_owned(),
        Some(problem) => match (problem.line, problem.column) {
            (Some(line), Some(column)) => {
                format!("{} at line {line}, column {column}", problem.message)
            }
            _ => problem.message.clone(),
        },
    }
}

fn wire_entry(entry: &Entry) -> RosterEntry {
    let definition = entry.definition.as_ref();
    let auth = definition.and_then(|d| d.auth.as_ref());
    RosterEntry {
        name: entry.name.clone(),
        label: definition.map_or_else(|| entry.name.clone(), |d| d.label.clone()),
        kind: definition.map_or(terok_proto::project::RosterKind::Native, |d| d.kind),
        binary: definition.and_then(|d| d.binary.clone()),
        is_agent: entry.is_agent(),
        installable: entry.installable(),
        depends_on: definition.map_or_else(Vec::new, |d| d.depends_on().to_vec()),
        acp: has_acp_wrapper(&entry.name),
        route: definition
            .and_then(|d| d.vault.as_ref())
            .map(|v| v.route_prefix.clone()),
        auth_modes: auth.map_or_else(Vec::new, |a| {
            a.modes.iter().map(|m| m.name().to_owned()).collect()
        }),
        origin: entry.origin,
        path: entry.path.clone(),
        error: entry.error.clone(),
    }
}

fn provider(name: &str, d: &Definition) -> AgentProvider {
    let opencode = d
        .opencode
        .as_ref()
        .and_then(|section| serde_json::to_value(section).ok());
    AgentProvider {
        name: name.to_owned(),
        label: d.label.clone(),
        binary: d.binary.clone().unwrap_or_else(|| name.to_owned()),
        git_author_name: d.git_identity.name.clone().unwrap_or_default(),
        git_author_email: d.git_identity.email.clone().unwrap_or_default(),
        headless_subcommand: d.headless.subcommand.clone(),
        prompt_flag: d.headless.prompt_flag.clone(),
        model_flag: d.headless.model_flag.clone(),
        max_turns_flag: d.headless.max_turns_flag.clone(),
        verbose_flag: d.headless.verbose_flag.clone(),
        output_format_flags: d.headless.output_format_flags.clone(),
        auto_approve_flags: d.auto_approve.flags.clone(),
        refuse_subcommands: d.wrapper.refuse_subcommands.clone(),
        auto_approve_env: d.auto_approve.env.clone(),
        supports_session_resume: d.session.supports_resume,
        supports_session_hook: d.session.supports_hook,
        supports_agents_json: d.capabilities.agents_json,
        supports_add_dir: d.capabilities.add_dir,
        resume_flag: d.session.resume_flag.clone(),
        continue_flag: d.session.continue_flag.clone(),
        session_file: d.session.session_file.clone(),
        log_format: d.capabilities.log_format.name().to_owned(),
        opencode_config: opencode,
        kind: d.kind,
        installed: None,
    }
}
