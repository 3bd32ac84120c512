//! The plan of a deletion: what is archived, what goes, what stays and why. Made before anything is touched.

use super::archive::Source;
use super::guard::{Guard, Other, Role, Verdict};
use crate::fs::tree::Identity;
use crate::images::Dropped;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use terok_config::env::Environment;
use terok_config::paths::Paths;
use terok_config::project::Tier;
use terok_proto::error::printable_line;
use terok_proto::project::{DeleteProjectResult, DeleteStep};
use terok_proto::{Fault, Kind};
use terok_vault::Unassigned;

/// Tasks whose files are looked at.
const MAX_TASKS: usize = 10_000;

/// The project to be deleted.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its id.
    pub id: String,
    /// Its entry in the projects directory: a directory, or a link to one.
    pub entry: PathBuf,
    /// The directory, links resolved.
    pub root: PathBuf,
    /// Which projects directory.
    pub tier: Tier,
    /// `tasks.root`
    pub tasks_root: PathBuf,
    /// `gate.path`
    pub gate_path: PathBuf,
    /// `gatekeeping.staging_root`
    pub staging_root: Option<PathBuf>,
}

/// One step, in the order of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    /// `tasks_root`, `state`, …
    pub what: String,
    /// Where.
    pub path: Option<PathBuf>,
    /// What happens to it.
    pub action: Action,
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// It is renamed, then removed.
    Remove {
        /// What it must be.
        identity: Identity,
        /// Its name until it is gone.
        aside: PathBuf,
    },
    /// It goes together with a directory that holds it.
    Within,
    /// Key assignments of the project's scope are taken.
    Unassign {
        /// How many.
        count: u64,
    },
    /// Tokens that opened the gate are ended.
    Revoke {
        /// How many.
        count: usize,
    },
    /// Names are taken from images, which go with their last one.
    Untag {
        /// Full names.
        names: Vec<String>,
    },
    /// It stays.
    Keep {
        /// For `skipped`.
        text: String,
        /// The reason alone.
        reason: String,
    },
    /// It could not be removed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Everything that a deletion will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// In the order of the result.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// A system project of the same id becomes visible.
    pub reveals_system_project: bool,
    /// There are keys of the scope to be taken, or there may be.
    pub leftover_keys: bool,
    /// There are images of the project to be removed.
    #[serde(default)]
    pub leftover_images: bool,
}

/// What is known of the keys of a project's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// So many are assigned; none where there is no vault.
    Assigned(u64),
    /// The vault cannot be opened.
    Unknown,
}

/// What is known of a project's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnImages {
    /// They are to stay.
    Kept,
    /// Their full names.
    Named(Vec<String>),
    /// Podman cannot tell, for this reason.
    Unknown(String),
}

/// Directories that go into the archive.
pub(super) fn sources(target: &Target, paths: &Paths) -> Vec<Source> {
    let source = |prefix, dir| Source { prefix, dir };
    vec![
        source("config", target.root.clone()),
        source(
            "state",
            paths.core_state_dir.join("projects").join(&target.id),
        ),
        source("task-archives", paths.archive_dir.join(&target.id)),
        source("build", paths.build_dir.join(&target.id)),
    ]
}

/// The name of a directory until it is gone.
fn aside(path: &Path, uuid: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut aside = name.to_owned();
    aside.push(format!(".deleting-{uuid}"));
    if aside.len() > 255 {
        aside = format!(".deleting-{uuid}").into();
    }
    path.with_file_name(aside)
}

