//! The adapter against Podman itself, and against services that misbehave.

#![allow(clippy::unwrap_used)]

mod fake;
mod real;
mod run;
mod trouble;
