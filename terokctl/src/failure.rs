//! Everything that ends a command: what the daemon answered, and what went wrong on this side.
//!
//! The only place that knows exit codes and how a failure is told, to a human or as JSON.

use crate::render::Style;
use serde_json::{Map, Value, json};
use std::io;
use terok_proto::error::{ErrorObject, printable_line};
use terok_proto::{Fault, Kind};

/// Result of everything in this program that can fail.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The daemon said no.
    Daemon {
        /// The error object as it came.
        raw: String,
        /// The same, read.
        error: Box<ErrorObject>,
    },
    /// The command line, or a file named by it, cannot be used.
    Usage(String),
    /// No daemon answers.
    NoDaemon {
        /// What was tried.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The time given with `--timeout` is over.
    Timeout(String),
    /// The daemon broke the contract, or this machine does not let us work.
    Internal(String),
    /// Ctrl-C.
    Interrupted,
    /// Everything has been said already; only the exit code is left.
    Told(u8),
    /// Nobody reads our output any more.
    OutputClosed,
}

/// The daemon said no.
pub(crate) const REFUSED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// No daemon.
pub(crate) const NO_DAEMON: u8 = 69;
/// Something that should not happen.
pub(crate) const INTERNAL: u8 = 70;
/// Panicked, busy or out of time: try again.
pub(crate) const TRY_AGAIN: u8 = 75;
/// Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

impl Failure {
    /// No daemon, without advice.
    pub(crate) fn no_daemon(message: impl Into<String>) -> Self {
        Self::NoDaemon {
            message: message.into(),
            hint: None,
        }
    }

    /// A refusal that is found out on this side, told as the daemon would.
    pub(crate) fn refusal(fault: &Fault) -> Self {
        let error = fault.to_object();
        Self::Daemon {
            raw: serde_json::to_string(&error).unwrap_or_default(),
            error: Box::new(error),
        }
    }

    /// The kind of the daemon's refusal.
    pub(crate) fn kind(&self) -> Option<&str> {
        match self {
            Self::Daemon { error, .. } => error.kind(),
            _ => None,
        }
    }

    /// A member of what the daemon says about its refusal.
    pub(crate) fn data(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Daemon { error, .. } => error.data.as_ref()?.get(name),
            _ => None,
        }
    }

    /// Whether the daemon refused for this reason.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind() == Some(kind.name())
    }

    /// The exit code (rpc.md §6).
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Daemon { error, .. } => match error.kind() {
                Some(kind) if kind == Kind::Internal.name() => INTERNAL,
                Some(kind) if is_worth_another_try(kind) => TRY_AGAIN,
                _ => REFUSED,
            },
            Self::Usage(_) => USAGE,
            Self::NoDaemon { .. } => NO_DAEMON,
            Self::Timeout(_) => TRY_AGAIN,
            Self::Internal(_) => INTERNAL,
            Self::Interrupted => INTERRUPTED,
            Self::Told(code) => *code,
            Self::OutputClosed => 0,
        }
    }

    /// The JSON-RPC error object, on one line; the daemon's own text goes through unchanged.
    pub(crate) fn to_json(&self) -> Option<String> {
        let (code, message, kind, hint) = match self {
            Self::Daemon { raw, .. } => return Some(raw.clone()),
            Self::Told(_) | Self::OutputClosed => return None,
            Self::Usage(message) => (
                Kind::InvalidParams.code(),
                message.as_str(),
                Kind::InvalidParams.name(),
                None,
            ),
            // Not of the daemon's kinds: it was not there to answer. The code is one that JSON-RPC leaves to implementations.
            Self::NoDaemon { message, hint } => {
                (-32000, message.as_str(), "no_daemon", hint.as_deref())
            }
            Self::Timeout(message) => (
                Kind::Timeout.code(),
                message.as_str(),
                Kind::Timeout.name(),
                None,
            ),
            Self::Internal(message) => (
                Kind::Internal.code(),
                message.as_str(),
                Kind::Internal.name(),
                None,
            ),
            Self::Interrupted => (
                Kind::Cancelled.code(),
                "interrupted",
                Kind::Cancelled.name(),
                None,
            ),
        };
        let mut data = Map::new();
        data.insert("kind".into(), kind.into());
        if let Some(hint) = hint {
            data.insert("hint".into(), hint.into());
        }
        Some(json!({"code": code, "message": printable_line(message), "data": data}).to_string())
    }

    /// Lines for a human.
    pub(crate) fn to_human(&self, style: Style, quiet: bool) -> String {
        let (message, data) = match self {
            Self::Daemon { error, .. } => (error.message.as_str(), error.data.as_ref()),
            Self::Usage(message)
            | Self::Timeout(message)
            | Self::Internal(message)
            | Self::NoDaemon { message, .. } => (message.as_str(), None),
            Self::Interrupted | Self::Told(_) | Self::OutputClosed => return String::new(),
        };
        let mut text = format!("{} {}\n", style.error("error:"), printable_line(message));
        for problem in data
            .and_then(|d| d.get("errors"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            text.push_str(&problem_line(problem));
        }
        if self.is(Kind::BuildFailed)
            && let Some(data) = data
        {
            text.push_str(&build_lines(data));
        }
        let hint = match self {
            Self::NoDaemon { hint, .. } => hint.as_deref(),
            _ => data.and_then(|d| d.get("hint")).and_then(Value::as_str),
        };
        if let Some(hint) = hint.filter(|_| !quiet) {
            text.push_str(&format!(
                "{} {}\n",
                style.hint("hint:"),
                printable_line(hint)
            ));
        }
        text
    }
}

