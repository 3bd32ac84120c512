//! terokd: the daemon that owns terok's projects, gates and tasks.
//!
//! `daemon::start` wires everything and answers when the socket accepts; `main` only reads arguments and
//! environment. Data flows downwards: socket → rpc → ops → project → registry, events, git, store, fs.

pub mod agents;
pub mod crash;
pub mod daemon;
pub mod events;
pub mod flight;
pub mod fs;
pub mod gates;
pub mod git;
pub mod images;
pub mod keys;
pub mod memory;
pub mod ops;
pub mod panic;
pub mod polling;
pub mod project;
pub mod reference;
pub mod registry;
pub mod rpc;
pub mod socket;
pub mod store;
pub mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod vault;
