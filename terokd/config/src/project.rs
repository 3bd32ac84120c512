//! Projects on disk: found, loaded one by one, and kept apart from each other's mistakes.
//!
//! Owns discovery, the loading of one `project.yml`, and the error that a broken one carries. Knows nothing of
//! watching or caching; a [`ProjectLoad`] is immutable and cheap to clone.

mod claims;
mod conflicts;
mod ssh_url;
#[cfg(test)]
mod tests;

pub use claims::{Claim, Claims};
pub use conflicts::mark_conflicts;
pub use ssh_url::is_ssh_url;

use crate::id::ProjectId;
use crate::paths::Paths;
use crate::resolve::{self, Context};
use crate::validate::{self, Places};
use crate::yaml::{self, Document};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use terok_proto::config::{Problem, ProblemCode, Scope, Severity};
use terok_proto::error::printable_text;
use terok_proto::project::{BrokenProject, Project, ProjectYaml};
use terok_proto::{Fault, Kind};

/// Which of the projects directories a project is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The user's.
    User,
    /// The system's.
    System,
}

/// A directory that holds a `project.yml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the directory, a valid id.
    pub dir_name: String,
    /// The directory, symbolic links resolved.
    pub root: PathBuf,
    /// The file, as found.
    pub yml_path: PathBuf,
    /// Where it is.
    pub tier: Tier,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file, symbolic links followed; none if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            dev: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// One project directory as loaded.
#[derive(Clone, Debug)]
pub struct ProjectLoad {
    /// Name of the directory.
    pub dir_name: Arc<str>,
    /// The id that everything stored uses; the directory's name while the file does not say.
    pub id: Arc<str>,
    /// The directory, symbolic links resolved.
    pub root: Arc<Path>,
    /// The `project.yml`.
    pub yml_path: Arc<Path>,
    /// Which projects directory it is in.
    pub tier: Tier,
    /// The project, or what is wrong with it.
    pub outcome: Result<Arc<LoadedProject>, Arc<ConfigFault>>,
    /// Directories that the project uses, as far as they can be told.
    pub claims: Arc<Claims>,
    /// The file's version when it was read.
    pub stamp: Option<Stamp>,
    /// Lower-case hex SHA-256 of the file's bytes; none if it could not be read.
    pub hash: Option<Arc<str>>,
}

/// A healthy project.
#[derive(Debug)]
pub struct LoadedProject {
    /// As clients see it.
    pub project: Project,
    /// Doubts, all of severity warning.
    pub warnings: Vec<Problem>,
    /// What `run.gpus` asks for: `all` or a CDI name.
    pub gpus: Option<String>,
    /// Directory that a relative `snippet_file` starts at.
    pub snippet_dir: PathBuf,
    /// The file in normal form, only what it sets.
    pub tree: Map<String, Value>,
    /// The file, for places.
    pub document: Document,
    /// Path of the file, as text.
    pub yml_path: String,
}

/// Why a `project.yml` cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFault {
    /// The file.
    pub path: String,
    /// All of it as text, printable, possibly several lines.
    pub text: String,
    /// Every problem, warnings included.
    pub problems: Vec<Problem>,
}

impl ConfigFault {
    /// As the error of a call.
    pub fn fault(&self) -> Fault {
        let errors = serde_json::to_value(&self.problems).unwrap_or_default();
        // The text has a line per problem; a message is one line.
        let (header, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        let reasons: Vec<&str> = rest.lines().map(str::trim).collect();
        let message = match reasons.as_slice() {
            [] => header.to_owned(),
            reasons => format!("{header} {}", reasons.join("; ")),
        };
        Fault::new(Kind::InvalidConfig, message)
            .with("path", self.path.as_str())
            .with("text", self.text.as_str())
            .with("errors", errors)
    }

    /// As an entry of a listing.
    pub fn broken(&self, dir_name: &str) -> BrokenProject {
        BrokenProject {
            id: dir_name.to_owned(),
            config_path: self.path.clone(),
            error: self.text.clone(),
        }
    }
}

impl ProjectLoad {
    /// What is wrong or doubtful with it.
    pub fn problems(&self) -> &[Problem] {
        match &self.outcome {
            Ok(project) => &project.warnings,
            Err(fault) => &fault.problems,
        }
    }

    /// Forgets the structure of the file, most of what a load weighs. Only `config.resolve` needs it, and reads the
    /// file afresh.
    #[must_use]
    pub fn without_source(mut self) -> Self {
        if let Ok(loaded) = &mut self.outcome
            && let Some(loaded) = Arc::get_mut(loaded)
        {
            loaded.tree = Map::new();
            loaded.document = Document::from_value(Value::Null);
        }
        self
    }

