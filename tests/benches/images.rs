//! Images known to the daemon against the podman program, both over the same Podman with 500 images.
//!
//! Measured inside of `tests/env/podman-test-env`, which this part starts itself: nobody's own images are touched.

use crate::{Measurement, Samples, millis, project};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use terok_tests::{Daemon, World, eventually, programs};

const IMAGES: usize = 500;
const PROJECTS: usize = 1_000;
/// Projects that the podman program is asked about, one process each.
const ASKED: usize = 20;
/// How long ago events are told to who begins to listen, and a bit.
const RETOLD: Duration = Duration::from_secs(62);
/// Memory where layers are stored, if there is so much of it: 500 small layers are thousands of synced files.
const MEMORY: &str = "/dev/shm";
const ROOM: u64 = 2 << 30;

pub(crate) fn measure() -> Vec<Measurement> {
    match (std::env::var_os("PODMAN_SOCK"), programs::find("podman")) {
        (Some(service), Some(podman)) => inside(&PathBuf::from(service), &podman),
        _ => elsewhere(),
    }
}

/// Runs this part in a private Podman, as the user that it is for, who may not be able to enter this checkout.
fn elsewhere() -> Vec<Measurement> {
    let shared = tempfile::Builder::new()
        .prefix("tk-bench-")
        .tempdir()
        .expect("a temporary directory");
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
    let copy = |from: &Path, name: &str| {
        let to = shared.path().join(name);
        fs::copy(from, &to).expect("a copy of a program");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("a mode");
        to
    };
    let environment = copy(
        &programs::checkout().join("tests/env/podman-test-env"),
        "podman-test-env",
    );
    let bench = copy(&std::env::current_exe().expect("our own path"), "bench");
    let terokd = copy(&programs::terokd(), "terokd");
    let figures = shared.path().join("images.json");
    let mut command = Command::new(environment);
    command.arg("--").arg(bench).arg("--json").arg(&figures);
    command
        .arg("images")
        .env("TEROKD_BIN", terokd)
        .current_dir("/")
        .stdin(Stdio::null());
    if nix::sys::statvfs::statvfs(MEMORY)
        .is_ok_and(|memory| memory.blocks_available() * memory.fragment_size() > ROOM)
    {
        command.env("PODMAN_TEST_TMP", MEMORY).env("TMPDIR", MEMORY);
    }
    let output = command.output().expect("podman-test-env runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(125) {
        let why = said
            .lines()
            .last()
            .unwrap_or("podman-test-env says nothing");
        let line = format!("bench images skipped: no private Podman can be set up here: {why}\n");
        // Nobody reads it where it cannot be written.
        let _ = io::stdout().write_all(line.as_bytes());
        return Vec::new();
    }
    assert!(output.status.success(), "images: {}\n{said}", output.status);
    let text = fs::read(figures).expect("figures");
    let list: Vec<Value> = serde_json::from_slice(&text).expect("a list");
    list.iter().filter_map(Measurement::from_json).collect()
}

fn inside(service: &Path, podman: &Path) -> Vec<Measurement> {
    let world = World::new();
    for n in 0..PROJECTS {
        world.write(
            &format!("$CONFIG/projects/proj-{n:04}/project.yml"),
            project(n),
        );
    }
    let counter = Counter::open(world.dir().join("podman.sock"), service);
    let world = world.env(
        "CONTAINER_HOST",
        &format!("unix://{}", counter.socket.display()),
    );
    load(podman, world.dir());
    let loaded = Instant::now();

    let mut images = Command::new(podman);
    images.args(["images", "--format", "json"]);
    let theirs = Samples::take(3, || ran(&mut images));
    let exists = Samples::take(ASKED, || {
        ran(Command::new(podman).args(["image", "exists", "localhost/proj-0007:l2-cli"]))
    });
    let exists = exists.0.iter().sum::<Duration>() * (PROJECTS / ASKED) as u32;

    let daemon = world.start();
    for n in 0..PROJECTS {
        let id = format!("proj-{n:04}");
        daemon.ok("project.generate_dockerfiles", json!({"project_id": id}));
    }
    drop(daemon);

    // From the first question on. Events of the last minute are told anew to whoever begins to listen: a machine on
    // which 500 images have just appeared is not what is measured.
    std::thread::sleep(RETOLD.saturating_sub(loaded.elapsed()));
    counter.take();
    let daemon = world.start();
    let first = timed(|| {
        listed(&daemon);
    });
    states(&daemon);
    let cold = counter.take();

    // From then on, with events heard.
    quiet(&counter);
    let lists = Samples::take(200, || timed(|| listed(&daemon)));
    counter.take();
    let states = states(&daemon);
    let total: Duration = states.0.iter().sum();
    let warm = counter.take();

    let requests = |seen: &BTreeMap<String, usize>| seen.values().sum::<usize>() as f64;
    let asked_for_lists = cold.get("GET /images/json").copied().unwrap_or_default();
    vec![
        Measurement::figure("images_list_500_first", millis(first), "ms"),
        Measurement::figure("images_list_500_p50", millis(lists.p50()), "ms"),
        Measurement::figure("images_list_500_p99", millis(lists.p99()), "ms"),
        Measurement::at_most(
            "images_list_500_ratio",
            lists.p50().as_secs_f64() / theirs.p50().as_secs_f64(),
            "x podman images --format json",
            0.1,
        ),
        Measurement::figure("project_state_1000", millis(total), "ms"),
        Measurement::at_most("project_state_p99", millis(states.p99()), "ms", 2.0),
        Measurement::at_most(
            "project_state_1000_ratio",
            total.as_secs_f64() / exists.as_secs_f64(),
            "x podman image exists (20, scaled to 1000)",
            0.1,
        ),
        Measurement::at_most(
            "podman_requests_for_1000_states",
            requests(&warm),
            "requests",
            1.0,
        ),
        Measurement::figure(
            "podman_requests_for_1000_states_cold",
            requests(&cold),
            "requests (lists, events, pings)",
        ),
        Measurement::at_most(
            "podman_lists_for_1000_states_cold",
            asked_for_lists as f64,
            "requests",
            1.0,
        ),
    ]
}

