//! The one place where the vault starts programs: no shell, a deadline, bounded output, nothing secret in arguments.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

const LIMIT: u64 = 64 * 1024;

/// What a program that ended by itself left behind.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) stdout: Zeroizing<Vec<u8>>,
}

/// Runs a program with that input to its end, or kills it and everything it started.
///
/// # Errors
/// It cannot be started, runs out of time, or writes more than 64 KiB.
pub(crate) async fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[S],
    input: Option<&[u8]>,
    deadline: Duration,
) -> io::Result<Finished> {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter")]
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        // What a password helper complains about may hold what it was asked for.
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut group = Group(child.id());
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let work = async {
        let write = async {
            if let (Some(mut pipe), Some(input)) = (stdin, input) {
                // A program that does not read its input is judged by how it ends.
                let _ = pipe.write_all(input).await;
            }
        };
        let ((), stdout) = tokio::join!(write, read_all(stdout));
        let stdout = stdout?;
        let status = child.wait().await?;
        Ok(Finished {
            success: status.success(),
            stdout,
        })
    };
    let result = tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if result.is_ok() {
        // An agent that it left running is meant to stay, and its number may be another's by now.
        group.0 = None;
    }
    result
}

async fn read_all(pipe: impl AsyncRead + Unpin) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
    pipe.take(LIMIT + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("more output than a passphrase has"));
    }
    Ok(bytes)
}

/// Ends a child that did not, with its process group.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It may have ended meanwhile.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
