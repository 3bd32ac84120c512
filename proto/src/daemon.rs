//! The daemon about itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    /// Not ready yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing operations.
    Stopping,
}

/// Counts of projects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectCounts {
    /// Projects that can be used.
    pub valid: u64,
    /// Projects that cannot.
    pub broken: u64,
}

/// Counts of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskCounts {
    /// Tasks whose container runs.
    pub running: u64,
}

/// What is known of Podman.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodmanStatus {
    /// It answers.
    pub available: bool,
    /// Its version.
    pub version: Option<String>,
    /// Its socket.
    pub socket: Option<String>,
    /// Why it is not available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is known of the vault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VaultSummary {
    /// It cannot be read now.
    pub locked: bool,
    /// Where its passphrase comes from.
    pub tier: Option<String>,
}

/// What is known of the gate server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateServerSummary {
    /// It accepts connections.
    pub listening: bool,
    /// Where.
    pub address: Option<String>,
}

/// What is known of polling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PollingSummary {
    /// Projects that are polled.
    pub projects: u64,
    /// When the next poll is due, RFC 3339, UTC.
    pub next_at: Option<String>,
}

/// Counts of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationCounts {
    /// Operations under way.
    pub running: u64,
}

/// Answer of `daemon.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStatus {
    /// Version of the program.
    pub version: String,
    /// Version of the wire contract.
    pub api_version: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Path of the socket.
    pub socket: String,
    /// Where it stands.
    pub state: DaemonState,
    /// The kill switch is engaged.
    pub panicked: bool,
    /// Projects.
    pub projects: ProjectCounts,
    /// Tasks.
    pub tasks: TaskCounts,
    /// Podman.
    pub podman: PodmanStatus,
    /// Vault.
    pub vault: VaultSummary,
    /// Gate server.
    pub gate_server: GateServerSummary,
    /// Polling.
    pub polling: PollingSummary,
    /// Operations.
    pub operations: OperationCounts,
    /// Abilities of this build.
    pub features: Vec<String>,
    /// Epoch of the event stream.
    pub epoch: String,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathSource {
    /// Environment of the daemon.
    Env,
    /// `config.yml`.
    Config,
    /// Built in.
    Default,
}

/// Answer of `daemon.paths`: every directory by name, where each comes from, and whether it exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonPaths {
    /// Paths by name.
    #[serde(flatten)]
    pub paths: BTreeMap<String, Value>,
    /// Where each comes from.
    pub sources: BTreeMap<String, PathSource>,
    /// Whether each exists.
    pub exists: BTreeMap<String, bool>,
}

/// Answer of `panic.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PanicStatus {
    /// The kill switch is engaged.
    pub panicked: bool,
    /// Since when, RFC 3339, UTC.
    pub since: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A free-form object.
pub type Object = Map<String, Value>;
