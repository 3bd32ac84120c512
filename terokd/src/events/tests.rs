use super::*;
use proptest::prelude::*;

fn draft(project: &str) -> Draft {
    Draft::new(EventKind::ProjectAdded).project(project)
}

async fn kinds(subscription: &mut Subscription, n: usize) -> Vec<(EventKind, u64)> {
    let mut out = Vec::new();
    for _ in 0..n {
        let event = subscription.next().await.expect("the bus lives");
        out.push((event.event.kind, event.event.seq));
    }
    out
}

#[tokio::test]
async fn readers_see_what_their_filter_wants_in_order() {
    let bus = Bus::new();
    let filter = Filter {
        projects: Some(["b".to_owned()].into()),
        kinds: None,
    };
    let mut reader = bus.subscribe(filter, Start::Now);
    for project in ["a", "b", "a", "b"] {
        bus.publish(draft(project));
    }
    assert_eq!(
        kinds(&mut reader, 2).await,
        [(EventKind::ProjectAdded, 2), (EventKind::ProjectAdded, 4)]
    );
}

#[tokio::test]
async fn replay_resumes_after_the_last_known_event() {
    let bus = Bus::new();
    (0..5).for_each(|_| {
        bus.publish(draft("a"));
    });
    let start = Start::Since {
        epoch: bus.epoch().to_owned(),
        seq: 3,
    };
    let mut reader = bus.subscribe(Filter::default(), start);
    assert_eq!(
        kinds(&mut reader, 2).await,
        [(EventKind::ProjectAdded, 4), (EventKind::ProjectAdded, 5)]
    );
}

#[tokio::test]
async fn what_cannot_be_replayed_is_told_as_a_gap() {
    let bus = Bus::new();
    (0..RING + 10).for_each(|_| {
        bus.publish(draft("a"));
    });
    let lost = Start::Since {
        epoch: bus.epoch().to_owned(),
        seq: 5,
    };
    let mut reader = bus.subscribe(Filter::default(), lost);
    assert_eq!(
        kinds(&mut reader, 2).await,
        [
            (EventKind::Gap, RING as u64 + 10),
            (EventKind::ProjectAdded, 11)
        ]
    );
    let mut other = bus.subscribe(
        Filter::default(),
        Start::Since {
            epoch: "other".into(),
            seq: 1,
        },
    );
    bus.publish(draft("a"));
    let next = RING as u64 + 10;
    assert_eq!(
        kinds(&mut other, 2).await,
        [(EventKind::Gap, next), (EventKind::ProjectAdded, next + 1)]
    );
}

#[tokio::test]
async fn a_stalled_reader_learns_how_much_it_missed_and_goes_on() {
    let bus = Bus::new();
    let mut reader = bus.subscribe(Filter::default(), Start::Now);
    (0..RING + 7).for_each(|_| {
        bus.publish(draft("a"));
    });
    let first = reader.next().await.expect("the bus lives");
    assert_eq!(
        (first.event.kind, &first.event.data),
        (EventKind::Lagged, &json!({"missed": 7}))
    );
    assert_eq!(kinds(&mut reader, 1).await, [(EventKind::ProjectAdded, 8)]);
}

#[tokio::test]
async fn nothing_comes_between_a_snapshot_and_the_next_event() {
    let bus = Bus::new();
    let state = Arc::new(Mutex::new(0));
    let writer = {
        let (bus, state) = (bus.clone(), Arc::clone(&state));
        std::thread::spawn(move || {
            for _ in 0..2_000 {
                bus.commit(|publisher| {
                    *state.lock().expect("state") += 1;
                    publisher.publish(draft("a"))
                });
            }
        })
    };
    for _ in 0..50 {
        let state = Arc::clone(&state);
        let snapshot = Start::Snapshot(Box::new(move || json!(*state.lock().expect("state"))));
        let mut reader = bus.subscribe(Filter::default(), snapshot);
        let first = reader.next().await.expect("the bus lives");
        assert_eq!(first.event.data, json!(first.event.seq));
    }
    writer.join().expect("writer");
}

#[tokio::test]
async fn the_ring_is_bounded_by_its_text_too() {
    let bus = Bus::new();
    let mut reader = bus.subscribe(Filter::default(), Start::Now);
    let large = "x".repeat(1 << 20);
    (0..40).for_each(|_| {
        bus.publish(draft("a").data(large.clone()));
    });
    let held = bus.ring().bytes;
    assert!(held <= RING_BYTES, "{held}");
    let first = reader.next().await.expect("the bus lives");
    assert_eq!(first.event.kind, EventKind::Lagged);
    let missed = first.event.data["missed"].as_u64().expect("a number");
    assert!((24..40).contains(&missed), "{missed}");
    assert_eq!(
        kinds(&mut reader, 1).await,
        [(EventKind::ProjectAdded, missed + 1)]
    );
    // A single event may be larger than all the room there is.
    bus.publish(draft("a").data("x".repeat(RING_BYTES + 1)));
    assert_eq!(bus.ring().events.len(), 1);
}

