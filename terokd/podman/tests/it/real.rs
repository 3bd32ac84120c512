//! Real Podman. `run` starts these; by hand: `tests/env/podman-test-env --base-image -- PROGRAM --ignored`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use terok_podman::{
    BuildItem, BuildNetwork, BuildRequest, ContainerSpec, ContainerState, Context, Network, Podman,
    Settings,
};
use terok_proto::Kind;

const BASE: &str = "localhost/terok-test-base:latest";
const PATIENCE: Duration = Duration::from_secs(60);

/// The service that the environment has started.
fn podman(dir: &Path) -> Podman {
    let socket = std::env::var("PODMAN_SOCK").expect("run by podman-test-env");
    Podman::new(
        Settings::new(dir, None, false)
            .with_container_host(&format!("unix://{socket}"))
            .unwrap(),
    )
}

/// No service yet, and Podman's program to start one.
fn own(dir: &Path) -> Podman {
    Podman::new(Settings::new(dir.join("podman"), Some(dir), false).with_program(program()))
}

fn program() -> PathBuf {
    terok_tests::programs::find("podman").expect("podman")
}

fn dockerfile(text: &str) -> Context {
    Context::files([
        ("Dockerfile", text.as_bytes(), false),
        ("x", b"hi".as_slice(), false),
    ])
}

fn request(tag: &str, steps: &str) -> BuildRequest {
    let mut request = BuildRequest::new(dockerfile(&format!("FROM {BASE}\n{steps}\n")));
    request.tags = vec![tag.to_owned()];
    request
}

