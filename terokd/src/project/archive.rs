//! The archive of a deleted project: written, read back and compared before anything is removed.
//!
//! Owns the format (`projects.md` §8.1, §14.2). Never holds keys, vault data, the gate or workspaces; what goes in
//! is the caller's list of directories.

use crate::fs::tree::{self, At, Options, Visit};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use terok_proto::{Fault, Kind};

/// Members that one archive holds at most.
const MAX_MEMBERS: usize = 2_000_000;

/// Times that a tree which changes while it is read is tried again.
const ATTEMPTS: usize = 3;

/// Names tried before giving up on a free one.
const MAX_NAMES: u32 = 1000;

/// A directory that goes into the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Name of the directory inside the archive.
    pub prefix: &'static str,
    /// The directory on disk; absent is fine.
    pub dir: PathBuf,
}

/// Whose archive it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label<'a> {
    /// Project id.
    pub id: &'a str,
    /// `YYYYMMDDTHHMMSSffffffZ`.
    pub timestamp: &'a str,
    /// RFC 3339.
    pub time: &'a str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Member {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

#[derive(Serialize)]
struct Manifest<'a> {
    version: u32,
    id: &'a str,
    time: &'a str,
    terokd: &'static str,
    members: &'a [Member],
}

/// Name of the first member.
const MANIFEST: &str = "MANIFEST.json";

/// The present moment as it stands in the name of an archive.
pub(super) fn timestamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y%m%dT%H%M%S%6fZ").to_string()
}

/// Writes, verifies and names an archive; answers its path. `check` is asked often and can stop it.
pub(super) fn write(
    archive_dir: &Path,
    label: Label<'_>,
    sources: &[Source],
    check: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<PathBuf, Fault> {
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(
            Kind::ArchiveFailed,
            format!(
                "cannot archive project `{}` in `{}`: {error}; nothing was removed",
                label.id,
                archive_dir.display()
            ),
        )
        .with("project_id", label.id)
    };
    create_private(archive_dir).map_err(|error| failed(&error))?;
    let partial = archive_dir.join(format!("{}_{}.tar.gz.partial", label.timestamp, label.id));
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let outcome = attempt(&partial, label, sources, check);
        if outcome.is_err() {
            // It is worth nothing; a leftover is removed at the next start.
            let _ = fs::remove_file(&partial);
        }
        match outcome {
            Ok(()) => {
                crate::crash::point("delete.archive_verified");
                return publish(&partial, archive_dir, label).map_err(|error| {
                    let _ = fs::remove_file(&partial);
                    failed(&error)
                });
            }
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Changed(what)) => last = format!("`{what}` changes while it is read"),
            Err(Stop::Io(error)) => return Err(failed(&error)),
        }
    }
    Err(failed(&last))
}

/// Creates a directory that only this user can enter; parents as well.
fn create_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

