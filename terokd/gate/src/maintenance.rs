//! Keeping a gate small: every fetch writes a pack of its own, every push a file per ref.

use crate::{Control, GateSpec, host_git};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Packs that a gate may have before they are put together.
const PACKS: usize = 50;
/// Loose objects in one of 256 directories, by which git too guesses how many there are: 6,700 in all.
const LOOSE: usize = 27;
/// Refs that may be files of their own.
const LOOSE_REFS: usize = 1000;
/// How long it may take.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often everything is packed anew.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Its age is the time since that was done.
const REPACKED: &str = "terok-repacked";

/// Puts packs, loose objects and refs together if there are too many; at low priority, while the gate is locked. Throws
/// nothing away: what no ref reaches may be on its way to one.
pub(crate) fn after_sync(spec: &GateSpec, control: &Control) {
    let gate = &spec.path;
    let objects = gate.join("objects");
    let packs = entries(&objects.join("pack"), ".pack");
    if loose_refs(&gate.join("refs"), LOOSE_REFS) > LOOSE_REFS {
        run(spec, &["pack-refs", "--all", "--prune"], control);
    }
    if weekly(gate, packs) {
        let done = run(
            spec,
            &["repack", "--quiet", "-a", "-d", "--keep-unreachable"],
            control,
        ) && run(spec, &["commit-graph", "write", "--reachable"], control);
        tracing::debug!(gate = %gate.display(), done, "packed anew");
    } else if packs > PACKS || entries(&objects.join("17"), "") > LOOSE {
        run(
            spec,
            &["repack", "--quiet", "-d", "--geometric=2", "--write-midx"],
            control,
        );
    }
}

fn run(spec: &GateSpec, arguments: &[&str], control: &Control) -> bool {
    let gate = &spec.path;
    let mut command = host_git::git(spec, arguments);
    command.env("GIT_DIR", gate);
    match host_git::run(&mut command, LONGEST, control) {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(gate = %gate.display(), why, ?arguments, "maintenance failed");
            false
        }
    }
}

/// The weeks of a gate count from now.
pub(crate) fn begin(gate: &Path) {
    if let Err(fault) = crate::layout::write(&gate.join(REPACKED), b"") {
        tracing::debug!(message = fault.message, "cannot note the repacking");
    }
}

/// Whether a week has passed; a gate that does not know begins to count.
fn weekly(gate: &Path, packs: usize) -> bool {
    let age = gate
        .join(REPACKED)
        .symlink_metadata()
        .and_then(|meta| meta.modified())
        .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    let due = age.as_ref().is_ok_and(|age| *age >= WEEK && packs > 1);
    if due || age.is_err() {
        // Noted even if it fails: it is tried again next week.
        begin(gate);
    }
    due
}

fn entries(dir: &Path, end: &str) -> usize {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(end))
        .count()
}

/// Files below a directory, counted no further than `enough`.
fn loose_refs(dir: &Path, enough: usize) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        count += match entry.file_type() {
            Ok(kind) if kind.is_dir() => loose_refs(&entry.path(), enough),
            _ => 1,
        };
        if count > enough {
            break;
        }
    }
    count
}
