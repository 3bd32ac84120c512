//! Presets: named sets of agent settings in three tiers, project before user before bundled.
//!
//! Owns lookup, listing and loading. A preset's name never becomes a path unchecked.

use crate::agent::subagents;
use crate::env::Environment;
use crate::validate::{self, failed_to_read, problem_lines};
use crate::yaml::{self, Document};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use terok_proto::config::{Problem, Scope, Severity};
use terok_proto::error::{Result, printable_line};
use terok_proto::project::{LoadedPreset, PresetInfo, PresetSource};
use terok_proto::{Fault, Kind};

/// The presets shipped with the daemon.
const BUNDLED: [(&str, &str); 3] = [
    ("review", include_str!("../presets/review.yml")),
    ("solo", include_str!("../presets/solo.yml")),
    ("team", include_str!("../presets/team.yml")),
];

/// Extensions in the order of their precedence within a directory.
const EXTENSIONS: [&str; 2] = ["yml", "yaml"];

/// Presets that one directory is searched for.
const MAX_PRESETS: usize = 1000;

/// Where the presets of a project are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Tiers<'a> {
    /// `<root>/presets`.
    pub project: &'a Path,
    /// The user presets directory.
    pub user: &'a Path,
}

/// A loaded preset and the tier it was found in.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What the preset says, and where.
    pub preset: LoadedPreset,
    /// Its tier.
    pub source: PresetSource,
}

impl<'a> Tiers<'a> {
    const fn directories(&self) -> [(PresetSource, &'a Path); 2] {
        [
            (PresetSource::Project, self.project),
            (PresetSource::Global, self.user),
        ]
    }
}

/// All presets by name, one per name; a broken one says why.
pub fn list(tiers: &Tiers<'_>, env: &Environment) -> Vec<PresetInfo> {
    let mut found: BTreeMap<String, PresetInfo> = BTreeMap::new();
    for (name, _) in BUNDLED {
        let info = PresetInfo {
            name: name.to_owned(),
            source: PresetSource::Bundled,
            path: format!("builtin:{name}"),
            error: None,
        };
        found.insert(name.to_owned(), info);
    }
    for (source, dir) in tiers.directories().into_iter().rev() {
        for (name, path) in preset_files(dir) {
            let loaded =
                check_name(&name).and_then(|()| load_file(&name, source, &path, tiers, env));
            let info = PresetInfo {
                name: name.clone(),
                source,
                path: path.to_string_lossy().into_owned(),
                error: loaded.err().map(|fault| fault.message),
            };
            found.insert(name, info);
        }
    }
    found.into_values().collect()
}

/// The preset of that name from the highest tier that has it.
pub fn load(name: &str, tiers: &Tiers<'_>, env: &Environment) -> Result<Found> {
    check_name(name)?;
    for (source, dir) in tiers.directories() {
        let path = EXTENSIONS
            .iter()
            .map(|ext| dir.join(format!("{name}.{ext}")))
            .find(|path| path.is_file());
        if let Some(path) = path {
            let preset = load_file(name, source, &path, tiers, env)?;
            return Ok(Found { preset, source });
        }
    }
    match BUNDLED.iter().find(|(bundled, _)| *bundled == name) {
        Some((_, text)) => Ok(Found {
            preset: load_bundled(name, text)?,
            source: PresetSource::Bundled,
        }),
        None => Err(not_found(name, &list(tiers, env))),
    }
}

fn load_bundled(name: &str, text: &str) -> Result<LoadedPreset> {
    let path = format!("builtin:{name}");
    let document = yaml::parse(text).map_err(|problems| unreadable(name, &path, &problems))?;
    let data = mapping(name, &path, &document)?;
    Ok(LoadedPreset { data, path })
}

fn load_file(
    name: &str,
    source: PresetSource,
    path: &Path,
    tiers: &Tiers<'_>,
    env: &Environment,
) -> Result<LoadedPreset> {
    let shown = path.to_string_lossy().into_owned();
    if source == PresetSource::Project && !stays_inside(path, tiers) {
        return Err(Fault::new(
            Kind::InvalidConfig,
            format!("preset `{name}` ({shown}) is a link that leaves the preset directories; copy the file instead"),
        )
        .with("path", shown));
    }
    let document = yaml::read_file(path).map_err(|problems| unreadable(name, &shown, &problems))?;
    let mut data = mapping(name, &shown, &document)?;
    let base = path.parent().unwrap_or(tiers.project);
    subagents::resolve_files(&mut data, base, env)
        .map_err(|finding| invalid(name, &shown, &document, finding))?;
    Ok(LoadedPreset { data, path: shown })
}

/// A repository may be checked out into the project's directory: its links must not make other files readable.
fn stays_inside(path: &Path, tiers: &Tiers<'_>) -> bool {
    let Ok(real) = path.canonicalize() else {
        return false;
    };
    tiers
        .directories()
        .iter()
        .filter_map(|(_, dir)| dir.canonicalize().ok())
        .any(|dir| real.starts_with(dir))
}

fn mapping(name: &str, path: &str, document: &Document) -> Result<Map<String, Value>> {
    // Like `project.yml`, a preset may be any falsy document.
    let Some(map) = validate::root(Scope::Project, &document.value) else {
        return Err(invalid(
            name,
            path,
            document,
            validate::not_a_mapping(&document.value),
        ));
    };
    Ok(map)
}

fn check_name(name: &str) -> Result<()> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if first
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.len() <= 200
    {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Fault::new(
        Kind::InvalidName,
        format!(
            "invalid preset name `{shown}`: it starts with a letter or digit; then letters, digits, `.`, `_`, `-`"
        ),
    )
    .with("name", shown))
}

