//! Operations: list, show, wait.

use crate::args::Values;
use crate::failure::Result;
use crate::operation;
use crate::progress;
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde::Deserialize;
use serde_json::Value;
use terok_proto::ops::Progress;

/// Columns of `op list`.
pub(super) const COLUMNS: &[Column] = &[
    Column::new("ID", "/id"),
    Column::new("METHOD", "/method"),
    Column::new("PROJECT", "/project_id"),
    Column::new("STATE", "/state"),
    Column::new("STARTED", "/started_at"),
    Column::new("PROGRESS", "/progress").show(Show::With(progress_text)),
    Column::new("ERROR", "/error/message"),
];

fn progress_text(value: &Value) -> String {
    Progress::deserialize(value).map_or_else(|_| String::new(), |p| progress::draw(&p))
}

pub(super) fn show(session: &mut Session, values: &Values<'_>) -> Result<()> {
    if !values.flag("wait") {
        return session.call_and_show("operation.get", values.params(), &View::Record);
    }
    let deadline = session.deadline();
    let result = operation::follow(session, values.required("OPERATION"), deadline)?;
    session.show(&result, &View::Json)
}

/// One operation as a row.
pub(super) fn show_one(screen: &mut Screen, value: &Value) -> Result<()> {
    screen.table(COLUMNS, std::slice::from_ref(value))
}
