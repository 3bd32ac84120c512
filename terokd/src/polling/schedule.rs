//! When each gate is polled: intervals, jitter, back-off, limits per host, hosts that are down, a machine that slept.
//!
//! Pure bookkeeping over moments that are passed in; nothing here waits, asks or tells.

use super::entry::{Entry, Outcome, Synced, Told, wall_clock};
use super::memory::Row;
use super::targets::Target;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terok_config::global::PollingKeys;
use terok_gate::Contact;
use terok_proto::daemon::PollingSummary;
use terok_proto::gate::{GateStalenessInfo, PollState, StalenessErrorKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// First polls after a start are spread over at most this long.
const SPREAD: Duration = Duration::from_secs(60);

/// A host with this many connection failures in a row is asked by one gate at a time.
const BREAKER: u32 = 3;

/// Why upstream could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: StalenessErrorKind,
    /// For humans.
    pub message: String,
    /// What it says of the host.
    pub contact: Contact,
    /// The server said when to come back.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Trying again soon cannot help.
    fn is_final(&self) -> bool {
        matches!(
            self.kind,
            StalenessErrorKind::AuthFailed | StalenessErrorKind::HostKeyChanged
        )
    }
}

/// A gate that is to be polled now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) target: Arc<Target>,
}

/// What follows from an outcome.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) told: Vec<Told>,
    pub(super) projects: Vec<String>,
    pub(super) auto_sync: Option<Vec<String>>,
    /// To be remembered.
    pub(super) row: Option<Row>,
    /// It holds what a daemon that starts again must not have forgotten.
    pub(super) news: bool,
}

/// All gates.
#[derive(Debug)]
pub(super) struct Schedule {
    entries: BTreeMap<PathBuf, Entry>,
    /// What is remembered of gates that are not on the schedule.
    remembered: HashMap<PathBuf, Row>,
    /// Connection failures in a row, by host.
    hosts: HashMap<String, u32>,
    limits: PollingKeys,
    paused: bool,
    slept: Duration,
    random: u64,
}

