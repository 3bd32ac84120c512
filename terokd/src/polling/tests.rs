//! Days of polling in an instant: the schedule is driven with moments that never come to pass.

use super::entry::Told;
use super::schedule::Schedule;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use terok_config::global::PollingKeys;
use terok_gate::{Contact, Lag};
use terok_proto::gate::{Relation, StalenessErrorKind};

const MINUTE: Duration = Duration::from_secs(60);

fn target(name: &str, host: &str, minutes: u64) -> Target {
    Target {
        gate_path: PathBuf::from(format!("/gates/{name}.git")),
        project_ids: vec![name.to_owned()],
        upstream_url: format!("https://{host}/{name}.git"),
        branch: Some("main".to_owned()),
        host: host.to_owned(),
        interval: MINUTE * u32::try_from(minutes).expect("minutes"),
        auto_sync: false,
        auto_sync_branches: Vec::new(),
    }
}

fn staleness(relation: Relation, upstream: &str) -> GateStalenessInfo {
    GateStalenessInfo {
        branch: Some("main".to_owned()),
        gate_head: Some("a".repeat(40)),
        upstream_head: Some(upstream.to_owned()),
        is_stale: relation != Relation::Equal,
        commits_behind: None,
        commits_ahead: None,
        last_checked: "2026-03-01T12:00:00Z".to_owned(),
        error: None,
        error_kind: None,
        relation,
    }
}

fn lag(branch: &str, upstream: &str) -> Lag {
    Lag {
        branch: branch.to_owned(),
        gate: Some("a".repeat(40)),
        upstream: Some(upstream.to_owned()),
    }
}

fn found(relation: Relation, upstream: &str) -> Outcome {
    let lagging = match relation {
        Relation::Behind | Relation::Diverged => vec![lag("main", upstream)],
        _ => Vec::new(),
    };
    Outcome {
        staleness: staleness(relation, upstream),
        lagging,
        failure: None,
    }
}

fn failed(kind: StalenessErrorKind, retry_after: Option<Duration>) -> Outcome {
    Outcome {
        staleness: GateStalenessInfo {
            error: Some("Could not reach upstream".to_owned()),
            error_kind: Some(kind),
            ..staleness(Relation::Unknown, "")
        },
        lagging: Vec::new(),
        failure: Some(Failure {
            kind,
            message: "no".to_owned(),
            contact: match kind {
                StalenessErrorKind::Unreachable | StalenessErrorKind::Timeout => {
                    Contact::Unanswered
                }
                _ => Contact::Answered,
            },
            retry_after,
        }),
    }
}

/// A schedule and the moment it believes in. Every poll takes no time unless a test holds it.
struct World {
    schedule: Schedule,
    now: Instant,
    start: Instant,
    polls: BTreeMap<String, Vec<Duration>>,
    told: Vec<(String, Told)>,
    /// Branches that auto-syncs find somebody else changing.
    left: Vec<String>,
}

impl World {
    fn new(targets: Vec<Target>, limits: PollingKeys) -> Self {
        Self::remembering(targets, limits, HashMap::new())
    }

