//! Who may import whom in `terokd/src`, and who may start tasks and children, end the process and write files.
//!
//! ARCHITECTURE.md describes the same; this is what holds it to that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use terok_tests::programs::checkout;

/// Module → what it may import besides itself. A new edge is a decision: ARCHITECTURE.md changes with this table.
const IMPORTS: &[(&str, &[&str])] = &[
    // Arguments and the exit code, over the library.
    (
        "main",
        &[
            "crash",
            "daemon",
            "reference",
            "socket",
            "systemd",
            "telemetry",
        ],
    ),
    ("lib", &[]),
    // Wiring.
    (
        "daemon",
        &[
            "events", "gates", "images", "keys", "memory", "ops", "panic", "polling", "project",
            "registry", "rpc", "socket", "store", "systemd", "tasks", "vault",
        ],
    ),
    // The wire. `daemon` is the state that handlers are given.
    ("socket", &["daemon", "rpc"]),
    (
        "rpc",
        &[
            "agents",
            "daemon",
            "events",
            "gates",
            "images",
            "ops",
            "panic",
            "project",
            "registry",
            "telemetry",
        ],
    ),
    // The domain: no wire.
    ("agents", &["registry"]),
    ("keys", &["gates", "project", "registry"]),
    (
        "project",
        &[
            "crash", "events", "fs", "gates", "images", "ops", "panic", "registry",
        ],
    ),
    (
        "gates",
        &[
            "events", "flight", "fs", "ops", "panic", "polling", "registry", "store", "tasks",
        ],
    ),
    (
        "images",
        &[
            "events", "flight", "fs", "ops", "panic", "registry", "store", "tasks",
        ],
    ),
    (
        "polling",
        &["events", "panic", "registry", "store", "tasks"],
    ),
    ("vault", &["events", "fs", "panic", "registry", "tasks"]),
    ("panic", &[]),
    ("ops", &["crash", "events", "store", "tasks", "telemetry"]),
    ("registry", &["events", "fs", "git", "tasks"]),
    // The machine: nothing above it.
    ("memory", &[]),
    ("events", &[]),
    ("flight", &["tasks"]),
    ("store", &[]),
    ("git", &["fs"]),
    ("fs", &["crash"]),
    ("tasks", &[]),
    ("crash", &[]),
    ("systemd", &[]),
    ("telemetry", &[]),
    ("reference", &[]),
];

/// Word → the files that may hold it, each with its reason.
const ONLY_IN: &[(&str, &[(&str, &str)])] = &[
    ("tokio::spawn", &[]),
    ("task::spawn(", &[]),
    (
        "TaskTracker",
        &[("tasks.rs", "spawns tracked tasks for everybody")],
    ),
    ("process::exit", &[]),
    (
        "process::abort",
        &[("crash.rs", "dies at a named point in kill tests")],
    ),
    ("Command::new", &[]),
    ("fs::write(", &[]),
    (
        "File::create",
        &[(
            "project/derive.rs",
            "copies into a staging directory that is renamed when whole",
        )],
    ),
    (
        "OpenOptions::new",
        &[
            ("fs/mod.rs", "replaces files"),
            ("socket/listener.rs", "the lock beside the socket"),
            ("store.rs", "the journal's lock and mode"),
            (
                "project/archive.rs",
                "writes archives beside their final name",
            ),
            (
                "project/derive.rs",
                "reads its source without following links",
            ),
            ("panic.rs", "reads the panic file without following links"),
        ],
    ),
    ("env::var", &[("crash.rs", "read once, in kill tests only")]),
    ("set_var", &[]),
    ("static mut", &[]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
];

struct Source {
    /// Path below `terokd/src`.
    name: String,
    /// Product code only: no tests, comments or literals' insides that look like code.
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        self.name
            .split(['/', '.'])
            .next()
            .expect("split gives at least one part")
    }
}

