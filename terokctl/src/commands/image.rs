//! Images and the disk they and everything else take.

use super::project::texts;
use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::{Failure, REFUSED, Result};
use crate::operation;
use crate::render::{Column, Screen, Show, View, size};
use crate::session::Session;
use serde_json::{Value, json};
use terok_proto::error::printable_line;

/// Columns of `image list` and `image orphans`.
pub(super) const COLUMNS: &[Column] = &[
    Column::new("REPOSITORY", "/repository"),
    Column::new("TAG", "/tag"),
    Column::new("LAYER", "/layer"),
    Column::new("PROJECT", "/project_id"),
    Column::new("IMAGE", "/image_id").show(Show::With(short_id)),
    Column::new("SIZE", "/size_bytes").show(Show::Size),
    Column::new("CREATED", "/created"),
    Column::new("CONTAINERS", "/containers"),
];

/// The first digits of an image's id, enough for humans.
pub(super) fn short_id(id: &Value) -> String {
    let id = id.as_str().unwrap_or_default();
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.chars().take(12).collect()
}

/// Removes orphaned images after showing them.
pub(super) fn cleanup(session: &mut Session, values: &Values<'_>) -> Result<()> {
    take_away(session, values, "cleanup_images", "no orphaned images").map(drop)
}

/// Removes the images that are named; one that stays is a failure.
pub(super) fn remove(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let stays = take_away(session, values, "remove_images", "no images")?;
    if stays {
        return Err(Failure::Told(REFUSED));
    }
    Ok(())
}

/// Says what would go, asks, and lets it go; answers whether anything stays that should have gone.
fn take_away(
    session: &mut Session,
    values: &Values<'_>,
    method: &str,
    nothing: &str,
) -> Result<bool> {
    let params = values.params();
    let mut dry = params.clone();
    dry.insert("dry_run".to_owned(), true.into());
    let dry = Value::Object(dry).to_string();
    if values.flag("dry-run") {
        let plan = session.call(method, &dry)?;
        return told(session, method, &plan, nothing);
    }
    if !values.flag("yes") {
        let plan = session.call(method, &dry)?;
        let plan: Value = session.read(method, &plan)?;
        let names: Vec<&str> = texts(&plan["removed"]).collect();
        if names.is_empty() {
            session.note(nothing);
            return Ok(false);
        }
        let mut dialog = Dialog::new(session.interrupts.clone());
        for name in &names {
            dialog.say(&format!("  {}", printable_line(name)));
        }
        let question = match names.len() {
            1 => "Remove this image?".to_owned(),
            n => format!("Remove these {n} images?"),
        };
        if !dialog.confirm(&question)? {
            session.note("Cancelled; nothing was removed.");
            return Ok(false);
        }
    }
    if session.options.no_wait {
        return session
            .call_and_show(method, params, &View::Nothing)
            .map(|()| false);
    }
    let answer = operation::run(session, method, &Value::Object(params).to_string())?;
    told(session, method, &answer, nothing)
}

/// Shows what went; answers whether anything stays that should have gone.
fn told(session: &mut Session, method: &str, answer: &str, nothing: &str) -> Result<bool> {
    session.show(answer, &View::Custom(show_cleanup))?;
    let result: Value = session.read(method, answer)?;
    let any = |list: &str| texts(&result[list]).next().is_some();
    if !session.is_wire() {
        session.screen.finish()?;
        if any("failed") {
            session.note("images that failed may be in use by a container, or needed by a project");
        } else if !any("removed") {
            session.note(nothing);
        }
    }
    Ok(any("failed"))
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

/// Everybody's footprint, and what could go.
pub(super) fn usage(session: &mut Session, values: &Values<'_>) -> Result<()> {
    const METHOD: &str = "storage.overview";
    let answer = session.call(METHOD, &Value::Object(values.params()).to_string())?;
    session.show(&answer, &View::Custom(show_overview))?;
    if session.is_wire() {
        return Ok(());
    }
    session.screen.finish()?;
    let overview: Value = session.read(METHOD, &answer)?;
    let unused = overview["unused_base_images"].as_array();
    if unused.is_some_and(|images| !images.is_empty()) {
        session.hint("base images that no project uses go with `terokctl image remove`");
    }
    Ok(())
}

fn show_overview(screen: &mut Screen, value: &Value) -> Result<()> {
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
    section(
        screen,
        "Base images that no project uses",
        COLUMNS,
        &value["unused_base_images"],
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

    #[test]
    fn images_show_whose_they_are() {
        let image = |repository: &str, tag: &str, layer: &str, project: Value| {
            json!({
                "repository": repository, "tag": tag, "layer": layer, "project_id": project,
                "image_id": "sha256:0123456789abcdef", "size": "2.0 MB", "size_bytes": 2_000_000, "created": "2 days ago",
                "containers": 1,
            })
        };
        let value = json!({
            "global_images": [image("localhost/terok-l0", "fedora-44", "l0", Value::Null)],
            "unused_base_images": [image("localhost/terok-l0", "old", "l0", Value::Null)],
            "shared_mounts": [], "projects": [], "gates": [], "grand_total": 2_000_000,
        });
        let mut screen = Screen::memory(true);
        show_overview(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        Images of no single project
        REPOSITORY          TAG        LAYER  PROJECT  IMAGE           SIZE  CREATED     CONTAINERS
        localhost/terok-l0  fedora-44  l0              0123456789ab  2.0 MB  2 days ago  1

        Base images that no project uses
        REPOSITORY          TAG  LAYER  PROJECT  IMAGE           SIZE  CREATED     CONTAINERS
        localhost/terok-l0  old  l0              0123456789ab  2.0 MB  2 days ago  1

        Total: 2.0 MB
        ");
        let mut screen = Screen::memory(false);
        let own = image("localhost/a", "l2-cli", "l2-cli", json!("a"));
        screen.table(COLUMNS, &[own]).expect("memory");
        assert_eq!(
            screen.text(),
            "localhost/a\tl2-cli\tl2-cli\ta\t0123456789ab\t2000000\t2 days ago\t1\n"
        );
    }
}
