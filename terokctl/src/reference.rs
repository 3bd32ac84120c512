//! The whole command line as Markdown, for the documentation: made from the table, so that it cannot be behind.

use crate::args::{Arg, Command, GLOBALS, Shape};
use crate::commands::COMMANDS;
use crate::failure::Result;
use crate::render::{Color, Screen};
use std::fmt::Write;

/// The hidden command.
pub(crate) const COMMAND: &str = "__reference";

/// Prints it.
pub(crate) fn run() -> Result<()> {
    let mut screen = Screen::stdout(Color::of(true, &crate::env::Env::from_process()));
    screen.block(&markdown())?;
    screen.finish()
}

/// The text.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "# terokctl\n\nGenerated from the command table by `terokctl __reference`; do not edit.\n\n\
         ## Options of every command\n\n| Option | Meaning |\n|---|---|\n",
    );
    for arg in GLOBALS {
        row(&mut out, arg, "");
    }
    out.push_str(
        "\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n\
         | 0 | done |\n| 1 | the daemon refused |\n| 2 | wrong usage |\n| 69 | no daemon |\n| 70 | internal error |\n\
         | 75 | panicked, busy, or out of the time given with `--timeout`: try again |\n| 130 | interrupted |\n\n## Commands\n",
    );
    for command in COMMANDS {
        section(&mut out, command, "terokctl");
    }
    out
}

fn section(out: &mut String, command: &Command, above: &str) {
    let path = format!("{above} {}", command.name);
    let is_group = matches!(command.run, crate::args::Run::Group);
    let mut synopsis = path.clone();
    for arg in command.args {
        match arg.shape {
            Shape::Required | Shape::Key => synopsis.push_str(&format!(" {}", arg.name)),
            Shape::Rest => synopsis.push_str(&format!(" {}...", arg.name)),
            Shape::Optional => synopsis.push_str(&format!(" [{}]", arg.name)),
            Shape::Flag => synopsis.push_str(&format!(" [--{}]", arg.name)),
            Shape::Value | Shape::Many | Shape::Number => {
                synopsis.push_str(&format!(" [--{} {}]", arg.name, arg.value_name()));
            }
        }
    }
    if !is_group {
        let _ = write!(out, "\n### `{synopsis}`\n\n{}.\n", escape(command.about()));
        if !command.method.is_empty() {
            let _ = write!(out, "\nMethod: `{}`\n", command.method);
        }
        if !command.args.is_empty() {
            out.push_str("\n| Argument | Meaning |\n|---|---|\n");
            for arg in command.args {
                row(out, arg, command.method);
            }
        }
    }
    for below in command.sub {
        section(out, below, &path);
    }
}

fn row(out: &mut String, arg: &Arg, method: &str) {
    let name = if arg.is_positional() {
        arg.name.to_owned()
    } else if arg.takes_value() {
        format!("--{} {}", arg.name, arg.value_name())
    } else {
        format!("--{}", arg.name)
    };
    let _ = writeln!(out, "| `{name}` | {} |", escape(&arg.help_line(method)));
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_in_it() {
        let text = markdown();
        for line in [
            "### `terokctl project list`",
            "### `terokctl project delete ID [--yes] [--dry-run] [--keep-images]`",
            "### `terokctl panic status`",
            "| `--socket FILE` |",
            "Method: `events.subscribe`",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("| |"), "an argument without a meaning");
    }
}
