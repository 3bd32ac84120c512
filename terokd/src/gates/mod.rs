//! Gates of projects: what a project's configuration asks of its gate, with which keys, and who is told.
//!
//! Owns the way from a project to its repository: paths, access, locks, shared runs, events, polling's questions.
//! What happens inside a repository is `terok-gate`'s; what is served from it is `terok-gate-server`'s.

mod polls;
mod server;
mod spec;

use crate::events::{Bus, Draft};
use crate::flight::{Flights, Locks};
use crate::ops::{OpCx, Ops, Resumable};
use crate::polling::{Polling, Target, target_of};
use crate::registry::{ProjectEntry, Registry};
use crate::tasks::Tasks;
use serde_json::{Value, json};
use spec::Subject;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use terok_config::env::Environment;
use terok_config::global::typed::GitBackend;
use terok_config::id::ProjectId;
use terok_gate::{
    CliTransport, Control, GateSpec, GateUrl, GitTransport, GixTransport, HostEnv, Limits,
    PromoteRequest, Reach, SyncOptions, SyncReport, Upstream,
};
use terok_gate_server::Tokens;
use terok_proto::Method;
use terok_proto::config::ProjectConfig;
use terok_proto::events::EventKind;
use terok_proto::gate::{
    ApplyPendingResult, BranchSyncResult, ConfirmedOp, GateBackup, GateStalenessInfo, GateStatus,
    GateSyncResult, MovedBranch, PendingOp, PromoteResult, PrunedBackups, ReviewRow,
};
use terok_proto::methods::{ProjectGateSync, ProjectGateSyncBranches};
use terok_proto::ops::Progress;
use terok_proto::project::CommitInfo;
use terok_proto::{Fault, Kind};
use terok_vault::Vault;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// How long `project.check_ssh_key` waits for upstream.
const PROBE: Duration = Duration::from_secs(15);

/// What a sync is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncRequest {
    /// Only these branches; empty means all.
    pub branches: Vec<String>,
    /// Build the gate anew.
    pub force_reinit: bool,
    /// Use the user's own keys; by default as the project says.
    pub personal: Option<bool>,
    /// Nobody waits for it: it must not ask the user anything.
    pub background: bool,
}

impl From<ProjectGateSync> for SyncRequest {
    fn from(params: ProjectGateSync) -> Self {
        Self {
            branches: params.branches.unwrap_or_default(),
            force_reinit: params.force_reinit.unwrap_or(false),
            personal: params.use_personal_ssh,
            background: false,
        }
    }
}

/// All gates.
#[derive(Clone, Debug)]
pub struct Gates {
    inner: Arc<Inner>,
}

/// A project's gate and the clone of it, which nothing else works on until this is dropped.
#[derive(Debug)]
pub struct Held {
    _gate: OwnedMutexGuard<()>,
    _cache: OwnedMutexGuard<()>,
}

#[derive(Debug)]
struct Inner {
    env: Arc<Environment>,
    registry: Registry,
    bus: Bus,
    tasks: Tasks,
    vault: Vault,
    gix: Arc<GixTransport>,
    host: HostEnv,
    /// Other processes are kept out by the lock file beside the gate.
    locks: Locks<PathBuf>,
    syncs: Flights<(PathBuf, SyncRequest), SyncReport>,
    /// Set once, by the wiring: polling asks gates, and gates tell polling.
    polling: OnceLock<Polling>,
    server: OnceLock<server::Served>,
    tokens: OnceLock<Tokens>,
}

impl Gates {
    /// The gates of all projects.
    pub fn new(
        env: Arc<Environment>,
        registry: Registry,
        bus: Bus,
        tasks: Tasks,
        vault: Vault,
    ) -> Self {
        let host = HostEnv::new(env.vars());
        Self {
            inner: Arc::new(Inner {
                env,
                registry,
                bus,
                tasks,
                vault,
                gix: Arc::new(GixTransport::new(host.clone())),
                host,
                locks: Locks::default(),
                syncs: Flights::new("gate"),
                polling: OnceLock::new(),
                server: OnceLock::new(),
                tokens: OnceLock::new(),
            }),
        }
    }

