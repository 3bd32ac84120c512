//! One writer per gate, across processes: a lock file beside the repository, so that it survives its exchange.

use crate::{Control, GateSpec};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
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

/// Where a gate's lock is.
pub(crate) fn path_of(spec: &GateSpec) -> PathBuf {
    let name = spec.path.file_name().unwrap_or_default().to_string_lossy();
    spec.parent().join(format!(".{name}.lock"))
}

/// Waits for the gate.
pub(crate) fn lock(spec: &GateSpec, control: &Control) -> Result<GateLock, Fault> {
    let path = path_of(spec);
    crate::layout::private_dir(spec.parent())?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|error| Fault::io("open the lock", &path, &error))?;
    let end = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(Fault::io("lock", &path, &error));
            }
        }
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
    // Only told to whoever waits: the lock is the kernel's.
    let told = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    if let Err(error) = told {
        tracing::debug!(path = %path.display(), %error, "cannot note who holds the lock");
    }
    Ok(GateLock { _file: file })
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
