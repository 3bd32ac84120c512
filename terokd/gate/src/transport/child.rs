//! Children in process groups of their own, which a stopped call takes down with everything they started.

use super::watch::Watch;
use crate::TransportError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Kept of what a child says on stderr.
const STDERR_LIMIT: usize = 64 * 1024;

/// A child that dies with the call or with this value, whichever ends first.
pub(super) struct Guarded {
    child: Child,
    group: Group,
}

/// The process group, until the child is reaped: afterwards the number may be somebody else's.
#[derive(Clone)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn kill(&self) {
        let group = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = *group {
            // It may just have ended by itself.
            killpg(group, Signal::SIGKILL).ok();
        }
    }
}

impl Guarded {
    /// Starts a command that was made by [`crate::HostEnv`], so that it leads a group of its own.
    pub(super) fn spawn(command: &mut Command, watch: &Watch) -> Result<Self, TransportError> {
        let child = command.spawn().map_err(|error| {
            let program = std::path::Path::new(command.get_program());
            let name = program
                .file_name()
                .unwrap_or(program.as_os_str())
                .to_string_lossy();
            if error.kind() == std::io::ErrorKind::NotFound {
                TransportError::GitMissing(name.into_owned())
            } else {
                TransportError::storage(&format!("cannot start `{name}`: {error}"))
            }
        })?;
        let pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        let group = Group(Arc::new(Mutex::new(pid)));
        let killer = group.clone();
        watch.on_stop(move || killer.kill());
        Ok(Self { child, group })
    }

    /// The child's pipes.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the child and everything in its group.
    pub(super) fn kill(&self) {
        self.group.kill();
    }

    /// Lets the child end by itself for a while, then ends it.
    pub(super) fn finish(&mut self, patience: Duration) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.has_ended() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill();
        self.wait().ok();
    }

    /// Whether the child has ended; it stays to be reaped.
    fn has_ended(&self) -> bool {
        let pid = *self.group.0.lock().unwrap_or_else(PoisonError::into_inner);
        pid.is_none_or(|pid| {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
            !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
        })
    }

    /// Waits until the child has ended; the caller has closed its input or killed it.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, TransportError> {
        // Reaping happens with the lock held, so that nobody signals a group that is no longer ours. The wait itself
        // must not hold it, or a stop could not kill the child.
        let pid = *self.group.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = pid {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
        }
        let mut group = self.group.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self
            .child
            .wait()
            .map_err(|error| TransportError::storage(&format!("cannot wait for a child: {error}")));
        *group = None;
        status
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self
            .group
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            self.kill();
            self.wait().ok();
        }
    }
}

/// What a finished child left.
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs a command to its end. Both of its outputs count as signs of life; `on_stderr` sees every piece.
pub(super) fn run(
    command: &mut Command,
    input: &[u8],
    stdout_limit: usize,
    watch: &Watch,
    mut on_stderr: impl FnMut(&[u8]),
) -> Result<Finished, TransportError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut guarded = Guarded::spawn(command, watch)?;
    let mut stdin = guarded.child().stdin.take();
    let mut stdout = guarded.child().stdout.take();
    let mut stderr = guarded.child().stderr.take();
    let mut said = Vec::new();
    let mut complaints = Tail::default();
    let mut unsent = input;
    let mut buffer = vec![0; 16 * 1024];
    let meter = watch.meter();
    let broken =
        |error: std::io::Error| TransportError::storage(&format!("a child's pipe: {error}"));
    meter.waiting();
    while stdout.is_some() || stderr.is_some() {
        if let Some(reason) = watch.stopped() {
            return Err(reason);
        }
        if unsent.is_empty() {
            stdin = None;
        }
        let (readable_out, readable_err, writable) =
            ready(stdout.as_ref(), stderr.as_ref(), stdin.as_ref())?;
        let mut bytes = 0;
        if readable_out && let Some(pipe) = &mut stdout {
            let n = pipe.read(&mut buffer).map_err(broken)?;
            if n == 0 {
                stdout = None;
            } else if said.len() + n > stdout_limit {
                return Err(TransportError::protocol(
                    "it lists more refs than a gate takes",
                ));
            } else {
                said.extend_from_slice(&buffer[..n]);
            }
            bytes += n;
        }
        if readable_err && let Some(pipe) = &mut stderr {
            let n = pipe.read(&mut buffer).map_err(broken)?;
            if n == 0 {
                stderr = None;
            } else {
                complaints.push(&buffer[..n]);
                on_stderr(&buffer[..n]);
            }
            bytes += n;
        }
        if writable && let Some(pipe) = &mut stdin {
            // A pipe that polls writable takes this much without blocking.
            let piece = &unsent[..unsent.len().min(nix::libc::PIPE_BUF)];
            match pipe.write(piece) {
                Ok(n) => unsent = &unsent[n..],
                // The child ended or wants no more; its status says why.
                Err(_) => unsent = &[],
            }
        }
        if bytes > 0 {
            meter.done(bytes);
            meter.waiting();
        }
    }
    meter.done(0);
    drop(stdin);
    let status = guarded.wait()?;
    if let Some(reason) = watch.stopped() {
        return Err(reason);
    }
    Ok(Finished {
        status,
        stdout: said,
        stderr: complaints.text(),
    })
}

/// Which of the pipes can be used; blocks until one can or the child was killed, which closes them.
fn ready(
    stdout: Option<&impl AsFd>,
    stderr: Option<&impl AsFd>,
    stdin: Option<&impl AsFd>,
) -> Result<(bool, bool, bool), TransportError> {
    let mut fds = Vec::with_capacity(3);
    let index_out = stdout.map(|fd| {
        fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        fds.len() - 1
    });
    let index_err = stderr.map(|fd| {
        fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        fds.len() - 1
    });
    let index_in = stdin.map(|fd| {
        fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLOUT));
        fds.len() - 1
    });
    match poll(&mut fds, PollTimeout::from(100u8)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(TransportError::storage(&format!("poll: {error}"))),
    }
    let fired = |index: Option<usize>| {
        index.is_some_and(|index| {
            fds[index]
                .revents()
                .is_some_and(|events| !events.is_empty())
        })
    };
    Ok((fired(index_out), fired(index_err), fired(index_in)))
}

/// The end of what a child complained about.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
        if self.0.len() > 2 * STDERR_LIMIT {
            self.0.drain(..self.0.len() - STDERR_LIMIT);
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}
