//! Deleting a project as a transaction: planned, archived, put aside, removed; journaled all the way.
//!
//! Before the project's directory is renamed everything can be undone, and is; after that everything can be
//! finished, and is, by the next start if need be.

use super::archive::{self, Label};
use super::guard::Other;
use super::journal::{self, Journal, Phase};
use super::plan::{self, Action, Keys, OwnImages, Target};
use super::space;
use crate::crash;
use crate::fs::remove::{remove_tree, rename_beside};
use crate::fs::tree::Identity;
use crate::images::Dropped;
use std::io;
use std::path::{Path, PathBuf};
use terok_config::env::Environment;
use terok_config::paths::Paths;
use terok_config::project::{self as files, ProjectLoad};
use terok_config::resolve::Context;
use terok_proto::Fault;
use terok_proto::project::DeleteProjectResult;
use terok_vault::Unassigned;

/// What a deletion is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// Leave the project's images.
    pub keep_images: bool,
}

/// Steps at which a deletion can be made to die, in order. Up to `delete.committing` it is rolled back, from
/// `delete.renamed_config` on it is finished.
pub const CRASH_POINTS: &[&str] = &[
    "delete.planned",
    "delete.journal_written",
    "delete.archive_written",
    "delete.archive_verified",
    "delete.archived",
    "delete.committing",
    "delete.renamed_config",
    "delete.renamed_all",
    "delete.leftovers_recorded",
    "delete.removed_one",
    "delete.removed_all",
    "delete.result_recorded",
    "delete.journal_removed",
];

/// What a deletion reports on its way.
pub(super) trait Watch {
    /// Fails once somebody asked to stop.
    fn check(&mut self) -> Result<(), Fault>;
    /// The step that begins.
    fn phase(&mut self, phase: &'static str);
    /// The others outside the project's directories.
    fn ends(&mut self) -> &mut dyn Ends;
}

/// What has to be done outside the project's own directories, by a deletion and by the restart that finishes it.
pub(super) trait Ends {
    /// Takes all keys of a scope, now or once the vault opens. Can be repeated.
    fn drop_keys(&mut self, scope: &str) -> Result<Unassigned, Fault>;
    /// Removes the project's images. Can be repeated.
    fn drop_images(&mut self, project: &str) -> Result<Dropped, Fault>;
    /// Ends the tokens that open the project's gate; answers how many. Can be repeated.
    fn drop_tokens(&mut self, project: &str) -> Result<usize, Fault>;
    /// What will be answered, once all is done and before the journal goes.
    fn settled(&mut self, journal: &Journal, result: &DeleteProjectResult);
}

/// The project's own facts, from its files as they are now.
pub(super) fn target(load: &ProjectLoad) -> Result<Target, Fault> {
    let config = &load.usable()?.project.config;
    let entry = load.yml_path.parent().unwrap_or(&load.root);
    Ok(Target {
        id: config.id.clone(),
        entry: entry.to_owned(),
        root: load.root.to_path_buf(),
        tier: load.tier,
        tasks_root: PathBuf::from(&config.tasks_root),
        gate_path: PathBuf::from(&config.gate_path),
        staging_root: config.staging_root.as_ref().map(PathBuf::from),
    })
}

/// Every project but one, from the files as they are now, broken ones included.
pub(super) fn others(paths: &Paths, but: &str, context: Context<'_>) -> Vec<Other> {
    files::discover(paths)
        .iter()
        .filter(|candidate| candidate.dir_name != but)
        .map(|candidate| {
            let load = files::load_one(candidate, context);
            let env = context.env;
            Other::new(
                &load.dir_name,
                &load.id,
                &load.root,
                &load.claims,
                paths,
                env,
            )
        })
        .collect()
}

/// Everything a deletion needs to know before it starts.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Whose.
    pub target: Target,
    /// What will happen.
    pub journal: Journal,
}

/// Looks, decides, touches nothing.
pub(super) fn prepare(
    load: &ProjectLoad,
    paths: &Paths,
    env: &Environment,
    others: &[Other],
    images: OwnImages,
    keys: Keys,
    operation_id: Option<String>,
) -> Result<Prepared, Fault> {
    let target = target(load)?;
    let uuid = journal::unique();
    let plan = plan::make(&target, paths, env, others, keys, images, &uuid)?;
    let journal = Journal {
        uuid,
        operation_id,
        project_id: target.id.clone(),
        timestamp: archive::timestamp(jiff::Timestamp::now()),
        phase: Phase::Archiving,
        archive: None,
        plan,
    };
    crash::point("delete.planned");
    Ok(Prepared { target, journal })
}

/// Runs a prepared deletion to its end, or undoes it.
pub(super) fn run(
    prepared: Prepared,
    paths: &Paths,
    watch: &mut dyn Watch,
) -> Result<DeleteProjectResult, Fault> {
    let Prepared {
        target,
        mut journal,
    } = prepared;
    watch.check()?;
    let sources = plan::sources(&target, paths);
    let room = label(&journal, "");
    space::check(&paths.archive_dir, room, &sources, &mut || watch.check())?;
    journal.write(paths)?;
    crash::point("delete.journal_written");
    if let Err(fault) = until_committed(&target, &mut journal, paths, watch) {
        roll_back(&journal, paths);
        return Err(fault);
    }
    watch.phase("removing");
    finish(journal, paths, watch.ends())
}

