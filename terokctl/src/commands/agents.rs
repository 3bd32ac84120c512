//! Agents: what can be installed into images, and what a project chooses.

use crate::args::Values;
use crate::failure::Result;
use crate::render::{Column, View};
use crate::session::Session;
use serde_json::Value;

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

/// Writes a project's selection and says what brings it into the images.
pub(super) fn select(session: &mut Session, values: &Values<'_>) -> Result<()> {
    session.call_and_show("set_project_image_agents", values.params(), &View::Text)?;
    if !session.is_wire() {
        session.screen.finish()?;
        session.hint(&format!(
            "the images change with `terokctl project build {}`",
            values.required("ID")
        ));
    }
    Ok(())
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
