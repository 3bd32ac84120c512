//! `terokctl`, the command-line client of terokd: arguments, one call, rendering.
//!
//! It validates nothing that the daemon validates and holds no state.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod complete;
mod connect;
mod dialog;
mod env;
mod failure;
mod interrupt;
mod operation;
mod progress;
mod reference;
mod render;
mod session;
mod start;
#[cfg(test)]
mod tests;

use args::Options;
use failure::{Failure, Result};
use render::{Screen, Style};
use session::Session;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    let words: Vec<_> = arguments.collect();
    match words.first().and_then(|word| word.to_str()) {
        Some(start::BECOME_DAEMON) => return start::become_daemon(words.into_iter().skip(1)),
        Some(complete::COMMAND) => return complete::run(&words[1..]),
        Some(reference::COMMAND) => {
            return end(reference::run(), &Options::default(), Style::PLAIN);
        }
        _ => {}
    }
    let is_named = |name: &str| words.iter().any(|word| word == name);
    let env = env::Env::from_process();
    let color = render::Color::of(is_named("--no-color"), &env);
    let parser = args::parser(is_named).color(color.for_clap());
    let matches = match parser.try_get_matches_from(program.iter().chain(&words)) {
        Ok(matches) => matches,
        Err(usage) => {
            // Nothing is left to do where even this cannot be printed.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let Some((command, values)) = args::chosen(&matches) else {
        return ExitCode::from(failure::USAGE);
    };
    let options = Options::of(&matches);
    let screen = Screen::stdout(color);
    let style = screen.error_style();
    let mut session = Session::new(
        options.clone(),
        env,
        interrupt::Interrupts::install(),
        screen,
    );
    let result = session
        .run(command, &values)
        .and_then(|()| session.screen.finish());
    end(result, &options, style)
}

/// Tells a failure and turns it into the exit code.
fn end(result: Result<()>, options: &Options, style: Style) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    let text = if options.json {
        failure
            .to_json()
            .map(|line| render::for_terminal(&line) + "\n")
    } else {
        Some(failure.to_human(style, options.quiet))
    };
    render::to_stderr(&text.unwrap_or_default());
    ExitCode::from(Failure::exit_code(&failure))
}