    fn remembering(
        targets: Vec<Target>,
        limits: PollingKeys,
        remembered: HashMap<PathBuf, Row>,
    ) -> Self {
        let now = Instant::now();
        let mut schedule = Schedule::new(remembered, 7, Duration::ZERO);
        let targets = targets.into_iter().map(Arc::new).collect();
        schedule.reconfigure(targets, limits, now);
        Self {
            schedule,
            now,
            start: now,
            polls: BTreeMap::new(),
            told: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Lives through a stretch of time; `upstream` answers every poll at once.
    fn live(&mut self, stretch: Duration, mut upstream: impl FnMut(&Target, Duration) -> Outcome) {
        let end = self.now + stretch;
        loop {
            let (due, next) = self.schedule.take_due(self.now);
            let idle = due.is_empty();
            for due in due {
                let at = self.now - self.start;
                let name = due.target.project_ids.join("+");
                self.polls.entry(name.clone()).or_default().push(at);
                let gate = &due.target.gate_path;
                let settled = self
                    .schedule
                    .settle(gate, upstream(&due.target, at), self.now);
                self.told
                    .extend(settled.told.into_iter().map(|told| (name.clone(), told)));
                if let Some(branches) = settled.auto_sync {
                    self.told
                        .push((name.clone(), Told::AutoSyncStarted(branches)));
                    let synced = Synced {
                        success: true,
                        left: self.left.clone(),
                    };
                    self.schedule.auto_synced(gate, &synced, self.now);
                }
                self.schedule.finished(gate, self.now);
            }
            match next {
                _ if !idle => {}
                Some(next) if next <= end => self.now = next,
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
    }

    fn count(&self, name: &str) -> usize {
        self.polls.get(name).map_or(0, Vec::len)
    }

    fn stale(&self) -> usize {
        self.told
            .iter()
            .filter(|(_, told)| matches!(told, Told::Stale(_)))
            .count()
    }
}

#[test]
fn a_day_of_two_hundred_gates() {
    let targets = (0..200)
        .map(|n| target(&format!("p{n}"), &format!("h{}", n % 3), 5))
        .collect();
    let mut world = World::new(targets, PollingKeys::default());
    world.live(MINUTE * 5, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.polls.len(), 200, "everybody once within one interval");
    let firsts: Vec<Duration> = world.polls.values().map(|at| at[0]).collect();
    assert!(
        firsts.iter().all(|at| *at <= MINUTE),
        "within the first minute"
    );
    let early = firsts.iter().filter(|at| **at < MINUTE / 2).count();
    assert!(
        (60..=140).contains(&early),
        "spread evenly: {early} of 200 in the first half"
    );
    world.live(MINUTE * (24 * 60 - 5), |_, _| found(Relation::Equal, "b"));
    for (name, at) in &world.polls {
        // 288 intervals of 5 min ± 15 %.
        assert!((245..=345).contains(&at.len()), "{name}: {}", at.len());
        for pair in at.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(
                gap >= MINUTE * 5 * 84 / 100 && gap <= MINUTE * 5 * 116 / 100,
                "{gap:?}"
            );
        }
    }
    assert!(world.told.is_empty(), "nothing happened");
}

#[test]
fn no_more_at_once_than_allowed() {
    let targets = (0..30)
        .map(|n| target(&format!("p{n}"), &format!("h{}", n % 5), 5))
        .collect();
    let limits = PollingKeys::default();
    let mut world = World::new(targets, limits);
    let late = world.now + MINUTE * 2;
    let (first, _) = world.schedule.take_due(late);
    assert_eq!(first.len(), 8, "max_concurrent");
    let mut hosts: HashMap<&str, usize> = HashMap::new();
    for due in &first {
        *hosts.entry(due.target.host.as_str()).or_default() += 1;
    }
    assert!(hosts.values().all(|n| *n <= 2), "max_per_host: {hosts:?}");
    assert!(
        world.schedule.take_due(late).0.is_empty(),
        "no slot is free"
    );
    let gate = first[0].target.gate_path.clone();
    world
        .schedule
        .settle(&gate, found(Relation::Equal, "b"), late);
    world.schedule.finished(&gate, late);
    assert_eq!(
        world.schedule.take_due(late).0.len(),
        1,
        "one slot is free again"
    );
    // Whoever asks in person is not held up.
    let waiting = world
        .schedule
        .status(None, late)
        .into_iter()
        .find(|state| state.next_poll_at.is_some() && state.last_poll_at.is_none())
        .expect("somebody waits");
    let (tell, _told) = oneshot::channel();
    let gate = Path::new(&waiting.gate_path);
    assert!(world.schedule.poll_now(gate, true, late, tell));
    assert_eq!(world.schedule.take_due(late).0.len(), 1, "forced");
}

#[test]
fn whoever_asks_for_everything_keeps_to_the_limits() {
    let targets = (0..40).map(|n| target(&n.to_string(), "h", 60)).collect();
    let mut world = World::new(targets, PollingKeys::default());
    let now = world.now;
    world.live(MINUTE * 2, |_, _| found(Relation::Equal, "a"));
    let gates: Vec<_> = world.schedule.targets();
    let mut waiting = Vec::new();
    for target in &gates {
        let (tell, told) = oneshot::channel();
        let now = now + MINUTE * 2;
        assert!(world.schedule.poll_now(&target.gate_path, false, now, tell));
        waiting.push(told);
    }
    let now = now + MINUTE * 2;
    // A host that is down is no reason to leave somebody waiting for the next probe.
    let mut at_once = world.schedule.take_due(now).0;
    let most = PollingKeys::default().max_per_host;
    assert_eq!(at_once.len(), most);
    let mut polled = 0;
    while let Some(due) = at_once.pop() {
        let gate = due.target.gate_path.clone();
        world
            .schedule
            .settle(&gate, failed(StalenessErrorKind::Timeout, None), now);
        world.schedule.finished(&gate, now);
        polled += 1;
        at_once.extend(world.schedule.take_due(now).0);
        assert!(at_once.len() <= most);
    }
    assert_eq!(polled, 40);
    for mut told in waiting {
        assert!(told.try_recv().is_ok(), "everybody is answered");
    }
}

#[test]
fn a_dead_host_is_asked_rarely_and_told_once() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    world.live(MINUTE * 60, |_, _| {
        failed(StalenessErrorKind::Unreachable, None)
    });
    assert!((2..=6).contains(&world.count("a")), "{}", world.count("a"));
    assert_eq!(world.told.len(), 1, "the first failure of the streak");
    world.live(MINUTE * 60, |_, _| {
        failed(StalenessErrorKind::AuthFailed, None)
    });
    assert_eq!(world.told.len(), 2, "and another when the kind changes");
    // At the cap of two hours from now on.
    let before = world.count("a");
    world.live(MINUTE * 60 * 24, |_, _| {
        failed(StalenessErrorKind::AuthFailed, None)
    });
    assert!(
        (9..=15).contains(&(world.count("a") - before)),
        "{}",
        world.count("a")
    );
    world.schedule.forget_failures(None, world.now);
    let before = world.count("a");
    world.live(MINUTE, |_, _| found(Relation::Equal, "b"));
    assert_eq!(
        world.count("a"),
        before + 1,
        "tried soon once the cause is cured"
    );
}

#[test]
fn a_host_that_is_down_is_probed_by_one() {
    let targets = (0..20)
        .map(|n| target(&format!("p{n}"), "down", 5))
        .collect();
    let mut world = World::new(targets, PollingKeys::default());
    world.live(MINUTE * 60, |_, _| {
        failed(StalenessErrorKind::Timeout, None)
    });
    let attempts: usize = world.polls.values().map(Vec::len).sum();
    assert!(
        attempts <= 20,
        "twenty gates, one dead host, one hour: {attempts} attempts"
    );
    // Back again: one success opens the way for all.
    world.polls.clear();
    world.live(MINUTE * 60 * 5, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.polls.len(), 20);
}

#[test]
fn one_that_never_works_does_not_keep_a_host_down() {
    let mut targets: Vec<Target> = (0..5).map(|n| target(&format!("p{n}"), "h", 5)).collect();
    targets.push(target("slow", "h", 5));
    let mut world = World::new(targets, PollingKeys::default());
    world.live(MINUTE * 60 * 12, |target, _| {
        if target.project_ids == ["slow"] {
            return failed(StalenessErrorKind::Timeout, None);
        }
        found(Relation::Equal, "b")
    });
    // Nobody answers any more, and it is the third who is told.
    let now = world.now;
    for name in ["p0", "p1", "slow"] {
        let gate = PathBuf::from(format!("/gates/{name}.git"));
        let timeout = failed(StalenessErrorKind::Timeout, None);
        world.schedule.settle(&gate, timeout, now);
    }
    let before: usize = (0..5).map(|n| world.count(&format!("p{n}"))).sum();
    world.live(MINUTE * 6, |_, _| found(Relation::Equal, "b"));
    let after: usize = (0..5).map(|n| world.count(&format!("p{n}"))).sum();
    assert!(after > before, "somebody looks within one interval");
    world.live(MINUTE * 6, |_, _| found(Relation::Equal, "b"));
    let all: usize = (0..5).map(|n| world.count(&format!("p{n}"))).sum();
    assert!(all >= before + 4, "and then the others do");
}

#[test]
fn a_server_that_says_when_is_obeyed() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    let hour = MINUTE * 60;
    world.live(hour * 2, |_, at| {
        if at < MINUTE * 2 {
            failed(StalenessErrorKind::Unreachable, Some(hour))
        } else {
            found(Relation::Equal, "b")
        }
    });
    let at = &world.polls["a"];
    assert!(at[1] - at[0] >= hour, "{at:?}");
}

#[test]
fn stale_is_told_once_per_upstream_head() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    world.live(MINUTE * 60, |_, _| found(Relation::Behind, "b"));
    assert_eq!(world.stale(), 1);
    world.live(MINUTE * 60, |_, _| found(Relation::Diverged, "c"));
    assert_eq!(world.stale(), 2, "upstream moved on");
    world.live(MINUTE * 60, |_, _| found(Relation::Ahead, "c"));
    assert_eq!(world.stale(), 2, "a gate that is ahead is not stale");
    assert!(matches!(world.told.last(), Some((_, Told::Current(_)))));
    assert_eq!(world.told.len(), 3);
}

