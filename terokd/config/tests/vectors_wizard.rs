//! Recorded behaviour of the reference, replayed against wizard, roster, presets, agent stack and edits.
#![allow(clippy::unwrap_used)]

use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use terok_config::agent::subagents;
use terok_config::agent::{Layers, resolve_config};
use terok_config::edit::{derive_text, set_agents_text};
use terok_config::env::Environment;
use terok_config::presets::{self, Tiers};
use terok_config::roster::Roster;
use terok_config::selection::{self, Selection};
use terok_config::wizard::{render_project_yaml, slugify, validate_answer};
use terok_config::yaml;
use terok_proto::wizard::QuestionRef;

struct Case {
    name: String,
    input: Value,
    expect: Value,
}

impl Case {
    fn is_error(&self) -> bool {
        self.expect["error"] == true
    }
}

/// The cases of a file that must match.
fn core(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(file)
        .with_extension("json");
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let core: Vec<Case> = cases
        .into_iter()
        .filter(|case| case["class"] == "core")
        .map(|case| Case {
            name: case["name"].as_str().unwrap_or_default().to_owned(),
            input: case["input"].clone(),
            expect: case["expect"].clone(),
        })
        .collect();
    assert!(!core.is_empty(), "{file} has no core cases");
    core
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

fn object(value: &Value) -> Map<String, Value> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no mapping"))
        .clone()
}

/// A home directory with the files of a case.
struct World {
    _dir: tempfile::TempDir,
    home: PathBuf,
    places: Vec<(&'static str, String)>,
}

impl World {
    fn new(input: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (home, system) = (base.join("home"), base.join("system"));
        fs::create_dir_all(&home).unwrap();
        let at = home.display();
        let places = vec![
            ("$CONFIG", format!("{at}/.config/terok")),
            ("$DATA", format!("{at}/.local/share/terok")),
            ("$CACHE", format!("{at}/.cache/terok")),
            ("$SYSTEM", system.display().to_string()),
            ("$HOME", at.to_string()),
        ];
        let world = Self {
            _dir: dir,
            home,
            places,
        };
        for (path, content) in input["files"].as_object().into_iter().flatten() {
            world.put(path, content);
        }
        world
    }

    fn real(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (name, path)| {
                text.replace(name, path)
            })
    }

    fn symbolic(&self, value: &Value) -> Value {
        let text = value.to_string();
        let text = self
            .places
            .iter()
            .fold(text, |text, (name, path)| text.replace(path.as_str(), name));
        serde_json::from_str(&text).unwrap()
    }