    /// The project, or the error of a call that needs it.
    pub fn usable(&self) -> Result<&Arc<LoadedProject>, Fault> {
        self.outcome.as_ref().map_err(|fault| fault.fault())
    }
}

/// All candidates, by directory name. Unreadable directories hold none.
pub fn discover(paths: &Paths) -> Vec<Candidate> {
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    for (dir, tier) in tiers(paths) {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if crate::id::is_valid(&name)
                && !found.contains_key(&name)
                && let Some(candidate) = candidate(dir, &name, tier)
            {
                found.insert(name, candidate);
            }
        }
    }
    found.into_values().collect()
}

/// The candidate of that directory name.
pub fn find(paths: &Paths, id: &ProjectId) -> Option<Candidate> {
    tiers(paths)
        .into_iter()
        .find_map(|(dir, tier)| candidate(dir, id.as_str(), tier))
}

/// The error for an id without a project, naming the directories that were searched.
pub fn not_found(paths: &Paths, id: &ProjectId) -> Fault {
    let places: Vec<String> = paths
        .projects_dirs()
        .iter()
        .map(|dir| format!("`{}`", dir.join(id.as_str()).display()))
        .collect();
    Fault::new(
        Kind::ProjectNotFound,
        format!("project `{id}` not found in {}", places.join(" or ")),
    )
    .with("project_id", id.as_str())
}

fn tiers(paths: &Paths) -> Vec<(&Path, Tier)> {
    paths
        .projects_dirs()
        .into_iter()
        .zip([Tier::User, Tier::System])
        .collect()
}

fn candidate(dir: &Path, name: &str, tier: Tier) -> Option<Candidate> {
    let entry = dir.join(name);
    let yml_path = entry.join("project.yml");
    if !std::fs::metadata(&yml_path).ok()?.is_file() {
        return None;
    }
    Some(Candidate {
        dir_name: name.to_owned(),
        root: std::fs::canonicalize(&entry).ok()?,
        yml_path,
        tier,
    })
}

/// Loads one project. Every failure, a panic included, is part of the result.
pub fn load_one(candidate: &Candidate, context: Context<'_>) -> ProjectLoad {
    let stamp = Stamp::of(&candidate.yml_path);
    let path = candidate.yml_path.to_string_lossy().into_owned();
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        load_bytes(
            yaml::read_bytes(&candidate.yml_path),
            candidate,
            &path,
            context,
        )
    }));
    let loaded = loaded.unwrap_or_else(|_| {
        let message = "reading it failed unexpectedly; please report this";
        let problem = validate::text_problem(
            Scope::Project,
            Some(&path),
            &yaml::YamlProblem {
                code: ProblemCode::Syntax,
                message: message.to_owned(),
                line: None,
                column: None,
            },
            Severity::Error,
        );
        Loaded {
            outcome: Err(failed_to_read(&path, vec![problem])),
            claims: Claims::unknown(),
            id: None,
            hash: None,
        }
    });
    let mut outcome = loaded.outcome;
    let id = loaded.id.unwrap_or_else(|| candidate.dir_name.clone());
    let name_it = |problems: &mut Vec<Problem>| {
        for problem in problems {
            problem.project_id = Some(candidate.dir_name.clone());
        }
    };
    match &mut outcome {
        Ok(project) => name_it(&mut project.warnings),
        Err(fault) => name_it(&mut fault.problems),
    }
    ProjectLoad {
        dir_name: candidate.dir_name.as_str().into(),
        id: id.into(),
        root: candidate.root.as_path().into(),
        yml_path: candidate.yml_path.as_path().into(),
        tier: candidate.tier,
        outcome: outcome.map(Arc::new).map_err(Arc::new),
        claims: Arc::new(loaded.claims),
        stamp,
        hash: loaded.hash.map(Into::into),
    }
}

struct Loaded {
    outcome: Result<LoadedProject, ConfigFault>,
    claims: Claims,
    id: Option<String>,
    hash: Option<String>,
}

fn load_bytes(
    bytes: Result<Vec<u8>, Vec<yaml::YamlProblem>>,
    candidate: &Candidate,
    path: &str,
    context: Context<'_>,
) -> Loaded {
    let hash = bytes.as_deref().ok().map(sha256_hex);
    let document = match bytes.and_then(|bytes| yaml::parse_bytes(&bytes)) {
        Ok(document) => document,
        Err(problems) => {
            let problems = problems
                .iter()
                .map(|p| validate::text_problem(Scope::Project, Some(path), p, Severity::Error))
                .collect();
            return Loaded {
                outcome: Err(failed_to_read(path, problems)),
                claims: Claims::unknown(),
                id: None,
                hash,
            };
        }
    };
    let claims = Claims::of(&document.value, &candidate.dir_name, context);
    let id = claims::stated_id(&document.value);
    let outcome = from_document(
        document,
        &candidate.dir_name,
        &candidate.root,
        path,
        context,
    );
    Loaded {
        outcome,
        claims,
        id,
        hash,
    }
}

