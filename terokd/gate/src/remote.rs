//! What upstream shows, as far as a gate takes it: names of upstream's are hostile.

use crate::refs::{HEADS, Refs, TAGS};
use crate::{Advertisement, RemoteRef, TransportError, check_branch};
use gix::ObjectId;
use std::collections::BTreeMap;

/// Refs that an upstream may have.
const MAX_REFS: usize = 500_000;
/// What upstream has, by kind.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(crate) heads: BTreeMap<String, ObjectId>,
    pub(crate) tags: BTreeMap<String, RemoteRef>,
    /// The branch that `HEAD` points at.
    pub(crate) head: Option<String>,
    /// Names that git does not take here.
    pub(crate) refused: Vec<String>,
}

impl Remote {
    pub(crate) fn read(advertised: &Advertisement) -> Result<Self, TransportError> {
        if advertised.refs.len() > MAX_REFS {
            return Err(TransportError::Protocol(format!(
                "it has {} refs; a gate takes at most {MAX_REFS}",
                advertised.refs.len()
            )));
        }
        let mut remote = Self {
            head: advertised
                .head
                .as_deref()
                .and_then(|head| head.strip_prefix(HEADS))
                .filter(|branch| check_branch(branch).is_ok())
                .map(str::to_owned),
            ..Self::default()
        };
        for reference in &advertised.refs {
            if let Some(branch) = reference.name.strip_prefix(HEADS) {
                if check_branch(branch).is_ok() {
                    remote.heads.insert(branch.to_owned(), reference.id);
                } else {
                    remote.refused.push(reference.name.clone());
                }
            } else if let Some(tag) = reference.name.strip_prefix(TAGS) {
                if check_branch(tag).is_ok() {
                    remote.tags.insert(tag.to_owned(), reference.clone());
                } else {
                    remote.refused.push(reference.name.clone());
                }
            }
        }
        // No git repository has both `a` and `a/b`; what says so keeps the first.
        for branch in nested(&remote.heads) {
            remote.heads.remove(&branch);
            remote.refused.push(format!("{HEADS}{branch}"));
        }
        for tag in nested(&remote.tags) {
            remote.tags.remove(&tag);
            remote.refused.push(format!("{TAGS}{tag}"));
        }
        Ok(remote)
    }
}

/// Names below another name.
fn nested<T>(map: &BTreeMap<String, T>) -> Vec<String> {
    map.keys()
        .filter(|name| {
            name.match_indices('/')
                .any(|(at, _)| map.contains_key(&name[..at]))
        })
        .cloned()
        .collect()
}

/// What has to be downloaded.
pub(crate) fn missing(
    repository: &gix::Repository,
    refs: &Refs,
    remote: &Remote,
) -> Vec<RemoteRef> {
    let heads = remote
        .heads
        .iter()
        .filter(|(branch, id)| refs.upstream.get(*branch) != Some(id))
        .filter(|(_, id)| !repository.has_object(**id))
        .map(|(branch, id)| RemoteRef {
            name: format!("{HEADS}{branch}"),
            id: *id,
            peeled: None,
        });
    let tags = remote
        .tags
        .iter()
        .filter(|(tag, reference)| {
            !refs.tags.contains_key(*tag) && !repository.has_object(reference.id)
        })
        .map(|(_, reference)| reference.clone());
    heads.chain(tags).collect()
}
