//! Files change under the daemon in every way that editors and tools know (projects.md §14.9, config.md §9.1, §9.2).

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use terok_tests::programs::need;
use terok_tests::{Daemon, Events, World};

const ONLINE: &str = "project: {security_class: online}\n";
const GATED: &str = "project: {security_class: gatekeeping}\n";
const YML: &str = "$CONFIG/projects/alpha/project.yml";

fn class(daemon: &Daemon) -> Value {
    daemon.ok("get_project", json!({"project_id": "alpha"}))["security_class"].clone()
}

/// Everything that is told about one project until a marker that is written after it.
fn until_marker(world: &World, events: &mut Events, project: &str) -> Vec<String> {
    world.write("$CONFIG/projects/marker/project.yml", ONLINE);
    let seen = events.until(|e| e["project_id"] == "marker" && e["kind"] == "project.added");
    let about = seen.iter().filter(|e| e["project_id"] == project);
    about
        .map(|e| e["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_project_comes_changes_breaks_heals_and_goes() {
    let world = World::new();
    let daemon = world.start();
    let mut events = daemon.events(json!({"projects": ["alpha"]}));
    world.write(YML, ONLINE);
    assert_eq!(events.receive()["kind"], "project.added");
    assert_eq!(class(&daemon), "online");
    world.write(YML, GATED);
    let changed = events.receive();
    assert_eq!(changed["kind"], "project.changed");
    assert!(
        changed["data"]["fields"]
            .as_array()
            .unwrap()
            .contains(&json!("security_class")),
        "{changed}"
    );
    assert_eq!(changed["data"]["repaired"], false, "{changed}");
    assert_eq!(class(&daemon), "gatekeeping");
    world.write(YML, "projecct: {}\n");
    let broken = events.receive();
    assert_eq!(broken["kind"], "project.broken");
    assert!(
        broken["data"]["error"]
            .as_str()
            .unwrap()
            .contains("projecct"),
        "{broken}"
    );
    daemon.fails(
        "get_project",
        json!({"project_id": "alpha"}),
        "invalid_config",
    );
    world.write(YML, GATED);
    let healed = events.receive();
    assert_eq!(
        (&healed["kind"], &healed["data"]["repaired"]),
        (&json!("project.changed"), &json!(true)),
        "{healed}"
    );
    fs::remove_dir_all(world.path("$CONFIG/projects/alpha")).unwrap();
    assert_eq!(events.receive()["kind"], "project.removed");
    daemon.fails(
        "get_project",
        json!({"project_id": "alpha"}),
        "project_not_found",
    );
}

#[test]
fn a_change_is_told_within_a_second() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["project.changed"]}));
    for text in [GATED, ONLINE, GATED] {
        let begun = std::time::Instant::now();
        world.write(YML, text);
        events.receive();
        assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_save_by_rename_is_one_change() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    world.write_by_rename(YML, GATED);
    assert_eq!(
        until_marker(&world, &mut events, "alpha"),
        ["project.changed"]
    );
    assert_eq!(class(&daemon), "gatekeeping");
}

/// As vim does with `backupcopy=no`: the file is away for a moment.
#[test]
fn a_save_that_moves_the_old_file_away_is_no_removal() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    let path = world.path(YML);
    fs::rename(&path, path.with_extension("yml~")).unwrap();
    world.write(YML, GATED);
    fs::remove_file(path.with_extension("yml~")).unwrap();
    assert_eq!(
        until_marker(&world, &mut events, "alpha"),
        ["project.changed"]
    );
}

