//! The wire contract of terokd, and nothing else: types, the method table, errors, events and framing.
//!
//! Both ends use this crate, so neither can re-declare a shape. It knows no runtime, opens no file and starts
//! nothing; everything here is data and pure functions on byte slices.
#![forbid(unsafe_code)]

pub mod codec;
pub mod config;
pub mod daemon;
pub mod error;
pub mod events;
pub mod gate;
pub mod image;
pub mod method;
pub mod methods;
pub mod openrpc;
pub mod ops;
pub mod panic;
pub mod project;
pub mod reference;
pub mod storage;
pub mod vault;
pub mod wizard;

pub use error::{Fault, Kind};
pub use method::{Access, Method, MethodInfo};

/// Version of the wire contract (semver): a removal or a change of meaning raises it.
pub const API_VERSION: &str = "1.0.0";
