//! Images and the disk they and everything else take.

use super::project::texts;
use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::Result;
use crate::render::{Column, Screen, Show, View, size};
use crate::session::Session;
use serde_json::{Value, json};

const METHOD: &str = "cleanup_images";

/// Columns of `image list` and `image orphans`.
pub(super) const COLUMNS: &[Column] = &[
    Column::new("REPOSITORY", "/repository"),
    Column::new("TAG", "/tag"),
    Column::new("IMAGE", "/image_id").show(Show::With(short_id)),
    Column::new("SIZE", "/size_bytes").show(Show::Size),
    Column::new("CREATED", "/created"),
];

fn short_id(id: &Value) -> String {
    let id = id.as_str().unwrap_or_default();
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.chars().take(12).collect()
}

/// Removes orphaned images after showing them.
pub(super) fn cleanup(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let dry = json!({"dry_run": true}).to_string();
    if values.flag("dry-run") {
        let plan = session.call(METHOD, &dry)?;
        return session.show(&plan, &View::Custom(show_cleanup));
    }
    if !values.flag("yes") {
        let plan = session.call(METHOD, &dry)?;
        let plan: Value = session.read(METHOD, &plan)?;
        let names: Vec<&str> = texts(&plan["removed"]).collect();
        if names.is_empty() {
            session.note("no orphaned images");
            return Ok(());
        }
        let mut dialog = Dialog::new(session.interrupts.clone());
        for name in &names {
            dialog.say(&format!("  {name}"));
        }
        if !dialog.confirm(&format!("Remove {} images?", names.len()))? {
            session.note("Cancelled; nothing was removed.");
            return Ok(());
        }
    }
    session.call_and_show(METHOD, values.params(), &View::Custom(show_cleanup))
}

fn show_cleanup(screen: &mut Screen, value: &Value) -> Result<()> {
    let removed = if value["dry_run"] == json!(true) {
        "Would remove"
    } else {
        "Removed"
    };
    for (heading, list) in [(removed, "removed"), ("Failed", "failed")] {
        let mut names = texts(&value[list]).peekable();
        if names.peek().is_some() {
            screen.line(&format!("{heading}:"))?;
        }
        for name in names {
            screen.line(&format!("  {name}"))?;
        }
    }
    if texts(&value["failed"]).next().is_some() {
        screen.note("images that failed may be in use by a container");
    }
    Ok(())
}

/// One project's footprint.
pub(super) fn show_project(screen: &mut Screen, value: &Value) -> Result<()> {
    const TASKS: &[Column] = &[
        Column::new("TASK", "/task_id"),
        Column::new("WORKSPACE", "/workspace_bytes").show(Show::Size),
        Column::new("AGENT CONFIG", "/agent_config_bytes").show(Show::Size),
        Column::new("OVERLAY", "/overlay_bytes").show(Show::Size),
        Column::new("TOTAL", "/total_bytes").show(Show::Size),
    ];
    if !screen.is_terminal() {
        return screen.record(value);
    }
    section(screen, "Images", COLUMNS, &value["images"])?;
    section(screen, "Tasks", TASKS, &value["tasks"])?;
    totals(screen, value)
}

/// Everybody's footprint.
pub(super) fn show_overview(screen: &mut Screen, value: &Value) -> Result<()> {
    const PROJECTS: &[Column] = &[
        Column::new("PROJECT", "/project_id"),
        Column::new("IMAGES", "/image_bytes").show(Show::Size),
        Column::new("WORKSPACES", "/workspace_bytes").show(Show::Size),
        Column::new("TOTAL", "/total_bytes").show(Show::Size),
        Column::new("TASKS", "/task_count"),
    ];
    const MOUNTS: &[Column] = &[
        Column::new("NAME", "/label"),
        Column::new("SIZE", "/bytes").show(Show::Size),
    ];
    const GATES: &[Column] = &[
        Column::new("PATH", "/path"),
        Column::new("SIZE", "/bytes").show(Show::Size),
        Column::new("PROJECTS", "/project_ids"),
    ];
    if !screen.is_terminal() {
        return screen.record(value);
    }
    section(
        screen,
        "Images of no single project",
        COLUMNS,
        &value["global_images"],
    )?;
    section(screen, "Shared mounts", MOUNTS, &value["shared_mounts"])?;
    section(screen, "Projects", PROJECTS, &value["projects"])?;
    section(screen, "Gates", GATES, &value["gates"])?;
    totals(screen, value)
}

fn section(screen: &mut Screen, title: &str, columns: &[Column], rows: &Value) -> Result<()> {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return Ok(());
    }
    screen.heading(title)?;
    screen.table(columns, rows)?;
    screen.line("")
}

fn totals(screen: &mut Screen, value: &Value) -> Result<()> {
    let total = value["grand_total"]
        .as_u64()
        .or_else(|| value["total_bytes"].as_u64());
    if let Some(total) = total {
        screen.line(&format!("Total: {}", size(total)))?;
    }
    if let Some(message) = value["images_error"]["message"].as_str() {
        screen.note(&format!("without images: {message}"));
    }
    if value["incomplete"] == json!(true) {
        screen.note("some directories could not be read, so the figures are too low");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footprint_has_sections_and_a_total() {
        let value = json!({
            "images": [],
            "images_error": null,
            "tasks": [{"task_id": "ab", "workspace_bytes": 1_500_000, "agent_config_bytes": 5, "overlay_bytes": null, "total_bytes": 1_500_005}],
            "total_bytes": 1_500_005, "incomplete": false,
        });
        let mut screen = Screen::memory(true);
        show_project(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        Tasks
        TASK  WORKSPACE  AGENT CONFIG  OVERLAY   TOTAL
        ab       1.5 MB           5 B           1.5 MB

        Total: 1.5 MB
        ");
    }
}
