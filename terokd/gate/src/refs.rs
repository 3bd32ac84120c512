//! The refs of a gate: what agents see, what upstream last had, what is kept.

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};
use std::collections::BTreeMap;
use terok_proto::{Fault, Kind};

pub(crate) const HEADS: &str = "refs/heads/";
pub(crate) const TAGS: &str = "refs/tags/";
/// Last fetched upstream heads.
pub(crate) const UPSTREAM: &str = "refs/terok/upstream/";
/// Upstream's tip before a branch went pending; the first one stays until that is resolved.
pub(crate) const ATTIC: &str = "refs/terok/attic/";
/// Old tips: `refs/terok/backup/<branch>/<stamp>-<12 hex>`; the reason is the message of the ref's first log entry.
pub(crate) const BACKUP: &str = "refs/terok/backup/";

/// All refs of a gate at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refs {
    pub(crate) heads: BTreeMap<String, ObjectId>,
    pub(crate) tags: BTreeMap<String, ObjectId>,
    pub(crate) upstream: BTreeMap<String, ObjectId>,
    pub(crate) attic: BTreeMap<String, ObjectId>,
    pub(crate) backups: BTreeMap<String, ObjectId>,
    /// Full names of everything else.
    pub(crate) foreign: BTreeMap<String, ObjectId>,
}

impl Refs {
    pub(crate) fn read(repository: &gix::Repository) -> Result<Self, Fault> {
        let mut refs = Self::default();
        let platform = repository
            .references()
            .map_err(|error| unreadable(repository, &error))?;
        let all = platform
            .all()
            .map_err(|error| unreadable(repository, &error))?;
        for reference in all {
            // A ref whose file is torn is nobody's branch.
            let Ok(reference) = reference else { continue };
            let Some(id) = reference.target().try_id().map(ToOwned::to_owned) else {
                continue;
            };
            let Ok(name) = reference.name().as_bstr().to_str() else {
                continue;
            };
            let (map, short) = refs.place(name);
            map.insert(short, id);
        }
        Ok(refs)
    }

    fn place(&mut self, name: &str) -> (&mut BTreeMap<String, ObjectId>, String) {
        let spaces = [
            (HEADS, &mut self.heads),
            (TAGS, &mut self.tags),
            (UPSTREAM, &mut self.upstream),
            (ATTIC, &mut self.attic),
            (BACKUP, &mut self.backups),
        ];
        for (prefix, map) in spaces {
            if let Some(short) = name.strip_prefix(prefix) {
                return (map, short.to_owned());
            }
        }
        (&mut self.foreign, name.to_owned())
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<RefEdit>);

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a ref that is at `old`, or is not there. A name that git does not take is refused.
    pub(crate) fn set(
        &mut self,
        name: &str,
        old: Option<ObjectId>,
        new: ObjectId,
        message: &str,
    ) -> Result<(), Fault> {
        let expected = old.map_or(PreviousValue::MustNotExist, |old| {
            PreviousValue::MustExistAndMatch(Target::Object(old))
        });
        self.push(
            name,
            Change::Update {
                log: LogChange {
                    mode: RefLog::AndReference,
                    force_create_reflog: true,
                    message: message.into(),
                },
                expected,
                new: Target::Object(new),
            },
        )
    }

    /// Removes a ref that is at `old`.
    pub(crate) fn delete(&mut self, name: &str, old: ObjectId) -> Result<(), Fault> {
        self.push(
            name,
            Change::Delete {
                expected: PreviousValue::MustExistAndMatch(Target::Object(old)),
                log: RefLog::AndReference,
            },
        )
    }

    /// Points `HEAD` at a branch.
    pub(crate) fn point_head(&mut self, branch: &str) -> Result<(), Fault> {
        let target = full_name(branch)?;
        self.push(
            "HEAD",
            Change::Update {
                log: LogChange {
                    mode: RefLog::AndReference,
                    force_create_reflog: false,
                    message: "terok: follow upstream".into(),
                },
                expected: PreviousValue::Any,
                new: Target::Symbolic(target),
            },
        )
    }

    fn push(&mut self, name: &str, change: Change) -> Result<(), Fault> {
        self.0.push(RefEdit {
            change,
            name: full_name(name)?,
            deref: false,
        });
        Ok(())
    }

    /// Does it all.
    pub(crate) fn commit(self, repository: &gix::Repository) -> Result<(), CommitError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let time = format!("{} +0000", jiff::Timestamp::now().as_second());
        let committer = gix::actor::SignatureRef {
            name: "terokd".into(),
            email: "terokd@localhost".into(),
            time: &time,
        };
        let (mut deletes, mut updates) = (Vec::new(), Vec::new());
        for edit in self.0 {
            match edit.change {
                Change::Delete { .. } => deletes.push(edit),
                Change::Update { .. } => updates.push(edit),
            }
        }
        updates.extend(deletes);
        match repository.edit_references_as(updates, Some(committer)) {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("{error:#}");
                let storage = [
                    "No space left",
                    "Read-only file system",
                    "Permission denied",
                ];
                if storage.iter().any(|word| text.contains(word)) {
                    return Err(CommitError::Fault(
                        Fault::new(
                            Kind::StorageError,
                            format!(
                                "cannot write the refs of `{}`: {text}",
                                repository.git_dir().display()
                            ),
                        )
                        .with("path", repository.git_dir().to_string_lossy()),
                    ));
                }
                Err(CommitError::Moved(text))
            }
        }
    }
}

/// Why refs were not changed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Somebody changed one of them meanwhile, or holds it.
    Moved(String),
    Fault(Fault),
}

impl CommitError {
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Moved(text) => Fault::new(
                Kind::GateBusy,
                format!("refs of the gate changed at the same moment; try again ({text})"),
            ),
            Self::Fault(fault) => fault,
        }
    }
}

fn full_name(name: &str) -> Result<FullName, Fault> {
    FullName::try_from(name.as_bytes().as_bstr())
        .map_err(|_| Fault::new(Kind::GitError, format!("`{name}` is no ref that git takes")))
}

fn unreadable(repository: &gix::Repository, error: &dyn std::fmt::Display) -> Fault {
    Fault::new(
        Kind::GateCorrupt,
        format!(
            "the refs of `{}` cannot be read: {error}",
            repository.git_dir().display()
        ),
    )
    .with("path", repository.git_dir().to_string_lossy())
}