    /// Tells polling of what syncs find, from now on.
    pub fn attach(&self, polling: Polling) {
        self.inner.polling.set(polling).unwrap_or_default();
    }

    /// Brings a gate up to date. Callers who want the same of the same gate share one run.
    ///
    /// # Errors
    /// There is no such project, its gate is switched off, contested or broken, or it cannot authenticate. What
    /// goes wrong on the way to upstream is told in the result.
    pub async fn sync(
        &self,
        cx: &OpCx,
        id: &ProjectId,
        request: SyncRequest,
    ) -> Result<GateSyncResult, Fault> {
        let progress = cx.clone();
        let report = move |progress_now| progress.progress(progress_now);
        let subject = self.subject(id)?;
        let synced = self
            .sync_with(subject, request, cx.cancelled(), report)
            .await?;
        Ok(synced.result)
    }

    async fn sync_with(
        &self,
        subject: Subject,
        request: SyncRequest,
        withdrawn: impl Future<Output = ()>,
        report: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<SyncReport, Fault> {
        self.refuse_while_panicked("syncing a gate")?;
        let subject = subject.enabled()?;
        self.refuse_conflicts(&subject)?;
        if let Some(fault) = subject.snapshot.global.launch_fault() {
            return Err(fault);
        }
        let upstream = self
            .upstream(&subject, request.personal, request.background)
            .await?;
        let (gates, own, gate) = (self.clone(), request.clone(), subject.path.clone());
        let key = (gate, request);
        let begin = move |stop| gates.run_sync(subject, upstream, own, stop, report);
        self.inner
            .syncs
            .join(&self.inner.tasks, key, withdrawn, begin)
            .await
    }

    async fn run_sync(
        self,
        subject: Subject,
        upstream: Option<Upstream>,
        request: SyncRequest,
        stop: CancellationToken,
        report: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<SyncReport, Fault> {
        let gate = subject.path.clone();
        let keys = subject.snapshot.global.terokd.gate.clone();
        let options = SyncOptions {
            branches: request.branches.clone(),
            force_reinit: request.force_reinit,
            auto_apply_lossless: keys.auto_apply_lossless,
            backup_retention_days: u64::from(keys.backup_retention_days),
        };
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let control = self
            .control(&subject)
            .with_token(stop)
            .with_progress(move |at| report(progress_of(at)));
        let lock = self.inner.locks.lock(&gate).await;
        // It may have been deleted meanwhile, and its gate with it.
        self.still_there(&subject)?;
        let own = control.clone();
        let outcome = blocking(move || {
            let limits = Limits::default();
            terok_gate::sync(
                &spec,
                upstream.as_ref(),
                &*transport,
                &options,
                &limits,
                &own,
            )
        })
        .await;
        drop(lock);
        let outcome = match outcome {
            Ok(report) => self.refresh_cache(&subject, report, control).await,
            failed => failed,
        };
        self.tell_sync(&subject, &request, &outcome).await;
        outcome
    }

    /// Brings the clone that seeds the project's tasks to what a sync has brought. The gate is free meanwhile.
    async fn refresh_cache(
        &self,
        subject: &Subject,
        mut report: SyncReport,
        control: Control,
    ) -> Result<SyncReport, Fault> {
        let spec = subject.spec();
        let Some(cache) = &spec.cache_dir else {
            return Ok(report);
        };
        let _held = self.inner.locks.lock(cache.as_path()).await;
        if self.still_there(subject).is_err() {
            return Ok(report);
        }
        blocking(move || {
            terok_gate::refresh_cache(&spec, &mut report, &control);
            Ok(report)
        })
        .await
    }

    /// Brings some branches of an existing gate up to date.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub async fn sync_branches(
        &self,
        cx: &OpCx,
        id: &ProjectId,
        branches: Vec<String>,
    ) -> Result<BranchSyncResult, Fault> {
        if !self.subject(id)?.enabled()?.path.is_dir() {
            return Ok(BranchSyncResult {
                success: false,
                updated_branches: Vec::new(),
                errors: vec!["Gate not initialized".to_owned()],
            });
        }
        let request = SyncRequest {
            branches,
            ..SyncRequest::default()
        };
        let result = self.sync(cx, id, request).await?;
        Ok(BranchSyncResult {
            success: result.success,
            updated_branches: result.updated_branches,
            errors: result.errors,
        })
    }

    /// Goes on with syncs that an earlier daemon began: what they had done stands, the rest is done again.
    pub async fn resume(&self, ops: &Ops, left: Vec<Resumable>) {
        for left in left {
            let (gates, params, method) = (self.clone(), left.params.clone(), left.method.clone());
            let work = move |cx: OpCx| async move { gates.sync_again(&cx, &method, params).await };
            let id = left.id.clone();
            if let Err(fault) = ops.resume(left, work).await {
                tracing::warn!(operation = id, "cannot go on: {fault}");
            }
        }
    }

    async fn sync_again(&self, cx: &OpCx, method: &str, params: Value) -> Result<Value, Fault> {
        let unreadable =
            |error: serde_json::Error| Fault::internal(format!("cannot go on: {error}"));
        if method == ProjectGateSyncBranches::INFO.name {
            let params: ProjectGateSyncBranches =
                serde_json::from_value(params).map_err(unreadable)?;
            let id = ProjectId::parse(&params.project_id)?;
            let branches = params.branches.unwrap_or_default();
            let result = self.sync_branches(cx, &id, branches).await?;
            return serde_json::to_value(result).map_err(unreadable);
        }
        let params: ProjectGateSync = serde_json::from_value(params).map_err(unreadable)?;
        let id = ProjectId::parse(&params.project_id)?;
        let result = self.sync(cx, &id, params.into()).await?;
        serde_json::to_value(result).map_err(unreadable)
    }

    /// How current the gate is, asked of upstream now.
    ///
    /// # Errors
    /// There is no such project, or the branch is no branch name.
    pub async fn compare(
        &self,
        id: &ProjectId,
        branch: Option<String>,
    ) -> Result<GateStalenessInfo, Fault> {
        let subject = self.subject(id)?;
        let upstream = self.upstream(&subject, None, false).await;
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let control = self.control(&subject);
        blocking(move || {
            let limits = Limits::default();
            terok_gate::compare(
                &spec,
                reach(&upstream),
                &*transport,
                branch.as_deref(),
                &limits,
                &control,
            )
        })
        .await
    }

    /// The last commit of the gate's default branch. Asks nobody.
    ///
    /// # Errors
    /// There is no such project, or it is broken.
    pub async fn last_commit(&self, id: &ProjectId) -> Result<Option<CommitInfo>, Fault> {
        let spec = self.subject(id)?.spec();
        blocking(move || Ok(terok_gate::last_commit(&spec))).await
    }

    /// What is known of the gate. Asks nobody.
    ///
    /// # Errors
    /// There is no such project, or it is broken.
    pub async fn status(&self, id: &ProjectId) -> Result<GateStatus, Fault> {
        let subject = self.subject(id)?;
        let polling = self.inner.polling.get();
        let known = polling.and_then(|polling| polling.last_known(&subject.path));
        let polled = polling.map(|polling| polling.status(Some(&subject.path)));
        let next = polled.and_then(|states| states.into_iter().next()?.next_poll_at);
        let spec = subject.spec();
        let facts = blocking(move || Ok(terok_gate::facts(&spec))).await?;
        let known = known.unwrap_or_default();
        Ok(GateStatus {
            enabled: subject.config.gate_enabled,
            exists: facts.exists,
            path: subject.path.to_string_lossy().into_owned(),
            upstream_url: subject.config.upstream_url.as_deref().map(redacted),
            staleness: known.staleness,
            last_polled_at: known.last_poll_at,
            next_poll_at: next,
            last_sync_at: known.last_sync_at,
            last_error: known.last_error.or(known.last_sync_error),
            refs: facts.heads,
            size_bytes: facts.size_bytes,
        })
    }

    /// Upstream changes that wait for a human.
    ///
    /// # Errors
    /// There is no such project or no gate.
    pub async fn pending(&self, id: &ProjectId) -> Result<Vec<PendingOp>, Fault> {
        let spec = self.subject(id)?.spec();
        blocking(move || terok_gate::pending(&spec)).await
    }

    /// Applies confirmed changes of upstream's.
    ///
    /// # Errors
    /// There is no such project or no gate, or the gate cannot be written.
    pub async fn apply_pending(
        &self,
        id: &ProjectId,
        ops: Vec<ConfirmedOp>,
    ) -> Result<ApplyPendingResult, Fault> {
        self.changing(id, "applying changes to a gate", move |spec, control| {
            terok_gate::apply_pending(spec, &ops, control)
        })
        .await
    }

    /// Heads that were replaced and are kept, newest first.
    ///
    /// # Errors
    /// There is no such project or no gate.
    pub async fn backups(&self, id: &ProjectId) -> Result<Vec<GateBackup>, Fault> {
        let spec = self.subject(id)?.spec();
        blocking(move || terok_gate::backups(&spec)).await
    }

    /// Moves a branch to a kept head.
    ///
    /// # Errors
    /// There is no such backup, or the gate cannot be written.
    pub async fn restore_backup(
        &self,
        id: &ProjectId,
        reference: String,
    ) -> Result<MovedBranch, Fault> {
        self.changing(id, "restoring a backup", move |spec, control| {
            terok_gate::restore_backup(spec, &reference, control)
        })
        .await
    }

    /// Removes kept heads that are older than the retention, or than so many days.
    ///
    /// # Errors
    /// There is no gate, or it cannot be written.
    pub async fn prune_backups(
        &self,
        id: &ProjectId,
        older_than_days: Option<u64>,
    ) -> Result<PrunedBackups, Fault> {
        let keys = self.inner.registry.snapshot().global.terokd.gate.clone();
        let retention = u64::from(keys.backup_retention_days);
        let Some(days) = older_than_days.or((retention > 0).then_some(retention)) else {
            return Ok(PrunedBackups::default());
        };
        self.changing(id, "removing backups", move |spec, control| {
            terok_gate::prune_backups(spec, days, control)
        })
        .await
    }

    /// What the gate holds that upstream does not, after a look at upstream if it can be reached.
    ///
    /// # Errors
    /// There is no such project, branch or gate.
    pub async fn review(
        &self,
        id: &ProjectId,
        branch: Option<String>,
    ) -> Result<Vec<ReviewRow>, Fault> {
        let subject = self.subject(id)?;
        let upstream = self
            .upstream(&subject, None, false)
            .await
            .unwrap_or_default();
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let control = self.control(&subject);
        let lock = self.inner.locks.lock(&subject.path).await;
        let rows = blocking(move || {
            let limits = Limits::default();
            terok_gate::review(
                &spec,
                upstream.as_ref(),
                &*transport,
                branch.as_deref(),
                &limits,
                &control,
            )
        })
        .await;
        drop(lock);
        rows
    }

    /// Pushes a reviewed head to upstream.
    ///
    /// # Errors
    /// Nothing was pushed, and why.
    pub async fn promote(
        &self,
        cx: &OpCx,
        id: &ProjectId,
        branch: String,
        upstream_branch: Option<String>,
        expect_commit: Option<String>,
    ) -> Result<PromoteResult, Fault> {
        self.refuse_while_panicked("promoting a branch")?;
        let subject = self.subject(id)?;
        let Some(upstream) = self.upstream(&subject, None, false).await? else {
            return Err(Fault::invalid_argument(format!(
                "project `{}` has no upstream to promote to; set `git.upstream_url`",
                subject.config.id
            )));
        };
        let target = upstream_branch.clone().unwrap_or_else(|| branch.clone());
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let progress = cx.clone();
        let control = self
            .control(&subject)
            .with_token(cx.token().clone())
            .with_progress(move |at| progress.progress(progress_of(at)));
        let lock = self.inner.locks.lock(&subject.path).await;
        let outcome = blocking(move || {
            let limits = Limits::default();
            let request = PromoteRequest {
                branch,
                upstream_branch,
                expect_commit,
            };
            terok_gate::promote(&spec, &upstream, &*transport, &request, &limits, &control)
        })
        .await;
        drop(lock);
        let result = outcome?;
        let data = json!({"gate_path": subject.path.to_string_lossy(), "result": result});
        self.tell(&subject.path, EventKind::GateSynced, &data);
        self.look_again(&subject, move |branch| branch == target)
            .await;
        Ok(result)
    }

    /// Whether upstream lets the project in.
    ///
    /// # Errors
    /// It does not, and why; or there is nothing to ask.
    pub async fn probe(&self, id: &ProjectId) -> Result<(), Fault> {
        let subject = self.subject(id)?;
        let Some(upstream) = self.upstream(&subject, Some(false), true).await? else {
            return Err(Fault::invalid_argument(format!(
                "project `{}` has no upstream to ask; set `git.upstream_url`",
                subject.config.id
            )));
        };
        let transport = self.transport(&subject);
        let control = self.control(&subject);
        blocking(move || {
            let limits = Limits {
                ls_refs: PROBE,
                ..Limits::default()
            };
            transport
                .ls_refs(&upstream, &["HEAD"], &limits, &control)
                .map(drop)
                .map_err(Fault::from)
        })
        .await
    }

    /// What polls at once when somebody asks: the gate of one project, or all gates on the schedule.
    ///
    /// # Errors
    /// There is no such project, it is broken, or the kill switch is engaged.
    pub fn poll_targets(&self, project: Option<&ProjectId>) -> Result<Vec<Arc<Target>>, Fault> {
        self.refuse_while_panicked("polling")?;
        match project {
            None => {
                let polling = self.inner.polling.get();
                Ok(polling.map(Polling::targets).unwrap_or_default())
            }
            Some(id) => {
                let subject = self.subject(id)?;
                let target = target_of(&subject.config, subject.path.clone());
                Ok(target.map(Arc::new).into_iter().collect())
            }
        }
    }

    /// A project is gone, and with it perhaps its gate: nothing opens it any more, nobody polls it.
    pub async fn gone(&self, gate: &Path) {
        let Some(polling) = self.inner.polling.get() else {
            return;
        };
        if gate.is_dir() {
            polling.reconfigure();
        } else {
            polling.forget(gate).await;
        }
    }

    /// Waits for a project's gate and for the clone of it that seeds its tasks, so that nothing else works on them.
    pub async fn hold(&self, gate: &Path, project: &str) -> Held {
        let paths = &self.inner.registry.snapshot().paths;
        let cache = paths.clone_cache_dir.join(project);
        Held {
            _gate: self.inner.locks.lock(gate).await,
            _cache: self.inner.locks.lock(cache).await,
        }
    }

    /// A change inside the repository that needs no upstream.
    async fn changing<T: Send + 'static>(
        &self,
        id: &ProjectId,
        what: &str,
        change: impl FnOnce(&GateSpec, &Control) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.refuse_while_panicked(what)?;
        let subject = self.subject(id)?;
        let spec = subject.spec();
        let lock = self.inner.locks.lock(&subject.path).await;
        let control = self.control(&subject);
        let changed = blocking(move || change(&spec, &control)).await?;
        drop(lock);
        self.look_again(&subject, |_| false).await;
        Ok(changed)
    }

