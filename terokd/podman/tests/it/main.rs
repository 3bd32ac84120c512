//! The adapter against Podman itself, and against services that misbehave.

#![allow(clippy::unwrap_used)]

mod real;
mod run;
