//! `project delete`: shows what would go, has the id typed, and tells what went (projects.md §8.4).

use super::project::texts;
use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::Result;
use crate::render::{Screen, View};
use crate::session::Session;
use serde_json::{Value, json};
use terok_proto::methods as m;
use terok_proto::project::DeleteProjectResult;

const METHOD: &str = "delete_project";

pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let id = values.required("ID").to_owned();
    if values.flag("dry-run") {
        let mut params = values.params();
        params.insert("dry_run".to_owned(), true.into());
        let plan = session.call(METHOD, &Value::Object(params).to_string())?;
        return session.show(&plan, &View::Custom(show_plan));
    }
    if !values.flag("yes") && !agreed(session, values, &id)? {
        session.note("Cancelled; nothing was removed.");
        return Ok(());
    }
    session.call_and_show(METHOD, values.params(), &View::Custom(show_result))
}

/// Shows what is at stake and has the id typed.
fn agreed(session: &mut Session, values: &Values<'_>, id: &str) -> Result<bool> {
    let mut params = values.params();
    params.insert("dry_run".to_owned(), true.into());
    let plan = session.call(METHOD, &Value::Object(params).to_string())?;
    let plan: DeleteProjectResult = session.read(METHOD, &plan)?;
    let mut dialog = Dialog::new(session.interrupts.clone());
    // A broken project can be deleted too; it has no configuration to show.
    if let Ok(project) = session.ask(&m::GetProject {
        project_id: id.to_owned(),
    }) {
        let sharing = session.ask(&m::FindProjectsSharingGate {
            gate_path: project.config.gate_path.clone(),
            exclude_project: Some(id.to_owned()),
        })?;
        dialog.say(&format!("Project:   {}", project.id));
        dialog.say(&format!("Root:      {}", project.config.root));
        dialog.say(&format!(
            "Class:     {}",
            word(&json!(project.security_class))
        ));
        let upstream = project.config.upstream_url.as_deref();
        dialog.say(&format!(
            "Upstream:  {}",
            upstream.unwrap_or("none (local only)")
        ));
        if !sharing.is_empty() {
            let others: Vec<&str> = sharing.iter().map(|(id, _)| id.as_str()).collect();
            dialog.say(&format!(
                "Gate:      shared with {}, so it stays",
                others.join(", ")
            ));
        }
    } else {
        dialog.say(&format!("Project:   {id} (broken)"));
    }
    let paths = session.ask(&m::DaemonGetPaths {})?;
    if let Some(dir) = paths.paths.get("archive_dir").and_then(Value::as_str) {
        dialog.say(&format!("Archive:   in {dir}"));
    }
    for what in &plan.deleted {
        dialog.say(&format!("Removes    {what}"));
    }
    for what in &plan.skipped {
        dialog.say(&format!("Keeps      {what}"));
    }
    for warning in &plan.warnings {
        dialog.say(&format!("Warning:   {warning}"));
    }
    let typed = dialog.ask(&format!("Type `{id}` to delete the project: "))?;
    Ok(typed.is_some_and(|typed| typed.trim() == id))
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn show_plan(screen: &mut Screen, value: &Value) -> Result<()> {
    show(screen, value, "Would remove", "Would keep")
}

fn show_result(screen: &mut Screen, value: &Value) -> Result<()> {
    if let Some(archive) = value["archive"].as_str() {
        screen.line(&format!("Archive: {archive}"))?;
    }
    show(screen, value, "Removed", "Skipped")?;
    if value["reveals_system_project"] == json!(true) {
        screen.note("a system project of the same id is visible again");
    }
    Ok(())
}

fn show(screen: &mut Screen, value: &Value, removed: &str, skipped: &str) -> Result<()> {
    for (heading, list) in [(removed, "deleted"), (skipped, "skipped")] {
        let mut items = texts(&value[list]).peekable();
        if items.peek().is_some() {
            screen.line(&format!("{heading}:"))?;
        }
        for item in items {
            screen.line(&format!("  {item}"))?;
        }
    }
    for warning in texts(&value["warnings"]) {
        screen.warning(warning);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_names_archive_removed_and_skipped() {
        let value = json!({"archive": "/a/x.tar.gz", "deleted": ["/p/x", "1 SSH key"], "skipped": ["gate: shared\u{1b}"], "warnings": []});
        let mut screen = Screen::memory(true);
        show_result(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        Archive: /a/x.tar.gz
        Removed:
          /p/x
          1 SSH key
        Skipped:
          gate: shared\x1b
        ");
    }
}
