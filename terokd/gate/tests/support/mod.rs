//! Upstreams for tests: real repositories behind real programs, each in a directory that goes with the test.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests may panic, and nobody imports them"
)]

pub mod gates;
pub mod http;
pub mod lab;
pub mod scene;
pub mod servers;
