//! Black-box suites: one module per area, one binary for all.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod events;
mod socket;
mod watch;
mod wire;
