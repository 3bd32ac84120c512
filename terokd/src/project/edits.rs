//! Reading and writing `project.yml`: whole texts, and the one setting that has a method of its own.

use super::{Domain, blocking};
use crate::fs;
use crate::registry::Snapshot;
use std::io;
use std::path::Path;
use terok_config::id::ProjectId;
use terok_config::paths::Paths;
use terok_config::project::{self as files, Candidate, ConfigFault};
use terok_config::{edit, selection, yaml};
use terok_proto::config::{Problem, ProblemCode, Scope, Severity};
use terok_proto::error::printable_text;
use terok_proto::project::ProjectYaml;
use terok_proto::{Fault, Kind};

/// A file beyond this is no `project.yml` that anybody has read from us.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a `project.yml`, also of a broken project.
///
/// # Errors
/// There is no such project, or its file cannot be read as text.
pub async fn read_yaml(domain: &Domain, id: &ProjectId) -> Result<ProjectYaml, Fault> {
    let path = locate(domain, id)?.yml_path;
    blocking(move || files::read_yaml(&path)).await
}

/// Replaces the text of a `project.yml`; answers its path.
///
/// # Errors
/// The text is no valid project, or the file is not the one whose hash is `base_hash`.
pub async fn write_yaml(
    domain: &Domain,
    id: &ProjectId,
    text: &str,
    base_hash: Option<&str>,
) -> Result<String, Fault> {
    let candidate = locate(domain, id)?;
    let dir = dir_id(&candidate)?;
    let _lock = domain
        .registry
        .lock_write(std::slice::from_ref(&dir))
        .await?;
    // It may have gone while this call waited.
    let path = locate(domain, &dir)?.yml_path;
    let (snapshot, env) = (domain.registry.snapshot(), domain.env.clone());
    let (text, base_hash) = (text.to_owned(), base_hash.map(str::to_owned));
    let name = candidate.dir_name;
    // An id that differs from the directory's name is kept where it is, but not given anew. Of a file that nobody can
    // read, nobody knows which it was.
    let is_kept = snapshot.find(&dir).is_some_and(|entry| {
        files::stated_id(&text).is_some_and(|id| {
            let is_free = || ProjectId::parse(&id).is_ok_and(|id| snapshot.find(&id).is_none());
            entry.id() == id || entry.project().is_err() && is_free()
        })
    });
    let written = path.clone();
    blocking(move || {
        if let Some(base) = base_hash {
            let now = fs::read_limited(&written, MAX_BYTES)?;
            let now = files::sha256_hex(&now);
            if !now.eq_ignore_ascii_case(&base) {
                return Err(Fault::new(
                    Kind::EditConflict,
                    format!(
                        "`{}` was changed meanwhile; read it again and repeat the edit",
                        written.display()
                    ),
                )
                .with("path", written.to_string_lossy())
                .with("hash", now));
            }
        }
        let context = super::context(&snapshot, &env);
        let mut problems = files::check_text(&text, Scope::Project, Some(&name), context);
        let is_rename =
            |p: &&mut Problem| p.code == ProblemCode::Conflict && p.location == "project.id";
        if let Some(rename) = problems.iter_mut().find(is_rename).filter(|_| !is_kept) {
            rename.severity = Severity::Error;
        }
        refuse_errors(&written, problems)?;
        fs::replace(&written, text.as_bytes(), 0o644)
    })
    .await?;
    domain.registry.refresh(&dir).await;
    Ok(path.to_string_lossy().into_owned())
}

/// Fails if there is an error among the problems.
pub(super) fn refuse_errors(path: &Path, problems: Vec<Problem>) -> Result<(), Fault> {
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| match problem.location.as_str() {
            "" => problem.message.clone(),
            location => format!("{location}: {}", problem.message),
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the text is no valid project and was not written to `{}`: {}",
        path.display(),
        errors.join("; ")
    );
    Err(ConfigFault {
        path: path.to_string_lossy().into_owned(),
        text: printable_text(&text),
        problems,
    }
    .fault())
}

/// Writes the `project.yml` of a new project, draft or not; an existing one is left alone unless told otherwise.
/// Answers its path.
///
/// # Errors
/// The id cannot be given to a new project, or the directory cannot be made or written.
pub async fn write_new(
    domain: &Domain,
    id: &str,
    rendered: &str,
    overwrite: bool,
) -> Result<String, Fault> {
    let id = ProjectId::parse(id)?;
    // A draft may be wrong, but not of a size that nobody reads.
    if rendered.len() as u64 > yaml::MAX_BYTES {
        return Err(Fault::invalid_argument(format!(
            "the text has {} bytes; a project.yml may have {}",
            rendered.len(),
            yaml::MAX_BYTES
        )));
    }
    let _lock = domain
        .registry
        .lock_write(std::slice::from_ref(&id))
        .await?;
    // Another directory may claim the id since a moment ago.
    domain.registry.reload().await;
    let snapshot = domain.registry.snapshot();
    let dir = snapshot.paths.user_projects_dir.join(id.as_str());
    let path = dir.join("project.yml");
    let written = path.clone();
    let rendered = rendered.to_owned();
    let checked = id.clone();
    let is_written = blocking(move || {
        if written.exists() {
            if !overwrite {
                return Ok(false);
            }
        } else {
            ProjectId::parse_new(checked.as_str())?;
            check_id(&snapshot, &checked)?;
        }
        write_draft(&dir, &written, &rendered).map(|()| true)
    })
    .await?;
    if is_written {
        domain.registry.refresh(&id).await;
    }
    Ok(path.to_string_lossy().into_owned())
}

