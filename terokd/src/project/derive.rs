//! Deriving a sibling project: staged beside its place, then renamed into it, so that it is there whole or not at all.

use super::edits::{self, io_fault, refuse_errors};
use super::{Domain, blocking};
use crate::crash;
use crate::events::random_hex;
use crate::fs::remove::{remove_tree, rename_beside};
use crate::fs::tree::Identity;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use terok_config::edit;
use terok_config::id::ProjectId;
use terok_config::paths::Paths;
use terok_config::project::{self as files, Candidate, LoadedProject, ProjectLoad, Tier};
use terok_config::resolve::Context;
use terok_proto::config::Scope;
use terok_proto::project::Project;
use terok_proto::{Fault, Kind};

/// Files that are copied at most.
const MAX_COPIED: usize = 10_000;

/// What a derivation is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeriveOptions {
    /// Go on without SSH keys while the vault is locked.
    pub without_keys: bool,
    /// What else to copy: `presets`, `snippets`.
    pub copy: Vec<String>,
    /// Allow hiding a system project of the new id.
    pub shadow: bool,
}

/// Steps at which a derivation can be made to die, in order. The new project is there from `derive.renamed` on.
pub const DERIVE_CRASH_POINTS: &[&str] = &[
    "derive.staged",
    "derive.written",
    "derive.copied",
    "derive.renaming",
    "derive.renamed",
];

/// Makes a sibling of a project that shares its gate.
///
/// # Errors
/// The source is broken, the new id is taken or no id for a new project, or the vault is locked.
pub async fn derive(
    domain: &Domain,
    source: &ProjectId,
    new_id: &str,
    options: DeriveOptions,
) -> Result<Project, Fault> {
    let new = ProjectId::parse_new(new_id)?;
    check_copy(&options.copy)?;
    let snapshot = domain.registry.snapshot();
    crate::panic::refuse_while_panicked(&snapshot.paths, "deriving a project")?;
    let candidate = edits::locate(domain, source)?;
    if *source == new {
        return Err(edits::exists(
            &new,
            candidate.yml_path.parent().unwrap_or(&candidate.root),
        ));
    }
    // Locks go by directory, in the order of the ids, like everywhere.
    let registry = &domain.registry;
    let source = &edits::dir_id(&candidate)?;
    let ids = |id: &ProjectId| [id.clone()];
    let (_read, _write) = if *source < new {
        let read = registry.lock_read(&ids(source)).await?;
        (read, registry.lock_write(&ids(&new)).await?)
    } else {
        let write = registry.lock_write(&ids(&new)).await?;
        (registry.lock_read(&ids(source)).await?, write)
    };
    // Another directory may claim either id since a moment ago.
    registry.reload().await;
    let snapshot = registry.snapshot();
    let env = domain.env.clone();
    let target = new.clone();
    let scope = registry.project(source)?.project()?.id.clone();
    // Whatever can be refused is refused before the vault is touched: the keys of a project that is there are its own.
    let hides = check_place(&snapshot.paths, &new, options.shadow)?;
    edits::check_id(&snapshot, &new)?;
    // Assigned before the project is there, so that it is never seen without its keys; a project that does not come to
    // be gives them back.
    let keys = assign_keys(domain, &scope, &new, hides, &options).await?;
    let made = blocking(move || {
        let context = super::context(&snapshot, &env);
        make(&snapshot.paths, context, &candidate, &target, &options)
    })
    .await;
    domain.registry.refresh(&new).await;
    match (made, keys) {
        (Ok(mut project), Keys::Without(warning)) => {
            project.warnings.get_or_insert_default().push(warning);
            Ok(project)
        }
        // Beside the keys of a hidden project they stay: which were its own cannot be told any more.
        (Err(fault), Keys::Assigned(count)) if count > 0 && !hides => {
            if let Err(left) = domain.vault.unassign_all_or_later(new.as_str()).await {
                tracing::warn!(
                    project = new.as_str(),
                    "keys of a project that was not made: {left}"
                );
            }
            Err(fault)
        }
        (made, _) => made,
    }
}

/// What the new project gets of the source's keys.
enum Keys {
    Assigned(u64),
    /// None, and why.
    Without(String),
}

