//! Images of projects: rendered, built, listed, cleaned up.
//!
//! Owns the way from a project to its images: build contexts, builds under way, the record of what was built, what is
//! told of it. The rules and the texts are `terok-image`'s, Podman is `terok-podman`'s.

mod build;
mod clean;
mod records;
mod render;
mod state;

pub use build::BuildRequest;
pub use clean::{Dropped, Overview};
pub use state::ImageState;

use crate::events::{Bus, Draft};
use crate::flight::{Flights, Locks};
use crate::registry::{ProjectEntry, Registry};
use crate::store::Store;
use crate::tasks::Tasks;
use build::{BuiltLayer, LayerKey, Lines};
use records::Records;
use render::{Contexts, Subject};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use terok_config::env::Environment;
use terok_config::id::ProjectId;
use terok_image::classify::{self, Name};
use terok_podman::{Containers, ImageUsage, Podman, Settings};
use terok_proto::daemon::PodmanStatus;
use terok_proto::events::EventKind;
use terok_proto::image::GeneratedDockerfiles;
use terok_proto::{Fault, Kind};
use tokio::sync::Semaphore;

/// How long a look at the daemon waits for Podman.
const STATUS: Duration = Duration::from_secs(2);
/// How long what Podman said of itself counts.
const STATUS_FRESH: Duration = Duration::from_secs(15);
/// Layers that are built at a time.
const BUILDS: usize = 4;

/// All images.
#[derive(Clone, Debug)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    env: Arc<Environment>,
    registry: Registry,
    bus: Bus,
    tasks: Tasks,
    /// Podman, unless the environment names one that cannot be used.
    podman: Result<Podman, Fault>,
    records: Records,
    contexts: Contexts,
    /// Projects whose stage or images somebody works on.
    busy: Mutex<BTreeSet<String>>,
    layers: Flights<LayerKey, BuiltLayer>,
    lines: Lines,
    tags: Locks<String>,
    slots: Arc<Semaphore>,
    /// Histories of images that labels do not explain; an image never changes its own.
    histories: Mutex<HashMap<String, Arc<Vec<String>>>>,
    /// When a look at a project last waited for Podman in vain.
    hangs: Mutex<Option<Instant>>,
    /// What Podman last said of itself.
    status: tokio::sync::Mutex<Option<(Instant, PodmanStatus)>>,
}

/// Nobody else builds or stages the project for as long as this lives.
#[derive(Debug)]
pub struct Hold {
    inner: Arc<Inner>,
    project: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut busy = self
            .inner
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.project);
    }
}

impl Images {
    /// The images of all projects. `runtime_dir` is where a Podman service that is started for them listens.
    pub fn start(
        env: Arc<Environment>,
        registry: Registry,
        bus: Bus,
        tasks: Tasks,
        store: Store,
        runtime_dir: &Path,
    ) -> Self {
        let podman = settings(&env, runtime_dir).map(Podman::new);
        if let Err(fault) = &podman {
            tracing::warn!(%fault, "podman is not used");
        }
        let build_dir = registry.snapshot().paths.build_dir.clone();
        let images = Self {
            inner: Arc::new(Inner {
                env,
                registry,
                bus,
                tasks: tasks.clone(),
                podman,
                records: Records::new(store),
                contexts: Contexts::default(),
                busy: Mutex::default(),
                layers: Flights::new("image build"),
                lines: Lines::default(),
                tags: Locks::default(),
                slots: Arc::new(Semaphore::new(BUILDS)),
                histories: Mutex::default(),
                hangs: Mutex::default(),
                status: tokio::sync::Mutex::default(),
            }),
        };
        tasks.spawn("build directory", async move {
            let swept = tokio::task::spawn_blocking(move || terok_image::stage::sweep(&build_dir));
            if swept.await.is_err() {
                tracing::warn!("what earlier builds left was not removed");
            }
        });
        if let Ok(podman) = &images.inner.podman {
            let (podman, stopping) = (podman.clone(), tasks.stopping().clone());
            tasks.spawn("podman events", async move {
                stopping.run_until_cancelled(podman.watch()).await;
            });
            tasks.spawn("image events", images.clone().tell_removals());
        }
        images
    }