    /// The gate of a healthy project.
    fn subject(&self, id: &ProjectId) -> Result<Subject, Fault> {
        let entry: Arc<ProjectEntry> = self.inner.registry.project(id)?;
        Ok(self.subject_of(entry.project()?.config.clone()))
    }

    fn subject_of(&self, config: ProjectConfig) -> Subject {
        Subject {
            path: self.inner.env.normalise(&config.gate_path),
            snapshot: self.inner.registry.snapshot(),
            search_path: self.inner.env.var("PATH").unwrap_or_default().into(),
            config,
        }
    }

    /// Fails once the project is gone. One that somebody is breaking in an editor goes on as it was.
    fn still_there(&self, subject: &Subject) -> Result<(), Fault> {
        let id = ProjectId::parse(&subject.config.id)?;
        match self.inner.registry.snapshot().find(&id) {
            Some(_) => Ok(()),
            None => self.inner.registry.project(&id).map(drop),
        }
    }

    /// Projects that share a gate have to agree on its upstream.
    fn refuse_conflicts(&self, subject: &Subject) -> Result<(), Fault> {
        let sharers = self.sharers(&subject.path);
        let own = subject.config.upstream_url.as_deref();
        let shown = |url: Option<&str>| url.map_or_else(|| "<not configured>".to_owned(), redacted);
        for (other, url) in sharers
            .iter()
            .filter(|(other, _)| *other != subject.config.id)
        {
            if own.is_some() && own == url.as_deref() {
                continue;
            }
            let gate = subject.path.to_string_lossy();
            return Err(Fault::new(
                Kind::GateConflict,
                format!(
                    "projects `{}` (upstream {}) and `{other}` (upstream {}) share the gate `{gate}`: give one of them \
                     another `gate.path`, or align their `git.upstream_url`",
                    subject.config.id,
                    shown(own),
                    shown(url.as_deref()),
                ),
            )
            .with("gate_path", gate)
            .with("project_id", subject.config.id.as_str())
            .with("other_project_id", other.as_str()));
        }
        Ok(())
    }

