//! Heads that were replaced and are kept.
//!
//! `refs/terok/backup/<branch>/<YYYYMMDDTHHMMSSZ>-<first 12 hex digits of the old tip>`. Why it was made is the message
//! of the ref's first log entry, `terok: <reason>`; logs of a gate never expire.

use crate::refs::{BACKUP, CommitError, Edits, HEADS, Names, Refs};
use crate::{Control, GateSpec, layout, lock};
use gix::ObjectId;
use gix::bstr::ByteSlice;
use jiff::Timestamp;
use terok_proto::gate::{BackupReason, GateBackup, MovedBranch, PrunedBackups};
use terok_proto::{Fault, Kind};

/// Where the old tip of a branch is kept; a name that is not taken yet.
pub(crate) fn name_for(refs: &Refs, branch: &str, old: ObjectId) -> String {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let short = format!("{branch}/{stamp}-{}", old.to_hex_with_len(12));
    // The same tip within the same second is the same backup, unless it is a collision of hashes.
    if refs.backups.get(&short).is_none_or(|id| *id == old) {
        format!("{BACKUP}{short}")
    } else {
        format!("{BACKUP}{branch}/{stamp}-{old}")
    }
}

/// Adds a backup of `old` to the edits; answers its name.
pub(crate) fn keep(
    edits: &mut Edits,
    refs: &Refs,
    branch: &str,
    old: ObjectId,
    reason: BackupReason,
) -> Result<String, Fault> {
    let name = name_for(refs, branch, old);
    let short = name.trim_start_matches(BACKUP);
    if !Names::new(refs.backups.keys()).has_room(short) {
        return Err(Fault::new(
            Kind::GitError,
            format!(
                "there is no room for a backup of `{branch}`: another backup's name is in the way of `{name}`"
            ),
        ));
    }
    if !refs.backups.contains_key(short) {
        edits.set(&name, None, old, &format!("terok: {}", word(reason)))?;
    }
    Ok(name)
}

fn word(reason: BackupReason) -> &'static str {
    match reason {
        BackupReason::Sync => "sync",
        BackupReason::AgentPush => "agent_push",
        BackupReason::Restore => "restore",
        BackupReason::Promote => "promote",
        BackupReason::Unknown => "unknown",
    }
}

/// Backups of a gate, newest first.
///
/// # Errors
/// There is no gate, or it cannot be read.
pub fn backups(spec: &GateSpec) -> Result<Vec<GateBackup>, Fault> {
    let repository = layout::open(&spec.path)?;
    let refs = Refs::read(&repository)?;
    let mut all: Vec<GateBackup> = refs
        .backups
        .iter()
        .filter_map(|(short, id)| {
            let (branch, at) = parse(short)?;
            let reference = format!("{BACKUP}{short}");
            Some(GateBackup {
                reason: reason_of(&repository, &reference),
                reference,
                branch: branch.to_owned(),
                commit: id.to_string(),
                at: at.to_string(),
            })
        })
        .collect();
    all.sort_by(|a, b| (&b.at, &b.reference).cmp(&(&a.at, &a.reference)));
    Ok(all)
}

/// Branch and moment of a backup's name.
fn parse(short: &str) -> Option<(&str, Timestamp)> {
    let (branch, last) = short.rsplit_once('/')?;
    let (stamp, _) = last.split_once('-')?;
    let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((branch, at.timestamp()))
}

fn reason_of(repository: &gix::Repository, reference: &str) -> BackupReason {
    let read = || -> Option<BackupReason> {
        let reference = repository.try_find_reference(reference).ok()??;
        let mut platform = reference.log_iter();
        let mut lines = platform.all().ok()??;
        let first = lines.next()?.ok()?;
        let message = first.message.to_str().ok()?;
        let reasons = [
            BackupReason::Sync,
            BackupReason::AgentPush,
            BackupReason::Restore,
            BackupReason::Promote,
        ];
        let said = message.trim().strip_prefix("terok: ")?;
        reasons.into_iter().find(|reason| word(*reason) == said)
    };
    read().unwrap_or(BackupReason::Unknown)
}

/// Moves a branch to a kept head; the present one is kept too.
///
/// # Errors
/// There is no such backup, or the gate cannot be written.
pub fn restore_backup(
    spec: &GateSpec,
    reference: &str,
    control: &Control,
) -> Result<MovedBranch, Fault> {
    layout::must_exist(spec)?;
    let _lock = lock::lock(spec, control)?;
    let repository = layout::open(&spec.path)?;
    let unknown = || {
        Fault::new(
            Kind::BackupNotFound,
            format!("the gate has no backup `{reference}`"),
        )
        .with("ref", reference)
        .hint("`project.gate.backups` lists them")
    };
    // A push may move the branch between the look and the change.
    for attempt in 0.. {
        let refs = Refs::read(&repository)?;
        let short = reference.strip_prefix(BACKUP).ok_or_else(unknown)?;
        let new = *refs.backups.get(short).ok_or_else(unknown)?;
        let (branch, _) = parse(short).ok_or_else(unknown)?;
        let old = refs.heads.get(branch).copied();
        if !Names::new(refs.heads.keys()).has_room(branch) {
            return Err(Fault::invalid_argument(format!(
                "`{branch}` cannot come back while the gate has a branch whose name is in its way; remove that one first"
            )));
        }
        let mut edits = Edits::default();
        let mut backup_ref = None;
        if old != Some(new) {
            if let Some(old) = old {
                backup_ref = Some(keep(&mut edits, &refs, branch, old, BackupReason::Restore)?);
            }
            edits.set(&format!("{HEADS}{branch}"), old, new, "terok: restore")?;
        }
        crate::crash::point("gate.restore.ready");
        match edits.commit(&repository) {
            Ok(()) => {
                crate::crash::point("gate.restore.done");
                return Ok(MovedBranch {
                    branch: branch.to_owned(),
                    old: old.map(|id| id.to_string()),
                    new: Some(new.to_string()),
                    backup_ref,
                });
            }
            Err(error) if attempt >= 2 => return Err(error.into_fault()),
            Err(CommitError::Moved { .. }) => {}
            Err(error) => return Err(error.into_fault()),
        }
    }
    Err(unknown())
}

/// Removes backups that are older than so many days.
///
/// # Errors
/// There is no gate, or it cannot be written.
pub fn prune_backups(
    spec: &GateSpec,
    older_than_days: u64,
    control: &Control,
) -> Result<PrunedBackups, Fault> {
    layout::must_exist(spec)?;
    let _lock = lock::lock(spec, control)?;
    let repository = layout::open(&spec.path)?;
    prune(&repository, &Refs::read(&repository)?, older_than_days)
}

pub(crate) fn prune(
    repository: &gix::Repository,
    refs: &Refs,
    older_than_days: u64,
) -> Result<PrunedBackups, Fault> {
    let days = i64::try_from(older_than_days)
        .unwrap_or(i64::MAX)
        .min(1_000_000);
    let limit = Timestamp::now()
        .checked_sub(jiff::SignedDuration::from_hours(days * 24))
        .unwrap_or(Timestamp::MIN);
    let mut edits = Edits::default();
    let mut pruned = Vec::new();
    for (short, id) in &refs.backups {
        if parse(short).is_some_and(|(_, at)| at <= limit) {
            let name = format!("{BACKUP}{short}");
            edits.delete(&name, *id)?;
            pruned.push(name);
        }
    }
    edits.commit(repository).map_err(CommitError::into_fault)?;
    Ok(PrunedBackups { pruned })
}
