//! Replays the recorded behaviour of the reference against this crate, without a daemon.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use terok_config::GitIdentity;
use terok_config::env::Environment;
use terok_config::global::{self, Global};
use terok_config::id::ProjectId;
use terok_config::project::{self, ProjectLoad};
use terok_config::resolve::Context;
use terok_config::roster::Roster;
use terok_proto::config::Severity;

/// Cases whose recorded result contradicts the specification, with the reason.
const DEVIATIONS: &[(&str, &str, &str)] = &[(
    "paths",
    "cfg-invalid-elsewhere-paths-still-raw",
    "one reader: an unknown top-level key leaves valid sections (here gate_server) in force",
)];

struct World {
    dir: TempDir,
    env: Environment,
    skip: Option<String>,
}

impl World {
    fn new(input: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("home")).unwrap();
        fs::create_dir_all(base.join("system")).unwrap();
        let mut world = Self {
            env: Environment::new([("A", "")], base.join("home")),
            dir,
            skip: None,
        };
        let mut modes = Vec::new();
        for (path, content) in input["files"].as_object().into_iter().flatten() {
            world.put(path, content, &mut modes);
        }
        for (path, mode) in modes {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if fs::read(&path).is_ok() {
                world.skip = Some("the file stays readable for root".into());
            }
        }
        let vars: Vec<(String, String)> = input["env"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), world.real(value.as_str().unwrap())))
            .collect();
        world.env = Environment::new(vars, base.join("home"));
        world
    }

    fn base(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap()
    }

    fn places(&self) -> [(&'static str, String); 5] {
        let home = self.base().join("home").display().to_string();
        [
            ("$CONFIG", format!("{home}/.config/terok")),
            ("$DATA", format!("{home}/.local/share/terok")),
            ("$CACHE", format!("{home}/.cache/terok")),
            ("$SYSTEM", self.base().join("system").display().to_string()),
            ("$HOME", home),
        ]
    }

    fn real(&self, text: &str) -> String {
        self.places()
            .iter()
            .fold(text.to_owned(), |text, (name, path)| {
                text.replace(name, path)
            })
    }

    fn symbolic(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self
                .places()
                .iter()
                .fold(text.clone(), |text, (name, path)| text.replace(path, name))
                .into(),
            Value::Array(items) => items.iter().map(|item| self.symbolic(item)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (key.clone(), self.symbolic(value)))
                .collect(),
            other => other.clone(),
        }
    }

    fn put(&self, path: &str, content: &Value, modes: &mut Vec<(PathBuf, u32)>) {
        let path = PathBuf::from(self.real(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(text) = content.as_str() {
            fs::write(&path, self.real(text)).unwrap();
        } else if content["dir"] == json!(true) {
            fs::create_dir_all(&path).unwrap();
        } else if let Some(target) = content["symlink"].as_str() {
            std::os::unix::fs::symlink(self.real(target), &path).unwrap();
        } else if let Some(text) = content["text"].as_str() {
            fs::write(&path, self.real(text)).unwrap();
        } else {
            fs::write(&path, base64(content["base64"].as_str().unwrap())).unwrap();
        }
        if let Some(mode) = content["mode"].as_str() {
            modes.push((path, u32::from_str_radix(mode, 8).unwrap()));
        }
    }

    fn global(&self) -> Global {
        global::load(&self.env, None)
    }

    /// The `[user]` section of git's global file, as far as these files need it.
    fn identity(&self) -> GitIdentity {
        let config_home = self
            .env
            .var("XDG_CONFIG_HOME")
            .map_or_else(|| self.env.home.join(".config"), PathBuf::from);
        let mut identity = GitIdentity::default();
        for file in [
            config_home.join("git/config"),
            self.env.home.join(".gitconfig"),
        ] {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            let mut user = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with('[') {
                    user = line == "[user]";
                } else if let (true, Some((key, value))) = (user, line.split_once('=')) {
                    let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                    match key.trim() {
                        "name" => identity.name = value,
                        "email" => identity.email = value,
                        _ => {}
                    }
                    identity.path = Some(file.display().to_string());
                }
            }
        }
        identity
    }

    /// As the daemon answers `load_project`.
    fn load(&self, id: &str) -> Outcome {
        let global = self.global();
        let identity = self.identity();
        let roster = Roster::bundled();
        let context = Context {
            global: &global,
            identity: &identity,
            env: &self.env,
            roster: Some(&roster),
        };
        let id = match ProjectId::parse(id) {
            Ok(id) => id,
            Err(_) => return Err(Vec::new()),
        };
        let Some(candidate) = project::find(&global.paths, &id) else {
            return Err(Vec::new());
        };
        self.outcome(&project::load_one(&candidate, context))
    }

    fn outcome(&self, load: &ProjectLoad) -> Outcome {
        match &load.outcome {
            Ok(project) => {
                let config = serde_json::to_value(&project.project.config).unwrap();
                assert!(
                    project
                        .warnings
                        .iter()
                        .all(|w| w.severity == Severity::Warning)
                );
                Ok(self.symbolic(&config))
            }
            Err(fault) => {
                assert!(fault.text.contains(&fault.path) || !fault.text.is_empty());
                let mut fields: Vec<String> = fault
                    .problems
                    .iter()
                    .filter(|problem| problem.severity == Severity::Error)
                    .map(|problem| problem.location.clone())
                    .collect();
                assert!(!fields.is_empty());
                fields.sort();
                fields.dedup();
                Err(fields)
            }
        }
    }
}

/// A value, or the places of the errors.
type Outcome = Result<Value, Vec<String>>;

fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = alphabet.iter().position(|known| *known == byte).unwrap();
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// Where `got` lacks or contradicts `want`; additional keys are allowed.
fn differences(want: &Value, got: &Value, at: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), _)
            if want.keys().any(|key| key.starts_with('$') && key.len() > 4) => {}
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                match got.get(key) {
                    Some(got) => differences(value, got, &format!("{at}.{key}"), out),
                    None => out.push(format!("{at}.{key} is missing")),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (index, (want, got)) in want.iter().zip(got).enumerate() {
                differences(want, got, &format!("{at}[{index}]"), out);
            }
        }
        (Value::Number(want), Value::Number(got)) if want.as_f64() == got.as_f64() => {}
        _ if want == got => {}
        _ => out.push(format!("{at}: want {want}, got {got}")),
    }
}

fn compare(expect: &Value, got: &Outcome, pick: impl Fn(&Value) -> Value) -> Vec<String> {
    let mut out = Vec::new();
    match (expect["error"] == json!(true), got) {
        (true, Ok(value)) => out.push(format!(
            "want an error ({}), got {value}",
            expect["message"]
        )),
        (true, Err(fields)) => {
            if let Some(want) = expect["fields"].as_array() {
                let mut want: Vec<&str> = want.iter().filter_map(Value::as_str).collect();
                want.sort_unstable();
                if want != *fields {
                    out.push(format!("want errors at {want:?}, got {fields:?}"));
                }
            }
        }
        (false, Ok(value)) => differences(&pick(&expect["ok"]), value, "", &mut out),
        (false, Err(fields)) => out.push(format!("want success, got errors at {fields:?}")),
    }
    out
}

/// Runs every core case of a file; a runner answers with what differs, or with why it cannot be judged.
fn replay(file: &str, run: impl Fn(&Value) -> Result<Vec<String>, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(format!("{file}.json"));
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut failures = BTreeMap::new();
    let (mut passed, mut skipped) = (0, Vec::new());
    for case in cases.iter().filter(|case| case["class"] == "core") {
        let name = case["name"].as_str().unwrap();
        let deviates = DEVIATIONS.iter().any(|(f, n, _)| (*f, *n) == (file, name));
        match run(case) {
            Err(why) => skipped.push(format!("{name}: {why}")),
            Ok(different) if different.is_empty() => {
                assert!(!deviates, "{file}/{name} agrees again: drop the deviation");
                passed += 1;
            }
            Ok(_) if deviates => {}
            Ok(different) => {
                failures.insert(name.to_owned(), different);
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{file}: {passed} passed, {} failed: {failures:#?}",
        failures.len()
    );
    assert!(passed > 0 && skipped.len() <= 1, "{skipped:?}");
}

#[test]
fn project_yaml() {
    replay("project_yaml", |case| {
        let world = World::new(&case["input"]);
        if let Some(why) = world.skip {
            return Err(why);
        }
        let id = world.real(case["input"]["project_id"].as_str().unwrap());
        Ok(compare(&case["expect"], &world.load(&id), Value::clone))
    });
}

#[test]
fn discover_projects() {
    replay("discover_projects", |case| {
        let world = World::new(&case["input"]);
        let (global, identity) = (world.global(), world.identity());
        let context = Context {
            global: &global,
            identity: &identity,
            env: &world.env,
            roster: None,
        };
        let loads: Vec<ProjectLoad> = project::discover(&global.paths)
            .iter()
            .map(|candidate| project::load_one(candidate, context))
            .collect();
        let (mut valid, mut broken) = (Vec::new(), Vec::new());
        for load in project::mark_conflicts(&loads) {
            match &load.outcome {
                Ok(project) => valid.push(serde_json::to_value(&project.project.config).unwrap()),
                Err(fault) => {
                    broken.push(serde_json::to_value(fault.broken(&load.dir_name)).unwrap())
                }
            }
        }
        let got = world.symbolic(&json!({"valid": valid, "broken": broken}));
        Ok(compare(&case["expect"], &Ok(got), |want| {
            let mut want = want.clone();
            for broken in want["broken"].as_array_mut().unwrap() {
                broken.as_object_mut().unwrap().remove("error");
            }
            want
        }))
    });
}

#[test]
fn paths() {
    replay("paths", |case| {
        let world = World::new(&case["input"]);
        let paths = serde_json::to_value(world.global().paths.daemon_paths()).unwrap();
        Ok(compare(
            &case["expect"],
            &Ok(world.symbolic(&paths)),
            Value::clone,
        ))
    });
}

#[test]
fn project_id() {
    replay("project_id", |case| {
        let id = case["input"]["id"].as_str().unwrap();
        let valid = ProjectId::parse(id).is_ok();
        Ok(compare(&case["expect"], &Ok(json!(valid)), Value::clone))
    });
}

/// A world with one online project whose `git` section is given.
fn with_git(git: Value) -> World {
    let yml = json!({"project": {"security_class": "online"}, "git": git});
    World::new(&json!({"files": {"$CONFIG/projects/demo/project.yml": yml.to_string()}}))
}

#[test]
fn git_authorship() {
    replay("git_authorship", |case| {
        let world = with_git(json!({"authorship": case["input"]["value"]}));
        let got = world
            .load("demo")
            .map(|config| config["git_authorship"].clone());
        Ok(compare(&case["expect"], &got, Value::clone))
    });
}

#[test]
fn ssh_url() {
    replay("ssh_url", |case| {
        let url = &case["input"]["url"];
        let is_ssh = url.as_str().is_some_and(project::is_ssh_url);
        let got = json!({"is_ssh_url": is_ssh, "needs_ssh_key_registration": is_ssh});
        Ok(compare(&case["expect"], &Ok(got), Value::clone))
    });
}
