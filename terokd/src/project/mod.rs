//! What can be done with projects: derive, delete, edit, measure, report.
//!
//! Owns the life cycle of project directories and the transactions on them. Knows the registry for what is there and
//! tells it what changed; knows nothing of sockets or of how a call arrived.

mod archive;
mod delete;
mod derive;
mod edits;
mod guard;
mod journal;
mod plan;
mod space;
mod ssh;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod walk;

pub use delete::{CRASH_POINTS, DeleteOptions};
pub use derive::{DERIVE_CRASH_POINTS, DeriveOptions, derive};
pub use edits::{read_yaml, set_image_agents, write_new, write_yaml};
pub use ssh::ssh_summary;
pub use state::state;
pub use storage::{Sizes, storage_detail, storage_overview};

use crate::events::Bus;
use crate::gates::Gates;
use crate::images::{Dropped, Images};
use crate::ops::{OpCx, Ops, Resumable};
use crate::registry::{Registry, Snapshot};
use std::path::Path;
use std::sync::Arc;
use terok_config::env::Environment;
use terok_config::id::ProjectId;
use terok_config::project as files;
use terok_config::resolve::{Context, resolved_config as resolve_values};
use terok_proto::config::{Problem, ProjectConfig, ResolvedConfig, Scope};
use terok_proto::ops::Progress;
use terok_proto::project::DeleteProjectResult;
use terok_proto::{Fault, Kind};
use terok_vault::{Unassigned, Vault};

/// What the functions of this module work on.
#[derive(Clone, Debug)]
pub struct Domain {
    /// What the daemon was started with.
    pub env: Arc<Environment>,
    /// All projects.
    pub registry: Registry,
    /// The event stream.
    pub bus: Bus,
    /// Sizes measured so far.
    pub sizes: Sizes,
    /// Keys of projects.
    pub vault: Vault,
    /// Gates of projects.
    pub gates: Gates,
    /// Images of projects.
    pub images: Images,
}

impl Domain {
    /// The domain of one daemon.
    pub fn new(
        env: Arc<Environment>,
        registry: Registry,
        bus: Bus,
        vault: Vault,
        gates: Gates,
        images: Images,
    ) -> Self {
        Self {
            env,
            registry,
            bus,
            sizes: Sizes::default(),
            vault,
            gates,
            images,
        }
    }
}

/// What a project's files are resolved against.
fn context<'a>(snapshot: &'a Snapshot, env: &'a Environment) -> Context<'a> {
    Context {
        global: &snapshot.global,
        identity: &snapshot.identity,
        env,
        roster: Some(&snapshot.roster),
    }
}

/// Runs file-system work where it may block.
async fn blocking<T, F>(work: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Fault::internal(format!("file-system work failed: {error}"))),
    }
}

/// Fails unless a project of that id is on disk, healthy or not.
///
/// # Errors
/// `project_not_found`.
pub fn require_exists(domain: &Domain, id: &ProjectId) -> Result<(), Fault> {
    edits::locate(domain, id).map(|_| ())
}

/// A project's configuration, read from disk now.
///
/// # Errors
/// There is no such project, or it is broken.
pub async fn load_fresh(domain: &Domain, id: &ProjectId) -> Result<ProjectConfig, Fault> {
    domain.registry.refresh(id).await;
    Ok(domain.registry.project(id)?.project()?.config.clone())
}

/// The values in force and where each was set, of a project or of everything global.
///
/// # Errors
/// There is no such project, or it is broken.
pub async fn resolved_config(
    domain: &Domain,
    id: Option<&ProjectId>,
) -> Result<ResolvedConfig, Fault> {
    let (snapshot, env) = (domain.registry.snapshot(), Arc::clone(&domain.env));
    let candidate = match id {
        None => None,
        Some(id) => {
            // Another directory may claim the same id: then the snapshot knows better than the file.
            domain.registry.project(id)?.project()?;
            Some(edits::locate(domain, id)?)
        }
    };
    blocking(move || {
        let context = context(&snapshot, &env);
        let load = candidate.map(|candidate| files::load_one(&candidate, context));
        let loaded = load.as_ref().map(|load| load.usable()).transpose()?;
        Ok(resolve_values(context, loaded.map(|loaded| &**loaded)))
    })
    .await
}