fn sources() -> Vec<Source> {
    let root = checkout().join("terokd/src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let sources: Vec<Source> = found
        .iter()
        .map(|path| Source {
            name: path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            code: product(&fs::read_to_string(path).unwrap()),
        })
        .collect();
    assert!(
        sources.len() > 30,
        "{} files in {}",
        sources.len(),
        root.display()
    );
    sources
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The text without comments and without what is compiled for tests only. `rustfmt` guarantees that an item ends
/// with a line that starts where the item starts.
fn product(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            let mut open = false;
            for line in lines.by_ref() {
                let at = line.len() - line.trim_start().len();
                let trimmed = line.trim_end();
                let ends = !open && trimmed.ends_with(';')
                    || at == indent && trimmed.trim_start().starts_with('}');
                open |= trimmed.ends_with('{');
                if ends {
                    break;
                }
            }
            continue;
        }
        if !line.trim_start().starts_with("//") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// First segments after every `crate::` (`terokd::` in `main.rs`), those of `use crate::{a::…, b::…}` included.
fn imported(source: &Source) -> BTreeSet<String> {
    let root = match source.name.as_str() {
        "main.rs" => "terokd::",
        _ => "crate::",
    };
    let mut found = BTreeSet::new();
    for (at, _) in source.code.match_indices(root) {
        let before = source.code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &source.code[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level(group)),
            None => found.extend(word(rest)),
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

/// First words of the entries of a group that has just been opened.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut entry, mut found) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.extend(word(std::mem::take(&mut entry).trim())),
            c => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                entry.push(c);
            }
        }
    }
    found.extend(word(entry.trim()));
    found
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let modules: BTreeSet<String> = sources().iter().map(|s| s.module().to_owned()).collect();
    let listed: BTreeSet<String> = table.keys().map(|m| (*m).to_owned()).collect();
    assert_eq!(
        modules, listed,
        "IMPORTS lists exactly the modules of terokd"
    );
    let mut wrong = Vec::new();
    for source in sources() {
        for target in imported(&source) {
            // Macros and items of the root are no modules.
            if target != source.module()
                && modules.contains(&target)
                && !table[source.module()].contains(&target.as_str())
            {
                wrong.push(format!("{} imports {target}", source.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not in the table of tests/it/layout.rs:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_table_allows_no_more_than_is_used() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        used.entry(source.module().to_owned())
            .or_default()
            .extend(imported(&source));
    }
    let unused: Vec<String> = IMPORTS
        .iter()
        .flat_map(|(module, targets)| targets.iter().map(move |t| (module, t)))
        .filter(|(module, target)| !used[**module].contains(**target))
        .map(|(module, target)| format!("{module} → {target}"))
        .collect();
    assert!(unused.is_empty(), "allowed and not used: {unused:?}");
}

#[test]
fn the_machine_is_touched_in_few_places() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (text, allowed) in ONLY_IN {
        let holders: BTreeSet<&str> = sources
            .iter()
            .filter(|s| s.code.contains(text))
            .map(|s| s.name.as_str())
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().map(|(file, _)| *file).collect();
        wrong.extend(
            holders
                .difference(&allowed)
                .map(|f| format!("{f} holds `{text}`")),
        );
        wrong.extend(
            allowed
                .difference(&holders)
                .map(|f| format!("{f} may hold `{text}` and does not")),
        );
    }
    assert!(
        wrong.is_empty(),
        "tests/it/layout.rs disagrees:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_wire_and_the_formats_know_no_runtime() {
    for (folder, words) in [
        ("proto/src", ["tokio", "std::fs", "std::env", "std::net"]),
        (
            "terokd/config/src",
            ["tokio", "std::net", "process::Command", "fs::write("],
        ),
    ] {
        let mut files = Vec::new();
        walk(&checkout().join(folder), &mut files);
        assert!(files.len() > 5, "{folder}");
        for path in files {
            let code = product(&fs::read_to_string(&path).unwrap());
            for word in words {
                assert!(!code.contains(word), "{} holds `{word}`", path.display());
            }
        }
    }
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    let text = "use crate::{fs, ops::{Ops, run}};\n// tokio::spawn\n#[cfg(test)]\nmod tests {\n    use crate::rpc;\n}\nuse my_crate::x;\nfn f() { crate::events::g(); }\n#[cfg(test)]\nmod tests;\nuse crate::git::X;\n";
    let source = Source {
        name: "project/mod.rs".into(),
        code: product(text),
    };
    let found: Vec<String> = imported(&source).into_iter().collect();
    assert_eq!(found, ["events", "fs", "git", "ops"]);
    assert!(!source.code.contains("tokio::spawn"));
}

#[test]
fn units_are_installed_where_systemd_looks_and_root_builds_nothing() {
    let Some(make) = terok_tests::programs::need("make") else {
        return;
    };
    let plan = |prefix: &str| {
        let mut command = std::process::Command::new(&make);
        command.arg("-n").arg("install").current_dir(checkout());
        command.env("HOME", "/home/ada").env("SUDO_USER", "ada");
        if !prefix.is_empty() {
            command.env("PREFIX", prefix);
        }
        let output = command.output().expect("make");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for (prefix, place) in [
        ("", "/usr/local/lib"),
        ("/usr", "/usr/lib"),
        ("/home/ada/.local", "/home/ada/.local/share"),
    ] {
        let plan = plan(prefix);
        assert!(
            plan.contains(&format!("> {place}/systemd/user/terokd.service")),
            "{plan}"
        );
        assert!(!plan.contains("cargo"), "{plan}");
    }
}