#[test]
fn a_real_vim_saves() {
    let Some(vim) = need("vim") else { return };
    let world = World::with_project("alpha");
    let daemon = world.start();
    for backupcopy in ["no", "yes"] {
        let mut events = daemon.events(json!({"projects": ["alpha"]}));
        world.write(YML, ONLINE);
        daemon.ok("daemon.reload", json!({}));
        let status = world
            .command(&vim)
            .args(["-u", "NONE", "-es", "-c"])
            .arg(format!("set backup writebackup backupcopy={backupcopy}"))
            .args(["-c", "%s/online/gatekeeping/", "-c", "wq"])
            .arg(world.path(YML))
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        let changed = events.until(|e| {
            e["data"]["fields"]
                .as_array()
                .is_some_and(|f| !f.is_empty())
        });
        daemon.ok("daemon.reload", json!({}));
        assert_eq!(class(&daemon), "gatekeeping", "{changed:?}");
        assert!(
            changed.iter().all(|e| e["kind"] == "project.changed"),
            "backupcopy={backupcopy}: {changed:?}"
        );
    }
}

#[test]
fn a_file_that_is_being_written_does_not_become_active() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({"projects": ["alpha"]}));
    for round in 0..20 {
        let class = if round % 2 == 0 {
            "gatekeeping"
        } else {
            "online"
        };
        let text = format!(
            "project:\n  security_class: {class}\n  name: \"round {round}\"\nimage:\n  agents: claude\n"
        );
        // In place and in pieces, as a slow editor: cut anywhere it is broken or says something else.
        let mut file = fs::File::create(world.path(YML)).unwrap();
        for piece in text.as_bytes().chunks(7) {
            file.write_all(piece).unwrap();
        }
        drop(file);
        let event = events.receive();
        assert_eq!(event["kind"], "project.changed", "round {round}: {event}");
        assert_eq!(
            daemon.ok("get_project", json!({"project_id": "alpha"}))["display_name"],
            format!("round {round}")
        );
    }
}

#[test]
fn git_checkout_of_many_projects() {
    let Some(git) = need("git") else { return };
    let world = World::new();
    let projects = world.path("$CONFIG/projects");
    world.mkdirs(&projects);
    let run = |args: &[&str]| {
        let output = world
            .command(&git)
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "-c",
                "init.defaultBranch=main",
            ])
            .args(args)
            .current_dir(&projects)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&["init", "-q"]);
    for n in 0..100 {
        world.write(&format!("$CONFIG/projects/p{n}/project.yml"), ONLINE);
    }
    run(&["add", "-A"]);
    run(&["commit", "-qm", "online"]);
    run(&["checkout", "-q", "-b", "other"]);
    for n in 0..100 {
        world.write(&format!("$CONFIG/projects/p{n}/project.yml"), GATED);
    }
    fs::remove_dir_all(projects.join("p99")).unwrap();
    world.write("$CONFIG/projects/p100/project.yml", GATED);
    run(&["add", "-A"]);
    run(&["commit", "-qm", "gated"]);
    run(&["checkout", "-q", "main"]);
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    for (branch, expected) in [("other", "gatekeeping"), ("main", "online")] {
        run(&["checkout", "-q", branch]);
        daemon.ok("daemon.reload", json!({}));
        let listed = daemon.ok("list_projects", json!({}));
        let listed = listed.as_array().unwrap();
        assert_eq!(listed.len(), 100);
        assert!(
            listed.iter().all(|p| p["security_class"] == expected),
            "{branch}"
        );
        let (gone, come) = if branch == "other" {
            ("p99", "p100")
        } else {
            ("p100", "p99")
        };
        let mut open: std::collections::HashSet<String> =
            (0..99).map(|n| format!("p{n}")).collect();
        let (mut removed, mut added) = (false, false);
        while !(open.is_empty() && removed && added) {
            let event = events.receive();
            match event["kind"].as_str().unwrap() {
                "project.changed" => assert!(
                    open.remove(event["project_id"].as_str().unwrap()),
                    "twice: {event}"
                ),
                "project.removed" => removed = event["project_id"] == gone,
                "project.added" => added = event["project_id"] == come,
                other => panic!("{other}: {event}"),
            }
        }
    }
}

