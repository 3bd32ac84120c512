//! Bare mirrors that never lose work: sync, compare, review, promote.
//!
//! Owns repositories below the gate base and the talk with their upstreams. Knows nothing of the daemon, the registry,
//! RPC or configuration files: callers hand in a [`GateSpec`], an [`Upstream`] and limits. Everything here blocks.
//!
//! Downwards: sync, compare, review, promote, pending, backup → classify, walk, refs, layout, lock → transport.
#![forbid(unsafe_code)]

mod access;
mod backup;
mod cache;
mod classify;
mod commits;
mod compare;
mod control;
mod crash;
mod error;
mod head;
mod host_git;
mod layout;
mod leftover;
mod lock;
mod maintenance;
mod make;
mod modes;
mod pending;
mod plan;
mod promote;
mod refs;
mod remote;
mod review;
mod status;
mod sync;
mod transport;
mod url;
mod walk;

pub use access::{Access, HostEnv, Upstream, personal_agent_socket};
pub use backup::{backups, prune_backups, restore_backup};
pub use commits::last_commit;
pub use compare::{Lag, PollFailure, PollReport, Reach, compare, compare_with_known, poll};
pub use control::{Control, Limits, Phase, Progress};
pub use crash::{CRASH_POINTS, set_crash_hook};
pub use error::{Contact, PushError, TransportError, clean_message};
pub use layout::{GateSpec, check_branch, looks_like_bare_gate};
pub use pending::{apply_pending, pending};
pub use promote::{PromoteRequest, promote};
pub use review::review;
pub use status::{Facts, facts, recover};
pub use sync::{SyncOptions, SyncReport, refresh_cache, sync};
pub use transport::{
    Advertisement, CliTransport, FetchReport, GitTransport, GixTransport, PinnedKey, RemoteRef,
};
pub use url::{GateUrl, UrlKind};
