//! The vault through its public interface, against the real programs that share its files and its socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod agent;
mod keys;
mod open;
mod programs;
mod reference;
mod tiers;
mod world;