#[test]
fn a_restart_repeats_no_news() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    world.live(MINUTE * 30, |_, _| found(Relation::Behind, "b"));
    let row = world
        .schedule
        .last_known(Path::new("/gates/a.git"))
        .expect("remembered");
    let remembered = HashMap::from([(PathBuf::from("/gates/a.git"), row)]);
    let mut again = World::remembering(
        vec![target("a", "h", 5)],
        PollingKeys::default(),
        remembered,
    );
    again.live(MINUTE * 30, |_, _| found(Relation::Behind, "b"));
    assert!(again.told.is_empty(), "{:?}", again.told);
    again.live(MINUTE * 30, |_, _| found(Relation::Equal, "b"));
    assert!(matches!(again.told[..], [(_, Told::Current(_))]));
}

#[test]
fn auto_sync_cools_down_and_does_not_repeat_itself() {
    let wants = Target {
        auto_sync: true,
        auto_sync_branches: vec!["main".to_owned()],
        ..target("a", "h", 1)
    };
    let mut world = World::new(vec![wants], PollingKeys::default());
    let syncs = |world: &World| {
        world
            .told
            .iter()
            .filter(|(_, told)| matches!(told, Told::AutoSyncStarted(_)))
            .count()
    };
    world.live(MINUTE * 60, |_, _| found(Relation::Ahead, "b"));
    assert_eq!(syncs(&world), 0, "a gate that is ahead needs no sync");
    world.live(MINUTE * 60, |_, _| Outcome {
        lagging: vec![lag("other", "d")],
        ..found(Relation::Equal, "b")
    });
    assert_eq!(syncs(&world), 0, "another branch");
    // A rewrite that waits for a human does not make it try for ever.
    world.live(MINUTE * 60, |_, _| found(Relation::Diverged, "c"));
    assert_eq!(syncs(&world), 1);
    // A branch that somebody was just changing is worth another try.
    world.told.clear();
    world.left = vec!["main".to_owned()];
    world.live(MINUTE * 60, |_, _| found(Relation::Behind, "d"));
    assert!((9..=13).contains(&syncs(&world)), "{}", syncs(&world));
    world.left.clear();
    world.live(MINUTE * 60, |_, _| found(Relation::Behind, "d"));
    world.told.clear();
    // An upstream that never rests is synced every five minutes, not every minute.
    let mut n = 0;
    world.live(MINUTE * 60, |_, _| {
        n += 1;
        found(Relation::Behind, &format!("head{n}"))
    });
    assert!((9..=13).contains(&syncs(&world)), "{}", syncs(&world));
    // What was brought and is behind again, say for a backup that was restored, is brought again.
    world.live(MINUTE * 60, |_, _| found(Relation::Behind, "e"));
    world.live(MINUTE * 60, |_, _| found(Relation::Equal, "e"));
    world.told.clear();
    world.live(MINUTE * 60, |_, _| found(Relation::Behind, "e"));
    assert_eq!(syncs(&world), 1);
}