#[test]
fn a_reload_is_a_barrier() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    for round in 0..50 {
        let name = format!("round {round}");
        let text = format!("project: {{security_class: online, name: \"{name}\"}}\n");
        if round % 2 == 0 {
            world.write(YML, &text);
        } else {
            world.write_by_rename(YML, &text);
        }
        let counts = daemon.ok("daemon.reload", json!({}));
        assert_eq!(counts, json!({"valid": 1, "broken": 0}));
        assert_eq!(
            daemon.ok("get_project", json!({"project_id": "alpha"}))["display_name"],
            name
        );
    }
}

#[test]
fn directories_may_be_replaced() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    // The project's directory: away and back with something else in it.
    let dir = world.path("$CONFIG/projects/alpha");
    fs::rename(&dir, world.path("$HOME/away")).unwrap();
    events.next_about("project.removed", "alpha");
    world.write(YML, GATED);
    events.next_about("project.added", "alpha");
    world.write(YML, ONLINE);
    events.next_about("project.changed", "alpha");
    // The directory of all projects.
    fs::remove_dir_all(world.path("$CONFIG/projects")).unwrap();
    events.next_about("project.removed", "alpha");
    world.write("$CONFIG/projects/beta/project.yml", ONLINE);
    events.next_about("project.added", "beta");
    world.write("$CONFIG/projects/beta/project.yml", GATED);
    events.next_about("project.changed", "beta");
    // The whole configuration, replaced at once.
    fs::rename(world.path("$CONFIG"), world.path("$HOME/old")).unwrap();
    events.next_about("project.removed", "beta");
    world.write("$HOME/new/projects/gamma/project.yml", ONLINE);
    fs::rename(world.path("$HOME/new"), world.path("$CONFIG")).unwrap();
    events.next_about("project.added", "gamma");
    world.write("$CONFIG/projects/gamma/project.yml", GATED);
    events.next_about("project.changed", "gamma");
}

#[test]
fn a_directory_renamed_into_place_is_seen_with_its_files() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    world.write("$HOME/staged/project.yml", ONLINE);
    fs::rename(
        world.path("$HOME/staged"),
        world.path("$CONFIG/projects/beta"),
    )
    .unwrap();
    events.next_about("project.added", "beta");
    fs::rename(
        world.path("$CONFIG/projects/beta"),
        world.path("$CONFIG/projects/gamma"),
    )
    .unwrap();
    let seen = events.until(|e| e["kind"] == "project.added");
    assert_eq!(seen.last().unwrap()["project_id"], "gamma");
    world.write("$CONFIG/projects/gamma/project.yml", GATED);
    events.next_about("project.changed", "gamma");
}

#[test]
fn what_stands_behind_links_is_watched() {
    let world = World::new()
        .file("$HOME/elsewhere/linked/project.yml", ONLINE)
        .file("$HOME/elsewhere/single.yml", ONLINE)
        .file("$CONFIG/projects/plain/project.yml", ONLINE);
    world.link("$CONFIG/projects/linked", "$HOME/elsewhere/linked");
    world.link(
        "$CONFIG/projects/filelink/project.yml",
        "$HOME/elsewhere/single.yml",
    );
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["project.changed"]}));
    world.write("$HOME/elsewhere/linked/project.yml", GATED);
    assert_eq!(events.receive()["project_id"], "linked");
    world.write_by_rename("$HOME/elsewhere/linked/project.yml", ONLINE);
    assert_eq!(events.receive()["project_id"], "linked");
    world.write("$HOME/elsewhere/single.yml", GATED);
    assert_eq!(events.receive()["project_id"], "filelink");
    world.write_by_rename("$HOME/elsewhere/single.yml", ONLINE);
    assert_eq!(events.receive()["project_id"], "filelink");
}

