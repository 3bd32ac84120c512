//! Labels: what an image says about itself.
//!
//! Labels are inherited by whatever is built from our images, so one alone never proves that an image is ours.

use std::collections::{BTreeMap, BTreeSet};
use terok_proto::image::Layer;
use terok_proto::{Fault, Kind};

/// Names of installed entries, comma-separated.
pub const AGENTS: &str = "ai.terok.agents";
/// Combined hash of the layers.
pub const BUILD_CONTEXT_HASH: &str = "terok.build_context_hash";
/// Which layer.
pub const LAYER: &str = "terokd.layer";
/// Hash of the layer.
pub const CONTENT_HASH: &str = "terokd.content_hash";
/// On an agent layer: hash of the base layer that it stands on.
pub const L0_HASH: &str = "terokd.l0_hash";
/// Whose image.
pub const PROJECT: &str = "terokd.project";
/// Base image.
pub const BASE: &str = "terokd.base";
/// Version of the daemon that built it.
pub const VERSION: &str = "terokd.version";

/// What a layer is labelled with when it is built.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Which layer.
    pub layer: Layer,
    /// Its hash.
    pub content_hash: &'a str,
    /// Hash of the base layer below an agent layer.
    pub l0_hash: Option<&'a str>,
    /// The normalised base.
    pub base: &'a str,
    /// Version of the daemon.
    pub version: &'a str,
    /// Project and combined hash of an L2.
    pub project: Option<(&'a str, &'a str)>,
}

impl Stamp<'_> {
    /// The labels, for `--label` or the build request.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut put = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        put(LAYER, self.layer.name());
        put(CONTENT_HASH, self.content_hash);
        put(BASE, self.base);
        put(VERSION, self.version);
        if let Some(l0_hash) = self.l0_hash {
            put(L0_HASH, l0_hash);
        }
        if let Some((project, combined)) = self.project {
            put(PROJECT, project);
            put(BUILD_CONTEXT_HASH, combined);
        }
        labels
    }
}

/// What an image says about the agents in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing: no image, no label, or an empty one on an image of the reference. Nobody is turned away.
    Unknown,
    /// Exactly these.
    These(BTreeSet<String>),
}

impl Installed {
    /// Reads the labels of an image.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        let names: BTreeSet<String> = labels
            .get(AGENTS)
            .map(String::as_str)
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names.is_empty() && !(labels.contains_key(LAYER) && labels.contains_key(AGENTS)) {
            Self::Unknown
        } else {
            Self::These(names)
        }
    }

    /// The names, if they are known.
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Unknown => None,
            Self::These(names) => Some(names),
        }
    }

    /// Lets an agent pass that is installed, or might be.
    ///
    /// # Errors
    /// `agent_not_installed`, with the installed ones and what to do.
    pub fn require(&self, project_id: &str, image: &str, agent: &str) -> Result<(), Fault> {
        let Self::These(names) = self else {
            return Ok(());
        };
        if names.contains(agent) {
            return Ok(());
        }
        let available: Vec<&str> = names.iter().map(String::as_str).collect();
        let listed = if available.is_empty() {
            "none".to_owned()
        } else {
            available.join(", ")
        };
        Err(Fault::new(
            Kind::AgentNotInstalled,
            format!(
                "`{agent}` is not in the image `{image}` of project `{project_id}`; installed: {listed}"
            ),
        )
        .with("agent", agent)
        .with("project_id", project_id)
        .with("image", image)
        .with("available", available)
        .hint("add it to `image.agents` in `project.yml` and build the project's images"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_empty_label_counts_only_on_images_of_ours() {
        assert_eq!(Installed::of(&labels(&[])), Installed::Unknown);
        assert_eq!(
            Installed::of(&labels(&[(AGENTS, " , ")])),
            Installed::Unknown
        );
        assert_eq!(Installed::of(&labels(&[(LAYER, "l1")])), Installed::Unknown);
        assert_eq!(
            Installed::of(&labels(&[(AGENTS, ""), (LAYER, "l2-cli")])),
            Installed::These(BTreeSet::new())
        );
        let some = Installed::of(&labels(&[(AGENTS, " codex,claude ,")]));
        assert_eq!(
            some.names().expect("known").iter().collect::<Vec<_>>(),
            ["claude", "codex"]
        );
    }

    #[test]
    fn who_is_missing_is_told_what_to_do() {
        let some = Installed::of(&labels(&[(AGENTS, "codex,claude")]));
        assert!(some.require("p", "p:l2-cli", "codex").is_ok());
        assert!(Installed::Unknown.require("p", "p:l2-cli", "vibe").is_ok());
        let fault = some.require("p", "p:l2-cli", "vibe").expect_err("missing");
        assert_eq!(fault.kind, Kind::AgentNotInstalled);
        assert!(fault.message.contains("claude, codex"), "{fault}");
        assert_eq!(
            fault.data["available"],
            serde_json::json!(["claude", "codex"])
        );
    }

    #[test]
    fn only_project_layers_carry_the_combined_hash() {
        let stamp = Stamp {
            layer: Layer::L0,
            content_hash: "h",
            l0_hash: None,
            base: "b",
            version: "1",
            project: None,
        };
        assert!(!stamp.labels().contains_key(BUILD_CONTEXT_HASH));
        let stamp = Stamp {
            layer: Layer::L2Cli,
            project: Some(("p", "c")),
            ..stamp
        };
        let labels = stamp.labels();
        assert_eq!(
            (
                labels[PROJECT].as_str(),
                labels[BUILD_CONTEXT_HASH].as_str()
            ),
            ("p", "c")
        );
        assert_eq!(labels[LAYER], "l2-cli");
    }
}