/// One entry of `invalid_config`'s `errors`.
fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut line = String::from("  ");
    if let Some(at) = problem.get("line").and_then(Value::as_u64) {
        line.push_str(&format!("line {at}"));
        if let Some(column) = problem.get("column").and_then(Value::as_u64) {
            line.push_str(&format!(":{column}"));
        }
        line.push_str(": ");
    }
    let location = text("location");
    if !location.is_empty() {
        line.push_str(&printable_line(location));
        line.push_str(": ");
    }
    line.push_str(&printable_line(text("message")));
    if text("severity") == "warning" {
        line.push_str(" (warning)");
    }
    line.push('\n');
    line
}

/// What is known about a build that failed: layer, step, exit code, and the end of its output.
fn build_lines(data: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            let text = shortened(&printable_line(text));
            out.push_str(format!("  {name:<10} {text}").trim_end());
            out.push('\n');
        }
    };
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let layer = match (text("layer"), text("tag")) {
        (layer, "") => layer.to_owned(),
        (layer, tag) => format!("{layer} ({tag})"),
    };
    line("layer:", layer.trim_start());
    line("step:", text("step"));
    if let Some(code) = data.get("exit_code").and_then(Value::as_i64) {
        line("exit code:", &code.to_string());
    }
    let lines = data.get("lines").and_then(Value::as_array);
    let lines = lines.into_iter().flatten().filter_map(Value::as_str);
    let mut name = "output:";
    for text in lines.filter(|text| !text.is_empty()) {
        line(name, text);
        name = "";
    }
    line("whole log:", text("log"));
    out
}

/// A line that does not fill the screen.
fn shortened(line: &str) -> String {
    const MOST: usize = 300;
    if line.chars().count() <= MOST {
        return line.to_owned();
    }
    line.chars().take(MOST - 1).chain(['…']).collect()
}

fn is_worth_another_try(kind: &str) -> bool {
    kind.ends_with("_busy")
        || [Kind::Panicked, Kind::Overloaded, Kind::ShuttingDown]
            .iter()
            .any(|k| k.name() == kind)
}

