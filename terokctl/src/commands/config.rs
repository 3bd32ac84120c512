//! Configuration: values with their origin, problems, and the check of a file.

use super::project::read_input;
use crate::args::Values;
use crate::failure::{Failure, REFUSED, Result};
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde_json::{Value, json};
use std::path::Path;
use terok_proto::config::{Problem, Severity};

/// Columns of `config problems` and `config validate`.
pub(super) const PROBLEMS: &[Column] = &[
    Column::new("SEVERITY", "/severity"),
    Column::new("PLACE", "").show(Show::With(place)),
    Column::new("KEY", "/location"),
    Column::new("PROBLEM", "/message"),
    Column::new("MEANT", "/suggestion"),
];

const VALUES: &[Column] = &[
    Column::new("KEY", "/key"),
    Column::new("VALUE", "/value"),
    Column::new("ORIGIN", "/origin"),
    Column::new("PLACE", "").show(Show::With(place)),
];

/// `path:line:column`, as far as known.
fn place(row: &Value) -> String {
    let mut text = row["path"].as_str().unwrap_or_default().to_owned();
    for number in [&row["line"], &row["column"]] {
        if let Some(number) = number.as_u64() {
            if !text.is_empty() {
                text.push(':');
            }
            text.push_str(&number.to_string());
        }
    }
    text
}

/// One problem for humans.
pub(super) fn problem_line(problem: &Problem) -> String {
    let mut line = String::new();
    if let Some(at) = problem.line {
        line.push_str(&format!("line {at}: "));
    }
    if !problem.location.is_empty() {
        line.push_str(&format!("{}: ", problem.location));
    }
    line.push_str(&problem.message);
    line
}

/// Values, then problems.
pub(super) fn show_resolved(screen: &mut Screen, value: &Value) -> Result<()> {
    let rows: Vec<Value> = value["values"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, v)| json!({"key": key, "value": v["value"], "origin": v["origin"], "path": v["path"], "line": v["line"]}))
        .collect();
    screen.table(VALUES, &rows)?;
    for problem in value["problems"].as_array().into_iter().flatten() {
        let place = place(problem);
        let message = problem["message"].as_str().unwrap_or_default();
        screen.warning(&format!("{place}: {message}"));
    }
    Ok(())
}

/// Checks a file; the exit code tells whether it could be used.
pub(super) fn validate(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let file = values.required("FILE");
    let kind = values.text("kind").unwrap_or_else(|| kind_of(file));
    let text = read_input(file)?;
    let params = json!({"text": text, "kind": kind}).to_string();
    let answer = session.call("config.validate", &params)?;
    let problems: Vec<Problem> = session.read("config.validate", &answer)?;
    session.show(&answer, &View::Table(PROBLEMS))?;
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(Failure::Told(REFUSED));
    }
    if problems.is_empty() {
        session.note("no problems");
    }
    Ok(())
}

fn kind_of(file: &str) -> &'static str {
    match Path::new(file).file_name().and_then(|name| name.to_str()) {
        Some("config.yml") => "global",
        Some("terokd.yml") => "terokd",
        _ => "project",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_an_origin_and_a_place() {
        let value = json!({"values": {
            "image.agents": {"value": "all", "origin": "default", "path": null, "line": null},
            "git.human_name": {"value": "Ada", "origin": "project", "path": "/p/project.yml", "line": 7},
        }, "problems": []});
        let mut screen = Screen::memory(true);
        show_resolved(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        KEY             VALUE  ORIGIN   PLACE
        image.agents    all    default
        git.human_name  Ada    project  /p/project.yml:7
        ");
    }

    #[test]
    fn the_kind_follows_from_the_name() {
        assert_eq!(kind_of("/x/config.yml"), "global");
        assert_eq!(kind_of("terokd.yml"), "terokd");
        assert_eq!(kind_of("-"), "project");
    }
}
