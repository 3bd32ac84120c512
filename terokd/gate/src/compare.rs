//! How current a gate is: asked of upstream, or by what was last heard of it.

use crate::refs::{HEADS, Refs};
use crate::remote::Remote;
use crate::walk::{count, is_ancestor, is_commit};
use crate::{
    Advertisement, Contact, Control, GateSpec, GitTransport, Limits, RemoteRef, TransportError,
    Upstream, check_branch, layout,
};
use gix::ObjectId;
use std::time::Duration;
use terok_proto::gate::{GateStalenessInfo, Relation, StalenessErrorKind};
use terok_proto::{Fault, Kind};

/// Whether there is somebody to ask.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// The project has no upstream.
    None,
    /// There is one, but no way in.
    Refused(&'a Fault),
    /// It can be asked.
    Upstream(&'a Upstream),
}

/// Why a poll did not reach upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollFailure {
    /// What kind of failure.
    pub kind: StalenessErrorKind,
    /// For humans.
    pub message: String,
    /// What it says of the host.
    pub contact: Contact,
    /// The server said when to come back.
    pub retry_after: Option<Duration>,
}

/// A branch that is not where upstream has it, though a sync may bring it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The branch.
    pub branch: String,
    /// The gate's head; none if it has no such branch.
    pub gate: Option<String>,
    /// Upstream's head; none for a branch that is gone.
    pub upstream: Option<String>,
}

/// What a poll found.
#[derive(Clone, Debug)]
pub struct PollReport {
    /// How current the compared branch is.
    pub staleness: GateStalenessInfo,
    /// Branches that auto-sync is about and that are behind upstream or diverged from it.
    pub lagging: Vec<Lag>,
    /// Why upstream could not be asked.
    pub failure: Option<PollFailure>,
}

/// Compares one branch with upstream as it is now.
///
/// # Errors
/// The branch is no branch name, or the look was cancelled. Everything else is told in the answer.
pub fn compare(
    spec: &GateSpec,
    reach: Reach<'_>,
    transport: &dyn GitTransport,
    branch: Option<&str>,
    limits: &Limits,
    control: &Control,
) -> Result<GateStalenessInfo, Fault> {
    if let Some(branch) = branch {
        check_branch(branch)?;
    }
    Ok(look(spec, reach, transport, branch, None, limits, control)?.staleness)
}

/// Asks upstream once for everything that polling wants to know: the branch that is compared, and which of the branches
/// that auto-sync is about lag behind; `Some(&[])` stands for all of them.
///
/// # Errors
/// The look was cancelled.
pub fn poll(
    spec: &GateSpec,
    reach: Reach<'_>,
    transport: &dyn GitTransport,
    auto_sync: Option<&[String]>,
    limits: &Limits,
    control: &Control,
) -> Result<PollReport, Fault> {
    look(spec, reach, transport, None, auto_sync, limits, control)
}

/// Compares the default branch with upstream as it was last seen, without asking; none if there is nothing to compare.
/// `last` is what the last comparison found, and `fetched` tells of which branches the snapshot is newer than that.
pub fn compare_with_known(
    spec: &GateSpec,
    last: Option<&GateStalenessInfo>,
    fetched: impl FnOnce(&str) -> bool,
) -> Option<GateStalenessInfo> {
    let repository = layout::open(&spec.path).ok()?;
    let refs = Refs::read(&repository).ok()?;
    let branch = spec
        .default_branch
        .clone()
        .or_else(|| crate::head::branch(&repository))?;
    let gate = *refs.heads.get(&branch)?;
    let last = last.filter(|last| last.branch.as_ref() == Some(&branch) && !fetched(&branch));
    if last.is_some_and(|last| last.error_kind == Some(StalenessErrorKind::BranchMissingUpstream)) {
        return None;
    }
    let seen = last.and_then(|last| last.upstream_head.as_deref()?.parse().ok());
    let upstream = seen.or_else(|| refs.upstream.get(&branch).copied())?;
    Some(related(&repository, &branch, gate, upstream))
}

