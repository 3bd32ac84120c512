//! Directories that a project uses, told even from a file that is broken otherwise: what others must not delete.

use crate::env::Environment;
use crate::resolve::Context;
use serde_json::Value;
use std::path::PathBuf;

/// One directory of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This one.
    Path(PathBuf),
    /// None.
    Nothing,
    /// The file does not tell; it may be any.
    Unknown,
}

/// Directories of a project, as far as its file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `gate.path`
    pub gate_path: Claim,
    /// `tasks.root`
    pub tasks_root: Claim,
    /// `gatekeeping.staging_root`
    pub staging_root: Claim,
    /// `shared_dir`
    pub shared_dir: Claim,
}

impl Claims {
    /// Nothing can be told.
    pub(super) fn unknown() -> Self {
        Self {
            gate_path: Claim::Unknown,
            tasks_root: Claim::Unknown,
            staging_root: Claim::Unknown,
            shared_dir: Claim::Unknown,
        }
    }

    /// What a parsed file tells, valid or not.
    pub(super) fn of(value: &Value, dir_name: &str, context: Context<'_>) -> Self {
        let paths = &context.global.paths;
        let id = stated_id(value).unwrap_or_else(|| dir_name.to_owned());
        let read = |section: &str, key: &str, default: PathBuf| match value.get(section) {
            None | Some(Value::Null) => Claim::Path(default),
            Some(Value::Object(section)) => path(section.get(key), default, context.env),
            Some(_) => Claim::Unknown,
        };
        let tasks_root = read(
            "tasks",
            "root",
            paths.sandbox_live_dir.join("tasks").join(&id),
        );
        let shared_dir = match (value.get("shared_dir"), &tasks_root) {
            (None | Some(Value::Null | Value::Bool(false)), _) => Claim::Nothing,
            (Some(Value::Bool(true)), Claim::Path(root)) => Claim::Path(root.join("_shared")),
            (Some(Value::String(text)), _) => match context.env.expand_user(text) {
                Ok(path) if path.is_absolute() => Claim::Path(context.env.normalise(path)),
                _ => Claim::Unknown,
            },
            _ => Claim::Unknown,
        };
        Self {
            gate_path: read(
                "gate",
                "path",
                paths.gate_repos_dir.join(format!("{id}.git")),
            ),
            staging_root: read("gatekeeping", "staging_root", paths.build_dir.join(&id)),
            tasks_root,
            shared_dir,
        }
    }
}

fn path(stated: Option<&Value>, default: PathBuf, env: &Environment) -> Claim {
    match stated {
        None | Some(Value::Null) => Claim::Path(default),
        Some(Value::String(text)) if text.trim().is_empty() => Claim::Path(default),
        Some(Value::String(text)) => {
            let expanded = env
                .expand_user(text)
                .unwrap_or_else(|_| PathBuf::from(text));
            Claim::Path(env.normalise(expanded))
        }
        Some(_) => Claim::Unknown,
    }
}

/// `project.id`, if it is a valid one.
pub(super) fn stated_id(value: &Value) -> Option<String> {
    let id = value.pointer("/project/id")?.as_str()?;
    crate::id::is_valid(id).then(|| id.to_owned())
}