    /// Podman, which is not connected before it is asked.
    ///
    /// # Errors
    /// `podman_unavailable` if the environment names one that cannot be used.
    pub fn podman(&self) -> Result<&Podman, Fault> {
        self.inner.podman.as_ref().map_err(Clone::clone)
    }

    /// What Podman says of itself, lately. Waits for two seconds at most.
    pub async fn podman_status(&self) -> PodmanStatus {
        let podman = match self.podman() {
            Ok(podman) => podman,
            Err(fault) => {
                return PodmanStatus {
                    error: Some(fault.message),
                    ..PodmanStatus::default()
                };
            }
        };
        let mut known = self.inner.status.lock().await;
        if let Some((at, status)) = &*known
            && at.elapsed() < STATUS_FRESH
        {
            return status.clone();
        }
        let answer = tokio::time::timeout(STATUS, podman.version()).await;
        let version = answer.unwrap_or_else(|_| {
            Err(Fault::new(
                Kind::PodmanTimeout,
                format!("podman does not answer within {} s", STATUS.as_secs()),
            ))
        });
        let status = PodmanStatus {
            available: version.is_ok(),
            socket: Some(podman.socket().to_string_lossy().into_owned()),
            error: version.as_ref().err().map(|fault| fault.message.clone()),
            version: version.ok(),
        };
        *known = Some((Instant::now(), status.clone()));
        status
    }

    /// Writes a project's build context to its stage.
    ///
    /// # Errors
    /// There is no such project, its images cannot be rendered, or somebody else builds it.
    pub async fn generate(&self, id: &ProjectId) -> Result<GeneratedDockerfiles, Fault> {
        let subject = self.subject(id, None).await?;
        let _hold = self.hold(subject.id())?;
        let inner = Arc::clone(&self.inner);
        let paths = blocking(move || {
            let render = subject.render(&inner.contexts)?;
            subject.stage()?.write(&render.context)
        })
        .await?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(GeneratedDockerfiles {
            paths: paths.into_iter().map(text).collect(),
        })
    }

    /// Keeps others from building or staging a project.
    ///
    /// # Errors
    /// `project_busy`
    pub fn hold(&self, project: &str) -> Result<Hold, Fault> {
        let mut busy = self
            .inner
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(project.to_owned()) {
            return Err(Fault::new(
                Kind::ProjectBusy,
                format!(
                    "images of project `{project}` are being built: wait for that, or cancel it"
                ),
            )
            .with("project_id", project)
            .retry_after_ms(5_000));
        }
        Ok(Hold {
            inner: Arc::clone(&self.inner),
            project: project.to_owned(),
        })
    }

