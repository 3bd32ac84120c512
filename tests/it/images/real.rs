//! A project's own layer on stand-ins for the layers below, made of busybox: everything that needs no distribution.
//!
//! The daemon starts Podman's service itself, as it does for a user without `podman.socket`.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use terok_tests::{Daemon, World, eventually};

const L0: &str = "localhost/terok-l0:debian-12";
const L1: &str = "localhost/terok-l1-cli:debian-12-codex";
/// Variables that lead to the test's own storage.
const PODMAN_ENV: [&str; 5] = [
    "_LIBCONTAINER_STATEDIR",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "PODMAN_IGNORE_CGROUPSV1_WARNING",
    "XDG_RUNTIME_DIR",
];

/// A world whose daemon finds Podman's program and no service.
pub(super) fn world(yaml: &str) -> World {
    World::new().project("alpha", yaml)
}

/// A daemon with no socket to find. Rootless storage is below the home directory, which is another one here.
pub(super) fn start(world: &World) -> Daemon {
    let (home, path) = (var("HOME"), var("PATH"));
    let program = terok_tests::programs::find("podman").expect("podman");
    let wrapper = format!(
        "#!/bin/sh\nHOME='{home}' exec '{}' \"$@\"\n",
        program.display()
    );
    let wrapper = world.write("$HOME/bin/podman", wrapper);
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = wrapper.parent().unwrap().display().to_string();
    world.start_with(|command| {
        command.env_remove("CONTAINER_HOST");
        command.env("PATH", format!("{dir}:{path}"));
        if nix::unistd::geteuid().is_root() {
            // Root's own places are the machine's.
            command.env("TEROK_ROOT", world.path("$DATA"));
            command.env("TEROK_CONFIG_DIR", world.path("$CONFIG"));
        }
        for name in PODMAN_ENV {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    })
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap()
}

pub(super) fn yaml(snippet: &str) -> String {
    let snippet = serde_json::to_string(snippet).unwrap();
    format!(
        "project: {{security_class: online}}\nimage: {{base_image: 'debian:12', agents: codex, user_snippet_inline: {snippet}}}\n"
    )
}

pub(super) fn podman(arguments: &[&str]) -> String {
    let output = Command::new("podman").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "podman {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn exists(image: &str) -> bool {
    let status = Command::new("podman")
        .args(["image", "exists", image])
        .status();
    status.unwrap().success()
}

/// Builds an image from a text.
pub(super) fn make(tag: &str, dockerfile: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    podman(&[
        "build",
        "-q",
        "--pull=never",
        "-t",
        tag,
        dir.path().to_str().unwrap(),
    ])
}

/// The lower layers, as an older version might have left them: without hashes.
fn lower_layers() {
    let base = std::env::var("TEROK_TEST_BASE_IMAGE").unwrap();
    make(
        L0,
        &format!(
            "FROM {base}\nRUN mkdir -p /home/dev && mkdir -m 777 /workspace && echo 'dev:x:1000:1000::/home/dev:/bin/sh' >> /etc/passwd\n"
        ),
    );
    make(L1, &format!("FROM {L0}\nLABEL ai.terok.agents=codex\n"));
}

/// One test at a time, with nothing of the others' but the base.
pub(super) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    podman(&["rm", "--all", "--force"]);
    let base = var("TEROK_TEST_BASE_IMAGE");
    let kept = podman(&["image", "inspect", &base, "--format", "{{.Id}}"]);
    let all = podman(&["images", "--all", "--quiet", "--no-trunc"]);
    for id in all.lines().filter(|id| !id.ends_with(&kept)) {
        // Those above others take them along.
        let _ = Command::new("podman").args(["rmi", "--force", id]).output();
    }
    lower_layers();
    guard
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

fn state(daemon: &Daemon) -> Value {
    daemon.ok("project.state", json!({"project_id": "alpha"}))
}

/// Starts a build and answers its operation.
fn detach(daemon: &Daemon) -> String {
    let begun = daemon.ok(
        "project.build_images",
        json!({"project_id": "alpha", "detach": true}),
    );
    begun["operation_id"].as_str().unwrap().to_owned()
}

/// `kill -9`; a process that is gone is gone.
fn kill(pid: i32) {
    use nix::sys::signal::{Signal, kill};
    let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
}

/// The end of an operation.
fn finished(events: &mut terok_tests::Events, operation: &str) -> Value {
    loop {
        let end = events.next_of("operation.finished");
        if end["data"]["id"] == operation {
            return end;
        }
    }
}

/// Processes whose command line holds the text.
fn processes(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let pid = entry.file_name().to_str()?.parse().ok()?;
            line.contains(text).then_some(pid)
        })
        .collect()
}

