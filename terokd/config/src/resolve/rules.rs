//! Rules of single fields that need more than their own value.

use super::{Chain, Context, Report, get, steps};
use crate::agent::subagents;
use crate::env::Environment;
use crate::id;
use crate::roster::Roster;
use crate::selection;
use crate::validate::{Finding, quoted};
use crate::yaml::Step;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use terok_proto::config::{Authorship, ProblemCode, SecurityClass};

/// The id: the file's, else the directory's name. Doubts about it are warnings, as existing projects keep theirs.
pub(super) fn id(chain: &Chain<'_>, dir_name: &str, report: &mut Report<'_>) -> String {
    let path = steps("project.id");
    let stated = chain.text("project.id");
    let id = stated.unwrap_or_else(|| dir_name.to_owned());
    if !id::is_valid(&id) {
        let message = format!("{} is no project id: {}", quoted(&json!(id)), id::RULE);
        report.add(Finding::error(&path, ProblemCode::BadValue, message));
        return id;
    }
    if id != dir_name {
        let message =
            format!("the directory is named `{dir_name}` but the id is `{id}`; make the two equal");
        report.add(Finding::warning(&path, ProblemCode::Conflict, message));
    }
    if let Some(why) = id::new_id_problem(&id) {
        let shown: String = id.chars().take(80).collect();
        let message = format!("`{shown}` will cause trouble: {why}");
        report.add(Finding::warning(&path, ProblemCode::BadValue, message));
    }
    id
}

/// Upstreams that git reaches over SSH though they do not look like it.
pub(super) fn upstream(url: Option<&str>, report: &mut Report<'_>) {
    let Some(url) = url.map(str::trim) else {
        return;
    };
    let lower = url.to_ascii_lowercase();
    let odd = lower.starts_with("git+ssh://") || lower.starts_with("ssh+git://");
    let bare_address = url.starts_with('[') && url.contains("]:");
    if odd || bare_address {
        let message = "git reaches this upstream over SSH, but it is not recognised as such; write `ssh://user@host/path`";
        let finding = Finding::warning(&steps("git.upstream_url"), ProblemCode::BadValue, message);
        report.add(finding);
    }
}

/// Gatekeeping without a gate protects nothing.
pub(super) fn gatekeeping(
    id: &str,
    class: SecurityClass,
    gate_enabled: bool,
    report: &mut Report<'_>,
) {
    if class == SecurityClass::Gatekeeping && !gate_enabled {
        let message = format!(
            "project `{id}`: security_class gatekeeping needs the gate; set `project.security_class: online` to do without it, or `gate.enabled: true`"
        );
        report.add(Finding::error(
            &steps("gate.enabled"),
            ProblemCode::Conflict,
            message,
        ));
    }
}

/// A path that a file states: `~` expanded, relative to the home directory with a warning.
pub(super) fn stated_path(
    text: Option<String>,
    key: &str,
    env: &Environment,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let text = text?;
    if text.contains('\0') {
        let finding = Finding::error(&steps(key), ProblemCode::BadValue, "a path holds no NUL");
        report.add(finding);
        return None;
    }
    // A `~user` that nobody knows has always been a directory of that name.
    let expanded = env
        .expand_user(&text)
        .unwrap_or_else(|_| PathBuf::from(&text));
    let path = env.normalise(&expanded);
    if expanded.is_relative() {
        let message = format!(
            "the path is relative, so it starts at your home directory: `{}`; write it in full",
            path.display()
        );
        report.add(Finding::warning(
            &steps(key),
            ProblemCode::BadValue,
            message,
        ));
    }
    Some(path)
}

/// The directory that all tasks share.
pub(super) fn shared_dir(
    chain: &Chain<'_>,
    tasks_root: &Path,
    id: &str,
    env: &Environment,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let at = steps("shared_dir");
    match chain.find("shared_dir")?.0 {
        Value::Bool(true) => Some(tasks_root.join("_shared")),
        Value::String(text) => {
            let problem = match env.expand_user(text) {
                Err(unknown) => unknown.to_string(),
                Ok(path) if path.is_absolute() && !text.contains('\0') => {
                    return Some(env.normalise(path));
                }
                Ok(_) => "it has to be an absolute path, or true for a directory among the tasks"
                    .to_owned(),
            };
            let shown = quoted(&json!(text));
            let message = format!("project `{id}`: shared_dir {shown} cannot be used: {problem}");
            report.add(Finding::error(&at, ProblemCode::BadValue, message));
            None
        }
        _ => None,
    }
}

/// Author and committer, from the merged identity.
pub(super) fn authorship(
    identity: &Map<String, Value>,
    chain: &Chain<'_>,
    id: &str,
    context: Context<'_>,
    report: &mut Report<'_>,
) -> Option<Authorship> {
    let text = identity.get("authorship").and_then(Value::as_str)?;
    let word = text.trim().to_lowercase();
    if word.is_empty() {
        return None;
    }
    let known = serde_json::from_value(json!(word)).ok();
    if known.is_none() {
        let mut layers = Vec::new();
        if get(chain.global, "git.authorship").is_some() {
            let origin = context
                .global
                .config_layers
                .origin(&steps("git.authorship"));
            layers.push(origin.map_or("config.yml".to_owned(), |(layer, _)| layer.name.clone()));
        }
        if get(chain.project, "git.authorship").is_some() {
            layers.push("project.yml".to_owned());
        }
        let message = format!(
            "project `{id}`: git.authorship {} is not one of agent-human, human-agent, agent, human (set by: {})",
            quoted(&json!(text)),
            layers.join(", ")
        );
        report.add(Finding::error(
            &steps("git.authorship"),
            ProblemCode::BadValue,
            message,
        ));
    }
    known
}

/// The project's `agent:` section with absolute sub-agent files.
pub(super) fn agent_config(
    chain: &Chain<'_>,
    root: &Path,
    env: &Environment,
    report: &mut Report<'_>,
) -> Map<String, Value> {
    let section = chain.project.get("agent").and_then(Value::as_object);
    let mut agent = section.cloned().unwrap_or_default();
    if let Err(mut finding) = subagents::resolve_files(&mut agent, root, env) {
        finding.path.insert(0, Step::from("agent"));
        report.add(finding);
    }
    agent
}

/// Names in `image.agents` that nobody knows: a warning, the build says no later.
pub(super) fn agents(chain: &Chain<'_>, roster: Option<&Roster>, report: &mut Report<'_>) {
    let (Some(roster), Some(text)) = (roster, chain.text("image.agents")) else {
        return;
    };
    let messages = match selection::resolve_text(&text, roster) {
        Ok(resolved) => resolved.warnings,
        Err(fault) => vec![fault.message],
    };
    for message in messages {
        let finding = Finding::warning(&steps("image.agents"), ProblemCode::BadValue, message);
        report.add(finding);
    }
}
