//! Gates against the git program, each pair in one run: asking, first and repeated syncs, clones, polling many.

use crate::{Measurement, Samples, millis};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use terok_tests::{Daemon, World, programs};

/// Branches and commits of the big upstream.
const BRANCHES: usize = 1_000;
const COMMITS: usize = 10_000;
/// Upstreams that are polled at once.
const UPSTREAMS: usize = 500;

pub(crate) fn measure() -> Vec<Measurement> {
    programs::find("git").map_or_else(Vec::new, |git| big(&git))
}

pub(crate) fn measure_polling() -> Vec<Measurement> {
    programs::find("git").map_or_else(Vec::new, |git| many(&git))
}

/// One upstream with 10,000 commits on 1,000 branches.
fn big(git: &Path) -> Vec<Measurement> {
    let world = World::new();
    let upstream = world.path("$HOME/upstream.git");
    import(&world, git, &upstream);
    let url = format!("file://{}", upstream.display());
    world.write("$CONFIG/projects/big/project.yml", project("big", &url));
    world.write(
        "$DATA/sandbox/gate/tokens.json",
        r#"{"terok-g-00000000000000000000000000000001": {"scope": "big", "task": "bench"}}"#,
    );
    // Clones come through TCP; a port of the bench's own, so that it minds nobody else's gate server.
    world.write(
        "$CONFIG/config.yml",
        format!(
            "services: {{mode: tcp}}\ngate_server: {{port: {}}}\n",
            free_port()
        ),
    );
    let served = Served::start(&world, git, &world.path("$HOME"));
    let daemon = world.start();

    // A sync also checks out the clone that seeds tasks, which `git clone --mirror` has no counterpart of: measured
    // without it (a file stands in its place), and with it against the same work done by git.
    let seeds = world.path("$DATA/sandbox/clone-cache");
    let gate = world.path("$DATA/sandbox/gate/big.git");
    let first = |n: usize, seeded: bool| {
        if seeded {
            std::fs::remove_file(&seeds).unwrap_or_default();
        } else {
            world.write("$DATA/sandbox/clone-cache", "");
        }
        let sync = timed(|| {
            let answer = daemon.ok(
                "project.gate.sync",
                json!({"project_id": "big", "force_reinit": n > 0}),
            );
            assert_eq!(answer["created"], true);
            assert_eq!(answer["cache_refreshed"], seeded, "{answer}");
        });
        let (mirror, clone) = (
            world.path(&format!("$HOME/mirror-{n}.git")),
            world.path(&format!("$HOME/seed-{n}")),
        );
        let theirs = timed(|| {
            run(world
                .command(git)
                .args(["clone", "-q", "--mirror", &url])
                .arg(&mirror));
            if seeded {
                run(world
                    .command(git)
                    .args(["clone", "-q", "--local"])
                    .args([&gate, &clone]));
            }
        });
        (sync, theirs)
    };
    // Taken in turns, so that a slow moment of the machine hits both.
    let best = |pairs: &[(Duration, Duration)]| {
        let sync = pairs.iter().map(|p| p.0).min().unwrap_or_default();
        (sync, pairs.iter().map(|p| p.1).min().unwrap_or_default())
    };
    let alone: Vec<_> = (0..5).map(|n| first(n, false)).collect();
    let (sync, clone) = best(&alone);
    let (seeded_sync, seeded_clone) = best(&[first(5, true)]);

    let mirror = world.path("$HOME/mirror-0.git");
    let (mut syncs, mut fetches) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        syncs.push(timed(|| {
            let answer = daemon.ok("project.gate.sync", json!({"project_id": "big"}));
            assert_eq!(answer["updated_branches"], json!([]), "nothing to do");
        }));
        fetches.push(timed(|| {
            run(world
                .command(git)
                .arg("-C")
                .arg(&mirror)
                .args(["fetch", "-q", "--prune"]));
        }));
    }
    let (syncs, fetches) = (sorted(syncs), sorted(fetches));

    let status = daemon.ok("gate_server.status", json!({}));
    let address = status["address"].as_str().unwrap_or_default();
    assert!(address.starts_with("127."), "gates are served: {status}");
    let mut measured = vec![
        Measurement::figure("gate_first_sync", millis(sync), "ms"),
        Measurement::at_most(
            "gate_first_sync_ratio",
            ratio(sync, clone),
            "x git clone --mirror",
            1.1,
        ),
        Measurement::figure("gate_first_sync_seeded", millis(seeded_sync), "ms"),
        Measurement::figure(
            "gate_first_sync_seeded_ratio",
            ratio(seeded_sync, seeded_clone),
            "x git clone --mirror and git clone",
        ),
        Measurement::figure("gate_noop_sync_p50", millis(syncs.p50()), "ms"),
        Measurement::figure("gate_noop_sync_p99", millis(syncs.p99()), "ms"),
        Measurement::at_most(
            "gate_noop_sync_ratio",
            ratio(syncs.p50(), fetches.p50()),
            "x git fetch",
            0.6,
        ),
    ];
    let through = format!("http://terok-g-00000000000000000000000000000001:x@{address}/big.git");
    let direct = format!("file://{}", gate.display());
    let (mut via_gate, mut via_file) = (Vec::new(), Vec::new());
    for n in 0..5 {
        for (url, times) in [(&through, &mut via_gate), (&direct, &mut via_file)] {
            let target = world.path(&format!("$HOME/clone-{n}"));
            times.push(timed(|| {
                run(world.command(git).args(["clone", "-q", url]).arg(&target))
            }));
            std::fs::remove_dir_all(&target).expect("a clone");
        }
    }
    let (via_gate, via_file) = (sorted(via_gate), sorted(via_file));
    measured.push(Measurement::figure(
        "gate_clone_p50",
        millis(via_gate.p50()),
        "ms",
    ));
    measured.push(Measurement::at_most(
        "gate_clone_ratio",
        ratio(via_gate.p50(), via_file.p50()),
        "x git clone file://",
        1.3,
    ));
    drop(daemon);

    // Asking costs upstream the same, whoever asks: only our side is counted.
    let url = format!("git://127.0.0.1:{}/upstream.git", served.port);
    world.write("$CONFIG/projects/asked/project.yml", project("asked", &url));
    let daemon = world.start();
    daemon.ok("project.gate.sync", json!({"project_id": "asked"}));
    let rounds = 100;
    let before = cpu_of(&daemon);
    for _ in 0..rounds {
        let found = daemon.ok(
            "project.gate.compare_vs_upstream",
            json!({"project_id": "asked"}),
        );
        assert_eq!(found["relation"], "equal");
    }
    let ours = cpu_of(&daemon) - before;
    let before = cpu_of_children();
    for _ in 0..rounds {
        run(world
            .command(git)
            .args(["ls-remote", "-q", &url, "refs/heads/main"])
            .stdout(Stdio::null()));
    }
    let theirs = cpu_of_children() - before;
    measured.push(Measurement::figure(
        "gate_poll_cpu",
        millis(ours) / f64::from(rounds),
        "ms",
    ));
    measured.push(Measurement::at_most(
        "gate_poll_cpu_ratio",
        ratio(ours, theirs),
        "x git ls-remote",
        0.5,
    ));
    measured
}

