//! Container images: what listing, building and cleaning up answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A layer of a project's image.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Layer {
    /// The base image with what every task needs.
    #[serde(rename = "l0")]
    L0,
    /// The agents.
    #[serde(rename = "l1")]
    L1,
    /// One tool without agents.
    #[serde(rename = "l1-sidecar")]
    L1Sidecar,
    /// The project's own layer.
    #[serde(rename = "l2-cli")]
    L2Cli,
    /// The project's own layer without agents, for debugging.
    #[serde(rename = "l2-dev")]
    L2Dev,
}

impl Layer {
    /// The name on the wire and in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::L0 => "l0",
            Self::L1 => "l1",
            Self::L1Sidecar => "l1-sidecar",
            Self::L2Cli => "l2-cli",
            Self::L2Dev => "l2-dev",
        }
    }

    /// The layer of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::L0,
            Self::L1,
            Self::L1Sidecar,
            Self::L2Cli,
            Self::L2Dev,
        ]
        .into_iter()
        .find(|layer| layer.name() == name)
    }
}

/// One name of a container image that terok made; an image with several tags appears once per tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// Repository as Podman has it, or `<none>`.
    pub repository: String,
    /// Tag, or `<none>`.
    pub tag: String,
    /// `sha256:` and 64 hex digits.
    pub image_id: String,
    /// Size for humans, in SI units.
    pub size: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Bytes of layers that other images use, too; only where disk usage is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
    /// Bytes that its removal would free; only where disk usage is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_bytes: Option<u64>,
    /// Age for humans.
    pub created: String,
    /// When it was built, RFC 3339, UTC.
    pub created_at: String,
    /// `repository:tag`; for an image without a name `<none> (short id)`.
    pub full_name: String,
    /// Repository without `localhost/`.
    pub project_key: String,
    /// Which layer it is, if known.
    pub layer: Option<Layer>,
    /// Whose layer it is, if it belongs to one project.
    pub project_id: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that use it; null if unknown.
    pub containers: Option<u64>,
}

/// What was removed, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CleanupResult {
    /// Full names, in the order of removal.
    pub removed: Vec<String>,
    /// Full names of those that stay, mostly because a container uses them.
    pub failed: Vec<String>,
    /// Nothing was really removed.
    pub dry_run: bool,
}

/// One layer that a build touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuiltImage {
    /// Which.
    pub layer: Layer,
    /// Its full name.
    pub tag: String,
    /// `sha256:` and 64 hex digits.
    pub image_id: String,
    /// It was there already and is unchanged.
    pub cached: bool,
}

/// What a build did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildResult {
    /// Layers in build order.
    pub images: Vec<BuiltImage>,
    /// Stale layers that were not rebuilt: `l0`, `l1`, `l2`.
    pub still_stale: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Where the build context was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratedDockerfiles {
    /// Files, absolute paths.
    pub paths: Vec<String>,
}