    /// Bytes that each of a project's containers has written itself, by container name.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn overlays(&self, project: &str) -> Result<BTreeMap<String, u64>, Fault> {
        let containers = self.podman()?.list_containers(true).await?;
        Ok(overlays_of(project, &containers))
    }

    /// What each image shares with others, and what its removal would free, by id. Podman counts for a while; where it
    /// cannot, nothing is known.
    pub async fn usage(&self) -> HashMap<String, ImageUsage> {
        let counted = async { self.podman()?.image_usage().await };
        counted.await.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "what images share is not counted");
            HashMap::new()
        })
    }

    /// The healthy project of that id, as its file is now.
    async fn subject(&self, id: &ProjectId, agents: Option<String>) -> Result<Subject, Fault> {
        self.inner.registry.refresh(id).await;
        let entry = self.inner.registry.project(id)?;
        entry.project()?;
        Ok(self.subject_of(entry, agents))
    }

    fn subject_of(&self, entry: Arc<ProjectEntry>, agents: Option<String>) -> Subject {
        Subject {
            snapshot: self.inner.registry.snapshot(),
            env: Arc::clone(&self.inner.env),
            entry,
            agents,
        }
    }

    /// Tells when an image of terok's is gone, whoever removed it.
    async fn tell_removals(self) {
        let Ok(podman) = self.podman() else { return };
        let mut changed = podman.images_changed();
        let stopping = self.inner.tasks.stopping().clone();
        let mut known: Option<BTreeMap<String, Vec<String>>> = None;
        while let Some(Ok(())) = stopping.run_until_cancelled(changed.changed()).await {
            let Ok(images) = podman.images().await else {
                continue;
            };
            let now: BTreeMap<String, Vec<String>> = images
                .iter()
                .filter(|image| is_terok(&image.tags, &image.labels))
                .map(|image| (image.id.clone(), image.tags.clone()))
                .collect();
            let before = known.replace(now).unwrap_or_default();
            for (id, names) in before {
                if images.by_id(&id).is_some() {
                    continue;
                }
                let project = names
                    .iter()
                    .find_map(|name| Name::parse(name).project().map(str::to_owned));
                let data = json!({"image_id": format!("sha256:{id}"), "names": names});
                let draft = Draft::new(EventKind::ImageRemoved).data(data);
                self.inner.bus.publish(match project {
                    Some(project) => draft.project(project),
                    None => draft,
                });
            }
        }
    }
}

fn is_terok(tags: &[String], labels: &BTreeMap<String, String>) -> bool {
    tags.iter().any(|tag| Name::parse(tag).layer().is_some())
        || labels.contains_key(terok_image::labels::LAYER)
}

/// A container belongs to the project that its label names; one without labels is told by its whole name, so that no
/// project gets those of another whose id begins alike.
fn overlays_of(project: &str, containers: &Containers) -> BTreeMap<String, u64> {
    containers
        .iter()
        .filter_map(|container| {
            let name = container.names.first()?;
            let size = container.size?;
            let own = match container.labels.get("ai.terok.project") {
                Some(label) => label == project,
                None => project_of_container(name) == Some(project),
            };
            own.then(|| (name.clone(), size.writable))
        })
        .collect()
}

/// The project in `project-mode-task`. The task has no hyphen and modes are a closed set, so it is read from the right.
fn project_of_container(name: &str) -> Option<&str> {
    let mut parts = name.rsplitn(3, '-');
    let (task, mode) = (parts.next()?, parts.next()?);
    let known = ["cli", "run", "toad"].contains(&mode) && !task.is_empty();
    parts.next().filter(|project| known && !project.is_empty())
}

/// Where Podman is, by the environment: the socket it names, the user's, else a service of our own.
fn settings(env: &Environment, runtime_dir: &Path) -> Result<Settings, Fault> {
    let user_dir = env.var("XDG_RUNTIME_DIR").map(Path::new);
    let mut settings = Settings::new(runtime_dir.join("podman"), user_dir, env.is_root);
    if let Some(program) = env.var("PATH").and_then(|path| find("podman", path)) {
        settings = settings.with_program(program);
    }
    match env.var("CONTAINER_HOST") {
        Some(url) => settings.with_container_host(url),
        None => Ok(settings),
    }
}

fn find(program: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|file| {
            nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
        })
}

/// Podman's images, as the rules know them.
fn known_images(images: &terok_podman::Images) -> Vec<classify::Image> {
    images
        .iter()
        .map(|image| classify::Image {
            id: format!("sha256:{}", image.id),
            names: image.tags.iter().map(|tag| Name::parse(tag)).collect(),
            parent: image.parent.as_ref().map(|id| format!("sha256:{id}")),
            created: jiff::Timestamp::from_second(image.created).unwrap_or_default(),
            size: image.size,
            labels: image.labels.clone(),
            history: Vec::new(),
            containers: Some(image.containers),
        })
        .collect()
}

/// Runs work on files where it may block.
async fn blocking<T, F>(work: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Fault::internal(format!("work on images failed: {error}"))),
    }
}
