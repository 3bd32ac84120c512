//! What has to be done once the vault opens: scopes whose keys are to be taken while nobody can write the database.

use crate::files;
use crate::settings::Settings;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use terok_proto::{Fault, Kind};

/// What became of a request to take all keys of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unassigned {
    /// So many assignments are gone.
    Done(u64),
    /// The vault is closed: it happens at the next unlock.
    Later,
}

/// The list of such scopes, in a file of the daemon's state.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    lock: Mutex<()>,
}

impl Pending {
    /// The scopes that wait.
    pub(crate) fn scopes(&self, settings: &Settings) -> Result<BTreeSet<String>, Fault> {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        load(&settings.pending_file())
    }

    /// Adds one.
    pub(crate) fn add(&self, settings: &Settings, scope: &str) -> Result<(), Fault> {
        self.change(settings.pending_file(), |scopes| {
            scopes.insert(scope.to_owned());
        })
    }

    /// Takes those away that are done.
    pub(crate) fn remove(&self, settings: &Settings, done: &BTreeSet<String>) -> Result<(), Fault> {
        self.change(settings.pending_file(), |scopes| {
            scopes.retain(|scope| !done.contains(scope));
        })
    }

    fn change(
        &self,
        path: PathBuf,
        change: impl FnOnce(&mut BTreeSet<String>),
    ) -> Result<(), Fault> {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scopes = load(&path)?;
        change(&mut scopes);
        if scopes.is_empty() {
            return files::remove(&path);
        }
        let text = serde_json::json!({ "unassign": scopes }).to_string();
        if text.len() as u64 > files::SMALL {
            // It could not be read again.
            return Err(Fault::new(
                Kind::StorageError,
                "too many scopes wait for the vault: unlock it",
            ));
        }
        files::replace(&path, text.as_bytes())
    }
}

fn load(path: &Path) -> Result<BTreeSet<String>, Fault> {
    #[derive(serde::Deserialize)]
    struct File {
        unassign: BTreeSet<String>,
    }
    let Some(bytes) = files::read(path)? else {
        return Ok(BTreeSet::new());
    };
    serde_json::from_slice::<File>(&bytes)
        .map(|file| file.unassign)
        .map_err(|e| {
            Fault::new(
                Kind::StorageError,
                format!("cannot read `{}`: {e}", path.display()),
            )
        })
}