#[test]
fn an_unreadable_file_is_a_broken_project() {
    let world = World::with_project("alpha").project("beta", ONLINE);
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    fs::set_permissions(world.path(YML), fs::Permissions::from_mode(0o000)).unwrap();
    let broken = events.next_about("project.broken", "alpha");
    assert!(
        broken["data"]["error"]
            .as_str()
            .unwrap()
            .contains("ailed to read"),
        "{broken}"
    );
    let error = daemon.fails(
        "get_project",
        json!({"project_id": "alpha"}),
        "invalid_config",
    );
    assert_eq!(error.data["errors"][0]["code"], "io", "{error:?}");
    fs::set_permissions(world.path(YML), fs::Permissions::from_mode(0o644)).unwrap();
    events.next_about("project.changed", "alpha");
    assert_eq!(
        daemon.ok("daemon.reload", json!({})),
        json!({"valid": 2, "broken": 0})
    );
}

#[test]
fn an_unreadable_directory_hides_its_projects_alone() {
    let world = World::with_project("alpha").project("beta", ONLINE);
    let daemon = world.start();
    let dir = world.path("$CONFIG/projects/alpha");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).unwrap();
    daemon.ok("daemon.reload", json!({}));
    daemon.ok("get_project", json!({"project_id": "beta"}));
    let answer = daemon
        .call("get_project", json!({"project_id": "alpha"}))
        .unwrap_err();
    assert!(
        ["invalid_config", "project_not_found"].contains(&answer.kind()),
        "{answer:?}"
    );
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.ok("daemon.reload", json!({}));
    daemon.ok("get_project", json!({"project_id": "alpha"}));
}

#[test]
fn reading_and_our_own_writing_cause_no_extra_events() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    for _ in 0..5 {
        for method in [
            "get_project",
            "load_project",
            "project.state",
            "project.read_yaml",
            "config.resolve",
        ] {
            daemon.ok(method, json!({"project_id": "alpha"}));
        }
        daemon.ok("discover_projects", json!({}));
        daemon.ok("daemon.reload", json!({}));
    }
    let same = fs::read(world.path(YML)).unwrap();
    world.write(YML, same);
    daemon.ok(
        "set_project_image_agents",
        json!({"project_id": "alpha", "selection": "claude"}),
    );
    let text = daemon.ok("project.read_yaml", json!({"project_id": "alpha"}))["text"]
        .as_str()
        .unwrap()
        .to_owned();
    daemon.ok("project.write_yaml", json!({"project_id": "alpha", "text": format!("# note\n{text}git: {{}}\nshared_dir: true\n")}));
    let told = until_marker(&world, &mut events, "alpha");
    assert_eq!(
        told,
        ["project.changed", "project.changed"],
        "one for each real change"
    );
}

#[test]
fn a_bad_key_keeps_the_last_good_protection() {
    let world = World::with_project("alpha")
        .file("$CONFIG/config.yml", "shield: {drop_on_task_run: false}\n");
    let daemon = world.start();
    let resolved = || {
        let resolved = daemon.ok("config.resolve", json!({"project_id": "alpha"}));
        resolved["values"]["shield.drop_on_task_run"]["value"].clone()
    };
    assert_eq!(resolved(), false);
    for bad in [
        "shield: {drop_on_task_run: false}\ntuii: 1\n",
        "shield: {drop_on_task_run: false, no_such: 1}\n",
        "shield: {drop_on_task_run: 17}\n",
        "shield: [\n",
    ] {
        world.write("$CONFIG/config.yml", "shield: {drop_on_task_run: false}\n");
        daemon.ok("daemon.reload", json!({}));
        world.write("$CONFIG/config.yml", bad);
        daemon.ok("daemon.reload", json!({}));
        assert_eq!(resolved(), false, "{bad}");
        let problems = daemon.ok("config.problems", json!({}));
        let errors: Vec<&Value> = problems
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["severity"] == "error" && p["scope"] == "global")
            .collect();
        assert_eq!(errors.len(), 1, "{bad}: {problems}");
        assert!(
            !daemon.ok("daemon.status", json!({}))["warnings"]
                .as_array()
                .unwrap()
                .is_empty()
        );
    }
    world.write("$CONFIG/config.yml", "shield: {drop_on_task_run: false}\n");
    daemon.ok("daemon.reload", json!({}));
    assert_eq!(daemon.ok("config.problems", json!({})), json!([]));
    world.write("$CONFIG/config.yml", "shield: {drop_on_task_run: true}\n");
    daemon.ok("daemon.reload", json!({}));
    assert_eq!(resolved(), true);
}

