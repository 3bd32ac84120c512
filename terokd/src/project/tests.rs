//! Deriving, deleting and the like over real directories and a real registry.

use super::delete::{self, DeleteOptions};
use super::derive::{DeriveOptions, derive};
use super::journal::{self, Phase};
use super::*;
use crate::ops::OpSpec;
use crate::store::Store;
use crate::tasks::Tasks;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use terok_proto::panic::PanicResult;

/// A home directory with a daemon's inside over it.
struct World {
    dir: tempfile::TempDir,
    domain: Domain,
    ops: Ops,
    tasks: Tasks,
}

fn places(home: &Path) -> [(&'static str, String); 5] {
    let at = |tail: &str| home.join(tail).to_string_lossy().into_owned();
    [
        ("$CONFIG", at("home/.config/terok")),
        ("$DATA", at("home/.local/share/terok")),
        ("$CACHE", at("home/.cache/terok")),
        ("$SYSTEM", at("system")),
        ("$HOME", at("home")),
    ]
}

fn real(home: &Path, text: &str) -> String {
    let mut text = text.to_owned();
    for (name, path) in places(home) {
        text = text.replace(name, &path);
    }
    text
}

impl World {
    async fn new(files: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let files: Vec<(String, Value)> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), Value::from(*text)))
            .collect();
        let env: Vec<(String, String)> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self::build(&files, &env).await
    }

    async fn build(files: &[(String, Value)], env: &[(String, String)]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for sub in ["home", "system"] {
            fs::create_dir(dir.path().join(sub)).expect("create");
        }
        for (path, content) in files {
            put(dir.path(), path, content);
        }
        let home = dir.path().join("home");
        let env = env
            .iter()
            .map(|(name, value)| (name.clone(), real(dir.path(), value)));
        let env = Arc::new(Environment::new(env, home));
        let (bus, tasks) = (Bus::new(), Tasks::default());
        let registry = Registry::start(Arc::clone(&env), bus.clone(), tasks.clone());
        let registry = registry.await.expect("registry");
        let store = Store::open(&dir.path().join("store/state.db")).await;
        let store = store.expect("store");
        let (ops, _) = Ops::open(store.clone(), bus.clone(), tasks.clone())
            .await
            .expect("operations");
        let nowhere = terok_vault::SessionBus::Disabled;
        let vault = crate::vault::start(&registry, &bus, &tasks, nowhere);
        let gates = crate::gates::Gates::new(
            Arc::clone(&env),
            registry.clone(),
            bus.clone(),
            tasks.clone(),
            vault.clone(),
        );
        let images = crate::images::Images::start(
            Arc::clone(&env),
            registry.clone(),
            bus.clone(),
            tasks.clone(),
            store,
            dir.path(),
        );
        let domain = Domain::new(env, registry, bus, vault, gates, images);
        Self {
            dir,
            domain,
            ops,
            tasks,
        }
    }

    fn path(&self, text: &str) -> PathBuf {
        PathBuf::from(real(self.dir.path(), text))
    }

    fn symbolic(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, path) in places(self.dir.path()) {
            text = text.replace(&path, name);
        }
        text
    }

    fn paths(&self) -> Arc<terok_config::paths::Paths> {
        Arc::clone(&self.domain.registry.snapshot().paths)
    }

    async fn delete(&self, id: &str) -> Result<DeleteProjectResult, Fault> {
        self.delete_with(id, DeleteOptions::default()).await
    }

    async fn delete_with(
        &self,
        id: &str,
        options: DeleteOptions,
    ) -> Result<DeleteProjectResult, Fault> {
        let id = ProjectId::parse(id)?;
        let domain = self.domain.clone();
        let spec = OpSpec {
            method: "delete_project",
            project_id: Some(id.as_str().to_owned()),
            task_id: None,
            params: Value::Null,
            resumable: true,
        };
        let started = self
            .ops
            .start(spec, move |cx| async move {
                let result = delete(&domain, &cx, &id, options).await?;
                Ok(serde_json::to_value(result).expect("plain data"))
            })
            .await?;
        let text = started.done.await?;
        Ok(serde_json::from_str(text.get()).expect("a result"))
    }

    async fn end(self) {
        self.tasks.stop().await;
    }
}

