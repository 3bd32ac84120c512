//! How a caller steers a call that talks to an upstream: cancellation, deadline, limits; and who is told of progress
//! and of host keys.

use crate::{PinnedKey, TransportError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the parts of one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Asking for refs, as a whole.
    pub ls_refs: Duration,
    /// Without a byte from upstream during a transfer.
    pub inactivity: Duration,
    /// A transfer, as a whole.
    pub total: Duration,
    /// A transfer into a new gate, as a whole.
    pub first: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            ls_refs: Duration::from_secs(30),
            inactivity: Duration::from_secs(120),
            total: Duration::from_secs(30 * 60),
            first: Duration::from_secs(6 * 3600),
        }
    }
}

/// What a call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reaching upstream and asking for refs.
    Connecting,
    /// Finding out what both sides have.
    Negotiating,
    /// Objects arrive.
    Receiving,
    /// Deltas are resolved and checked.
    Resolving,
    /// Commits go out.
    Pushing,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Objects done in this phase.
    pub objects: u64,
    /// Objects in this phase, once known.
    pub total: Option<u64>,
    /// Bytes received.
    pub bytes: u64,
}

type Report = dyn Fn(Progress) + Send + Sync;
type Pinned = dyn Fn(PinnedKey) + Send + Sync;

/// How long another process may work on a gate before those who wait for it give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The caller's handle on a call. Clones steer the same call.
#[derive(Clone)]
pub struct Control {
    token: CancellationToken,
    deadline: Option<Instant>,
    patience: Duration,
    report: Option<Arc<Report>>,
    pinned: Option<Arc<Pinned>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            token: CancellationToken::new(),
            deadline: None,
            patience: PATIENCE,
            report: None,
            pinned: None,
        }
    }
}

impl Control {
    /// A call that nobody stops or watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops when `token` is cancelled.
    #[must_use]
    pub fn with_token(mut self, token: CancellationToken) -> Self {
        self.token = token;
        self
    }

    /// Stops at `deadline`, whatever the limits allow.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Waits for so long for a gate that another process works on; by default a minute.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Tells `report` how far the call is; it must not block.
    #[must_use]
    pub fn with_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// Tells `pinned` of every host key that the call pins, also if it fails then; it must not block.
    #[must_use]
    pub fn with_pinned(mut self, pinned: impl Fn(PinnedKey) + Send + Sync + 'static) -> Self {
        self.pinned = Some(Arc::new(pinned));
        self
    }

    /// Stops the call.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Whether somebody stopped the call.
    pub fn cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// When the call has to end.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long it waits for a gate that another process works on.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Fails once the call was stopped or its deadline has passed.
    pub fn check(&self) -> Result<(), TransportError> {
        if self.cancelled() {
            return Err(TransportError::Cancelled);
        }
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(TransportError::timeout("the call's deadline passed"));
        }
        Ok(())
    }

    /// Tells the watcher, if there is one.
    pub fn progress(&self, progress: Progress) {
        if let Some(report) = &self.report {
            report(progress);
        }
    }

    /// Tells the watcher of a host key that was pinned.
    pub(crate) fn pinned(&self, key: PinnedKey) {
        if let Some(pinned) = &self.pinned {
            pinned(key);
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("cancelled", &self.cancelled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
