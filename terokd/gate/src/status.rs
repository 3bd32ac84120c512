//! What is known of a gate without asking anybody, and cleaning up after a crash.

use crate::refs::{HEADS, Refs, UPSTREAM};
use crate::{GateSpec, layout};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Facts about a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It is a directory.
    pub exists: bool,
    /// Number of heads.
    pub heads: u64,
    /// What it takes up on disk.
    pub size_bytes: Option<u64>,
}

/// What can be seen of a gate; whatever is wrong with it, it does not fail.
pub fn facts(spec: &GateSpec) -> Facts {
    if !spec.path.is_dir() {
        return Facts::default();
    }
    let refs = layout::open(&spec.path).and_then(|repository| Refs::read(&repository));
    Facts {
        exists: true,
        heads: refs.map_or(0, |refs| refs.heads.len() as u64),
        size_bytes: Some(size(&spec.path, &mut HashSet::new())),
    }
}

fn size(dir: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, meta)| {
            if meta.is_dir() {
                size(&path, seen)
            } else if meta.is_file() && seen.insert((meta.dev(), meta.ino())) {
                meta.len()
            } else {
                0
            }
        })
        .sum()
}

/// When upstream was last fetched: the newest of the files that hold the snapshot.
pub(crate) fn snapshot_at(gate: &Path) -> Option<String> {
    let mut newest = modified(&gate.join("packed-refs"));
    let mut dirs = vec![gate.join(UPSTREAM.trim_end_matches('/'))];
    while let Some(dir) = dirs.pop() {
        newest = newest.max(modified(&dir));
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => newest = newest.max(modified(&entry.path())),
            }
        }
    }
    crate::review::moment(newest?)
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.symlink_metadata().ok()?.modified().ok()
}

/// Removes what a process left in the gate base that died while it made a gate, and packs that never got finished.
pub fn recover(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let left = name.starts_with('.')
            && [".git.new-", ".git.trash-"]
                .iter()
                .any(|mark| name.contains(mark))
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if left {
            tracing::info!(dir = %entry.path().display(), "removing what an interrupted sync left");
            crate::sync::remove(&entry.path());
        } else if name.ends_with(".git") && entry.path().join(HEADS).is_dir() {
            clean_packs(&entry.path());
        }
    }
}

fn clean_packs(gate: &Path) {
    let old = SystemTime::now() - std::time::Duration::from_secs(3600);
    for entry in fs::read_dir(gate.join("objects/pack"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An hour: somebody else may be at it.
        if name.starts_with("tmp_") && modified(&entry.path()).is_some_and(|at| at < old) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Number of heads; none where there is nothing to read.
pub(crate) fn facts_heads(spec: &GateSpec) -> usize {
    let refs = layout::open(&spec.path).and_then(|repository| Refs::read(&repository));
    refs.map_or(0, |refs| refs.heads.len())
}