impl Schedule {
    pub(super) fn new(remembered: HashMap<PathBuf, Row>, seed: u64, slept: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            remembered,
            hosts: HashMap::new(),
            limits: PollingKeys::default(),
            paused: false,
            slept,
            random: seed | 1,
        }
    }

    /// Takes over targets and limits. A gate whose target is the same keeps its place; a changed one is tried soon.
    pub(super) fn reconfigure(
        &mut self,
        targets: Vec<Arc<Target>>,
        limits: PollingKeys,
        now: Instant,
    ) {
        self.limits = limits;
        let mut before = std::mem::take(&mut self.entries);
        for target in targets {
            let path = target.gate_path.clone();
            let entry = match before.remove(&path) {
                Some(mut entry) if *entry.target == *target => {
                    entry.target = target;
                    entry
                }
                Some(mut entry) => {
                    let sooner = entry.target.interval != target.interval;
                    let asks_elsewhere = entry.target.upstream_url != target.upstream_url;
                    if asks_elsewhere {
                        self.hosts.remove(&target.host);
                    }
                    entry.row.failures = 0;
                    entry.target = target;
                    if !entry.running
                        && (sooner || asks_elsewhere || entry.row.last_error.is_some())
                    {
                        let spread = self.spread(entry.target.interval);
                        entry.next = Some(entry.next.unwrap_or(now).min(now + spread));
                    }
                    entry
                }
                None => {
                    let row = self.remembered.remove(&path).unwrap_or_default();
                    let spread = self.spread(target.interval);
                    Entry::new(target, row, now + spread)
                }
            };
            self.entries.insert(path, entry);
        }
        // Whoever waits for a gate that left is told by the channel that closes.
        for (path, entry) in before {
            self.remembered.insert(path, entry.row);
        }
    }

    /// Gates that may be polled now, and when to look again.
    pub(super) fn take_due(&mut self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        if self.paused {
            return (Vec::new(), None);
        }
        let mut running: HashMap<String, usize> = HashMap::new();
        let mut total = 0;
        for entry in self.entries.values().filter(|entry| entry.running) {
            *running.entry(entry.target.host.clone()).or_default() += 1;
            total += 1;
        }
        let per_host = self.limits.max_per_host.max(1);
        let most = self.limits.max_concurrent.max(1);
        let (mut due, mut next) = (Vec::new(), None);
        // With every slot taken only those who ask in person have a turn; many wait here while many polls end, so
        // nothing is copied and nobody is looked up by his path.
        let full = total >= most;
        let mut order: Vec<(bool, Instant, &mut Entry)> = Vec::new();
        for entry in self.entries.values_mut() {
            let Some(at) = entry.next.filter(|_| !entry.running) else {
                continue;
            };
            if entry.forced || at <= now {
                let busy = |n: &usize| *n >= per_host;
                if entry.forced || !(full || running.get(&entry.target.host).is_some_and(busy)) {
                    order.push((!entry.forced, at, entry));
                }
            } else {
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
            }
        }
        // Stable: those of the same moment stay in the order of their paths.
        order.sort_by_key(|(in_turn, at, _)| (*in_turn, *at));
        for (in_turn, _, entry) in order {
            if in_turn {
                // A slot that gets free wakes the scheduler.
                if total >= most {
                    break;
                }
                let host = &entry.target.host;
                let busy = running.get(host).copied().unwrap_or(0);
                let down = |failures: &u32| *failures >= BREAKER;
                let alone = entry.waiting.is_empty() && self.hosts.get(host).is_some_and(down);
                if busy >= if alone { 1 } else { per_host } {
                    continue;
                }
            }
            entry.running = true;
            entry.forced = false;
            entry.next = None;
            *running.entry(entry.target.host.clone()).or_default() += 1;
            total += 1;
            due.push(Due {
                target: Arc::clone(&entry.target),
            });
        }
        (due, next)
    }

    /// Somebody wants the gate polled now: before all others and whatever the limits say if it is this one that he
    /// waits for, else as soon as they allow. False if it is not on the schedule.
    pub(super) fn poll_now(
        &mut self,
        gate: &Path,
        alone: bool,
        now: Instant,
        tell: oneshot::Sender<GateStalenessInfo>,
    ) -> bool {
        if self.paused {
            return false;
        }
        let Some(entry) = self.entries.get_mut(gate) else {
            return false;
        };
        entry.waiting.push(tell);
        if !entry.running {
            entry.forced |= alone;
            entry.next = Some(entry.next.map_or(now, |next| next.min(now)));
        }
        true
    }

    /// Takes over what was found about a gate.
    pub(super) fn settle(&mut self, gate: &Path, outcome: Outcome, now: Instant) -> Settled {
        let Some(entry) = self.entries.get_mut(gate) else {
            return Settled::default();
        };
        for waiting in entry.waiting.drain(..) {
            // It may have gone away.
            let _ = waiting.send(outcome.staleness.clone());
        }
        let before = entry.row.news();
        let mut told = entry.note(&outcome);
        let news = entry.row.news() != before;
        let auto_sync = entry.wants_sync(&outcome, now);
        let (host, interval, failures) = (
            entry.target.host.clone(),
            entry.target.interval,
            entry.row.failures,
        );
        let wait = match &outcome.failure {
            None => self.jittered(interval),
            Some(failure) => self.after_failure(interval, failures, failure),
        };
        if let Some(entry) = self.entries.get_mut(gate) {
            entry.next = Some(now + wait);
        }
        match outcome.failure.map(|failure| failure.contact) {
            None | Some(Contact::Answered) => {
                self.hosts.remove(&host);
            }
            Some(Contact::Unanswered) => self.unanswered(gate, &host, now),
            Some(Contact::NotTried) => {}
        }
        let Some(entry) = self.entries.get_mut(gate) else {
            return Settled::default();
        };
        let next = entry.next.unwrap_or(now);
        if let Some(Told::Failed { next_poll_at, .. }) = &mut told {
            *next_poll_at = Some(wall_clock(next, now));
        }
        Settled {
            told: told.into_iter().collect(),
            projects: entry.target.project_ids.clone(),
            auto_sync,
            row: Some(entry.row.clone()),
            news,
        }
    }

    /// Takes over what is known of a gate without asking its upstream. When it is asked again, and who waits for that,
    /// stays as it is.
    pub(super) fn observe(&mut self, gate: &Path, staleness: &GateStalenessInfo) -> Settled {
        let Some(entry) = self.entries.get_mut(gate) else {
            let row = self.amend(gate, |row| row.staleness = Some(staleness.clone()));
            return Settled {
                row: Some(row),
                ..Settled::default()
            };
        };
        let before = entry.row.news();
        let told = entry.observe(staleness);
        Settled {
            told: told.into_iter().collect(),
            projects: entry.target.project_ids.clone(),
            auto_sync: None,
            row: Some(entry.row.clone()),
            news: entry.row.news() != before,
        }
    }

    /// The gate's turn is over.
    pub(super) fn finished(&mut self, gate: &Path, now: Instant) {
        let interval = match self.entries.get_mut(gate) {
            Some(entry) => {
                entry.running = false;
                // Somebody asked while it was busy with what it found before.
                if !entry.waiting.is_empty() {
                    entry.next = Some(now);
                }
                if entry.next.is_some() {
                    return;
                }
                entry.target.interval
            }
            None => return,
        };
        // It ended without an answer.
        let wait = self.jittered(interval);
        if let Some(entry) = self.entries.get_mut(gate) {
            entry.next = Some(now + wait);
        }
    }

    pub(super) fn auto_synced(&mut self, gate: &Path, synced: &Synced, now: Instant) {
        let spread = Duration::from_secs(1);
        if let Some(entry) = self.entries.get_mut(gate) {
            entry.auto_synced(synced);
            if !synced.success {
                // What it lacks is looked at again at its usual time.
                return;
            }
            if entry.row.notified_head.is_some() {
                // Subscribers who heard that it was stale hear soon that it is not.
                entry.next = Some(now + spread);
            }
        }
    }

    pub(super) fn forget_failures(&mut self, gate: Option<&Path>, now: Instant) {
        self.hosts.clear();
        let paths: Vec<PathBuf> = self
            .entries
            .iter()
            .filter(|(path, entry)| {
                gate.is_none_or(|gate| gate == path.as_path()) && entry.row.failures > 0
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in paths {
            let Some(interval) = self.entries.get(&path).map(|e| e.target.interval) else {
                continue;
            };
            let spread = self.spread(interval).min(Duration::from_secs(5));
            if let Some(entry) = self.entries.get_mut(&path) {
                entry.row.failures = 0;
                if !entry.running {
                    entry.next = Some(now + spread);
                }
            }
        }
    }

    pub(super) fn pause(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            self.spread_all(now, Duration::ZERO);
        }
        let begins = paused && !self.paused;
        self.paused = paused;
        if begins {
            for entry in self.entries.values_mut() {
                entry.waiting.clear();
                entry.forced = false;
            }
        }
    }

    /// The machine slept: whoever missed a turn has it soon, spread as after a start.
    pub(super) fn notice_sleep(&mut self, slept: Duration, now: Instant) {
        let missed = slept.saturating_sub(self.slept);
        self.slept = slept;
        if missed > Duration::from_secs(1) {
            self.spread_all(now, missed);
        }
    }

    /// Spreads everybody whose turn came while nobody looked for `missed`; the others' turns come that much sooner.
    fn spread_all(&mut self, now: Instant, missed: Duration) {
        let paths: Vec<PathBuf> = self.entries.keys().cloned().collect();
        for path in paths {
            let Some(interval) = self.entries.get(&path).map(|e| e.target.interval) else {
                continue;
            };
            let spread = self.spread(interval);
            let Some(entry) = self.entries.get_mut(&path) else {
                continue;
            };
            let Some(next) = entry.next else { continue };
            let left = next.saturating_duration_since(now);
            entry.next = Some(
                now + if left <= missed {
                    spread
                } else {
                    left - missed
                },
            );
        }
    }

    pub(super) fn status(&self, gate: Option<&Path>, now: Instant) -> Vec<PollState> {
        self.entries
            .iter()
            .filter(|(path, _)| gate.is_none_or(|gate| gate == path.as_path()))
            .map(|(_, entry)| {
                let mut state = entry.state(now);
                if self.paused {
                    state.next_poll_at = None;
                }
                state
            })
            .collect()
    }

    pub(super) fn summary(&self, now: Instant) -> PollingSummary {
        let next = self.entries.values().filter_map(|entry| entry.next).min();
        PollingSummary {
            projects: self
                .entries
                .values()
                .map(|entry| entry.target.project_ids.len() as u64)
                .sum(),
            next_at: next
                .filter(|_| !self.paused)
                .map(|next| wall_clock(next, now)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn targets(&self) -> Vec<Arc<Target>> {
        self.entries
            .values()
            .map(|entry| Arc::clone(&entry.target))
            .collect()
    }

    pub(super) fn last_known(&self, gate: &Path) -> Option<Row> {
        match self.entries.get(gate) {
            Some(entry) => Some(entry.row.clone()),
            None => self.remembered.get(gate).cloned(),
        }
    }

    /// Remembers of a gate what did not come from a poll.
    pub(super) fn amend(&mut self, gate: &Path, change: impl FnOnce(&mut Row)) -> Row {
        let row = match self.entries.get_mut(gate) {
            Some(entry) => &mut entry.row,
            None => self.remembered.entry(gate.to_owned()).or_default(),
        };
        change(row);
        row.clone()
    }

    pub(super) fn drop_remembered(&mut self, gate: &Path) {
        self.remembered.remove(gate);
    }

    /// A host that did not answer so often in a row is tried by the gate whose turn comes first, less and less often; the
    /// others wait for that one. Nobody is tried sooner than he would be.
    fn unanswered(&mut self, gate: &Path, host: &str, now: Instant) {
        let in_a_row = self.hosts.entry(host.to_owned()).or_default();
        *in_a_row += 1;
        let Some(beyond) = in_a_row.checked_sub(BREAKER) else {
            return;
        };
        let there = self.entries.values().filter(|e| e.target.host == host);
        let Some(interval) = there.map(|entry| entry.target.interval).min() else {
            return;
        };
        let wait = self.backed_off(interval, beyond);
        let probe_at = now + self.jittered(wait);
        let idle = |path: &Path, entry: &Entry| {
            entry.target.host == host
                && entry.waiting.is_empty()
                && (!entry.running || path == gate)
        };
        let mut waiting: Vec<&mut Instant> = self
            .entries
            .iter_mut()
            .filter(|(path, entry)| idle(path, entry))
            .filter_map(|(_, entry)| entry.next.as_mut())
            .collect();
        waiting.sort();
        let mut waiting = waiting.into_iter();
        let Some(probe) = waiting.next() else { return };
        *probe = probe_at.max(*probe);
        let after = *probe + Duration::from_secs(1);
        for next in waiting {
            *next = after.max(*next);
        }
    }

    fn after_failure(&mut self, interval: Duration, failures: u32, failure: &Failure) -> Duration {
        let wait = self.backed_off(interval, if failure.is_final() { 16 } else { failures });
        self.jittered(wait)
            .max(failure.retry_after.unwrap_or_default())
    }

    /// An interval doubled so often, up to the longest wait.
    fn backed_off(&self, interval: Duration, times: u32) -> Duration {
        let longest = Duration::from_secs(self.limits.backoff_max_minutes.saturating_mul(60));
        interval
            .saturating_mul(2_u32.saturating_pow(times.min(16)))
            .min(longest.max(interval))
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let percent = f64::from(self.limits.jitter_percent.min(100)) / 100.0;
        wait.mul_f64(1.0 + percent * (2.0 * self.fraction() - 1.0))
    }

    fn spread(&mut self, interval: Duration) -> Duration {
        interval.min(SPREAD).mul_f64(self.fraction())
    }

    /// Between 0 and 1. Spreading load needs no better randomness than this (xorshift).
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}
