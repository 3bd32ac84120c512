//! The human's push of a reviewed head to upstream.

use crate::crash::point;
use crate::refs::{Edits, HEADS, Refs, UPSTREAM};
use crate::remote::Remote;
use crate::walk::{count, is_ancestor, is_commit};
use crate::{
    Control, GateSpec, GitTransport, Limits, RemoteRef, Upstream, check_branch, layout, lock,
};
use terok_proto::gate::PromoteResult;
use terok_proto::{Fault, Kind};

/// What is promoted.
#[derive(Clone, Debug)]
pub struct PromoteRequest {
    /// Branch of the gate.
    pub branch: String,
    /// Branch of upstream; by default of the same name.
    pub upstream_branch: Option<String>,
    /// The commit that was reviewed.
    pub expect_commit: Option<String>,
}

/// Pushes one head; only where it is new or moves forward. Nothing in `refs/heads` of the gate changes.
///
/// # Errors
/// Nothing was pushed, and why.
pub fn promote(
    spec: &GateSpec,
    upstream: &Upstream,
    transport: &dyn GitTransport,
    request: &PromoteRequest,
    limits: &Limits,
    control: &Control,
) -> Result<PromoteResult, Fault> {
    let target = request
        .upstream_branch
        .as_deref()
        .unwrap_or(&request.branch);
    check_branch(&request.branch)?;
    check_branch(target)?;
    layout::must_exist(spec)?;
    let _lock = lock::lock(spec, control)?;
    let repository = layout::open(&spec.path)?;
    let refs = Refs::read(&repository)?;
    // Resolved here once: whatever the branch does meanwhile, this commit is what goes out.
    let Some(commit) = refs.heads.get(&request.branch).copied() else {
        return Err(Fault::invalid_argument(format!(
            "the gate has no branch `{}`",
            request.branch
        )));
    };
    if let Some(expected) = &request.expect_commit
        && !commit.to_string().eq_ignore_ascii_case(expected.trim())
    {
        return Err(Fault::new(
            Kind::BranchMoved,
            format!(
                "`{}` is at {commit}, not at the commit that was reviewed; review it again",
                request.branch
            ),
        )
        .with("branch", request.branch.as_str())
        .with("commit", commit.to_string()));
    }
    let name = format!("{HEADS}{target}");
    let advertised = transport
        .ls_refs(upstream, &[&name], limits, control)
        .map_err(Fault::from)?;
    let theirs = Remote::read(&advertised)
        .map_err(Fault::from)?
        .heads
        .get(target)
        .copied();
    if let Some(theirs) = theirs
        && !is_commit(&repository, theirs)
    {
        let want = RemoteRef {
            name: name.clone(),
            id: theirs,
            peeled: None,
        };
        transport
            .fetch(repository.git_dir(), upstream, &[want], limits, control)
            .map_err(Fault::from)?;
    }
    point("gate.promote.fetched");
    let repository = layout::open(&spec.path)?;
    if let Some(theirs) = theirs
        && !is_ancestor(&repository, theirs, commit)
    {
        let (ahead, behind) = (
            count(&repository, commit, &[theirs])?,
            count(&repository, theirs, &[commit])?,
        );
        return Err(Fault::new(
            Kind::PushRejected,
            format!(
                "`{}` does not contain upstream's `{target}` ({behind} commits are missing, {ahead} are its own): bring it \
                 up to date first",
                request.branch
            ),
        )
        .with("upstream_commit", theirs.to_string())
        .with("ahead", ahead)
        .with("behind", behind));
    }
    if theirs != Some(commit) {
        transport
            .push(
                repository.git_dir(),
                upstream,
                commit,
                &name,
                theirs,
                limits,
                control,
            )
            .map_err(Fault::from)?;
    }
    point("gate.promote.pushed");
    let refs = Refs::read(&repository)?;
    let before = refs.upstream.get(target).copied();
    if before != Some(commit) {
        let mut edits = Edits::default();
        edits.set(
            &format!("{UPSTREAM}{target}"),
            before,
            commit,
            "terok: promoted",
        )?;
        // The next sync notes it otherwise.
        if let Err(error) = edits.commit(&repository) {
            tracing::warn!(gate = %spec.path.display(), ?error, "cannot note what was promoted");
        }
    }
    point("gate.promote.done");
    Ok(PromoteResult {
        branch: target.to_owned(),
        old: theirs.map(|id| id.to_string()),
        new: commit.to_string(),
    })
}
