//! Services that are gone, hang, lie, stop half-way and come back.

use crate::fake::{Fake, Reply, id, image, is_private, lists};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use terok_podman::{BuildItem, BuildRequest, Context, Podman, Settings};
use terok_proto::Kind;

const SHORT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

fn impatient(fake: &Fake) -> Podman {
    let mut settings = fake.settings();
    settings.deadlines.read = SHORT;
    settings.deadlines.build_idle = SHORT;
    settings.deadlines.probe = SHORT;
    settings.limits.answer = 1 << 20;
    Podman::new(settings)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A handle whose events are heard, so that a list has been remembered.
async fn watched(fake: &Fake) -> Podman {
    watched_by(fake, fake.podman()).await
}

async fn watched_by(fake: &Fake, podman: Podman) -> Podman {
    let listening = podman.clone();
    tokio::spawn(async move { listening.watch().await });
    eventually("the list is remembered", async || {
        let before = fake.asked("/images/json");
        podman.images().await.unwrap();
        podman.images().await.unwrap();
        fake.asked("/images/json") == before && fake.listeners() == 1
    })
    .await;
    podman
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let podman = Podman::new(Settings::new(
        dir.path().join("own"),
        Some(dir.path()),
        false,
    ));
    for fault in [
        podman.images().await.unwrap_err(),
        podman.list_containers(false).await.unwrap_err(),
        podman.ping().await.unwrap_err(),
        podman.version().await.unwrap_err(),
        podman
            .build(BuildRequest::new(Context::Tar("".into())))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(fault.kind, Kind::PodmanUnavailable);
        assert!(
            fault
                .message
                .contains("podman/podman.sock`: does not exist"),
            "{fault}"
        );
        assert!(
            fault.data["hint"]
                .as_str()
                .unwrap()
                .contains("podman.socket")
        );
    }
    assert!(is_private(&dir.path().join("own")));
}

#[tokio::test]
async fn a_socket_without_a_listener_is_unavailable() {
    let mut fake = Fake::honest(1);
    fake.stop().await;
    let fault = fake.podman().images().await.unwrap_err();
    assert_eq!(fault.kind, Kind::PodmanUnavailable);
    assert!(fault.message.contains("nobody listens"), "{fault}");
}

#[tokio::test]
async fn a_program_that_is_no_podman_is_unavailable_and_not_started_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    for program in ["/bin/false", "/nonexistent/podman"] {
        let podman =
            Podman::new(Settings::new(dir.path().join("own"), None, false).with_program(program));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let podman = podman.clone();
                tokio::spawn(async move { podman.list_images().await })
            })
            .collect();
        for call in calls {
            assert_eq!(
                call.await.unwrap().unwrap_err().kind,
                Kind::PodmanUnavailable,
                "{program}"
            );
        }
    }
}

#[tokio::test]
async fn a_hanging_service_is_a_timeout_for_everybody_and_asked_once() {
    for reply in [
        Reply::Hang(Vec::new()),
        Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_vec()),
    ] {
        let fake = Fake::start(move |_| reply.clone());
        let podman = impatient(&fake);
        let readers: Vec<_> = (0..1000)
            .map(|_| {
                let podman = podman.clone();
                tokio::spawn(async move { podman.images().await })
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap_err().kind, Kind::PodmanTimeout);
        }
        assert_eq!(podman.images().await.unwrap_err().kind, Kind::PodmanTimeout);
        assert_eq!(fake.asked("/images/json"), 1);
        assert_eq!(
            podman.version().await.unwrap_err().kind,
            Kind::PodmanTimeout
        );
        // To a ping the head of the answer is the answer.
        let ping = podman.ping().await.unwrap_err().kind;
        assert!(
            matches!(ping, Kind::PodmanTimeout | Kind::PodmanError),
            "{ping:?}"
        );
    }
}

