//! Real directories, real inotify: what editors and git do to files, and what readers are told.

use super::*;
use crate::events::{Filter, Published, Start, Subscription};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use terok_proto::events::EventKind;
use tokio::time::Instant;

mod looks;
mod trees;

const ONLINE: &str = "project: {security_class: online}\n";

struct World {
    home: TempDir,
    registry: Registry,
    events: Subscription,
    bus: Bus,
}

impl World {
    async fn with(files: &[(&str, &str)]) -> Self {
        Self::limited(files, watch::MAX_WATCHES).await
    }

    async fn limited(files: &[(&str, &str)], max_watches: usize) -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            put(&home.path().join(path), text);
        }
        let system = home.path().join("system").display().to_string();
        let vars = [("PATH", "/usr/bin:/bin"), ("TEROK_CONFIG_DIR", &system)];
        let env = Arc::new(Environment::new(vars, home.path()));
        let bus = Bus::new();
        let events = bus.subscribe(Filter::default(), Start::Now);
        let registry = Registry::start_with(env, bus.clone(), Tasks::default(), max_watches)
            .await
            .expect("start");
        // The watches are armed once the first request is answered.
        registry.reload().await;
        Self {
            home,
            registry,
            events,
            bus,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// The daemon's own look at a project, which lets everything else settle.
    async fn look(&self, id: &str) {
        let id = ProjectId::parse(id).expect("id");
        self.registry.refresh(&id).await;
    }

    fn yml(&self, id: &str) -> PathBuf {
        self.path(&format!(".config/terok/projects/{id}/project.yml"))
    }

    async fn next(&mut self) -> Arc<Published> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.events.next());
        next.await
            .expect("an event within the deadline")
            .expect("the bus lives")
    }

    async fn expect(&mut self, kind: EventKind, project: &str) -> serde_json::Value {
        let event = self.next().await;
        assert_eq!(
            (event.event.kind, event.event.project_id.as_deref()),
            (kind, Some(project)),
            "{}",
            event.raw
        );
        event.event.data.clone()
    }

    fn field(&self, id: &str, field: &str) -> serde_json::Value {
        let snapshot = self.registry.snapshot();
        let entry = snapshot.projects.get(id).expect("the project is known");
        let config = entry.config_text().expect("the project is healthy");
        serde_json::from_str::<serde_json::Value>(config).expect("JSON")[field].clone()
    }
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    std::fs::write(path, text).expect("write");
}

