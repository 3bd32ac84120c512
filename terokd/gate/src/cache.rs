//! A plain clone of the gate that seeds new tasks. Best effort: its failures never fail a sync.

use crate::refs::Refs;
use crate::{Control, GateSpec, host_git, layout};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Within the clone: which state of the gate it was made from.
const STATE: &str = ".git/terok-gate-state";
/// How long a clone on this machine may take.
const LONGEST: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

/// Rebuilds the clone if the gate's branches are not those that it was made from; true if it did.
pub(crate) fn refresh(spec: &GateSpec, control: &Control) -> Result<bool, String> {
    let Some(cache) = &spec.cache_dir else {
        return Ok(false);
    };
    let repository = layout::open(&spec.path).map_err(|fault| fault.message)?;
    let refs = Refs::read(&repository).map_err(|fault| fault.message)?;
    if refs.heads.is_empty() {
        drop_cache(spec);
        return Ok(false);
    }
    let state = state(&repository, &refs);
    let known = fs::read_to_string(cache.join(STATE)).unwrap_or_default();
    if known == state && cache.join(".git").is_dir() {
        return Ok(false);
    }
    let parent = cache.parent().ok_or("it has no place")?;
    layout::private_dir(parent).map_err(|fault| fault.message)?;
    let _lock = lock(cache, control)?;
    let new = sibling(cache, "new");
    crate::make::remove(&new);
    let cloned = clone(spec, &new, control);
    let noted = cloned.and_then(|()| {
        layout::write(&new.join(STATE), state.as_bytes()).map_err(|fault| fault.message)
    });
    if let Err(why) = noted {
        crate::make::remove(&new);
        // One that is older still seeds tasks; one that was dropped would not have.
        return Err(why);
    }
    let old = sibling(cache, "old");
    crate::make::remove(&old);
    let had = cache.symlink_metadata().is_ok();
    if had {
        fs::rename(cache, &old)
            .map_err(|error| format!("cannot set the old clone aside: {error}"))?;
    }
    if let Err(error) = fs::rename(&new, cache) {
        crate::make::remove(&new);
        return Err(format!("cannot put the clone in its place: {error}"));
    }
    crate::make::remove(&old);
    Ok(true)
}

/// Removes the clone.
pub(crate) fn drop_cache(spec: &GateSpec) {
    if let Some(cache) = &spec.cache_dir
        && cache.symlink_metadata().is_ok()
    {
        crate::make::remove(cache);
    }
}

fn sibling(cache: &Path, what: &str) -> PathBuf {
    let name = cache.file_name().unwrap_or_default().to_string_lossy();
    cache.with_file_name(format!(".{name}.{what}"))
}

/// Branches of the gate and where its `HEAD` points, in short.
fn state(repository: &gix::Repository, refs: &Refs) -> String {
    let mut hash = Sha256::new();
    hash.update(crate::head::branch(repository).unwrap_or_default());
    for (branch, id) in &refs.heads {
        hash.update(b"\n");
        hash.update(branch);
        hash.update(b" ");
        hash.update(id.as_bytes());
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps the clone from being copied while it changes.
fn lock(cache: &Path, control: &Control) -> Result<File, String> {
    let path = sibling(cache, "lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("cannot open `{}`: {error}", path.display()))?;
    let end = Instant::now() + LONGEST;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(format!("cannot lock `{}`: {error}", path.display()));
            }
        }
        if control.cancelled() || Instant::now() >= end {
            return Err("tasks are being seeded from it".to_owned());
        }
        std::thread::sleep(LOOK);
    }
}

/// A clone with hard links to the gate's objects, which nobody changes. Runs nothing of the repository's.
fn clone(spec: &GateSpec, target: &Path, control: &Control) -> Result<(), String> {
    let arguments = [
        "-c",
        // As many as there are processors.
        "checkout.workers=0",
        "clone",
        "--quiet",
        "--local",
        "--no-recurse-submodules",
        "--template=",
        "--",
    ];
    let mut command = host_git::git(spec, &arguments);
    command.arg(&spec.path).arg(target);
    host_git::run(&mut command, LONGEST, control)?;
    // A clone whose HEAD leads nowhere would seed empty workspaces.
    let options = gix::open::Options::isolated().with(gix::sec::Trust::Full);
    let clone = gix::open_opts(target, options).map_err(|error| format!("{error:#}"))?;
    clone
        .head_id()
        .map(drop)
        .map_err(|_| "the gate's HEAD names no branch, so there is nothing to check out".to_owned())
}
