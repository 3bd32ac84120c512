//! What is known of a gate without asking anybody, and cleaning up after a crash.

use crate::refs::Refs;
use crate::{GateSpec, layout, lock, looks_like_bare_gate};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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
    /// When upstream was last seen whole, RFC 3339, UTC.
    pub snapshot_at: Option<String>,
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
        snapshot_at: snapshot_at(&spec.path),
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

/// Its age is the age of the snapshot.
const FETCHED: &str = "terok-fetched";

/// Notes that the snapshot is as upstream is now.
pub(crate) fn note_fetch(gate: &Path) {
    let file = gate.join(FETCHED);
    let noted = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&file)
        .and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = noted {
        tracing::debug!(file = %file.display(), %error, "cannot note the fetch");
    }
}

/// When the snapshot was last as upstream was.
pub(crate) fn snapshot_at(gate: &Path) -> Option<String> {
    let at = jiff::Timestamp::try_from(modified(&gate.join(FETCHED))?).ok()?;
    Some(at.round(jiff::Unit::Second).unwrap_or(at).to_string())
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.symlink_metadata().ok()?.modified().ok()
}

/// Cleans up after a process that died at work in this gate base: gates that were half made, an old gate that was set
/// aside and not replaced, locks of refs, objects that never arrived. Leaves alone what somebody is working on.
pub fn recover(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    let mut gates: BTreeSet<PathBuf> = BTreeSet::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(gate) = owner_of(&name) {
            gates.insert(base.join(gate));
        } else if name.ends_with(".git") && !name.starts_with('.') && entry.path().is_dir() {
            gates.insert(entry.path());
        }
    }
    for gate in gates {
        match lock::try_lock(&gate) {
            Ok(Some(_lock)) => {
                remove_leftovers(&gate);
                clean_objects(&gate);
            }
            Ok(None) => tracing::debug!(gate = %gate.display(), "somebody works here"),
            Err(fault) => {
                tracing::warn!(gate = %gate.display(), message = fault.message, "cannot clean up");
            }
        }
    }
}

/// The name of the gate that a directory beside it was made for.
fn owner_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix('.')?;
    let (gate, random) = rest
        .rsplit_once(".reinit-")
        .or_else(|| rest.rsplit_once(".trash-"))?;
    let ours = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    (ours && !gate.is_empty()).then_some(gate)
}

/// Removes what was made beside a gate and did not take its place; an old gate whose place is empty goes back there. The
/// caller holds the gate's lock.
pub(crate) fn remove_leftovers(gate: &Path) {
    let (Some(parent), Some(name)) = (gate.parent(), gate.file_name()) else {
        return;
    };
    let name = name.to_string_lossy();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir || owner_of(&file) != Some(name.as_ref()) {
            continue;
        }
        let old = file.contains(".trash-") && looks_like_bare_gate(&entry.path());
        if old && gate.symlink_metadata().is_err() {
            tracing::info!(gate = %gate.display(), "putting back a gate that was set aside");
            if let Err(error) = fs::rename(entry.path(), gate) {
                tracing::warn!(gate = %gate.display(), %error, "cannot put it back");
            }
            continue;
        }
        tracing::info!(dir = %entry.path().display(), "removing what an interrupted sync left");
        crate::make::remove(&entry.path());
    }
}

/// Removes objects that never arrived: ours, and those of pushes whose git was killed. An hour is left to whoever is not us.
fn clean_objects(gate: &Path) {
    let old = SystemTime::now() - std::time::Duration::from_secs(3600);
    let objects = gate.join("objects");
    let begun: [(PathBuf, &[&str]); 2] = [
        (objects.join("pack"), &["tmp_"]),
        (objects, &["tmp_objdir-", "incoming-"]),
    ];
    for (dir, prefixes) in begun {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if prefixes.iter().any(|prefix| name.starts_with(prefix))
                && touched(&entry.path(), 2).is_some_and(|at| at < old)
            {
                crate::make::remove(&entry.path());
            }
        }
    }
}

/// When a file, or something so many levels below a directory, was last changed.
fn touched(path: &Path, levels: u32) -> Option<SystemTime> {
    let own = modified(path);
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if levels == 0 || !is_dir {
        return own;
    }
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let below = below.filter_map(|entry| touched(&entry.path(), levels - 1));
    below.chain(own).max()
}