/// Makes the plan, or says why the project cannot be deleted.
pub(super) fn make(
    target: &Target,
    paths: &Paths,
    env: &Environment,
    others: &[Other],
    keys: Keys,
    images: OwnImages,
    uuid: &str,
) -> Result<Plan, Fault> {
    let guard = Guard::new(paths, env, others);
    let id = target.id.as_str();
    let is_link = check_root(target, &guard)?;
    let mut plan = Plan {
        steps: Vec::new(),
        warnings: containers(paths, id),
        reveals_system_project: target.tier == Tier::User
            && paths.user_projects_dir != paths.system_projects_dir
            && target.entry.file_name().is_some_and(|name| {
                let yml = paths.system_projects_dir.join(name).join("project.yml");
                yml.is_file()
            }),
        leftover_keys: keys != Keys::Assigned(0),
        leftover_images: false,
    };
    let default_tasks = paths.sandbox_live_dir.join("tasks").join(id);
    let role = |path: &Path, default: &Path| {
        if path == default {
            Role::OfId
        } else {
            Role::Stated
        }
    };
    let mut step = |what: &str, label: &str, path: &Path, role: Role| {
        let action = match guard.judge(label, path, role) {
            Verdict::Absent => return,
            Verdict::Keep(text, reason) => Action::Keep { text, reason },
            Verdict::Remove => removal(label, path, uuid),
        };
        let path = Some(path.to_owned());
        if plan.steps.iter().all(|step| step.path != path) {
            plan.steps.push(Step {
                what: what.to_owned(),
                path,
                action,
            });
        }
    };
    // A link at the default place leads elsewhere: then it is as if the place were stated.
    let tasks_role = match role(&target.tasks_root, &default_tasks) {
        Role::OfId if target.tasks_root.is_symlink() => Role::Stated,
        role => role,
    };
    step("tasks_root", "Tasks root", &target.tasks_root, tasks_role);
    let state = paths.core_state_dir.join("projects").join(id);
    step("state", "State", &state, Role::OfId);
    let build = paths.build_dir.join(id);
    step("build", "Build directory", &build, Role::OfId);
    let archives = paths.archive_dir.join(id);
    step("task_archives", "Task archives", &archives, Role::OfId);
    step("gate", "Gate", &target.gate_path, Role::Gate);
    let cache = paths.clone_cache_dir.join(id);
    step("clone_cache", "Clone cache", &cache, Role::OfId);
    if let Some(staging) = &target.staging_root {
        step(
            "staging_root",
            "Staging root",
            staging,
            role(staging, &build),
        );
    }
    let acp = paths.runtime_dir.join("acp").join(id);
    step("acp", "ACP files", &acp, Role::OfId);
    let socket = paths
        .sandbox_runtime_dir
        .join(format!("ssh-agent-local-{id}.sock"));
    step("agent_socket", "Agent socket", &socket, Role::OfId);
    if plan.leftover_keys {
        // Who is hidden by the project that goes has the same scope, and a key that is gone cannot be made again.
        plan.leftover_keys = !plan.reveals_system_project;
        let before = ["tasks_root", "state", "build", "task_archives"];
        let keys_at = plan
            .steps
            .iter()
            .take_while(|step| before.contains(&step.what.as_str()))
            .count();
        plan.steps.insert(
            keys_at,
            Step {
                what: "ssh_keys".into(),
                path: None,
                action: match keys {
                    _ if plan.reveals_system_project => needed(id),
                    Keys::Assigned(count) => Action::Unassign { count },
                    Keys::Unknown => later(id),
                },
            },
        );
    }
    match images {
        OwnImages::Named(names) if !names.is_empty() => {
            plan.leftover_images = true;
            plan.steps.push(Step {
                what: "images".into(),
                path: None,
                action: Action::Untag { names },
            });
        }
        OwnImages::Unknown(why) => plan.warnings.push(format!(
            "images of project `{id}` are not removed: {why}; they are orphans from now on, which `cleanup_images` removes"
        )),
        OwnImages::Named(_) | OwnImages::Kept => {}
    }
    plan.steps.push(Step {
        what: "config".into(),
        path: Some(target.entry.clone()),
        action: removal("Project directory", &target.entry, uuid),
    });
    if is_link {
        let reason = "it is reached through a symbolic link, of which only the link is removed";
        plan.steps.push(Step {
            what: "config_target".into(),
            path: Some(target.root.clone()),
            action: Action::Keep {
                text: format!(
                    "Project directory {} not deleted: {reason}",
                    target.root.display()
                ),
                reason: reason.into(),
            },
        });
    }
    settle_nested(&mut plan, env);
    Ok(plan)
}