mod here {
    use super::*;

    #[test]
    #[ignore = "needs podman-test-env"]
    fn a_layer_is_built_known_and_built_anew() {
        let _alone = alone();
        let world = world(&yaml("RUN echo one > /snippet"));
        let daemon = start(&world);
        let mut events = daemon.events(json!({}));
        let before = state(&daemon);
        assert_eq!(
            (&before["images"], &before["missing_layers"]),
            (&json!(false), &json!(["l2"]))
        );
        let built = daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        assert_eq!(built["images"].as_array().unwrap().len(), 1, "{built}");
        let image = &built["images"][0];
        assert_eq!(
            (&image["layer"], &image["tag"], &image["cached"]),
            (
                &json!("l2-cli"),
                &json!("localhost/alpha:l2-cli"),
                &json!(false)
            )
        );
        // What the lower layers were made of is not known.
        assert_eq!(built["still_stale"], json!(["l0", "l1"]));
        let event = events.next_about("image.built", "alpha");
        assert_eq!(event["data"]["image_id"], image["image_id"]);
        assert_eq!(
            podman(&[
                "run",
                "--rm",
                "--pull=never",
                "localhost/alpha:l2-cli",
                "cat",
                "/snippet"
            ]),
            "one"
        );
        let labels: Value = serde_json::from_str(&podman(&[
            "image",
            "inspect",
            "localhost/alpha:l2-cli",
            "--format",
            "{{json .Labels}}",
        ]))
        .unwrap();
        assert_eq!(
            (
                &labels["terokd.layer"],
                &labels["terokd.project"],
                &labels["ai.terok.agents"]
            ),
            (&json!("l2-cli"), &json!("alpha"), &json!("codex"))
        );
        assert_eq!(
            labels["terok.build_context_hash"].as_str().unwrap().len(),
            64
        );

        let known = state(&daemon);
        assert_eq!(known["stale_layers"], json!(["l0", "l1"]), "{known}");
        assert_eq!(known["rebuild_set"], json!(["l0", "l1", "l2"]));
        assert_eq!(known["agents_installed"], json!(["codex"]));
        for (agent, installed) in [("codex", true), ("claude", false)] {
            let asked = json!({"project_id": "alpha", "name": agent});
            let provider = daemon.ok("project.agents.get_provider", asked);
            assert_eq!(provider["installed"], installed, "{agent}");
        }
        assert_eq!(
            (
                &known["images"],
                &known["images_old"],
                &known["dockerfiles_old"]
            ),
            (&json!(true), &json!(true), &json!(false))
        );
        assert_eq!(
            daemon.ok("project_image_exists", json!({"project_id": "alpha"})),
            true
        );
        assert_eq!(
            daemon.ok("project_image_exists", json!({"project_id": "beta"})),
            false
        );

        // A changed snippet is seen at once, and by the hash of its layer once it is staged.
        world.write(
            "$CONFIG/projects/alpha/project.yml",
            yaml("RUN echo two > /snippet"),
        );
        daemon.ok("daemon.reload", json!({}));
        assert_eq!(state(&daemon)["dockerfiles_old"], true);
        let paths = daemon.ok(
            "project.generate_dockerfiles",
            json!({"project_id": "alpha"}),
        );
        assert!(
            texts(&paths["paths"])
                .iter()
                .all(|path| Path::new(path).is_file())
        );
        let staged = state(&daemon);
        assert_eq!(
            (&staged["dockerfiles_old"], &staged["stale_layers"]),
            (&json!(false), &json!(["l0", "l1", "l2"]))
        );
        let again = daemon.ok(
            "project.build_images",
            json!({"project_id": "alpha", "include_dev": true}),
        );
        let layers: Vec<&Value> = again["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["layer"])
            .collect();
        assert_eq!(layers, ["l2-cli", "l2-dev"]);
        assert_eq!(state(&daemon)["stale_layers"], json!(["l0", "l1"]));
        assert_eq!(
            podman(&[
                "run",
                "--rm",
                "--pull=never",
                "localhost/alpha:l2-dev",
                "cat",
                "/snippet"
            ]),
            "two"
        );

        // Nothing has changed: the same image, out of the cache, every time.
        for _ in 0..3 {
            let same = daemon.ok("project.build_images", json!({"project_id": "alpha"}));
            assert_eq!(same["images"][0]["cached"], true, "{same}");
            assert_eq!(
                same["images"][0]["image_id"],
                again["images"][0]["image_id"]
            );
        }

        // The manifest is what the state goes by; the log is there to be read.
        let build = world.path("$DATA/core/build/alpha");
        let manifest: Value =
            serde_json::from_slice(&fs::read(build.join("build_manifest.json")).unwrap()).unwrap();
        assert_eq!(
            manifest["l2_cli"]["image_id"],
            again["images"][0]["image_id"]
        );
        assert!(
            fs::read_to_string(build.join("build.log"))
                .unwrap()
                .contains("RUN echo two")
        );

        // Deleting the project takes its images along, and says so.
        let plan = daemon.ok(
            "delete_project",
            json!({"project_id": "alpha", "dry_run": true}),
        );
        assert!(
            texts(&plan["deleted"]).contains(&"image localhost/alpha:l2-cli"),
            "{plan}"
        );
        assert!(exists("localhost/alpha:l2-cli"));
        let deleted = daemon.ok("delete_project", json!({"project_id": "alpha"}));
        for name in [
            "image localhost/alpha:l2-cli",
            "image localhost/alpha:l2-dev",
        ] {
            assert!(texts(&deleted["deleted"]).contains(&name), "{deleted}");
        }
        assert!(!exists("localhost/alpha:l2-cli") && exists(L1));
    }

    #[test]
    #[ignore = "needs podman-test-env"]
    fn a_failed_step_is_told_and_leaves_what_was() {
        let _alone = alone();
        let world = world(&yaml("RUN echo fine"));
        let daemon = start(&world);
        let good = daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        let manifest = world.path("$DATA/core/build/alpha/build_manifest.json");
        let before = fs::read(&manifest).unwrap();
        world.write(
            "$CONFIG/projects/alpha/project.yml",
            yaml("RUN echo a story; exit 7"),
        );
        daemon.ok("daemon.reload", json!({}));
        let error = daemon.fails(
            "project.build_images",
            json!({"project_id": "alpha"}),
            "build_failed",
        );
        assert_eq!(
            (
                &error.data["layer"],
                &error.data["tag"],
                &error.data["exit_code"]
            ),
            (
                &json!("l2-cli"),
                &json!("localhost/alpha:l2-cli"),
                &json!(7)
            ),
            "{error:?}"
        );
        assert!(
            error.data["step"].as_str().unwrap().contains("exit 7"),
            "{error:?}"
        );
        assert!(
            texts(&error.data["lines"]).contains(&"a story"),
            "{error:?}"
        );
        let log = fs::read_to_string(error.data["log"].as_str().unwrap()).unwrap();
        assert!(log.contains("a story"), "{log}");
        assert_eq!(fs::read(&manifest).unwrap(), before);
        let id = podman(&[
            "image",
            "inspect",
            "localhost/alpha:l2-cli",
            "--format",
            "{{.Id}}",
        ]);
        assert_eq!(good["images"][0]["image_id"], format!("sha256:{id}"));

        // What cannot be rendered is refused before anything is built.
        let branch = r#"project: {security_class: online}
git: {upstream_url: "https://example.org/x", default_branch: "x\nRUN touch /pwned"}
image: {base_image: 'debian:12', agents: codex}
"#;
        world.write("$CONFIG/projects/alpha/project.yml", branch);
        daemon.ok("daemon.reload", json!({}));
        for method in ["project.build_images", "project.generate_dockerfiles"] {
            daemon.fails(method, json!({"project_id": "alpha"}), "invalid_config");
        }
        daemon.fails(
            "project.build_images",
            json!({"project_id": "alpha", "agents": "claud"}),
            "unknown_agent",
        );
        daemon.fails(
            "project.build_images",
            json!({"project_id": "nobody"}),
            "project_not_found",
        );
    }

    #[test]
    #[ignore = "needs podman-test-env"]
    fn a_build_can_be_followed_shared_and_cancelled() {
        let _alone = alone();
        let world = world(&yaml("RUN echo begun; sleep 7654"));
        let daemon = start(&world);
        let mut events = daemon.events(json!({}));
        let operation = detach(&daemon);
        loop {
            let log = events.next_of("operation.log");
            if log["data"]["line"] == "begun" {
                break;
            }
        }
        eventually("the step runs", || {
            (!processes("sleep 7654").is_empty()).then_some(())
        });
        for (method, params) in [
            ("project.build_images", json!({"project_id": "alpha"})),
            (
                "project.generate_dockerfiles",
                json!({"project_id": "alpha"}),
            ),
            ("delete_project", json!({"project_id": "alpha"})),
        ] {
            daemon.fails(method, params, "project_busy");
        }
        let running = daemon.ok("operation.get", json!({"id": operation}));
        assert_eq!(running["progress"]["phase"], "l2-cli", "{running}");
        daemon.ok("operation.cancel", json!({"id": operation}));
        let end = finished(&mut events, &operation);
        assert_eq!(end["data"]["state"], "cancelled", "{end}");
        eventually("the step is gone", || {
            processes("sleep 7654").is_empty().then_some(())
        });
        assert!(!exists("localhost/alpha:l2-cli"));
        assert!(
            !world
                .path("$DATA/core/build/alpha/build_manifest.json")
                .exists()
        );
        world.write("$CONFIG/projects/alpha/project.yml", yaml("RUN true"));
        daemon.ok("daemon.reload", json!({}));
        daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        daemon.ok("delete_project", json!({"project_id": "alpha"}));
    }

    #[test]
    #[ignore = "needs podman-test-env"]
    fn a_podman_that_dies_costs_a_build_and_nothing_else() {
        let _alone = alone();
        let world = world(&yaml("RUN echo begun; sleep 8765"));
        let daemon = start(&world);
        daemon.ok("list_images", json!({}));
        let mut events = daemon.events(json!({}));
        let operation = detach(&daemon);
        eventually("the step runs", || {
            (!processes("sleep 8765").is_empty()).then_some(())
        });
        for pid in processes("system service") {
            kill(pid);
        }
        let end = finished(&mut events, &operation);
        assert_eq!(end["data"]["state"], "failed", "{end}");
        let kind = end["data"]["error"]["data"]["kind"].as_str().unwrap();
        assert!(
            ["podman_unavailable", "build_failed"].contains(&kind),
            "{end}"
        );
        assert!(!exists("localhost/alpha:l2-cli"));
        for pid in processes("sleep 8765") {
            kill(pid);
        }
        world.write("$CONFIG/projects/alpha/project.yml", yaml("RUN true"));
        daemon.ok("daemon.reload", json!({}));
        daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        daemon.ok("delete_project", json!({"project_id": "alpha"}));
    }

    #[test]
    #[ignore = "needs podman-test-env"]
    fn only_what_nobody_needs_is_cleaned_up() {
        let _alone = alone();
        let world = world(&yaml("RUN true")).project("broken", &yaml("RUN true"));
        let daemon = start(&world);
        for project in ["alpha", "broken"] {
            daemon.ok("project.build_images", json!({"project_id": project}));
        }
        let ours = |hash: &str| {
            format!("FROM {L1}\nLABEL terok.build_context_hash={hash}\nRUN echo {hash} > /x\n")
        };
        make("localhost/gone:l2-cli", &ours("a1"));
        make("localhost/held:l2-cli", &ours("b2"));
        make(
            "registry.example/some/one:l2-cli",
            "FROM scratch\nLABEL x=y\nCOPY Dockerfile /\n",
        );
        // Two dangling ones, one on the other.
        make("localhost/unnamed:l2-cli", &ours("c3"));
        podman(&["untag", "localhost/unnamed:l2-cli"]);
        let container = podman(&["create", "--pull=never", "localhost/held:l2-cli", "true"]);
        // A broken project is one; so is one whose file cannot be read.
        world.write("$CONFIG/projects/broken/project.yml", "project: [");
        daemon.ok("daemon.reload", json!({}));

        let listed = daemon.ok("list_images", json!({}));
        let names: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["full_name"].as_str().unwrap())
            .collect();
        for name in [
            L0,
            L1,
            "localhost/alpha:l2-cli",
            "localhost/gone:l2-cli",
            "localhost/broken:l2-cli",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with("registry.example")),
            "{names:?}"
        );
        let own = daemon.ok("list_images", json!({"project_id": "alpha"}));
        let own: Vec<&str> = own
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["full_name"].as_str().unwrap())
            .collect();
        assert!(
            own.contains(&L0)
                && own.contains(&"localhost/alpha:l2-cli")
                && !own.contains(&"localhost/gone:l2-cli"),
            "{own:?}"
        );

        let orphans = daemon.ok("find_orphaned_images", json!({}));
        let orphans: Vec<&str> = orphans
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["full_name"].as_str().unwrap())
            .collect();
        assert!(orphans[0].starts_with("<none> ("), "{orphans:?}");
        assert!(
            orphans.contains(&"localhost/gone:l2-cli")
                && orphans.contains(&"localhost/held:l2-cli"),
            "{orphans:?}"
        );
        assert_eq!(orphans.len(), 3, "{orphans:?}");

        // Nothing else goes, whatever a client names.
        let stranger = podman(&[
            "image",
            "inspect",
            "registry.example/some/one:l2-cli",
            "--format",
            "{{.Id}}",
        ]);
        let asked = json!({"images": ["registry.example/some/one:l2-cli", format!("sha256:{stranger}"), L1, "localhost/alpha:l2-cli", "localhost/broken:l2-cli"]});
        let refused = daemon.ok("remove_images", asked);
        assert_eq!(
            (
                refused["removed"].as_array().unwrap().len(),
                refused["failed"].as_array().unwrap().len()
            ),
            (0, 5),
            "{refused}"
        );
        daemon.fails("remove_images", json!({"images": [7]}), "invalid_argument");
        let dry = daemon.ok("cleanup_images", json!({"dry_run": true}));
        assert_eq!(
            (texts(&dry["removed"]).len(), &dry["dry_run"]),
            (3, &json!(true))
        );
        assert!(exists("localhost/gone:l2-cli"));

        let mut events = daemon.events(json!({}));
        let cleaned = daemon.ok("cleanup_images", json!({}));
        assert_eq!(
            texts(&cleaned["failed"]),
            ["localhost/held:l2-cli"],
            "{cleaned}"
        );
        assert_eq!(texts(&cleaned["removed"]).len(), 2, "{cleaned}");
        let gone = events.next_about("image.removed", "gone");
        assert_eq!(gone["data"]["names"], json!(["localhost/gone:l2-cli"]));
        for name in [
            "localhost/alpha:l2-cli",
            "localhost/broken:l2-cli",
            "registry.example/some/one:l2-cli",
            L0,
            L1,
        ] {
            assert!(exists(name), "{name}");
        }
        podman(&["rm", &container]);
        let entry = daemon.ok("find_orphaned_images", json!({}))[0].clone();
        assert_eq!(entry["full_name"], "localhost/held:l2-cli");
        let removed = daemon.ok("remove_images", json!({"images": ["held:l2-cli"]}));
        assert_eq!(texts(&removed["removed"]), ["localhost/held:l2-cli"]);

        // What others do is seen.
        podman(&["rmi", "localhost/alpha:l2-cli"]);
        eventually("it is gone", || {
            (daemon.ok("project_image_exists", json!({"project_id": "alpha"})) == false)
                .then_some(())
        });
        events.next_about("image.removed", "alpha");
        // Orphans depend on knowing the projects.
        podman(&[
            "rmi",
            "localhost/broken:l2-cli",
            "registry.example/some/one:l2-cli",
        ]);
    }

    #[test]
    #[ignore = "needs podman-test-env"]
    fn the_disk_is_accounted_for() {
        let _alone = alone();
        let world = world(&yaml(
            "RUN dd if=/dev/zero of=/big bs=1024 count=500 2>/dev/null",
        ))
        .file(
            "$DATA/sandbox-live/tasks/alpha/g1/workspace-dangerous/f",
            "12345",
        );
        let daemon = start(&world);
        daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        make(
            "localhost/gone:l2-cli",
            &format!("FROM {L1}\nLABEL terok.build_context_hash=a\nRUN true\n"),
        );
        make(
            "localhost/terok-l0:old-1",
            &format!("FROM {L0}\nRUN echo old > /old\nLABEL terokd.layer=l0\n"),
        );
        for name in ["alpha-cli-g1", "alpha-b-cli-g1"] {
            podman(&[
                "run",
                "--name",
                name,
                "--pull=never",
                "localhost/alpha:l2-cli",
                "dd",
                "if=/dev/zero",
                "of=/workspace/mine",
                "bs=1024",
                "count=300",
            ]);
        }
        let detail = daemon.ok(
            "project.storage_detail",
            json!({"project_id": "alpha", "refresh": true}),
        );
        assert!(detail["images_error"].is_null(), "{detail}");
        assert_eq!(detail["images"].as_array().unwrap().len(), 1);
        assert!(
            detail["images_bytes"].as_u64().unwrap() > 512_000,
            "{detail}"
        );
        let image = &detail["images"][0];
        let (shared, unique) = (&image["shared_bytes"], &image["unique_bytes"]);
        // Podman counts the steps of its cache as other images.
        assert!(shared.as_u64().unwrap() > 1_000_000, "{detail}");
        assert_eq!(
            shared.as_u64().unwrap() + unique.as_u64().unwrap(),
            image["size_bytes"].as_u64().unwrap()
        );
        assert_eq!(
            detail["overlays"]
                .as_object()
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            ["alpha-cli-g1"]
        );
        let overlay = detail["tasks"][0]["overlay_bytes"].as_u64().unwrap();
        assert!((300 * 1024..600 * 1024).contains(&overlay), "{detail}");
        let sum: u64 = [
            "images_bytes",
            "workspace_bytes",
            "agent_config_bytes",
            "overlay_bytes",
        ]
        .iter()
        .map(|key| detail[*key].as_u64().unwrap())
        .sum();
        assert_eq!(detail["total_bytes"], sum);
        let overview = daemon.ok("storage.overview", json!({"refresh": true}));
        let rows: Vec<&str> = overview["projects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["project_id"].as_str().unwrap())
            .collect();
        assert_eq!(rows, ["alpha", "(orphans)"], "{overview}");
        let names = |key: &str| -> Vec<String> {
            let list = overview[key].as_array().unwrap();
            list.iter()
                .map(|i| i["full_name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert!(names("global_images").iter().any(|name| name == L1));
        assert_eq!(names("unused_base_images"), ["localhost/terok-l0:old-1"]);
        podman(&["rm", "alpha-cli-g1", "alpha-b-cli-g1"]);
        podman(&[
            "rmi",
            "localhost/gone:l2-cli",
            "localhost/terok-l0:old-1",
            "localhost/alpha:l2-cli",
        ]);
    }
}

mod on_a_small_disk {
    use super::*;

    #[test]
    #[ignore = "needs podman-test-env"]
    fn a_build_fails_with_a_reason_and_the_next_one_works() {
        lower_layers();
        let world = world(&yaml("RUN dd if=/dev/zero of=/big bs=1048576 count=500"));
        let daemon = start(&world);
        let error = daemon.fails(
            "project.build_images",
            json!({"project_id": "alpha"}),
            "build_failed",
        );
        assert!(
            texts(&error.data["lines"])
                .iter()
                .any(|line| line.contains("No space left"))
                || error.message.contains("no space left"),
            "{error:?}"
        );
        assert!(!exists("localhost/alpha:l2-cli"));
        world.write(
            "$CONFIG/projects/alpha/project.yml",
            yaml("RUN echo small > /x"),
        );
        daemon.ok("daemon.reload", json!({}));
        daemon.ok("project.build_images", json!({"project_id": "alpha"}));
        assert!(exists("localhost/alpha:l2-cli"));
    }
}
