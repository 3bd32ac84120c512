//! What readers see: immutable, cheap to share, with the text of every project ready to be sent.

use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use terok_config::GitIdentity;
use terok_config::global::Global;
use terok_config::id::ProjectId;
use terok_config::paths::Paths;
use terok_config::project::{LoadedProject, ProjectLoad};
use terok_config::roster::Roster;
use terok_proto::Fault;
use terok_proto::config::{Problem, Severity};
use terok_proto::daemon::ProjectCounts;
use terok_proto::project::{BrokenProject, Project};

/// Everything known at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises with every change.
    pub generation: u64,
    /// The global configuration in force.
    pub global: Arc<Global>,
    /// All directories.
    pub paths: Arc<Paths>,
    /// Git's idea of the user.
    pub identity: Arc<GitIdentity>,
    /// Agents and tools.
    pub roster: Arc<Roster>,
    /// Projects by directory name.
    pub projects: BTreeMap<String, Arc<ProjectEntry>>,
    /// Files that `identity` was read from.
    pub(super) identity_files: Arc<Vec<std::path::PathBuf>>,
}

/// One project directory.
#[derive(Debug)]
pub struct ProjectEntry {
    load: ProjectLoad,
    /// JSON of the project, unless it is broken. Known to be JSON, so that no answer checks it again.
    text: Option<Box<RawValue>>,
    /// Where the configuration stands in it.
    config: std::ops::Range<usize>,
    /// The last healthy state of a broken project, for what is running.
    last_good: Option<Arc<LoadedProject>>,
}

impl Snapshot {
    /// The project of that directory name or, if no directory has it, of that stated id.
    pub fn find(&self, id: &ProjectId) -> Option<Arc<ProjectEntry>> {
        if let Some(entry) = self.projects.get(id.as_str()) {
            return Some(Arc::clone(entry));
        }
        let mut stated = self
            .projects
            .values()
            .filter(|entry| entry.id() == id.as_str());
        match (stated.next(), stated.next()) {
            (Some(entry), None) => Some(Arc::clone(entry)),
            _ => None,
        }
    }

    /// The project that states this id in a directory of another name.
    pub fn stated_elsewhere(&self, id: &ProjectId) -> Option<&Arc<ProjectEntry>> {
        self.projects
            .values()
            .find(|entry| entry.id() == id.as_str() && entry.dir_name() != id.as_str())
    }

    /// How many projects can be used.
    pub fn counts(&self) -> ProjectCounts {
        let valid = self
            .projects
            .values()
            .filter(|entry| entry.load.outcome.is_ok())
            .count() as u64;
        ProjectCounts {
            valid,
            broken: self.projects.len() as u64 - valid,
        }
    }

    /// What is wrong with any file.
    pub fn problems(&self) -> Vec<Problem> {
        let own = self.projects.values().flat_map(|entry| {
            entry.load.problems().iter().cloned().map(|mut problem| {
                problem.project_id = Some(entry.id().to_owned());
                problem
            })
        });
        self.global.problems.iter().cloned().chain(own).collect()
    }

    /// What keeps the configuration from being in force as written.
    pub fn global_errors(&self) -> impl Iterator<Item = &Problem> {
        self.global
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
    }
}

impl ProjectEntry {
    pub(super) fn new(load: ProjectLoad, before: Option<&Self>) -> Self {
        let (mut text, mut config) = (None, 0..0);
        if let Ok(loaded) = &load.outcome {
            let part = serde_json::to_string(&loaded.project.config).unwrap_or_default();
            text = to_raw_value(&loaded.project).ok();
            if let Some(start) = text.as_ref().and_then(|text| text.get().find(&part)) {
                config = start..start + part.len();
            }
        }
        let last_good = match (&load.outcome, before) {
            (Err(_), Some(before)) => before.good().cloned(),
            _ => None,
        };
        Self {
            load,
            text,
            config,
            last_good,
        }
    }

    /// The id that everything stored uses.
    pub fn id(&self) -> &str {
        &self.load.id
    }

    /// Name of the directory.
    pub fn dir_name(&self) -> &str {
        &self.load.dir_name
    }

    /// The directory, symbolic links resolved.
    pub fn root(&self) -> &Path {
        &self.load.root
    }

    /// The `project.yml`.
    pub fn yml_path(&self) -> &Path {
        &self.load.yml_path
    }

    /// As it was loaded.
    pub fn load(&self) -> &ProjectLoad {
        &self.load
    }

    /// The project, or what is wrong with it.
    ///
    /// # Errors
    /// `invalid_config`.
    pub fn project(&self) -> Result<&Project, Fault> {
        Ok(&self.load.usable()?.project)
    }

    /// The project as JSON, unless it is broken.
    pub fn text(&self) -> Option<&RawValue> {
        self.text.as_deref()
    }

    /// Its configuration as JSON, unless it is broken.
    pub fn config_text(&self) -> Option<&str> {
        self.text
            .as_ref()
            .map(|text| &text.get()[self.config.clone()])
    }

    /// As a broken project, if it is one.
    pub fn broken(&self) -> Option<BrokenProject> {
        self.load
            .outcome
            .as_ref()
            .err()
            .map(|fault| fault.broken(&self.load.dir_name))
    }

    /// The present state, or the last healthy one of a project that is broken now.
    pub fn good(&self) -> Option<&Arc<LoadedProject>> {
        self.load.outcome.as_ref().ok().or(self.last_good.as_ref())
    }
}
