//! Black-box suites: one module per area, one binary for all.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod conformance;
mod events;
mod ops;
mod projects;
mod socket;
mod systemd;
mod watch;
mod wire;
