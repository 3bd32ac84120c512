//! Gates of any size, and what they cost.

use super::*;

/// How long each download may take, as those who ask for it say.
#[derive(Default)]
struct Caps(GixTransport, Mutex<Vec<Duration>>);

impl GitTransport for Caps {
    fn ls_refs(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        control: &Control,
    ) -> Result<Advertisement, TransportError> {
        self.0.ls_refs(upstream, prefixes, limits, control)
    }

    fn fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
        limits: &Limits,
        control: &Control,
    ) -> Result<FetchReport, TransportError> {
        self.1.lock().unwrap().push(limits.total);
        self.0.fetch(repository, upstream, wants, limits, control)
    }

    fn push(
        &self,
        repository: &Path,
        upstream: &Upstream,
        commit: gix::ObjectId,
        to: &str,
        lease: Option<gix::ObjectId>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), PushError> {
        self.0
            .push(repository, upstream, commit, to, lease, limits, control)
    }
}

#[test]
fn a_gate_that_is_made_anew_gets_as_long_as_a_first_one() {
    let (world, caps) = (World::new(), Caps::default());
    let asked = |force_reinit| {
        world.commit_up("main", "more");
        let options = SyncOptions {
            force_reinit,
            ..SyncOptions::default()
        };
        assert!(world.sync_by(&caps, &options).unwrap().success);
        caps.1.lock().unwrap().pop().unwrap()
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(asked(false), 6 * hour, "the first");
    assert_eq!(asked(false), hour / 2);
    assert_eq!(asked(true), 6 * hour, "made anew");
    assert_eq!(asked(false), hour / 2);
}

#[test]
fn facts_of_a_gate() {
    let world = World::new();
    assert_eq!(facts(&world.spec), terok_gate::Facts::default());
    world.sync();
    let seen = facts(&world.spec);
    assert!(seen.exists);
    assert_eq!(seen.heads, 2);
    assert!(seen.size_bytes.unwrap() > 500);
    assert!(seen.snapshot_at.is_some());
}

#[test]
fn both_transports_make_the_same_gate() {
    let one = World::new();
    let two = World::new();
    let cli = CliTransport::new(two.lab.env.clone());
    one.sync();
    assert!(two.sync_by(&cli, &SyncOptions::default()).unwrap().success);
    assert_eq!(one.refs(), two.refs());
    for world in [&one, &two] {
        world.commit_up("main", "more");
        world.rewrite_up("side/x", "instead");
    }
    let a = one.sync();
    let b = two.sync_by(&cli, &SyncOptions::default()).unwrap();
    assert_eq!((a.applied, a.pending), (b.applied, b.pending));
    assert_eq!(one.refs(), two.refs());
    two.fsck();
}

#[test]
fn a_sync_that_finds_nothing_starts_upload_pack_and_no_more() {
    let world = World::synced();
    let bin = world.lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let log = world.lab.path("started");
    let real = world.lab.env.find_program("git").unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        log.display(),
        real.display()
    );
    for (name, text) in [
        ("git", script.clone()),
        (
            "git-upload-pack",
            script.replace("exec", "exec env -- ").replace(
                &format!("{} \"$@\"", real.display()),
                &format!("{} upload-pack \"$@\"", real.display()),
            ),
        ),
    ] {
        std::fs::write(bin.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), mode).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let env = terok_gate::HostEnv::new([
        ("PATH", path.as_str()),
        ("HOME", world.lab.dir.path().to_str().unwrap()),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ]);
    let transport = terok_gate::GixTransport::new(env);
    let result = world.sync_by(&transport, &SyncOptions::default()).unwrap();
    assert!(result.success && result.updated_branches.is_empty());
    let started = std::fs::read_to_string(&log).unwrap();
    assert_eq!(started.lines().count(), 1, "{started}");
    assert!(started.contains("up.git"), "{started}");
}

/// Names `count` branches of a repository after its main branch's commit.
fn many(world: &World, repo: &Path, count: usize, at: &str) {
    let mut text = String::new();
    for n in 0..count {
        text.push_str(&format!("create refs/heads/many/{n:05} {at}\n"));
    }
    world.lab.feed(repo, &["update-ref", "--stdin"], &text);
    world.lab.git(repo, &["pack-refs", "--all"]);
}

#[test]
fn ten_thousand_branches() {
    let world = World::new();
    let first = world.up_head("main").to_string();
    many(&world, &world.up, 10_000, &first);
    let result = world.sync();
    assert_eq!(result.applied.len(), 10_002);
    let before = world.refs();
    assert!(world.sync().applied.is_empty());
    assert_eq!(world.refs(), before);
    // All of them move at once, and no file per ref is left.
    let new = world.commit_up("main", "more").to_string();
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("update refs/heads/many/{n:05} {new}\n"));
    }
    world.lab.feed(&world.up, &["update-ref", "--stdin"], &text);
    world.lab.git(&world.up, &["pack-refs", "--all"]);
    let result = world.sync();
    assert_eq!(result.applied.len(), 10_001);
    assert!(
        result
            .applied
            .iter()
            .all(|update| update.kind == AppliedKind::FastForward)
    );
    assert!(!world.gate().join("refs/heads/many").exists());
    // And all of them go.
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("delete refs/heads/many/{n:05}\n"));
    }
    world.lab.feed(&world.up, &["update-ref", "--stdin"], &text);
    let result = world.sync();
    assert_eq!(result.pending.len(), 10_000);
    assert!(result.pending.iter().all(|op| op.lossless));
    world.fsck();
}

