//! Black-box suites: one module per area, one binary for all.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod cli;
mod clients;
mod conformance;
mod credentials;
mod events;
mod fixtures;
mod gate;
mod gate_server;
mod gates_killed;
mod images;
mod layout;
mod lifecycle;
mod ops;
mod polling;
mod projects;
mod reference;
mod secrets;
mod socket;
mod systemd;
mod vault;
mod watch;
mod wire;
