//! `project state`: what there is of a project, what of it is old, and what renews it.

use super::project::texts;
use crate::args::Values;
use crate::failure::Result;
use crate::render::{Screen, View};
use crate::session::Session;
use serde_json::{Value, json};

/// Shows the state and says what to do about it.
pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    const METHOD: &str = "project.state";
    let answer = session.call(METHOD, &Value::Object(values.params()).to_string())?;
    session.show(&answer, &View::Custom(show))?;
    if session.is_wire() {
        return Ok(());
    }
    session.screen.finish()?;
    let state: Value = session.read(METHOD, &answer)?;
    if let Some(flag) = remedy(&state) {
        let id = values.required("ID");
        session.hint(&format!(
            "bring the images up to date with `terokctl project build {id}{flag}`"
        ));
    }
    Ok(())
}

/// For humans what it amounts to, for programs every member.
fn show(screen: &mut Screen, value: &Value) -> Result<()> {
    if !screen.is_terminal() {
        return screen.record(value);
    }
    screen.record(&json!({
        "Dockerfiles": dockerfiles(value),
        "Images": images(value),
        "Agents": agents(value),
        "SSH key": key(value),
        "Gate": if is(value, "gate") { "there" } else { "none" },
        "Last commit": commit(&value["gate_last_commit"]),
    }))?;
    screen.finish()?;
    for warning in texts(&value["warnings"]) {
        screen.warning(warning);
    }
    Ok(())
}

fn is(value: &Value, name: &str) -> bool {
    value[name] == json!(true)
}

fn list(value: &Value) -> String {
    texts(value).collect::<Vec<_>>().join(", ")
}

fn dockerfiles(value: &Value) -> &'static str {
    match (is(value, "dockerfiles"), is(value, "dockerfiles_old")) {
        (false, _) => "none",
        (true, true) => "out of date",
        (true, false) => "current",
    }
}

fn images(value: &Value) -> String {
    let mut parts = Vec::new();
    let (stale, missing) = (list(&value["stale_layers"]), list(&value["missing_layers"]));
    match (is(value, "images"), is(value, "images_old")) {
        (true, false) if is(value, "dockerfiles") => parts.push("current".to_owned()),
        (true, false) => parts.push("there, of unknown age".to_owned()),
        (true, true) => parts.push(format!("stale: {stale}")),
        // Where Podman was asked, it is known what is missing.
        (false, _) if missing.is_empty() => parts.push("unknown".to_owned()),
        (false, _) => {}
    }
    if !missing.is_empty() {
        parts.push(format!("missing: {missing}"));
    }
    let rebuilt = list(&value["rebuild_set"]);
    if !rebuilt.is_empty() && rebuilt != stale {
        parts.push(format!("to rebuild: {rebuilt}"));
    }
    parts.join("; ")
}

fn agents(value: &Value) -> String {
    let (installed, configured) = (&value["agents_installed"], &value["agents_configured"]);
    match (installed.is_array(), configured.is_array()) {
        (true, true) if installed == configured => list(installed),
        (true, true) => format!("{} (configured: {})", list(installed), list(configured)),
        (true, false) => format!(
            "{} (the configured selection is not valid)",
            list(installed)
        ),
        (false, true) => format!("configured: {}", list(configured)),
        (false, false) => "the configured selection is not valid".to_owned(),
    }
}

fn key(value: &Value) -> &'static str {
    match value["ssh"].as_bool() {
        Some(true) => "there",
        Some(false) => "none",
        None if is(value, "vault_locked") => "unknown: the vault is locked",
        None => "unknown",
    }
}

fn commit(commit: &Value) -> String {
    let text = |name: &str| commit[name].as_str().unwrap_or_default();
    let hash: String = text("commit_hash").chars().take(12).collect();
    let (date, author, message) = (
        text("commit_date"),
        text("commit_author"),
        text("commit_message"),
    );
    if hash.is_empty() {
        return String::new();
    }
    format!("{hash} {date} {author}: {message}")
}

/// Flags of the build that makes all current; none if nothing is known to be wrong.
fn remedy(state: &Value) -> Option<&'static str> {
    let missing: Vec<&str> = texts(&state["missing_layers"]).collect();
    if is(state, "images_old") {
        // A layer that is missing is built without being asked for.
        let kept = texts(&state["stale_layers"]).any(|l| l != "l2" && !missing.contains(&l));
        return Some(if kept { " --rebuild-stale" } else { "" });
    }
    (!is(state, "images") && !missing.is_empty()).then_some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(changes: Value) -> Value {
        let mut state = json!({
            "dockerfiles": true, "dockerfiles_old": false, "images": true, "images_old": false,
            "stale_layers": [], "rebuild_set": [], "missing_layers": [],
            "agents_installed": ["claude"], "agents_configured": ["claude"],
            "ssh": true, "vault_locked": false, "gate": true,
            "gate_last_commit": {"commit_hash": "0123456789abcdef", "commit_date": "2026-01-02", "commit_author": "Ada", "commit_message": "x\u{1b}"},
        });
        for (name, value) in changes.as_object().expect("an object") {
            state[name] = value.clone();
        }
        state
    }

    fn shown(state: &Value) -> String {
        let mut screen = Screen::memory(true);
        show(&mut screen, state).expect("memory");
        screen.text()
    }

    #[test]
    fn humans_see_what_is_old_and_what_is_missing() {
        insta::assert_snapshot!(shown(&state(json!({}))), @r"
        Dockerfiles  current
        Images       current
        Agents       claude
        SSH key      there
        Gate         there
        Last commit  0123456789ab 2026-01-02 Ada: x\x1b
        ");
        insta::assert_snapshot!(shown(&state(json!({
            "images_old": true, "stale_layers": ["l0"], "rebuild_set": ["l0", "l1", "l2"], "missing_layers": ["l1"],
            "agents_configured": ["claude", "codex"], "ssh": null, "vault_locked": true, "gate": false, "gate_last_commit": null,
        }))), @r"
        Dockerfiles  current
        Images       stale: l0; missing: l1; to rebuild: l0, l1, l2
        Agents       claude (configured: claude, codex)
        SSH key      unknown: the vault is locked
        Gate         none
        Last commit
        ");
        insta::assert_snapshot!(shown(&state(json!({
            "dockerfiles": false, "images": false, "missing_layers": [], "agents_installed": null, "agents_configured": null, "ssh": false,
        }))), @r"
        Dockerfiles  none
        Images       unknown
        Agents       the configured selection is not valid
        SSH key      none
        Gate         there
        Last commit  0123456789ab 2026-01-02 Ada: x\x1b
        ");
    }

    #[test]
    fn the_build_that_helps_is_named() {
        for (changes, flag) in [
            (json!({}), None),
            (json!({"images": false}), None),
            (json!({"missing_layers": ["l0"]}), None),
            (json!({"images": false, "missing_layers": ["l2"]}), Some("")),
            (
                json!({"images_old": true, "stale_layers": ["l2"]}),
                Some(""),
            ),
            (
                json!({"images_old": true, "stale_layers": ["l1", "l2"]}),
                Some(" --rebuild-stale"),
            ),
            (
                json!({"images_old": true, "stale_layers": ["l1"], "missing_layers": ["l1"]}),
                Some(""),
            ),
        ] {
            assert_eq!(remedy(&state(changes.clone())), flag, "{changes}");
        }
    }
}