#[test]
fn a_thousand_branches_that_went_their_own_way() {
    let world = World::new();
    for n in 0..300 {
        world.commit_up("main", &format!("m{n}"));
    }
    let start = world.up_head("main~200").to_string();
    many(&world, &world.up, 1000, &start);
    world.sync();
    // The gate's are all one commit ahead, upstream's another one.
    let mine = world.commit_gate("many/00000", "agent").to_string();
    let theirs = world.commit_up("many/00000", "theirs").to_string();
    for (repo, to) in [(world.gate(), &mine), (world.up.as_path(), &theirs)] {
        let mut text = String::new();
        for n in 1..1000 {
            text.push_str(&format!("update refs/heads/many/{n:05} {to}\n"));
        }
        world.lab.feed(repo, &["update-ref", "--stdin"], &text);
    }
    let result = world.sync();
    assert_eq!(result.pending.len(), 1000);
    assert!(
        result
            .pending
            .iter()
            .all(|op| op.gate_only_commits == Some(1))
    );
}

#[test]
fn an_upstream_with_other_object_ids_is_refused() {
    let world = World::new();
    let other = world.lab.path("other.git");
    world.lab.git(
        world.lab.dir.path(),
        &[
            "init",
            "-q",
            "--bare",
            "--object-format=sha256",
            other.to_str().unwrap(),
        ],
    );
    let upstream: Upstream = support::lab::at(other.to_str().unwrap());
    let spec: GateSpec = world.spec.clone();
    let outcome = terok_gate::sync(
        &spec,
        Some(&upstream),
        &world.transport,
        &SyncOptions::default(),
        &Limits::default(),
        &Control::new(),
    );
    assert_eq!(outcome.unwrap_err().kind, Kind::GateUnsupportedObjectFormat);
    assert!(!world.gate().exists());
}

fn packs(world: &World) -> usize {
    std::fs::read_dir(world.gate().join("objects/pack"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".pack")
        })
        .count()
}

#[test]
fn a_gate_stays_small_and_keeps_what_no_ref_reaches() {
    let world = World::synced();
    for n in 0..55 {
        world.commit_up("main", &format!("n{n}"));
        world.sync();
        assert!(packs(&world) <= 51);
    }
    world.commit_gate("gone", "gone");
    let gone = world.head("gone").unwrap().to_string();
    world.put(world.gate(), "gone", None);
    let mark = world.gate().join("terok-repacked");
    let weeks = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 24 * 3600);
    std::fs::File::options()
        .write(true)
        .open(&mark)
        .unwrap()
        .set_modified(weeks)
        .unwrap();
    world.commit_up("main", "last");
    world.sync();
    assert_eq!(packs(&world), 1);
    assert!(mark.metadata().unwrap().modified().unwrap() > weeks);
    world.lab.git(world.gate(), &["cat-file", "-e", &gone]);
    assert_eq!(look(&world, None).relation, Relation::Equal);
    world.fsck();
}

#[test]
fn many_refs_of_their_own_become_one_file() {
    let world = World::synced();
    let at = world.head("main").unwrap().to_string();
    let mut text = String::new();
    for n in 0..1200 {
        text.push_str(&format!("create refs/heads/agent/{n} {at}\n"));
    }
    world
        .lab
        .feed(world.gate(), &["update-ref", "--stdin"], &text);
    let before = world.refs();
    world.sync();
    assert_eq!(world.refs(), before);
    assert!(!world.gate().join("refs/heads/agent").exists());
}

#[test]
fn a_gate_that_is_not_there_is_not_waited_for() {
    let world = World::new();
    let control = Control::new();
    for fault in [
        terok_gate::pending(&world.spec).unwrap_err(),
        terok_gate::backups(&world.spec).unwrap_err(),
        terok_gate::apply_pending(&world.spec, &[], &control).unwrap_err(),
        terok_gate::restore_backup(&world.spec, "refs/terok/backup/x", &control).unwrap_err(),
        terok_gate::prune_backups(&world.spec, 1, &control).unwrap_err(),
        push_out(&world, &request("main")).unwrap_err(),
    ] {
        assert_eq!(fault.kind, Kind::GateMissing);
    }
    assert!(!world.spec.base.exists());
    assert_eq!(terok_gate::last_commit(&world.spec), None);
}
