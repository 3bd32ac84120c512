use super::*;

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
