//! Bare mirrors that never lose work: sync, compare, review, promote.
//!
//! Owns repositories below the gate base and the talk with their upstreams. Knows nothing of the daemon, the registry,
//! RPC or configuration files: callers hand in a path, an [`Upstream`] and limits. Everything here blocks.
#![forbid(unsafe_code)]

mod access;
mod control;
mod error;
mod transport;
mod url;

pub use access::{Access, HostEnv, Upstream, personal_agent_socket};
pub use control::{Control, Limits, Phase, Progress};
pub use error::{PushError, TransportError, clean_message};
pub use transport::{
    Advertisement, CliTransport, FetchReport, GitTransport, GixTransport, PinnedKey, RemoteRef,
};
pub use url::{GateUrl, UrlKind, is_ssh_url};