fn look(
    spec: &GateSpec,
    reach: Reach<'_>,
    transport: &dyn GitTransport,
    branch: Option<&str>,
    auto_sync: Option<&[String]>,
    limits: &Limits,
    control: &Control,
) -> Result<PollReport, Fault> {
    let mut report = PollReport {
        staleness: nothing(None, None, None),
        lagging: Vec::new(),
        failure: None,
    };
    let wanted = branch
        .map(str::to_owned)
        .or_else(|| spec.default_branch.clone());
    let gate = Heads::of(spec);
    // Without a name the branch is upstream's default, which only upstream knows; a gate without one has its own.
    let wanted = match (wanted, reach) {
        (None, Reach::None) => layout::open(&spec.path)
            .ok()
            .as_ref()
            .and_then(crate::head::branch),
        (wanted, _) => wanted,
    };
    if wanted.is_none() && matches!(reach, Reach::None) {
        report.staleness = nothing(None, None, Some(StalenessErrorKind::NoBranch));
        return Ok(report);
    }
    let Some(heads) = gate else {
        report.staleness = nothing(wanted, None, Some(StalenessErrorKind::GateMissing));
        return Ok(report);
    };
    let gate = wanted.as_deref().and_then(|branch| heads.get(branch));
    if wanted.is_some() && gate.is_none() {
        report.staleness = nothing(wanted, None, Some(StalenessErrorKind::BranchMissingInGate));
        return Ok(report);
    }
    let upstream = match reach {
        Reach::Upstream(upstream) => upstream,
        Reach::None => {
            report.staleness = nothing(wanted, gate, Some(StalenessErrorKind::NoUpstream));
            return Ok(report);
        }
        Reach::Refused(fault) => {
            // Either the address is no good, or there is no key for it.
            let kind = match fault.kind {
                Kind::InvalidUrl => StalenessErrorKind::Unreachable,
                _ => StalenessErrorKind::AuthNotConfigured,
            };
            report.staleness = nothing(wanted, gate, Some(kind));
            report.failure = Some(PollFailure {
                kind,
                message: fault.message.clone(),
                contact: Contact::NotTried,
                retry_after: None,
            });
            return Ok(report);
        }
    };
    let prefixes = prefixes(wanted.as_deref(), auto_sync);
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let asked = transport
        .ls_refs(upstream, &prefixes, limits, control)
        .and_then(|advertised| {
            let remote = Remote::read(&advertised)?;
            Ok((advertised, remote))
        });
    let (advertised, remote) = match asked {
        Ok(answer) => answer,
        Err(TransportError::Cancelled) => return Err(TransportError::Cancelled.into()),
        Err(error) => {
            let kind = error.error_kind();
            report.staleness = nothing(wanted, gate, Some(kind));
            report.failure = Some(PollFailure {
                kind,
                contact: error.contact(),
                retry_after: match &error {
                    TransportError::RetryAfter { after, .. } => Some(*after),
                    _ => None,
                },
                message: error.to_string(),
            });
            return Ok(report);
        }
    };
    if let Some(branches) = auto_sync {
        let refs = Refs::read_store(&heads.0).unwrap_or_default();
        report.lagging = lagging(spec, &refs, &remote, &advertised, branches);
    }
    let Some(branch) = wanted.or(remote.head.clone()) else {
        report.staleness = nothing(None, None, Some(StalenessErrorKind::NoBranch));
        return Ok(report);
    };
    let Some(gate) = heads.get(&branch) else {
        report.staleness = nothing(
            Some(branch),
            None,
            Some(StalenessErrorKind::BranchMissingInGate),
        );
        return Ok(report);
    };
    let Some(theirs) = remote.heads.get(&branch).copied() else {
        report.staleness = nothing(
            Some(branch),
            Some(gate),
            Some(StalenessErrorKind::BranchMissingUpstream),
        );
        return Ok(report);
    };
    report.staleness = if gate == theirs {
        equal(&branch, gate)
    } else {
        let repository =
            fetch_for_counts(spec, transport, upstream, &branch, theirs, limits, control)?;
        related(&repository, &branch, gate, theirs)
    };
    Ok(report)
}

/// The heads of a gate, looked up one by one: most polls need no more of it.
struct Heads(gix::refs::file::Store);

impl Heads {
    fn of(spec: &GateSpec) -> Option<Self> {
        layout::looks_like_bare_gate(&spec.path).then(|| {
            Self(gix::refs::file::Store::at(
                spec.path.clone(),
                gix::hash::Kind::Sha1,
            ))
        })
    }

    fn get(&self, branch: &str) -> Option<ObjectId> {
        let name = format!("{HEADS}{branch}");
        let found = self.0.try_find(name.as_str()).ok().flatten()?;
        found.target.try_id().map(ToOwned::to_owned)
    }
}

/// What one look has to ask for: a head's own name, or all heads where that is not enough.
fn prefixes(branch: Option<&str>, auto_sync: Option<&[String]>) -> Vec<String> {
    match (branch, auto_sync) {
        (Some(branch), None) => vec![format!("{HEADS}{branch}")],
        (Some(branch), Some(branches)) if !branches.is_empty() => {
            let mut names: Vec<String> = branches
                .iter()
                .filter(|name| check_branch(name).is_ok())
                .map(String::as_str)
                .chain([branch])
                .map(|name| format!("{HEADS}{name}"))
                .collect();
            names.sort();
            names.dedup();
            names
        }
        _ => vec![HEADS.to_owned()],
    }
}

