//! Gates over HTTP: git's smart protocol, one token per task, git itself behind it.
//!
//! Owns the tokens, the listeners and the children that answer. Knows nothing of projects, of configuration files and
//! of what a gate is synchronised with.

#![forbid(unsafe_code)]

mod admission;
mod auth;
mod config;
mod exchange;
mod git;
mod gunzip;
pub mod hook;
mod http;
mod import;
mod listen;
mod patient;
mod repository;
mod route;
mod server;
mod token;
mod tokens;

pub use config::{Config, Handed, Limits, Listen};
pub use listen::task_key;
pub use repository::servable_name;
pub use server::{GateServer, PushEvent, PushedRef};
pub use token::{Token, mask};
pub use tokens::Tokens;
