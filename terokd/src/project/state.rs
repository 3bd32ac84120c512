//! What is known about a project's infrastructure at this moment.

use super::{Domain, NO_PODMAN, blocking};
use std::path::{Path, PathBuf};
use terok_config::id::ProjectId;
use terok_proto::Fault;
use terok_proto::error::printable_line;
use terok_proto::project::{CommitInfo, ProjectState};

/// The rendered Dockerfiles of a project.
const DOCKERFILES: [&str; 3] = ["L0.Dockerfile", "L1.cli.Dockerfile", "L2.Dockerfile"];

/// A commit larger than this is not looked at.
const MAX_COMMIT: u64 = 1 << 20;

/// Which parts of the infrastructure exist (`projects.md` §10). Needs neither Podman nor the vault.
///
/// # Errors
/// There is no such project, or it is broken.
pub async fn state(
    domain: &Domain,
    id: &ProjectId,
    gate_commit: bool,
) -> Result<ProjectState, Fault> {
    let entry = domain.registry.project(id)?;
    let config = entry.project()?.config.clone();
    let paths = domain.registry.snapshot().paths.clone();
    blocking(move || {
        let build = paths.build_dir.join(&config.id);
        let vault = paths.vault_dir.join("credentials.db");
        let vault_locked = vault.symlink_metadata().is_ok();
        let gate = PathBuf::from(&config.gate_path);
        let has_gate = gate.is_dir();
        let branch = config.default_branch.as_deref();
        let mut warnings = vec![format!("images are unknown: {NO_PODMAN}")];
        if vault_locked {
            warnings.push("SSH keys are unknown: the vault is locked".to_owned());
        }
        let dockerfiles = DOCKERFILES.iter().all(|name| build.join(name).is_file());
        if dockerfiles {
            warnings.push(
                "whether the Dockerfiles are old is unknown: this version does not render them"
                    .to_owned(),
            );
        }
        Ok(ProjectState {
            dockerfiles,
            dockerfiles_old: false,
            images: false,
            images_old: false,
            stale_layers: Vec::new(),
            ssh: (!vault_locked).then_some(false),
            vault_locked,
            gate: has_gate,
            gate_last_commit: (gate_commit && has_gate)
                .then(|| last_commit(&gate, branch))
                .flatten(),
            warnings,
        })
    })
    .await
}

/// The last commit of the default branch, else of HEAD. Whatever is wrong with the repository means none.
fn last_commit(gate: &Path, branch: Option<&str>) -> Option<CommitInfo> {
    let read = || -> Option<CommitInfo> {
        let options = gix::open::Options::isolated().open_path_as_is(true);
        let repository = gix::open_opts(gate, options).ok()?;
        let by_branch = branch.and_then(|branch| {
            let name = format!("refs/heads/{branch}");
            let mut reference = repository.try_find_reference(&name).ok()??;
            Some(reference.peel_to_id().ok()?.detach())
        });
        let id = match by_branch {
            Some(id) => id,
            None => repository.head_id().ok()?.detach(),
        };
        if repository.find_header(id).ok()?.size() > MAX_COMMIT {
            return None;
        }
        let commit = repository.find_object(id).ok()?.try_into_commit().ok()?;
        let author = commit.author().ok()?;
        let time = author.time().ok()?;
        let title = commit.message_raw().ok()?.to_string();
        Some(CommitInfo {
            commit_hash: id.to_string(),
            commit_date: iso(time.seconds, time.offset)?,
            commit_author: printable_line(&author.name.to_string()),
            commit_message: printable_line(title.lines().next().unwrap_or_default()),
        })
    };
    // The repository is hostile and the parser large.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok()?
}

/// A moment with the offset it was written with, in git's ISO-like form.
fn iso(seconds: i64, offset: i32) -> Option<String> {
    let offset = jiff::tz::Offset::from_seconds(offset).ok()?;
    let moment = jiff::Timestamp::from_second(seconds).ok()?;
    let moment = moment.to_zoned(offset.to_time_zone());
    Some(moment.strftime("%Y-%m-%d %H:%M:%S %z").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_repository_has_no_commit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_commit(dir.path(), Some("main")), None);
        std::fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(last_commit(dir.path(), Some("../../etc/passwd")), None);
    }

    #[test]
    fn the_branch_comes_before_head() {
        let dir = tempfile::tempdir().unwrap();
        let repository = gix::init_bare(dir.path()).unwrap();
        assert_eq!(last_commit(dir.path(), None), None, "unborn");
        let tree = repository.empty_tree().id().detach();
        let commit = |branch: &str, message: &str| {
            let (name, email) = ("Ada", "ada@example.org");
            let who = |time| gix::actor::SignatureRef {
                name: name.into(),
                email: email.into(),
                time,
            };
            let none: [gix::ObjectId; 0] = [];
            let (committer, author) = (who("9 +0000"), who("1762174931 +0100"));
            repository
                .commit_as(committer, author, branch, message, tree, none)
                .unwrap()
                .to_string()
        };
        let head = commit("HEAD", "on \u{1b}head\n\nbody");
        let found = last_commit(dir.path(), Some("side")).unwrap();
        assert_eq!(
            (found.commit_hash, found.commit_message.as_str()),
            (head, "on \\x1bhead")
        );
        assert_eq!(found.commit_date, "2025-11-03 14:02:11 +0100");
        assert_eq!(found.commit_author, "Ada");
        let side = commit("refs/heads/side", "aside");
        assert_eq!(
            last_commit(dir.path(), Some("side")).unwrap().commit_hash,
            side
        );
    }

    #[test]
    fn a_date_keeps_its_offset() {
        assert_eq!(iso(0, 3600).as_deref(), Some("1970-01-01 01:00:00 +0100"));
        assert_eq!(iso(0, 999_999), None);
    }
}
