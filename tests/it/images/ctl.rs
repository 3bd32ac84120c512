//! What `terokctl` shows of real builds and removals.

use super::real::{alone, podman, start, world, yaml};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use terok_tests::programs::terokctl;
use terok_tests::{Daemon, World, eventually};

/// Lines that a step says at once.
const BURST: u32 = 3000;

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(&terokctl());
    command
        .arg("--socket")
        .arg(world.socket())
        .arg("--no-autostart")
        .args(args)
        .stdin(Stdio::null());
    command
}

fn run(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(world, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn rewrite(world: &World, daemon: &Daemon, snippet: &str) {
    world.write("$CONFIG/projects/alpha/project.yml", yaml(snippet));
    daemon.ok("daemon.reload", json!({}));
}

#[test]
#[ignore = "needs podman-test-env"]
fn a_build_is_shown_line_by_line_and_summed_up() {
    let _alone = alone();
    let snippet =
        format!("RUN i=0; while [ $i -lt {BURST} ]; do i=$((i+1)); echo \"number $i\"; done");
    let world = world(&yaml(&snippet));
    let daemon = start(&world);
    let (code, out, err) = run(&world, &["project", "build", "alpha"]);
    assert_eq!(code, Some(0), "{err}");
    let row: Vec<&str> = out.trim_end().split('\t').collect();
    let id = podman(&[
        "image",
        "inspect",
        "localhost/alpha:l2-cli",
        "--format",
        "{{.Id}}",
    ]);
    assert_eq!(
        row,
        ["l2-cli", "localhost/alpha:l2-cli", &id[..12], "built"],
        "{out}"
    );
    let numbers: Vec<u32> = err
        .lines()
        .filter_map(|line| line.strip_prefix("number ")?.parse().ok())
        .collect();
    let expected: Vec<u32> = (1..=BURST).collect();
    assert!(
        numbers == expected,
        "{} of {BURST} lines: {err}",
        numbers.len()
    );
    let at = |text: &str| {
        err.find(text)
            .unwrap_or_else(|| panic!("no `{text}`: {err}"))
    };
    assert!(at("== l2-cli: ") < at("STEP 1/"), "{err}");
    assert!(at("STEP 1/") < at("number 1\n"), "{err}");
    // The layers below are stand-ins of an unknown age.
    assert!(
        at("number 3000\n") < at("warning: still stale: l0, l1\n"),
        "{err}"
    );
    assert!(
        err.ends_with("`terokctl project build alpha --rebuild-stale`\n"),
        "{err}"
    );

    let (code, out, err) = run(&world, &["--quiet", "project", "build", "alpha"]);
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}{err}");
    assert_eq!(err, "warning: still stale: l0, l1\n");

    let (_, out, _) = run(&world, &["project", "state", "alpha"]);
    assert!(out.contains("stale_layers\tl0, l1\n"), "{out}");
    let (_, out, _) = run(&world, &["image", "list", "alpha"]);
    let own = out
        .lines()
        .find(|line| line.starts_with("localhost/alpha\tl2-cli\tl2-cli\talpha\t"));
    assert!(own.is_some(), "{out}");
    drop(daemon);
}

#[test]
#[ignore = "needs podman-test-env"]
fn a_build_that_fails_or_is_interrupted_says_so() {
    let _alone = alone();
    let world = world(&yaml("RUN echo a story; exit 7"));
    let daemon = start(&world);
    let (code, out, err) = run(&world, &["project", "build", "alpha"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for told in [
        "\na story\n",
        "\n  layer:     l2-cli (localhost/alpha:l2-cli)\n",
        "RUN echo a story; exit 7\n  exit code: 7\n  output:    ",
        "\n  whole log: ",
    ] {
        assert!(err.contains(told), "{told:?}: {err}");
    }
    let (code, out, err) = run(&world, &["--json", "project", "init", "alpha"]);
    let all: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(
        (code, &all["failed"][0]["step"]),
        (Some(1), &json!("build")),
        "{all}"
    );
    assert_eq!(all["done"]["gate sync"]["success"], true, "{all}");

    rewrite(&world, &daemon, "RUN echo begun; sleep 7655");
    let mut child = command(&world, &["project", "build", "alpha"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while line != "begun\n" {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
    }
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(!rest.contains("begun"), "nothing is told twice: {rest}");
}

#[test]
#[ignore = "needs podman-test-env"]
fn named_images_go_and_needed_ones_stay() {
    let _alone = alone();
    let world = world(&yaml("RUN true"));
    let daemon = start(&world);
    daemon.ok("project.build_images", json!({"project_id": "alpha"}));
    podman(&["tag", "localhost/alpha:l2-cli", "localhost/gone:l2-cli"]);
    let names = ["localhost/gone:l2-cli", "localhost/alpha:l2-cli"];
    eventually("the daemon hears of the name", || {
        let (_, out, _) = run(&world, &["image", "orphans"]);
        out.starts_with("localhost/gone\tl2-cli\t").then_some(())
    });
    let (code, out, err) = run(&world, &["image", "remove", names[0], names[1], "--yes"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert_eq!(
        out,
        format!("Removed:\n  {}\nFailed:\n  {}\n", names[0], names[1])
    );
    assert!(err.contains("needed by a project"), "{err}");
    let left = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(
        !left.contains(names[0]) && left.contains(names[1]),
        "{left}"
    );
    let (code, out, err) = run(&world, &["image", "cleanup", "--yes"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "", "no orphaned images\n")
    );
}