/// Branches of interest that a sync may bring where upstream has them. A gate that is merely ahead lags nowhere.
fn lagging(
    spec: &GateSpec,
    refs: &Refs,
    remote: &Remote,
    advertised: &Advertisement,
    branches: &[String],
) -> Vec<Lag> {
    // A server that shows nothing is not believed to have lost everything.
    if advertised.refs.is_empty() && !advertised.empty_confirmed {
        return Vec::new();
    }
    let interesting = |branch: &str| branches.is_empty() || branches.iter().any(|b| b == branch);
    let gone = refs
        .upstream
        .keys()
        .filter(|branch| !remote.heads.contains_key(*branch))
        .map(|branch| (branch, None));
    let mut repository: Option<Option<gix::Repository>> = None;
    let mut is_ahead = |gate, upstream| {
        let opened = repository.get_or_insert_with(|| layout::open(&spec.path).ok());
        opened.as_ref().is_some_and(|repository| {
            is_commit(repository, upstream) && is_ancestor(repository, upstream, gate)
        })
    };
    remote
        .heads
        .iter()
        .map(|(branch, id)| (branch, Some(*id)))
        .chain(gone)
        .filter(|(branch, _)| interesting(branch))
        .filter_map(|(branch, upstream)| {
            let gate = refs.heads.get(branch).copied();
            let current = match (gate, upstream) {
                (Some(gate), Some(upstream)) => gate == upstream || is_ahead(gate, upstream),
                _ => false,
            };
            (!current).then(|| Lag {
                branch: branch.clone(),
                gate: gate.map(|id| id.to_string()),
                upstream: upstream.map(|id| id.to_string()),
            })
        })
        .collect()
}

/// Counting needs the commits themselves. They come without any ref: the next sync finds them there.
fn fetch_for_counts(
    spec: &GateSpec,
    transport: &dyn GitTransport,
    upstream: &Upstream,
    branch: &str,
    id: ObjectId,
    limits: &Limits,
    control: &Control,
) -> Result<gix::Repository, Fault> {
    let repository = layout::open(&spec.path)?;
    if is_commit(&repository, id) {
        return Ok(repository);
    }
    let want = RemoteRef {
        name: format!("{HEADS}{branch}"),
        id,
        peeled: None,
    };
    match transport.fetch(repository.git_dir(), upstream, &[want], limits, control) {
        Ok(_) => layout::open(&spec.path),
        Err(TransportError::Cancelled) => Err(TransportError::Cancelled.into()),
        Err(error) => {
            // The heads are known all the same.
            tracing::debug!(gate = %spec.path.display(), %error, "commits for counting did not come");
            Ok(repository)
        }
    }
}

fn related(
    repository: &gix::Repository,
    branch: &str,
    gate: ObjectId,
    upstream: ObjectId,
) -> GateStalenessInfo {
    if gate == upstream {
        return equal(branch, gate);
    }
    let mut info = nothing(Some(branch.to_owned()), Some(gate), None);
    info.upstream_head = Some(upstream.to_string());
    info.is_stale = true;
    if !is_commit(repository, upstream) || !is_commit(repository, gate) {
        return info;
    }
    info.relation = if is_ancestor(repository, gate, upstream) {
        Relation::Behind
    } else if is_ancestor(repository, upstream, gate) {
        Relation::Ahead
    } else {
        Relation::Diverged
    };
    info.commits_behind = count(repository, upstream, &[gate]).ok();
    info.commits_ahead = count(repository, gate, &[upstream]).ok();
    info
}

fn equal(branch: &str, head: ObjectId) -> GateStalenessInfo {
    let mut info = nothing(Some(branch.to_owned()), Some(head), None);
    info.upstream_head = Some(head.to_string());
    info.relation = Relation::Equal;
    (info.commits_behind, info.commits_ahead) = (Some(0), Some(0));
    info
}

fn nothing(
    branch: Option<String>,
    gate: Option<ObjectId>,
    error: Option<StalenessErrorKind>,
) -> GateStalenessInfo {
    use StalenessErrorKind::{BranchMissingInGate, GateMissing, NoBranch, NoUpstream};
    let text = error.map(|kind| match kind {
        NoBranch => "No branch configured",
        GateMissing | BranchMissingInGate => "Gate not initialized",
        NoUpstream => "No upstream URL configured",
        _ => "Could not reach upstream",
    });
    GateStalenessInfo {
        branch,
        gate_head: gate.map(|id| id.to_string()),
        upstream_head: None,
        is_stale: false,
        commits_behind: None,
        commits_ahead: None,
        last_checked: jiff::Timestamp::now().to_string(),
        error: text.map(str::to_owned),
        error_kind: error,
        relation: Relation::Unknown,
    }
}
