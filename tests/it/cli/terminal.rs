//! What a human at a terminal sees and types, through the pseudo-terminal of `script`.

use super::Desk;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use terok_tests::programs::need;
use terok_tests::{World, eventually};

/// `terokctl` on a terminal of its own.
pub(super) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    read: usize,
}

impl Terminal {
    /// Runs `terokctl` with words that no shell changes; `None` where there is no `script`.
    pub(super) fn open(desk: &Desk, args: &str, env: &[(&str, &str)]) -> Option<Self> {
        let script = need("script")?;
        let bin = desk.0.dir().join("bin/terokctl");
        let mut child = desk
            .0
            .command(&script)
            .args(["-qec", &format!("{} {args}", bin.display()), "/dev/null"])
            .env("TERM", "xterm")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, copy) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut chunk) {
                copy.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Some(Self {
            keyboard: child.stdin.take().unwrap(),
            child,
            shown,
            reader,
            read: 0,
        })
    }

    /// Everything shown so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until `prompt` has been shown since the last time, and types after it.
    pub(super) fn answer(&mut self, prompt: &str, keys: &str) {
        self.read = eventually(&format!("`{prompt}` is asked"), || {
            let text = self.text();
            let at = text.get(self.read..)?.find(prompt)?;
            Some(self.read + at + prompt.len())
        });
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for the end: the exit code, and everything shown.
    pub(super) fn end(mut self) -> (i32, String) {
        let status = eventually("terokctl ends", || self.child.try_wait().unwrap());
        drop(self.keyboard);
        self.reader.join().unwrap();
        let text = String::from_utf8_lossy(&self.shown.lock().unwrap()).replace('\r', "");
        (status.code().unwrap(), text)
    }
}

/// A program that stands in for the user's editor.
fn editor(desk: &Desk, script: &str) -> String {
    let path = desk
        .0
        .write("$HOME/editor", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_terminal_gets_a_table_with_a_header() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    let Some(terminal) = Terminal::open(&desk, "project list", &[]) else {
        return;
    };
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\x1b["), "the header is emphasised: {text:?}");
    let terminal = Terminal::open(&desk, "project list", &[("NO_COLOR", "1")]).unwrap();
    let (_, text) = terminal.end();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text:?}");
    assert!(lines[0].starts_with("ID "), "{text:?}");
    assert!(lines[1].starts_with("alpha "), "{text:?}");
    assert_eq!(lines[0].find("CLASS"), lines[1].find("online"), "{text:?}");
    assert!(!text.contains(['\t', '\x1b']), "{text:?}");
}

#[test]
fn control_characters_never_reach_a_terminal() {
    let evil = r"a\e[2J\a\x9b31m\u202eb\x7f";
    let desk = Desk::new(
        World::new()
            .project(
                "alpha",
                &format!("project: {{name: \"{evil}\", security_class: online}}\n"),
            )
            .project("broken", &format!("\"{evil}\": 1\n")),
    );
    desk.ok(&["daemon", "start"]);
    // It is not refused, so the daemon hands it out.
    let listed: Value = serde_json::from_str(&desk.ok(&["--json", "project", "list"])).unwrap();
    assert!(
        listed[0]["display_name"].as_str().unwrap().contains('\x1b'),
        "{listed}"
    );
    for command in [
        "project list",
        "project show alpha",
        "project show broken",
        "project discover",
        "project config alpha",
        "config resolve alpha",
        "config problems",
        "--json project list",
        "--json project discover",
        "--json project show broken",
        "--flat project show alpha",
        "call list_projects",
        "call discover_projects",
        "project delete alpha --dry-run",
        "watch --snapshot --kind project.added",
    ] {
        let args = format!("--no-color {command}");
        let Some(mut terminal) = Terminal::open(&desk, &args, &[]) else {
            return;
        };
        if command.starts_with("watch") {
            terminal.answer("events.snapshot", "\x03");
        }
        let (_, text) = terminal.end();
        assert!(!text.is_empty(), "{command}");
        let bad = text
            .chars()
            .find(|c| (c.is_control() && !['\n', '\t'].contains(c)) || *c == '\u{202e}');
        assert_eq!(bad, None, "{command}: {text:?}");
    }
}

#[test]
fn the_wizard_edits_a_snippet_and_the_file() {
    let desk = Desk::new(World::new());
    desk.ok(&["daemon", "start"]);
    let editor = editor(
        &desk,
        r#"case $1 in
*.dockerfile) grep -c '^#' "$1" >"$HOME/preamble"; printf '# mine\nRUN true\n\n\n' >>"$1" ;;
*) printf '# edited\n' >>"$1" ;;
esac"#,
    );
    let env = [("EDITOR", editor.as_str()), ("NO_COLOR", "1")];
    let Some(mut terminal) = Terminal::open(&desk, "project wizard", &env) else {
        return;
    };
    terminal.answer("[1-2]: ", "2\n");
    terminal.answer("[1-4]: ", "4\n");
    terminal.answer("Project ID", "!!!\n");
    terminal.answer("Project ID is required.", "");
    terminal.answer("Project ID", "My Wizard\n");
    terminal.answer("stored as `my-wizard`", "");
    terminal.answer("Upstream git URL", "https://forge.example/r.git\n");
    terminal.answer("Default branch", "trunk\n");
    terminal.answer("Add a snippet? [y/N] ", "y\n");
    terminal.answer("Override the default agents? [y/N] ", "y\n");
    terminal.answer("Agents [all]: ", "nobody\n");
    terminal.answer("Agents [all]: ", "claude,codex\n");
    terminal.answer("Edit `", "");
    terminal.answer("[y/N] ", "y\n");
    terminal.answer("Make `my-wizard` ready now", "");
    terminal.answer("[y/N] ", "\x04");
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("`terokctl project init my-wizard`"), "{text}");
    let written = desk.0.path("$CONFIG/projects/my-wizard/project.yml");
    let yaml = fs::read_to_string(&written).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(yaml.ends_with("# edited\n"), "{yaml}");
    let preamble = fs::read_to_string(desk.0.path("$HOME/preamble")).unwrap();
    assert_eq!(preamble.trim(), "2", "the snippet begins with two comments");
    let shown = desk.ok(&["--json", "project", "config", "my-wizard"]);
    let config: Value = serde_json::from_str(&shown).unwrap();
    for (field, value) in [
        ("security_class", "gatekeeping"),
        ("upstream_url", "https://forge.example/r.git"),
        ("default_branch", "trunk"),
        ("agents", "claude,codex"),
    ] {
        assert_eq!(config[field], value, "{field}: {shown}");
    }
    assert!(!yaml.contains("These two lines are removed"), "{yaml}");
    let snippet = config["snippet_inline"].as_str();
    let snippet = snippet.unwrap_or_else(|| panic!("no snippet: {shown}"));
    assert_eq!(snippet.trim_end(), "# mine\nRUN true", "{shown}");

    // Again: what exists is not overwritten unless somebody says so.
    let mut terminal = Terminal::open(&desk, "project wizard", &env).unwrap();
    terminal.answer("[1-2]: ", "1\n");
    terminal.answer("[1-4]: ", "1\n");
    terminal.answer("Project ID", "my-wizard\n");
    terminal.answer("Upstream git URL", "\n");
    terminal.answer("Default branch", "\n");
    terminal.answer("Add a snippet? [y/N] ", "\n");
    terminal.answer("Override the default agents? [y/N] ", "\n");
    terminal.answer("Overwrite it? [y/N] ", "\n");
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read_to_string(written).unwrap(), yaml);
}

