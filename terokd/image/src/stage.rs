//! Where build contexts are written: whole, or as they were.
//!
//! The only module that writes, below the directory it is given and nowhere else.

use crate::layers::{Context, File, L0_FILE, L1_FILE, L2_FILE};
use crate::manifest::{self, Manifest};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use terok_proto::Fault;

/// Subdirectory of the stage when the documented directory is a gatekeeping project's own.
const APART: &str = "image";

const STAGE_PREFIX: &str = ".terokd-stage-";

/// What the stage consists of; everything else in its directory is left alone.
const PARTS: [&str; 8] = [
    L0_FILE,
    L1_FILE,
    L2_FILE,
    "scripts",
    "toad-agents",
    "tmux",
    "help.d",
    "ca",
];

/// Places of one project's builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    dir: PathBuf,
    manifest: PathBuf,
}

impl Stage {
    /// The places below `build_dir`. Where the project's staging root is the same directory, the context keeps apart
    /// from it; the manifest stays where the reference looks for it.
    pub fn new(build_dir: &Path, project_id: &str, staging_root: Option<&Path>) -> Self {
        let own = build_dir.join(project_id);
        let same = staging_root.is_some_and(|root| {
            root == own
                || matches!((root.canonicalize(), own.canonicalize()), (Ok(a), Ok(b)) if a == b)
        });
        Self {
            manifest: own.join(manifest::FILE),
            dir: if same { own.join(APART) } else { own },
        }
    }

    /// Directory of the build context.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest's file.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// Whether all three Dockerfiles are there.
    pub fn has_dockerfiles(&self) -> bool {
        [L0_FILE, L1_FILE, L2_FILE]
            .iter()
            .all(|name| self.dir.join(name).is_file())
    }

    /// Whether a stored file differs from what would be written now.
    pub fn is_old(&self, context: &Context) -> bool {
        context.files().any(|(path, file)| {
            let stored = self.dir.join(path);
            // Length first: a file that somebody else put there may be huge, or no file at all.
            let fits = std::fs::metadata(&stored)
                .is_ok_and(|meta| meta.is_file() && meta.len() == file.text.len() as u64);
            !fits || !std::fs::read(&stored).is_ok_and(|bytes| bytes == file.text.as_bytes())
        })
    }

    /// Writes the build context and answers the files, sorted. Beside it first, then swapped part by part: each
    /// Dockerfile and each directory is the old or the new one, never a mixture, and what a part no longer holds goes.
    ///
    /// # Errors
    /// `storage_error` with the path; parts that were not swapped yet are as they were.
    pub fn write(&self, context: &Context) -> Result<Vec<PathBuf>, Fault> {
        create_dir(&self.dir)?;
        let temporary = temporary_beside(&self.dir)?;
        write_files(temporary.path(), context)?;
        let old = temporary.path().join(".old");
        create_dir(&old)?;
        for part in PARTS {
            swap(
                &temporary.path().join(part),
                &self.dir.join(part),
                &old.join(part),
            )?;
        }
        let mut written: Vec<PathBuf> = context
            .files()
            .map(|(path, _)| self.dir.join(path))
            .collect();
        written.sort();
        Ok(written)
    }

    /// Writes the manifest: all of it or none.
    ///
    /// # Errors
    /// `storage_error` with the path.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Fault> {
        let dir = self
            .manifest
            .parent()
            .expect("it is in the project's directory");
        create_dir(dir)?;
        let fail = |error: &io::Error| Fault::io("write", &self.manifest, error);
        let mut file = tempfile::Builder::new()
            .prefix(".build_manifest-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(dir)
            .map_err(|e| fail(&e))?;
        file.write_all(manifest.to_text().as_bytes())
            .map_err(|e| fail(&e))?;
        file.as_file().sync_all().map_err(|e| fail(&e))?;
        file.persist(&self.manifest).map_err(|e| fail(&e.error))?;
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| fail(&e))
    }
}

fn create_dir(path: &Path) -> Result<(), Fault> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|error| Fault::io("create", path, &error))
}

fn temporary_beside(dir: &Path) -> Result<tempfile::TempDir, Fault> {
    let parent = dir.parent().expect("a stage is below the build directory");
    tempfile::Builder::new()
        .prefix(STAGE_PREFIX)
        .tempdir_in(parent)
        .map_err(|error| Fault::io("create a directory in", parent, &error))
}

fn write_files(root: &Path, context: &Context) -> Result<(), Fault> {
    for (path, File { text, executable }) in context.files() {
        let path = root.join(path);
        create_dir(path.parent().expect("paths are relative to the root"))?;
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if *executable { 0o755 } else { 0o644 })
            .open(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_data()
            })
            .map_err(|error| Fault::io("write", &path, &error))?;
    }
    Ok(())
}

/// Puts `new` in the place of `place`, in one step where the file system can; what was there ends up below the
/// temporary directory. Without a `new` the place stays empty.
fn swap(new: &Path, place: &Path, aside: &Path) -> Result<(), Fault> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if exists(new) && exists(place) {
        let flags = RenameFlags::RENAME_EXCHANGE;
        if renameat2(AT_FDCWD, new, AT_FDCWD, place, flags).is_ok() {
            return Ok(());
        }
    }
    if exists(place) {
        std::fs::rename(place, aside).map_err(|error| Fault::io("replace", place, &error))?;
    }
    if exists(new) {
        std::fs::rename(new, place).map_err(|error| {
            // The old one rather than none.
            let _ = std::fs::rename(aside, place);
            Fault::io("write", place, &error)
        })?;
    }
    Ok(())
}

/// Removes what a killed daemon left unfinished. Only for a start, when nothing is being written.
pub fn sweep(build_dir: &Path) {
    let children = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    let ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(STAGE_PREFIX)
    };
    for dir in children(build_dir) {
        if ours(&dir) {
            let _ = std::fs::remove_dir_all(&dir);
            continue;
        }
        for dir in children(&dir).iter().filter(|dir| ours(dir)) {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