/// Many upstreams, all of them up to date, polled once.
fn many(git: &Path) -> Vec<Measurement> {
    let world = World::new();
    let seed = world.path("$HOME/up/u0.git");
    import_some(&world, git, &seed, 20, 2);
    let served = Served::start(&world, git, &world.path("$HOME/up"));
    for n in 0..UPSTREAMS {
        if n > 0 {
            let target = world.path(&format!("$HOME/up/u{n}.git"));
            run(world
                .command(Path::new("cp"))
                .arg("-r")
                .arg(&seed)
                .arg(&target));
        }
        let url = format!("git://127.0.0.1:{}/u{n}.git", served.port);
        let id = format!("u{n}");
        world.write(
            &format!("$CONFIG/projects/{id}/project.yml"),
            quiet_project(&id, &url),
        );
    }
    world.write("$CONFIG/terokd.yml", "polling: {max_per_host: 8}\n");
    let daemon = world.start();
    for n in 0..UPSTREAMS {
        daemon.ok("project.gate.sync", json!({"project_id": format!("u{n}")}));
    }
    let before = cpu_of(&daemon);
    let wall = timed(|| {
        let found = daemon.ok("polling.poll_now", json!({}));
        let current = |row: &Value| row["relation"] == "equal";
        assert!(
            found
                .as_array()
                .is_some_and(|rows| rows.len() == UPSTREAMS && rows.iter().all(current))
        );
    });
    let ours = cpu_of(&daemon) - before;
    let before = cpu_of_children();
    let their_wall = timed(|| {
        for n in 0..UPSTREAMS {
            let url = format!("git://127.0.0.1:{}/u{n}.git", served.port);
            run(world
                .command(git)
                .args(["ls-remote", "-q", &url, "refs/heads/main"])
                .stdout(Stdio::null()));
        }
    });
    let theirs = cpu_of_children() - before;
    vec![
        Measurement::figure("poll_500_cpu", millis(ours), "ms"),
        Measurement::at_most(
            "poll_500_cpu_ratio",
            ratio(ours, theirs),
            "x git ls-remote",
            0.3,
        ),
        Measurement::figure("poll_500_wall", millis(wall), "ms"),
        Measurement::figure(
            "poll_500_wall_ratio",
            ratio(wall, their_wall),
            "x git ls-remote",
        ),
    ]
}

