//! Directories and links that are replaced under the watches, and watches that fail.

use super::*;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicBool;

const A: &str = ".config/terok/projects/a/project.yml";

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_made_anew_at_once_is_watched_though_it_may_be_the_same_inode() {
    let mut world = World::with(&[(A, ONLINE)]).await;
    let projects = world.path(".config/terok/projects");
    for round in 0..10 {
        let removed = if round % 2 == 0 {
            projects.join("a")
        } else {
            projects.clone()
        };
        std::fs::remove_dir_all(&removed).expect("remove");
        put(&world.yml("a"), &branch(&format!("new{round}")));
        world.registry.reload().await;
        world.expect(EventKind::ProjectChanged, "a").await;
        // Nothing but the watch tells of this one.
        world.registry.reload().await;
        put(&world.yml("a"), &branch(&format!("edit{round}")));
        world.expect(EventKind::ProjectChanged, "a").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_paths_to_one_directory_do_not_lose_each_others_watch() {
    let mut world = World::with(&[("real/project.yml", ONLINE), (A, ONLINE)]).await;
    let projects = world.path(".config/terok/projects");
    for name in ["one", "two"] {
        symlink(world.path("real"), projects.join(name)).expect("link");
        world.expect(EventKind::ProjectAdded, name).await;
    }
    for (gone, left) in [("one", "two"), ("two", "one")] {
        std::fs::remove_file(projects.join(gone)).expect("remove");
        world.expect(EventKind::ProjectRemoved, gone).await;
        put(&world.path("real/project.yml"), &branch(left));
        world.expect(EventKind::ProjectChanged, left).await;
        symlink(world.path("real"), projects.join(gone)).expect("link");
        world.expect(EventKind::ProjectAdded, gone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_chain_of_links_is_watched() {
    let files = [
        ("one/project.yml", branch("one")),
        ("two/project.yml", branch("two")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
    let mut world = World::with(&files).await;
    for dir in ["links", "more", ".config/terok/projects"] {
        std::fs::create_dir_all(world.path(dir)).expect("directory");
    }
    symlink(world.path("one"), world.path("more/last")).expect("link");
    symlink("../more/last", world.path("links/middle")).expect("link");
    let project = world.path(".config/terok/projects/x");
    symlink("../../../links/middle", project).expect("link");
    world.expect(EventKind::ProjectAdded, "x").await;
    world.hears_of("more/last").await;
    world.hears_of("one/project.yml").await;
    // As `ln -sfn` does.
    symlink(world.path("two"), world.path("more/next")).expect("link");
    std::fs::rename(world.path("more/next"), world.path("more/last")).expect("rename");
    world.expect(EventKind::ProjectChanged, "x").await;
    assert_eq!(world.field("x", "default_branch"), "two");
    put(&world.path("two/project.yml"), &branch("three"));
    world.expect(EventKind::ProjectChanged, "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_high_above_may_be_moved_away_and_back() {
    let mut world = World::with(&[(A, ONLINE)]).await;
    let (here, there) = (world.path(".config"), world.path("moved"));
    std::fs::rename(&here, &there).expect("rename");
    world.expect(EventKind::ProjectRemoved, "a").await;
    std::fs::rename(&there, &here).expect("rename");
    world.expect(EventKind::ProjectAdded, "a").await;
    put(&world.yml("a"), &branch("edit"));
    world.expect(EventKind::ProjectChanged, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_hints_set_every_watch_anew_and_lose_no_change() {
    let mut world = World::with(&[(A, ONLINE)]).await;
    world.registry.shared.hints.lose_all();
    world.registry.shared.hints.nudge();
    put(&world.yml("a"), &branch("one"));
    world.expect(EventKind::ProjectChanged, "a").await;
    put(&world.yml("b"), ONLINE);
    world.expect(EventKind::ProjectAdded, "b").await;
    put(&world.yml("b"), &branch("two"));
    world.expect(EventKind::ProjectChanged, "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_compared_on_access_and_from_time_to_time() {
    let mut world = World::limited(&[(A, ONLINE)], 0).await;
    let warning = world.next().await;
    assert_eq!(warning.event.kind, EventKind::DaemonWarning);
    assert_eq!(warning.event.data["kind"], "watch_degraded");
    assert!(world.registry.is_degraded());
    let id = ProjectId::parse("a").expect("id");
    put(&world.yml("a"), &branch("seen"));
    let entry = world.registry.project(&id).expect("healthy");
    let project = entry.project().expect("healthy");
    assert_eq!(project.config.default_branch.as_deref(), Some("seen"));
    world.expect(EventKind::ProjectChanged, "a").await;
    // Nobody asks: the next comparison comes by itself.
    put(&world.yml("b"), ONLINE);
    world.expect(EventKind::ProjectAdded, "b").await;
    put(&world.yml("b"), "project: {id: a}\n");
    let other = ProjectId::parse("b").expect("id");
    let fault = world
        .registry
        .project(&other)
        .expect_err("claims the id of `a`");
    assert_eq!(fault.kind, Kind::InvalidConfig);
    std::fs::remove_file(world.yml("a")).expect("remove");
    let fault = world.registry.project(&id).expect_err("gone");
    assert_eq!(fault.kind, Kind::ProjectNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_though_somebody_keeps_writing() {
    let world = World::with(&[(A, ONLINE)]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = Arc::clone(&stop);
        // Many files, so that there is no moment at which none of them waits.
        let paths: Vec<PathBuf> = (0..8).map(|n| world.yml(&format!("b{n}"))).collect();
        std::thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                for path in &paths {
                    put(path, &branch(&format!("b{n}")));
                }
            }
        })
    };
    put(&world.yml("a"), &branch("barrier"));
    let reload = tokio::time::timeout(Duration::from_secs(20), world.registry.reload());
    let reloaded = reload.await;
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("writer");
    assert!(reloaded.is_ok(), "the reload never ended");
    assert_eq!(world.field("a", "default_branch"), "barrier");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_do_not_exist_yet_are_waited_for() {
    let mut world = World::with(&[]).await;
    put(
        &world.path(".config/terok/config.yml"),
        "default_agent: codex\n",
    );
    world.expect_config().await;
    put(&world.path(".gitconfig"), "[include]\npath = .git.d/me\n");
    world.registry.reload().await;
    put(&world.yml("a"), ONLINE);
    world.expect(EventKind::ProjectAdded, "a").await;
    put(&world.path(".git.d/me"), "[user]\nname = Ada\n");
    let data = world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(data["fields"], json!(["human_name"]));
}

impl World {
    /// Waits until a change of that path would be heard.
    async fn hears_of(&self, path: &str) {
        let path = self.path(path);
        let real = std::fs::canonicalize(path.parent().expect("a parent")).expect("a directory");
        let real = real.join(path.file_name().expect("a name"));
        let deadline = Instant::now() + Duration::from_secs(20);
        // Watches are known by the path that led to them, whichever that is.
        while !self.watched_paths().contains(&real) {
            assert!(
                Instant::now() < deadline,
                "{} is not watched",
                real.display()
            );
            tokio::task::yield_now().await;
        }
    }

    fn watched_paths(&self) -> Vec<PathBuf> {
        self.registry.shared.hints.places()
    }
}
