//! One gate on the schedule: when it is due, how it has fared, what its subscribers know.

use super::memory::Row;
use super::schedule::Failure;
use super::targets::Target;
use std::sync::Arc;
use std::time::Duration;
use terok_gate::Lag;
use terok_proto::gate::{GateStalenessInfo, PollState, Relation, StalenessErrorKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// No auto-sync of a gate starts sooner than this after the last one started.
const COOLDOWN: Duration = Duration::from_secs(300);

/// What a look at upstream found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How current the compared branch is, or why that is not known.
    pub staleness: GateStalenessInfo,
    /// Branches that auto-sync is about and that a sync may bring where upstream has them.
    pub lagging: Vec<Lag>,
    /// Why upstream could not be asked.
    pub failure: Option<Failure>,
}

/// How an auto-sync ended.
#[derive(Clone, Debug, Default)]
pub struct Synced {
    /// Without errors.
    pub success: bool,
    /// Branches that somebody else was changing just then: worth another try.
    pub left: Vec<String>,
}

/// What subscribers are told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Stale(GateStalenessInfo),
    Current(GateStalenessInfo),
    AutoSyncStarted(Vec<String>),
    Failed {
        error: String,
        kind: Option<StalenessErrorKind>,
        next_poll_at: Option<String>,
    },
}

/// One gate.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) target: Arc<Target>,
    /// When it is due; none while it runs.
    pub(super) next: Option<Instant>,
    /// It is being polled.
    pub(super) running: bool,
    /// Somebody asked for it: limits do not hold it up.
    pub(super) forced: bool,
    pub(super) waiting: Vec<oneshot::Sender<GateStalenessInfo>>,
    pub(super) row: Row,
    last_auto_sync: Option<(Instant, String)>,
    last_auto_result: Option<bool>,
    /// What successful auto-syncs were to bring and dealt with, as it was before: what is still there waits for a human.
    brought: Vec<Lag>,
    bringing: Vec<Lag>,
}

impl Entry {
    pub(super) fn new(target: Arc<Target>, row: Row, next: Instant) -> Self {
        Self {
            target,
            next: Some(next),
            running: false,
            forced: false,
            waiting: Vec::new(),
            row,
            last_auto_sync: None,
            last_auto_result: None,
            brought: Vec::new(),
            bringing: Vec::new(),
        }
    }

    /// Takes over what was found; answers what to tell, `next_poll_at` aside.
    pub(super) fn note(&mut self, outcome: &Outcome) -> Option<Told> {
        let now = jiff::Timestamp::now().to_string();
        self.row.last_poll_at = Some(now.clone());
        if let Some(failure) = &outcome.failure {
            let first = self.row.failures == 0 || self.row.last_error_kind != Some(failure.kind);
            self.row.failures = self.row.failures.saturating_add(1);
            self.row.last_error = Some(failure.message.clone());
            self.row.last_error_kind = Some(failure.kind);
            return first.then(|| Told::Failed {
                error: failure.message.clone(),
                kind: Some(failure.kind),
                next_poll_at: None,
            });
        }
        self.row.last_success_at = Some(now);
        self.row.failures = 0;
        self.row.last_error = None;
        self.row.last_error_kind = None;
        self.observe(&outcome.staleness)
    }

    /// Takes over how current the gate is, whoever looked; answers what to tell.
    pub(super) fn observe(&mut self, staleness: &GateStalenessInfo) -> Option<Told> {
        self.row.staleness = Some(staleness.clone());
        if staleness.error.is_some() {
            return None;
        }
        let behind = match staleness.relation {
            Relation::Behind | Relation::Diverged => true,
            // The gate lacks upstream's commit, or it could be related.
            Relation::Unknown => staleness.is_stale,
            Relation::Equal | Relation::Ahead => false,
        };
        if behind {
            if self.row.notified_head == staleness.upstream_head {
                return None;
            }
            self.row.notified_head.clone_from(&staleness.upstream_head);
            return Some(Told::Stale(staleness.clone()));
        }
        self.row
            .notified_head
            .take()
            .map(|_| Told::Current(staleness.clone()))
    }

    /// Branches that are to be synced now, if any; the cooldown starts here.
    pub(super) fn wants_sync(&mut self, outcome: &Outcome, now: Instant) -> Option<Vec<String>> {
        let target = &self.target;
        let wanted = |branch: &str| {
            target.auto_sync_branches.is_empty()
                || target.auto_sync_branches.iter().any(|b| b == branch)
        };
        if !target.auto_sync || outcome.failure.is_some() {
            return None;
        }
        let lagging: Vec<_> = outcome
            .lagging
            .iter()
            .filter(|lag| wanted(&lag.branch))
            .cloned()
            .collect();
        // What is no longer so, or is otherwise by now, may be worth a sync when it comes back.
        self.brought.retain(|lag| lagging.contains(lag));
        let cooling = self
            .last_auto_sync
            .as_ref()
            .is_some_and(|(at, _)| now < *at + COOLDOWN);
        // What a sync brought and could not apply waits for a human; another sync would not change that.
        if cooling || lagging.iter().all(|lag| self.brought.contains(lag)) {
            return None;
        }
        self.last_auto_sync = Some((now, jiff::Timestamp::now().to_string()));
        self.bringing = lagging;
        Some(target.auto_sync_branches.clone())
    }

    pub(super) fn auto_synced(&mut self, synced: &Synced) {
        self.last_auto_result = Some(synced.success);
        let mut bringing = std::mem::take(&mut self.bringing);
        if synced.success {
            bringing.retain(|lag| !synced.left.contains(&lag.branch));
            self.brought = bringing;
        }
    }

    /// As the wire has it.
    pub(super) fn state(&self, now: Instant) -> PollState {
        let (row, target) = (&self.row, &self.target);
        PollState {
            project_ids: target.project_ids.clone(),
            gate_path: target.gate_path.to_string_lossy().into_owned(),
            host: target.host.clone(),
            interval_seconds: target.interval.as_secs(),
            next_poll_at: self.next.map(|next| wall_clock(next, now)),
            last_poll_at: row.last_poll_at.clone(),
            last_success_at: row.last_success_at.clone(),
            consecutive_failures: row.failures,
            last_error: row.last_error.clone(),
            last_error_kind: row.last_error_kind,
            staleness: row.staleness.clone(),
            auto_sync: terok_proto::gate::AutoSyncState {
                enabled: target.auto_sync,
                branches: target.auto_sync_branches.clone(),
                last_at: self.last_auto_sync.as_ref().map(|(_, at)| at.clone()),
                last_result: self.last_auto_result,
                cooldown_until: self
                    .last_auto_sync
                    .as_ref()
                    .map(|(at, _)| *at + COOLDOWN)
                    .filter(|end| *end > now)
                    .map(|end| wall_clock(end, now)),
            },
        }
    }
}

/// A moment to come, as a clock on the wall will show it.
pub(super) fn wall_clock(moment: Instant, now: Instant) -> String {
    let ahead = moment.saturating_duration_since(now);
    let ahead = jiff::SignedDuration::try_from(ahead).unwrap_or_default();
    let at = jiff::Timestamp::now()
        .checked_add(ahead)
        .unwrap_or(jiff::Timestamp::MAX);
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}
