//! Agents: what can be installed into images, and what a project chooses.

use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::{Failure, Result};
use crate::render::{Column, View};
use crate::session::Session;
use serde_json::Value;
use terok_proto::methods as m;
use terok_proto::wizard::Question;

const ROSTER: &[Column] = &[
    Column::new("NAME", "/name"),
    Column::new("KIND", "/kind"),
    super::mark("AGENT", "/is_agent"),
    Column::new("LABEL", "/label"),
    Column::new("ORIGIN", "/origin"),
    Column::new("PROBLEM", "/error"),
];

/// Lists the roster without what is no agent (agents.md §1.1); the wire has all of it.
pub(super) fn list(session: &mut Session, values: &Values<'_>) -> Result<()> {
    const METHOD: &str = "agents.list";
    let answer = session.call(METHOD, "{}")?;
    if session.is_wire() {
        return session.show(&answer, &View::Json);
    }
    let mut roster: Vec<Value> = session.read(METHOD, &answer)?;
    let tools = values.flag("all");
    roster.retain(|entry| is_shown(entry, tools));
    session.screen.table(ROSTER, &roster)
}

/// Whether an entry is listed; one that cannot be used always is, for somebody has to mend it.
fn is_shown(entry: &Value, tools: bool) -> bool {
    match entry["kind"].as_str() {
        _ if !entry["error"].is_null() => true,
        Some("tool") => tools,
        Some("runtime") => false,
        _ => true,
    }
}

/// Writes a project's selection and says what brings it into the images. Without one it is asked for.
pub(super) fn select(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let id = values.required("ID");
    let mut params = values.params();
    if values.text("SELECTION").is_none() {
        let Some(selection) = pick(session, id)? else {
            session.note("Cancelled; nothing was written.");
            return Ok(());
        };
        params.insert("selection".to_owned(), selection.into());
    }
    session.call_and_show("set_project_image_agents", params, &View::Text)?;
    if !session.is_wire() {
        session.screen.finish()?;
        session.hint(&format!(
            "the images change with `terokctl project build {id}`"
        ));
    }
    Ok(())
}

/// Has a selection typed; `None` at the end of the input.
fn pick(session: &mut Session, id: &str) -> Result<Option<String>> {
    if !Dialog::is_interactive() {
        return Err(Failure::Usage(format!(
            "name the agents: `terokctl project agents {id} SELECTION`, such as claude,codex or all"
        )));
    }
    let question = session.ask(&m::AgentsQuestion {})?;
    let mut dialog = Dialog::new(session.interrupts.clone());
    offer(&dialog, &question);
    ask(&mut dialog)
}

/// Shows what can be selected, and how.
pub(super) fn offer(dialog: &Dialog, question: &Question) {
    dialog.say(&question.prompt);
    for (name, label) in &question.choices {
        dialog.say(&format!("  {name}  {label}"));
    }
    dialog.say("Names with commas, -name to leave one out, or all.");
}

/// Asks for a selection; an empty line means all.
pub(super) fn ask(dialog: &mut Dialog) -> Result<Option<String>> {
    let raw = dialog.ask("Agents [all]: ")?;
    Ok(raw.map(|raw| match raw.trim() {
        "" => "all".to_owned(),
        _ => raw,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_agents_and_what_is_broken_are_listed() {
        for (kind, error, plainly, with_all) in [
            ("native", json!(null), true, true),
            ("opencode", json!(null), true, true),
            ("bridge", json!(null), true, true),
            ("a_kind_of_tomorrow", json!(null), true, true),
            ("tool", json!(null), false, true),
            ("runtime", json!(null), false, false),
            ("tool", json!("line 1: x"), true, true),
            ("runtime", json!("line 1: x"), true, true),
        ] {
            let entry = json!({"name": "x", "kind": kind, "error": error});
            assert_eq!(is_shown(&entry, false), plainly, "{entry}");
            assert_eq!(is_shown(&entry, true), with_all, "{entry}");
        }
    }
}
