//! Projects, presets, agents and what is known about a project's infrastructure.

use crate::config::ProjectConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A valid project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    /// Project id.
    pub id: String,
    /// Who may push to upstream.
    pub security_class: crate::config::SecurityClass,
    /// Upstream is reached over SSH, so a deploy key has to be registered there.
    pub needs_ssh_key_registration: bool,
    /// The resolved configuration.
    pub config: ProjectConfig,
    /// Whether `run.gpus` asks for GPUs.
    pub gpu: bool,
    /// `project.name`.
    pub display_name: Option<String>,
    /// Set by `derive_project`: keys of the source that were not taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Vec<String>>,
    /// Set by `derive_project`: what the user should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// A project directory whose `project.yml` cannot be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokenProject {
    /// Name of the directory.
    pub id: String,
    /// Path of the `project.yml`.
    pub config_path: String,
    /// What is wrong, with one line per problem.
    pub error: String,
}

/// All projects on disk, healthy and broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoverResult {
    /// The valid ones, by id.
    pub projects: Vec<ProjectConfig>,
    /// The others, by id.
    pub broken: Vec<BrokenProject>,
}

/// What `delete_project` did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteProjectResult {
    /// What was removed, in order.
    pub deleted: Vec<String>,
    /// What was left alone, and why.
    pub skipped: Vec<String>,
    /// The archive; null for a dry run.
    pub archive: Option<String>,
    /// What went wrong without stopping the deletion.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The same facts for machines.
    #[serde(default)]
    pub structured: Vec<DeleteStep>,
    /// A system project of the same id becomes visible again.
    #[serde(default)]
    pub reveals_system_project: bool,
}

/// One thing that a deletion removed or left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteStep {
    /// `tasks_root`, `state`, `build`, `task_archives`, `ssh_keys`, `gate`, `staging_root`, `config`, …
    pub what: String,
    /// Where, if it is a path.
    pub path: Option<String>,
    /// `deleted`, `skipped`, `planned` or `failed`.
    pub outcome: String,
    /// Why, unless it was simply done.
    pub reason: Option<String>,
}

/// Where a preset comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PresetSource {
    /// `<root>/presets`.
    Project,
    /// The user presets directory.
    Global,
    /// Shipped with the daemon.
    Bundled,
}

/// One preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PresetInfo {
    /// File name without its extension.
    pub name: String,
    /// Where it comes from.
    pub source: PresetSource,
    /// The file, or `builtin:NAME`.
    pub path: String,
    /// Why it cannot be used.
    pub error: Option<String>,
}

/// A preset's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedPreset {
    /// The mapping, with sub-agent paths resolved.
    pub data: Map<String, Value>,
    /// The file, or `builtin:NAME`.
    pub path: String,
}

/// Text of a `project.yml` and its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectYaml {
    /// The file.
    pub path: String,
    /// Its content.
    pub text: String,
    /// Lower-case hex SHA-256 of its bytes.
    pub hash: String,
}

/// Infrastructure of a project at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectState {
    /// All three Dockerfiles exist.
    pub dockerfiles: bool,
    /// One of them differs from what would be rendered now.
    pub dockerfiles_old: bool,
    /// The project image exists.
    pub images: bool,
    /// Layers are stale.
    pub images_old: bool,
    /// Stale layers among `l0`, `l1`, `l2`.
    pub stale_layers: Vec<String>,
    /// Layers to rebuild: the stale ones and those above them.
    #[serde(default)]
    pub rebuild_set: Vec<String>,
    /// Layers that do not exist.
    #[serde(default)]
    pub missing_layers: Vec<String>,
    /// Agents in the project image; null if there is none or it does not say.
    #[serde(default)]
    pub agents_installed: Option<Vec<String>>,
    /// Agents that the configuration selects; null if the selection is not valid.
    #[serde(default)]
    pub agents_configured: Option<Vec<String>>,
    /// The vault has a key for the project; null while that cannot be known.
    pub ssh: Option<bool>,
    /// The vault is locked.
    #[serde(default)]
    pub vault_locked: bool,
    /// The gate is a directory.
    pub gate: bool,
    /// Last commit of the default branch.
    pub gate_last_commit: Option<CommitInfo>,
    /// What could not be found out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommitInfo {
    /// Full hash.
    pub commit_hash: String,
    /// ISO 8601.
    pub commit_date: String,
    /// Name.
    pub commit_author: String,
    /// First line.
    pub commit_message: String,
}