impl From<io::Error> for Failure {
    /// A failure of our own output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Internal(format!("cannot write: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(kind: &str, data: Value) -> Failure {
        let mut all = json!({"kind": kind});
        for (key, value) in data.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let error = ErrorObject {
            code: 1,
            message: "it went wrong\u{1b}[2J".into(),
            data: Some(all),
        };
        Failure::Daemon {
            raw: serde_json::to_string(&error).expect("plain data"),
            error: Box::new(error),
        }
    }

    #[test]
    fn exit_codes_follow_the_kind() {
        for (kind, code) in [
            ("project_not_found", 1),
            ("invalid_config", 1),
            ("a_kind_of_tomorrow", 1),
            ("internal", 70),
            ("project_busy", 75),
            ("task_busy", 75),
            ("gate_busy", 75),
            ("panicked", 75),
            ("overloaded", 75),
            ("shutting_down", 75),
        ] {
            assert_eq!(daemon(kind, json!({})).exit_code(), code, "{kind}");
        }
        assert_eq!(Failure::Interrupted.exit_code(), 130);
        assert_eq!(Failure::no_daemon("x").exit_code(), 69);
        assert_eq!(Failure::Timeout("x".into()).exit_code(), 75);
        assert_eq!(Failure::Usage("x".into()).exit_code(), 2);
    }

    #[test]
    fn humans_get_every_problem_and_the_hint() {
        let failure = daemon(
            "invalid_config",
            json!({"errors": [
                {"location": "image.agents", "message": "no such agent", "line": 3, "column": 5, "code": "bad_value", "severity": "error"},
                {"location": "", "message": "not\u{7}YAML", "code": "syntax", "severity": "warning"},
            ], "hint": "edit the file"}),
        );
        insta::assert_snapshot!(failure.to_human(Style::PLAIN, false), @r"
        error: it went wrong\x1b[2J
          line 3:5: image.agents: no such agent
          not\x07YAML (warning)
        hint: edit the file
        ");
        assert!(!failure.to_human(Style::PLAIN, true).contains("hint"));
    }

    #[test]
    fn a_failed_build_shows_where_and_its_last_words() {
        let failure = daemon(
            "build_failed",
            json!({
                "layer": "l1", "tag": "localhost/terok-l1-cli:x", "step": format!("STEP 2/5: RUN {}", "x".repeat(400)),
                "exit_code": 3, "lines": ["", "one\u{1b}[2J", "", "two"], "log": "/b/build.log", "hint": "look",
            }),
        );
        let text = failure.to_human(Style::PLAIN, false);
        insta::assert_snapshot!(text.replace(&"x".repeat(250), "xx"), @r"
        error: it went wrong\x1b[2J
          layer:     l1 (localhost/terok-l1-cli:x)
          step:      STEP 2/5: RUN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
          exit code: 3
          output:    one\x1b[2J
                     two
          whole log: /b/build.log
        hint: look
        ");
        // What is not known is not shown.
        assert_eq!(
            daemon("build_failed", json!({"layer": "l0"})).to_human(Style::PLAIN, false),
            "error: it went wrong\\x1b[2J\n  layer:     l0\n"
        );
        let of_other_kind = daemon("podman_error", json!({"lines": ["x"]}));
        assert!(
            !of_other_kind
                .to_human(Style::PLAIN, false)
                .contains("output")
        );
    }

    #[test]
    fn local_failures_have_error_objects_too() {
        insta::assert_snapshot!(
            Failure::NoDaemon { message: "nobody there".into(), hint: Some("start it".into()) }.to_json().expect("an object"),
            @r#"{"code":-32000,"message":"nobody there","data":{"kind":"no_daemon","hint":"start it"}}"#
        );
        insta::assert_snapshot!(
            Failure::Timeout("late".into()).to_json().expect("an object"),
            @r#"{"code":1502,"message":"late","data":{"kind":"timeout"}}"#
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit_code(), 0);
        assert_eq!(failure.to_human(Style::PLAIN, false), "");
    }
}
