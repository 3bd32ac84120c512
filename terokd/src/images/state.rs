//! What a project's images are like, without building or rendering anything that is known already.

use super::render::Subject;
use super::{Images, blocking};
use crate::registry::ProjectEntry;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use terok_config::selection;
use terok_image::labels::Installed;
use terok_image::manifest::Manifest;
use terok_image::stale::{LAYERS, rebuild_set, stale_layers};
use terok_image::tags;
use terok_podman::Images as Store;
use terok_proto::{Fault, Kind};

/// How long a look at a project waits for Podman, which takes seconds to list hundreds of images.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long nobody else waits so long, once one has waited in vain …
const HANGS: Duration = Duration::from_secs(30);
/// … but this long, in which what is remembered is found.
const IMPATIENCE: Duration = Duration::from_millis(50);

/// The image keys of `project.state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageState {
    /// All three Dockerfiles are staged.
    pub dockerfiles: bool,
    /// What is staged differs from what would be rendered now.
    pub dockerfiles_old: bool,
    /// The project's image exists.
    pub images: bool,
    /// It is not what would be built now.
    pub images_old: bool,
    /// Which layers are not.
    pub stale_layers: Vec<String>,
    /// They and what stands on them.
    pub rebuild_set: Vec<String>,
    /// Layers that do not exist.
    pub missing_layers: Vec<String>,
    /// What is installed in the image, if it says so.
    pub agents_installed: Option<Vec<String>>,
    /// What the configuration selects, if that is valid.
    pub agents_configured: Option<Vec<String>>,
    /// What could not be found out.
    pub warnings: Vec<String>,
}

impl Images {
    /// Whether a project's image exists. Reads no configuration.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn exists(&self, project: &str) -> Result<bool, Fault> {
        let images = self.podman()?.images().await?;
        Ok(images.by_tag(&tags::local(&tags::l2(project))).is_some())
    }

    /// What a project's image says of the agents in it.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn installed(&self, project: &str) -> Result<Installed, Fault> {
        let images = self.store().await?;
        let image = images.by_tag(&tags::local(&tags::l2(project)));
        Ok(image.map_or(Installed::Unknown, |image| Installed::of(&image.labels)))
    }

    /// The list of images, waited for as long as a look at a project may take.
    async fn store(&self) -> Result<Arc<Store>, Fault> {
        let asked = async { self.podman()?.images().await };
        let hangs = || {
            let hangs = self.inner.hangs.lock();
            hangs.unwrap_or_else(PoisonError::into_inner)
        };
        let known = hangs().is_some_and(|since| since.elapsed() < HANGS);
        let patience = if known { IMPATIENCE } else { PATIENCE };
        let Ok(answer) = tokio::time::timeout(patience, asked).await else {
            if !known {
                *hangs() = Some(Instant::now());
            }
            let waited = PATIENCE.as_secs();
            return Err(Fault::new(
                Kind::PodmanTimeout,
                format!("podman did not list its images within {waited} s"),
            ));
        };
        *hangs() = None;
        answer
    }

    /// The image keys of a healthy project's state. Without Podman it says so and tells the rest.
    ///
    /// # Errors
    /// The project is broken.
    pub async fn state(&self, entry: &Arc<ProjectEntry>) -> Result<ImageState, Fault> {
        entry.project()?;
        let subject = self.subject_of(Arc::clone(entry), None);
        let store = self.store().await;
        let inner = Arc::clone(&self.inner);
        blocking(move || look(&subject, store, &inner.contexts)).await
    }
}

fn look(
    subject: &Subject,
    store: Result<Arc<Store>, Fault>,
    contexts: &super::Contexts,
) -> Result<ImageState, Fault> {
    let config = &subject.entry.project()?.config;
    let stage = subject.stage()?;
    let mut state = ImageState {
        dockerfiles: stage.has_dockerfiles(),
        agents_configured: selection::resolve_text(&config.agents, &subject.snapshot.roster)
            .ok()
            .map(|selected| selected.names),
        ..ImageState::default()
    };
    let render = contexts.of(subject);
    if let Err(fault) = &render {
        state
            .warnings
            .push(format!("the images cannot be rendered: {}", fault.message));
    }
    if state.dockerfiles && render.is_ok() {
        state.dockerfiles_old = contexts.is_old(subject, &stage)?;
    }
    match &store {
        Err(fault) => state
            .warnings
            .push(format!("images are unknown: {}", fault.message)),
        Ok(store) => {
            let own = store.by_tag(&tags::local(&tags::l2(&config.id)));
            state.images = own.is_some();
            state.agents_installed = own.and_then(|image| {
                let installed = Installed::of(&image.labels);
                installed
                    .names()
                    .map(|names| names.iter().cloned().collect())
            });
            if let Ok(render) = &render {
                let foundation = &render.context.base.foundation;
                let there = [foundation.l0_tag(), foundation.l1_tag()]
                    .map(|tag| store.by_tag(&tag).is_some());
                state.missing_layers = LAYERS
                    .into_iter()
                    .zip([there[0], there[1], state.images])
                    .filter(|(_, there)| !there)
                    .map(|(layer, _)| layer.to_owned())
                    .collect();
            }
        }
    }
    if state.images && state.dockerfiles {
        let stale = if state.dockerfiles_old {
            LAYERS.to_vec()
        } else {
            let hashes = render.as_ref().ok().map(|render| &render.context.hashes);
            stale_layers(Manifest::read(stage.manifest()).as_ref(), hashes)
        };
        state.images_old = !stale.is_empty();
        state.rebuild_set = rebuild_set(&stale).into_iter().map(str::to_owned).collect();
        state.stale_layers = stale.into_iter().map(str::to_owned).collect();
    }
    Ok(state)
}
