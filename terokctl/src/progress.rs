//! What an operation says on standard error: the lines of its log, and below them, only on a terminal, one line that is
//! drawn over again with how far it is.

use crate::args::Options;
use crate::render::to_stderr;
use std::io::IsTerminal;
use terok_proto::error::printable_line;
use terok_proto::ops::Progress;

/// Cells of the bar.
const BAR: usize = 24;
/// A line longer than this would wrap on a usual terminal and could not be drawn over.
const WIDTH: usize = 78;

/// The line, and what is said above it.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    terminal: bool,
    quiet: bool,
    logs: bool,
    /// What is on the terminal's last line.
    drawn: Option<String>,
}

impl ProgressLine {
    /// A line, unless nobody looks at it. With `--json` a program reads standard error, which then holds nothing but an
    /// error object.
    pub(crate) fn new(options: &Options) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            terminal,
            quiet: options.quiet,
            logs: !options.quiet && (terminal || !options.json),
            drawn: None,
        }
    }

    /// Draws the line.
    pub(crate) fn update(&mut self, progress: &Progress) {
        if self.terminal && !self.quiet {
            let line = draw(progress);
            to_stderr(&format!("\r\x1b[K{line}"));
            self.drawn = Some(line);
        }
    }

    /// A line of the operation's log, above.
    pub(crate) fn log(&mut self, line: &str) {
        if self.logs {
            to_stderr(&self.logged(line));
        }
    }

    /// A log line in place of the drawn one, which follows it.
    fn logged(&self, line: &str) -> String {
        let line = printable_line(line);
        match &self.drawn {
            Some(drawn) => format!("\r\x1b[K{line}\n{drawn}"),
            None => format!("{line}\n"),
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            to_stderr("\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The text of the line.
pub(crate) fn draw(progress: &Progress) -> String {
    let mut line = printable_line(&progress.phase);
    if let (Some(done), Some(total)) = (progress.done, progress.total)
        && total > 0
    {
        let cells = BAR as u128;
        let filled = (u128::from(done.min(total)) * cells / u128::from(total)) as usize;
        line.push_str(&format!(
            " [{}{}] {done}/{total}",
            "#".repeat(filled),
            "-".repeat(BAR - filled)
        ));
    } else if let Some(done) = progress.done {
        line.push_str(&format!(" {done}"));
    }
    if let Some(unit) = progress.unit.as_deref().filter(|_| progress.done.is_some()) {
        line.push(' ');
        line.push_str(&printable_line(unit));
    }
    if let Some(message) = &progress.message {
        line.push_str("  ");
        line.push_str(&printable_line(message));
    }
    if line.chars().count() > WIDTH {
        line = line.chars().take(WIDTH - 1).chain(['…']).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: Option<u64>, total: Option<u64>) -> Progress {
        Progress {
            phase: "archive".into(),
            done,
            total,
            unit: Some("files".into()),
            message: Some("a\u{1b}b".into()),
        }
    }

    #[test]
    fn the_line_shows_what_is_known() {
        assert_eq!(
            draw(&progress(Some(1), Some(4))),
            "archive [######------------------] 1/4 files  a\\x1bb"
        );
        assert_eq!(
            draw(&progress(Some(u64::MAX), Some(1)))
                .matches('#')
                .count(),
            BAR
        );
        assert_eq!(draw(&progress(Some(3), None)), "archive 3 files  a\\x1bb");
        assert_eq!(draw(&progress(None, Some(0))), "archive  a\\x1bb");
    }

    #[test]
    fn a_long_message_never_wraps() {
        let long = Progress {
            message: Some("x".repeat(500)),
            ..progress(None, None)
        };
        assert_eq!(draw(&long).chars().count(), WIDTH);
    }

    #[test]
    fn log_lines_stand_above_the_drawn_one() {
        let mut line = ProgressLine::new(&Options::default());
        assert_eq!(line.logged("a\u{1b}[2Jb\r"), "a\\x1b[2Jb \n");
        line.drawn = Some("l0 1 steps".to_owned());
        assert_eq!(line.logged("x"), "\r\x1b[Kx\nl0 1 steps");
        line.drawn = None;
    }
}
