//! Configuration on the wire: the resolved project, problems and resolved values with their origin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Who may push to upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecurityClass {
    /// Agents push directly to upstream.
    Online,
    /// Changes are staged in the gate for human review.
    Gatekeeping,
}

/// Whether containers share directories with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Bind mounts as usual.
    Shared,
    /// No bind mounts at all.
    Sealed,
}

/// Who is named as author and who as committer of an agent's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Authorship {
    /// The agent writes, the human commits.
    AgentHuman,
    /// The human writes, the agent commits.
    HumanAgent,
    /// The agent does both.
    Agent,
    /// The human does both.
    Human,
}

/// OCI runtime of task containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OciRuntime {
    /// The default.
    Crun,
    /// KVM micro-VM isolation; needs `experimental: true`.
    Krun,
}

/// What the firewall does when a task restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShieldOnRestart {
    /// Keep the state it had.
    Retain,
    /// Raise it.
    Up,
}

/// Package family of a base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// apt and dpkg.
    Deb,
    /// dnf and rpm.
    Rpm,
}

/// A project's configuration, resolved from `project.yml`, the global configuration and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectConfig {
    /// Project id.
    pub id: String,
    /// Who may push to upstream.
    pub security_class: SecurityClass,
    /// Whether containers share directories with the host.
    pub isolation: Isolation,
    /// Git URL of the upstream; null for a local-only project.
    pub upstream_url: Option<String>,
    /// Branch to work on; null means the remote's default, `main` without a remote.
    pub default_branch: Option<String>,
    /// The project's directory, symlinks resolved.
    pub root: String,
    /// Where the tasks' workspaces live.
    pub tasks_root: String,
    /// The bare mirror that agents push to.
    pub gate_path: String,
    /// Whether the project uses a gate.
    pub gate_enabled: bool,
    /// Build stage of a gatekeeping project; null for an online one.
    pub staging_root: Option<String>,
    /// Use the user's own `~/.ssh` keys for host-side sync.
    pub ssh_use_personal: bool,
    /// Tell agents the real upstream.
    pub expose_external_remote: bool,
    /// Name for commits.
    pub human_name: Option<String>,
    /// Address for commits.
    pub human_email: Option<String>,
    /// Author and committer of an agent's commits.
    pub git_authorship: Authorship,
    /// Whether upstream is polled.
    pub upstream_polling_enabled: bool,
    /// Minutes between polls.
    pub upstream_polling_interval_minutes: i64,
    /// Whether the gate follows upstream by itself.
    pub auto_sync_enabled: bool,
    /// Branches that follow; empty means all.
    pub auto_sync_branches: Vec<String>,
    /// Agent of a run that names none.
    pub default_agent: Option<String>,
    /// Command of a login that names none.
    pub default_login: Option<String>,
    /// The `agent:` section, with sub-agent paths resolved.
    pub agent_config: Map<String, Value>,
    /// Seconds before a stopping container is killed.
    pub shutdown_timeout: i64,
    /// Podman `--memory`.
    pub memory: Option<String>,
    /// Podman `--cpus`.
    pub cpus: Option<String>,
    /// Allow podman or docker inside the container.
    pub nested_containers: bool,
    /// OCI runtime; null means the global default.
    pub runtime: Option<OciRuntime>,
    /// IANA time zone of the containers; null means the host's.
    pub timezone: Option<String>,
    /// Word lists for task names.
    pub task_name_categories: Option<Vec<String>>,
    /// Open the firewall once a task runs.
    pub shield_drop_on_task_run: bool,
    /// What the firewall does on restart.
    pub shield_on_task_restart: ShieldOnRestart,
    /// Host command before a task starts.
    pub hook_pre_start: Option<String>,
    /// Host command after a task started.
    pub hook_post_start: Option<String>,
    /// Host command once a task is ready.
    pub hook_post_ready: Option<String>,
    /// Host command after a task stopped.
    pub hook_post_stop: Option<String>,
    /// Base of the project image.
    pub base_image: String,
    /// Package family; null means by the base image.
    pub family: Option<Family>,
    /// Selection of agents to install.
    pub agents: String,
    /// Dockerfile fragment.
    pub snippet_inline: Option<String>,
    /// File with a Dockerfile fragment, as written.
    pub snippet_file: Option<String>,
    /// Directory shared by all tasks.
    pub shared_dir: Option<String>,
    /// Computed: isolation is sealed.
    pub is_sealed: bool,
    /// Computed: where the project's presets live.
    pub presets_dir: String,
}

/// How bad a problem is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file or section is not in force.
    Error,
    /// Doubtful, but a safe value is in force.
    Warning,
}

/// What is wrong at one place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// No such key here.
    UnknownKey,
    /// A value of another type.
    WrongType,
    /// A number beyond its limits.
    OutOfRange,
    /// A value that cannot be used.
    BadValue,
    /// One key twice in a mapping.
    DuplicateKey,
    /// Not YAML.
    Syntax,
    /// The file cannot be read.
    Io,
    /// Two settings, or two projects, that exclude each other.
    Conflict,
    /// A change that takes effect at the next start.
    RestartRequired,
}

/// Which file a problem or schema is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A `project.yml`.
    Project,
    /// A `config.yml`.
    Global,
    /// A `terokd.yml`.
    Terokd,
}

/// One thing wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The file; null for a text that is not a file.
    pub path: Option<String>,
    /// Which kind of file.
    pub scope: Scope,
    /// The project it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Key path, list indexes as numbers.
    pub loc: Vec<Value>,
    /// The same as one dotted string, `""` for the whole document.
    pub location: String,
    /// What is wrong.
    pub code: ProblemCode,
    /// Why, and what is allowed. Printable.
    pub message: String,
    /// How bad.
    pub severity: Severity,
    /// Line, from 1.
    pub line: Option<u64>,
    /// Column, from 1.
    pub column: Option<u64>,
    /// A key that may have been meant.
    pub suggestion: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Built in.
    Default,
    /// Environment of the daemon.
    Env,
    /// `/etc/terok/config.yml`.
    System,
    /// `<prefix>/etc/terok/config.yml`.
    Prefix,
    /// The user's `config.yml`.
    User,
    /// The file named by `TEROK_CONFIG_FILE`.
    Override,
    /// Git's global configuration.
    GitGlobal,
    /// `project.yml`.
    Project,
}

/// One value and where it was set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResolvedValue {
    /// The value in force; secrets read `"<set>"`.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// The file, where there is one.
    pub path: Option<String>,
    /// Its line there, from 1.
    pub line: Option<u64>,
}

/// Everything in force, with origins (`config.resolve`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResolvedConfig {
    /// Values by dotted key.
    pub values: BTreeMap<String, ResolvedValue>,
    /// What is wrong with the files.
    pub problems: Vec<Problem>,
}
