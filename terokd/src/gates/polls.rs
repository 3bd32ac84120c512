//! What polling asks of gates.

use super::{Gates, SyncRequest, blocking, reach};
use crate::polling::{Failure, Outcome, Target, Upstreams};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use terok_config::id::ProjectId;
use terok_gate::{Limits, PollReport};
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
    ) -> BoxFuture<'static, Result<bool, Fault>> {
        let gates = self.clone();
        async move {
            let request = SyncRequest {
                branches,
                background: true,
                ..SyncRequest::default()
            };
            let id = first(&target)?;
            let never = std::future::pending();
            let result = gates.sync_with(&id, request, never, |_| {}).await?;
            Ok(result.success)
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
            Ok(report) => {
                self.tell_pinned(&target.gate_path, &report.pinned);
                Outcome {
                    staleness: report.staleness,
                    changed: report.changed,
                    failure: report.failure.map(|failure| Failure {
                        kind: failure.kind,
                        message: failure.message,
                        retry_after: failure.retry_after,
                    }),
                }
            }
            Err(fault) => refused(target, &fault),
        }
    }

    async fn ask(&self, target: &Target) -> Result<PollReport, Fault> {
        let subject = self.subject(&first(target)?)?;
        let upstream = self.upstream(&subject, None, true).await;
        let (spec, transport) = (subject.spec(), self.transport(&subject));
        let control = self.control();
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
}

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
        changed: Vec::new(),
        failure: Some(Failure {
            kind,
            message: fault.message.clone(),
            retry_after: None,
        }),
    }
}

fn first(target: &Target) -> Result<ProjectId, Fault> {
    ProjectId::parse(target.project_ids.first().map_or("", String::as_str))
}

/// How long the machine has slept since it was started: one clock counts that, the other does not.
fn slept() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    let now = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    now(ClockId::CLOCK_BOOTTIME).saturating_sub(now(ClockId::CLOCK_MONOTONIC))
}
