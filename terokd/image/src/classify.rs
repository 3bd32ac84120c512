//! Which images are terok's, which nobody needs any more, and in what order they may go.
//!
//! Rules over values: the same for Podman's answers and for recorded ones. Every removal goes through
//! [`Store::plan_removal`] or [`Store::plan_cleanup`], which take nothing that the rules do not call an orphan.

mod plan;

pub use plan::{Plan, Removal, Wanted};

use crate::labels;
use crate::sizes;
use crate::tags;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use terok_proto::image::{ImageInfo, Layer};

/// What Podman writes where a name is missing.
pub const NONE: &str = "<none>";

/// A name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Everything before the tag, as Podman has it.
    pub repository: String,
    /// Tag.
    pub tag: String,
}

impl Name {
    /// The name in a text such as `localhost/a:b`; without a tag it is `latest`.
    pub fn parse(text: &str) -> Self {
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, "latest"),
        };
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        }
    }

    /// `repository:tag`.
    pub fn full(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// The repository without `localhost/`.
    pub fn key(&self) -> &str {
        tags::without_localhost(&self.repository)
    }

    /// Which layer of terok's has such a name.
    pub fn layer(&self) -> Option<Layer> {
        // Ours are local and have no namespace; what came from a registry is a stranger's, whatever its tag.
        if self.key().contains('/') {
            return None;
        }
        match self.tag.as_str() {
            // First: the image of a project that is called like a base layer is the project's.
            tags::L2_TAG => return Some(Layer::L2Cli),
            tags::L2_DEV_TAG => return Some(Layer::L2Dev),
            NONE => return None,
            _ => {}
        }
        let key = self.key();
        // The reference's names go on after the prefix; ours do not, but its images stay visible.
        if key == tags::SIDECAR_REPOSITORY {
            Some(Layer::L1Sidecar)
        } else if key.starts_with(tags::L0_REPOSITORY) {
            Some(Layer::L0)
        } else if key.starts_with(tags::L1_REPOSITORY) {
            Some(Layer::L1)
        } else {
            None
        }
    }

    /// The project whose image has such a name.
    pub fn project(&self) -> Option<&str> {
        matches!(self.layer(), Some(Layer::L2Cli | Layer::L2Dev)).then(|| self.key())
    }
}

/// One image of the local store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:` and 64 hex digits.
    pub id: String,
    /// Names, in Podman's order. None for a dangling image.
    pub names: Vec<Name>,
    /// The image it was built from, if the store knows.
    pub parent: Option<String>,
    /// When it was built.
    pub created: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Comment and creating command of each entry of its history, where it was asked for.
    pub history: Vec<String>,
    /// Containers that use it, if known.
    pub containers: Option<u64>,
}

impl Image {
    /// Without any name.
    pub fn is_dangling(&self) -> bool {
        self.names
            .iter()
            .all(|name| name.repository == NONE && name.tag == NONE)
    }

    /// Whether the history has to be asked for, because labels and the build table do not tell whose it is.
    pub fn needs_history(&self, store: &Store<'_>) -> bool {
        (self.is_dangling() || self.names.iter().any(|name| name.project().is_some()))
            && !store.is_recorded(self)
            && !self.has_our_label()
    }

    /// Names of the base layers that its labels tell of, its own included.
    fn stands_on(&self) -> Vec<String> {
        let Some(base) = self.labels.get(labels::BASE) else {
            return Vec::new();
        };
        let mut names = vec![tags::l0(base)];
        if let Some(agents) = self.labels.get(labels::AGENTS) {
            let agents: Vec<&str> = agents.split(',').filter(|name| !name.is_empty()).collect();
            names.push(tags::l1(base, &agents));
        }
        names
    }

    fn has_our_label(&self) -> bool {
        [labels::LAYER, labels::BUILD_CONTEXT_HASH, labels::AGENTS]
            .iter()
            .any(|key| self.labels.get(*key).is_some_and(|value| !value.is_empty()))
    }

    fn has_our_history(&self) -> bool {
        self.history.iter().any(|entry| {
            ["terok-l0", "terok-l1"]
                .iter()
                .any(|name| entry.contains(name))
        })
    }
}

/// First twelve hex digits of an id.
pub fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// The name of an image in lists and results.
pub fn full_name(id: &str, name: Option<&Name>) -> String {
    match name {
        Some(name) if !(name.repository == NONE && name.tag == NONE) => name.full(),
        _ => format!("{NONE} ({})", short_id(id)),
    }
}

/// The projects there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projects {
    /// Directory names and ids of all, broken ones included.
    Known(BTreeSet<String>),
    /// They could not be read. Not the same as none.
    Unknown,
}

/// The images of a store and what is known around them.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Images in Podman's order.
    pub images: &'a [Image],
    /// Projects.
    pub projects: &'a Projects,
    /// Ids of images that this daemon built.
    pub built: &'a BTreeSet<String>,
}

/// An image under one of its names, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The image.
    pub image: &'a Image,
    /// The name.
    pub name: Option<&'a Name>,
}