fn put(home: &Path, path: &str, content: &Value) {
    let path = PathBuf::from(real(home, path));
    fs::create_dir_all(path.parent().expect("absolute")).expect("create");
    match content {
        Value::String(text) => fs::write(path, real(home, text)).expect("write"),
        other if other.get("dir").is_some() => fs::create_dir_all(path).expect("create"),
        other => {
            let target = other["symlink"].as_str().expect("a kind of file");
            symlink(real(home, target), path).expect("link");
        }
    }
}

fn vectors(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/../tests/vectors/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(&path).expect("the recorded vectors");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let core = cases.into_iter().filter(|case| case["class"] == "core");
    let core: Vec<Value> = core.collect();
    assert!(!core.is_empty());
    core
}

async fn world_of(case: &Value) -> World {
    let input = &case["input"];
    let files: Vec<(String, Value)> = input["files"]
        .as_object()
        .expect("files")
        .iter()
        .map(|(path, content)| (path.clone(), content.clone()))
        .collect();
    let env: Vec<(String, String)> = input["env"]
        .as_object()
        .expect("env")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    World::build(&files, &env).await
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|item| item.as_str().expect("text").to_owned())
        .collect()
}

fn archive_files(path: &Path) -> BTreeSet<String> {
    let file = fs::File::open(path).expect("archive");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let names = archive.entries().expect("entries").map(|entry| {
        let entry = entry.expect("entry");
        entry.path().expect("path").to_string_lossy().into_owned()
    });
    names.filter(|name| name != "MANIFEST.json").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_as_recorded() {
    for case in vectors("delete_project") {
        let name = case["name"].as_str().expect("name");
        let world = world_of(&case).await;
        let want = &case["expect"]["ok"];
        let outcome = world
            .delete(case["input"]["project_id"].as_str().expect("id"))
            .await;
        if want.get("failed").is_some() {
            let fault = outcome.expect_err(name);
            assert!(
                matches!(fault.kind, Kind::ProjectNotFound | Kind::InvalidConfig),
                "{name}: {fault:?}"
            );
        } else {
            let result = outcome.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
            let got: Vec<String> = result
                .deleted
                .iter()
                .map(|text| world.symbolic(text))
                .collect();
            assert_eq!(got, texts(&want["deleted"]), "{name}");
            let got: Vec<String> = result
                .skipped
                .iter()
                .map(|text| world.symbolic(text))
                .collect();
            // Recorded with a locked vault; without a vault file there is no entry (§8.2, step 4).
            let wanted: Vec<String> = texts(&want["skipped"])
                .into_iter()
                .filter(|text| !text.starts_with("vault locked"))
                .collect();
            assert_eq!(got, wanted, "{name}");
            let archive = PathBuf::from(result.archive.expect("an archive"));
            let wanted: BTreeSet<String> = texts(&want["archive_members"]).into_iter().collect();
            assert_eq!(archive_files(&archive), wanted, "{name}");
            let shown = world.symbolic(&archive.to_string_lossy());
            let (start, end) = shown
                .split_once("archive/")
                .expect("in the archive directory");
            assert_eq!(start, "$DATA/", "{name}");
            let id = case["input"]["project_id"].as_str().expect("id");
            assert!(
                end.len() == "20260315T120000123456Z_.tar.gz".len() + id.len(),
                "{name}: {end}"
            );
            let id = ProjectId::parse(id).expect("id");
            let fault = world.domain.registry.project(&id).expect_err("gone");
            assert_eq!(fault.kind, Kind::ProjectNotFound, "{name}");
        }
        for (path, kind) in want["tree_after"].as_object().expect("tree") {
            if path.contains("TIMESTAMP") {
                continue;
            }
            let path = world.path(path);
            let there = if kind == "dir" {
                path.is_dir()
            } else {
                path.is_file()
            };
            assert!(there, "{name}: {}", path.display());
        }
        let (journals, problems) = journal::left(&world.paths());
        assert!(journals.is_empty() && problems.is_empty(), "{name}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn derives_as_recorded() {
    for case in vectors("derive_project") {
        let name = case["name"].as_str().expect("name");
        let world = world_of(&case).await;
        let source =
            ProjectId::parse(case["input"]["source_id"].as_str().expect("id")).expect("id");
        let new = case["input"]["new_id"].as_str().expect("id");
        let outcome = derive(&world.domain, &source, new, DeriveOptions::default()).await;
        if case["expect"].get("error").is_some() {
            let fault = outcome.expect_err(name);
            assert!(
                matches!(
                    fault.kind,
                    Kind::ProjectNotFound | Kind::InvalidConfig | Kind::AlreadyExists
                ),
                "{name}: {fault:?}"
            );
            world.end().await;
            continue;
        }
        let project = outcome.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
        assert_eq!(project.id, new, "{name}");
        let want = &case["expect"]["ok"];
        let root = world.path(want["root"].as_str().expect("root"));
        let mut files: Vec<String> = fs::read_dir(&root)
            .expect("root")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        files.sort();
        assert_eq!(files, texts(&want["files"]), "{name}");
        let text = fs::read_to_string(root.join("project.yml")).expect("text");
        let parsed = terok_config::yaml::parse(&world.symbolic(&text))
            .expect("YAML")
            .value;
        assert_eq!(parsed, want["parsed"], "{name}");
        let entry = world
            .domain
            .registry
            .project(&ProjectId::parse(new).expect("id"));
        assert!(entry.is_ok(), "{name}: the registry knows it at once");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_sharers_as_recorded() {
    for case in vectors("projects_sharing_gate") {
        let world = world_of(&case).await;
        let input = &case["input"];
        let path = world.path(input["gate_path"].as_str().expect("path"));
        let found = find_sharing_gate(&world.domain, &path, input["exclude_project"].as_str());
        let found = serde_json::to_value(found.expect("found")).expect("plain data");
        assert_eq!(found, case["expect"]["ok"], "{}", case["name"]);
        world.end().await;
    }
}

#[test]
fn reports_as_recorded() {
    for case in vectors("format_panic_report") {
        let result: PanicResult =
            serde_json::from_value(case["input"]["result"].clone()).expect("a result");
        assert_eq!(
            crate::panic::report(&result),
            case["expect"]["ok"]["text"],
            "{}",
            case["name"]
        );
    }
}

const DEMO: (&str, &str) = (
    "$CONFIG/projects/demo/project.yml",
    "project: {security_class: online}\n",
);
const GATE: (&str, &str) = ("$DATA/sandbox/gate/demo.git/HEAD", "x");

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_sibling_keeps_its_gate() {
    let stated = "nonsense: 1\ngate: {path: '$DATA/sandbox/gate/demo.git'}\n";
    for (sibling, said) in [(stated, "`twin`"), ("project: [", "`twin`")] {
        let twin = ("$CONFIG/projects/twin/project.yml", sibling);
        let world = World::new(&[DEMO, GATE, twin], &[]).await;
        let result = world.delete("demo").await.expect("deleted");
        assert!(world.path(GATE.0).exists());
        assert_eq!(result.skipped.len(), 1, "{:?}", result.skipped);
        assert!(result.skipped[0].contains(said), "{:?}", result.skipped);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_storage_stays() {
    let at = "$DATA/sandbox-live/shared";
    let own = format!("project: {{security_class: online}}\ntasks: {{root: {at}}}\n");
    for other in [
        at.to_owned(),
        format!("{at}/below"),
        "$DATA/sandbox-live".to_owned(),
    ] {
        let twin = format!("tasks: {{root: {other}}}\n");
        let world = World::new(
            &[
                (DEMO.0, &own),
                ("$CONFIG/projects/twin/project.yml", &twin),
                ("$DATA/sandbox-live/shared/t1/file", "x"),
            ],
            &[],
        )
        .await;
        let result = world.delete("demo").await.expect("deleted");
        assert!(
            world.path("$DATA/sandbox-live/shared/t1/file").exists(),
            "{other}"
        );
        assert!(
            result.skipped[0].starts_with("Tasks root "),
            "{:?}",
            result.skipped
        );
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_everything_are_no_gates() {
    for gate in [
        "$DATA/core",
        "$DATA/sandbox",
        "$DATA/sandbox/gate",
        "$DATA",
        "$DATA/core/projects",
    ] {
        let own = format!("project: {{security_class: online}}\ngate: {{path: '{gate}'}}\n");
        let head = format!("{gate}/HEAD");
        let world = World::new(&[(DEMO.0, &own), (&head, "x")], &[]).await;
        let result = world.delete("demo").await.expect("deleted");
        assert!(world.path(&head).exists(), "{gate}");
        assert!(
            result.skipped.iter().any(|text| text.starts_with("Gate ")),
            "{gate}"
        );
        world.end().await;
    }
    let world = World::new(&[DEMO, ("$DATA/sandbox/gate/demo.git/notes", "x")], &[]).await;
    world.delete("demo").await.expect("deleted");
    assert!(
        world.path("$DATA/sandbox/gate/demo.git/notes").exists(),
        "no HEAD, no gate"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_project_loses_only_its_link() {
    let world = World::new(
        &[(
            "$HOME/elsewhere/project.yml",
            "project: {security_class: online}\n",
        )],
        &[],
    )
    .await;
    let projects = world.path("$CONFIG/projects");
    fs::create_dir_all(&projects).expect("create");
    symlink(world.path("$HOME/elsewhere"), projects.join("demo")).expect("link");
    world.domain.registry.reload().await;
    let result = world.delete("demo").await.expect("deleted");
    assert!(projects.join("demo").symlink_metadata().is_err());
    assert!(world.path("$HOME/elsewhere/project.yml").exists());
    assert!(
        result.skipped[0].contains("symbolic link"),
        "{:?}",
        result.skipped
    );
    assert!(
        archive_files(Path::new(&result.archive.expect("archive"))).contains("config/project.yml")
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_touches_nothing_and_panic_forbids_the_rest() {
    let vault = ("$DATA/vault/credentials.db", "sealed");
    let meta = ("$DATA/core/projects/demo/tasks/k3m9p.yml", "mode: cli\n");
    let world = World::new(&[DEMO, GATE, vault, meta], &[]).await;
    let lock = world.path("$DATA/core/panic.lock");
    fs::write(&lock, "").expect("lock");
    let options = DeleteOptions {
        dry_run: true,
        keep_images: true,
    };
    let plan = world.delete_with("demo", options).await.expect("a plan");
    assert_eq!(plan.archive, None);
    assert!(
        plan.structured
            .iter()
            .any(|step| step.what == "gate" && step.outcome == "planned")
    );
    let sealed = "vault locked — SSH key assignments for scope 'demo' remain in the encrypted DB";
    assert_eq!(plan.skipped, [sealed]);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(
        plan.warnings[0].contains("demo-cli-k3m9p"),
        "{:?}",
        plan.warnings
    );
    assert!(world.path(DEMO.0).exists() && !world.path("$DATA/archive").exists());
    let fault = world.delete("demo").await.expect_err("panicked");
    assert_eq!(fault.kind, Kind::Panicked);
    let id = ProjectId::parse("demo").expect("id");
    let fault = derive(&world.domain, &id, "twin", DeriveOptions::default()).await;
    assert_eq!(fault.expect_err("panicked").kind, Kind::Panicked);
    fs::remove_file(lock).expect("unlock");
    let done = world.delete("demo").await.expect("deleted");
    assert_eq!(done.deleted, plan.deleted);
    let leftover = world.path("$DATA/core/terokd/vault-pending.json");
    assert!(
        fs::read_to_string(leftover)
            .expect("leftover")
            .contains("demo")
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_project_reveals_the_systems() {
    let system = ("$SYSTEM/projects/demo/project.yml", DEMO.1);
    let world = World::new(&[DEMO, system], &[("TEROK_CONFIG_DIR", "$SYSTEM")]).await;
    let result = world.delete("demo").await.expect("deleted");
    assert!(result.reveals_system_project);
    let id = ProjectId::parse("demo").expect("id");
    let entry = world.domain.registry.project(&id).expect("the system's");
    assert!(entry.root().starts_with(world.dir.path().join("system")));
    world.end().await;
}

/// Somebody who stops at the nth question, like a crash that no destructor sees.
struct Until(usize, Nobody);

impl delete::Watch for Until {
    fn check(&mut self) -> Result<(), Fault> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| Fault::new(Kind::Cancelled, "stop"))?;
        Ok(())
    }

    fn phase(&mut self, _: &'static str) {}

    fn ends(&mut self) -> &mut dyn delete::Ends {
        &mut self.1
    }
}

/// A vault without keys, and nobody who waits for an answer.
struct Nobody;

impl delete::Ends for Nobody {
    fn drop_keys(&mut self, _: &str) -> Result<terok_vault::Unassigned, Fault> {
        Ok(terok_vault::Unassigned::Done(0))
    }

    fn drop_images(&mut self, _: &str) -> Result<crate::images::Dropped, Fault> {
        Ok(crate::images::Dropped::default())
    }

    fn drop_tokens(&mut self, _: &str) -> Result<usize, Fault> {
        Ok(0)
    }

    fn settled(&mut self, _: &journal::Journal, _: &DeleteProjectResult) {}
}

fn prepared(world: &World) -> delete::Prepared {
    let snapshot = world.domain.registry.snapshot();
    let id = ProjectId::parse("demo").expect("id");
    let candidate = files::find(&snapshot.paths, &id).expect("there");
    let context = context(&snapshot, &world.domain.env);
    let load = files::load_one(&candidate, context);
    delete::prepare(
        &load,
        &snapshot.paths,
        &world.domain.env,
        &[],
        plan::OwnImages::Kept,
        plan::Keys::Assigned(0),
        None,
    )
    .expect("a plan")
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_undoes_everything() {
    let world = World::new(&[DEMO, GATE, ("$CONFIG/projects/demo/x/y", "z")], &[]).await;
    let mut stopped = 0;
    for questions in 0.. {
        let outcome = delete::run(
            prepared(&world),
            &world.paths(),
            &mut Until(questions, Nobody),
        );
        let archives = fs::read_dir(world.path("$DATA/archive")).map_or(0, Iterator::count);
        assert!(journal::left(&world.paths()).0.is_empty());
        if outcome.is_ok() {
            assert_eq!(archives, 1);
            break;
        }
        stopped += 1;
        assert_eq!(archives, 0, "after {questions} questions");
        assert!(world.path(DEMO.0).exists() && world.path(GATE.0).exists());
    }
    assert!(stopped >= 4, "{stopped}");
    assert!(
        !world.path("$CONFIG/projects/demo").exists()
            && !world.path("$DATA/sandbox/gate/demo.git").exists()
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finishes_or_undoes() {
    for renamed in [false, true] {
        let world = World::new(&[DEMO, GATE], &[]).await;
        let mut journal = prepared(&world).journal;
        journal.phase = Phase::Removing;
        journal.operation_id = Some("op".into());
        journal.write(&world.paths()).expect("journal");
        let deletions = world.paths().terokd_dir.join("deletions");
        fs::write(deletions.join(".terokd-Ab12xZ.tmp"), "half a jour").expect("a torn write");
        if renamed {
            let config = world.path("$CONFIG/projects/demo");
            let aside = config.with_file_name(format!("demo.deleting-{}", journal.uuid));
            fs::rename(&config, aside).expect("rename");
        }
        let answers = resume_deletions(&world.domain, &world.ops).await;
        assert_eq!(answers["op"].is_ok(), renamed);
        assert_eq!(world.path(DEMO.0).exists(), !renamed);
        assert_eq!(world.path(GATE.0).exists(), !renamed);
        let left = fs::read_dir(world.path("$CONFIG/projects"))
            .expect("projects")
            .count();
        assert_eq!(left, usize::from(!renamed));
        assert_eq!(fs::read_dir(deletions).expect("a directory").count(), 0);
        let id = ProjectId::parse("demo").expect("id");
        assert_eq!(world.domain.registry.project(&id).is_ok(), !renamed);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deriving_drops_shared_directories_and_copies_on_request() {
    let text = "project: {id: demo}\ntasks: {root: $HOME/t}\ngatekeeping: {staging_root: $HOME/s}\n\
                image: {user_snippet_file: sub/x.dockerfile}\n";
    let world = World::new(
        &[
            (DEMO.0, text),
            ("$CONFIG/projects/demo/sub/x.dockerfile", "RUN true\n"),
            ("$CONFIG/projects/demo/presets/p.yml", "model: x\n"),
            ("$CONFIG/projects/demo/instructions.md", "be nice\n"),
            ("$DATA/vault/credentials.db", "sealed"),
        ],
        &[],
    )
    .await;
    let leftover = world.path("$CONFIG/projects/.twin.deriving-00112233445566778899aabbccddeeff");
    fs::create_dir(&leftover).expect("leftover");
    resume_deletions(&world.domain, &world.ops).await;
    assert!(!leftover.exists());
    let id = ProjectId::parse("demo").expect("id");
    let fault = derive(&world.domain, &id, "twin", DeriveOptions::default())
        .await
        .expect_err("locked");
    assert_eq!(fault.kind, Kind::VaultLocked);
    let plain = DeriveOptions {
        without_keys: true,
        ..DeriveOptions::default()
    };
    let project = derive(&world.domain, &id, "twin", plain.clone())
        .await
        .expect("derived");
    assert_eq!(
        project.dropped.expect("dropped"),
        ["tasks.root", "gatekeeping.staging_root"]
    );
    assert_eq!(project.warnings.expect("warnings").len(), 2);
    assert!(!world.path("$CONFIG/projects/twin/presets").exists());
    let all = DeriveOptions {
        copy: vec!["presets".into(), "snippets".into()],
        ..plain
    };
    let project = derive(&world.domain, &id, "third", all)
        .await
        .expect("derived");
    assert_eq!(project.warnings.expect("warnings").len(), 1);
    for file in ["presets/p.yml", "sub/x.dockerfile", "instructions.md"] {
        assert!(
            world.path("$CONFIG/projects/third").join(file).is_file(),
            "{file}"
        );
    }
    let from = world
        .path("$CONFIG/projects/demo/instructions.md")
        .metadata()
        .expect("source");
    let to = world
        .path("$CONFIG/projects/third/instructions.md")
        .metadata()
        .expect("copy");
    assert_eq!(from.modified().expect("time"), to.modified().expect("time"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_read_and_written_with_care() {
    let world = World::new(&[DEMO], &[]).await;
    let id = ProjectId::parse("demo").expect("id");
    let read = read_yaml(&world.domain, &id).await.expect("text");
    assert_eq!(read.text, DEMO.1);
    let new = "project: {security_class: online}\ndefault_agent: claude\n";
    let fault = write_yaml(&world.domain, &id, new, Some("00"))
        .await
        .expect_err("changed");
    assert_eq!(fault.kind, Kind::EditConflict);
    let fault = write_yaml(&world.domain, &id, "nonsense: 1\n", Some(&read.hash))
        .await
        .expect_err("invalid");
    assert_eq!(fault.kind, Kind::InvalidConfig);
    assert!(!fault.data["errors"].as_array().expect("errors").is_empty());
    write_yaml(&world.domain, &id, new, Some(&read.hash))
        .await
        .expect("written");
    let entry = world.domain.registry.project(&id).expect("healthy");
    let agent = entry
        .project()
        .expect("healthy")
        .config
        .default_agent
        .clone();
    assert_eq!(agent.as_deref(), Some("claude"));
    let fault = set_image_agents(&world.domain, &id, "no-such-agent")
        .await
        .expect_err("unknown");
    assert_eq!(fault.kind, Kind::UnknownAgent);
    set_image_agents(&world.domain, &id, "all,-vibe")
        .await
        .expect("set");
    let agents = world.domain.registry.project(&id).expect("healthy");
    assert_eq!(
        agents.project().expect("healthy").config.agents,
        "all,-vibe"
    );

    let fault = write_new(&world.domain, "../x", "a", false)
        .await
        .expect_err("no id");
    assert_eq!(fault.kind, Kind::InvalidProjectId);
    let fault = write_new(&world.domain, "my-", "a", false)
        .await
        .expect_err("no new id");
    assert_eq!(fault.kind, Kind::InvalidProjectId);
    let path = write_new(&world.domain, "demo", "draft: [", false)
        .await
        .expect("left alone");
    assert!(
        fs::read_to_string(&path)
            .expect("text")
            .contains("all,-vibe")
    );
    let path = write_new(&world.domain, "fresh", "draft: [", false)
        .await
        .expect("a draft");
    assert_eq!(fs::read_to_string(path).expect("text"), "draft: [");
    assert!(
        world.domain.registry.snapshot().projects["fresh"]
            .broken()
            .is_some()
    );
    fs::write(world.path("$CONFIG/projects/file"), "x").expect("file");
    let fault = write_new(&world.domain, "file", "a", false)
        .await
        .expect_err("no directory");
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("uid"), "{fault}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_and_sizes_need_no_podman() {
    let world = World::new(
        &[
            DEMO,
            GATE,
            (
                "$DATA/sandbox-live/tasks/demo/t1/workspace-dangerous/f",
                "12345",
            ),
        ],
        &[],
    )
    .await;
    let id = ProjectId::parse("demo").expect("id");
    let state = state(&world.domain, &id, true).await.expect("state");
    assert!(state.gate && !state.images && state.ssh == Some(false) && !state.vault_locked);
    assert_eq!(state.gate_last_commit, None);
    let detail = storage_detail(&world.domain, &id, false)
        .await
        .expect("sizes");
    assert_eq!((detail.tasks.len(), detail.total_bytes), (1, 5));
    assert!(detail.images_error.is_some() && !detail.incomplete);
    let all = storage_overview(&world.domain, false).await.expect("sizes");
    assert_eq!(
        (all.projects_bytes, all.gates_bytes, all.grand_total),
        (5, 1, 5)
    );
    assert_eq!(all.gates[0].project_ids, ["demo"]);
    world.end().await;
}
