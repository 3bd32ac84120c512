//! A plain clone of the gate that seeds new tasks. Best effort: its failures never fail a sync.

use crate::refs::Refs;
use crate::{Control, GateSpec, host_git, layout};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Within the clone: which state of the gate it was made from.
const STATE: &str = ".git/terok-gate-state";
/// How long a clone on this machine may take.
const LONGEST: Duration = Duration::from_secs(300);
/// Files and directories that a clone may have.
const MOST_ENTRIES: u64 = 2_000_000;
const LOOK: Duration = Duration::from_millis(20);

/// Rebuilds the clone if the gate's branches are not those that it was made from; true if it did.
pub(crate) fn refresh(spec: &GateSpec, control: &Control) -> Result<bool, String> {
    let Some(cache) = &spec.cache_dir else {
        return Ok(false);
    };
    let Some(state) = state(spec)? else {
        drop_cache(spec);
        return Ok(false);
    };
    if is_current(cache, &state) {
        return Ok(false);
    }
    let parent = cache.parent().ok_or("it has no place")?;
    layout::private_dir(parent).map_err(|fault| fault.message)?;
    let _lock = lock(cache, control)?;
    // Somebody else may have done it, and the gate may have changed, while this one waited.
    let repository = identity(spec);
    let Some(state) = self::state(spec)? else {
        drop_cache(spec);
        return Ok(false);
    };
    if is_current(cache, &state) {
        return Ok(false);
    }
    let new = sibling(cache, "new");
    crate::make::remove(&new);
    let cloned = clone(spec, &new, control).and_then(|()| {
        if identity(spec) == repository {
            Ok(())
        } else {
            Err("the gate was built anew meanwhile".to_owned())
        }
    });
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
    match fs::rename(cache, &old) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            crate::make::remove(&new);
            return Err(format!("cannot set the old clone aside: {error}"));
        }
        _ => {}
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

/// Branches of the gate and where its `HEAD` points, in short; none if it has no branch.
fn state(spec: &GateSpec) -> Result<Option<String>, String> {
    let repository = layout::open(&spec.path).map_err(|fault| fault.message)?;
    let refs = Refs::read(&repository).map_err(|fault| fault.message)?;
    if refs.heads.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash.update(crate::head::branch(&repository).unwrap_or_default());
    for (branch, id) in &refs.heads {
        hash.update(b"\n");
        hash.update(branch);
        hash.update(b" ");
        hash.update(id.as_bytes());
    }
    let digest = hash.finalize();
    Ok(Some(
        digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

/// Whether the clone was made from that state.
fn is_current(cache: &Path, state: &str) -> bool {
    let known = fs::read_to_string(cache.join(STATE)).unwrap_or_default();
    known == state && cache.join(".git").is_dir()
}

/// Which directory is the gate.
fn identity(spec: &GateSpec) -> Option<(u64, u64)> {
    let meta = spec.path.symlink_metadata().ok()?;
    Some((meta.dev(), meta.ino()))
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
        "clone",
        "--quiet",
        "--local",
        "--no-checkout",
        "--no-recurse-submodules",
        "--template=",
        "--",
    ];
    let mut command = host_git::git(spec, &arguments);
    command.arg(&spec.path).arg(target);
    host_git::run(&mut command, LONGEST, control)?;
    // A clone whose HEAD leads nowhere would seed empty workspaces.
    let options = gix::open::Options::isolated()
        .with(gix::sec::Trust::Full)
        .config_overrides([layout::AS_IT_IS]);
    let clone = gix::open_opts(target, options).map_err(|error| format!("{error:#}"))?;
    let head = clone
        .head_commit()
        .and_then(|commit| commit.tree_id())
        .map_err(|_| {
            "the gate's HEAD names no branch, so there is nothing to check out".to_owned()
        })?;
    // A few trees that name each other stand for more files than git has memory for.
    let entries = crate::walk::entries(&clone, head.detach()).map_err(|fault| fault.message)?;
    if entries > MOST_ENTRIES {
        return Err(format!(
            "the gate's HEAD has {entries} files and directories; at most {MOST_ENTRIES} are checked out"
        ));
    }
    // As many as there are processors.
    let mut command = host_git::git(spec, &["-c", "checkout.workers=0", "-C"]);
    command.arg(target).args(["reset", "--quiet", "--hard"]);
    host_git::run(&mut command, LONGEST, control)
}