fn not_found(name: &str, known: &[PresetInfo]) -> Fault {
    let names: Vec<&str> = known.iter().map(|info| info.name.as_str()).collect();
    let shown = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Fault::new(
        Kind::PresetNotFound,
        format!("preset `{name}` not found; available: {shown}"),
    )
    .with("preset", name)
    .with("available", names)
}

fn unreadable(name: &str, path: &str, problems: &[yaml::YamlProblem]) -> Fault {
    let problems: Vec<Problem> = problems
        .iter()
        .map(|problem| validate::text_problem(Scope::Project, Some(path), problem, Severity::Error))
        .collect();
    invalid_config(name, path, failed_to_read(path, &problems), &problems)
}

fn invalid(name: &str, path: &str, document: &Document, finding: validate::Finding) -> Fault {
    let places = validate::Places::one(Some(path), document);
    let problems = [validate::problem(Scope::Project, finding, &places)];
    invalid_config(
        name,
        path,
        problem_lines(Scope::Project, path, &problems),
        &problems,
    )
}

fn invalid_config(name: &str, path: &str, text: String, problems: &[Problem]) -> Fault {
    let reason = problems
        .first()
        .map_or("unreadable", |problem| problem.message.as_str());
    let text = text.replacen(
        &format!("Invalid project.yml ({path})"),
        &format!("Invalid preset {name} ({path})"),
        1,
    );
    let errors = serde_json::to_value(problems).unwrap_or_default();
    Fault::new(
        Kind::InvalidConfig,
        format!("preset `{name}` ({path}) cannot be used: {reason}"),
    )
    .with("path", path)
    .with("text", text)
    .with("errors", errors)
}