    /// Projects whose gate is at that path, with their upstreams, by id.
    fn sharers(&self, gate: &Path) -> Vec<(String, Option<String>)> {
        let snapshot = self.inner.registry.snapshot();
        let projects = snapshot.projects.values();
        let mut sharers: Vec<_> = projects
            .filter_map(|entry| entry.project().ok())
            .filter(|project| self.inner.env.normalise(&project.config.gate_path) == gate)
            .map(|project| (project.id.clone(), project.config.upstream_url.clone()))
            .collect();
        sharers.sort();
        sharers
    }

    fn refuse_while_panicked(&self, what: &str) -> Result<(), Fault> {
        let snapshot = self.inner.registry.snapshot();
        crate::panic::refuse_while_panicked(&snapshot.paths, what)
    }

    /// Library or program, as configured.
    fn transport(&self, subject: &Subject) -> Arc<dyn GitTransport> {
        match subject.snapshot.global.terokd.git.backend {
            GitBackend::Gix => Arc::clone(&self.inner.gix) as _,
            GitBackend::Cli => Arc::new(CliTransport::new(self.inner.host.clone())),
        }
    }

    /// A handle for a call that only the end of the daemon stops. A host key that it meets for the first time is worth a
    /// look, whatever comes of the call.
    fn control(&self, subject: &Subject) -> Control {
        let (bus, project) = (self.inner.bus.clone(), subject.config.id.clone());
        Control::new()
            .with_token(self.inner.tasks.stopping().child_token())
            .with_pinned(move |key| {
                let (host, fingerprint) = (&key.host, &key.fingerprint);
                tracing::info!(host, fingerprint, "host key pinned");
                let data =
                    json!({"host": host, "key_type": key.key_type, "fingerprint": fingerprint});
                let draft = Draft::new(EventKind::HostKeyPinned);
                bus.publish(draft.project(project.clone()).data(data));
            })
    }

