//! Operations: started with `detach`, then followed to their end, so that Ctrl-C can cancel what it interrupts.

use crate::connect::{Connection, refused};
use crate::failure::{Failure, Result};
use crate::progress::ProgressLine;
use crate::session::Session;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use terok_proto::Fault;
use terok_proto::Kind;
use terok_proto::error::printable_line;
use terok_proto::ops::{Detached, OperationState, Progress};

/// How often the operation itself is asked for, in case its stream says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the rest of the stream of an operation that is over may take.
const REST: Duration = Duration::from_millis(500);
/// How long a cancellation may take to be accepted.
const CANCEL: Duration = Duration::from_secs(5);

/// What an operation answers in the end.
#[derive(Deserialize)]
struct Record<'a> {
    state: OperationState,
    #[serde(default)]
    progress: Option<Progress>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Starts an operation and answers its id.
pub(crate) fn detach(session: &mut Session, method: &str, params: &str) -> Result<String> {
    let Some(params) = detached(params) else {
        return Err(Failure::Usage(
            "--no-wait needs parameters by name, and without `detach`".to_owned(),
        ));
    };
    let answer = session.call(method, &params)?;
    let detached: Detached = session.read(method, &answer)?;
    Ok(detached.operation_id)
}

/// Runs an operation to its end and answers its result's JSON.
pub(crate) fn run(session: &mut Session, method: &str, params: &str) -> Result<String> {
    let deadline = session.deadline();
    let Some(params) = detached(params) else {
        return session.call(method, params);
    };
    let (answer, interrupted) = session
        .connection(deadline)?
        .call_to_start(method, &params, deadline, CANCEL)?;
    match serde_json::from_str::<Detached>(&answer) {
        Ok(detached) => follow_on(session, &detached.operation_id, deadline, interrupted),
        // What takes no time needs no operation.
        Err(_) => Ok(answer),
    }
}

/// The parameters with `detach`, unless they are by position or say something about it already.
fn detached(params: &str) -> Option<String> {
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(params).ok()?;
    if members.contains_key("detach") {
        return None;
    }
    let yes = serde_json::value::to_raw_value(&true).expect("true is JSON");
    members.insert("detach".to_owned(), yes);
    serde_json::to_string(&members).ok()
}

/// Follows an operation to its end. The first Ctrl-C asks the daemon to cancel it, the second one leaves.
pub(crate) fn follow(session: &mut Session, id: &str, deadline: Option<Instant>) -> Result<String> {
    follow_on(session, id, deadline, false)
}

/// As [`follow`], when the first Ctrl-C may have come already.
fn follow_on(
    session: &mut Session,
    id: &str,
    deadline: Option<Instant>,
    interrupted: bool,
) -> Result<String> {
    let mut follower = Follower {
        params: json!({ "id": id }).to_string(),
        line: ProgressLine::new(&session.options),
        stream: None,
    };
    if interrupted {
        cancel(session, &follower.params)?;
    }
    let mut cancelled = interrupted;
    loop {
        match follower.watch(session, deadline) {
            Err(Failure::Interrupted) if !cancelled => {
                cancelled = true;
                follower.line.clear();
                cancel(session, &follower.params)?;
            }
            Err(failure) if cancelled && failure.is(Kind::Cancelled) => {
                return Err(Failure::Interrupted);
            }
            Err(Failure::Timeout(_)) => {
                return Err(Failure::Timeout(format!(
                    "operation {} goes on; see `terokctl op show`",
                    printable_line(id)
                )));
            }
            outcome => return outcome,
        }
    }
}

/// Asks the daemon to cancel.
fn cancel(session: &mut Session, params: &str) -> Result<()> {
    session.note("cancelling; press Ctrl-C again to leave it to the daemon");
    let limit = Some(Instant::now() + CANCEL);
    let connection = session.connection(limit)?;
    connection
        .call("operation.cancel", params, limit)
        .map(|_| ())
        .map_err(|_| Failure::Interrupted)
}

/// Who reads an operation's stream.
struct Follower {
    /// The operation, as parameters.
    params: String,
    line: ProgressLine,
    /// The subscription, made once: a second one would tell everything twice.
    stream: Option<String>,
}

