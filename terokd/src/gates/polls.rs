//! What polling asks of gates.

use super::spec::Subject;
use super::{Gates, SyncRequest, blocking, reach};
use crate::polling::{Failure, Outcome, Synced, Target, Upstreams};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use terok_config::id::ProjectId;
use terok_gate::{Contact, Limits, PollReport, Upstream};
use terok_proto::gate::{GateStalenessInfo, Relation, StalenessErrorKind};
use terok_proto::{Fault, Kind};

impl Upstreams for Gates {
    fn poll(&self, target: Arc<Target>) -> BoxFuture<'static, Outcome> {
        let gates = self.clone();
        async move { gates.poll_target(&target).await }.boxed()
    }

    fn sync(
        &self,
        target: Arc<Target>,
        branches: Vec<String>,
    ) -> BoxFuture<'static, Result<Synced, Fault>> {
        let gates = self.clone();
        async move {
            let request = SyncRequest {
                branches,
                background: true,
                ..SyncRequest::default()
            };
            let (subject, _) = gates.asks_for(&target).await?;
            let never = std::future::pending();
            let report = gates.sync_with(subject, request, never, |_| {}).await?;
            Ok(Synced {
                success: report.result.success,
                left: report.left,
            })
        }
        .boxed()
    }

    fn slept(&self) -> Duration {
        slept()
    }
}

impl Gates {
    async fn poll_target(&self, target: &Target) -> Outcome {
        match self.ask(target).await {
            Ok(report) => Outcome {
                staleness: report.staleness,
                lagging: report.lagging,
                failure: report.failure.map(|failure| Failure {
                    kind: failure.kind,
                    message: failure.message,
                    contact: failure.contact,
                    retry_after: failure.retry_after,
                }),
            },
            Err(fault) => refused(target, &fault),
        }
    }

    async fn ask(&self, target: &Target) -> Result<PollReport, Fault> {
        let (subject, upstream) = self.asks_for(target).await?;
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let control = self.control(&subject);
        let seconds = subject.snapshot.global.terokd.polling.timeout_seconds;
        let wanted = target.auto_sync.then(|| target.auto_sync_branches.clone());
        blocking(move || {
            let limits = Limits {
                ls_refs: Duration::from_secs(seconds.max(1)),
                ..Limits::default()
            };
            terok_gate::poll(
                &spec,
                reach(&upstream),
                &*transport,
                wanted.as_deref(),
                &limits,
                &control,
            )
        })
        .await
    }

    /// The first of a gate's projects that has a way to its upstream, else the first. One that somebody is breaking in an
    /// editor goes on as it was.
    async fn asks_for(&self, target: &Target) -> Result<(Subject, Way), Fault> {
        let snapshot = self.inner.registry.snapshot();
        let mut first = None;
        for id in &target.project_ids {
            let entry = snapshot.find(&ProjectId::parse(id)?);
            let Some(loaded) = entry.as_ref().and_then(|entry| entry.good()) else {
                continue;
            };
            let subject = self.subject_of(loaded.project.config.clone());
            let upstream = self.upstream(&subject, None, true).await;
            if upstream.is_ok() {
                return Ok((subject, upstream));
            }
            first.get_or_insert((subject, upstream));
        }
        first.ok_or_else(|| {
            Fault::new(
                Kind::ProjectNotFound,
                format!(
                    "no project has the gate `{}` any more",
                    target.gate_path.display()
                ),
            )
        })
    }
}

/// How upstream may be reached; none without an upstream.
type Way = Result<Option<Upstream>, Fault>;

/// A poll that never got as far as upstream.
fn refused(target: &Target, fault: &Fault) -> Outcome {
    let kind = match fault.kind {
        Kind::GateAuthNotConfigured
        | Kind::VaultLocked
        | Kind::VaultWrongPassphrase
        | Kind::VaultTierFailed
        | Kind::Panicked => StalenessErrorKind::AuthNotConfigured,
        _ => StalenessErrorKind::Unreachable,
    };
    Outcome {
        staleness: GateStalenessInfo {
            branch: target.branch.clone(),
            gate_head: None,
            upstream_head: None,
            is_stale: false,
            commits_behind: None,
            commits_ahead: None,
            last_checked: jiff::Timestamp::now().to_string(),
            error: Some("Could not reach upstream".to_owned()),
            error_kind: Some(kind),
            relation: Relation::Unknown,
        },
        lagging: Vec::new(),
        failure: Some(Failure {
            kind,
            message: fault.message.clone(),
            contact: Contact::NotTried,
            retry_after: None,
        }),
    }
}

/// How long the machine has slept since it was started: one clock counts that, the other does not.
fn slept() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    let now = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    now(ClockId::CLOCK_BOOTTIME).saturating_sub(now(ClockId::CLOCK_MONOTONIC))
}