/// Processes whose command line holds the text.
fn processes(text: &str) -> usize {
    let ours = |entry: std::io::Result<std::fs::DirEntry>| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line)
            .replace('\0', " ")
            .contains(text)
            .then_some(())
    };
    std::fs::read_dir("/proc").unwrap().filter_map(ours).count()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn it_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let version = podman.version().await.unwrap();
    assert!(
        version.starts_with(|c: char| c.is_ascii_digit()),
        "{version}"
    );
    assert_eq!(podman.ping().await.unwrap(), version);
    let info = podman.info().await.unwrap();
    assert_eq!(info.rootless, !nix::unistd::geteuid().is_root());
    assert!(
        info.graph_root.is_absolute() && !info.runtime.is_empty(),
        "{info:?}"
    );
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn images_are_built_cached_named_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let mut build = request("localhost/lab:1", "ARG WHO\nRUN echo hello $WHO\nCOPY x /x");
    build.tags.push("localhost/lab:2".into());
    build.labels = BTreeMap::from([("terokd.layer".into(), "l\"0,=& ".into())]);
    build.build_args = BTreeMap::from([("WHO".into(), "wo rld&%".into())]);

    let mut items = Vec::new();
    let built = podman
        .build(build.clone())
        .await
        .unwrap()
        .finish(|item| items.push(item))
        .await
        .unwrap();
    assert!(!built.cached);
    assert!(
        items.contains(&BuildItem::Log("hello wo rld&%".into())),
        "{items:?}"
    );
    let steps = items
        .iter()
        .filter(|item| matches!(item, BuildItem::Step { total: 5, .. }))
        .count();
    assert!(
        steps == 5
            || items
                .iter()
                .any(|item| matches!(item, BuildItem::Step { total: 4, .. })),
        "{items:?}"
    );

    let images = podman.list_images().await.unwrap();
    let image = images.by_tag("lab:2").unwrap();
    assert_eq!(
        (&image.id, image.labels["terokd.layer"].as_str()),
        (&built.image_id, "l\"0,=& ")
    );
    assert!(image.size > 1_000_000 && image.parent.is_some() && !image.dangling);

    let again = podman
        .build(build)
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap();
    assert_eq!(
        (again.image_id.as_str(), again.cached),
        (built.image_id.as_str(), true)
    );

    let history = podman
        .image_history("localhost/lab:1")
        .await
        .unwrap()
        .unwrap();
    assert!(
        history.iter().any(|entry| entry.comment.contains(BASE)),
        "{history:?}"
    );
    assert_eq!(
        podman.image_history("localhost/nope:1").await.unwrap(),
        None
    );
    assert_eq!(
        podman.image_id("localhost/lab:1").await.unwrap(),
        Some(built.image_id.clone())
    );
    assert_eq!(podman.image_id("localhost/nope:1").await.unwrap(), None);
    let usage = podman.image_usage().await.unwrap();
    assert!(usage[&built.image_id].shared > 1_000_000, "{usage:?}");

    podman
        .tag_image(&built.image_id, "localhost/other:x")
        .await
        .unwrap();
    podman
        .untag_image("localhost/lab:1", "localhost/lab:1")
        .await
        .unwrap();
    let images = podman.list_images().await.unwrap();
    let mut tags = images.by_id(&built.image_id).unwrap().tags.clone();
    tags.sort();
    assert_eq!(tags, ["localhost/lab:2", "localhost/other:x"]);

    let removed = podman
        .remove_image("localhost/other:x")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(removed.untagged, ["localhost/other:x"]);
    assert!(removed.deleted.is_empty());
    let removed = podman.remove_image(&built.image_id).await.unwrap().unwrap();
    assert!(removed.deleted.contains(&built.image_id), "{removed:?}");
    assert_eq!(
        podman.remove_image("localhost/other:x").await.unwrap(),
        None
    );
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn a_failed_build_says_where_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let failed = podman
        .build(request("localhost/fail:1", "RUN echo story; exit 3"))
        .await
        .unwrap()
        .finish(|_| {})
        .await;
    let fault = failed.unwrap_err();
    assert_eq!(fault.kind, Kind::BuildFailed, "{fault:?}");
    assert_eq!(fault.data["exit_code"], 3);
    assert!(
        fault.data["lines"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line == "story"),
        "{fault:?}"
    );

    let mut missing = BuildRequest::new(dockerfile("FROM localhost/nope:1\nRUN true"));
    missing.tags = vec!["localhost/fail:1".into()];
    let fault = podman
        .build(missing)
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::BuildFailed, "{fault:?}");

    let gone = BuildRequest::new(Context::Directory(dir.path().join("gone")));
    assert_eq!(
        podman.build(gone).await.unwrap_err().kind,
        Kind::StorageError
    );
    assert!(
        podman
            .list_images()
            .await
            .unwrap()
            .by_tag("fail:1")
            .is_none()
    );
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn containers_are_made_run_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let spec = ContainerSpec {
        image: BASE.into(),
        name: Some("life".into()),
        command: Some(
            [
                "sh",
                "-c",
                "grep NoNewPrivs /proc/self/status | grep -q 1 && echo said && exit $CODE",
            ]
            .map(String::from)
            .into(),
        ),
        env: BTreeMap::from([("CODE".into(), "5".into())]),
        labels: BTreeMap::from([("terok.task".into(), "1".into())]),
        network: Some(Network::None),
        no_new_privileges: true,
        ..ContainerSpec::default()
    };
    let id = podman.create_container(&spec).await.unwrap();
    podman.start_container("life").await.unwrap();
    assert_eq!(podman.wait_container(&id, PATIENCE).await.unwrap(), 5);
    podman
        .stop_container("life", Duration::from_secs(1))
        .await
        .unwrap();

    let log = podman.container_log("life").await.unwrap();
    assert_eq!(log, b"said\n");
    assert_eq!(
        podman.container_log("nope").await.unwrap_err().kind,
        Kind::ContainerMissing
    );

    let containers = podman.list_containers(true).await.unwrap();
    let container = containers.get("life").unwrap();
    assert_eq!(
        (container.state, container.exit_code),
        (ContainerState::Exited, Some(5))
    );
    assert_eq!(container.labels["terok.task"], "1");
    assert!(container.size.is_some());
    assert_eq!(
        container.image_id,
        podman.image_id(BASE).await.unwrap().unwrap()
    );

    let used = podman.remove_image(BASE).await.unwrap_err();
    assert_eq!(
        (used.kind, &used.data["status"]),
        (Kind::PodmanError, &409.into()),
        "{used:?}"
    );

    podman.remove_container("life", true).await.unwrap();
    podman.remove_container("life", true).await.unwrap();
    assert_eq!(
        podman.start_container("life").await.unwrap_err().kind,
        Kind::ContainerMissing
    );
    let missing = ContainerSpec {
        image: "localhost/nope:1".into(),
        ..spec
    };
    assert_eq!(
        podman.create_container(&missing).await.unwrap_err().kind,
        Kind::ImageMissing
    );
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn a_service_is_started_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("podman/podman.sock");
    let line = format!("service --time 0 unix://{}", socket.display());
    // As two daemons would, and many callers in each.
    let (one, two) = (own(dir.path()), own(dir.path()));
    let calls = (0..10).map(|n| if n % 2 == 0 { one.clone() } else { two.clone() });
    let calls: Vec<_> = calls
        .map(|podman| tokio::spawn(async move { podman.list_images().await.map(|_| ()) }))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((processes(&line), one.socket()), (1, socket.clone()));

    // The daemon goes; the service stays and is used by the next.
    drop((one, two));
    let next = own(dir.path());
    next.version().await.unwrap();
    assert_eq!(processes(&line), 1);

    // The service goes, and leaves its socket behind.
    let pid = pid_of(&line);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the service is gone", || processes(&line) == 0).await;
    assert!(socket.exists());
    next.list_images().await.unwrap();
    assert_eq!(processes(&line), 1);
    nix::sys::signal::kill(pid_of(&line), nix::sys::signal::Signal::SIGTERM).unwrap();
    until("the service is gone", || processes(&line) == 0).await;
}