impl Follower {
    /// Reads the operation's stream until it is final.
    fn watch(&mut self, session: &mut Session, deadline: Option<Instant>) -> Result<String> {
        let connection = session.connection(deadline)?;
        if self.stream.is_none() {
            let answer = connection.call("operation.subscribe", &self.params, deadline)?;
            self.stream = Some(subscription(&answer));
        }
        let mut ended = false;
        loop {
            // The record decides; the stream only makes it prompt.
            let answer = connection.call("operation.get", &self.params, deadline)?;
            let record: Record<'_> = serde_json::from_str(&answer)
                .map_err(|e| Failure::Internal(format!("the operation cannot be read: {e}")))?;
            if record.state.is_final() {
                if !ended {
                    self.read_on(connection, Some(Instant::now() + REST));
                }
                self.line.clear();
                return outcome(&record);
            }
            if let Some(progress) = &record.progress {
                self.line.update(progress);
            }
            let look_again = Instant::now() + LOOK_AGAIN;
            let until = deadline.map_or(look_again, |at| at.min(look_again));
            match self.read(connection, Some(until)) {
                Ok(()) => ended = true,
                Err(Failure::Timeout(_)) if deadline.is_none_or(|at| Instant::now() < at) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Shows what the stream brings until it says that the operation is over.
    fn read(&mut self, connection: &mut Connection, until: Option<Instant>) -> Result<()> {
        loop {
            let update = connection.next(until)?;
            if self.stream.as_deref() != Some(update.subscription.as_str()) {
                continue;
            }
            let update: Value = serde_json::from_str(&update.item).unwrap_or_default();
            if show(&update, &mut self.line) {
                return Ok(());
            }
        }
    }

    /// Shows what the stream of an operation that is over still holds: the end of its log. What keeps it from being read
    /// changes nothing about how the operation ended.
    fn read_on(&mut self, connection: &mut Connection, until: Option<Instant>) {
        let _ = self.read(connection, until);
    }
}

/// The id in the answer of a subscribing call, as notifications have it.
fn subscription(answer: &str) -> String {
    match serde_json::from_str(answer) {
        Ok(Value::String(id)) => id,
        _ => answer.trim().to_owned(),
    }
}

/// Shows an update; answers whether it is the final state.
fn show(update: &Value, line: &mut ProgressLine) -> bool {
    let Some(members) = update.as_object() else {
        return false;
    };
    if let Some(state) = members.get("state") {
        return OperationState::deserialize(state).is_ok_and(OperationState::is_final);
    }
    if let Some(text) = members.get("line").and_then(Value::as_str) {
        line.log(text);
        return false;
    }
    if let Some(missed) = members.get("lagged").and_then(Value::as_u64) {
        line.log(&format!("… {missed} lines are missing here"));
        return false;
    }
    if members.contains_key("phase") {
        if let Ok(progress) = Progress::deserialize(update) {
            line.update(&progress);
        }
        return false;
    }
    inner(members).is_some_and(|inner| show(inner, line))
}

/// What an update is about, inside whatever wraps it.
fn inner(members: &Map<String, Value>) -> Option<&Value> {
    ["progress", "log", "operation", "data"]
        .iter()
        .find_map(|name| members.get(*name))
        .filter(|inner| inner.is_object())
}

fn outcome(record: &Record<'_>) -> Result<String> {
    match (record.state, record.error) {
        (OperationState::Succeeded, _) => {
            Ok(record.result.map_or("null", RawValue::get).to_owned())
        }
        (_, Some(error)) => Err(refused(error.get())?),
        (OperationState::Cancelled, None) => Err(Failure::refusal(&Fault::new(
            Kind::Cancelled,
            "the operation was cancelled",
        ))),
        (_, None) => Err(Failure::refusal(&Fault::internal(
            "the operation failed without a reason",
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Options;

    #[test]
    fn detaching_needs_parameters_by_name() {
        assert_eq!(
            detached(r#"{"project_id":"a"}"#).as_deref(),
            Some(r#"{"detach":true,"project_id":"a"}"#)
        );
        assert_eq!(detached(r#"["a"]"#), None);
        assert_eq!(detached(r#"{"detach":false}"#), None);
    }

    #[test]
    fn updates_are_understood_in_any_wrapping() {
        let mut line = ProgressLine::new(&Options {
            quiet: true,
            ..Options::default()
        });
        let final_state = json!({"id": "1", "state": "failed"});
        assert!(show(&final_state, &mut line));
        assert!(show(
            &json!({"kind": "operation.finished", "data": final_state}),
            &mut line
        ));
        for other in [
            json!({"state": "running"}),
            json!({"phase": "archive"}),
            json!({"stream": "stdout", "line": "x"}),
            json!({"progress": {"phase": "x"}}),
            json!({"lagged": 7}),
            json!({"state": 7}),
            json!(null),
            json!({}),
        ] {
            assert!(!show(&other, &mut line), "{other}");
        }
    }

    #[test]
    fn the_record_decides() {
        let read = |text| outcome(&serde_json::from_str(text).expect("a record"));
        assert_eq!(
            read(r#"{"state":"succeeded","result":{"a": 1}}"#).expect("a result"),
            r#"{"a": 1}"#
        );
        assert_eq!(read(r#"{"state":"succeeded"}"#).expect("a result"), "null");
        let busy = r#"{"state":"failed","error":{"code":1210,"message":"x","data":{"kind":"project_busy"}}}"#;
        assert_eq!(read(busy).expect_err("a failure").exit_code(), 75);
        assert_eq!(
            read(r#"{"state":"cancelled"}"#)
                .expect_err("a failure")
                .exit_code(),
            1
        );
        assert_eq!(
            read(r#"{"state":"failed"}"#)
                .expect_err("a failure")
                .exit_code(),
            70
        );
    }
}
