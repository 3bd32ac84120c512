//! Whether what arrived is whole: a server may send a pack that lacks what its commits and trees name.
//!
//! Every object of the new packs has to find what it names, in the packs or in the repository, and so do the wants. What
//! the repository has already is taken to be whole: it came this way or through receive-pack, which checks as well.

use super::RemoteRef;
use super::quarantine::Quarantine;
use super::watch::Watch;
use crate::TransportError;
use gix::ObjectId;
use gix::objs::{CommitRefIter, Exists, Find, FindHeader, Kind, TagRefIter, TreeRefIter};
use gix::odb::pack;
use std::sync::atomic::{AtomicBool, Ordering};

/// Threads that look, and objects for which another one is worth it.
const THREADS: usize = 4;
const PART: usize = 1_024;
/// Enough for the bases of the deltas that lie beside each other.
const CACHE: usize = 32 * 1024 * 1024;

pub(super) fn check(
    quarantine: &Quarantine,
    wants: &[RemoteRef],
    watch: &Watch,
) -> Result<(), TransportError> {
    quarantine.see_repository()?;
    let storage = |error: &dyn std::fmt::Display| TransportError::storage(&error.to_string());
    let mut objects =
        gix::odb::at(quarantine.path(), gix::hash::Kind::Sha1).map_err(|error| storage(&error))?;
    objects.set_pack_cache(|| Box::new(pack::cache::lru::MemoryCappedHashmap::new(CACHE)));
    for index in quarantine.indices()? {
        let index = pack::index::File::at(&index, gix::hash::Kind::Sha1)
            .map_err(|error| storage(&format!("{error:#}")))?;
        let mut entries: Vec<(u64, ObjectId)> = index
            .iter()
            .map(|entry| (entry.pack_offset, entry.oid))
            .collect();
        // In the order of the pack, so that bases are at hand.
        entries.sort_unstable();
        check_entries(&objects, &entries, watch)?;
    }
    for want in wants {
        if !objects.exists(&want.id) {
            return Err(missing(&want.id, &want.name));
        }
    }
    Ok(())
}

/// Everything in one pack, by several threads.
fn check_entries(
    objects: &gix::odb::Handle,
    entries: &[(u64, ObjectId)],
    watch: &Watch,
) -> Result<(), TransportError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = entries.len().div_ceil(threads.min(THREADS)).max(PART);
    let (failed, stopped) = (AtomicBool::new(false), watch.flag());
    let check_part = |objects: gix::odb::Handle, entries: &[(u64, ObjectId)]| {
        let mut buffer = Vec::new();
        for (_, id) in entries {
            if failed.load(Ordering::Relaxed) || stopped.load(Ordering::Relaxed) {
                break;
            }
            check_object(&objects, id, &mut buffer)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let checked = std::thread::scope(|scope| {
        let parts: Vec<_> = entries
            .chunks(part)
            .map(|entries| {
                let (objects, check_part) = (objects.clone(), &check_part);
                scope.spawn(move || check_part(objects, entries))
            })
            .collect();
        // What panics on an answer refuses it.
        let refused = |_| Err(TransportError::protocol("its answer makes no sense"));
        parts
            .into_iter()
            .try_for_each(|part| part.join().unwrap_or_else(refused))
    });
    watch.stopped().map_or(checked, Err)
}

fn check_object(
    objects: &gix::odb::Handle,
    id: &ObjectId,
    buffer: &mut Vec<u8>,
) -> Result<(), TransportError> {
    let unreadable = |error: gix::Error| {
        TransportError::protocol(&format!("object {id} cannot be read: {error:#}"))
    };
    let malformed = || TransportError::protocol(&format!("object {id} is malformed"));
    let header = objects
        .try_header(id)
        .map_err(unreadable)?
        .ok_or_else(|| missing(id, "the pack"))?;
    if header.kind == Kind::Blob {
        return Ok(());
    }
    let object = objects
        .try_find(id, buffer)
        .map_err(unreadable)?
        .ok_or_else(|| missing(id, "the pack"))?;
    let has = |named: &gix::oid| {
        if objects.exists(named) {
            Ok(())
        } else {
            Err(missing(&named.to_owned(), &format!("{} {id}", object.kind)))
        }
    };
    match object.kind {
        Kind::Blob => {}
        Kind::Tree => {
            for entry in TreeRefIter::from_bytes(object.data, gix::hash::Kind::Sha1) {
                let entry = entry.map_err(|_| malformed())?;
                // A submodule's commit lives elsewhere.
                if !entry.mode.is_commit() {
                    has(entry.oid)?;
                }
            }
        }
        Kind::Commit => {
            let mut commit = CommitRefIter::from_bytes(object.data, gix::hash::Kind::Sha1);
            has(&commit.tree_id().map_err(|_| malformed())?)?;
            for parent in CommitRefIter::from_bytes(object.data, gix::hash::Kind::Sha1).parent_ids()
            {
                has(&parent)?;
            }
        }
        Kind::Tag => {
            let tag = TagRefIter::from_bytes(object.data, gix::hash::Kind::Sha1);
            has(&tag.target_id().map_err(|_| malformed())?)?;
        }
    }
    Ok(())
}

fn missing(id: &ObjectId, from: &str) -> TransportError {
    TransportError::protocol(&format!("it did not send object {id} that {from} needs"))
}
