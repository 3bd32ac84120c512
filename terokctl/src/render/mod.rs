//! Output: the only module that writes to stdout and stderr.
//!
//! Nothing that came from the daemon reaches a terminal before its control characters are made visible.

mod flat;
mod table;
mod value;

use crate::env::Env;
use crate::failure::{Failure, Result};
use serde_json::Value;
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};
use terok_proto::error::{printable_line, printable_text};

pub(crate) use table::{Column, Show};
pub(crate) use value::{plain, size};

/// How a result is shown to a human.
pub(crate) enum View {
    /// One row per element of an array.
    Table(&'static [Column]),
    /// One line per member.
    Record,
    /// A text, as it is.
    Text,
    /// JSON, indented.
    Json,
    /// Nothing: the command did its work.
    Nothing,
    /// Anything else.
    Custom(fn(&mut Screen, &Value) -> Result<()>),
}

/// Whether colors are wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Color(bool);

impl Color {
    /// `--no-color`, `NO_COLOR` and terminals that know none.
    pub(crate) fn of(refused: bool, env: &Env) -> Self {
        let dumb = env.var("TERM").is_some_and(|term| term == "dumb");
        Self(!refused && !dumb && env.var("NO_COLOR").is_none())
    }

    /// The same for the parser's messages, which looks at the terminal itself.
    pub(crate) fn for_clap(self) -> clap::ColorChoice {
        if self.0 {
            clap::ColorChoice::Auto
        } else {
            clap::ColorChoice::Never
        }
    }
}

/// Emphasis on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    /// No emphasis.
    pub(crate) const PLAIN: Self = Self { color: false };

