//! Footprints on disk: measured on a bounded pool, kept per directory, measured again on request.

use super::Domain;
use super::walk::{self, Size};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use terok_config::id::ProjectId;
use terok_config::roster::Roster;
use terok_proto::Fault;
use terok_proto::error::ErrorObject;
use terok_proto::image::ImageInfo;
use terok_proto::storage::{
    GateStorage, ProjectDetail, ProjectStorage, SharedMount, StorageOverview, TaskStorage,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Directories that are measured at a time, over all calls.
const POOL: usize = 2;

/// A figure older than this is measured again without being asked to.
const FRESH: Duration = Duration::from_secs(60);

/// Row for the images of projects that are gone; no id has parentheses.
const ORPHANS: &str = "(orphans)";

/// Figures that are kept.
const MAX_KEPT: usize = 20_000;

/// Sizes measured so far.
#[derive(Clone, Debug)]
pub struct Sizes {
    kept: Arc<Mutex<HashMap<PathBuf, Measured>>>,
    pool: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    size: Size,
    at: Instant,
    time: Timestamp,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            pool: Arc::new(Semaphore::new(POOL)),
        }
    }
}

impl Sizes {
    /// The size of a tree, from memory if that is fresh enough. Ends early if nobody waits any more.
    async fn measure(&self, dir: PathBuf, refresh: bool) -> Result<Measured, Fault> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(&dir).copied();
        if let Some(known) = known
            && !refresh
            && known.at.elapsed() < FRESH
        {
            return Ok(known);
        }
        let permit = Arc::clone(&self.pool).acquire_owned().await;
        let permit = permit.map_err(|_| Fault::internal("the pool for measuring is closed"))?;
        let cancel = CancellationToken::new();
        let abandoned = cancel.clone();
        let _guard = cancel.drop_guard();
        let measured = dir.clone();
        let size = super::blocking(move || {
            let _permit = permit;
            Ok(walk::measure(&measured, &|| abandoned.is_cancelled()))
        })
        .await?;
        let measured = Measured {
            size,
            at: Instant::now(),
            time: Timestamp::now(),
        };
        let mut kept = kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(dir, measured);
        Ok(measured)
    }
}

/// Sums up what one answer is made of.
struct Tally<'a> {
    sizes: &'a Sizes,
    refresh: bool,
    oldest: Timestamp,
    incomplete: bool,
}

impl<'a> Tally<'a> {
    fn new(sizes: &'a Sizes, refresh: bool) -> Self {
        Self {
            sizes,
            refresh,
            oldest: Timestamp::now(),
            incomplete: false,
        }
    }

    async fn add(&mut self, dir: PathBuf) -> Result<Size, Fault> {
        let measured = self.sizes.measure(dir, self.refresh).await?;
        self.oldest = self.oldest.min(measured.time);
        self.incomplete |= measured.size.incomplete;
        Ok(measured.size)
    }

    async fn list(&mut self, dir: PathBuf) -> Result<Vec<String>, Fault> {
        let listed = super::blocking(move || Ok(directories(&dir))).await?;
        self.incomplete |= listed.is_none();
        Ok(listed.unwrap_or_default())
    }

    async fn tasks(&mut self, tasks_root: &Path) -> Result<Vec<TaskStorage>, Fault> {
        let mut tasks = Vec::new();
        for task_id in self.list(tasks_root.to_owned()).await? {
            let dir = tasks_root.join(&task_id);
            let workspace = self.add(dir.join("workspace-dangerous")).await?;
            let agent_config = self.add(dir.join("agent-config")).await?;
            tasks.push(TaskStorage {
                task_id,
                workspace_bytes: workspace.apparent,
                agent_config_bytes: agent_config.apparent,
                overlay_bytes: None,
                total_bytes: workspace.apparent + agent_config.apparent,
                allocated_bytes: workspace.allocated + agent_config.allocated,
            });
        }
        Ok(tasks)
    }
}

/// Names of the directories in a directory, sorted; links are none. `None` if it cannot be read.
fn directories(dir: &Path) -> Option<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(Vec::new()),
        other => other.ok()?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.contains(".deleting-"))
        .collect();
    names.sort();
    Some(names)
}

