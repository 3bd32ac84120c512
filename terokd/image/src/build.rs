//! What a build of a project's images comes to: which layers, from what, under which names, and what it leaves behind.
//!
//! Plans only; whoever talks to Podman carries them out.

use crate::hash::Hashes;
use crate::labels::{self, Stamp};
use crate::layers::{
    BASE_ARGUMENT, BUST_ARGUMENT, Context, L0_FILE, L1_FILE, L2_FILE, NO_BUST, Rendered,
};
use crate::manifest::{LayerRecord, Manifest};
use crate::{stale, tags};
use std::collections::BTreeMap;
use terok_proto::image::{BuiltImage, Layer};
use terok_proto::{Fault, Kind};

/// Labels of an image.
pub type Labels = BTreeMap<String, String>;

/// What the caller of a build asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The image for debugging too.
    pub include_dev: bool,
    /// Install the agents anew.
    pub refresh_agents: bool,
    /// Build every layer without cache, from the newest base.
    pub full: bool,
    /// Build base layers that are stale, with what the cache has.
    pub rebuild_stale: bool,
}

impl Options {
    /// The cache-bust value of a build that starts now: the current second for new agents, else the one that was last
    /// used for this base, so that selections share layers.
    pub fn bust(&self, now: jiff::Timestamp, last: Option<&str>) -> String {
        if self.refresh_agents || self.full {
            return now.as_second().to_string();
        }
        // It comes from a file and goes into a Dockerfile.
        let is_number = |bust: &&str| bust.len() <= 20 && bust.bytes().all(|b| b.is_ascii_digit());
        last.filter(is_number)
            .filter(|bust| !bust.is_empty())
            .unwrap_or(NO_BUST)
            .to_owned()
    }
}

/// The base layers that the store has under the names that this build would use: their labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Present<'a> {
    /// Of the base layer.
    pub l0: Option<&'a Labels>,
    /// Of the agent layer with exactly the selection.
    pub l1: Option<&'a Labels>,
}

/// Which directory is the context of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`crate::layers::Foundation::files`] with the cache-bust value.
    Foundation,
    /// The project's own, as it is staged.
    Project,
}

/// One image to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which layer.
    pub layer: Layer,
    /// Where its context is.
    pub source: Source,
    /// Its Dockerfile.
    pub dockerfile: &'static str,
    /// Full name of the image.
    pub tag: String,
    /// Build arguments. The proxy's come on top.
    pub arguments: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
    /// Without Podman's cache.
    pub no_cache: bool,
    /// The base is pulled even if it is there; everything else is never pulled.
    pub pull: bool,
}

/// A build, and what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The layers below the project's.
    pub base: &'a Rendered,
    /// Project and build context. None for base layers alone.
    pub project: Option<(&'a str, &'a Context)>,
    /// What is asked for.
    pub options: Options,
    /// Cache-bust value, from [`Options::bust`].
    pub bust: &'a str,
    /// Version of the daemon.
    pub version: &'a str,
}

/// Refuses a project that no image can be named after.
///
/// # Errors
/// `invalid_config`, with the reason.
pub fn check_project(project_id: &str) -> Result<(), Fault> {
    match terok_config::id::image_name_problem(project_id) {
        None => Ok(()),
        Some(why) => Err(Fault::new(
            Kind::InvalidConfig,
            format!("no image can be built for project `{project_id}`: {why}"),
        )
        .with("project_id", project_id)),
    }
}

fn content_hash(labels: Option<&Labels>) -> Option<&str> {
    labels?.get(labels::CONTENT_HASH).map(String::as_str)
}

/// Hash of the base layer below an agent layer. Whoever built the base layer anew since did not move it there.
fn l0_hash(labels: Option<&Labels>) -> Option<&str> {
    labels?.get(labels::L0_HASH).map(String::as_str)
}