async fn assign_keys(
    domain: &Domain,
    source: &str,
    new: &ProjectId,
    hides: bool,
    options: &DeriveOptions,
) -> Result<Keys, Fault> {
    // Whatever an earlier project of that name had is not this one's; a project that is only hidden still needs it.
    let fresh = match domain.vault.keys(new.as_str()).await {
        Ok(keys) if keys.is_empty() || hides => Ok(()),
        Ok(_) => domain.vault.unassign_all(new.as_str()).await.map(|_| ()),
        Err(fault) => Err(fault),
    };
    let copied = match fresh {
        Ok(()) => domain.vault.copy_scope(source, new.as_str()).await,
        Err(fault) => Err(fault),
    };
    match copied {
        Ok(count) => Ok(Keys::Assigned(count)),
        // No key can be assigned to such a name.
        Err(fault) if fault.kind == Kind::InvalidScope => Ok(Keys::Assigned(0)),
        Err(fault) if options.without_keys => Ok(Keys::Without(format!(
            "no SSH key of `{source}` was assigned to the new project: {}",
            fault.message
        ))),
        Err(fault) => {
            let message = format!(
                "SSH keys of `{source}` cannot be assigned to the new project: {}",
                fault.message
            );
            Err(Fault { message, ..fault }.hint("pass `without_keys: true` to go on without them"))
        }
    }
}

fn check_copy(copy: &[String]) -> Result<(), Fault> {
    match copy
        .iter()
        .find(|what| *what != "presets" && *what != "snippets")
    {
        None => Ok(()),
        Some(what) => Err(Fault::invalid_argument(format!(
            "`copy` cannot name `{what}`; it takes `presets` and `snippets`"
        ))),
    }
}

/// Whether the new project may be made, and whether it will hide a system project.
fn check_place(paths: &Paths, new: &ProjectId, shadow: bool) -> Result<bool, Fault> {
    let target = paths.user_projects_dir.join(new.as_str());
    if target.symlink_metadata().is_ok() {
        return Err(edits::exists(new, &target));
    }
    let hidden = paths.system_projects_dir.join(new.as_str());
    let hides = hidden.join("project.yml").is_file();
    if hides && !shadow {
        return Err(
            edits::exists(new, &hidden).hint("pass `shadow: true` to hide the system project")
        );
    }
    Ok(hides)
}

/// Everything that touches the disk.
pub(super) fn make(
    paths: &Paths,
    context: Context<'_>,
    source: &Candidate,
    new: &ProjectId,
    options: &DeriveOptions,
) -> Result<Project, Fault> {
    let load = files::load_one(source, context);
    let loaded = load.usable()?;
    check_place(paths, new, options.shadow)?;
    let dir = &paths.user_projects_dir;
    let target = dir.join(new.as_str());
    let mut warnings = Vec::new();
    let yml = files::read_yaml(&load.yml_path)?;
    let derived = edit::derive_text(&yml.text, new.as_str(), &loaded.project.config.gate_path)?;
    if derived.reemitted {
        warnings.push("the file was written anew, comments in it may have moved".to_owned());
    }
    let problems = files::check_text(&derived.text, Scope::Project, Some(new.as_str()), context);
    refuse_errors(&target.join("project.yml"), problems)?;

    crate::fs::create_dir_all_mode(dir, 0o755)?;
    let stage = dir.join(format!(".{new}{DERIVING}{}", random_hex()));
    fs::create_dir(&stage).map_err(|error| io_fault("create", &stage, &error))?;
    let staged = fill(&stage, &load, loaded, &derived.text, options, &mut warnings)
        .and_then(|()| place(&stage, new, &target));
    if let Err(fault) = staged {
        // Whatever stays is removed at the next start.
        let _ = remove_tree(&stage, None);
        return Err(fault);
    }
    crash::point("derive.renamed");
    let candidate = Candidate {
        dir_name: new.as_str().to_owned(),
        root: fs::canonicalize(&target).unwrap_or_else(|_| target.clone()),
        yml_path: target.join("project.yml"),
        tier: Tier::User,
    };
    let mut project = files::load_one(&candidate, context)
        .usable()?
        .project
        .clone();
    let dropped: Vec<String> = derived
        .dropped
        .into_iter()
        .filter(|key| key != "agent")
        .collect();
    project.dropped = (!dropped.is_empty()).then_some(dropped);
    project.warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(project)
}