/// Sum over images, each counted once whatever names it has.
fn images_bytes<'a>(images: impl IntoIterator<Item = &'a ImageInfo>) -> u64 {
    let distinct: BTreeMap<&str, u64> = images
        .into_iter()
        .map(|image| (image.image_id.as_str(), image.size_bytes))
        .collect();
    distinct.values().sum()
}

/// Adds what each image shares with others, and what its removal would free.
async fn add_usage(domain: &Domain, lists: &mut [&mut Vec<ImageInfo>]) {
    if lists.iter().all(|list| list.is_empty()) {
        return;
    }
    let usage = domain.images.usage().await;
    for image in lists.iter_mut().flat_map(|list| list.iter_mut()) {
        let id = image
            .image_id
            .strip_prefix("sha256:")
            .unwrap_or(&image.image_id);
        if let Some(usage) = usage.get(id) {
            image.shared_bytes = Some(usage.shared);
            image.unique_bytes = Some(usage.unique);
        }
    }
}

/// What was found, else nothing and the reason.
fn or_reason<T: Default>(answer: Result<T, Fault>) -> (T, Option<ErrorObject>) {
    match answer {
        Ok(found) => (found, None),
        Err(fault) => (T::default(), Some(fault.to_object())),
    }
}

/// The footprint of one project (`projects.md` §11).
///
/// # Errors
/// There is no such project, or it is broken.
pub async fn storage_detail(
    domain: &Domain,
    id: &ProjectId,
    refresh: bool,
) -> Result<ProjectDetail, Fault> {
    let entry = domain.registry.project(id)?;
    let config = &entry.project()?.config;
    let mut tally = Tally::new(&domain.sizes, refresh);
    let mut tasks = tally.tasks(Path::new(&config.tasks_root)).await?;
    let (mut images, images_error) = or_reason(domain.images.of_project(&config.id).await);
    add_usage(domain, &mut [&mut images]).await;
    let overlays = match images_error {
        None => domain
            .images
            .overlays(&config.id)
            .await
            .unwrap_or_else(|fault| {
                tracing::warn!(%fault, project = config.id, "writable layers are not measured");
                BTreeMap::new()
            }),
        Some(_) => BTreeMap::new(),
    };
    for task in &mut tasks {
        let own = |name: &&String| name.rsplit('-').next() == Some(task.task_id.as_str());
        let layers: Vec<u64> = overlays
            .keys()
            .filter(own)
            .map(|name| overlays[name])
            .collect();
        task.overlay_bytes = (!layers.is_empty()).then(|| layers.iter().sum());
        task.total_bytes += task.overlay_bytes.unwrap_or_default();
    }
    let workspace_bytes = tasks.iter().map(|task| task.workspace_bytes).sum();
    let agent_config_bytes = tasks.iter().map(|task| task.agent_config_bytes).sum();
    Ok(ProjectDetail {
        project_id: config.id.clone(),
        images_bytes: images_bytes(&images),
        total_bytes: images_bytes(&images)
            + workspace_bytes
            + agent_config_bytes
            + overlays.values().sum::<u64>(),
        overlay_bytes: overlays.values().sum(),
        images,
        images_error,
        tasks,
        overlays,
        workspace_bytes,
        agent_config_bytes,
        incomplete: tally.incomplete,
        as_of: tally.oldest.to_string(),
    })
}

