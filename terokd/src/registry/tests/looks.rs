//! What one look takes for settled, and what it tells.

use super::*;
use crate::registry::reconcile::{Haste, Looked, Reconciler};
use std::io::Write;

const A: &str = ".config/terok/projects/a/project.yml";

/// A reconciler without watches, driven by hand.
struct Bench {
    home: TempDir,
    reconciler: Reconciler,
    current: Arc<Snapshot>,
    hints: Hints,
}

impl Bench {
    fn with(files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            put(&home.path().join(path), text);
        }
        let env = Arc::new(Environment::new([("X", "y")], home.path()));
        let mut reconciler = Reconciler::new(env);
        let current = Arc::new(reconciler.first());
        let hints = Hints::default();
        let mut bench = Self {
            home,
            reconciler,
            current,
            hints,
        };
        bench.settle();
        bench
    }

    fn path(&self) -> PathBuf {
        self.home.path().join(A)
    }

    fn look(&mut self, haste: &Haste) -> (Vec<EventKind>, Option<Duration>) {
        let Looked {
            next,
            events,
            again_in,
        } = self
            .reconciler
            .look(&self.current, haste, None, &self.hints);
        if let Some(next) = next {
            self.current = Arc::new(next);
        }
        (events.iter().map(|draft| draft.kind()).collect(), again_in)
    }

    /// Looks for as long as a look is asked for, as the owner does.
    fn settle(&mut self) -> Vec<EventKind> {
        let mut told = Vec::new();
        loop {
            let (events, again_in) = self.look(&Haste::Settle);
            told.extend(events);
            let Some(delay) = again_in else {
                return told;
            };
            assert!(delay <= Duration::from_millis(602), "{delay:?}");
            std::thread::sleep(delay);
        }
    }

    /// Lets what was written grow older than the time to settle: the clock of files cannot be set.
    fn grow_old(&self) {
        std::thread::sleep(Duration::from_millis(100));
    }

    fn branch(&self) -> Option<String> {
        let good = self.current.projects["a"].good()?;
        good.project.config.default_branch.clone()
    }
}

#[test]
fn a_file_that_somebody_holds_open_for_writing_is_not_taken() {
    let mut bench = Bench::with(&[(A, &branch("old"))]);
    let mut file = std::fs::File::create(bench.path()).expect("create");
    file.write_all(ONLINE.as_bytes()).expect("write");
    bench.hints.begin_writing(&bench.path());
    bench.grow_old();
    let (told, again) = bench.look(&Haste::Settle);
    assert_eq!((told, again.is_some()), (vec![], true));
    assert_eq!(bench.branch().as_deref(), Some("old"));
    file.write_all(b"git: {default_branch: new}\n")
        .expect("write");
    drop(file);
    bench.hints.end_writing(&bench.path());
    assert_eq!(bench.settle(), [EventKind::ProjectChanged]);
    assert_eq!(bench.branch().as_deref(), Some("new"));
}