#[test]
fn what_happens_to_a_gate_is_no_poll() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    let gate = PathBuf::from("/gates/a.git");
    // Pushed to every minute, it is polled all the same.
    for _ in 0..60 {
        world.live(MINUTE, |_, _| found(Relation::Equal, "b"));
        let settled = world
            .schedule
            .observe(&gate, &staleness(Relation::Ahead, "b"));
        assert!(settled.told.is_empty() && settled.auto_sync.is_none());
    }
    assert!((10..=15).contains(&world.count("a")), "{:?}", world.polls);

    // What failed has failed, and whoever waits for upstream's answer waits.
    world.live(MINUTE * 6, |_, _| failed(StalenessErrorKind::Timeout, None));
    let (tell, mut told) = oneshot::channel();
    assert!(world.schedule.poll_now(&gate, false, world.now, tell));
    let before = world.schedule.status(None, world.now).remove(0);
    let known = staleness(Relation::Diverged, "b");
    world.schedule.observe(&gate, &known);
    assert!(told.try_recv().is_err());
    let after = world.schedule.status(None, world.now).remove(0);
    assert_eq!(
        (after.staleness, after.consecutive_failures),
        (Some(known), 1)
    );
    assert_eq!(after.last_success_at, before.last_success_at);
    assert_eq!(after.last_error, before.last_error);
    assert_eq!(world.schedule.take_due(world.now).0.len(), 1, "still due");

    // What it says of the gate is news all the same.
    let mut tell = |relation| {
        let settled = world.schedule.observe(&gate, &staleness(relation, "c"));
        (settled.told, settled.projects, settled.news)
    };
    let (told, projects, news) = tell(Relation::Behind);
    assert!(matches!(told[..], [Told::Stale(_)]) && news);
    assert_eq!(projects, ["a"]);
    assert!(matches!(tell(Relation::Diverged), (told, _, false) if told.is_empty()));
    assert!(matches!(tell(Relation::Equal).0[..], [Told::Current(_)]));

    // Nobody is told of a gate that nobody polls; it is remembered.
    let elsewhere = Path::new("/gates/b.git");
    let settled = world
        .schedule
        .observe(elsewhere, &staleness(Relation::Behind, "b"));
    assert!(settled.told.is_empty() && settled.row.is_some());
    let known = world.schedule.last_known(elsewhere).expect("remembered");
    assert_eq!(known.staleness, Some(staleness(Relation::Behind, "b")));
}