enum Stop {
    Fault(Fault),
    Changed(String),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn attempt(
    partial: &Path,
    label: Label<'_>,
    sources: &[Source],
    check: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<(), Stop> {
    let mut list = Collect {
        prefix: "",
        members: Vec::new(),
        before: Vec::new(),
        check,
        fault: None,
    };
    visit(sources, &mut list, |list, prefix| list.prefix = prefix)
        .map_err(|error| list.fault.take().map_or(Stop::Io(error), Stop::Fault))?;
    let members = list.members;
    let manifest = serde_json::to_vec_pretty(&Manifest {
        version: 1,
        id: label.id,
        time: label.time,
        terokd: env!("CARGO_PKG_VERSION"),
        members: &members,
    })
    .map_err(|error| Stop::Io(error.into()))?;

    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(partial)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let encoder = GzEncoder::new(
        BufWriter::with_capacity(1 << 18, file),
        Compression::default(),
    );
    let mut builder = Builder::new(encoder);
    append_bytes(&mut builder, MANIFEST, &manifest)?;
    let mut pack = Pack {
        prefix: "",
        builder,
        members: members.iter(),
        before: Vec::new(),
        check,
        stop: None,
    };
    visit(sources, &mut pack, |pack, prefix| pack.prefix = prefix)
        .map_err(|error| pack.stop.take().unwrap_or(Stop::Io(error)))?;
    if let Some(missing) = pack.members.next() {
        return Err(Stop::Changed(missing.path.clone()));
    }
    let file = pack
        .builder
        .into_inner()?
        .finish()?
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop(file);
    crate::crash::point("delete.archive_written");
    verify(partial, &manifest, &members).map_err(Stop::Io)
}

/// Walks all sources in order, directories sorted, so that two walks see the same sequence.
pub(super) fn visit<V: Visit>(
    sources: &[Source],
    visitor: &mut V,
    begin: impl Fn(&mut V, &'static str),
) -> io::Result<()> {
    for source in sources {
        let (parent, name) = match tree::open_parent(&source.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        match fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::errno::Errno::ENOENT) => continue,
            Ok(stat) if stat.st_mode & libc::S_IFMT != libc::S_IFDIR => continue,
            other => other?,
        };
        begin(visitor, source.prefix);
        let options = Options {
            sorted: true,
            make_accessible: false,
        };
        tree::walk(parent.as_fd(), &name, None, options, visitor)?;
    }
    Ok(())
}

fn member_path(prefix: &str, rel: &Path) -> String {
    format!("{prefix}/{}", rel.to_string_lossy())
}

fn open_file(at: &At<'_>) -> io::Result<(File, FileStat)> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = File::from(openat(at.dir, at.name, flags, Mode::empty())?);
    let stat = fstat(&file)?;
    Ok((file, stat))
}

/// First pass: what there is, with sizes and sums.
struct Collect<'a> {
    prefix: &'static str,
    members: Vec<Member>,
    before: Vec<usize>,
    check: &'a mut dyn FnMut() -> Result<(), Fault>,
    fault: Option<Fault>,
}

impl Collect<'_> {
    fn add(&mut self, member: Member) -> io::Result<()> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(io::Error::other(format!(
                "there are more than {MAX_MEMBERS} files"
            )));
        }
        if let Err(fault) = (self.check)() {
            self.fault = Some(fault);
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        self.members.push(member);
        Ok(())
    }
}

impl Visit for Collect<'_> {
    fn other(&mut self, at: &At<'_>) -> io::Result<()> {
        let path = member_path(self.prefix, at.rel);
        let Some(kind) = kind_of(&at.stat()?) else {
            return Ok(());
        };
        let (size, sum) = match kind {
            "file" => {
                let (file, _) = open_file(at).map_err(|error| named(&path, &error))?;
                let mut reader = Summing::new(file);
                io::copy(&mut reader, &mut io::sink()).map_err(|error| named(&path, &error))?;
                reader.finish()
            }
            _ => {
                let target = readlinkat(at.dir, at.name)?;
                (0, hex(Sha256::digest(target.as_bytes())))
            }
        };
        self.add(Member {
            path,
            kind,
            size,
            sha256: Some(sum),
        })
    }

    fn enter(&mut self, _at: &At<'_>, _stat: &FileStat) -> io::Result<()> {
        self.before.push(self.members.len());
        Ok(())
    }

    fn leave(&mut self, at: &At<'_>) -> io::Result<()> {
        let is_empty = self.before.pop() == Some(self.members.len());
        if !is_empty || at.rel.as_os_str().is_empty() {
            return Ok(());
        }
        self.add(Member {
            path: format!("{}/", member_path(self.prefix, at.rel)),
            kind: "directory",
            size: 0,
            sha256: None,
        })
    }

    fn failed(&mut self, rel: &Path, error: io::Error) -> io::Result<()> {
        Err(named(&member_path(self.prefix, rel), &error))
    }
}

