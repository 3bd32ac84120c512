//! Whether the archive of a deletion fits where it goes, asked before anything is written.
//!
//! The estimate is an upper bound: everything uncompressed. What fills the disk meanwhile, and quotas, are the
//! archive's own business.

use super::archive::{self, Label, Source};
use crate::fs::tree::{At, Visit};
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;
use terok_proto::{Fault, Kind};

/// Unit of a tar.
const BLOCK: u64 = 512;
/// The end of the tar, the frame of gzip, and whole blocks of the file system.
const SLACK: u64 = 64 << 10;
/// A member in the manifest besides its path.
const LISTED: u64 = 256;
/// Longer names take blocks of their own.
const SHORT_NAME: u64 = 100;

/// Fails if the file system of the archives has less room than the archive may need.
pub(super) fn check(
    archive_dir: &Path,
    label: Label<'_>,
    sources: &[Source],
    check: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut sum = Sum {
        tar: 0,
        manifest: 0,
        check,
        fault: None,
    };
    // What cannot be looked at is no matter of space: the archive says so.
    let _ = archive::visit(sources, &mut sum, |_, _| {});
    if let Some(fault) = sum.fault.take() {
        return Err(fault);
    }
    decide(archive_dir, label, sum.bound(), available(archive_dir))
}

fn decide(
    archive_dir: &Path,
    label: Label<'_>,
    needed: u64,
    available: Option<u64>,
) -> Result<(), Fault> {
    let Some(available) = available.filter(|available| *available < needed) else {
        return Ok(());
    };
    let fault = Fault::new(
        Kind::ArchiveFailed,
        format!(
            "cannot archive project `{}` in `{}`: it may need {needed} bytes and {available} are free; nothing was \
             removed",
            label.id,
            archive_dir.display()
        ),
    );
    Err(fault
        .with("project_id", label.id)
        .with("path", archive_dir.to_string_lossy())
        .with("needed_bytes", needed)
        .with("available_bytes", available)
        .hint("make room there, or move large files out of the project's directories first"))
}

/// What this user may still write there; nothing if the system cannot tell.
fn available(dir: &Path) -> Option<u64> {
    let existing = dir.ancestors().find(|dir| dir.exists())?;
    let stat = statvfs(existing).ok()?;
    let free = if nix::unistd::geteuid().is_root() {
        stat.blocks_free()
    } else {
        stat.blocks_available()
    };
    (stat.blocks() > 0).then(|| free.saturating_mul(stat.fragment_size()))
}

struct Sum<'a> {
    tar: u64,
    manifest: u64,
    check: &'a mut dyn FnMut() -> Result<(), Fault>,
    fault: Option<Fault>,
}

impl Sum<'_> {
    fn member(&mut self, rel: &Path, data: u64, link: u64) {
        let name = rel.as_os_str().len() as u64 + SHORT_NAME / 2;
        let long = |length: u64| {
            if length > SHORT_NAME {
                BLOCK + padded(length + 1)
            } else {
                0
            }
        };
        let entry = BLOCK + long(name) + long(link) + padded(data);
        self.tar = self.tar.saturating_add(entry);
        let path = serde_json::to_string(&rel.to_string_lossy());
        let listed = path.map_or(0, |path| path.len() as u64) + LISTED;
        self.manifest = self.manifest.saturating_add(listed);
    }

    /// Deflate stores what it cannot compress, with 5 bytes for every 31 KiB at most.
    fn bound(&self) -> u64 {
        let tar = self
            .tar
            .saturating_add(padded(self.manifest))
            .saturating_add(BLOCK);
        tar.saturating_add(tar / 1024).saturating_add(SLACK)
    }
}

fn padded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Visit for Sum<'_> {
    fn other(&mut self, at: &At<'_>) -> io::Result<()> {
        if let Err(fault) = (self.check)() {
            self.fault = Some(fault);
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let stat = at.stat()?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.member(at.rel, size, 0),
            libc::S_IFLNK => self.member(at.rel, 0, size),
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, at: &At<'_>, _stat: &FileStat) -> io::Result<()> {
        self.member(at.rel, 0, 0);
        Ok(())
    }

    fn failed(&mut self, _rel: &Path, _error: io::Error) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LABEL: Label<'_> = Label {
        id: "demo",
        timestamp: "20260315T120000123456Z",
        time: "2026-03-15T12:00:00.123456Z",
    };

    #[test]
    fn too_little_room_is_told_in_numbers() {
        let dir = Path::new("/archive");
        assert!(decide(dir, LABEL, 10, Some(10)).is_ok());
        assert!(decide(dir, LABEL, 10, None).is_ok());
        let fault = decide(dir, LABEL, 10, Some(9)).expect_err("too little");
        assert_eq!(fault.kind, Kind::ArchiveFailed);
        assert!(fault.message.contains("10 bytes and 9 are free"), "{fault}");
        assert_eq!(fault.data["needed_bytes"], 10);
        assert_eq!(fault.data["available_bytes"], 9);
        assert!(fault.data.contains_key("hint"));
    }

    #[test]
    fn an_archive_is_never_larger_than_was_thought() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("p");
        fs::create_dir_all(root.join("empty").join("x".repeat(200))).expect("create");
        let mut state = 1_u64;
        let mut noise = |length: usize| -> Vec<u8> {
            std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .take(length)
            .collect()
        };
        fs::write(root.join("noise"), noise(300_000)).expect("write");
        for n in 0..200 {
            let name = format!("{n}{}", "\u{1}ř".repeat(80));
            fs::write(root.join(&name), noise(n)).expect("write");
            std::os::unix::fs::symlink("t".repeat(3000), root.join(format!("l{n}"))).expect("link");
        }
        let sources = [Source {
            prefix: "task-archives",
            dir: root,
        }];
        let mut sum = Sum {
            tar: 0,
            manifest: 0,
            check: &mut || Ok(()),
            fault: None,
        };
        archive::visit(&sources, &mut sum, |_, _| {}).expect("a walk");
        let path = archive::write(dir.path(), LABEL, &sources, &mut || Ok(())).expect("archive");
        let size = path.metadata().expect("there").len();
        assert!(size > 300_000);
        assert!(size <= sum.bound(), "{size} > {}", sum.bound());
        assert!(available(dir.path()).is_some_and(|free| free > 0));
        check(&dir.path().join("not/yet"), LABEL, &sources, &mut || Ok(())).expect("fits");
        let cancelled = || Err(Fault::new(Kind::Cancelled, "stop"));
        let fault = check(dir.path(), LABEL, &sources, &mut { cancelled }).expect_err("cancelled");
        assert_eq!(fault.kind, Kind::Cancelled);
    }
}
