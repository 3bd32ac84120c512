//! The vault through its public interface, against the real programs that share its files and its socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod open;
mod world;
