//! The kill switch. It never starts a daemon.

use super::daemon::connect_if_running;
use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::{Failure, REFUSED, Result};
use crate::render::View;
use crate::session::Session;
use serde_json::{Value, json};
use terok_proto::methods as m;
use terok_proto::panic::PanicResult;

pub(super) fn status(session: &mut Session, _: &Values<'_>) -> Result<()> {
    session.options.no_autostart = true;
    session.call_and_show("panic.status", serde_json::Map::new(), &View::Record)
}

pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    session.options.no_autostart = true;
    connect_if_running(session)?;
    let answer = session.call("execute_panic", &Value::Object(values.params()).to_string())?;
    let mut result: PanicResult = session.read("execute_panic", &answer)?;
    if session.options.json || session.options.flat {
        session.show(&answer, &View::Nothing)?;
    } else {
        report(session, &result)?;
        let may_ask = !values.flag("yes") && Dialog::is_interactive();
        if may_ask && !values.flag("stop-containers") && result.total_running > 0 {
            stop(session, &mut result)?;
        }
    }
    if has_errors(&result) {
        return Err(Failure::Told(REFUSED));
    }
    Ok(())
}

fn report(session: &mut Session, result: &PanicResult) -> Result<()> {
    let text = session.ask(&m::FormatPanicReport {
        result: result.clone(),
    })?;
    session.screen.block(&text)?;
    session.screen.finish()
}

/// Offers to kill the containers too; Ctrl-C means no.
fn stop(session: &mut Session, result: &mut PanicResult) -> Result<()> {
    let mut dialog = Dialog::new(session.interrupts.clone());
    match dialog.confirm("Kill all containers too?") {
        Ok(true) => {}
        Ok(false) | Err(Failure::Interrupted) => return Ok(()),
        Err(failure) => return Err(failure),
    }
    let answer = session.call("panic_stop_containers", "{}")?;
    let answer: Value = session.read("panic_stop_containers", &answer)?;
    let names: Vec<String> = serde_json::from_value(answer["stopped"].clone()).unwrap_or_default();
    let errors: Vec<(String, String)> =
        serde_json::from_value(answer["errors"].clone()).unwrap_or_default();
    session
        .screen
        .line(&format!("Containers killed: {}", names.len()))?;
    for (name, message) in &errors {
        session.screen.line(&format!("  {name}: {message}"))?;
    }
    result.containers_stopped = names;
    result.container_stop_errors = errors;
    Ok(())
}

/// Whether anything did not work: the report then has a section of errors.
fn has_errors(result: &PanicResult) -> bool {
    let texts = [&result.vault_error, &result.gate_error, &result.lock_error];
    json!([
        result.shield_errors,
        result.container_stop_errors,
        result.freeze_errors,
        result.discovery_errors
    ])
    .as_array()
    .into_iter()
    .flatten()
    .any(|list| list != &json!([]))
        || texts.iter().any(|text| text.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_counts() {
        assert!(!has_errors(&PanicResult::default()));
        for (name, value) in [
            ("shield_errors", json!([["a", "b"]])),
            ("freeze_errors", json!([["a", "b"]])),
            ("container_stop_errors", json!([["a", "b"]])),
            ("discovery_errors", json!(["x"])),
            ("vault_error", json!("x")),
            ("gate_error", json!("x")),
            ("lock_error", json!("x")),
        ] {
            let result = serde_json::from_value(json!({ name: value })).expect("a result");
            assert!(has_errors(&result), "{name}");
        }
    }
}
