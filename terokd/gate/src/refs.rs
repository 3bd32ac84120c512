//! The refs of a gate: what agents see, what upstream last had, what is kept.

use crate::crash::point;
use crate::leftover::Intents;
use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::lock::acquire::Fail;
use gix::refs::file::find::ReferenceDecode;
use gix::refs::file::transaction::PackedRefs;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use terok_proto::{Fault, Kind};

/// How long somebody else may hold one ref.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many new values go into one file instead of one file each.
const PACK_FROM: usize = 500;

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
    /// Full names of refs that name other refs.
    pub(crate) symbolic: BTreeSet<String>,
    /// Full names of refs whose files are torn.
    pub(crate) torn: BTreeSet<String>,
}

impl Refs {
    pub(crate) fn read(repository: &gix::Repository) -> Result<Self, Fault> {
        Self::read_store(&repository.refs)
    }

    /// The same without the repository around them.
    pub(crate) fn read_store(store: &gix::refs::file::Store) -> Result<Self, Fault> {
        let mut refs = Self::default();
        let dir = store.git_dir();
        let platform = store.iter().map_err(|error| unreadable(dir, &error))?;
        let all = platform.all().map_err(|error| unreadable(dir, &error))?;
        for reference in all {
            let reference = match reference {
                Ok(reference) => reference,
                Err(error) => {
                    // What is gone was removed while we looked.
                    if !error.is_not_found() {
                        let torn = torn(dir, &error).ok_or_else(|| unreadable(dir, &error))?;
                        refs.torn.insert(torn);
                    }
                    continue;
                }
            };
            let Ok(name) = reference.name.as_bstr().to_str() else {
                continue;
            };
            let Some(id) = reference.target.try_id().map(ToOwned::to_owned) else {
                refs.symbolic.insert(name.to_owned());
                continue;
            };
            let (map, short) = refs.place(name);
            map.insert(short, id);
        }
        Ok(refs)
    }

    /// Refuses to go on with a ref whose value is lost: what it was worth is for a human to say.
    pub(crate) fn whole(self, repository: &gix::Repository) -> Result<Self, Fault> {
        let Some(name) = self.torn.first() else {
            return Ok(self);
        };
        let dir = repository.git_dir();
        let (file, log) = (dir.join(name), dir.join("logs").join(name));
        Err(Fault::new(
            Kind::GateCorrupt,
            format!(
                "`{}` holds no commit id: put back the last one of `{}`, or remove the file if nothing of that ref is needed",
                file.display(),
                log.display()
            ),
        )
        .with("path", dir.to_string_lossy())
        .with("ref", name.as_str()))
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

    /// Removes the edits of these refs.
    pub(crate) fn without(mut self, names: &BTreeSet<String>) -> Self {
        self.0.retain(|edit| {
            !edit
                .name
                .as_bstr()
                .to_str()
                .is_ok_and(|name| names.contains(name))
        });
        self
    }

    /// Does it all in one transaction. Only where a file has to make room for a directory or the reverse, what is in the
    /// way goes before, with what keeps its value; heads are never among that.
    pub(crate) fn commit(self, repository: &gix::Repository) -> Result<(), CommitError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let _intents = Intents::write(repository.git_dir(), &self.0).map_err(CommitError::Fault)?;
        for phase in self.phases() {
            if !phase.is_empty() {
                transact(repository, phase)?;
            }
        }
        Ok(())
    }

    fn phases(self) -> [Vec<RefEdit>; 3] {
        let text = |edit: &RefEdit| edit.name.as_bstr().to_string();
        let sets: Vec<String> = self
            .0
            .iter()
            .filter(|edit| is_set(edit))
            .map(text)
            .collect();
        let sets = Names::new(sets.iter());
        let moved: BTreeSet<String> = self
            .0
            .iter()
            .map(text)
            .filter_map(|name| name.strip_prefix(UPSTREAM).map(str::to_owned))
            .filter(|branch| !sets.has_room(&format!("{UPSTREAM}{branch}")))
            .collect();
        let mut phases = [Vec::new(), Vec::new(), Vec::new()];
        for edit in self.0 {
            let name = edit.name.as_bstr().to_string();
            let in_the_way = !is_set(&edit) && !sets.has_room(&name);
            let keeps = name
                .strip_prefix(ATTIC)
                .is_some_and(|branch| moved.contains(branch));
            let phase = match (in_the_way, keeps) {
                (true, _) if name.starts_with(ATTIC) => 0,
                (true, _) | (_, true) => 1,
                _ => 2,
            };
            phases[phase].push(edit);
        }
        // Deletions last, so that what moves is never without a name.
        for phase in &mut phases {
            phase.sort_by_key(|edit| !is_set(edit));
        }
        phases
    }
}

fn is_set(edit: &RefEdit) -> bool {
    matches!(edit.change, Change::Update { .. })
}