#[tokio::test]
async fn lies_are_errors_and_never_panics() {
    let json = |text: &str| Reply::Json(200, text.into());
    let raw = |text: &str| Reply::Cut(text.as_bytes().to_vec());
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for (reply, expected) in [
        (json("<html>"), Kind::PodmanError),
        (json(""), Kind::PodmanError),
        (json("{\"a\":1}"), Kind::PodmanError),
        (json("[{\"Id\":\"../../etc\"}]"), Kind::PodmanError),
        (json("[{\"Id\":-1}]"), Kind::PodmanError),
        (json(&"[".repeat(100_000)), Kind::PodmanError),
        (Reply::Json(500, "boom\u{1b}[31m".into()), Kind::PodmanError),
        (Reply::Json(404, "{}".into()), Kind::PodmanError),
        (raw(""), Kind::PodmanUnavailable),
        (raw("garbage\r\n\r\n"), Kind::PodmanError),
        (
            raw(&format!("{head}Content-Length: 100\r\n\r\n[")),
            Kind::PodmanUnavailable,
        ),
        (raw(&format!("{chunked}5\r\n[")), Kind::PodmanUnavailable),
        (
            Reply::Endless(
                chunked.clone().into(),
                format!("1000\r\n{}\r\n", " ".repeat(4096)).into(),
            ),
            Kind::PodmanError,
        ),
        (
            Reply::Endless(head.into(), b"X: y\r\n".repeat(100)),
            Kind::PodmanError,
        ),
    ] {
        let fake = Fake::start(move |_| reply.clone());
        let mut settings = fake.settings();
        settings.limits.answer = 1 << 20;
        let podman = Podman::new(settings);
        let fault = podman.images().await.unwrap_err();
        assert_eq!(fault.kind, expected, "{fault}");
        assert!(!fault.message.contains('\x1b'));
        podman.containers().await.unwrap_err();
        podman
            .image_usage()
            .await
            .map(|usage| assert!(usage.is_empty()))
            .unwrap_or_default();
        // podman-api, which would read for ever, goes through the relay.
        let through = [
            podman.version().await.map(|_| ()),
            podman.info().await.map(|_| ()),
            podman.image_history("x").await.map(|_| ()),
            podman.image_id("x").await.map(|_| ()),
        ];
        for fault in through.into_iter().filter_map(Result::err) {
            assert!(
                matches!(fault.kind, Kind::PodmanError | Kind::PodmanUnavailable),
                "{fault:?}"
            );
        }
        let build = podman
            .build(BuildRequest::new(Context::Tar("".into())))
            .await;
        if let Ok(build) = build {
            build.finish(|_| {}).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_thousand_readers_are_one_request_and_then_none() {
    let fake = Fake::honest(1);
    let podman = fake.podman();
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let podman = podman.clone();
            tokio::spawn(async move { podman.images().await.unwrap().len() })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 1);
    }
    assert_eq!(fake.asked("/images/json"), 1);

    let podman = watched(&fake).await;
    let before = fake.asked("/images/json");
    for _ in 0..1000 {
        podman.images().await.unwrap();
    }
    // The settling list may come in between, whoever reads.
    assert!(fake.asked("/images/json") <= before + 1);
}

#[tokio::test]
async fn an_event_makes_the_next_reader_ask() {
    let fake = Fake::honest(1);
    let podman = watched(&fake).await;
    let mut changed = podman.images_changed();
    changed.mark_unchanged();
    fake.behave(lists(2));
    fake.event(r#"{"Type":"image","Action":"tag"}"#);
    // Somebody is interested, so it is asked for without a reader.
    tokio::time::timeout(PATIENCE, changed.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(podman.images().await.unwrap().by_tag("x:2").is_some());

    fake.behave(lists(3));
    fake.event(r#"{"Type":"something","Action":"new"}"#);
    eventually("an unknown event is not overheard", async || {
        podman.images().await.unwrap().by_tag("x:3").is_some()
    })
    .await;
}

#[tokio::test]
async fn who_decides_does_not_wait_for_an_event() {
    let fake = Fake::honest(1);
    let podman = watched(&fake).await;
    // Another program changed something; the event is on its way.
    fake.behave(lists(2));
    assert!(podman.images().await.unwrap().by_id(&id(1)).is_some());
    let now = podman.images_now().await.unwrap();
    assert!(now.by_id(&id(1)).is_none() && now.by_id(&id(2)).is_some());
    let asked = fake.asked("/images/json");
    assert!(podman.images().await.unwrap().by_id(&id(2)).is_some());
    assert_eq!(fake.asked("/images/json"), asked);
}

#[tokio::test]
async fn a_restarted_service_is_found_and_nothing_old_is_served() {
    let mut fake = Fake::honest(1);
    let podman = watched(&fake).await;
    fake.stop().await;
    eventually("the loss is noticed", async || {
        podman.images().await.is_err()
    })
    .await;
    assert_eq!(
        podman.images().await.unwrap_err().kind,
        Kind::PodmanUnavailable
    );
    fake.behave(lists(2));
    fake.again();
    eventually("it is back", async || podman.images().await.is_ok()).await;
    assert!(podman.images().await.unwrap().by_tag("x:2").is_some());
    watched_by(&fake, podman).await;
}

#[tokio::test]
async fn a_connected_service_that_stops_answering_is_not_believed() {
    let fake = Fake::honest(1);
    let podman = watched_by(&fake, impatient(&fake)).await;
    fake.behave(|_| Reply::Hang(Vec::new()));
    eventually("the silence is noticed", async || {
        podman.images().await.is_err()
    })
    .await;
    assert_eq!(podman.images().await.unwrap_err().kind, Kind::PodmanTimeout);
    fake.behave(lists(2));
    eventually("it answers again", async || {
        podman
            .images()
            .await
            .is_ok_and(|images| images.by_id(&id(2)).is_some())
    })
    .await;
}

#[tokio::test]
async fn an_endless_event_ends_the_stream_and_costs_only_requests() {
    let fake = Fake::start(|request| {
        if request.contains("/events") {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            Reply::Endless(
                head.into(),
                format!("1000\r\n{}\r\n", "x".repeat(4096)).into(),
            )
        } else {
            Reply::Json(200, image(1))
        }
    });
    let podman = impatient(&fake);
    let listening = podman.clone();
    tokio::spawn(async move { listening.watch().await });
    podman.images().await.unwrap();
    eventually("it is tried again", async || {
        podman.images().await.unwrap();
        fake.asked("/events") >= 3
    })
    .await;
}

#[tokio::test]
async fn nothing_is_asked_before_somebody_asks() {
    let fake = Fake::honest(1);
    let podman = fake.podman();
    let listening = podman.clone();
    let watch = tokio::spawn(async move { listening.watch().await });
    tokio::task::yield_now().await;
    podman.list_images().await.unwrap();
    assert_eq!((fake.asked("/events"), fake.asked("_ping")), (0, 0));
    watch.abort();
}

#[tokio::test]
async fn a_build_that_breaks_off_is_no_build() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = "{\"stream\":\"STEP 1/2: FROM x\\n\"}\n";
    let begun = format!("{head}{:x}\r\n{line}\r\n", line.len());
    for (reply, expected) in [
        (Reply::Cut(begun.clone().into()), Kind::PodmanUnavailable),
        (Reply::Hang(begun.clone().into()), Kind::PodmanTimeout),
        (
            Reply::Cut(format!("{begun}0\r\n\r\n").into()),
            Kind::BuildFailed,
        ),
        (
            Reply::Endless(
                begun.into(),
                format!("1000\r\n{}\r\n", "x".repeat(4096)).into(),
            ),
            Kind::PodmanError,
        ),
    ] {
        let fake = Fake::start(move |_| reply.clone());
        let mut build = impatient(&fake)
            .build(BuildRequest::new(Context::files([])))
            .await
            .unwrap();
        let first = build.next().await.unwrap();
        assert!(
            matches!(
                first,
                Some(BuildItem::Step {
                    number: 1,
                    total: 2,
                    ..
                })
            ),
            "{first:?}"
        );
        let fault = build.next().await.unwrap_err();
        assert_eq!(fault.kind, expected, "{fault}");
        assert_eq!(build.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_change_through_this_handle_is_read_by_the_next_reader() {
    let fake = Fake::honest(1);
    let podman = watched(&fake).await;
    let gone = Arc::new(AtomicBool::new(false));
    fake.behave(move |request| {
        if request.starts_with("DELETE") {
            gone.store(true, Ordering::SeqCst);
            return Reply::Json(
                200,
                r#"{"Untagged":["localhost/x:1"],"Deleted":[],"Errors":[]}"#.into(),
            );
        }
        if gone.load(Ordering::SeqCst) {
            lists(2)(request)
        } else {
            lists(1)(request)
        }
    });
    assert_eq!(
        podman
            .remove_image("localhost/x:1")
            .await
            .unwrap()
            .unwrap()
            .untagged,
        ["localhost/x:1"]
    );
    assert!(podman.images().await.unwrap().by_tag("x:1").is_none());
    let fault = podman.remove_image("../../containers/x").await.unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
    assert_eq!(fake.asked("containers/x"), 0);
}