/// The footprint of everything (`projects.md` §11).
///
/// # Errors
/// Only an internal failure; what cannot be read makes the answer incomplete.
pub async fn storage_overview(domain: &Domain, refresh: bool) -> Result<StorageOverview, Fault> {
    let snapshot = domain.registry.snapshot();
    let mut tally = Tally::new(&domain.sizes, refresh);
    let mut shared_mounts = Vec::new();
    for name in tally.list(snapshot.paths.mounts_dir.clone()).await? {
        let size = tally.add(snapshot.paths.mounts_dir.join(&name)).await?;
        shared_mounts.push(SharedMount {
            label: label(&name, &snapshot.roster),
            name,
            bytes: size.apparent,
        });
    }
    let (mut images, images_error) = or_reason(domain.images.overview().await);
    add_usage(domain, &mut [&mut images.global, &mut images.unused_base]).await;
    let mut projects = Vec::new();
    let mut users: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for entry in snapshot.projects.values() {
        let Ok(project) = entry.project() else {
            continue;
        };
        let tasks = tally.tasks(Path::new(&project.config.tasks_root)).await?;
        let own = |image: &&ImageInfo| image.project_id.as_deref() == Some(project.id.as_str());
        let image_bytes = images_bytes(images.of_projects.iter().filter(own));
        projects.push(ProjectStorage {
            project_id: project.id.clone(),
            image_bytes,
            workspace_bytes: tasks.iter().map(|task| task.workspace_bytes).sum(),
            task_count: tasks.len() as u64,
            total_bytes: image_bytes + tasks.iter().map(|task| task.total_bytes).sum::<u64>(),
        });
        let gate = domain.env.normalise(&project.config.gate_path);
        users.entry(gate).or_default().insert(project.id.clone());
    }
    let known: BTreeSet<&str> = snapshot
        .projects
        .iter()
        .flat_map(|(dir, entry)| [dir.as_str(), entry.id()])
        .collect();
    let orphans = images_bytes(images.of_projects.iter().filter(|image| {
        image
            .project_id
            .as_deref()
            .is_some_and(|id| !known.contains(id))
    }));
    if orphans > 0 {
        projects.push(ProjectStorage {
            project_id: ORPHANS.to_owned(),
            image_bytes: orphans,
            workspace_bytes: 0,
            task_count: 0,
            total_bytes: orphans,
        });
    }
    let repos = domain.env.normalise(&snapshot.paths.gate_repos_dir);
    for name in tally.list(repos.clone()).await? {
        if name.ends_with(".git") {
            users.entry(repos.join(name)).or_default();
        }
    }
    let mut gates = Vec::new();
    for (path, project_ids) in users {
        if !path.is_dir() {
            continue;
        }
        let size = tally.add(path.clone()).await?;
        gates.push(GateStorage {
            path: path.to_string_lossy().into_owned(),
            project_ids: project_ids.into_iter().collect(),
            bytes: size.apparent,
        });
    }
    let shared_mounts_bytes = shared_mounts.iter().map(|mount| mount.bytes).sum();
    let projects_bytes = projects.iter().map(|project| project.total_bytes).sum();
    Ok(StorageOverview {
        global_images_bytes: images_bytes(&images.global),
        grand_total: images_bytes(&images.global) + shared_mounts_bytes + projects_bytes,
        global_images: images.global,
        unused_base_images: images.unused_base,
        images_error,
        gates_bytes: gates.iter().map(|gate| gate.bytes).sum(),
        shared_mounts,
        projects,
        gates,
        shared_mounts_bytes,
        projects_bytes,
        incomplete: tally.incomplete,
        as_of: tally.oldest.to_string(),
    })
}

/// What the roster calls a shared directory, else its name made readable.
fn label(name: &str, roster: &Roster) -> String {
    let stated = roster
        .mounts()
        .into_iter()
        .find(|(_, mount)| mount.host_dir == name)
        .and_then(|(_, mount)| mount.label);
    stated.unwrap_or_else(|| {
        let plain = name.strip_prefix('_').unwrap_or(name).replace('-', " ");
        let mut chars = plain.chars();
        match chars.next() {
            Some(first) => first
                .to_uppercase()
                .chain(chars.flat_map(char::to_lowercase))
                .collect(),
            None => plain,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_name_becomes_a_label() {
        let roster = Roster::default();
        assert_eq!(label("_my-own-config", &roster), "My own config");
        assert_eq!(label("", &roster), "");
    }

    #[tokio::test]
    async fn figures_are_kept_until_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("t1/workspace-dangerous");
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("a"), "12345").unwrap();
        let sizes = Sizes::default();
        let total = async |refresh| {
            let mut tally = Tally::new(&sizes, refresh);
            let tasks = tally.tasks(dir.path()).await.unwrap();
            assert!(!tally.incomplete);
            (tasks.len(), tasks[0].total_bytes)
        };
        assert_eq!(total(false).await, (1, 5));
        fs::write(task.join("b"), "123").unwrap();
        assert_eq!(total(false).await, (1, 5));
        assert_eq!(total(true).await, (1, 8));
    }
}
