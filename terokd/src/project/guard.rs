//! What a deletion may touch: managed storage, and nothing that others use.
//!
//! Owns the guard of `projects.md` §8.3 and §14.1. Decides only; looks at the file system, changes nothing.

use std::path::{Path, PathBuf};
use terok_config::env::Environment;
use terok_config::paths::Paths;
use terok_config::project::{Claim, Claims};

/// Another project, and what it uses.
#[derive(Clone, Debug)]
pub(super) struct Other {
    /// Name of its directory.
    pub name: String,
    gate: Option<PathBuf>,
    uses: Vec<PathBuf>,
    unknown_gate: bool,
    unknown_storage: bool,
}

impl Other {
    /// What a project uses, by its file and by its id.
    pub(super) fn new(
        name: &str,
        id: &str,
        root: &Path,
        claims: &Claims,
        paths: &Paths,
        env: &Environment,
    ) -> Self {
        let known = |claim: &Claim| match claim {
            Claim::Path(path) => Some(env.normalise(path)),
            Claim::Nothing | Claim::Unknown => None,
        };
        let storage = [&claims.tasks_root, &claims.staging_root, &claims.shared_dir];
        let gate = known(&claims.gate_path);
        let mut uses: Vec<PathBuf> = storage.into_iter().filter_map(known).collect();
        uses.extend(gate.clone());
        uses.push(root.to_owned());
        for of_id in [
            paths.core_state_dir.join("projects").join(id),
            paths.build_dir.join(id),
            paths.archive_dir.join(id),
        ] {
            uses.push(env.normalise(of_id));
        }
        Self {
            name: name.to_owned(),
            gate,
            uses,
            unknown_gate: claims.gate_path == Claim::Unknown,
            unknown_storage: storage.contains(&&Claim::Unknown),
        }
    }
}

/// What is to become of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be removed.
    Remove,
    /// It stays: the text for `skipped`, and the reason alone.
    Keep(String, String),
    /// There is nothing.
    Absent,
}

/// How a path came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The bare mirror.
    Gate,
    /// A directory of the project's choice.
    Stated,
    /// A directory named after the project's id.
    OfId,
}

/// The guard for one deletion.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    paths: &'a Paths,
    env: &'a Environment,
    others: &'a [Other],
    managed: Vec<PathBuf>,
    protected: Vec<PathBuf>,
}

impl<'a> Guard<'a> {
    /// A guard that knows all other projects.
    pub(super) fn new(paths: &'a Paths, env: &'a Environment, others: &'a [Other]) -> Self {
        let managed = [
            &paths.system_projects_dir,
            &paths.user_projects_dir,
            &paths.core_state_dir,
            &paths.sandbox_live_dir,
            &paths.sandbox_state_dir,
            &paths.vault_dir,
            &paths.build_dir,
            &paths.archive_dir,
        ];
        let mut protected: Vec<PathBuf> = paths
            .named()
            .iter()
            .map(|(_, path)| env.normalise(path))
            .collect();
        protected.push(env.normalise(paths.core_state_dir.join("projects")));
        protected.push(env.normalise(paths.sandbox_live_dir.join("tasks")));
        protected.push(env.normalise(&env.home));
        Self {
            managed: managed.iter().map(|path| env.normalise(path)).collect(),
            paths,
            env,
            others,
            protected,
        }
    }

    /// Judges a directory; `label` begins the text.
    pub(super) fn judge(&self, label: &str, path: &Path, role: Role) -> Verdict {
        let keep =
            |reason: String| Verdict::Keep(format!("{label} {} {reason}", path.display()), reason);
        if path.symlink_metadata().is_err() {
            return Verdict::Absent;
        }
        let resolved = self.env.normalise(path);
        let below = |dir: &PathBuf| resolved.starts_with(dir) && resolved != *dir;
        if role != Role::OfId {
            let sharers = self.sharers(&resolved, role);
            if role == Role::Gate && !sharers.is_empty() {
                return keep(format!("is shared with {}, not deleted", names(&sharers)));
            }
            if !self.managed.iter().any(below) {
                return keep("outside managed storage, not deleted".to_owned());
            }
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                return keep("is no directory of its own, not deleted".to_owned());
            }
            let inside = [&self.paths.terokd_dir, &self.paths.vault_dir];
            if inside
                .iter()
                .any(|dir| resolved.starts_with(self.env.normalise(dir)))
            {
                return keep("lies among data of terok itself, not deleted".to_owned());
            }
        }
        if let Some(held) = self.protected.iter().find(|dir| dir.starts_with(&resolved)) {
            return keep(format!("holds `{}`, not deleted", held.display()));
        }
        let users: Vec<&str> = self
            .others
            .iter()
            .filter(|other| {
                other
                    .uses
                    .iter()
                    .any(|used| overlaps(&resolved, used, role))
            })
            .map(|other| other.name.as_str())
            .collect();
        if !users.is_empty() {
            return keep(format!("is also used by {}, not deleted", names(&users)));
        }
        if let Some(other) = self.undetermined(role) {
            return keep(format!(
                "not deleted: project `{other}` is broken, so that it cannot be told whether it uses it too"
            ));
        }
        if role == Role::Gate && !resolved.join("HEAD").is_file() {
            return keep("does not look like a bare repository, not deleted".to_owned());
        }
        Verdict::Remove
    }

    /// Why the project's own directory cannot go, if so: others have something in it.
    pub(super) fn root_problem(&self, root: &Path) -> Option<String> {
        match self.judge("project directory", root, Role::OfId) {
            Verdict::Keep(text, _) => Some(text),
            Verdict::Remove | Verdict::Absent => None,
        }
    }

    fn sharers(&self, resolved: &Path, role: Role) -> Vec<&str> {
        let same = |other: &&Other| {
            role == Role::Gate && other.gate.as_deref().is_some_and(|gate| gate == resolved)
        };
        let names = self.others.iter().filter(same);
        names.map(|other| other.name.as_str()).collect()
    }

    fn undetermined(&self, role: Role) -> Option<&str> {
        let unknown = |other: &&Other| match role {
            Role::Gate => other.unknown_gate,
            Role::Stated => other.unknown_storage,
            Role::OfId => false,
        };
        let found = self.others.iter().find(unknown)?;
        Some(&found.name)
    }
}

/// Equal, above or below; a directory named after the id may lie below what another project claims.
fn overlaps(path: &Path, used: &Path, role: Role) -> bool {
    used.starts_with(path) || (role != Role::OfId && path.starts_with(used))
}

fn names(of: &[&str]) -> String {
    let quoted: Vec<String> = of.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [only] => format!("project {only}"),
        many => format!("projects {}", many.join(", ")),
    }
}