pub(super) fn exists(new: &ProjectId, at: &Path) -> Fault {
    Fault::new(
        Kind::AlreadyExists,
        format!("project `{new}` already exists at `{}`", at.display()),
    )
    .with("project_id", new.as_str())
    .with("path", at.to_string_lossy())
}

/// Fails if a project in a directory of another name has that id: with a second one both would be broken.
///
/// # Errors
/// `already_exists`
pub(super) fn check_id(snapshot: &Snapshot, new: &ProjectId) -> Result<(), Fault> {
    match snapshot.stated_elsewhere(new) {
        Some(entry) => Err(exists(new, entry.root())),
        None => Ok(()),
    }
}

fn write_draft(dir: &Path, path: &Path, text: &str) -> Result<(), Fault> {
    let made = !dir.exists();
    fs::create_dir_all_mode(dir, 0o755).map_err(|fault| ownership(dir, fault))?;
    let written = fs::replace(path, text.as_bytes(), 0o644);
    written.map_err(|fault| {
        if made {
            // An empty directory of our own making; if it is not empty, it is not ours alone.
            let _ = std::fs::remove_dir(dir);
        }
        ownership(dir, fault)
    })
}

/// Says who tried, and what may be wrong with the directory.
fn ownership(dir: &Path, fault: Fault) -> Fault {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    let denied =
        nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK).is_err() && existing.is_dir();
    let kind = if denied {
        Kind::PermissionDenied
    } else {
        Kind::StorageError
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    Fault::new(
        kind,
        format!("{}; the daemon runs as uid {uid}, gid {gid}", fault.message),
    )
    .with("path", dir.to_string_lossy())
    .with("uid", uid.as_raw())
    .with("gid", gid.as_raw())
    .hint(format!(
        "make `{}` a directory that uid {uid} owns and may write",
        existing.display()
    ))
}

/// Writes a selection of agents into a project's own file; answers its path.
///
/// # Errors
/// The selection names unknown agents, or the file cannot be parsed or has no mapping at its top.
pub async fn set_image_agents(
    domain: &Domain,
    id: &ProjectId,
    selection: &str,
) -> Result<String, Fault> {
    let candidate = locate(domain, id)?;
    let dir = dir_id(&candidate)?;
    let snapshot = domain.registry.snapshot();
    selection::check_text(selection, &snapshot.roster)?;
    let _lock = domain
        .registry
        .lock_write(std::slice::from_ref(&dir))
        .await?;
    // It may have gone while this call waited.
    let path = locate(domain, &dir)?.yml_path;
    let edited = path.clone();
    let selection = selection.to_owned();
    blocking(move || edit_agents(&edited, &selection)).await?;
    domain.registry.refresh(&dir).await;
    Ok(path.to_string_lossy().into_owned())
}

fn edit_agents(path: &Path, selection: &str) -> Result<(), Fault> {
    let text = files::read_yaml(path)?.text;
    let edited = edit::set_agents_text(&text, selection)
        .map_err(|fault| fault.with("path", path.to_string_lossy()))?;
    if edited.reemitted {
        tracing::info!(path = %path.display(), "a section was written anew, comments in it may have moved");
    }
    if edited.text == text {
        return Ok(());
    }
    fs::replace(path, edited.text.as_bytes(), 0o644)
}

/// Removes what a daemon that died while it wrote a `project.yml` left beside it.
pub(super) fn sweep(paths: &Paths) {
    for candidate in files::discover(paths) {
        crate::fs::sweep(&candidate.root);
        // Behind a link the write was there.
        if candidate.yml_path.is_symlink()
            && let Ok(target) = fs::final_target(&candidate.yml_path)
            && let Some(dir) = target.parent()
        {
            crate::fs::sweep(dir);
        }
    }
}

/// The files of a project that is on disk, healthy or not: by directory name, else by the id that a file states.
pub(super) fn locate(domain: &Domain, id: &ProjectId) -> Result<Candidate, Fault> {
    let snapshot = domain.registry.snapshot();
    let by_name = files::find(&snapshot.paths, id);
    by_name
        .or_else(|| {
            let entry = snapshot.find(id)?;
            files::find(&snapshot.paths, &ProjectId::parse(entry.dir_name()).ok()?)
        })
        .ok_or_else(|| files::not_found(&snapshot.paths, id))
}

/// The name of a project's directory, which its locks go by, whatever id its file states.
pub(super) fn dir_id(candidate: &Candidate) -> Result<ProjectId, Fault> {
    ProjectId::parse(&candidate.dir_name)
}

/// An `io::Error` about a path, permissions told apart.
pub(super) fn io_fault(action: &str, path: &Path, error: &io::Error) -> Fault {
    let mut fault = Fault::io(action, path, error);
    if error.kind() == io::ErrorKind::PermissionDenied {
        fault.kind = Kind::PermissionDenied;
    }
    fault
}
