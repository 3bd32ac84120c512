//! What the program tells about itself: completion scripts and manual pages.

use crate::args::{Values, parser};
use crate::complete;
use crate::failure::{Failure, Result};
use crate::session::Session;
use std::path::Path;

pub(super) fn completions(session: &mut Session, values: &Values<'_>) -> Result<()> {
    session
        .screen
        .block(complete::script(values.required("SHELL")))
}

pub(super) fn man(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let dir = Path::new(values.required("DIR"));
    let failed = |error: std::io::Error| {
        Failure::Usage(format!("cannot write to `{}`: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(parser(|_| true), dir).map_err(failed)?;
    session.note(&format!("manual pages written to `{}`", dir.display()));
    Ok(())
}
