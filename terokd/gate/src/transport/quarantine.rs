//! Where arriving objects stay until all of them are there.
//!
//! A directory beside the packs, seen by nobody else. What is in it becomes part of the repository by renames, or
//! disappears. One that a killed daemon left is removed by a later fetch, or by git's own pruning.

use crate::TransportError;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// git prunes leftovers of this prefix by itself.
const PREFIX: &str = "tmp_objdir-terok-";
/// No transfer lasts this long.
const ABANDONED: Duration = Duration::from_secs(7 * 3600);

pub(super) struct Quarantine {
    objects: PathBuf,
    dir: tempfile::TempDir,
}

impl Quarantine {
    /// An empty one in the repository.
    pub(super) fn new(repository: &Path) -> Result<Self, TransportError> {
        let objects = repository.join("objects");
        sweep(&objects);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&objects)
            .map_err(|error| storage("make a directory in", &objects, &error))?;
        let pack = dir.path().join("pack");
        fs::create_dir(&pack).map_err(|error| storage("make", &pack, &error))?;
        Ok(Self { objects, dir })
    }

    /// What git calls an object directory.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where packs arrive.
    pub(super) fn packs(&self) -> PathBuf {
        self.dir.path().join("pack")
    }

    /// Lets git and gix see the repository's objects beside the new ones.
    pub(super) fn see_repository(&self) -> Result<(), TransportError> {
        let info = self.dir.path().join("info");
        let file = info.join("alternates");
        let objects = fs::canonicalize(&self.objects)
            .map_err(|error| storage("find", &self.objects, &error))?;
        let mut line = objects.into_os_string();
        line.push("\n");
        fs::create_dir_all(&info)
            .and_then(|()| fs::write(&file, line.as_encoded_bytes()))
            .map_err(|error| storage("write", &file, &error))
    }

    /// The indices of the packs that arrived.
    pub(super) fn indices(&self) -> Result<Vec<PathBuf>, TransportError> {
        let mut arrived = self.arrived()?;
        arrived.retain(|path| path.extension().is_some_and(|ext| ext == "idx"));
        Ok(arrived)
    }

    /// Objects in the packs that arrived, by their headers.
    pub(super) fn objects(&self) -> Result<u64, TransportError> {
        let mut count = 0;
        for path in self.arrived()? {
            if path.extension().is_some_and(|ext| ext == "pack") {
                let mut header = [0; 12];
                File::open(&path)
                    .and_then(|mut file| file.read_exact(&mut header))
                    .map_err(|error| storage("read", &path, &error))?;
                count += u64::from(u32::from_be_bytes([
                    header[8], header[9], header[10], header[11],
                ]));
            }
        }
        Ok(count)
    }

    /// Size of the packs that arrived.
    pub(super) fn bytes(&self) -> Result<u64, TransportError> {
        let mut sum = 0;
        for path in self.arrived()? {
            if path.extension().is_some_and(|ext| ext == "pack") {
                sum += path
                    .metadata()
                    .map_err(|error| storage("read", &path, &error))?
                    .len();
            }
        }
        Ok(sum)
    }

    /// Makes what arrived part of the repository, durably: data first, then names, indices last, because git knows a
    /// pack by its index.
    pub(super) fn admit(self) -> Result<(), TransportError> {
        let packs = self.objects.join("pack");
        fs::create_dir_all(&packs).map_err(|error| storage("make", &packs, &error))?;
        let mut arrived = self.arrived()?;
        arrived.retain(|path| path.extension().is_some_and(|ext| ext != "keep"));
        arrived.sort_by_key(|path| path.extension().is_some_and(|ext| ext == "idx"));
        for path in &arrived {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(|error| storage("sync", path, &error))?;
        }
        for path in &arrived {
            let name = path.file_name().expect("read from a directory");
            let target = packs.join(name);
            // Packs are named after their content: the one that is there is the same.
            if target.exists() {
                continue;
            }
            fs::rename(path, &target).map_err(|error| storage("move to", &target, &error))?;
        }
        if !arrived.is_empty() {
            File::open(&packs)
                .and_then(|dir| dir.sync_all())
                .map_err(|error| storage("sync", &packs, &error))?;
        }
        Ok(())
    }

    fn arrived(&self) -> Result<Vec<PathBuf>, TransportError> {
        let packs = self.packs();
        let failed = |error| storage("read", &packs, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&packs).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("pack-"))
            {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// Removes what killed fetches left long ago. Failing is harmless: it is tried again next time.
fn sweep(objects: &Path) {
    let Ok(entries) = fs::read_dir(objects) else {
        return;
    };
    for entry in entries.flatten() {
        let abandoned = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry
                .metadata()
                .and_then(|meta| meta.modified())
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok())
                .is_some_and(|age| age > ABANDONED);
        if abandoned && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "leftover of a fetch");
        }
    }
}

fn storage(action: &str, path: &Path, error: &std::io::Error) -> TransportError {
    let hint = if error.kind() == ErrorKind::NotFound {
        "; is this a git repository?"
    } else {
        ""
    };
    TransportError::storage(&format!(
        "cannot {action} {}: {error}{hint}",
        path.display()
    ))
}