    /// The word before a failure.
    pub(crate) fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// The word before advice.
    pub(crate) fn hint(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Screen {
    out: Output,
    terminal: bool,
    style: Style,
    error_style: Style,
}

#[derive(Debug)]
enum Output {
    Stdout(BufWriter<Stdout>),
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Screen {
    /// Standard output.
    pub(crate) fn stdout(color: Color) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self {
            out: Output::Stdout(BufWriter::new(out)),
            terminal,
            style: Style {
                color: color.0 && terminal,
            },
            error_style: Style {
                color: color.0 && io::stderr().is_terminal(),
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(terminal: bool) -> Self {
        Self {
            out: Output::Memory(Vec::new()),
            terminal,
            style: Style::PLAIN,
            error_style: Style::PLAIN,
        }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        match &self.out {
            Output::Memory(bytes) => String::from_utf8(bytes.clone()).expect("text"),
            Output::Stdout(_) => String::new(),
        }
    }

    /// Emphasis on standard error.
    pub(crate) fn error_style(&self) -> Style {
        self.error_style
    }

    /// Whether a human looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line of text, made printable.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.write(&format!("{}\n", printable_line(text)))
    }

    /// Fields separated by tabs, each made printable.
    pub(crate) fn tabbed(&mut self, fields: &[String]) -> Result<()> {
        let fields: Vec<String> = fields.iter().map(|field| printable_line(field)).collect();
        self.write(&format!("{}\n", fields.join("\t")))
    }

    /// A heading over what follows, only for humans.
    pub(crate) fn heading(&mut self, text: &str) -> Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let text = self.style.strong(text);
        self.write(&format!("{text}\n"))
    }

    /// A text of several lines; piped, it is the text itself.
    pub(crate) fn block(&mut self, text: &str) -> Result<()> {
        if self.terminal {
            self.write(&printable_text(text))?;
        } else {
            self.write(text)?;
        }
        if text.is_empty() || text.ends_with('\n') {
            Ok(())
        } else {
            self.write("\n")
        }
    }

    /// JSON as it came, on one line.
    pub(crate) fn json_line(&mut self, json: &str) -> Result<()> {
        if self.terminal {
            self.write(&for_terminal(json))?;
        } else {
            self.write(json)?;
        }
        self.write("\n")
    }

    /// `path=value` lines.
    pub(crate) fn flat(&mut self, json: &str) -> Result<()> {
        let text = flat::lines(&parse(json)?);
        self.write(&text)
    }

    /// A result as `view` says.
    pub(crate) fn view(&mut self, json: &str, view: &View) -> Result<()> {
        let value = parse(json)?;
        match view {
            View::Table(columns) => {
                self.table(columns, value.as_array().map_or(&[], Vec::as_slice))
            }
            View::Record => self.record(&value),
            View::Text => match &value {
                Value::String(text) => self.block(text),
                other => self.line(&plain(other)),
            },
            View::Json if self.terminal => {
                let pretty = serde_json::to_string_pretty(&value).unwrap_or_default();
                self.write(&for_terminal(&pretty))?;
                self.write("\n")
            }
            View::Json => self.json_line(json),
            View::Nothing => Ok(()),
            View::Custom(show) => show(self, &value),
        }
    }

    /// Rows under columns: aligned below a header for humans, else separated by tabs.
    pub(crate) fn table(&mut self, columns: &[Column], rows: &[Value]) -> Result<()> {
        let text = table::table(columns, rows, self.terminal, self.style);
        self.write(&text)
    }

    /// One line per member, nested ones by their path.
    pub(crate) fn record(&mut self, value: &Value) -> Result<()> {
        let text = table::record(value, self.terminal);
        self.write(&text)
    }

    /// Hands everything on to whoever reads it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        match &mut self.out {
            Output::Stdout(out) => Ok(out.flush()?),
            #[cfg(test)]
            Output::Memory(_) => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        match &mut self.out {
            Output::Stdout(out) => out.write_all(text.as_bytes())?,
            #[cfg(test)]
            Output::Memory(bytes) => bytes.extend_from_slice(text.as_bytes()),
        }
        Ok(())
    }

    /// A remark on standard error.
    pub(crate) fn note(&self, text: &str) {
        to_stderr(&format!("{}\n", printable_line(text)));
    }

    /// Advice on standard error.
    pub(crate) fn hint(&self, text: &str) {
        let word = self.error_style.hint("hint:");
        to_stderr(&format!("{word} {}\n", printable_line(text)));
    }

    /// A failure on standard error that does not end the command, or not alone.
    pub(crate) fn error(&self, text: &str) {
        let word = self.error_style.error("error:");
        to_stderr(&format!("{word} {}\n", printable_line(text)));
    }

    /// A warning on standard error.
    pub(crate) fn warning(&self, text: &str) {
        let word = self.error_style.error("warning:");
        to_stderr(&format!("{word} {}\n", printable_line(text)));
    }
}

/// Writes to standard error; if nobody reads it, there is nobody to tell.
pub(crate) fn to_stderr(text: &str) {
    let mut stderr: Stderr = io::stderr();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Writes to standard output where a failure interests nobody.
pub(crate) fn to_stdout(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// A failure before any option is known.
pub(crate) fn complain(message: &str) {
    to_stderr(&format!("error: {}\n", printable_line(message)));
}

/// JSON whose strings show their control characters; still the same JSON.
pub(crate) fn for_terminal(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Whether a terminal may have it as it is.
fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic() || {
        let mut text = [0; 4];
        let text = c.encode_utf8(&mut text);
        printable_line(text) == *text
    }
}

fn parse(json: &str) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(json);
    serde::Deserialize::deserialize(&mut reader)
        .map_err(|error| Failure::Internal(format!("cannot show the answer: {error}; try --json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_on_a_terminal() {
        let json = r#"{"a":"x<7f>y<202e>z<10fffd>"}"#
            .replace("<7f>", "\u{7f}")
            .replace("<202e>", "\u{202e}")
            .replace("<10fffd>", "\u{10fffd}");
        let shown = for_terminal(&json);
        assert_eq!(shown, r#"{"a":"x\u007fy\u202ez\udbff\udffd"}"#);
        let read = |t: &str| serde_json::from_str::<Value>(t).expect("JSON");
        assert_eq!(read(&shown), read(&json));
    }

    #[test]
    fn piped_json_is_untouched() {
        let mut screen = Screen::memory(false);
        screen.json_line("{ \"a\":\"\u{7f}\" }").expect("memory");
        assert_eq!(screen.text(), "{ \"a\":\"\u{7f}\" }\n");
    }

    #[test]
    fn texts_lose_their_controls_on_a_terminal_only() {
        for (terminal, shown) in [(true, "a?b\n"), (false, "a\u{1b}b\n")] {
            let mut screen = Screen::memory(terminal);
            screen.view(r#""a\u001bb""#, &View::Text).expect("memory");
            assert_eq!(screen.text(), shown);
        }
    }

    #[test]
    fn colors_are_off_when_somebody_says_so() {
        let env = |vars: &[(&str, &str)]| Env::of(vars, "/", false);
        assert_eq!(Color::of(false, &env(&[])), Color(true));
        assert_eq!(Color::of(false, &env(&[("NO_COLOR", "")])), Color(true));
        assert_eq!(Color::of(false, &env(&[("NO_COLOR", "1")])), Color(false));
        assert_eq!(Color::of(false, &env(&[("TERM", "dumb")])), Color(false));
        assert_eq!(Color::of(true, &env(&[])), Color(false));
    }
}