fn fill(
    stage: &Path,
    load: &ProjectLoad,
    loaded: &LoadedProject,
    text: &str,
    options: &DeriveOptions,
    warnings: &mut Vec<String>,
) -> Result<(), Fault> {
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(stage, mode(0o755)).map_err(|error| io_fault("set up", stage, &error))?;
    crash::point("derive.staged");
    crate::fs::create_new(&stage.join("project.yml"), text.as_bytes(), 0o644)?;
    crash::point("derive.written");
    let instructions = load.root.join("instructions.md");
    if instructions.is_file() {
        copy_file(&instructions, &stage.join("instructions.md"))?;
    }
    let wanted = |what: &str| options.copy.iter().any(|copy| copy == what);
    if wanted("presets") {
        copy_tree(&load.root.join("presets"), &stage.join("presets"), warnings)?;
    }
    if let Some(snippet) = own_snippet(load, loaded) {
        let source = load.root.join(&snippet);
        let target = stage.join(&snippet);
        if wanted("snippets") && source.is_file() && is_below(&snippet) {
            if let Some(parent) = target.parent() {
                crate::fs::create_dir_all_mode(parent, 0o755)?;
            }
            copy_file(&source, &target)?;
        }
        if !target.is_file() {
            warnings.push(format!(
                "the new project has no snippet file `{}`; copy it or pass `copy: [\"snippets\"]`",
                terok_proto::error::printable_line(&snippet.to_string_lossy())
            ));
        }
    }
    crate::fs::sync_dir(stage)?;
    crash::point("derive.copied");
    Ok(())
}

/// The relative snippet file that the source's own file names.
fn own_snippet(load: &ProjectLoad, loaded: &LoadedProject) -> Option<PathBuf> {
    let snippet = loaded.project.config.snippet_file.as_deref()?;
    let relative = !snippet.is_empty() && !snippet.starts_with(['/', '~']);
    (relative && *loaded.snippet_dir == *load.root).then(|| PathBuf::from(snippet))
}

fn is_below(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn place(stage: &Path, new: &ProjectId, target: &Path) -> Result<(), Fault> {
    let identity = Identity::of(stage).map_err(|error| io_fault("inspect", stage, &error))?;
    crash::point("derive.renaming");
    match rename_beside(stage, new.as_str().as_ref(), Some(identity)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(edits::exists(new, target))
        }
        other => other.map_err(|error| io_fault("create", target, &error)),
    }
}

/// Copies content, mode and time of modification.
fn copy_file(from: &Path, to: &Path) -> Result<(), Fault> {
    let copy = || -> io::Result<()> {
        let mut source = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(from)?;
        let meta = source.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut target = File::create_new(to)?;
        io::copy(&mut source, &mut target)?;
        target.set_permissions(fs::Permissions::from_mode(
            meta.permissions().mode() & 0o777,
        ))?;
        target.set_times(FileTimes::new().set_modified(meta.modified()?))?;
        target.sync_all()
    };
    copy().map_err(|error| io_fault("copy", from, &error))
}

/// Copies the regular files below a directory; links are named in a warning.
fn copy_tree(from: &Path, to: &Path, warnings: &mut Vec<String>) -> Result<(), Fault> {
    let mut todo = vec![PathBuf::new()];
    let mut copied = 0;
    while let Some(rel) = todo.pop() {
        let dir = from.join(&rel);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| io_fault("read", &dir, &error))?,
        };
        crate::fs::create_dir_all_mode(&to.join(&rel), 0o755)?;
        for entry in entries {
            let entry = entry.map_err(|error| io_fault("read", &dir, &error))?;
            let kind = entry
                .file_type()
                .map_err(|error| io_fault("read", &dir, &error))?;
            let rel = rel.join(entry.file_name());
            copied += 1;
            if copied > MAX_COPIED {
                return Err(Fault::new(
                    Kind::StorageError,
                    format!("`{}` holds more than {MAX_COPIED} files", from.display()),
                ));
            }
            if kind.is_dir() {
                todo.push(rel);
            } else if kind.is_file() {
                copy_file(&from.join(&rel), &to.join(&rel))?;
            } else {
                warnings.push(terok_proto::error::printable_line(&format!(
                    "`{}` is no regular file and was not copied",
                    from.join(&rel).display()
                )));
            }
        }
    }
    Ok(())
}

const DERIVING: &str = ".deriving-";

/// Removes what an interrupted derivation left.
pub(super) fn clean_derive_leftovers(paths: &Paths) {
    let Ok(entries) = fs::read_dir(&paths.user_projects_dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix('.')) else {
            continue;
        };
        let is_ours = name.split_once(DERIVING).is_some_and(|(id, rest)| {
            terok_config::id::is_valid(id)
                && rest.len() == 32
                && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_ours {
            let outcome = remove_tree(&entry.path(), None);
            tracing::info!(path = %entry.path().display(), ?outcome, "removed an unfinished derivation");
        }
    }
}