#[test]
fn the_wizard_makes_the_project_ready_if_wanted() {
    let desk = Desk::new(World::new());
    desk.ok(&["daemon", "start"]);
    let Some(mut terminal) = Terminal::open(&desk, "--no-color project wizard", &[]) else {
        return;
    };
    terminal.answer("[1-2]: ", "1\n");
    terminal.answer("[1-4]: ", "1\n");
    terminal.answer("Project ID", "ready\n");
    terminal.answer("Upstream git URL", "\n");
    terminal.answer("Default branch", "\n");
    for question in [
        "Add a snippet? [y/N] ",
        "Override the default agents? [y/N] ",
        "Edit `",
    ] {
        terminal.answer(question, "\n");
    }
    terminal.answer("Make `ready` ready now", "y\n");
    // There is no Podman here, which costs the images only.
    let (code, text) = terminal.end();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("error: not done: build;"), "{text}");
    assert!(text.contains("Gate ready at "), "{text}");
    assert!(desk.0.path("$CONFIG/projects/ready/project.yml").exists());
}

#[test]
fn a_wizard_can_be_left_by_any_door() {
    let desk = Desk::new(World::new());
    desk.ok(&["daemon", "start"]);
    // Ctrl-C, the end of the input, and a number that is not in the menu.
    for (keys, expected) in [("\x03", 130), ("\x04", 0), ("9\n", 0)] {
        let Some(mut terminal) = Terminal::open(&desk, "project wizard", &[]) else {
            return;
        };
        terminal.answer("[1-2]: ", keys);
        let (code, text) = terminal.end();
        assert_eq!(code, expected, "{keys:?}: {text}");
    }
    let projects = fs::read_dir(desk.0.path("$CONFIG/projects"));
    assert_eq!(projects.map_or(0, Iterator::count), 0);
}

#[test]
fn agents_are_picked_from_a_list() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    for (keys, chosen, told) in [
        ("-vibe\n", "-vibe", "terokctl project build alpha"),
        ("\x04", "-vibe", "nothing was written"),
        ("\n", "all", "terokctl project build alpha"),
    ] {
        let Some(mut terminal) = Terminal::open(&desk, "--no-color project agents alpha", &[])
        else {
            return;
        };
        terminal.answer("  claude  Claude", "");
        terminal.answer("Agents [all]: ", keys);
        let (code, text) = terminal.end();
        assert_eq!(code, 0, "{keys:?}: {text}");
        assert!(text.contains(told), "{keys:?}: {text}");
        let config = desk.wire(&["project", "config", "alpha"]);
        assert_eq!(config["agents"], chosen, "{keys:?}: {text}");
    }
}

#[test]
fn a_deletion_needs_the_id_typed() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    let project = desk.0.path("$CONFIG/projects/alpha/project.yml");
    for (keys, is_gone) in [
        ("\x04", false),
        ("y\n", false),
        ("Alpha\n", false),
        ("alpha\n", true),
    ] {
        let Some(mut terminal) = Terminal::open(&desk, "--no-color project delete alpha", &[])
        else {
            return;
        };
        terminal.answer("Type `alpha`", keys);
        let (code, text) = terminal.end();
        assert_eq!(code, 0, "{keys:?}: {text}");
        assert_eq!(!project.exists(), is_gone, "{keys:?}: {text}");
        let root = desk.0.path("$CONFIG/projects/alpha");
        let archive = desk.0.path("$DATA/archive");
        for told in [root.to_str().unwrap(), archive.to_str().unwrap(), "online"] {
            assert!(text.contains(told), "{told} is not shown: {text}");
        }
        assert_eq!(text.contains("Removed"), is_gone, "{text}");
    }
}
