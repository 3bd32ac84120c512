//! One writer per gate, across processes: a lock file beside the repository, so that it survives its exchange.

use crate::{Control, GateSpec};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use terok_proto::{Fault, Kind};

/// How long somebody else may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// The right to change a gate; given back when dropped.
#[derive(Debug)]
pub(crate) struct GateLock {
    _file: File,
}

/// Where the lock of the gate at that path is.
fn path_of(gate: &Path) -> PathBuf {
    let name = gate.file_name().unwrap_or_default().to_string_lossy();
    gate.with_file_name(format!(".{name}.lock"))
}

/// Waits for the gate.
pub(crate) fn lock(spec: &GateSpec, control: &Control) -> Result<GateLock, Fault> {
    let path = path_of(&spec.path);
    crate::layout::private_dir(spec.parent())?;
    let mut file = open(&path)?;
    let end = Instant::now() + PATIENCE;
    while !taken(&file, &path)? {
        control.check().map_err(Fault::from)?;
        if Instant::now() >= end {
            let holder = holder(&mut file);
            let by = holder.map_or(String::new(), |pid| format!(" (process {pid})"));
            let fault = Fault::new(
                Kind::GateBusy,
                format!(
                    "somebody else{by} has been working on `{}` for a minute; try again later",
                    spec.path.display()
                ),
            );
            return Err(match holder {
                Some(pid) => fault.with("pid", pid),
                None => fault,
            });
        }
        std::thread::sleep(LOOK);
    }
    Ok(ours(file, &spec.path))
}

/// Takes the gate if nobody else has it.
pub(crate) fn try_lock(gate: &Path) -> Result<Option<GateLock>, Fault> {
    let path = path_of(gate);
    let file = open(&path)?;
    Ok(taken(&file, &path)?.then(|| ours(file, gate)))
}

fn open(path: &Path) -> Result<File, Fault> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| Fault::io("open the lock", path, &error))
}

fn taken(file: &File, path: &Path) -> Result<bool, Fault> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => Err(Fault::io("lock", path, &error)),
    }
}

fn ours(mut file: File, gate: &Path) -> GateLock {
    // Only told to whoever waits: the lock is the kernel's.
    let told = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    if let Err(error) = told {
        tracing::debug!(gate = %gate.display(), %error, "cannot note who holds the lock");
    }
    crate::leftover::sweep(gate);
    GateLock { _file: file }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
