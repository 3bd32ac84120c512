//! Talking to upstreams, by gix or by the git program, behind one trait.
//!
//! Owns connections, children, limits and the arrival of objects. Moves no ref of the gate: what a fetched id means is
//! the caller's business.

mod child;
mod cli;
mod connectivity;
mod credentials;
#[path = "gix.rs"]
mod gix_transport;
mod host_keys;
mod http;
mod http_config;
mod progress;
mod push;
mod quarantine;
mod session;
mod stderr;
mod watch;

pub use cli::CliTransport;
pub use gix_transport::GixTransport;

use crate::{Control, Limits, PushError, TransportError, Upstream};
use gix::ObjectId;
use std::path::Path;

/// A ref as upstream advertised it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteRef {
    /// Full name.
    pub name: String,
    /// What it points at; a tag object for an annotated tag.
    pub id: ObjectId,
    /// What the tag object points at in the end.
    pub peeled: Option<ObjectId>,
}

/// A host key that ssh met for the first time and pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    /// The host as ssh names it: with brackets and a port if that is not 22.
    pub host: String,
    /// Algorithm, for example `ssh-ed25519`.
    pub key_type: String,
    /// `SHA256:…`
    pub fingerprint: String,
}

/// What upstream has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Refs that were asked for, sorted by name, without `HEAD`.
    pub refs: Vec<RemoteRef>,
    /// Full name of the ref that `HEAD` points at, even if that is unborn; none if it is detached or not told.
    pub head: Option<String>,
    /// `refs` is empty because nothing is there: upstream said so, or said nothing twice. A caller that removes what
    /// upstream has not must see this first.
    pub empty_confirmed: bool,
}

/// What a fetch brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Objects received.
    pub objects: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// A way to talk to upstreams. All calls block and stop within half a second of being cancelled. Host keys that they pin
/// are told through their [`Control`].
pub trait GitTransport: Send + Sync {
    /// Asks for refs. A prefix that ends in `/` stands for all refs below it, any other for that ref only; no prefix
    /// means all. `HEAD`'s target is always told.
    fn ls_refs(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        control: &Control,
    ) -> Result<Advertisement, TransportError>;

    /// Downloads the objects of `wants` into the repository and moves no ref. They are complete and on disk when it
    /// returns; when it fails, the repository is as it was.
    fn fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
        limits: &Limits,
        control: &Control,
    ) -> Result<FetchReport, TransportError>;

    /// Asks for refs and downloads what `choose` wants of them: as [`Self::ls_refs`] and [`Self::fetch`], over one
    /// connection where that is possible. `limits.ls_refs` holds until `choose` has answered.
    fn ls_refs_and_fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        prefixes: &[&str],
        choose: &mut dyn FnMut(&Advertisement) -> Vec<RemoteRef>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(Advertisement, FetchReport), TransportError> {
        let advertisement = self.ls_refs(upstream, prefixes, limits, control)?;
        let wants = choose(&advertisement);
        let report = self.fetch(repository, upstream, &wants, limits, control)?;
        Ok((advertisement, report))
    }

    /// Pushes one commit to the ref `to` (full name) of upstream, which has to be at `lease` or, without one, must not
    /// exist. Never forces, never runs hooks; always the git program.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is one thing that the caller decides"
    )]
    fn push(
        &self,
        repository: &Path,
        upstream: &Upstream,
        commit: ObjectId,
        to: &str,
        lease: Option<ObjectId>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), PushError>;
}

/// Whether a ref was asked for.
fn asked_for(name: &str, prefixes: &[&str]) -> bool {
    prefixes.is_empty()
        || prefixes.iter().any(|prefix| {
            if prefix.ends_with('/') {
                name.starts_with(prefix)
            } else {
                name == *prefix
            }
        })
}