/// What is wrong with a text of that kind, without applying it.
pub fn check_text(domain: &Domain, text: &str, kind: Scope) -> Vec<Problem> {
    let snapshot = domain.registry.snapshot();
    files::check_text(text, kind, None, context(&snapshot, &domain.env))
}

/// Projects whose gate is at that path, with their upstreams, by id.
///
/// # Errors
/// The path cannot be resolved.
pub fn find_sharing_gate(
    domain: &Domain,
    gate_path: &Path,
    exclude: Option<&str>,
) -> Result<Vec<(String, Option<String>)>, Fault> {
    let text = gate_path.to_string_lossy();
    let wanted = domain
        .env
        .resolve(&text)
        .map_err(|error| Fault::invalid_argument(format!("`gate_path`: {error}")))?;
    let snapshot = domain.registry.snapshot();
    let mut sharers: Vec<(String, Option<String>)> = snapshot
        .projects
        .values()
        .filter_map(|entry| entry.project().ok())
        .filter(|project| exclude != Some(project.id.as_str()))
        .filter(|project| domain.env.normalise(&project.config.gate_path) == wanted)
        .map(|project| (project.id.clone(), project.config.upstream_url.clone()))
        .collect();
    sharers.sort();
    Ok(sharers)
}

/// Archives a project and removes everything that is its own. Cancelling works until its directory is renamed.
///
/// # Errors
/// There is no such project or it is broken, it cannot be archived, it may not be removed, or it was cancelled.
pub async fn delete(
    domain: &Domain,
    cx: &OpCx,
    id: &ProjectId,
    options: DeleteOptions,
) -> Result<DeleteProjectResult, Fault> {
    let registry = &domain.registry;
    let candidate = edits::locate(domain, id)?;
    let dir = edits::dir_id(&candidate)?;
    if options.dry_run {
        registry.project(&dir)?;
        return delete_now(domain, cx, candidate, options).await;
    }
    crate::panic::refuse_while_panicked(&registry.snapshot().paths, "deleting a project")?;
    let lock = registry.lock_write(std::slice::from_ref(&dir)).await?;
    let deleting = Deleting::new(registry, &dir);
    // What was changed a moment ago counts, and so does another directory that claims the same id.
    registry.refresh(&dir).await;
    let outcome = match registry
        .project(&dir)
        .and_then(|entry| Ok(entry.project()?.config.clone()))
    {
        Ok(config) => {
            let gate = domain.env.normalise(&config.gate_path);
            let _not_built = domain.images.hold(&config.id)?;
            // Nothing may work on the gate while it goes, and whoever waits for it has to see that it is gone.
            let held = domain.gates.hold(&gate, &config.id).await;
            let outcome = delete_now(domain, cx, candidate, options).await;
            registry.refresh(&dir).await;
            drop(held);
            if outcome.is_ok() {
                domain.gates.gone(&gate).await;
            }
            outcome
        }
        Err(fault) => Err(fault),
    };
    registry.refresh(&dir).await;
    drop(deleting);
    drop(lock);
    outcome
}

/// Makes others get `project_busy` as long as it lives.
struct Deleting<'a>(&'a Registry, &'a ProjectId);

impl<'a> Deleting<'a> {
    fn new(registry: &'a Registry, id: &'a ProjectId) -> Self {
        registry.set_deleting(id, true);
        Self(registry, id)
    }
}

impl Drop for Deleting<'_> {
    fn drop(&mut self) {
        self.0.set_deleting(self.1, false);
    }
}

