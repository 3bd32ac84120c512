//! `watch`: events as they happen.

use crate::args::Values;
use crate::failure::{Failure, Result};
use crate::progress;
use crate::render::{Screen, plain};
use crate::session::Session;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;
use terok_proto::ops::Progress;

/// How much of an event's details a line shows to a human.
const MAX_DETAILS: usize = 160;
/// How long to wait before looking for the next daemon.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let mut params = values.params();
    session.interrupts.end_with_output();
    loop {
        match stream(session, &mut params) {
            Err(Failure::NoDaemon { message, .. }) if values.flag("follow") => {
                session.note(&format!("{message}; waiting for the next daemon"));
                session.disconnect();
                // What happens before we are back shall not go unnoticed: for another epoch the daemon tells of a gap.
                if !params.contains_key("since") {
                    params.insert("since".to_owned(), 0.into());
                    params.insert("epoch".to_owned(), "none".into());
                }
                // Watching is no reason to start a daemon that somebody ended.
                session.options.no_autostart = true;
                while session.connection(None).is_err() {
                    session.interrupts.pause(PAUSE)?;
                }
            }
            outcome => return outcome,
        }
    }
}

/// Prints until the stream ends; remembers in `params` where to go on.
fn stream(session: &mut Session, params: &mut Map<String, Value>) -> Result<()> {
    let text = Value::Object(params.clone()).to_string();
    session.call("events.subscribe", &text)?;
    params.remove("snapshot");
    loop {
        let item = session.connection(None)?.next(None)?.item;
        let event: Value = session.read("events.subscribe", &item)?;
        if session.options.json {
            session.screen.json_line(&item)?;
        } else if session.options.flat {
            session.screen.flat(&item)?;
        } else {
            show(&mut session.screen, &event)?;
        }
        session.screen.finish()?;
        // The next daemon has another epoch, so it answers with a gap, and nothing is lost unnoticed.
        if event["epoch"].is_string() && event["seq"].is_u64() {
            params.insert("epoch".to_owned(), event["epoch"].clone());
            params.insert("since".to_owned(), event["seq"].clone());
        }
    }
}

/// One event on one line.
fn show(screen: &mut Screen, event: &Value) -> Result<()> {
    let text = |name: &str| plain(&event[name]);
    if !screen.is_terminal() {
        let fields = ["at", "kind", "project_id", "task_id", "operation_id"].map(text);
        return screen.tabbed(&[fields.as_slice(), &[event["data"].to_string()]].concat());
    }
    let about = ["project_id", "task_id", "operation_id"]
        .map(text)
        .into_iter()
        .filter(|id| !id.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let line = format!(
        "{}  {:<20} {about}  {}",
        text("at"),
        text("kind"),
        details(&event["data"])
    );
    screen.line(line.trim_end())
}

/// What matters of an event's data.
fn details(data: &Value) -> String {
    if let Ok(progress) = Progress::deserialize(data) {
        return progress::draw(&progress);
    }
    for name in ["line", "message", "error", "missed", "state", "keys"] {
        if let Some(value) = data.get(name).filter(|v| !v.is_null()) {
            let text = plain(value);
            return match name {
                "missed" => format!("{text} events were lost: this reader is too slow"),
                _ => text,
            };
        }
    }
    let text = match data {
        Value::Null => String::new(),
        Value::Object(members) if members.is_empty() => String::new(),
        other => plain(other),
    };
    if text.chars().count() > MAX_DETAILS {
        text.chars().take(MAX_DETAILS - 1).chain(['…']).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_fit_on_a_line() {
        let events = [
            json!({"at": "T", "kind": "project.changed", "project_id": "a", "data": {"keys": ["x", "y"]}}),
            json!({"at": "T", "kind": "operation.log", "operation_id": "1", "data": {"stream": "stdout", "line": "a\u{1b}[2J"}}),
            json!({"at": "T", "kind": "events.lagged", "data": {"missed": 7}}),
            json!({"at": "T", "kind": "project.removed", "project_id": "a", "data": {}}),
        ];
        for (terminal, expected) in [
            (
                true,
                "T  project.changed      a  x, y\nT  operation.log        1  a\\x1b[2J\nT  events.lagged          7 events were lost: this reader is too slow\nT  project.removed      a\n",
            ),
            (
                false,
                "T\tproject.changed\ta\t\t\t{\"keys\":[\"x\",\"y\"]}\nT\toperation.log\t\t\t1\t{\"stream\":\"stdout\",\"line\":\"a\\u001b[2J\"}\nT\tevents.lagged\t\t\t\t{\"missed\":7}\nT\tproject.removed\ta\t\t\t{}\n",
            ),
        ] {
            let mut screen = Screen::memory(terminal);
            for event in &events {
                show(&mut screen, event).expect("memory");
            }
            assert_eq!(screen.text(), expected);
        }
    }

    #[test]
    fn long_details_are_cut() {
        let data = json!({"x": "y".repeat(9999)});
        assert_eq!(details(&data).chars().count(), MAX_DETAILS);
    }
}
