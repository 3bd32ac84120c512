//! The build context as a tar stream: the same files give the same bytes, so that caches and hashes hold.

use crate::http::{Body, full};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tar::{Builder, EntryType, Header};
use terok_proto::{Fault, Kind};
use tokio::sync::mpsc;

const PIECE: usize = 64 << 10;

/// The files that a build sees.
#[derive(Clone, Debug)]
pub enum Context {
    /// Everything below a directory. Links stay links; sockets, pipes and devices are left out.
    Directory(PathBuf),
    /// A tar archive in memory.
    Tar(Bytes),
}

impl Context {
    /// A context of a few files that exist only in memory, with mode 0644, or 0755 where `true`.
    pub fn files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8], bool)>) -> Self {
        let mut tar = Builder::new(Vec::new());
        for (name, content, executable) in files {
            let mut header = header(EntryType::Regular, if executable { 0o755 } else { 0o644 });
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content)
                .expect("memory takes everything");
        }
        Self::Tar(tar.into_inner().expect("memory takes everything").into())
    }
}

/// Why a context could not be read to its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Fault>>>);

impl Trouble {
    pub(super) fn take(&self) -> Option<Fault> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take()
    }

    fn set(&self, fault: Fault) {
        *self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fault);
    }
}

/// The body of the request; a directory is read while it is sent.
pub(super) async fn body(context: Context, limit: u64) -> Result<(Body, Trouble), Fault> {
    let trouble = Trouble::default();
    let directory = match context {
        Context::Tar(bytes) => return Ok((full(bytes), trouble)),
        Context::Directory(directory) => directory,
    };
    let (sender, receiver) = mpsc::channel(4);
    let reader = trouble.clone();
    tokio::task::spawn_blocking(move || {
        let mut tar = Builder::new(Pieces {
            sender: sender.clone(),
            buffer: Vec::new(),
        });
        let mut room = limit;
        let packed = pack(&mut tar, &directory, Path::new(""), 0, &mut room).and_then(|()| {
            tar.into_inner()
                .and_then(|mut out| out.flush())
                .map_err(Failure::Gone)
        });
        if let Err(Failure::Read(fault)) = packed {
            reader.set(fault);
            let _ = sender.blocking_send(Err(io::Error::other("the context cannot be read")));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    Ok((StreamBody::new(pieces).boxed_unsync(), trouble))
}

enum Failure {
    /// A file cannot be read.
    Read(Fault),
    /// Nobody wants the archive any more.
    Gone(#[expect(dead_code, reason = "the receiver knows why it went")] io::Error),
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.buffer);
        if piece.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn pack<W: Write>(
    tar: &mut Builder<W>,
    root: &Path,
    below: &Path,
    depth: usize,
    room: &mut u64,
) -> Result<(), Failure> {
    let here = root.join(below);
    let read = |error: io::Error| Failure::Read(Fault::io("read", &here, &error));
    if depth > 100 {
        return Err(Failure::Read(Fault::new(
            Kind::StorageError,
            format!("`{}` is too deep for a build context", here.display()),
        )));
    }
    let mut names = fs::read_dir(&here)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(read)?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let full = root.join(&path);
        let read = |error: io::Error| Failure::Read(Fault::io("read", &full, &error));
        let meta = fs::symlink_metadata(&full).map_err(read)?;
        let kind = meta.file_type();
        let mode = meta.permissions().mode();
        if kind.is_dir() {
            let mut header = header(EntryType::Directory, mode);
            tar.append_data(&mut header, &path, io::empty())
                .map_err(Failure::Gone)?;
            pack(tar, root, &path, depth + 1, room)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(read)?;
            let mut header = header(EntryType::Symlink, 0o777);
            tar.append_link(&mut header, &path, target)
                .map_err(Failure::Gone)?;
        } else if kind.is_file() {
            file(tar, &full, &path, room)?;
        }
    }
    Ok(())
}

fn file<W: Write>(
    tar: &mut Builder<W>,
    full: &Path,
    path: &Path,
    room: &mut u64,
) -> Result<(), Failure> {
    let read = |error: io::Error| Failure::Read(Fault::io("read", full, &error));
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(full)
        .map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(read(io::Error::other("it was replaced meanwhile")));
    }
    *room = room.checked_sub(meta.len()).ok_or_else(|| {
        Failure::Read(Fault::new(
            Kind::StorageError,
            format!(
                "the build context is too large, counted up to `{}`",
                full.display()
            ),
        ))
    })?;
    let mut header = header(EntryType::Regular, meta.permissions().mode());
    header.set_size(meta.len());
    let mut exact = Exact {
        file,
        left: meta.len(),
        failed: None,
    };
    let appended = tar.append_data(&mut header, path, &mut exact);
    match (exact.failed, appended) {
        (Some(error), _) => Err(read(error)),
        (None, Err(error)) => Err(Failure::Gone(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// Exactly as many bytes as the header says, or an error: a file that shrinks would garble the archive.
struct Exact {
    file: File,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let failed = match self.file.read(&mut buffer[..room]) {
            Ok(0) => io::Error::other("it shrank while it was read"),
            Ok(count) => {
                self.left -= count as u64;
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        self.failed = Some(failed);
        Err(io::Error::other("the file cannot be read"))
    }
}

/// Reads a whole context, as tests compare it.
#[cfg(test)]
async fn collect(context: Context, limit: u64) -> Result<Bytes, Fault> {
    let (body, trouble) = body(context, limit).await?;
    match body.collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(error) => Err(trouble
            .take()
            .unwrap_or_else(|| crate::fault::nonsense("a context", error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn entries(tar: &[u8]) -> Vec<(String, EntryType, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let (path, kind) = (
                    entry.path().unwrap().display().to_string(),
                    entry.header().entry_type(),
                );
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (path, kind, content)
            })
            .collect()
    }

    #[tokio::test]
    async fn a_directory_is_packed_without_what_lies_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/big"), vec![7; 200_000]).unwrap();
        fs::write(root.join("a"), "hello").unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let first = collect(Context::Directory(root.to_owned()), u64::MAX)
            .await
            .unwrap();
        let found = entries(&first);
        let names: Vec<_> = found
            .iter()
            .map(|(path, kind, _)| (path.trim_end_matches('/'), *kind))
            .collect();
        assert_eq!(
            names,
            [
                ("a", EntryType::Regular),
                ("link", EntryType::Symlink),
                ("sub", EntryType::Directory),
                ("sub/big", EntryType::Regular)
            ]
        );
        assert_eq!(found[0].2, b"hello");
        assert_eq!(found[3].2.len(), 200_000);

        // Neither the clock nor the order on disk shows.
        File::open(root.join("a"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(
            collect(Context::Directory(root.to_owned()), u64::MAX)
                .await
                .unwrap(),
            first
        );
    }

    #[tokio::test]
    async fn what_cannot_be_packed_is_a_storage_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![0; 100]).unwrap();
        let error = collect(Context::Directory(dir.path().to_owned()), 99)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::StorageError);
        let error = collect(Context::Directory(dir.path().join("none")), 99)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::StorageError);
        let mut deep = dir.path().to_owned();
        for _ in 0..102 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        let error = collect(Context::Directory(dir.path().to_owned()), 1000)
            .await
            .unwrap_err();
        assert!(error.message.contains("too deep"), "{error}");
    }

    #[test]
    fn a_file_that_shrinks_does_not_garble_the_archive() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let mut exact = Exact {
            file,
            left: 20,
            failed: None,
        };
        let mut all = Vec::new();
        assert!(exact.read_to_end(&mut all).is_err());
        assert!(exact.failed.is_some());
    }

    #[test]
    fn files_in_memory_are_a_context() {
        let Context::Tar(tar) = Context::files([
            ("Dockerfile", b"FROM x".as_slice(), false),
            ("bin/run", b"#!", true),
        ]) else {
            panic!()
        };
        let mut archive = tar::Archive::new(&*tar);
        let modes: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().header().mode().unwrap())
            .collect();
        assert_eq!(modes, [0o644, 0o755]);
    }
}