async fn delete_now(
    domain: &Domain,
    cx: &OpCx,
    candidate: files::Candidate,
    options: DeleteOptions,
) -> Result<DeleteProjectResult, Fault> {
    let (snapshot, env) = (domain.registry.snapshot(), Arc::clone(&domain.env));
    let reporting = Reporting(
        cx.clone(),
        domain.vault.clone(),
        domain.images.clone(),
        domain.gates.clone(),
    );
    let scope = domain
        .registry
        .project(&edits::dir_id(&candidate)?)?
        .id()
        .to_owned();
    let keys = match domain.vault.keys(&scope).await {
        Ok(keys) => plan::Keys::Assigned(keys.len() as u64),
        // Nobody can have assigned a key to a scope that the vault refuses.
        Err(fault) if fault.kind == Kind::InvalidScope => plan::Keys::Assigned(0),
        Err(_) => plan::Keys::Unknown,
    };
    let images = if options.keep_images {
        plan::OwnImages::Kept
    } else {
        match domain.images.of_project(&scope).await {
            Ok(images) => {
                plan::OwnImages::Named(images.into_iter().map(|image| image.full_name).collect())
            }
            Err(fault) => plan::OwnImages::Unknown(fault.message),
        }
    };
    let dry_run = options.dry_run;
    blocking(move || {
        let context = context(&snapshot, &env);
        let load = files::load_one(&candidate, context);
        let others = delete::others(&snapshot.paths, &candidate.dir_name, context);
        let mut reporting = reporting;
        let operation = Some(reporting.0.id().to_owned());
        let prepared = delete::prepare(
            &load,
            &snapshot.paths,
            &env,
            &others,
            images,
            keys,
            operation,
        )?;
        if dry_run {
            return Ok(prepared.journal.plan.result(None, true));
        }
        delete::run(prepared, &snapshot.paths, &mut reporting)
    })
    .await
}

struct Reporting(OpCx, Vault, Images, Gates);

impl delete::Watch for Reporting {
    fn check(&mut self) -> Result<(), Fault> {
        self.0.check_cancelled()
    }

    fn phase(&mut self, phase: &'static str) {
        self.0.progress(Progress {
            phase: phase.to_owned(),
            ..Progress::default()
        });
    }

    fn ends(&mut self) -> &mut dyn delete::Ends {
        self
    }
}

impl delete::Ends for Reporting {
    fn drop_keys(&mut self, scope: &str) -> Result<Unassigned, Fault> {
        drop_keys(&self.1, scope)
    }

    fn drop_images(&mut self, project: &str) -> Result<Dropped, Fault> {
        tokio::runtime::Handle::current().block_on(self.2.drop_project(project))
    }

    fn drop_tokens(&mut self, project: &str) -> Result<usize, Fault> {
        drop_tokens(&self.3, project)
    }

    fn settled(&mut self, _: &journal::Journal, result: &DeleteProjectResult) {
        settle(result, |value| async move { self.0.settle(&value).await });
    }
}

/// Takes a scope's keys from a thread that may block.
fn drop_keys(vault: &Vault, scope: &str) -> Result<Unassigned, Fault> {
    tokio::runtime::Handle::current().block_on(vault.unassign_all_or_later(scope))
}

/// Ends a project's tokens from a thread that may block.
fn drop_tokens(gates: &Gates, project: &str) -> Result<usize, Fault> {
    tokio::runtime::Handle::current().block_on(gates.revoke_tokens(project))
}

/// How long a start waits for Podman because of a deletion that was interrupted.
const PODMAN_AT_START: std::time::Duration = std::time::Duration::from_secs(5);

/// What a restart does in the place of an operation.
struct Finishing(Ops, Vault, Images, Gates);

impl delete::Ends for Finishing {
    fn drop_keys(&mut self, scope: &str) -> Result<Unassigned, Fault> {
        drop_keys(&self.1, scope)
    }

    fn drop_images(&mut self, project: &str) -> Result<Dropped, Fault> {
        let dropping = self.2.drop_project(project);
        let dropping = async { tokio::time::timeout(PODMAN_AT_START, dropping).await };
        tokio::runtime::Handle::current()
            .block_on(dropping)
            .unwrap_or_else(|_| {
                let message = "podman did not remove them before the start; `cleanup_images` does";
                Err(Fault::new(Kind::PodmanTimeout, message))
            })
    }

    fn drop_tokens(&mut self, project: &str) -> Result<usize, Fault> {
        drop_tokens(&self.3, project)
    }

    fn settled(&mut self, journal: &journal::Journal, result: &DeleteProjectResult) {
        if let Some(id) = journal.operation_id.as_deref() {
            settle(
                result,
                |value| async move { self.0.settle(id, &value).await },
            );
        }
    }
}