fn pid_of(line: &str) -> nix::unistd::Pid {
    let found = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let text = std::fs::read(entry.path().join("cmdline")).ok()?;
            let ours = String::from_utf8_lossy(&text)
                .replace('\0', " ")
                .contains(line);
            ours.then(|| entry.file_name().to_str()?.parse().ok())
                .flatten()
        });
    nix::unistd::Pid::from_raw(found.expect("a process"))
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn a_dropped_build_ends_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let podman = own(dir.path());
    let mut build = podman
        .build(request("localhost/cancel:1", "RUN echo begun; sleep 4711"))
        .await
        .unwrap();
    while build.next().await.unwrap() != Some(BuildItem::Log("begun".into())) {}
    until("the step runs", || processes("sleep 4711") > 0).await;
    drop(build);
    until("the step has ended", || processes("sleep 4711") == 0).await;
    until("its service has ended", || {
        processes(&format!("unix://{}/podman/build", dir.path().display())) == 0
    })
    .await;
    let left: Vec<_> = std::fs::read_dir(dir.path().join("podman"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("build")),
        "{left:?}"
    );
    assert!(
        podman
            .list_images()
            .await
            .unwrap()
            .by_tag("cancel:1")
            .is_none()
    );
    assert!(
        podman
            .list_containers(false)
            .await
            .unwrap()
            .get("cancel")
            .is_none()
    );
}

