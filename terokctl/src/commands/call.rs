//! `call`: any method, with the parameters as they are.

use super::project::read_input;
use crate::args::Values;
use crate::failure::{Failure, Result};
use crate::operation;
use crate::render::View;
use crate::session::{Session, is_operation};
use serde_json::value::RawValue;
use terok_proto::{Access, methods};

pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let method = values.required("METHOD");
    let params = match values.text("PARAMS") {
        None => "{}".to_owned(),
        Some("-") => read_input("-")?,
        Some(text) => text.to_owned(),
    };
    let params = checked(&params)?;
    let known = methods::find(method);
    if session.options.no_wait {
        // A method that this version does not know may be one of a newer daemon's operations.
        if known.is_some() && !is_operation(method) {
            return Err(Failure::Usage(format!("`{method}` is not an operation")));
        }
        let id = operation::detach(session, method, params)?;
        return session.show_id(&id);
    }
    if known.is_some_and(|m| m.access == Access::Subscription) {
        return stream(session, method, params);
    }
    let result = if is_operation(method) {
        operation::run(session, method, params)?
    } else {
        session.call(method, params)?
    };
    session.show(&result, &View::Json)
}

/// Prints the items of a subscription until it is interrupted.
fn stream(session: &mut Session, method: &str, params: &str) -> Result<()> {
    session.interrupts.end_with_output();
    session.call(method, params)?;
    loop {
        let item = session.connection(None)?.next(None)?.item;
        if session.options.flat {
            session.screen.flat(&item)?;
        } else {
            session.screen.json_line(&item)?;
        }
        session.screen.finish()?;
    }
}

/// Refuses only what could not be sent: anything else is the daemon's to judge.
fn checked(text: &str) -> Result<&str> {
    let params = text.trim();
    if params.is_empty() {
        return Ok("{}");
    }
    serde_json::from_str::<&RawValue>(params)
        .map_err(|error| Failure::Usage(format!("the parameters are not JSON: {error}")))?;
    if !params.starts_with(['{', '[']) {
        return Err(Failure::Usage(
            "the parameters must be a JSON object or array".to_owned(),
        ));
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_an_object_or_an_array() {
        assert_eq!(checked(" \n").expect("none"), "{}");
        assert_eq!(checked(" [1, \"a\"]\n").expect("an array"), "[1, \"a\"]");
        for bad in ["{", "1", "\"x\"", "{} {}", "null"] {
            assert!(matches!(checked(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