/// Files and links; sockets, pipes and devices have no content to keep.
fn kind_of(stat: &FileStat) -> Option<&'static str> {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Some("file"),
        libc::S_IFLNK => Some("symlink"),
        _ => None,
    }
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{path}`: {error}"))
}

/// Second pass: the contents, which must still be what the first pass saw.
struct Pack<'a, W: Write> {
    prefix: &'static str,
    builder: Builder<W>,
    members: std::slice::Iter<'a, Member>,
    before: Vec<usize>,
    check: &'a mut dyn FnMut() -> Result<(), Fault>,
    stop: Option<Stop>,
}

impl<W: Write> Pack<'_, W> {
    fn stop<T>(&mut self, stop: Stop) -> io::Result<T> {
        self.stop = Some(stop);
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    fn expect(&mut self, path: &str, kind: &str) -> io::Result<Member> {
        if let Err(fault) = (self.check)() {
            return self.stop(Stop::Fault(fault));
        }
        match self.members.next() {
            Some(member) if member.path == path && member.kind == kind => Ok(member.clone()),
            _ => self.stop(Stop::Changed(path.to_owned())),
        }
    }
}

impl<W: Write> Visit for Pack<'_, W> {
    fn other(&mut self, at: &At<'_>) -> io::Result<()> {
        let path = member_path(self.prefix, at.rel);
        let stat = at.stat()?;
        let Some(kind) = kind_of(&stat) else {
            return Ok(());
        };
        let member = self.expect(&path, kind)?;
        let name = Path::new(self.prefix).join(at.rel);
        let mut header = header(&stat);
        if kind == "symlink" {
            let target = readlinkat(at.dir, at.name)?;
            if member.sha256 != Some(hex(Sha256::digest(target.as_bytes()))) {
                return self.stop(Stop::Changed(path));
            }
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            return self.builder.append_link(&mut header, name, target);
        }
        let (file, stat) = open_file(at)?;
        if kind_of(&stat) != Some("file") || u64::try_from(stat.st_size) != Ok(member.size) {
            return self.stop(Stop::Changed(path));
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(member.size);
        let mut reader = Summing::new(file.take(member.size));
        self.builder.append_data(&mut header, name, &mut reader)?;
        if reader.finish() == (member.size, member.sha256.unwrap_or_default()) {
            Ok(())
        } else {
            self.stop(Stop::Changed(path))
        }
    }

    fn enter(&mut self, _at: &At<'_>, _stat: &FileStat) -> io::Result<()> {
        self.before.push(self.members.len());
        Ok(())
    }

    fn leave(&mut self, at: &At<'_>) -> io::Result<()> {
        let is_empty = self.before.pop() == Some(self.members.len());
        if !is_empty || at.rel.as_os_str().is_empty() {
            return Ok(());
        }
        self.expect(
            &format!("{}/", member_path(self.prefix, at.rel)),
            "directory",
        )?;
        let mut header = header(&at.stat()?);
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        let name = Path::new(self.prefix).join(at.rel);
        self.builder.append_data(&mut header, name, io::empty())
    }

    fn failed(&mut self, rel: &Path, error: io::Error) -> io::Result<()> {
        Err(named(&member_path(self.prefix, rel), &error))
    }
}

fn header(stat: &FileStat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header
}

fn append_bytes<W: Write>(builder: &mut Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, name, bytes)
}

/// Reads an archive to its end, so that its checksum is checked, and compares every member with the manifest.
fn verify(path: &Path, manifest: &[u8], members: &[Member]) -> io::Result<()> {
    let wrong = |what: &str| io::Error::other(format!("the archive read back is wrong: {what}"));
    let reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut archive = tar::Archive::new(GzDecoder::new(reader));
    let mut wanted = members.iter();
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if index == 0 {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            if entry.path_bytes().as_ref() != MANIFEST.as_bytes() || text != manifest {
                return Err(wrong("the manifest differs"));
            }
            continue;
        }
        let Some(member) = wanted.next() else {
            return Err(wrong("there are more members than were written"));
        };
        let sum = match entry.link_name_bytes() {
            Some(target) if member.kind == "symlink" => Some(hex(Sha256::digest(&target))),
            _ if member.kind == "file" => {
                let mut reader = Summing::new(&mut entry);
                io::copy(&mut reader, &mut io::sink())?;
                Some(reader.finish().1)
            }
            _ => None,
        };
        if sum != member.sha256 {
            return Err(wrong(&format!("`{}` differs", member.path)));
        }
    }
    if let Some(member) = wanted.next() {
        return Err(wrong(&format!("`{}` is missing", member.path)));
    }
    // The end of the tar comes before that of the gzip stream, whose checksum covers all of it.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Gives a verified archive its name: `TS_ID.tar.gz`, or `TS_ID_1.tar.gz` … if that is taken.
fn publish(partial: &Path, dir: &Path, label: Label<'_>) -> io::Result<PathBuf> {
    for number in 0..MAX_NAMES {
        let suffix = if number == 0 {
            String::new()
        } else {
            format!("_{number}")
        };
        let name = format!("{}_{}{suffix}.tar.gz", label.timestamp, label.id);
        match crate::fs::remove::rename_beside(partial, name.as_ref(), None) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(dir.join(name)),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Removes what an interrupted archive of that label left.
pub(super) fn discard_partial(archive_dir: &Path, timestamp: &str, id: &str) {
    let _ = fs::remove_file(archive_dir.join(format!("{timestamp}_{id}.tar.gz.partial")));
}

struct Summing<R> {
    inner: R,
    sum: Sha256,
    bytes: u64,
}

impl<R: Read> Summing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            sum: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (u64, String) {
        (self.bytes, hex(self.sum.finalize()))
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sum.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write as _;
    bytes.as_ref().iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    const LABEL: Label<'_> = Label {
        id: "demo",
        timestamp: "20260315T120000123456Z",
        time: "2026-03-15T12:00:00.123456Z",
    };

    fn members(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
        let mut out = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            if let Some(target) = entry.link_name_bytes() {
                text = target.into_owned();
            }
            out.insert(name, text);
        }
        out
    }

    #[test]
    fn holds_everything_and_says_so_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("config-of-demo");
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::create_dir_all(root.join("presets")).unwrap();
        fs::write(root.join("project.yml"), "project: {}\n").unwrap();
        fs::write(root.join("presets").join("x".repeat(200)), "long").unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let sources = [
            Source {
                prefix: "config",
                dir: root,
            },
            Source {
                prefix: "state",
                dir: dir.path().join("absent"),
            },
        ];
        let archives = dir.path().join("a/archive");
        let path = write(&archives, LABEL, &sources, &mut || Ok(())).unwrap();
        assert!(path.ends_with("20260315T120000123456Z_demo.tar.gz"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&archives)), (0o600, 0o700));
        let found = members(&path);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let long = format!("config/presets/{}", "x".repeat(200));
        // A directory is a member of its own only if it is empty.
        let wanted = [
            "MANIFEST.json",
            "config/dangling",
            "config/empty",
            &long,
            "config/project.yml",
        ];
        assert_eq!(names, wanted);
        assert_eq!(found["config/dangling"], b"nowhere");
        let manifest: serde_json::Value = serde_json::from_slice(&found[MANIFEST]).unwrap();
        assert_eq!(manifest["id"], "demo");
        assert_eq!(manifest["members"].as_array().unwrap().len(), 4);
        let again = write(&archives, LABEL, &sources, &mut || Ok(())).unwrap();
        assert!(again.ends_with("20260315T120000123456Z_demo_1.tar.gz"));
        assert_eq!(
            fs::read_dir(&archives).unwrap().count(),
            2,
            "no partial stays"
        );
    }

    #[test]
    fn cancelling_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("p");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "a").unwrap();
        let sources = [Source {
            prefix: "config",
            dir: root,
        }];
        let archives = dir.path().join("archive");
        let mut calls = 0;
        let mut check = || {
            calls += 1;
            if calls > 1 {
                Err(Fault::new(Kind::Cancelled, "cancelled"))
            } else {
                Ok(())
            }
        };
        let fault = write(&archives, LABEL, &sources, &mut check).unwrap_err();
        assert_eq!(fault.kind, Kind::Cancelled);
        assert_eq!(fs::read_dir(&archives).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_archive_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("p");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "a".repeat(5000)).unwrap();
        let sources = [Source {
            prefix: "config",
            dir: root,
        }];
        let path = write(dir.path(), LABEL, &sources, &mut || Ok(())).unwrap();
        let manifest = members(&path).remove(MANIFEST).unwrap();
        let sum = hex(Sha256::digest("a".repeat(5000)));
        let good = [Member {
            path: "config/a".into(),
            kind: "file",
            size: 5000,
            sha256: Some(sum),
        }];
        verify(&path, &manifest, &good).unwrap();
        verify(&path, &manifest, &[]).unwrap_err();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() - 6;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        verify(&path, &manifest, &good).unwrap_err();
    }

    #[test]
    fn the_name_carries_six_digits() {
        let now: jiff::Timestamp = "2026-03-15T12:00:00.123456Z".parse().unwrap();
        assert_eq!(timestamp(now), LABEL.timestamp);
        let now: jiff::Timestamp = "2026-03-15T12:00:00Z".parse().unwrap();
        assert_eq!(timestamp(now), "20260315T120000000000Z");
    }
}