#[test]
fn a_vanished_repository_is_no_dead_host() {
    let vanished = (0..5).map(|n| target(&format!("gone{n}"), "h", 5));
    for contact in [Contact::Answered, Contact::NotTried] {
        let mut world = World::new(
            vanished.clone().chain([target("well", "h", 5)]).collect(),
            PollingKeys::default(),
        );
        world.live(MINUTE * 60 * 24, |target, _| {
            if target.project_ids == ["well"] {
                return found(Relation::Equal, "b");
            }
            let mut outcome = failed(StalenessErrorKind::Unreachable, None);
            outcome.failure.as_mut().expect("a failure").contact = contact;
            outcome
        });
        let [well, gone] = ["well", "gone0"].map(|name| world.count(name));
        assert!((240..=350).contains(&well), "{contact:?}: {well}");
        assert!(gone < 30, "{contact:?}: {gone}");
    }
}

#[test]
fn who_cannot_ask_says_nothing_of_the_host() {
    let mut down: Vec<Target> = (0..20)
        .map(|n| target(&format!("p{n}"), "down", 5))
        .collect();
    down.extend((0..20).map(|n| target(&format!("keyless{n}"), "down", 1)));
    let mut world = World::new(down, PollingKeys::default());
    world.live(MINUTE * 60, |target, _| {
        let mut outcome = failed(StalenessErrorKind::Timeout, None);
        if target.project_ids[0].starts_with("keyless") {
            outcome = failed(StalenessErrorKind::Unreachable, None);
            outcome.failure.as_mut().expect("a failure").contact = Contact::NotTried;
        }
        outcome
    });
    let attempts: usize = (0..20).map(|n| world.count(&format!("p{n}"))).sum();
    assert!(
        attempts <= 20,
        "one dead host, one hour: {attempts} attempts"
    );
}

#[test]
fn a_changed_project_takes_effect_at_once() {
    let mut world = World::new(vec![target("a", "h", 10_000)], PollingKeys::default());
    world.live(MINUTE * 10, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.count("a"), 1);
    let sooner = vec![Arc::new(target("a", "h", 5))];
    world
        .schedule
        .reconfigure(sooner, PollingKeys::default(), world.now);
    world.live(MINUTE, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.count("a"), 2, "the interval of days is forgotten");
    world
        .schedule
        .reconfigure(Vec::new(), PollingKeys::default(), world.now);
    world.live(MINUTE * 60, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.count("a"), 2, "no longer polled");
    assert!(world.schedule.status(None, world.now).is_empty());
}