    async fn tell_sync(
        &self,
        subject: &Subject,
        request: &SyncRequest,
        outcome: &Result<SyncReport, Fault>,
    ) {
        let gate = &subject.path;
        let path = gate.to_string_lossy();
        let error = match outcome {
            Ok(report) if report.result.success => None,
            Ok(report) => Some(report.result.errors.join("; ")),
            Err(fault) => Some(fault.message.clone()),
        };
        match outcome {
            Ok(report) => {
                let result = &report.result;
                if result.success {
                    self.tell(
                        gate,
                        EventKind::GateSynced,
                        &json!({"gate_path": path, "result": result}),
                    );
                } else {
                    let data =
                        json!({"gate_path": path, "result": result, "errors": result.errors});
                    self.tell(gate, EventKind::GateSyncFailed, &data);
                }
                if !result.pending.is_empty() {
                    let data = json!({"gate_path": path, "pending": result.pending});
                    self.tell(gate, EventKind::GatePending, &data);
                }
            }
            Err(fault) => {
                let data = json!({"gate_path": path, "result": null, "errors": [fault.message]});
                self.tell(gate, EventKind::GateSyncFailed, &data);
            }
        }
        let Some(polling) = self.inner.polling.get() else {
            return;
        };
        let failed = error.is_some();
        polling.note_sync(gate, error).await;
        polling.reconfigure();
        if !failed {
            if !request.background {
                polling.forget_failures(Some(gate));
            }
            let branches = request.branches.clone();
            let asked =
                move |branch: &str| branches.is_empty() || branches.iter().any(|b| b == branch);
            self.look_again(subject, asked).await;
        }
    }