/// Whether the project's directory can go; answers whether it is only a link.
fn check_root(target: &Target, guard: &Guard<'_>) -> Result<bool, Fault> {
    let entry = &target.entry;
    let is_link = entry.is_symlink();
    if !is_link && let Some(problem) = guard.root_problem(entry) {
        return Err(Fault::new(
            Kind::UnmanagedPath,
            format!(
                "project `{}` cannot be deleted: its {problem}; move that away first",
                target.id
            ),
        )
        .with("path", entry.to_string_lossy()));
    }
    let parent = entry.parent().unwrap_or(Path::new("/"));
    let mut places = vec![parent];
    if !is_link && !is_own(entry) {
        places.push(entry);
    }
    for place in places {
        if !may_write(place) {
            let kind = match target.tier {
                Tier::System => "system project",
                Tier::User => "project",
            };
            return Err(Fault::new(
                Kind::PermissionDenied,
                format!(
                    "{kind} `{}` cannot be deleted: `{}` is not writable for this user",
                    target.id,
                    place.display()
                ),
            )
            .with("path", place.to_string_lossy())
            .hint("nothing was touched; ask its owner to delete it"));
        }
    }
    Ok(is_link)
}

fn is_own(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata()
        .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw())
}

fn may_write(dir: &Path) -> bool {
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, dir, wanted, AtFlags::AT_EACCESS).is_ok()
}

fn removal(label: &str, path: &Path, uuid: &str) -> Action {
    let keep = |reason: String| Action::Keep {
        text: format!("{label} {} not deleted: {reason}", path.display()),
        reason,
    };
    if !path.parent().is_some_and(may_write) {
        return keep("the directory that holds it is not writable for this user".to_owned());
    }
    match Identity::of(path) {
        Ok(identity) => Action::Remove {
            identity,
            aside: aside(path, uuid),
        },
        Err(error) => keep(error.to_string()),
    }
}

/// A directory inside another that goes, goes with it; one that holds something that stays, stays.
fn settle_nested(plan: &mut Plan, env: &Environment) {
    let resolved: Vec<Option<PathBuf>> = plan
        .steps
        .iter()
        .map(|step| {
            let path = step.path.as_ref()?;
            // Of a link, the link itself is meant.
            let parent = env.normalise(path.parent()?);
            Some(parent.join(path.file_name()?))
        })
        .collect();
    let within = |inner: usize, outer: usize| match (&resolved[inner], &resolved[outer]) {
        (Some(inner), Some(outer)) => inner != outer && inner.starts_with(outer),
        _ => false,
    };
    for index in 0..plan.steps.len() {
        let is_removal = |step: &Step| matches!(step.action, Action::Remove { .. });
        if is_removal(&plan.steps[index])
            && (0..plan.steps.len())
                .any(|outer| within(index, outer) && is_removal(&plan.steps[outer]))
        {
            plan.steps[index].action = Action::Within;
        }
    }
}

/// Containers that live on: this version cannot stop them.
fn containers(paths: &Paths, id: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(paths.task_metadata_dir(id)) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .take(MAX_TASKS)
        .collect();
    files.sort();
    let warning = |path: &PathBuf| {
        let document = terok_config::yaml::read_file(path).ok()?;
        let mode = document.value.get("mode")?.as_str()?.to_owned();
        let task = path.file_stem()?.to_string_lossy().into_owned();
        let stated = document.value.get("container_name");
        let stated = stated.or_else(|| document.value.get("container"));
        let container = match stated.and_then(|name| name.as_str()) {
            Some(name) => name.to_owned(),
            None => format!("{id}-{mode}-{task}"),
        };
        Some(printable_line(&format!(
            "task `{task}`: its container `{container}` was not stopped, as Podman is not used by this version"
        )))
    };
    files.iter().filter_map(warning).collect()
}

/// The vault keeps the assignments until it can be opened.
fn later(id: &str) -> Action {
    Action::Keep {
        text: format!(
            "vault locked — SSH key assignments for scope '{id}' remain in the encrypted DB"
        ),
        reason: "the vault is locked; the assignments are dropped when it is unlocked".to_owned(),
    }
}

/// The system project that comes to light goes on with the scope's keys.
fn needed(id: &str) -> Action {
    let reason = "the system project of the same id uses them";
    Action::Keep {
        text: format!("SSH key assignments for scope '{id}' not deleted: {reason}"),
        reason: reason.to_owned(),
    }
}