#[test]
fn the_global_configuration_is_live() {
    let world = World::with_project("alpha").file(
        "$HOME/.gitconfig",
        "[user]\n\tname = Ada\n\temail = ada@example.com\n",
    );
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["config.changed"]}));
    let human = || daemon.ok("load_project", json!({"project_id": "alpha"}))["human_name"].clone();
    assert_eq!(human(), "Ada");
    world.write("$CONFIG/config.yml", "git: {human_name: Grace}\n");
    let first = events.receive();
    assert!(
        first["data"]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .any(|k| k.as_str().unwrap().starts_with("git")),
        "{first}"
    );
    assert_eq!(human(), "Grace");
    fs::remove_file(world.path("$CONFIG/config.yml")).unwrap();
    let second = events.receive();
    assert!(
        second["data"]["generation"].as_u64() > first["data"]["generation"].as_u64(),
        "{first} {second}"
    );
    assert_eq!(human(), "Ada");
    world.write_by_rename("$HOME/.gitconfig", "[user]\n\tname = Edsger\n");
    daemon.ok("daemon.reload", json!({}));
    assert_eq!(human(), "Edsger");
    assert_eq!(
        daemon.ok("get_project", json!({"project_id": "alpha"}))["config"]["human_name"],
        "Edsger"
    );
}

#[test]
fn an_idle_daemon_is_idle() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    assert_eq!(daemon.children(), Vec::<u32>::new());
    daemon.ok("list_projects", json!({}));
    daemon.ok("project.state", json!({"project_id": "alpha"}));
    assert_eq!(
        daemon.children(),
        Vec::<u32>::new(),
        "listing and state start no child"
    );
}

#[test]
fn a_queue_overflow_loses_nothing() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    // More events than the kernel queues while the daemon is stopped.
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let noise = world.path("$CONFIG/projects/alpha/noise");
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let many = limit.min(200_000) / 3 + 1000;
    for _ in 0..many {
        fs::write(&noise, "x").unwrap();
        fs::rename(&noise, noise.with_extension("y")).unwrap();
    }
    world.write("$CONFIG/projects/beta/project.yml", ONLINE);
    world.write(YML, GATED);
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    terok_tests::eventually("the change is seen", || {
        (class(&daemon) == "gatekeeping").then_some(())
    });
    terok_tests::eventually("the new project is seen", || {
        daemon
            .connect()
            .unchecked("get_project", json!({"project_id": "beta"}))
            .ok()
    });
}

#[test]
fn a_program_may_hold_a_fifo_or_device_in_the_way() {
    let world = World::with_project("alpha");
    world.mkdirs(&world.path("$CONFIG/projects/pipe"));
    let status = Command::new("mkfifo")
        .arg(world.path("$CONFIG/projects/pipe/project.yml"))
        .status()
        .unwrap();
    assert!(status.success());
    world.mkdirs(&world.path("$CONFIG/projects/dir/project.yml"));
    world.link("$CONFIG/projects/zero/project.yml", "/dev/zero");
    world.link("$CONFIG/projects/loop", "$CONFIG/projects/loop");
    let daemon = world.start();
    let found = daemon.ok("discover_projects", json!({}));
    assert_eq!(found["projects"].as_array().unwrap().len(), 1, "{found}");
    daemon.fails(
        "load_project",
        json!({"project_id": "pipe"}),
        "project_not_found",
    );
}