/// What the command line does to the images and containers, behind our back.
fn cli(arguments: &[&str]) {
    let output = std::process::Command::new(program())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn what_others_change_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let listening = podman.clone();
    tokio::spawn(async move { listening.watch().await });
    let mut images = podman.images_changed();
    let mut containers = podman.containers_changed();
    podman.images().await.unwrap();
    podman.containers().await.unwrap();

    cli(&["tag", BASE, "localhost/seen:1"]);
    seen("the tag", &mut images, async || {
        podman.images().await.unwrap().by_tag("seen:1").is_some()
    })
    .await;
    cli(&["rmi", "localhost/seen:1"]);
    seen("its removal", &mut images, async || {
        podman.images().await.unwrap().by_tag("seen:1").is_none()
    })
    .await;
    let state = async || {
        podman
            .containers()
            .await
            .unwrap()
            .get("seen")
            .map(|container| (container.state, container.exit_code))
    };
    cli(&[
        "create",
        "--name",
        "seen",
        "--network",
        "none",
        BASE,
        "sh",
        "-c",
        "exit 7",
    ]);
    seen("the container", &mut containers, async || {
        state().await == Some((ContainerState::Created, None))
    })
    .await;
    cli(&["start", "seen"]);
    seen("its end", &mut containers, async || {
        state().await == Some((ContainerState::Exited, Some(7)))
    })
    .await;
    cli(&["rm", "seen"]);
    seen("its removal", &mut containers, async || {
        state().await.is_none()
    })
    .await;
}

/// Waits for changes that somebody else is told of, not for time.
async fn seen(
    what: &str,
    changed: &mut tokio::sync::watch::Receiver<u64>,
    mut holds: impl AsyncFnMut() -> bool,
) {
    while !holds().await {
        tokio::time::timeout(PATIENCE, changed.changed())
            .await
            .expect(what)
            .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn containers_outlive_the_service_that_started_them() {
    let dir = tempfile::tempdir().unwrap();
    let podman = own(dir.path());
    let spec = ContainerSpec {
        image: BASE.into(),
        name: Some("outlives".into()),
        // Ends when it is told to, with a code that somebody has to collect.
        command: Some(
            [
                "sh",
                "-c",
                "trap 'exit 7' USR1; echo up; while :; do sleep 0.1; done",
            ]
            .map(String::from)
            .into(),
        ),
        ..ContainerSpec::default()
    };
    let id = podman.create_container(&spec).await.unwrap();
    podman.start_container(&id).await.unwrap();
    let line = format!(
        "service --time 0 unix://{}",
        dir.path().join("podman/podman.sock").display()
    );
    let conmon = format!("-c {id}");
    assert_eq!((processes(&line), processes(&conmon)), (1, 1));
    nix::sys::signal::kill(pid_of(&line), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the service is gone", || processes(&line) == 0).await;
    assert_eq!(processes(&conmon), 1, "its monitor lives");

    // It ends while nobody of ours looks.
    let runs = podman_pid(&id);
    nix::sys::signal::kill(runs, nix::sys::signal::Signal::SIGUSR1).unwrap();
    until("the container has ended", || processes(&conmon) == 0).await;
    let containers = podman.list_containers(false).await.unwrap();
    let container = containers.get("outlives").unwrap();
    assert_eq!(
        (container.state, container.exit_code),
        (ContainerState::Exited, Some(7))
    );
    podman.remove_container(&id, true).await.unwrap();
    nix::sys::signal::kill(pid_of(&line), nix::sys::signal::Signal::SIGTERM).unwrap();
}

/// The first process of a container, as seen from outside.
fn podman_pid(id: &str) -> nix::unistd::Pid {
    let output = std::process::Command::new(program())
        .args(["inspect", "--format", "{{.State.Pid}}", id])
        .output()
        .unwrap();
    nix::unistd::Pid::from_raw(
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap(),
    )
}

#[tokio::test]
#[ignore = "needs podman-test-env"]
async fn steps_do_not_see_the_hosts_network_unless_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let podman = podman(dir.path());
    let mut seen = Vec::new();
    for network in [BuildNetwork::Private, BuildNetwork::Host] {
        let mut request = request(
            "localhost/net:1",
            "RUN echo NET $(readlink /proc/self/ns/net)",
        );
        request.network = network;
        request.no_cache = true;
        let each = |item| match item {
            BuildItem::Log(line) if line.starts_with("NET ") => seen.push(line),
            _ => {}
        };
        podman
            .build(request)
            .await
            .unwrap()
            .finish(each)
            .await
            .unwrap();
    }
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = format!("NET {}", host.display());
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], host);
    assert_eq!(seen[1], host);
}
