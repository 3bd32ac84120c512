//! The journal of a deletion: one file from before its first step until its last.

use super::plan::Plan;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use terok_config::paths::Paths;
use terok_proto::Fault;

/// A journal is read that far; a longer file is not one.
const MAX_BYTES: u64 = 16 << 20;

/// How far a deletion got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing but the archive was written.
    Archiving,
    /// The project's directory may have been renamed; if it was, there is no way back.
    Removing,
    /// It was, and what could be put aside was.
    PutAside,
}

/// One deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Names the file and everything that is put aside.
    pub uuid: String,
    /// The operation that asked for it.
    pub operation_id: Option<String>,
    /// The project.
    pub project_id: String,
    /// In the name of the archive.
    pub timestamp: String,
    /// How far it got.
    pub phase: Phase,
    /// The archive, once it is complete.
    pub archive: Option<PathBuf>,
    /// Everything that goes and stays.
    pub plan: Plan,
}

fn dir(paths: &Paths) -> PathBuf {
    paths.terokd_dir.join("deletions")
}

impl Journal {
    fn path(&self, paths: &Paths) -> PathBuf {
        dir(paths).join(format!("{}.json", self.uuid))
    }

    /// Makes the present state durable.
    pub(super) fn write(&self, paths: &Paths) -> Result<(), Fault> {
        let dir = dir(paths);
        crate::fs::create_dir_private(&paths.terokd_dir)?;
        crate::fs::create_dir_private(&dir)?;
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Fault::internal(format!("cannot write a journal: {error}")))?;
        crate::fs::replace(&self.path(paths), &bytes, 0o600)
    }

    /// Ends the journal.
    pub(super) fn remove(&self, paths: &Paths) -> Result<(), Fault> {
        let path = self.path(paths);
        fs::remove_file(&path)
            .and_then(|()| fs::File::open(dir(paths))?.sync_all())
            .map_err(|error| Fault::io("remove", &path, &error))
    }
}

/// All journals that were left, and what is wrong with unreadable ones.
pub(super) fn left(paths: &Paths) -> (Vec<Journal>, Vec<String>) {
    let mut journals = Vec::new();
    let mut problems = Vec::new();
    let Ok(entries) = fs::read_dir(dir(paths)) else {
        return (journals, problems);
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(journal) => journals.push(journal),
            Err(error) => problems.push(format!("`{}`: {error}", path.display())),
        }
    }
    journals.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
    (journals, problems)
}

fn read(path: &Path) -> io::Result<Journal> {
    let bytes =
        crate::fs::read_limited(path, MAX_BYTES).map_err(|f| io::Error::other(f.message))?;
    let journal: Journal = serde_json::from_slice(&bytes)?;
    let named = path.file_stem().is_some_and(|stem| *stem == *journal.uuid);
    if !named {
        return Err(io::Error::other("its name is not that of its content"));
    }
    Ok(journal)
}

/// Removes what a daemon that died while it wrote here left.
pub(super) fn sweep(paths: &Paths) {
    crate::fs::sweep(&paths.terokd_dir);
    crate::fs::sweep(&dir(paths));
}

/// A name that nobody else uses.
pub(super) fn unique() -> String {
    let text = crate::events::random_hex();
    [0..8, 8..12, 12..16, 16..20, 20..32]
        .map(|range| text[range].to_owned())
        .join("-")
}