#[test]
fn after_a_nap_everybody_has_one_turn() {
    let targets = (0..10)
        .map(|n| target(&format!("p{n}"), &format!("h{n}"), 60))
        .collect();
    let mut world = World::new(targets, PollingKeys::default());
    world.live(MINUTE * 10, |_, _| found(Relation::Equal, "b"));
    world.polls.clear();
    // Eight hours asleep: the monotonic clock stood still.
    world.schedule.notice_sleep(MINUTE * 60 * 8, world.now);
    world.live(MINUTE, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.polls.len(), 10);
    assert!(world.polls.values().all(|at| at.len() == 1), "once each");
}

#[test]
fn a_pause_is_a_pause() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    world.schedule.pause(true, world.now);
    world.live(MINUTE * 60, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.count("a"), 0);
    let (tell, _told) = oneshot::channel();
    let gate = Path::new("/gates/a.git");
    assert!(!world.schedule.poll_now(gate, true, world.now, tell));
    assert_eq!(world.schedule.status(None, world.now)[0].next_poll_at, None);
    world.schedule.pause(false, world.now);
    world.live(MINUTE * 2, |_, _| found(Relation::Equal, "b"));
    assert_eq!(world.count("a"), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever upstreams do: nobody is forgotten, nobody is asked more often than every interval allows.
    #[test]
    fn nobody_starves_and_nobody_is_hammered(answers in proptest::collection::vec(0..5_u8, 1..40)) {
        let targets = (0..6).map(|n| target(&format!("p{n}"), &format!("h{}", n % 2), 5)).collect();
        let mut world = World::new(targets, PollingKeys::default());
        let mut turn = 0;
        world.live(MINUTE * 60 * 12, |_, _| {
            turn += 1;
            match answers[turn % answers.len()] {
                0 => failed(StalenessErrorKind::Unreachable, None),
                1 => failed(StalenessErrorKind::AuthFailed, None),
                2 => found(Relation::Behind, &format!("{turn}")),
                3 => failed(StalenessErrorKind::Timeout, Some(MINUTE)),
                _ => found(Relation::Equal, "b"),
            }
        });
        for (name, at) in &world.polls {
            prop_assert!(at.len() <= 12 * 60 / 4, "{}: {}", name, at.len());
        }
        prop_assert_eq!(world.polls.len(), 6);
        // Once upstream is well, everybody is current within the longest wait.
        world.polls.clear();
        world.live(MINUTE * 60 * 6, |_, _| found(Relation::Equal, "b"));
        prop_assert_eq!(world.polls.len(), 6);
    }
}

#[test]
fn what_a_restart_must_not_forget_is_news() {
    let mut world = World::new(vec![target("a", "h", 5)], PollingKeys::default());
    let gate = PathBuf::from("/gates/a.git");
    let mut settle = |outcome| world.schedule.settle(&gate, outcome, world.now).news;
    assert!(!settle(found(Relation::Equal, "a")), "only the time is new");
    assert!(settle(found(Relation::Behind, "b")), "it was told");
    assert!(!settle(found(Relation::Behind, "b")), "it was told before");
    assert!(settle(found(Relation::Behind, "c")));
    assert!(settle(failed(StalenessErrorKind::Timeout, None)));
    assert!(settle(failed(StalenessErrorKind::Timeout, None)), "counted");
    assert!(settle(found(Relation::Equal, "c")));
    assert!(!settle(found(Relation::Equal, "c")));
}

#[tokio::test]
async fn what_is_put_aside_is_written_with_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("state.db"))
        .await
        .expect("a store");
    let memory = Memory::new(store);
    let row = |error: &str| Row {
        last_error: Some(error.to_owned()),
        ..Row::default()
    };
    let [a, b] = ["/a", "/b"].map(Path::new);
    assert!(memory.put_aside(a, row("1")), "somebody has to write it");
    assert!(!memory.put_aside(a, row("2")), "somebody will");
    assert!(memory.load().await.expect("rows").is_empty());
    memory.save(b, &row("3")).await.expect("saved");
    let known = memory.load().await.expect("rows");
    assert_eq!((&known[a], &known[b]), (&row("2"), &row("3")));

    assert!(!memory.put_aside(a, row("4")), "still expected");
    memory.write_aside().await.expect("written");
    assert_eq!(memory.load().await.expect("rows")[a], row("4"));
    assert!(memory.put_aside(a, row("5")), "a new round");
    memory.forget(a).await.expect("forgotten");
    memory.write_aside().await.expect("written");
    assert!(!memory.load().await.expect("rows").contains_key(a));
}
