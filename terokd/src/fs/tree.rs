//! Walks a directory tree by descriptors, never by path.
//!
//! Follows no symbolic link, enters no other mount, needs one descriptor whatever the depth, and stops when a
//! directory is moved under it. What is done with the entries is the visitor's business.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What tells one inode from another, so that a path that was swapped is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    dev: u64,
    ino: u64,
}

impl Identity {
    /// The identity of what the path names itself, not of what a link there points to.
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
        })
    }

    /// The identity of an inode.
    pub fn from_stat(stat: &FileStat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// One entry, as the visitor sees it: a name in an open directory.
#[derive(Debug)]
pub struct At<'a> {
    /// The directory that holds it.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a CStr,
    /// Its path below the root of the walk; empty for the root itself.
    pub rel: &'a Path,
}

impl At<'_> {
    /// The inode, links not followed.
    pub fn stat(&self) -> io::Result<FileStat> {
        Ok(fstatat(self.dir, self.name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }
}

/// What happens to the entries. An error ends the walk.
pub trait Visit {
    /// Something that is no directory.
    fn other(&mut self, at: &At<'_>) -> io::Result<()>;
    /// A directory, before its entries.
    fn enter(&mut self, _at: &At<'_>, _stat: &FileStat) -> io::Result<()> {
        Ok(())
    }
    /// A directory, after its entries.
    fn leave(&mut self, _at: &At<'_>) -> io::Result<()> {
        Ok(())
    }
    /// A directory that could not be opened or read; it is passed over.
    fn failed(&mut self, rel: &Path, error: io::Error) -> io::Result<()>;
}

/// How to walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Entries of a directory come in the order of their names, directories among them.
    pub sorted: bool,
    /// Directories that belong to this user are made accessible to it.
    pub make_accessible: bool,
}

struct Frame {
    name: CString,
    identity: Identity,
    todo: Vec<CString>,
}

/// A path split into an open parent directory and a name in it.
pub fn open_parent(path: &Path) -> io::Result<(OwnedFd, CString)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let parent = std::fs::File::open(parent)?;
    Ok((OwnedFd::from(parent), c_name(name)?))
}

/// A name as the system calls want it.
pub fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Walks the directory `name` in `parent`. With `expected`, fails unless it is that inode.
pub fn walk(
    parent: BorrowedFd<'_>,
    name: &CStr,
    expected: Option<Identity>,
    options: Options,
    visitor: &mut impl Visit,
) -> io::Result<()> {
    let mut rel = PathBuf::new();
    let mut current = open_directory(parent, name, options, false)?;
    let stat = fstat(&current)?;
    let identity = Identity::from_stat(&stat);
    if expected.is_some_and(|expected| expected != identity) {
        return Err(io::Error::other(
            "it is not the directory that was expected",
        ));
    }
    let at = At {
        dir: parent,
        name,
        rel: &rel,
    };
    visitor.enter(&at, &stat)?;
    let todo = scan(&current, &mut rel, options, visitor)?;
    let mut frames = vec![Frame {
        name: name.to_owned(),
        identity,
        todo,
    }];
    while let Some(frame) = frames.last_mut() {
        if let Some(child) = frame.todo.pop() {
            rel.push(OsStr::from_bytes(child.to_bytes()));
            if let Some((directory, frame)) = descend(&current, child, &mut rel, options, visitor)?
            {
                current = directory;
                frames.push(frame);
            } else {
                rel.pop();
            }
            continue;
        }
        let Some(done) = frames.pop() else { break };
        let Some(above) = frames.last() else {
            let at = At {
                dir: parent,
                name: &done.name,
                rel: &rel,
            };
            return visitor.leave(&at);
        };
        let up = openat(&current, c"..", DIRECTORY, Mode::empty())?;
        if Identity::from_stat(&fstat(&up)?) != above.identity {
            return Err(io::Error::other(format!(
                "`{}` was moved meanwhile",
                rel.display()
            )));
        }
        current = up;
        let at = At {
            dir: current.as_fd(),
            name: &done.name,
            rel: &rel,
        };
        visitor.leave(&at)?;
        rel.pop();
    }
    Ok(())
}

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Opens a child directory, or hands the entry to the visitor if it is none.
fn descend(
    current: &OwnedFd,
    child: CString,
    rel: &mut PathBuf,
    options: Options,
    visitor: &mut impl Visit,
) -> io::Result<Option<(OwnedFd, Frame)>> {
    let at = At {
        dir: current.as_fd(),
        name: &child,
        rel,
    };
    let stat = match at.stat() {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            visitor.failed(rel, error)?;
            return Ok(None);
        }
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        visitor.other(&at)?;
        return Ok(None);
    }
    let directory = match open_directory(current.as_fd(), &child, options, true) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(None),
        Err(error) => {
            let error = match error {
                Errno::EXDEV => io::Error::other("it is a mount point"),
                error => error.into(),
            };
            visitor.failed(rel, error)?;
            return Ok(None);
        }
    };
    let stat = fstat(&directory)?;
    visitor.enter(&at, &stat)?;
    let identity = Identity::from_stat(&stat);
    let todo = scan(&directory, rel, options, visitor)?;
    let frame = Frame {
        name: child,
        identity,
        todo,
    };
    Ok(Some((directory, frame)))
}