/// Waits until the daemon has asked what it wants to ask by itself after its first list.
fn quiet(counter: &Counter) {
    let mut last = Instant::now();
    eventually("the daemon asks nothing more", || {
        if !counter.take().is_empty() || counter.is_open() {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_secs(2)).then_some(())
    });
}

fn listed(daemon: &Daemon) {
    let list = daemon.ok("list_images", json!({}));
    assert_eq!(list.as_array().map(Vec::len), Some(IMAGES));
}

/// The state of every project, one after the other.
fn states(daemon: &Daemon) -> Samples {
    let mut n = 0;
    Samples::take(PROJECTS, || {
        let id = format!("proj-{n:04}");
        let begin = Instant::now();
        let state = daemon.ok("project.state", json!({"project_id": id}));
        let took = begin.elapsed();
        let expected = json!([true, false, n < IMAGES - 2]);
        let said = json!([
            state["dockerfiles"],
            state["dockerfiles_old"],
            state["images"]
        ]);
        assert_eq!(said, expected, "{id}: {state}");
        n += 1;
        took
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// A whole process.
fn ran(command: &mut Command) -> Duration {
    timed(|| {
        let status = command.stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{command:?}");
    })
}

/// Loads the images: a base layer, an agent layer and images of projects, each with a layer of its own above them.
fn load(podman: &Path, dir: &Path) {
    let file = dir.join("images.tar");
    archive(&file).expect("an archive of images");
    ran(Command::new(podman).args(["load", "-q", "-i"]).arg(&file));
    fs::remove_file(&file).expect("the archive can go");
}

/// All images in one archive, as `docker save` writes it.
fn archive(file: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(File::create(file)?);
    let (mut layers, mut manifest) = (Vec::new(), Vec::new());
    for n in 0..IMAGES {
        let (name, label, depth) = match n {
            0 => ("terok-l0:ubuntu-24.04".to_owned(), "l0", 0),
            1 => ("terok-l1-cli:ubuntu-24.04-claude-codex".to_owned(), "l1", 1),
            _ => (format!("proj-{:04}:l2-cli", n - 2), "l2-cli", 2),
        };
        let mut layer = tar::Builder::new(Vec::new());
        append(&mut layer, label, n.to_string().as_bytes())?;
        let layer = layer.into_inner()?;
        let digest = digest(&layer);
        append(&mut archive, &format!("{digest}.tar"), &layer)?;
        layers.truncate(depth);
        layers.push(digest);
        let ids: Vec<String> = layers.iter().map(|id| format!("sha256:{id}")).collect();
        let step = json!({"created": "2026-01-01T00:00:00Z", "created_by": "RUN something"});
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"terokd.layer": label, "ai.terok.agents": "claude,codex", "n": n.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": vec![step; layers.len()],
        });
        let config = config.to_string();
        let place = format!("{}.json", self::digest(config.as_bytes()));
        append(&mut archive, &place, config.as_bytes())?;
        let files: Vec<String> = layers.iter().map(|id| format!("{id}.tar")).collect();
        manifest.push(
            json!({"Config": place, "RepoTags": [format!("localhost/{name}")], "Layers": files}),
        );
    }
    let manifest = Value::from(manifest).to_string();
    append(&mut archive, "manifest.json", manifest.as_bytes())?;
    archive.finish()
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stands between the daemon and Podman's service and counts what is asked.
struct Counter {
    socket: PathBuf,
    /// Method and path without version and query, and how often.
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    /// One per connection that is neither the stream of events nor at its end.
    open: Arc<()>,
}

impl Counter {
    fn open(socket: PathBuf, service: &Path) -> Self {
        let listener = UnixListener::bind(&socket).expect("bind");
        let counter = Self {
            socket,
            seen: Arc::default(),
            open: Arc::default(),
        };
        let (seen, open) = (Arc::clone(&counter.seen), Arc::downgrade(&counter.open));
        let service = service.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(open) = open.upgrade() else { return };
                let (seen, service) = (Arc::clone(&seen), service.clone());
                std::thread::spawn(move || {
                    // Whoever is cut off notices.
                    let _ = pass(client, &service, &seen, open);
                });
            }
        });
        counter
    }

    /// What was asked since the last time.
    fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }
}

fn pass(
    client: UnixStream,
    service: &Path,
    seen: &Mutex<BTreeMap<String, usize>>,
    open: Arc<()>,
) -> io::Result<()> {
    let mut service = UnixStream::connect(service)?;
    let (mut back, mut to) = (service.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        let _ = io::copy(&mut back, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut open = Some(open);
    let (mut requests, mut line) = (BufReader::new(client), Vec::new());
    while requests.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b" HTTP/1.1\r\n") {
            let asked = String::from_utf8_lossy(&line);
            let mut words = asked.split([' ', '?']);
            let (method, path) = (words.next(), words.next().unwrap_or_default());
            let path = path.split_once("/libpod").map_or(path, |(_, path)| path);
            if path == "/events" {
                open = None;
            }
            let asked = format!("{} {path}", method.unwrap_or_default());
            *seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(asked)
                .or_default() += 1;
        }
        service.write_all(&line)?;
        line.clear();
    }
    service.shutdown(std::net::Shutdown::Write)?;
    let _ = answers.join();
    drop(open);
    Ok(())
}
