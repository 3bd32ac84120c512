//! One writer per gate, across processes: a lock file beside the repository, so that it survives its exchange.

use crate::{Control, GateSpec};
use nix::sys::stat::{major, minor};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use terok_proto::{Fault, Kind};

const LOOK: Duration = Duration::from_millis(50);
/// As much of the kernel's table of locks is read.
const LARGEST: u64 = 1 << 20;

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

/// Waits for the gate as long as `control` says.
pub(crate) fn lock(spec: &GateSpec, control: &Control) -> Result<GateLock, Fault> {
    let path = path_of(&spec.path);
    crate::layout::private_dir(spec.parent())?;
    // A gate may be elsewhere, in a directory that is not ours to close.
    if spec.is_in_base() {
        crate::modes::narrow(spec.parent());
    }
    let mut file = open(&path)?;
    let end = Instant::now() + control.patience();
    while !taken(&file, &path)? {
        control.check().map_err(Fault::from)?;
        if Instant::now() >= end {
            let holder = holder(&mut file);
            let by = holder.map_or(String::new(), |pid| format!(" (process {pid})"));
            let fault = Fault::new(
                Kind::GateBusy,
                format!(
                    "somebody else{by} is at work on `{}` and does not come to an end; try again later",
                    spec.path.display()
                ),
            )
            .retry_after_ms(10_000);
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

/// Who holds the lock: as the kernel says, else as the file says. What a dead holder wrote is not believed.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    let told: Option<u32> = text.trim().parse().ok();
    let meta = file.metadata().ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let place = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let mut table = String::new();
    let listed = File::open("/proc/locks").and_then(|locks| {
        let mut locks = locks.take(LARGEST);
        locks.read_to_string(&mut table)
    });
    if listed.is_err() {
        return told;
    }
    let holders = table.lines().filter_map(|line| {
        // Number, kind, `ADVISORY`, access, process, place; those who wait have an arrow before the kind.
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == "FLOCK").then_some(())?;
        let pid: u32 = fields.nth(2)?.parse().ok()?;
        Some((pid, fields.next()?))
    });
    // Some file systems show another device here than to programs.
    let same = format!(":{inode}");
    holders
        .filter(|(pid, at)| *at == place || (told == Some(*pid) && at.ends_with(&same)))
        .map(|(pid, _)| pid)
        .find(|pid| *pid != 0)
}
