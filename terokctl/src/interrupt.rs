//! Waiting that Ctrl-C can end.
//!
//! SIGINT is blocked for the life of the process and read from a descriptor, so that every wait decides itself what an
//! interrupt means. Children are not affected: the standard library starts them with an empty signal mask.

use crate::failure::{Failure, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The descriptor is ready.
    Ready,
    /// Ctrl-C.
    Interrupted,
    /// The time is over.
    TimedOut,
}

/// Ctrl-C as something that can be waited for.
#[derive(Debug)]
pub(crate) struct Interrupts {
    signals: Option<SignalFd>,
    /// Also wake up when nobody reads our output any more.
    streaming: Cell<bool>,
}

impl Interrupts {
    /// Takes SIGINT over. Without it, Ctrl-C simply ends the process as usual.
    pub(crate) fn install() -> Self {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        let signals = mask.thread_block().ok().and_then(|()| {
            let made = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
            if made.is_err() {
                let _ = mask.thread_unblock();
            }
            made.ok()
        });
        Self {
            signals,
            streaming: Cell::new(false),
        }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            signals: None,
            streaming: Cell::new(false),
        }
    }

    /// From now on a reader that goes away ends every wait: a stream may be silent for hours, and so would never notice.
    pub(crate) fn end_with_output(&self) {
        self.streaming.set(true);
    }

    /// Waits until `fd` is ready for `events`, Ctrl-C or the deadline.
    pub(crate) fn wait(
        &self,
        fd: Option<BorrowedFd<'_>>,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> Result<Woken> {
        match fd {
            Some(fd) => self.wait_any(&[(fd, events)], deadline),
            None => self.wait_any(&[], deadline),
        }
        .map(|(woken, _)| woken)
    }

    /// The same for several descriptors; answers too which one is ready.
    pub(crate) fn wait_any(
        &self,
        wanted: &[(BorrowedFd<'_>, PollFlags)],
        deadline: Option<Instant>,
    ) -> Result<(Woken, usize)> {
        let stdout = std::io::stdout();
        loop {
            let mut fds: Vec<PollFd<'_>> = wanted
                .iter()
                .map(|(fd, events)| PollFd::new(*fd, *events))
                .collect();
            if self.streaming.get() {
                fds.push(PollFd::new(stdout.as_fd(), PollFlags::empty()));
            }
            if let Some(signals) = &self.signals {
                fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, timeout(deadline)) {
                Ok(0) if deadline.is_some_and(|at| Instant::now() >= at) => {
                    return Ok((Woken::TimedOut, 0));
                }
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(Failure::Internal(format!("cannot wait: {error}"))),
            }
            let is_set = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or(true));
            if self.take() {
                return Ok((Woken::Interrupted, 0));
            }
            if self.streaming.get() && is_set(wanted.len()) {
                return Err(Failure::OutputClosed);
            }
            if let Some(ready) = (0..wanted.len()).find(|at| is_set(*at)) {
                return Ok((Woken::Ready, ready));
            }
        }
    }

    /// Sleeps, unless Ctrl-C comes first.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        match self.wait(None, PollFlags::empty(), Some(Instant::now() + time))? {
            Woken::Interrupted => Err(Failure::Interrupted),
            Woken::Ready | Woken::TimedOut => Ok(()),
        }
    }

    /// Whether Ctrl-C came since the last look; also forgets one that was meant for a child.
    pub(crate) fn take(&self) -> bool {
        let mut taken = false;
        if let Some(signals) = &self.signals {
            while let Ok(Some(_)) = signals.read_signal() {
                taken = true;
            }
        }
        taken
    }
}

fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(at) = deadline else {
        return PollTimeout::NONE;
    };
    // Rounded up, so that a wait does not spin through its last millisecond.
    let left = at
        .saturating_duration_since(Instant::now())
        .as_micros()
        .div_ceil(1000);
    PollTimeout::try_from(i32::try_from(left).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}