impl Plan {
    /// Notes what became of the scope's keys.
    pub(super) fn keys_dropped(&mut self, id: &str, dropped: Unassigned) {
        let keys = |step: &&mut Step| step.what == "ssh_keys";
        if let Some(step) = self.steps.iter_mut().find(keys) {
            step.action = match dropped {
                // A restart finds none left; what was planned is what was done.
                Unassigned::Done(0) => return,
                Unassigned::Done(count) => Action::Unassign { count },
                Unassigned::Later => later(id),
            };
        }
    }

    /// Notes how many tokens were ended.
    pub(super) fn tokens_dropped(&mut self, count: usize) {
        let config = self.steps.iter().position(|step| step.what == "config");
        if count > 0 {
            let revoked = Step {
                what: "gate_tokens".into(),
                path: None,
                action: Action::Revoke { count },
            };
            self.steps
                .insert(config.unwrap_or(self.steps.len()), revoked);
        }
    }

    /// Notes what became of the project's images.
    pub(super) fn images_dropped(&mut self, dropped: Dropped) {
        let Some(at) = self.steps.iter().position(|step| step.what == "images") else {
            return;
        };
        let kept = |(name, reason): (String, String)| Step {
            what: "images".into(),
            path: None,
            action: Action::Keep {
                text: format!("Image {name} not deleted: {reason}"),
                reason,
            },
        };
        let stays: Vec<Step> = dropped.kept.into_iter().map(kept).collect();
        // A restart finds none left; what was planned is what was done.
        if stays.is_empty() && dropped.removed.is_empty() {
            return;
        }
        self.steps[at].action = Action::Untag {
            names: dropped.removed.clone(),
        };
        self.steps.splice(at + 1..at + 1, stays);
        if dropped.removed.is_empty() {
            self.steps.remove(at);
        }
    }

    /// As the answer of a dry run, or of what was done.
    pub(super) fn result(&self, archive: Option<String>, dry_run: bool) -> DeleteProjectResult {
        let mut result = DeleteProjectResult {
            archive,
            warnings: self.warnings.clone(),
            reveals_system_project: self.reveals_system_project,
            ..DeleteProjectResult::default()
        };
        for step in &self.steps {
            let path = step.path.as_ref().map(|path| path.to_string_lossy());
            let shown = printable_line(path.as_deref().unwrap_or_default());
            let (outcome, reason) = match &step.action {
                Action::Remove { .. } | Action::Within => {
                    // The reference removes these as part of archiving and does not list them.
                    if step.what != "task_archives" {
                        let path = path.as_deref().unwrap_or_default();
                        result.deleted.push(path.to_owned());
                    }
                    (if dry_run { "planned" } else { "deleted" }, None)
                }
                Action::Unassign { count } => {
                    result.deleted.push(format!(
                        "{count} SSH key assignment(s) of the project's scope"
                    ));
                    (if dry_run { "planned" } else { "deleted" }, None)
                }
                Action::Revoke { count } => {
                    result
                        .deleted
                        .push(format!("{count} token(s) of the project's gate"));
                    ("deleted", None)
                }
                Action::Untag { names } => {
                    let shown = |name: &String| format!("image {}", printable_line(name));
                    result.deleted.extend(names.iter().map(shown));
                    (if dry_run { "planned" } else { "deleted" }, None)
                }
                Action::Keep { text, reason } => {
                    result.skipped.push(printable_line(text));
                    ("skipped", Some(reason.clone()))
                }
                Action::Failed { reason } => {
                    result
                        .skipped
                        .push(format!("{shown} not deleted: {}", printable_line(reason)));
                    result.warnings.push(format!(
                        "cannot delete `{shown}`: {}",
                        printable_line(reason)
                    ));
                    ("failed", Some(reason.clone()))
                }
            };
            result.structured.push(DeleteStep {
                what: step.what.clone(),
                path: path.map(std::borrow::Cow::into_owned),
                outcome: outcome.to_owned(),
                reason: reason.map(|reason| printable_line(&reason)),
            });
        }
        result
    }
}