/// What is left to look at in a directory, last one first. Unsorted, only directories are left: everything else
/// goes to the visitor at once, so that a directory of a million files costs no memory.
fn scan(
    directory: &OwnedFd,
    rel: &mut PathBuf,
    options: Options,
    visitor: &mut impl Visit,
) -> io::Result<Vec<CString>> {
    let mut todo = Vec::new();
    let mut listing = match Dir::openat(directory, c".", DIRECTORY, Mode::empty()) {
        Ok(listing) => listing,
        Err(error) => {
            visitor.failed(rel, error.into())?;
            return Ok(todo);
        }
    };
    for entry in listing.iter() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                visitor.failed(rel, error.into())?;
                break;
            }
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let maybe_directory = matches!(entry.file_type(), None | Some(nix::dir::Type::Directory));
        if options.sorted || maybe_directory {
            todo.push(name.to_owned());
            continue;
        }
        rel.push(OsStr::from_bytes(name.to_bytes()));
        let at = At {
            dir: directory.as_fd(),
            name,
            rel,
        };
        visitor.other(&at)?;
        rel.pop();
    }
    if options.sorted {
        todo.sort_unstable_by(|a, b| b.cmp(a));
    }
    Ok(todo)
}

fn open_directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
    options: Options,
    same_mount: bool,
) -> Result<OwnedFd, Errno> {
    let open = || open_plain(parent, name, same_mount);
    let directory = match open() {
        Err(Errno::EACCES) if options.make_accessible => {
            make_accessible(parent, name)?;
            open()?
        }
        other => other?,
    };
    if options.make_accessible {
        let stat = fstat(&directory)?;
        if stat.st_mode & 0o700 != 0o700 && stat.st_uid == nix::unistd::geteuid().as_raw() {
            fchmod(&directory, Mode::from_bits_truncate(stat.st_mode | 0o700))?;
        }
    }
    Ok(directory)
}

fn open_plain(parent: BorrowedFd<'_>, name: &CStr, same_mount: bool) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    if same_mount {
        resolve |= ResolveFlag::RESOLVE_NO_XDEV;
    }
    match openat2(
        parent,
        name,
        OpenHow::new().flags(DIRECTORY).resolve(resolve),
    ) {
        // A kernel or a sandbox without the call: the device is compared instead.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
            if same_mount && fstat(&directory)?.st_dev != fstat(parent)?.st_dev {
                return Err(Errno::EXDEV);
            }
            Ok(directory)
        }
        other => other,
    }
}

/// Gives this user access to a directory of its own, without following a link that replaced it.
fn make_accessible(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let handle = openat(
        parent,
        name,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let stat = fstat(&handle)?;
    if stat.st_uid != nix::unistd::geteuid().as_raw() {
        return Err(Errno::EACCES);
    }
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(stat.st_mode & 0o7777 | 0o700);
    std::fs::set_permissions(path, mode)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EACCES)))
}