/// Everything up to the rename from which there is no way back.
fn until_committed(
    target: &Target,
    journal: &mut Journal,
    paths: &Paths,
    watch: &mut dyn Watch,
) -> Result<(), Fault> {
    watch.phase("archiving");
    let now = jiff::Timestamp::now().to_string();
    let label = label(journal, &now);
    let sources = plan::sources(target, paths);
    let path = archive::write(&paths.archive_dir, label, &sources, &mut || watch.check())?;
    journal.archive = Some(path);
    journal.phase = Phase::Removing;
    crash::point("delete.archived");
    journal.write(paths)?;
    watch.check()?;
    crash::point("delete.committing");
    let (path, identity, aside) = config_step(journal)
        .ok_or_else(|| Fault::internal("the plan does not remove the project"))?;
    put_aside(path, identity, aside).map_err(|error| Fault::io("rename", path, &error))
}

fn label<'a>(journal: &'a Journal, time: &'a str) -> Label<'a> {
    Label {
        id: &journal.project_id,
        timestamp: &journal.timestamp,
        time,
    }
}

fn config_step(journal: &Journal) -> Option<(&Path, Identity, &Path)> {
    journal
        .plan
        .steps
        .iter()
        .find_map(|step| match &step.action {
            Action::Remove { identity, aside } if step.what == "config" => {
                Some((step.path.as_deref()?, *identity, aside.as_path()))
            }
            _ => None,
        })
}

fn put_aside(path: &Path, identity: Identity, aside: &Path) -> io::Result<()> {
    let name = aside.file_name().unwrap_or_default();
    rename_beside(path, name, Some(identity))
}

/// Leaves everything as it was. The project has not been touched yet.
fn roll_back(journal: &Journal, paths: &Paths) {
    archive::discard_partial(&paths.archive_dir, &journal.timestamp, &journal.project_id);
    let unrecorded = paths.archive_dir.join(format!(
        "{}_{}.tar.gz",
        journal.timestamp, journal.project_id
    ));
    let archive = journal.archive.as_deref().unwrap_or(&unrecorded);
    let removed = match std::fs::remove_file(archive) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::io("remove", archive, &error))
        }
        _ => journal.remove(paths),
    };
    if let Err(fault) = removed {
        tracing::warn!(
            project = journal.project_id,
            "a deletion was undone, but {fault}"
        );
    }
}

/// Everything after the point of no return; also what a restart does. Can be repeated.
pub(super) fn finish(
    mut journal: Journal,
    paths: &Paths,
    ends: &mut dyn Ends,
) -> Result<DeleteProjectResult, Fault> {
    crash::point("delete.renamed_config");
    // Once all is aside, whatever has one of the names is somebody else's.
    let still_there = journal.phase != Phase::PutAside;
    for step in journal.plan.steps.iter_mut().filter(|_| still_there) {
        let (Some(path), Action::Remove { identity, aside }) = (&step.path, &step.action) else {
            continue;
        };
        if Identity::of(aside).ok() == Some(*identity) || Identity::of(path).is_err() {
            continue;
        }
        if let Err(error) = put_aside(path, *identity, aside) {
            step.action = Action::Failed {
                reason: error.to_string(),
            };
        }
    }
    journal.phase = Phase::PutAside;
    journal.write(paths)?;
    crash::point("delete.renamed_all");
    if journal.plan.leftover_keys {
        match ends.drop_keys(&journal.project_id) {
            Ok(dropped) => journal.plan.keys_dropped(&journal.project_id, dropped),
            Err(fault) => journal.plan.warnings.push(fault.message),
        }
    }
    match ends.drop_tokens(&journal.project_id) {
        Ok(count) => journal.plan.tokens_dropped(count),
        Err(fault) => journal.plan.warnings.push(fault.message),
    }
    if journal.plan.leftover_images {
        match ends.drop_images(&journal.project_id) {
            Ok(dropped) => journal.plan.images_dropped(dropped),
            Err(fault) => journal.plan.images_dropped(Dropped {
                kept: vec![("of the project".to_owned(), fault.message)],
                ..Dropped::default()
            }),
        }
    }
    crash::point("delete.leftovers_recorded");
    let mut complete = true;
    for step in &journal.plan.steps {
        let Action::Remove { identity, aside } = &step.action else {
            continue;
        };
        let problem = match remove_tree(aside, Some(*identity)) {
            Ok(removal) if removal.is_complete() => None,
            Ok(removal) => Some(removal.describe()),
            Err(error) => Some(error.to_string()),
        };
        crash::point("delete.removed_one");
        if let Some(problem) = problem {
            complete = false;
            journal
                .plan
                .warnings
                .push(terok_proto::error::printable_line(&format!(
                    "`{}` could not be emptied, the next start tries again: {problem}",
                    aside.display()
                )));
        }
    }
    crash::point("delete.removed_all");
    let archive = journal.archive.as_ref();
    let archive = archive.map(|path| path.to_string_lossy().into_owned());
    let result = journal.plan.result(archive, false);
    if complete {
        ends.settled(&journal, &result);
        crash::point("delete.result_recorded");
        journal.remove(paths)?;
        crash::point("delete.journal_removed");
    }
    Ok(result)
}

/// What a restart makes of a journal.
#[derive(Debug)]
pub(super) enum Recovered {
    /// It was undone: the project is as it was.
    RolledBack,
    /// It was finished: the project is gone.
    Finished(Result<DeleteProjectResult, Fault>),
}

/// Ends what an earlier daemon began.
pub(super) fn recover(journal: Journal, paths: &Paths, ends: &mut dyn Ends) -> Recovered {
    let is_aside =
        |(_, identity, aside): (&Path, Identity, &Path)| Identity::of(aside).ok() == Some(identity);
    let renamed = match journal.phase {
        Phase::Archiving => false,
        Phase::Removing => config_step(&journal).is_some_and(is_aside),
        Phase::PutAside => true,
    };
    if renamed {
        Recovered::Finished(finish(journal, paths, ends))
    } else {
        roll_back(&journal, paths);
        Recovered::RolledBack
    }
}
