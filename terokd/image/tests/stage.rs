//! Build contexts on disk.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use terok_config::roster::Roster;
use terok_image::hash::Hashes;
use terok_image::layers::{Context, Foundation, L0_FILE, ProjectLayer, Rendered};
use terok_image::manifest::Manifest;
use terok_image::stage::{Stage, sweep};
use terok_proto::Kind;

fn foundation(names: &[&str]) -> Foundation {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Foundation::new("debian:12", None, &names, &Roster::bundled(), None).expect("a foundation")
}

fn context(names: &[&str]) -> Context {
    let project = ProjectLayer::new(true, None, None, None).expect("legal");
    Context::new(Arc::new(Rendered::new(foundation(names))), &project)
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_context_replaces_the_one_before_and_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let build = dir.path().join("build");
    let stage = Stage::new(&build, "demo", None);
    assert!(!stage.has_dockerfiles());
    let big = context(&["claude", "gh"]);
    let paths = stage.write(&big).expect("written");
    assert_eq!(paths.len(), big.files().count());
    assert!(
        paths
            .iter()
            .all(|path| path.starts_with(&build) && path.is_file())
    );
    assert!(stage.has_dockerfiles() && !stage.is_old(&big));
    assert!(build.join("demo/toad-agents").is_dir());

    let own = build.join("demo/notes.txt");
    fs::write(&own, "mine").expect("written");
    fs::write(build.join("demo/scripts/litter"), "").expect("written");
    let small = context(&["gh"]);
    assert!(stage.is_old(&small));
    stage.write(&small).expect("written");
    assert!(!stage.is_old(&small) && stage.is_old(&big));
    assert!(own.is_file());
    assert!(
        !build.join("demo/scripts/litter").exists() && !build.join("demo/toad-agents").exists()
    );
    assert!(!build.join("demo/scripts/install/claude-dev.sh").exists());
    assert_eq!(listing(&build), ["demo"], "nothing temporary is left");
}

#[test]
fn programs_are_executable_and_the_rest_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("temporary directory");
    let stage = Stage::new(dir.path(), "demo", None);
    stage.write(&context(&["claude"])).expect("written");
    let mode = |path: &str| {
        fs::metadata(stage.dir().join(path))
            .expect("there")
            .permissions()
            .mode()
            & 0o111
    };
    assert_ne!(mode("scripts/init-ssh-and-repo.sh"), 0);
    assert_eq!((mode("scripts/terok-env.sh"), mode(L0_FILE)), (0, 0));
}

#[test]
fn an_edited_or_replaced_file_is_noticed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let stage = Stage::new(dir.path(), "demo", None);
    let context = context(&[]);
    stage.write(&context).expect("written");
    let file = stage.dir().join(L0_FILE);
    let text = fs::read_to_string(&file).expect("written");
    fs::write(&file, text.replacen('#', "%", 1)).expect("edited");
    assert!(stage.is_old(&context));
    fs::remove_file(&file).expect("removed");
    assert!(stage.is_old(&context) && !stage.has_dockerfiles());
    std::os::unix::fs::symlink("/dev/zero", &file).expect("linked");
    assert!(stage.is_old(&context));
    stage.write(&context).expect("written");
    assert!(!stage.is_old(&context) && !file.is_symlink());
}

#[test]
fn a_write_that_fails_leaves_the_old_context() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let stage = Stage::new(dir.path(), "demo", None);
    let old = context(&["claude"]);
    stage.write(&old).expect("written");
    // An entry whose file is too long for any file system, met after others were written.
    let name = "x".repeat(250);
    let user = dir.path().join("roster");
    fs::create_dir(&user).expect("created");
    let entry = "kind: opencode\nbinary: x\ninstall: {run_as_dev: 'RUN true'}\nopencode: {display_name: X, base_url: 'https://x', \
                 preferred_model: m, fallback_model: m, env_var_prefix: X, config_dir: .x, auth_key_url: 'https://x'}\n";
    fs::write(user.join(format!("{name}.yaml")), entry).expect("written");
    let roster = Roster::load(&user);
    let foundation =
        Foundation::new("debian:12", None, &[name], &roster, None).expect("a foundation");
    let project = ProjectLayer::new(true, None, None, None).expect("legal");
    let broken = Context::new(Arc::new(Rendered::new(foundation)), &project);
    let fault = stage.write(&broken).expect_err("impossible");
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(!stage.is_old(&old));
    assert_eq!(listing(dir.path()), ["demo", "roster"]);
}

#[test]
fn a_gatekeeping_project_keeps_its_staging_root_to_itself() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let own = dir.path().join("demo");
    let stage = Stage::new(dir.path(), "demo", Some(&own));
    assert_eq!(stage.dir(), own.join("image"));
    assert_eq!(stage.manifest(), own.join("build_manifest.json"));
    fs::create_dir_all(own.join("scripts")).expect("created");
    fs::write(own.join("scripts/user"), "").expect("written");
    stage.write(&context(&[])).expect("written");
    assert!(own.join("scripts/user").exists());

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&own, &link).expect("linked");
    assert_eq!(
        Stage::new(dir.path(), "demo", Some(&link)).dir(),
        own.join("image")
    );
    assert_eq!(Stage::new(dir.path(), "demo", Some(dir.path())).dir(), own);
}

#[test]
fn the_manifest_is_replaced_whole() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let stage = Stage::new(&dir.path().join("build"), "demo", None);
    let hashes = Hashes::new("a".into(), "b".into(), "c".into());
    let manifest = Manifest::new("debian:12", None, vec!["gh".into()], &hashes);
    stage.write_manifest(&manifest).expect("written");
    stage.write_manifest(&manifest).expect("written");
    assert_eq!(
        Manifest::read(stage.manifest()).expect("readable"),
        manifest
    );
    assert_eq!(
        listing(stage.manifest().parent().expect("a directory")),
        ["build_manifest.json"]
    );
}

#[test]
fn what_a_killed_daemon_left_goes_at_the_next_start() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir_all(dir.path().join(".terokd-stage-y/scripts")).expect("created");
    fs::create_dir_all(dir.path().join("demo/.terokd-stage-x/scripts")).expect("created");
    fs::create_dir_all(dir.path().join("demo/other")).expect("created");
    sweep(dir.path());
    assert_eq!(listing(dir.path()), ["demo"]);
    assert_eq!(listing(&dir.path().join("demo")), ["other"]);
    sweep(Path::new("/nowhere/at/all"));
}