fn branch(name: &str) -> String {
    format!("{ONLINE}git: {{default_branch: {name}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_place_and_one_by_rename_arrive_once_each() {
    let mut world = World::with(&[(".config/terok/projects/a/project.yml", ONLINE)]).await;
    put(&world.yml("a"), &branch("one"));
    let data = world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(
        data,
        json!({"fields": ["default_branch"], "repaired": false})
    );
    let temporary = world.yml("a").with_file_name(".project.yml.swp");
    put(&temporary, &branch("two"));
    std::fs::rename(&temporary, world.yml("a")).expect("rename");
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.field("a", "default_branch"), "two");
    world.registry.reload().await;
    assert_eq!(world.bus.seq(), 2, "nothing but the two edits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_away_for_a_moment_is_not_removed() {
    let mut world = World::with(&[(".config/terok/projects/a/project.yml", ONLINE)]).await;
    let backup = world.yml("a").with_file_name("project.yml~");
    std::fs::rename(world.yml("a"), &backup).expect("rename");
    put(&world.yml("a"), &branch("vim"));
    std::fs::remove_file(&backup).expect("remove");
    world.expect(EventKind::ProjectChanged, "a").await;
    std::fs::remove_dir_all(world.yml("a").parent().expect("a directory")).expect("remove");
    world.expect(EventKind::ProjectRemoved, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_come_and_go_with_their_directories() {
    let mut world = World::with(&[]).await;
    put(&world.yml("b"), ONLINE);
    world.expect(EventKind::ProjectAdded, "b").await;
    let projects = world.path(".config/terok/projects");
    std::fs::rename(&projects, world.path("elsewhere")).expect("rename");
    world.expect(EventKind::ProjectRemoved, "b").await;
    put(&world.yml("c"), ONLINE);
    world.expect(EventKind::ProjectAdded, "c").await;
    put(&world.yml("c"), &branch("again"));
    world.expect(EventKind::ProjectChanged, "c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_keeps_the_last_good_state_at_hand() {
    let mut world = World::with(&[(".config/terok/projects/a/project.yml", &branch("good"))]).await;
    put(&world.yml("a"), "shield: {no_such_key: 1}\n");
    let data = world.expect(EventKind::ProjectBroken, "a").await;
    assert!(
        data["error"]
            .as_str()
            .is_some_and(|error| error.contains("no_such_key")),
        "{data}"
    );
    let snapshot = world.registry.snapshot();
    assert_eq!(
        snapshot.counts(),
        ProjectCounts {
            valid: 0,
            broken: 1
        }
    );
    let good = snapshot.projects["a"].good().expect("the last good state");
    assert_eq!(good.project.config.default_branch.as_deref(), Some("good"));
    put(&world.yml("a"), &branch("better"));
    let data = world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(
        data,
        json!({"fields": ["default_branch"], "repaired": true})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_behind_links_are_watched_too() {
    let world = World::with(&[("real/project.yml", ONLINE), ("dir/project.yml", ONLINE)]);
    let mut world = world.await;
    let projects = world.path(".config/terok/projects");
    std::fs::create_dir_all(projects.join("file")).expect("directory");
    std::os::unix::fs::symlink(
        world.path("real/project.yml"),
        projects.join("file/project.yml"),
    )
    .expect("link");
    world.expect(EventKind::ProjectAdded, "file").await;
    std::os::unix::fs::symlink(world.path("dir"), projects.join("linked")).expect("link");
    world.expect(EventKind::ProjectAdded, "linked").await;
    put(&world.path("real/project.yml"), &branch("one"));
    world.expect(EventKind::ProjectChanged, "file").await;
    put(&world.path("dir/project.yml"), &branch("two"));
    world.expect(EventKind::ProjectChanged, "linked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn global_settings_reach_every_project_and_a_bad_key_resets_nothing() {
    let mut world = World::with(&[
        (".config/terok/projects/a/project.yml", ONLINE),
        (
            ".config/terok/config.yml",
            "shield: {drop_on_task_run: false}\n",
        ),
    ])
    .await;
    assert_eq!(world.field("a", "shield_drop_on_task_run"), false);
    put(
        &world.path(".config/terok/config.yml"),
        "shield: {drop_on_task_run: false}\ntuii: 1\ndefault_agent: codex\n",
    );
    let config = world.next().await;
    assert_eq!(config.event.kind, EventKind::ConfigChanged);
    assert_eq!(config.event.data["keys"], json!(["default_agent"]));
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.field("a", "shield_drop_on_task_run"), false);
    assert_eq!(world.registry.snapshot().problems().len(), 1);
    put(
        &world.path(".config/terok/config.yml"),
        "shield: {drop_on_task_run: false}\n",
    );
    world.expect_config().await;
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.registry.snapshot().problems().len(), 0);
    put(&world.path(".gitconfig"), "[user]\nname = Ada\n");
    world.expect(EventKind::ProjectChanged, "a").await;
    assert_eq!(world.field("a", "human_name"), "Ada");
}

impl World {
    /// One event of that kind for each of `p000` to `p199`, in whatever order their files settled.
    async fn expect_each(&mut self, kind: EventKind) {
        let mut open: HashSet<String> = (0..200).map(|n| format!("p{n:03}")).collect();
        while !open.is_empty() {
            let event = self.next().await;
            let project = event.event.project_id.as_deref().unwrap_or_default();
            assert_eq!(event.event.kind, kind, "{}", event.raw);
            assert!(open.remove(project), "twice or never there: {}", event.raw);
        }
    }

    async fn expect_config(&mut self) {
        assert_eq!(self.next().await.event.kind, EventKind::ConfigChanged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_is_a_barrier_and_many_files_make_one_step() {
    let mut world = World::with(&[]).await;
    for n in 0..200 {
        put(&world.yml(&format!("p{n:03}")), ONLINE);
    }
    assert_eq!(
        world.registry.reload().await,
        ProjectCounts {
            valid: 200,
            broken: 0
        }
    );
    world.expect_each(EventKind::ProjectAdded).await;
    for n in 0..200 {
        put(&world.yml(&format!("p{n:03}")), &branch("all"));
        assert!(n != 199 || world.registry.reload().await.valid == 200);
    }
    assert_eq!(world.field("p000", "default_branch"), "all");
    assert_eq!(world.field("p199", "default_branch"), "all");
    world.expect_each(EventKind::ProjectChanged).await;
    assert_eq!(world.bus.seq(), 400, "one for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_directories_that_claim_one_id_break_each_other_until_one_gives_way() {
    let mut world = World::with(&[(".config/terok/projects/a/project.yml", ONLINE)]).await;
    put(
        &world.yml("b"),
        "project: {id: a, security_class: online}\n",
    );
    let (first, second) = (world.next().await, world.next().await);
    assert_eq!(
        [first.event.kind, second.event.kind],
        [EventKind::ProjectBroken; 2]
    );
    put(&world.yml("b"), ONLINE);
    let (first, second) = (world.next().await, world.next().await);
    assert_eq!(
        [first.event.kind, second.event.kind],
        [EventKind::ProjectChanged; 2]
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_waits_five_seconds_and_then_hears_that_the_project_is_busy() {
    let locks = Locks::default();
    let id = |text| ProjectId::parse(text).expect("id");
    let held = locks.write(&[id("b"), id("a")]).await.expect("free");
    let begin = Instant::now();
    let refused = locks.read(&[id("a")]).await.expect_err("busy");
    assert_eq!(refused.kind, Kind::ProjectBusy);
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
    drop(held);
    let (first, second) = (locks.read(&[id("a")]).await, locks.read(&[id("a")]).await);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn all_locks_together_are_waited_for_five_seconds_at_most() {
    let locks = Arc::new(Locks::default());
    let id = |text| ProjectId::parse(text).expect("id");
    let first = locks.write(&[id("a")]).await.expect("free");
    let _second = locks.write(&[id("b")]).await.expect("free");
    let begin = Instant::now();
    let waiting = {
        let locks = Arc::clone(&locks);
        tokio::spawn(async move { locks.write(&[id("b"), id("a")]).await })
    };
    // It waits for `a` from now on, and for `b` with what is left of its time.
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(4)).await;
    drop(first);
    let refused = waiting.await.expect("no panic").expect_err("busy");
    assert_eq!(refused.data["project_id"], "b");
    assert!(begin.elapsed() <= Duration::from_millis(5_010));
}

#[tokio::test]
async fn locks_that_nobody_holds_are_forgotten() {
    let locks = Locks::default();
    for n in 0..1_000 {
        let id = ProjectId::parse(&format!("p{n}")).expect("id");
        let _ = locks.write(&[id]).await.expect("free");
    }
    assert!(locks.known() <= 2, "{}", locks.known());
}