impl Listed<'_> {
    /// The name in lists and results.
    pub fn full_name(&self) -> String {
        full_name(&self.image.id, self.name)
    }

    /// The wire form.
    pub fn info(&self, now: Timestamp) -> ImageInfo {
        let (repository, tag) = self
            .name
            .map_or((NONE, NONE), |name| (&name.repository, &name.tag));
        let labelled = self.image.labels.get(labels::LAYER);
        ImageInfo {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            image_id: self.image.id.clone(),
            size: sizes::image(self.image.size),
            size_bytes: self.image.size,
            shared_bytes: None,
            unique_bytes: None,
            created: sizes::age(self.image.created, now),
            created_at: self.image.created.to_string(),
            full_name: self.full_name(),
            project_key: tags::without_localhost(repository).to_owned(),
            layer: self
                .name
                .map_or_else(|| labelled.and_then(|name| Layer::parse(name)), Name::layer),
            project_id: self.name.and_then(Name::project).map(str::to_owned),
            labels: self.image.labels.clone(),
            containers: self.image.containers,
        }
    }
}

impl<'a> Store<'a> {
    /// Every image of terok's under each of its names, in Podman's order. With a project: its own and all base layers.
    pub fn list(&self, project_id: Option<&str>) -> Vec<Listed<'a>> {
        self.images
            .iter()
            .flat_map(|image| image.names.iter().map(move |name| (image, name)))
            .filter(|(_, name)| match (name.layer(), name.project()) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(_), Some(project)) => project_id.is_none_or(|wanted| wanted == project),
            })
            .map(|(image, name)| Listed {
                image,
                name: Some(name),
            })
            .collect()
    }

    /// Images of one project.
    pub fn of_project(&self, project_id: &str) -> Vec<Listed<'a>> {
        let mut listed = self.list(Some(project_id));
        listed.retain(|listed| listed.name.and_then(Name::project).is_some());
        listed
    }

    /// Base layers, and dangling images that terok built.
    pub fn global(&self) -> Vec<Listed<'a>> {
        let mut listed = self.dangling();
        listed.extend(
            self.list(None)
                .into_iter()
                .filter(|listed| listed.name.and_then(Name::project).is_none()),
        );
        listed
    }

    /// What nobody needs any more: dangling images that terok built, then images of projects that are gone. One entry
    /// per image. Without knowledge of the projects none of theirs.
    pub fn orphaned(&self) -> Vec<Listed<'a>> {
        let mut seen = BTreeSet::new();
        let mut orphans = self.dangling();
        orphans.extend(self.of_gone_projects());
        orphans.retain(|listed| seen.insert(&listed.image.id));
        orphans
    }

    /// Unnamed images that nothing was built from; those below others are Podman's build cache, or go with them.
    fn dangling(&self) -> Vec<Listed<'a>> {
        let parents: BTreeSet<&str> = self
            .images
            .iter()
            .filter_map(|image| image.parent.as_deref())
            .collect();
        self.images
            .iter()
            .filter(|image| image.is_dangling() && !parents.contains(image.id.as_str()))
            .filter(|image| self.is_ours(image))
            .map(|image| Listed { image, name: None })
            .collect()
    }

    fn of_gone_projects(&self) -> Vec<Listed<'a>> {
        let Projects::Known(known) = self.projects else {
            return Vec::new();
        };
        self.images
            .iter()
            .filter(|image| self.is_ours(image))
            .flat_map(|image| image.names.iter().map(move |name| (image, name)))
            .filter(|(_, name)| {
                name.project()
                    .is_some_and(|project| !known.contains(project))
            })
            .map(|(image, name)| Listed {
                image,
                name: Some(name),
            })
            .collect()
    }

    fn is_recorded(&self, image: &Image) -> bool {
        self.built.contains(&image.id)
    }

    /// Whether terok built this very image. A label is inherited, so it counts only where no name is a stranger's.
    pub fn is_ours(&self, image: &Image) -> bool {
        let no_strangers_name =
            || image.is_dangling() || image.names.iter().all(|name| name.layer().is_some());
        self.is_recorded(image)
            || (image.has_our_label() && no_strangers_name())
            || image.has_our_history()
    }

    /// Base layers that nothing needs: `needed` holds the names that manifests, configurations and the default alias
    /// mention. What a container uses, and what a needed image or one of a project stands on, is needed too.
    pub fn unused_base_images(&self, needed: &BTreeSet<String>) -> Vec<Listed<'a>> {
        let needed: BTreeSet<&str> = needed.iter().map(|n| tags::without_localhost(n)).collect();
        let is_root = |image: &Image| {
            image.containers.is_some_and(|containers| containers > 0)
                || image.names.iter().any(|name| {
                    name.project().is_some()
                        || needed.contains(tags::without_localhost(&name.full()))
                })
        };
        // Podman does not list the steps in between, so parents seldom lead to the base; labels do.
        let below: BTreeSet<String> = self
            .images
            .iter()
            .filter(|image| is_root(image))
            .flat_map(Image::stands_on)
            .collect();
        let by_id: BTreeMap<&str, &Image> = self
            .images
            .iter()
            .map(|image| (image.id.as_str(), image))
            .collect();
        let mut kept: BTreeSet<&str> = BTreeSet::new();
        for image in self.images {
            let is_needed = is_root(image)
                || image
                    .names
                    .iter()
                    .any(|name| below.contains(tags::without_localhost(&name.full())));
            let mut at = is_needed.then_some(image);
            // Ends at what was walked before, so neither long chains nor a circle cost more than once.
            while let Some(image) = at {
                if !kept.insert(&image.id) {
                    break;
                }
                at = image
                    .parent
                    .as_deref()
                    .and_then(|id| by_id.get(id).copied());
            }
        }
        let mut listed = self.list(None);
        listed.retain(|listed| {
            listed.name.and_then(Name::project).is_none()
                && !kept.contains(listed.image.id.as_str())
        });
        listed
    }
}

#[cfg(test)]
mod tests;
