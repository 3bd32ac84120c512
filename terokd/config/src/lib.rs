//! Configuration and project files of terok: directories, YAML, validation, resolution, presets, agents, wizard.
//!
//! Owns the formats. Reads files it is pointed at, but knows no runtime, no socket, no database and no global
//! state: environment, home directory and git identity are passed in ([`env::Environment`], [`GitIdentity`]).
//! Writing is the daemon's business; this crate only computes the new text ([`edit`]).

pub mod agent;
pub mod edit;
pub mod env;
pub mod global;
pub mod id;
pub mod merge;
pub mod paths;
pub mod presets;
pub mod project;
pub mod resolve;
pub mod roster;
pub mod schema;
pub mod selection;
pub mod validate;
pub mod wizard;
pub mod yaml;

/// Name and address from git's global configuration; the daemon reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitIdentity {
    /// `user.name`, trimmed, blank counts as unset.
    pub name: Option<String>,
    /// `user.email`, trimmed, blank counts as unset.
    pub email: Option<String>,
    /// The file that set them, for `config.resolve`.
    pub path: Option<String>,
}
