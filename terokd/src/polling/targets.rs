//! What is to be polled: projects that share a gate become one target.

use crate::registry::Snapshot;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terok_proto::config::{ProjectConfig, SecurityClass};

/// One gate and what its projects want of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The gate, symbolic links resolved.
    pub gate_path: PathBuf,
    /// Projects that share it and want it polled, by id.
    pub project_ids: Vec<String>,
    /// Upstream; the sharing projects agree on it.
    pub upstream_url: String,
    /// Branch to compare; upstream's own default if none is configured.
    pub branch: Option<String>,
    /// Host of upstream, for limits per host.
    pub host: String,
    /// The shortest of their intervals.
    pub interval: Duration,
    /// One of them wants to be synced without being asked.
    pub auto_sync: bool,
    /// Branches that auto-sync is restricted to; empty means all.
    pub auto_sync_branches: Vec<String>,
}

/// The target of one project, whether it is on the schedule or not; none without an upstream.
pub fn target_of(config: &ProjectConfig, gate_path: PathBuf) -> Option<Target> {
    let url = config.upstream_url.clone()?;
    let minutes = u64::try_from(config.upstream_polling_interval_minutes)
        .unwrap_or(1)
        .clamp(1, 10_080);
    Some(Target {
        gate_path,
        project_ids: vec![config.id.clone()],
        host: host_of(&url),
        upstream_url: url,
        branch: config.default_branch.clone(),
        interval: Duration::from_secs(minutes * 60),
        auto_sync: config.auto_sync_enabled,
        auto_sync_branches: config.auto_sync_branches.clone(),
    })
}

/// All targets of a snapshot whose gate exists, by path.
pub(super) fn all(snapshot: &Snapshot, resolve: impl Fn(&str) -> PathBuf) -> Vec<Arc<Target>> {
    let online = snapshot.global.terokd.polling.poll_online_projects;
    let mut targets: BTreeMap<PathBuf, Option<Target>> = BTreeMap::new();
    for entry in snapshot.projects.values() {
        // A project that somebody is breaking in an editor keeps being polled as it was.
        let Some(loaded) = entry.good() else { continue };
        let config = &loaded.project.config;
        let wanted = config.gate_enabled
            && config.upstream_polling_enabled
            && (online || config.security_class == SecurityClass::Gatekeeping);
        if !wanted {
            continue;
        }
        let path = resolve(&config.gate_path);
        let Some(target) = target_of(config, path.clone()) else {
            continue;
        };
        targets
            .entry(path)
            .and_modify(|known| join(known, &target))
            .or_insert(Some(target));
    }
    targets
        .into_values()
        .flatten()
        .filter(|target| is_there(&target.gate_path))
        .map(Arc::new)
        .collect()
}

/// Two projects of one gate become one target; if they disagree about upstream, nobody is polled until they agree.
fn join(known: &mut Option<Target>, other: &Target) {
    let Some(target) = known else { return };
    if target.upstream_url != other.upstream_url {
        *known = None;
        return;
    }
    target.interval = target.interval.min(other.interval);
    target.branch = target.branch.take().or_else(|| other.branch.clone());
    if other.auto_sync {
        target.auto_sync_branches = if !target.auto_sync {
            other.auto_sync_branches.clone()
        } else if target.auto_sync_branches.is_empty() || other.auto_sync_branches.is_empty() {
            Vec::new()
        } else {
            let mut union = target.auto_sync_branches.clone();
            union.extend(other.auto_sync_branches.iter().cloned());
            union.sort();
            union.dedup();
            union
        };
        target.auto_sync = true;
    }
    target.project_ids.extend(other.project_ids.iter().cloned());
    target.project_ids.sort();
}

fn is_there(gate: &Path) -> bool {
    gate.is_dir()
}

/// Host of a URL, for limits; a URL that cannot be read has none of its own.
fn host_of(url: &str) -> String {
    terok_gate::GateUrl::parse(url).map_or_else(|_| "local".to_owned(), |url| url.host())
}
