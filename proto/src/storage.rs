//! Disk footprint.

use crate::error::ErrorObject;
use crate::image::ImageInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Footprint of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStorage {
    /// Task id.
    pub task_id: String,
    /// Workspace, apparent size.
    pub workspace_bytes: u64,
    /// Agent configuration, apparent size.
    pub agent_config_bytes: u64,
    /// Writable layer of its container, if known.
    pub overlay_bytes: Option<u64>,
    /// Sum of the known ones.
    pub total_bytes: u64,
    /// What the file system allocated for workspace and agent configuration.
    pub allocated_bytes: u64,
}

/// Footprint of one project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectDetail {
    /// Project id.
    pub project_id: String,
    /// Its images.
    pub images: Vec<ImageInfo>,
    /// Why the images are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_error: Option<ErrorObject>,
    /// Its tasks, by id.
    pub tasks: Vec<TaskStorage>,
    /// Writable layers by container name.
    pub overlays: BTreeMap<String, u64>,
    /// Sum over images.
    pub images_bytes: u64,
    /// Sum over workspaces.
    pub workspace_bytes: u64,
    /// Sum over agent configurations.
    pub agent_config_bytes: u64,
    /// Sum over overlays.
    pub overlay_bytes: u64,
    /// Sum of all.
    pub total_bytes: u64,
    /// Some directories could not be read.
    pub incomplete: bool,
    /// When the sizes were measured.
    pub as_of: String,
}

/// A directory that all tasks share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMount {
    /// Directory name.
    pub name: String,
    /// Name for humans.
    pub label: String,
    /// Apparent size.
    pub bytes: u64,
}

/// One row per project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectStorage {
    /// Project id, or `(orphans)`.
    pub project_id: String,
    /// Its images.
    pub image_bytes: u64,
    /// Its tasks' workspaces.
    pub workspace_bytes: u64,
    /// Number of tasks.
    pub task_count: u64,
    /// Sum.
    pub total_bytes: u64,
}

/// One gate on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateStorage {
    /// Where.
    pub path: String,
    /// Projects that use it.
    pub project_ids: Vec<String>,
    /// Apparent size.
    pub bytes: u64,
}

/// Footprint of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageOverview {
    /// Images that belong to no single project.
    pub global_images: Vec<ImageInfo>,
    /// Why the images are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_error: Option<ErrorObject>,
    /// Agent configuration directories.
    pub shared_mounts: Vec<SharedMount>,
    /// Projects, by id.
    pub projects: Vec<ProjectStorage>,
    /// Gates, by path.
    pub gates: Vec<GateStorage>,
    /// Base images that no project uses.
    pub unused_base_images: Vec<ImageInfo>,
    /// Sum over global images.
    pub global_images_bytes: u64,
    /// Sum over shared mounts.
    pub shared_mounts_bytes: u64,
    /// Sum over projects.
    pub projects_bytes: u64,
    /// Sum over gates.
    pub gates_bytes: u64,
    /// Sum of all but the gates.
    pub grand_total: u64,
    /// Some directories could not be read.
    pub incomplete: bool,
    /// When the sizes were measured.
    pub as_of: String,
}