/// Records a result from a thread that may block. Without the record only a kill within moments costs the answer.
fn settle<F>(result: &DeleteProjectResult, record: impl FnOnce(serde_json::Value) -> F)
where
    F: Future<Output = Result<(), Fault>>,
{
    let recorded = serde_json::to_value(result)
        .map_err(|error| Fault::internal(format!("cannot serialise the result: {error}")))
        .and_then(|value| tokio::runtime::Handle::current().block_on(record(value)));
    if let Err(fault) = recorded {
        tracing::warn!(%fault, "the result of a deletion is not recorded yet");
    }
}

/// Ends what an earlier daemon began: half-made projects go, deletions are finished or undone, and the operations
/// that asked for them are answered.
pub async fn resume(domain: &Domain, ops: &Ops, resumable: Vec<Resumable>) {
    let mut answers = resume_deletions(domain, ops).await;
    for left in resumable {
        let outcome = match answers.remove(&left.id) {
            Some(outcome) => outcome,
            None => Err(unrecorded(domain, &left)),
        };
        let id = left.id.clone();
        let answered = match outcome {
            Err(fault) => ops.give_up(left, &fault).await,
            Ok(result) => {
                let value = serde_json::to_value(&result)
                    .map_err(|error| Fault::internal(format!("cannot answer: {error}")));
                match ops.resume(left, |_| async move { value }).await {
                    // Answered before anybody can ask.
                    Ok(started) => started.done.await.map(|_| ()),
                    Err(fault) => Err(fault),
                }
            }
        };
        if let Err(fault) = answered {
            tracing::warn!(operation = id, "cannot be answered: {fault}");
        }
    }
}

/// An operation that left no journal: it had not begun, was undone, or ended a moment before the daemon did.
fn unrecorded(domain: &Domain, left: &Resumable) -> Fault {
    let id = left.params.get("project_id").and_then(|id| id.as_str());
    let id = id.and_then(|id| ProjectId::parse(id).ok());
    let gone = id.is_some_and(|id| require_exists(domain, &id).is_err());
    Fault::new(
        Kind::Interrupted,
        if gone {
            "the project was deleted, but the daemon ended before it could say what was removed"
        } else {
            "the daemon ended before anything was removed; the project is as it was"
        },
    )
}

/// Finishes or undoes deletions that an earlier daemon began; answers what became of them by operation.
pub async fn resume_deletions(
    domain: &Domain,
    ops: &Ops,
) -> std::collections::HashMap<String, Result<DeleteProjectResult, Fault>> {
    let paths = Arc::clone(&domain.registry.snapshot().paths);
    let mut ends = Finishing(
        ops.clone(),
        domain.vault.clone(),
        domain.images.clone(),
        domain.gates.clone(),
    );
    let ended = blocking(move || {
        derive::clean_derive_leftovers(&paths);
        journal::sweep(&paths);
        edits::sweep(&paths);
        let (journals, problems) = journal::left(&paths);
        for problem in problems {
            tracing::warn!("a journal of a deletion cannot be read: {problem}");
        }
        let ended = journals.into_iter().map(|journal| {
            let (project, operation) = (journal.project_id.clone(), journal.operation_id.clone());
            let recovered = delete::recover(journal, &paths, &mut ends);
            (project, operation, recovered)
        });
        Ok(ended.collect::<Vec<_>>())
    })
    .await;
    let mut answers = std::collections::HashMap::new();
    for (project, operation, recovered) in ended.unwrap_or_default() {
        let outcome = match recovered {
            delete::Recovered::RolledBack => {
                tracing::info!(project, "an interrupted deletion was undone");
                Err(Fault::new(
                    Kind::Interrupted,
                    "the daemon ended before anything was removed; the project is as it was",
                ))
            }
            delete::Recovered::Finished(outcome) => {
                tracing::info!(project, "an interrupted deletion was finished");
                outcome
            }
        };
        if let Ok(id) = ProjectId::parse(&project) {
            domain.registry.refresh(&id).await;
        }
        if let Some(operation) = operation {
            answers.insert(operation, outcome);
        }
    }
    answers
}