fn transact(repository: &gix::Repository, edits: Vec<RefEdit>) -> Result<(), CommitError> {
    let time = format!("{} +0000", jiff::Timestamp::now().as_second());
    let committer = gix::actor::SignatureRef {
        name: "terokd".into(),
        email: "terokd@localhost".into(),
        time: &time,
    };
    let names: Vec<String> = edits
        .iter()
        .map(|edit| edit.name.as_bstr().to_string())
        .collect();
    let wait = Fail::AfterDurationWithBackoff(PATIENCE);
    let mut transaction = repository.refs.transaction();
    if edits.iter().filter(|edit| is_set(edit)).count() >= PACK_FROM {
        let find = Box::new(&repository.objects);
        transaction = transaction.packed_refs(
            PackedRefs::DeletionsAndNonSymbolicUpdatesRemoveLooseSourceReference(find),
        );
    }
    let done = transaction.prepare(edits, wait, wait).and_then(|prepared| {
        point("gate.refs.locked");
        prepared.commit(Some(committer))
    });
    done.map(drop)
        .map_err(|error| why_not(repository, &names, &error))
}

/// What a failed transaction failed at.
fn why_not(repository: &gix::Repository, names: &[String], error: &gix::Error) -> CommitError {
    use std::io::ErrorKind;
    let git_dir = repository.git_dir();
    let text = format!("{error:#}");
    let io = error
        .iter_errors()
        .find_map(|error| error.downcast_ref::<std::io::Error>());
    let storage = io.is_some_and(|io| {
        matches!(
            io.kind(),
            ErrorKind::StorageFull
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
                | ErrorKind::QuotaExceeded
        ) || io.raw_os_error() == Some(nix::libc::EIO)
    });
    if storage {
        return CommitError::Fault(
            Fault::new(
                Kind::StorageError,
                format!("cannot write the refs of `{}`: {text}", git_dir.display()),
            )
            .with("path", git_dir.to_string_lossy()),
        );
    }
    let named = error
        .metadata()
        .filter_map(|values| match values.get("reference") {
            Some(gix::error::MetadataValue::Bytes(name)) => name.to_str().ok().map(str::to_owned),
            _ => None,
        });
    let mut refs: BTreeMap<String, Option<String>> = named.map(|name| (name, None)).collect();
    for name in names {
        let lock = lock_of(git_dir, name);
        if lock.exists() {
            refs.insert(name.clone(), Some(held_by(&lock)));
        }
    }
    let packed = lock_of(git_dir, "packed-refs");
    let why = match refs.values().flatten().next() {
        Some(held) => held.clone(),
        None if packed.exists() => held_by(&packed),
        None => text,
    };
    CommitError::Moved { refs, why }
}

/// The lock file of a ref.
pub(crate) fn lock_of(git_dir: &Path, name: &str) -> PathBuf {
    git_dir.join(format!("{name}.lock"))
}

/// A lock that stays is a leftover of git's, which only a human can judge.
fn held_by(lock: &Path) -> String {
    const STALE: Duration = Duration::from_secs(600);
    let age = lock
        .symlink_metadata()
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|at| at.elapsed().ok());
    match age {
        Some(age) if age >= STALE => format!(
            "`{}` is there for {} minutes: if no git is at work there, remove it",
            lock.display(),
            age.as_secs() / 60
        ),
        _ => format!("somebody holds `{}`", lock.display()),
    }
}

/// Why refs were not changed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Somebody changed some of them meanwhile, or holds them; full names as far as they are known, and who holds them.
    Moved {
        refs: BTreeMap<String, Option<String>>,
        why: String,
    },
    Fault(Fault),
}

impl CommitError {
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Moved { why, .. } => Fault::new(
                Kind::GateBusy,
                format!("refs of the gate changed at the same moment; try again ({why})"),
            )
            .retry_after_ms(1_000),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<Fault> for CommitError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Names of one ref space, for the question whether another one fits beside them: `a` and `a/b` do not.
pub(crate) struct Names<'a> {
    names: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(names: impl Iterator<Item = &'a String>) -> Self {
        Self {
            names: names.map(String::as_str).collect(),
        }
    }

    pub(crate) fn has_room(&self, name: &str) -> bool {
        let inside = format!("{name}/");
        let below = self
            .names
            .range(inside.as_str()..)
            .next()
            .is_some_and(|other| other.starts_with(&inside));
        let above = name
            .match_indices('/')
            .any(|(at, _)| self.names.contains(&name[..at]));
        !below && !above
    }
}

/// The ref whose file cannot be read, if it is only that.
fn torn(git_dir: &Path, error: &gix::Error) -> Option<String> {
    if let Some(decode) = error.downcast_any_ref::<ReferenceDecode>() {
        return decode.relative_path.to_str().map(str::to_owned);
    }
    let path = error
        .metadata()
        .find_map(|values| match values.get("path") {
            Some(gix::error::MetadataValue::Path(path)) => Some(path.clone()),
            _ => None,
        })?;
    let name = path.strip_prefix(git_dir).ok()?.to_str()?.to_owned();
    Some(name)
}

fn full_name(name: &str) -> Result<FullName, Fault> {
    FullName::try_from(name.as_bytes().as_bstr())
        .map_err(|_| Fault::new(Kind::GitError, format!("`{name}` is no ref that git takes")))
}

fn unreadable(git_dir: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::new(
        Kind::GateCorrupt,
        format!(
            "the refs of `{}` cannot be read: {error}",
            git_dir.display()
        ),
    )
    .with("path", git_dir.to_string_lossy())
}