#[tokio::test]
async fn replay_ends_where_it_began_to_be_told() {
    let bus = Bus::new();
    bus.publish(draft("a"));
    let start = |seq| Start::Since {
        epoch: bus.epoch().to_owned(),
        seq,
    };
    let mut current = bus.subscribe(Filter::default(), start(1));
    let mut ahead = bus.subscribe(Filter::default(), start(7));
    bus.publish(draft("a"));
    assert_eq!(kinds(&mut current, 1).await, [(EventKind::ProjectAdded, 2)]);
    // A number from the future is none that was ever told.
    assert_eq!(
        kinds(&mut ahead, 2).await,
        [(EventKind::Gap, 1), (EventKind::ProjectAdded, 2)]
    );
}

#[test]
fn epochs_differ() {
    let (one, two) = (Bus::new(), Bus::new());
    assert_ne!(one.epoch(), two.epoch());
    assert_eq!(one.epoch().len(), 32);
    assert!(one.epoch().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[tokio::test]
async fn a_commit_that_publishes_nothing_wakes_nobody() {
    let bus = Bus::new();
    let mut reader = bus.subscribe(Filter::default(), Start::Now);
    bus.commit(|_| ());
    let mut next = Box::pin(reader.next());
    assert!(futures_util::poll!(&mut next).is_pending());
    bus.publish(draft("a"));
    assert_eq!(next.await.expect("the bus lives").event.seq, 1);
}

/// Four publishers, one reader that keeps up and one that stands still until they are done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_slows_nobody() {
    const EACH: u64 = 3_000;
    let bus = Bus::new();
    let mut stalled = bus.subscribe(Filter::default(), Start::Now);
    let mut lively = bus.subscribe(Filter::default(), Start::Now);
    let publishers: Vec<_> = (0..4)
        .map(|_| {
            let bus = bus.clone();
            std::thread::spawn(move || {
                (0..EACH).for_each(|_| {
                    bus.publish(draft("a"));
                });
            })
        })
        .collect();
    assert_eq!(account(&mut lively, 0, 4 * EACH).await, 4 * EACH);
    for publisher in publishers {
        publisher.join().expect("publisher");
    }
    assert_eq!(account(&mut stalled, 0, 4 * EACH).await, 4 * EACH);
}

/// Reads up to `last`: every number follows the one before, or a lag accounts for those between.
async fn account(reader: &mut Subscription, from: u64, last: u64) -> u64 {
    let mut position = from;
    while position < last {
        let event = tokio::time::timeout(std::time::Duration::from_secs(60), reader.next())
            .await
            .expect("an event within the deadline")
            .expect("the bus lives");
        position = match event.event.kind {
            EventKind::Lagged => {
                let missed = event.event.data["missed"].as_u64().expect("a number");
                assert!(missed > 0);
                assert_eq!(event.event.seq, position + missed);
                event.event.seq
            }
            _ => {
                assert_eq!(event.event.seq, position + 1);
                event.event.seq
            }
        };
    }
    position
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u16),
    Read(u16),
    Subscribe { back: u16, same_epoch: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u16..3_000).prop_map(Step::Publish),
        3 => (0u16..2_000).prop_map(Step::Read),
        1 => (0u16..9_000, any::<bool>())
            .prop_map(|(back, same_epoch)| Step::Subscribe { back, same_epoch }),
    ];
    proptest::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However publishing and reading take turns, numbers rise, and only a gap or a lag skips any.
    #[test]
    fn numbers_rise_and_only_gap_or_lag_skips_any(steps in steps()) {
        let bus = Bus::new();
        let mut readers = vec![(bus.subscribe(Filter::default(), Start::Now), 0u64)];
        for step in steps {
            match step {
                Step::Publish(n) => (0..n).for_each(|_| {
                    bus.publish(draft("a"));
                }),
                Step::Read(n) => {
                    for (reader, position) in &mut readers {
                        for _ in 0..n {
                            if !check_next(reader, position)? {
                                break;
                            }
                        }
                    }
                }
                Step::Subscribe { back, same_epoch } => {
                    let seq = bus.seq().saturating_sub(u64::from(back));
                    let epoch = if same_epoch { bus.epoch().to_owned() } else { "other".to_owned() };
                    let start = Start::Since { epoch, seq };
                    let position = if same_epoch { seq } else { u64::MAX };
                    readers.push((bus.subscribe(Filter::default(), start), position));
                }
            }
        }
        for (reader, position) in &mut readers {
            while check_next(reader, position)? {}
            prop_assert!(*position == bus.seq() || *position == u64::MAX);
        }
    }
}

/// Reads one event if there is one. A position of `u64::MAX` stands for a reader who has to be told a gap first.
fn check_next(reader: &mut Subscription, position: &mut u64) -> Result<bool, TestCaseError> {
    let Some(Some(event)) = futures_util::FutureExt::now_or_never(reader.next()) else {
        return Ok(false);
    };
    let event = &event.event;
    match event.kind {
        EventKind::Gap => {
            let resumes = event.data["resumes_after"].as_u64();
            let resumes = resumes.ok_or_else(|| TestCaseError::fail("no resumes_after"))?;
            prop_assert!(*position == u64::MAX || resumes > *position);
            *position = resumes;
        }
        EventKind::Lagged => {
            let missed = event.data["missed"].as_u64();
            prop_assert_eq!(missed.map(|missed| missed + *position), Some(event.seq));
            *position = event.seq;
        }
        _ => {
            prop_assert_eq!(event.seq, *position + 1);
            *position = event.seq;
        }
    }
    Ok(true)
}
