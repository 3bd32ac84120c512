//! Questions about history: who is whose ancestor, how many commits lie between.

use gix::ObjectId;
use std::collections::HashMap;
use terok_proto::{Fault, Kind};

/// Whether the object is there and a commit.
pub(crate) fn is_commit(repository: &gix::Repository, id: ObjectId) -> bool {
    repository
        .find_header(id)
        .is_ok_and(|header| header.kind() == gix::object::Kind::Commit)
}

/// What a tag object leads to, none for an object that is none; nothing if it is not all there.
pub(crate) fn peeled(repository: &gix::Repository, id: ObjectId) -> Option<Option<ObjectId>> {
    let object = repository.find_object(id).ok()?;
    if object.kind != gix::object::Kind::Tag {
        return Some(None);
    }
    let end = object.peel_tags_to_end().ok()?.id;
    Some(Some(end))
}

/// The best common ancestor, if the histories are related.
pub(crate) fn merge_base(
    repository: &gix::Repository,
    a: ObjectId,
    b: ObjectId,
) -> Option<ObjectId> {
    repository
        .merge_base(a, b)
        .ok()
        .flatten()
        .map(|id| id.detach())
}

/// Whether `a` is `b` or one of its ancestors.
pub(crate) fn is_ancestor(repository: &gix::Repository, a: ObjectId, b: ObjectId) -> bool {
    a == b || merge_base(repository, a, b) == Some(a)
}

/// Commits that `of` reaches and `without` does not.
pub(crate) fn count(
    repository: &gix::Repository,
    of: ObjectId,
    without: &[ObjectId],
) -> Result<u64, Fault> {
    let walk = repository
        .rev_walk([of])
        .with_hidden(without.iter().copied())
        .all()
        .map_err(|error| broken(repository, &error))?;
    let mut commits = 0;
    for info in walk {
        info.map_err(|error| broken(repository, &error))?;
        commits += 1;
    }
    Ok(commits)
}

/// How many files and directories a tree stands for. Each tree is read once, however often it is named.
pub(crate) fn entries(repository: &gix::Repository, tree: ObjectId) -> Result<u64, Fault> {
    let mut known: HashMap<ObjectId, u64> = HashMap::new();
    // Without recursion: it is an agent who says how deep the trees are.
    let mut open = vec![tree];
    while let Some(id) = open.last().copied() {
        if known.contains_key(&id) {
            open.pop();
            continue;
        }
        let read = repository.find_tree(id);
        let read = read.map_err(|error| broken(repository, &error))?;
        let (mut entries, mut all_known) = (0u64, true);
        for entry in read.iter() {
            let entry = entry.map_err(|error| broken(repository, &error))?;
            let below = if entry.mode().is_tree() {
                known
                    .get(&entry.object_id())
                    .map(|below| below.saturating_add(1))
            } else {
                Some(1)
            };
            match below {
                Some(below) => entries = entries.saturating_add(below),
                None => {
                    all_known = false;
                    open.push(entry.object_id());
                }
            }
        }
        if all_known {
            known.insert(id, entries);
            open.pop();
        }
    }
    Ok(known.get(&tree).copied().unwrap_or_default())
}

/// A history that cannot be read to its end.
pub(crate) fn broken(repository: &gix::Repository, error: &dyn std::fmt::Display) -> Fault {
    let dir = repository.git_dir().display();
    Fault::new(
        Kind::GateCorrupt,
        format!("the history in `{dir}` cannot be read: {error}"),
    )
    .with("path", dir.to_string())
}
