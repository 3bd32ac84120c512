//! Questions to a human: prompts on standard error, answers from standard input.

use crate::env::Env;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, Woken};
use crate::render::to_stderr;
use nix::poll::PollFlags;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use terok_proto::error::{printable_line, printable_text};

/// An answer beyond this is no answer.
const MAX_LINE: usize = 1 << 20;

/// The other end of a conversation.
#[derive(Debug)]
pub(crate) struct Dialog {
    interrupts: Rc<Interrupts>,
    input: Vec<u8>,
    ended: bool,
}

impl Dialog {
    pub(crate) fn new(interrupts: Rc<Interrupts>) -> Self {
        Self {
            interrupts,
            input: Vec::new(),
            ended: false,
        }
    }

    /// Whether a human sits there.
    pub(crate) fn is_interactive() -> bool {
        std::io::stdin().is_terminal()
    }

    /// Says something, on lines of its own.
    pub(crate) fn say(&self, text: &str) {
        to_stderr(&format!("{}\n", printable_text(text)));
    }

    /// Asks for a line; `None` at the end of the input.
    pub(crate) fn ask(&mut self, prompt: &str) -> Result<Option<String>> {
        to_stderr(&printable_line(prompt));
        let line = self.line()?;
        if line.is_none() || !Self::is_interactive() {
            // Nothing was echoed that would have ended the prompt's line.
            to_stderr("\n");
        }
        Ok(line)
    }

    /// Asks for a yes; anything else, and the end of the input, is a no.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<bool> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(answer.is_some_and(|text| is_yes(&text)))
    }

    /// Asks for something that nobody may see: on a terminal it is not echoed. `None` at the end of the input.
    pub(crate) fn secret(&mut self, prompt: &str) -> Result<Option<String>> {
        if !Self::is_interactive() {
            return self.line();
        }
        let hidden = Hidden::new()
            .map_err(|error| Failure::Internal(format!("cannot turn the echo off: {error}")))?;
        to_stderr(&printable_line(prompt));
        let line = self.line();
        drop(hidden);
        // Nor was the line break.
        to_stderr("\n");
        line
    }

    /// A secret that somebody piped in, if standard input is a pipe, a socket or a file. Whatever else it is, such as
    /// `/dev/null`, nobody meant to say anything.
    pub(crate) fn piped_secret(&mut self) -> Result<Option<String>> {
        if Self::is_interactive() || !is_piped() {
            return Ok(None);
        }
        Ok(self.line()?.filter(|secret| !secret.is_empty()))
    }

    /// The next line of the input, however it is asked for.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.input.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(Some(text(&line)));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.input);
                return Ok((!rest.is_empty()).then(|| text(&rest)));
            }
            if self.input.len() > MAX_LINE {
                return Err(Failure::Usage("the answer is too long".to_owned()));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut stdin = std::io::stdin().lock();
        if self
            .interrupts
            .wait(Some(stdin.as_fd()), PollFlags::POLLIN, None)?
            == Woken::Interrupted
        {
            to_stderr("\n");
            return Err(Failure::Interrupted);
        }
        // As large as the standard library's own buffer, which is then left out: what it held, no wait would see.
        let mut chunk = [0; 16 << 10];
        match stdin.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Usage(format!("cannot read the answer: {error}"))),
        }
        Ok(())
    }

    /// Opens a file in the user's editor and waits for it.
    pub(crate) fn edit(&self, env: &Env, path: &Path) -> Result<()> {
        let editor = ["VISUAL", "EDITOR"]
            .iter()
            .find_map(|name| env.var(name).cloned())
            .unwrap_or_else(|| OsString::from("vi"));
        // The variable may hold arguments too, so a shell takes it apart; the path never becomes shell text.
        let mut script = editor.clone();
        script.push(" \"$@\"");
        let status = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg("sh")
            .arg(path)
            .status();
        // A Ctrl-C in there was the editor's.
        self.interrupts.take();
        let problem = match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failure::Usage(format!(
            "the editor `{}` failed ({problem}); set VISUAL or EDITOR",
            editor.to_string_lossy()
        )))
    }
}

fn is_piped() -> bool {
    let Ok(input) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return false;
    };
    std::fs::File::from(input).metadata().is_ok_and(|about| {
        let kind = about.file_type();
        kind.is_fifo() || kind.is_socket() || kind.is_file()
    })
}

/// A terminal without echo, until it is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn new() -> nix::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ECHO);
        // What was typed ahead was echoed already, so it is no answer to this.
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &now)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// `y` or `yes`, in any case.
pub(crate) fn is_yes(text: &str) -> bool {
    let text = text.trim();
    text.eq_ignore_ascii_case("y") || text.eq_ignore_ascii_case("yes")
}

fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches(['\n', '\r']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(["y", "Y", " yes ", "YES"].into_iter().all(is_yes));
        assert!(["", "n", "yep", "ja"].into_iter().all(|no| !is_yes(no)));
    }

    #[test]
    fn lines_lose_their_ends() {
        assert_eq!(text(b"a b\r\n"), "a b");
        assert_eq!(text(b"\xff\n"), "\u{fffd}");
    }
}