/// Names and files of one directory; `.yml` wins over `.yaml`. Missing or unreadable directories have none.
fn preset_files(dir: &Path) -> BTreeMap<String, PathBuf> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten().take(MAX_PRESETS) {
        let path = entry.path();
        let extension = path.extension().and_then(|ext| ext.to_str());
        let (Some(stem), Some(extension)) = (path.file_stem().and_then(|s| s.to_str()), extension)
        else {
            continue;
        };
        if !EXTENSIONS.contains(&extension) || !path.is_file() {
            continue;
        }
        // The name goes to terminals; a preset that cannot be shown cannot be named either.
        if printable_line(stem) != stem || (extension == "yaml" && found.contains_key(stem)) {
            continue;
        }
        found.insert(stem.to_owned(), path);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    struct World {
        _dir: tempfile::TempDir,
        home: PathBuf,
        project: PathBuf,
        user: PathBuf,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            let home = dir.path().canonicalize().expect("path");
            let (project, user) = (home.join("project/presets"), home.join("user"));
            fs::create_dir_all(&project).expect("project");
            fs::create_dir_all(&user).expect("user");
            Self {
                _dir: dir,
                home,
                project,
                user,
            }
        }

        fn env(&self) -> Environment {
            Environment::new(std::iter::empty::<(String, String)>(), &self.home)
        }

        fn load(&self, name: &str) -> Result<Found> {
            load(
                name,
                &Tiers {
                    project: &self.project,
                    user: &self.user,
                },
                &self.env(),
            )
        }

        fn list(&self) -> Vec<PresetInfo> {
            list(
                &Tiers {
                    project: &self.project,
                    user: &self.user,
                },
                &self.env(),
            )
        }
    }

    #[test]
    fn bundled_presets_load() {
        let world = World::new();
        let solo = world.load("solo").expect("solo");
        assert_eq!(solo.preset.data["max_turns"], 25);
        assert_eq!(solo.preset.data["model"]["_default"], "fast");
        assert_eq!(solo.preset.path, "builtin:solo");
        let review = world.load("review").expect("review").preset.data;
        assert_eq!(
            review["subagents"][0]["tools"],
            json!(["Read", "Grep", "Glob"])
        );
        let team = world.load("team").expect("team").preset.data;
        let defaults: Vec<_> = team["subagents"]
            .as_array()
            .expect("list")
            .iter()
            .filter(|agent| agent["default"] == true)
            .map(|agent| agent["name"].as_str().expect("name"))
            .collect();
        assert_eq!(
            defaults,
            [
                "architect",
                "library-engineer",
                "integration-engineer",
                "test-engineer"
            ]
        );
    }

    #[test]
    fn higher_tiers_win_even_with_the_lesser_extension() {
        let world = World::new();
        fs::write(world.user.join("x.yml"), "model: user\n").expect("write");
        fs::write(world.project.join("x.yaml"), "model: project\n").expect("write");
        let found = world.load("x").expect("x");
        assert_eq!(
            (found.source, &found.preset.data["model"]),
            (PresetSource::Project, &json!("project"))
        );
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let world = World::new();
        fs::write(world.home.join("project/x.yml"), "model: x\n").expect("write");
        for name in ["../x", "", ".x", "a/b", "a\0", "-x"] {
            assert_eq!(world.load(name).expect_err(name).kind, Kind::InvalidName);
        }
        let fault = world.load("nope").expect_err("nope");
        assert_eq!(fault.kind, Kind::PresetNotFound);
        assert!(fault.message.contains("review, solo, team"));
    }

    #[test]
    fn broken_presets_are_listed_with_their_error() {
        let world = World::new();
        for (name, text) in [
            ("list", "- x\n"),
            ("bad", "model: [\n"),
            ("subs", "subagents: 5\n"),
            ("ok", ""),
        ] {
            fs::write(world.project.join(format!("{name}.yml")), text).expect("write");
        }
        fs::write(world.project.join("latin.yml"), b"model: caf\xe9\n").expect("write");
        std::os::unix::fs::symlink("/etc/passwd", world.project.join("link.yml")).expect("link");
        let list = world.list();
        for name in ["list", "bad", "subs", "latin", "link"] {
            let info = list.iter().find(|info| info.name == name).expect(name);
            assert!(info.error.is_some(), "{name}");
            let fault = world.load(name).expect_err(name);
            assert_eq!(fault.kind, Kind::InvalidConfig);
            assert!(
                fault.message.contains(name) && fault.data.contains_key("path"),
                "{fault}"
            );
        }
        assert_eq!(world.load("ok").expect("empty").preset.data, Map::new());
    }

    #[test]
    fn sub_agent_files_are_relative_to_the_preset() {
        let world = World::new();
        fs::write(
            world.user.join("p.yml"),
            "subagents: [{file: a.md}, {file: ~/b.md}, 5, {file: ' '}]\n",
        )
        .expect("write");
        let data = world.load("p").expect("p").preset.data;
        let want = json!([
            {"file": world.user.join("a.md")},
            {"file": world.home.join("b.md")},
            5,
            {"file": " "},
        ]);
        assert_eq!(data["subagents"], want);
    }
}