#[test]
fn a_writer_who_never_closes_is_not_waited_for_longer_than_a_moment() {
    let mut bench = Bench::with(&[(A, &branch("old"))]);
    put(&bench.path(), &branch("new"));
    bench.hints.begin_writing(&bench.path());
    let begun = std::time::Instant::now();
    assert_eq!(bench.settle(), [EventKind::ProjectChanged]);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_breaks_or_empties_a_healthy_project_has_to_stand_for_longer() {
    for doubtful in ["project: {security_class: onl", "projecct: {}\n", ""] {
        let mut bench = Bench::with(&[(A, &branch("old"))]);
        put(&bench.path(), doubtful);
        let written = std::time::Instant::now();
        while bench.branch().as_deref() == Some("old")
            && bench.current.projects["a"].project().is_ok()
        {
            let (_, again) = bench.look(&Haste::Settle);
            std::thread::sleep(again.unwrap_or_default());
        }
        // The clock of the file system is coarse.
        let stood = written.elapsed();
        assert!(
            stood >= Duration::from_millis(270),
            "{doubtful:?}: {stood:?}"
        );
    }
}

#[test]
fn a_new_project_whose_file_is_half_written_is_not_told_as_broken() {
    let mut bench = Bench::with(&[(A, ONLINE)]);
    let other = bench.path().with_file_name("../b/project.yml");
    put(&other, "project: {secur");
    bench.grow_old();
    assert_eq!(bench.look(&Haste::Settle).0, []);
    put(&other, ONLINE);
    assert_eq!(bench.settle(), [EventKind::ProjectAdded]);
}

#[test]
fn our_own_write_and_one_who_has_waited_take_things_as_they_stand() {
    let mut bench = Bench::with(&[(A, ONLINE)]);
    put(&bench.path(), &branch("ours"));
    let (told, _) = bench.look(&Haste::Ours("a".to_owned()));
    assert_eq!(told, [EventKind::ProjectChanged]);
    put(&bench.path(), "[");
    bench.hints.begin_writing(&bench.path());
    assert_eq!(bench.look(&Haste::Settle).0, []);
    assert_eq!(bench.look(&Haste::Everything).0, [EventKind::ProjectBroken]);
    std::fs::remove_file(bench.path()).expect("remove");
    assert_eq!(bench.look(&Haste::Settle).0, []);
    assert_eq!(
        bench.look(&Haste::Everything).0,
        [EventKind::ProjectRemoved]
    );
}

#[test]
fn a_change_that_keeps_size_and_time_is_seen_though_the_clock_is_coarse() {
    let mut bench = Bench::with(&[(A, ONLINE)]);
    for n in 0..50 {
        put(&bench.path(), &branch(&format!("a{n:02}")));
        bench.look(&Haste::Ours("a".to_owned()));
        // The same inode and size, most probably within the same tick.
        let last = format!("b{n:02}");
        put(&bench.path(), &branch(&last));
        bench.settle();
        assert_eq!(bench.branch(), Some(last));
    }
}

#[test]
fn the_same_content_is_no_change() {
    let config = ".config/terok/config.yml";
    let mut bench = Bench::with(&[(A, ONLINE), (config, "default_agent: codex\n")]);
    let before = Arc::clone(&bench.current);
    put(&bench.home.path().join(config), "default_agent: codex\n");
    put(&bench.path(), ONLINE);
    assert_eq!(bench.settle(), []);
    assert!(Arc::ptr_eq(&before.global, &bench.current.global));
    let same = Arc::ptr_eq(&before.projects["a"], &bench.current.projects["a"]);
    assert!(same, "the project was not made again");
    // A comment changes the file, not what it says.
    put(
        &bench.home.path().join(config),
        "# why\ndefault_agent: codex\n",
    );
    put(&bench.path(), &format!("# why\n{ONLINE}"));
    assert_eq!(bench.settle(), []);
    std::fs::remove_file(bench.home.path().join(config)).expect("remove");
    assert_eq!(
        bench.settle(),
        [EventKind::ConfigChanged, EventKind::ProjectChanged]
    );
}

#[test]
fn another_id_in_the_same_directory_is_another_project() {
    let mut bench = Bench::with(&[(A, ONLINE)]);
    put(
        &bench.path(),
        "project: {id: other, security_class: online}\n",
    );
    assert_eq!(
        bench.settle(),
        [EventKind::ProjectRemoved, EventKind::ProjectAdded]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_of_the_system_does_not_step_in_while_an_editor_saves() {
    let mut world = World::with(&[
        (A, &branch("user")),
        ("system/projects/a/project.yml", &branch("system")),
    ])
    .await;
    std::fs::rename(world.yml("a"), world.path("away")).expect("rename");
    world.look("other").await;
    assert_eq!(world.field("a", "default_branch"), "user");
    put(&world.yml("a"), &branch("saved"));
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.field("a", "default_branch"), "saved");
    std::fs::remove_file(world.yml("a")).expect("remove");
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.field("a", "default_branch"), "system");
}