/// Kind of a roster entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RosterKind {
    /// Vendor CLI.
    Native,
    /// OpenCode with an OpenAI-compatible provider.
    Opencode,
    /// Multi-provider CLI.
    Bridge,
    /// No prompt mode.
    Tool,
    /// Helper component.
    Runtime,
}

/// Where a roster entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RosterOrigin {
    /// Shipped with the daemon.
    Bundled,
    /// A file of the user's.
    User,
    /// A user file merged over a bundled entry.
    Merged,
}

/// Anything that can be installed into an image or authenticated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RosterEntry {
    /// Name in selections.
    pub name: String,
    /// Name for humans.
    pub label: String,
    /// Kind.
    pub kind: RosterKind,
    /// Program.
    pub binary: Option<String>,
    /// It can run a prompt.
    pub is_agent: bool,
    /// It can be selected for an image.
    pub installable: bool,
    /// Entries it needs.
    pub depends_on: Vec<String>,
    /// It has an ACP wrapper.
    pub acp: bool,
    /// Prefix of its credential route.
    pub route: Option<String>,
    /// Ways to authenticate.
    pub auth_modes: Vec<String>,
    /// Where it comes from.
    pub origin: RosterOrigin,
    /// The user's file.
    pub path: Option<String>,
    /// Why the user's file is not in force.
    pub error: Option<String>,
}

/// How an agent is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentProvider {
    /// Roster name.
    pub name: String,
    /// Name for humans.
    pub label: String,
    /// Program.
    pub binary: String,
    /// Author name of its commits.
    pub git_author_name: String,
    /// Author address of its commits.
    pub git_author_email: String,
    /// Subcommand of a headless run.
    pub headless_subcommand: Option<String>,
    /// Flag before the prompt; empty means positional.
    pub prompt_flag: String,
    /// Flag before the model.
    pub model_flag: Option<String>,
    /// Flag before the turn limit.
    pub max_turns_flag: Option<String>,
    /// Flag for verbose output.
    pub verbose_flag: Option<String>,
    /// Flags that choose the output format.
    pub output_format_flags: Vec<String>,
    /// Flags of unrestricted mode.
    pub auto_approve_flags: Vec<String>,
    /// Subcommands that are refused inside the container.
    pub refuse_subcommands: Vec<String>,
    /// Environment of unrestricted mode.
    pub auto_approve_env: BTreeMap<String, String>,
    /// It can go on with an earlier session.
    pub supports_session_resume: bool,
    /// It reports its session id.
    pub supports_session_hook: bool,
    /// It takes sub-agents.
    pub supports_agents_json: bool,
    /// It takes further directories.
    pub supports_add_dir: bool,
    /// Flag before a session id.
    pub resume_flag: Option<String>,
    /// Flag that goes on with the last session.
    pub continue_flag: Option<String>,
    /// File that holds the session id.
    pub session_file: Option<String>,
    /// `plain` or `claude-stream-json`.
    pub log_format: String,
    /// The `opencode` section.
    pub opencode_config: Option<Value>,
    /// Kind.
    pub kind: RosterKind,
    /// Whether the project's image has it; null if unknown.
    pub installed: Option<bool>,
}

/// A freshly bound SSH key (`project.provision_ssh_key`), as `summarize_ssh_init` takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SshInitResult {
    /// Number in the vault.
    pub key_id: i64,
    /// `ed25519` or `rsa`.
    pub key_type: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// Comment.
    pub comment: String,
    /// The line for the forge's deploy-key page.
    pub public_line: String,
    /// The key was minted by this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    /// Upstream is reached over SSH, so the key has to be registered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_registration: Option<bool>,
    /// Page of a well-known forge where it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key_url: Option<String>,
    /// The same for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