fn from_document(
    document: Document,
    dir_name: &str,
    root: &Path,
    path: &str,
    context: Context<'_>,
) -> Result<LoadedProject, ConfigFault> {
    let places = Places::one(Some(path), &document);
    let invalid = |problems: Vec<Problem>| ConfigFault {
        path: path.to_owned(),
        text: validate::problem_lines(Scope::Project, path, &problems),
        problems,
    };
    let Some(tree) = validate::root(Scope::Project, &document.value) else {
        let finding = validate::not_a_mapping(&document.value);
        let problem = validate::problem(Scope::Project, finding, &places);
        return Err(invalid(vec![problem]));
    };
    let checked = validate::check(Scope::Project, &tree, &places);
    if !checked.is_valid() {
        return Err(invalid(checked.problems));
    }
    let mut warnings = checked.problems;
    warnings.extend(
        document
            .warnings
            .iter()
            .map(|w| validate::text_problem(Scope::Project, Some(path), w, Severity::Warning)),
    );
    let (resolution, problems) = resolve::resolve(&checked.tree, dir_name, root, &places, context);
    warnings.extend(problems);
    let Some(resolution) = resolution else {
        return Err(rule_violation(path, warnings));
    };
    let config = resolution.config;
    let project = Project {
        id: config.id.clone(),
        security_class: config.security_class,
        needs_ssh_key_registration: config.upstream_url.as_deref().is_some_and(is_ssh_url),
        config,
        gpu: resolution.gpu,
        display_name: resolution.display_name,
        dropped: None,
        warnings: None,
    };
    Ok(LoadedProject {
        project,
        warnings,
        gpus: resolution.gpus,
        snippet_dir: resolution.snippet_dir,
        tree: checked.tree,
        yml_path: path.to_owned(),
        document,
    })
}

/// A rule of several keys is broken: the text is one sentence each.
fn rule_violation(path: &str, problems: Vec<Problem>) -> ConfigFault {
    let sentences: Vec<&str> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.message.as_str())
        .collect();
    ConfigFault {
        path: path.to_owned(),
        text: printable_text(&sentences.join("\n")),
        problems,
    }
}

fn failed_to_read(path: &str, problems: Vec<Problem>) -> ConfigFault {
    ConfigFault {
        path: path.to_owned(),
        text: validate::failed_to_read(path, &problems),
        problems,
    }
}

/// What is wrong with a text of that kind, without applying it. A project is checked as `dir_name`.
pub fn check_text(
    text: &str,
    scope: Scope,
    dir_name: Option<&str>,
    context: Context<'_>,
) -> Vec<Problem> {
    let problems = validate::check_syntax_and_schema(text, scope, None);
    let failed = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    if failed || scope != Scope::Project {
        return problems;
    }
    let Ok(document) = yaml::parse(text) else {
        return problems;
    };
    let id = claims::stated_id(&document.value);
    let name = dir_name.map(str::to_owned).or(id);
    let name = name.unwrap_or_else(|| "project".to_owned());
    let root = context.global.paths.user_projects_dir.join(&name);
    let mut problems = match from_document(document, &name, &root, "", context) {
        Ok(project) => project.warnings,
        Err(fault) => fault.problems,
    };
    for problem in &mut problems {
        problem.path = None;
    }
    problems
}

/// The id that the text of a `project.yml` states, if it is one.
pub fn stated_id(text: &str) -> Option<String> {
    claims::stated_id(&yaml::parse(text).ok()?.value)
}

/// A `project.yml` for editing, with the hash that a later write has to name.
pub fn read_yaml(path: &Path) -> Result<ProjectYaml, Fault> {
    let name = path.to_string_lossy().into_owned();
    let unreadable = |problems: Vec<yaml::YamlProblem>| {
        let problems = problems
            .iter()
            .map(|p| validate::text_problem(Scope::Project, Some(&name), p, Severity::Error))
            .collect();
        failed_to_read(&name, problems).fault()
    };
    let bytes = yaml::read_bytes(path).map_err(unreadable)?;
    let hash = sha256_hex(&bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        // The parser says where.
        unreadable(
            yaml::parse_bytes(error.as_bytes())
                .err()
                .unwrap_or_default(),
        )
    })?;
    Ok(ProjectYaml {
        path: name,
        text,
        hash,
    })
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
    out
}

const HEX: &[u8; 16] = b"0123456789abcdef";