impl Plan<'_> {
    /// Whether base and agent layer are built: one is missing, they are asked for, or stale ones are.
    pub fn builds_foundation(&self, present: Present<'_>) -> bool {
        let Options {
            refresh_agents,
            full,
            rebuild_stale,
            ..
        } = self.options;
        let is_fresh = || {
            content_hash(present.l0) == Some(&self.base.l0)
                && l0_hash(present.l1) == Some(&self.base.l0)
                && content_hash(present.l1) == Some(&self.base.l1)
        };
        refresh_agents
            || full
            || present.l0.is_none()
            || present.l1.is_none()
            || (rebuild_stale && !is_fresh())
    }

    /// The images to build, in order.
    pub fn steps(&self, present: Present<'_>) -> Vec<Step> {
        let foundation = &self.base.foundation;
        let mut steps = Vec::new();
        if self.builds_foundation(present) {
            steps.push(Step {
                // A base that the user made has no registry to be asked.
                pull: self.options.full && !tags::is_local(foundation.base()),
                ..self.step(Layer::L0, &self.base.l0, foundation.base())
            });
            let mut l1 = self.step(Layer::L1, &self.base.l1, &foundation.l0_tag());
            l1.arguments
                .insert(BUST_ARGUMENT.to_owned(), self.bust.to_owned());
            steps.push(l1);
        }
        if let Some((_, context)) = self.project {
            let hash = &context.hashes.l2;
            steps.push(self.step(Layer::L2Cli, hash, &foundation.l1_tag()));
            if self.options.include_dev {
                steps.push(self.step(Layer::L2Dev, hash, &foundation.l0_tag()));
            }
        }
        steps
    }

    fn step(&self, layer: Layer, content_hash: &str, base: &str) -> Step {
        let is_base = matches!(layer, Layer::L0 | Layer::L1 | Layer::L1Sidecar);
        let project = self
            .project
            .filter(|_| !is_base)
            .map(|(id, context)| (id, context.hashes.combined.as_str()));
        let project_id = project.map_or("", |(id, _)| id);
        let (dockerfile, tag) = match layer {
            Layer::L0 => (L0_FILE, self.base.foundation.l0_tag()),
            Layer::L1 | Layer::L1Sidecar => (L1_FILE, self.base.foundation.l1_tag()),
            Layer::L2Cli => (L2_FILE, tags::local(&tags::l2(project_id))),
            Layer::L2Dev => (L2_FILE, tags::local(&tags::l2_dev(project_id))),
        };
        let stamp = Stamp {
            layer,
            content_hash,
            l0_hash: (layer == Layer::L1).then_some(self.base.l0.as_str()),
            base: self.base.foundation.base(),
            version: self.version,
            project,
        };
        Step {
            layer,
            source: if is_base {
                Source::Foundation
            } else {
                Source::Project
            },
            dockerfile,
            tag,
            arguments: BTreeMap::from([(BASE_ARGUMENT.to_owned(), base.to_owned())]),
            labels: stamp.labels(),
            no_cache: self.options.full,
            pull: false,
        }
    }

    /// The manifest after a build of `images` at `now`. Of base layers that were used as they were, `present` tells
    /// what they were made of, and `before` when. Null without a project.
    pub fn manifest(
        &self,
        images: &[BuiltImage],
        present: Present<'_>,
        before: Option<&Manifest>,
        now: jiff::Timestamp,
    ) -> Option<Manifest> {
        let (project_id, context) = self.project?;
        let foundation = &self.base.foundation;
        let hashes = &context.hashes;
        let at = jiff::Timestamp::from_second(now.as_second())
            .unwrap_or(now)
            .to_string();
        let record = |layer: Layer,
                      tag: String,
                      hash: &str,
                      used: Option<&str>,
                      old: Option<&LayerRecord>| {
            let built = images.iter().find(|image| image.layer == layer);
            let old = old.filter(|old| built.is_none() && old.tag == tag);
            LayerRecord {
                content_hash: match built {
                    Some(_) => Some(hash.to_owned()),
                    None => used.map(str::to_owned),
                },
                image_id: match built {
                    Some(image) => Some(image.image_id.clone()),
                    None => old.and_then(|old| old.image_id.clone()),
                },
                built_at: match built {
                    Some(_) => Some(at.clone()),
                    None => old.and_then(|old| old.built_at.clone()),
                },
                tag,
                agents_refreshed_at: None,
                cache_bust: None,
            }
        };
        let name = |tag: String| tags::without_localhost(&tag).to_owned();
        let mut manifest = Manifest::new(
            foundation.base(),
            Some(foundation.family()),
            foundation.names(),
            hashes,
        );
        let old = |get: fn(&Manifest) -> &Option<LayerRecord>| before.and_then(|m| get(m).as_ref());
        let old_l1 = old(|m| &m.l1);
        manifest.l0 = Some(record(
            Layer::L0,
            name(foundation.l0_tag()),
            &hashes.l0,
            l0_hash(present.l1),
            old(|m| &m.l0),
        ));
        let mut l1 = record(
            Layer::L1,
            name(foundation.l1_tag()),
            &hashes.l1,
            content_hash(present.l1),
            old_l1,
        );
        let refreshed = self.options.refresh_agents || self.options.full;
        let same = old_l1.filter(|old| old.tag == l1.tag);
        l1.agents_refreshed_at = match refreshed {
            true => Some(at.clone()),
            false => same.and_then(|old| old.agents_refreshed_at.clone()),
        };
        l1.cache_bust = match images.iter().any(|image| image.layer == Layer::L1) {
            true => Some(self.bust.to_owned()),
            false => same.and_then(|old| old.cache_bust.clone()),
        };
        manifest.l1 = Some(l1);
        manifest.l2_cli = Some(record(
            Layer::L2Cli,
            tags::l2(project_id),
            &hashes.l2,
            None,
            None,
        ));
        manifest.l2_dev = match images.iter().any(|image| image.layer == Layer::L2Dev) {
            true => Some(record(
                Layer::L2Dev,
                tags::l2_dev(project_id),
                &hashes.l2,
                None,
                None,
            )),
            false => before.and_then(|before| before.l2_dev.clone()),
        };
        if let Some(before) = before.filter(|_| !images.iter().any(|i| i.layer == Layer::L1)) {
            manifest.agents_versions = before.agents_versions.clone();
        }
        Some(manifest)
    }
}

/// The stale layers that a build left as they were.
pub fn still_stale(manifest: &Manifest, current: &Hashes) -> Vec<String> {
    stale::stale_layers(Some(manifest), Some(current))
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Versions of what was installed, from a line of the build log. Null for any other line.
pub fn versions(line: &str) -> Option<BTreeMap<String, String>> {
    let (_, json) = line.split_once("terok-versions: ")?;
    let versions: BTreeMap<String, String> = serde_json::from_str(json.trim()).ok()?;
    // The programs that are asked are strangers.
    let plain = |text: &String| text.len() <= 100 && text.chars().all(|c| c.is_ascii_graphic());
    Some(
        versions
            .into_iter()
            .filter(|(name, version)| plain(name) && plain(version))
            .take(1000)
            .collect(),
    )
}

#[cfg(test)]
mod tests;
