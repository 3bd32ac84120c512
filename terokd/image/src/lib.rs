//! Container images of projects: what they are called, what they are made of, when they are stale and what may go.
//!
//! Pure functions over text and values; only [`stage`] writes, and only below the directory it is given. Knows
//! neither Podman nor the network nor a runtime: callers bring image lists and carry out what is planned here.

pub mod base;
pub mod build;
pub mod classify;
mod embedded;
pub mod hash;
pub mod labels;
pub mod layers;
pub mod manifest;
pub mod network;
pub mod sizes;
pub mod snippet;
pub mod stage;
pub mod stale;
pub mod tags;
