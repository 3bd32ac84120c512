//! SSH keys: how they are encoded, named, stored and brought in.

pub(crate) mod codec;
pub(crate) mod import;
pub(crate) mod rules;
pub(crate) mod snapshot;
pub(crate) mod store;
