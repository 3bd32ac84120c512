//! `git push` of one commit to one branch, never forced.

use super::watch::Watch;
use super::{child, cli};
use crate::{
    Control, HostEnv, Limits, Phase, Progress, PushError, TransportError, Upstream, layout,
};
use gix::ObjectId;
use std::path::Path;

/// A porcelain listing of one ref is short.
const OUTPUT_LIMIT: usize = 1024 * 1024;

#[allow(
    clippy::too_many_arguments,
    reason = "the trait's method with its environment"
)]
pub(super) fn push(
    env: &HostEnv,
    repository: &Path,
    upstream: &Upstream,
    commit: ObjectId,
    to: &str,
    lease: Option<ObjectId>,
    limits: &Limits,
    control: &Control,
) -> Result<(), PushError> {
    if !to.starts_with("refs/heads/") || gix::validate::reference::name(to.into()).is_err() {
        return Err(
            TransportError::protocol(&format!("`{to}` is no full name of a branch")).into(),
        );
    }
    if let Some(lease) = lease
        && !is_fast_forward(repository, lease, commit)?
    {
        return Err(PushError::Rejected(format!(
            "{commit} is not a descendant of {lease}"
        )));
    }
    let watch = Watch::start(control, limits.total, Some(limits.inactivity))?;
    let _contact = super::host_keys::Contact::begin(upstream, control)?;
    let mut command = cli::git(env, upstream)?;
    command.env("GIT_DIR", repository);
    // An empty lease means that the ref must not exist. A lease also lets git send what is no fast-forward, which is
    // refused here.
    let expected = lease.map(|id| id.to_string()).unwrap_or_default();
    command.args([
        "-c",
        "push.followTags=false",
        "-c",
        "push.gpgSign=false",
        "-c",
        "push.recurseSubmodules=no",
    ]);
    command.args([
        "push",
        "--no-verify",
        "--porcelain",
        "--no-follow-tags",
        "--progress",
    ]);
    command.arg(format!("--force-with-lease={to}:{expected}"));
    command.args(["--end-of-options", cli::REMOTE]);
    command.arg(format!("{commit}:{to}"));
    control.progress(Progress {
        phase: Phase::Pushing,
        objects: 0,
        total: None,
        bytes: 0,
    });
    let finished = child::run(&mut command, b"", OUTPUT_LIMIT, &watch, |_| {})?;
    if finished.status.success() {
        return Ok(());
    }
    let listed = String::from_utf8_lossy(&finished.stdout);
    match listed.lines().find_map(|line| line.strip_prefix("!\t")) {
        Some(refused) => Err(PushError::Rejected(reason(refused, &finished.stderr))),
        None => Err(super::stderr::classify(&finished.stderr, upstream).into()),
    }
}

fn is_fast_forward(
    repository: &Path,
    from: ObjectId,
    to: ObjectId,
) -> Result<bool, TransportError> {
    let failed = |error: gix::Error| {
        TransportError::storage(&format!("{}: {error:#}", repository.display()))
    };
    let options = gix::open::Options::isolated().config_overrides([layout::AS_IT_IS]);
    let repo = gix::open_opts(repository, options).map_err(failed)?;
    if !repo.has_object(from) {
        return Ok(false);
    }
    let bases = repo.merge_bases_many(from, &[to]).map_err(failed)?;
    Ok(bases.iter().any(|base| base.detach() == from))
}

/// `FROM:TO<tab>[remote rejected] (why)` and what the server's hooks said.
fn reason(refused: &str, stderr: &str) -> String {
    let summary = refused
        .split_once('\t')
        .map_or(refused, |(_, summary)| summary);
    let said: Vec<&str> = stderr
        .split(['\n', '\r'])
        .filter_map(|line| line.strip_prefix("remote:"))
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains("% (") && !line.starts_with("Total "))
        .collect();
    let text = if said.is_empty() {
        summary.to_owned()
    } else {
        format!("{summary}: {}", said.join("; "))
    };
    crate::clean_message(&text)
}