    fn put(&self, path: &str, content: &Value) {
        let path = PathBuf::from(self.real(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(text) = content.as_str() {
            fs::write(path, self.real(text)).unwrap();
        } else if content["dir"] == true {
            fs::create_dir_all(path).unwrap();
        } else if let Some(target) = content["symlink"].as_str() {
            std::os::unix::fs::symlink(self.real(target), path).unwrap();
        } else {
            panic!("cannot make {content}");
        }
    }

    fn env(&self) -> Environment {
        Environment::new(std::iter::empty::<(String, String)>(), &self.home)
    }

    fn config(&self, below: &str) -> PathBuf {
        self.home.join(".config/terok").join(below)
    }

    fn project(&self, id: &str) -> PathBuf {
        self.config("projects").join(id)
    }

    /// The `agent:` section of a file, with sub-agent paths resolved.
    fn agent(&self, file: &Path) -> Map<String, Value> {
        let Ok(document) = yaml::read_file(file) else {
            return Map::new();
        };
        let mut agent = document.value["agent"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        subagents::resolve_files(&mut agent, file.parent().unwrap(), &self.env()).unwrap();
        agent
    }
}

/// Whether `got` has everything that `want` has; further keys are allowed.
fn includes(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => want
            .iter()
            .all(|(key, value)| got.get(key).is_some_and(|got| includes(value, got))),
        (Value::Array(want), Value::Array(got)) => {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| includes(want, got))
        }
        _ => want == got,
    }
}

#[test]
fn slugify_matches() {
    for case in core("slugify") {
        let raw = text(&case.input, "raw");
        assert_eq!(slugify(raw), text(&case.expect, "ok"), "{raw:?}");
        let answer = validate_answer(
            &QuestionRef::Key("project_id".into()),
            raw,
            &Roster::bundled(),
        )
        .unwrap();
        assert_eq!(answer.value, text(&case.expect, "ok"), "{raw:?}");
    }
}

#[test]
fn validate_answer_matches() {
    for case in core("validate_answer") {
        let question = QuestionRef::Key(text(&case.input, "question").to_owned());
        let raw = text(&case.input, "raw");
        let got = validate_answer(&question, raw, &Roster::bundled()).unwrap();
        let want = &case.expect["ok"];
        assert_eq!(got.value, text(want, "value"), "{:?}", case.input);
        assert_eq!(
            got.error.is_some(),
            want["error"].is_string(),
            "{:?}: {got:?}",
            case.input
        );
    }
}

#[test]
fn render_project_yaml_matches() {
    for case in core("render_project_yaml") {
        let got = render_project_yaml(&object(&case.input["values"]));
        if case.is_error() {
            assert!(got.is_err(), "{}", case.name);
            continue;
        }
        let got = got.unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
        assert_eq!(
            yaml::parse(&got).unwrap().value,
            case.expect["ok"]["parsed"],
            "{}",
            case.name
        );
        // A reader that knows nothing of this crate agrees.
        let other: Value = serde_yaml::from_str(&got).unwrap();
        assert_eq!(other, case.expect["ok"]["parsed"], "{}", case.name);
    }
}

#[test]
fn agent_selection_matches() {
    let roster = Roster::bundled();
    for case in core("agent_selection") {
        let raw = text(&case.input, "raw");
        let want = &case.expect["ok"];
        let parsed = match selection::parse(raw) {
            Selection::All => Value::from("all"),
            Selection::Tokens(tokens) => tokens.into(),
        };
        assert_eq!(parsed, want["parsed"], "{raw:?}");
        match selection::resolve_text(raw, &roster) {
            Ok(resolved) => assert_eq!(Value::from(resolved.names), want["resolved"], "{raw:?}"),
            Err(fault) => assert!(want["resolve_error"].is_string(), "{raw:?}: {fault}"),
        }
    }
}

#[test]
fn agent_roster_matches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/agent_roster.json");
    let recorded: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let roster = Roster::bundled();
    assert_eq!(Value::from(roster.agents()), recorded["agent_names"]);
    let choices = terok_config::wizard::agents_question(&roster).choices;
    assert_eq!(serde_json::to_value(choices).unwrap(), recorded["choices"]);
    for (name, want) in object(&recorded["entries"]) {
        let list = roster.list();
        let got = list
            .iter()
            .find(|entry| entry.name == name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(
            Value::from(got.depends_on.clone()),
            want["depends_on"],
            "{name}"
        );
        assert_eq!(Value::from(got.installable), want["installable"], "{name}");
        assert_eq!(Value::from(got.is_agent), want["is_agent"], "{name}");
        if want["label"].is_string() {
            assert_eq!(Value::from(got.label.clone()), want["label"], "{name}");
        }
        assert_eq!(
            Value::from(roster.definition(&name).unwrap().web_ingress),
            want["web_ingress"],
            "{name}"
        );
    }
}

#[test]
fn list_presets_matches() {
    for case in core("list_presets") {
        let world = World::new(&case.input);
        let project = world
            .project(text(&case.input, "project_id"))
            .join("presets");
        let tiers = Tiers {
            project: &project,
            user: &world.config("core/presets"),
        };
        let got = serde_json::to_value(presets::list(&tiers, &world.env())).unwrap();
        let mut want = case.expect["ok"].clone();
        for info in want.as_array_mut().unwrap() {
            if info["source"] == "bundled" {
                info["path"] = format!("builtin:{}", text(info, "name")).into();
            }
        }
        assert!(
            includes(&want, &world.symbolic(&got)),
            "{}: want {want}, got {got}",
            case.name
        );
    }
}

#[test]
fn load_preset_matches() {
    for case in core("load_preset") {
        let world = World::new(&case.input);
        let project = world
            .project(text(&case.input, "project_id"))
            .join("presets");
        let tiers = Tiers {
            project: &project,
            user: &world.config("core/presets"),
        };
        let got = presets::load(text(&case.input, "preset"), &tiers, &world.env());
        if case.is_error() {
            assert!(got.is_err(), "{}", case.name);
            continue;
        }
        let got = got.unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
        assert_eq!(
            world.symbolic(&serde_json::to_value(got.preset).unwrap()),
            case.expect["ok"],
            "{}",
            case.name
        );
    }
}

#[test]
fn agent_config_matches() {
    for case in core("agent_config") {
        let world = World::new(&case.input);
        let root = world.project(text(&case.input, "project_id"));
        let (project, user) = (root.join("presets"), world.config("core/presets"));
        let tiers = Tiers {
            project: &project,
            user: &user,
        };
        let (global, own) = (
            world.agent(&world.config("config.yml")),
            world.agent(&root.join("project.yml")),
        );
        let preset = case.input["preset"]
            .as_str()
            .map(|name| presets::load(name, &tiers, &world.env()))
            .transpose();
        let preset = match preset {
            Ok(preset) => preset,
            Err(fault) => {
                assert!(case.is_error(), "{}: {fault}", case.name);
                continue;
            }
        };
        let cli = case.input["cli_overrides"].as_object();
        let layers = Layers {
            global: Some(&global),
            project: Some(&own),
            preset: preset.as_ref(),
            cli,
        };
        let got = Value::Object(resolve_config(&layers).config);
        assert_eq!(world.symbolic(&got), case.expect["ok"], "{}", case.name);
    }
}

#[test]
fn set_project_image_agents_matches() {
    for case in core("set_project_image_agents") {
        let got = set_agents_text(
            text(&case.input, "project_yml"),
            text(&case.input, "selection"),
        );
        if case.is_error() {
            assert!(got.is_err(), "{}", case.name);
            continue;
        }
        let got = got.unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
        let want = &case.expect["ok"];
        assert_eq!(
            yaml::parse(&got.text).unwrap().value,
            want["parsed"],
            "{}",
            case.name
        );
        assert!(
            !got.reemitted,
            "{} was written anew: {}",
            case.name, got.text
        );
        for line in text(want, "text").lines() {
            if let Some(at) = line.find('#') {
                assert!(
                    got.text.contains(line[at..].trim()),
                    "{}: lost {line:?}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn derive_project_matches() {
    for case in core("derive_project") {
        if case.is_error() {
            continue; // decided by what is on disk, not by the text
        }
        let world = World::new(&case.input);
        let id = text(&case.input, "source_id");
        let source = fs::read_to_string(world.project(id).join("project.yml")).unwrap();
        let value = yaml::parse(&source).unwrap().value;
        let gate = match value["gate"]["path"].as_str() {
            Some(path) => world.env().resolve(path).unwrap().display().to_string(),
            None => world.real(&format!("$DATA/sandbox/gate/{id}.git")),
        };
        let got = derive_text(&source, text(&case.input, "new_id"), &gate)
            .unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
        let parsed = yaml::parse(&got.text).unwrap().value;
        assert_eq!(
            world.symbolic(&parsed),
            case.expect["ok"]["parsed"],
            "{}",
            case.name
        );
        assert!(
            !got.reemitted,
            "{} was written anew: {}",
            case.name, got.text
        );
        for line in text(&case.expect["ok"], "text").lines() {
            if let Some(at) = line.find('#') {
                assert!(
                    got.text.contains(line[at..].trim()),
                    "{}: lost {line:?}",
                    case.name
                );
            }
        }
    }
}