fn project(id: &str, url: &str) -> String {
    format!(
        "project:\n  id: {id}\ngit:\n  upstream_url: {url}\n  default_branch: main\ngatekeeping:\n  upstream_polling: {{enabled: false}}\n"
    )
}

/// Polled, but not while it is measured: its own turn comes in a week.
fn quiet_project(id: &str, url: &str) -> String {
    format!(
        "project:\n  id: {id}\ngit:\n  upstream_url: {url}\n  default_branch: main\ngatekeeping:\n  upstream_polling: {{interval_minutes: 10080}}\n"
    )
}

fn import(world: &World, git: &Path, target: &Path) {
    import_some(world, git, target, COMMITS, BRANCHES);
}

/// A bare repository made by `git fast-import`: a line of commits on `main`, branches spread along it.
fn import_some(world: &World, git: &Path, target: &Path, commits: usize, branches: usize) {
    world.mkdirs(target.parent().expect("a parent"));
    run(world
        .command(git)
        .args(["init", "-q", "--bare", "-b", "main"])
        .arg(target));
    let mut child = world
        .command(git)
        .arg("-C")
        .arg(target)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git fast-import");
    let mut stream = std::io::BufWriter::new(child.stdin.take().expect("a pipe"));
    for n in 1..=commits {
        let text = format!(
            "file {n}\nof some length, so that deltas are worth it\n{}\n",
            "x".repeat(n % 400)
        );
        let from = if n > 1 {
            format!("from :{}\n", n - 1)
        } else {
            String::new()
        };
        write!(
            stream,
            "commit refs/heads/main\nmark :{n}\ncommitter Ada <ada@example.org> {} +0000\ndata 9\ncommit {}\n{from}M 100644 inline dir{}/file{}\ndata {}\n{text}\n",
            1_700_000_000 + n,
            n % 10,
            n % 37,
            n % 211,
            text.len(),
        )
        .expect("a stream");
    }
    for n in 0..branches {
        let at = commits * (n + 1) / branches;
        write!(
            stream,
            "reset refs/heads/topic/b{n:04}\nfrom :{}\n\n",
            at.max(1)
        )
        .expect("a stream");
    }
    drop(stream);
    assert!(child.wait().expect("git fast-import").success());
    run(world
        .command(git)
        .arg("-C")
        .arg(target)
        .args(["pack-refs", "--all"]));
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// `git daemon` over a directory.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(world: &World, git: &Path, base: &Path) -> Self {
        let port = free_port();
        let child = world
            .command(git)
            .args([
                "daemon",
                "--reuseaddr",
                "--export-all",
                "--listen=127.0.0.1",
                "--max-connections=0",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .arg(base)
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon");
        terok_tests::eventually("git daemon listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, port }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Its listener is a child of its own.
        let _ = Command::new("pkill")
            .args(["-P", &self.child.id().to_string()])
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().expect("a program");
    assert!(status.success(), "{command:?}: {status}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn sorted(mut times: Vec<Duration>) -> Samples {
    times.sort();
    Samples(times)
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64().max(1e-9)
}

/// CPU that the daemon and its finished children have used.
fn cpu_of(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{}/stat", daemon.pid())))
        .expect("the daemon runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..15]
        .iter()
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(100);
    Duration::from_millis(ticks * 1000 / per_second)
}

/// CPU that our finished children have used.
fn cpu_of_children() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let span = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(
            u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0),
        )
    };
    span(used.user_time()) + span(used.system_time())
}