    /// Tells polling how the gate stands now, by what was last heard of upstream: just now about some branches.
    async fn look_again(
        &self,
        subject: &Subject,
        just_asked: impl FnOnce(&str) -> bool + Send + 'static,
    ) {
        let Some(polling) = self.inner.polling.get() else {
            return;
        };
        let spec = subject.spec();
        let last = polling
            .last_known(&subject.path)
            .and_then(|row| row.staleness);
        let looked = blocking(move || {
            Ok(terok_gate::compare_with_known(
                &spec,
                last.as_ref(),
                just_asked,
            ))
        })
        .await;
        if let Ok(Some(staleness)) = looked {
            polling.observe(&subject.path, &staleness).await;
        }
    }

    /// Tells every project that shares the gate.
    fn tell(&self, gate: &Path, kind: EventKind, data: &serde_json::Value) {
        for (project, _) in self.sharers(gate) {
            self.inner
                .bus
                .publish(Draft::new(kind).project(project).data(data.clone()));
        }
    }
}

/// An address as it may be shown: it may hold a password.
fn redacted(url: &str) -> String {
    GateUrl::parse(url).map_or_else(|_| terok_gate::clean_message(url), |url| url.redacted())
}

/// Whether there is somebody to ask.
fn reach(upstream: &Result<Option<Upstream>, Fault>) -> Reach<'_> {
    match upstream {
        Ok(Some(upstream)) => Reach::Upstream(upstream),
        Ok(None) => Reach::None,
        Err(fault) => Reach::Refused(fault),
    }
}

/// Runs git work where it may block.
async fn blocking<T, F>(work: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Fault::internal(format!("git work failed: {error}"))),
    }
}

fn progress_of(at: terok_gate::Progress) -> Progress {
    use terok_gate::Phase;
    let phase = match at.phase {
        Phase::Connecting => "connecting",
        Phase::Negotiating => "negotiating",
        Phase::Receiving => "receiving",
        Phase::Resolving => "resolving",
        Phase::Pushing => "pushing",
    };
    Progress {
        phase: phase.to_owned(),
        done: Some(at.objects),
        total: at.total,
        unit: Some("objects".to_owned()),
        message: (at.bytes > 0).then(|| format!("{} KiB", at.bytes / 1024)),
    }
}
