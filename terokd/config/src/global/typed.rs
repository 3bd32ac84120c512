//! `config.yml` and `terokd.yml` as types. Read from trees in normal form with all defaults filled in.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use terok_proto::config::{Family, OciRuntime, ShieldOnRestart};

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<set>")
    }
}

/// The merged `config.yml`.
#[derive(Clone, Debug, Deserialize)]
pub struct GlobalConfig {
    /// `credentials`
    pub credentials: Credentials,
    /// `paths`
    pub paths: PathKeys,
    /// `shield`
    pub shield: Shield,
    /// `services`
    pub services: Services,
    /// `vault`
    pub vault: VaultKeys,
    /// `gate_server`
    pub gate_server: GateServer,
    /// `network`
    pub network: Network,
    /// `ssh`
    pub ssh: Ssh,
    /// `run`
    pub run: Run,
    /// `image`
    pub image: Image,
    /// `tui`
    pub tui: Tui,
    /// `logs`
    pub logs: Logs,
    /// `tasks`
    pub tasks: Tasks,
    /// `git`
    pub git: Git,
    /// `agent`
    pub agent: Map<String, Value>,
    /// `experimental`
    pub experimental: bool,
    /// `default_agent`
    pub default_agent: Option<String>,
    /// `default_login`
    pub default_login: Option<String>,
}

/// How a provider's OAuth credentials may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OauthModes {
    /// The real token goes into containers.
    pub exposed: bool,
    /// The proxy adds the token.
    pub proxied: bool,
    /// Either of them, or a provider without such a switch.
    pub enabled: bool,
}

impl GlobalConfig {
    /// OAuth modes of a provider.
    pub fn oauth(&self, provider: &str) -> OauthModes {
        if !matches!(provider, "claude" | "codex") {
            return OauthModes {
                exposed: false,
                proxied: false,
                enabled: true,
            };
        }
        let on = |key: &str| {
            let section = self.agent.get(provider).and_then(Value::as_object);
            section.and_then(|section| section.get(key)) == Some(&Value::Bool(true))
        };
        let exposed = self.experimental && on("expose_oauth_token");
        let proxied = self.experimental && on("allow_oauth") && !on("expose_oauth_token");
        OauthModes {
            exposed,
            proxied,
            enabled: exposed || proxied,
        }
    }
}

/// `credentials`
#[derive(Clone, Debug, Deserialize)]
pub struct Credentials {
    /// The vault's directory.
    pub dir: Option<String>,
    /// Passphrase in clear.
    pub passphrase: Option<Secret>,
    /// Keep the passphrase in the keyring.
    pub use_keyring: bool,
    /// Command that prints the passphrase.
    pub passphrase_command: Option<Secret>,
}

/// `paths`
#[derive(Clone, Debug, Deserialize)]
pub struct PathKeys {
    /// Root of everything durable.
    pub root: Option<String>,
    /// Where images are built.
    pub build_dir: Option<String>,
    /// Live tasks and mounts.
    pub sandbox_live_dir: Option<String>,
    /// Projects of the user.
    pub user_projects_dir: Option<String>,
    /// Presets of the user.
    pub user_presets_dir: Option<String>,
    /// Where users of a host agree on ports.
    pub port_registry_dir: Option<String>,
}

/// `shield`
#[derive(Clone, Debug, Deserialize)]
pub struct Shield {
    /// Run without egress firewall.
    pub bypass_firewall_no_protection: bool,
    /// Free-form settings of profiles.
    pub profiles: Option<Map<String, Value>>,
    /// Log decisions.
    pub audit: bool,
    /// Open the firewall once a task runs.
    pub drop_on_task_run: bool,
    /// What the firewall does on restart.
    pub on_task_restart: ShieldOnRestart,
}

/// How containers reach the services of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServicesMode {
    /// TCP ports.
    Tcp,
    /// Unix sockets.
    Socket,
}

/// `services`
#[derive(Clone, Debug, Deserialize)]
pub struct Services {
    /// How containers reach them.
    pub mode: ServicesMode,
}

/// `vault` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct VaultKeys {
    /// Mount real credentials.
    pub bypass_no_secret_protection: bool,
    /// Port of the API proxy.
    pub port: Option<u16>,
    /// Port of the SSH agent.
    pub ssh_signer_port: Option<u16>,
}

/// `gate_server` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct GateServer {
    /// Its port.
    pub port: Option<u16>,
    /// Where the mirrors live.
    pub repos_dir: Option<String>,
    /// No warning about missing units.
    pub suppress_systemd_warning: bool,
}

/// `network` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Network {
    /// First port that may be used.
    pub port_range_start: u16,
    /// Last port that may be used.
    pub port_range_end: u16,
}

/// `ssh` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Ssh {
    /// Use the user's own keys.
    pub use_personal: Option<bool>,
}

/// `run` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Seconds before a stopping container is killed.
    pub shutdown_timeout: i64,
    /// GPUs, as written.
    pub gpus: Option<Value>,
    /// Podman `--memory`.
    pub memory: Option<String>,
    /// Podman `--cpus`.
    pub cpus: Option<String>,
    /// Allow podman inside.
    pub nested_containers: bool,
    /// OCI runtime.
    pub runtime: Option<OciRuntime>,
    /// Time zone.
    pub timezone: Option<String>,
    /// Host commands; a string, or `false` for none.
    pub hooks: Map<String, Value>,
}

/// `image` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Image {
    /// Base image.
    pub base_image: String,
    /// Package family.
    pub family: Option<Family>,
    /// Agents to install.
    pub agents: Option<String>,
    /// Dockerfile fragment.
    pub user_snippet_inline: Option<String>,
    /// File with a Dockerfile fragment.
    pub user_snippet_file: Option<String>,
}

/// `tui`
#[derive(Clone, Debug, Deserialize)]
pub struct Tui {
    /// Logins in tmux.
    pub default_tmux: bool,
    /// Edit in an external editor.
    pub external_editor: bool,
    /// `auto`, `skip` or `install`.
    pub desktop_entry: String,
}

/// `logs`
#[derive(Clone, Debug, Deserialize)]
pub struct Logs {
    /// Stream messages while they are written.
    pub partial_streaming: bool,
}

/// `tasks` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Tasks {
    /// Word lists for task names.
    pub name_categories: Option<Vec<String>>,
}

/// `git` of `config.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct Git {
    /// Name for commits.
    pub human_name: Option<String>,
    /// Address for commits.
    pub human_email: Option<String>,
    /// Author and committer.
    pub authorship: Option<String>,
}

/// The merged `terokd.yml`.
#[derive(Clone, Debug, Deserialize)]
pub struct TerokdConfig {
    /// `rpc`
    pub rpc: RpcLimits,
    /// `polling`
    pub polling: PollingKeys,
    /// `gate`
    pub gate: GateKeys,
    /// `gate_server`
    pub gate_server: GateServerLimits,
    /// `git`
    pub git: GitKeys,
    /// `ssh`
    pub ssh: SshKeys,
    /// `vault`
    pub vault: VaultLimits,
    /// `network`
    pub network: NetworkKeys,
    /// `panic`
    pub panic: PanicKeys,
    /// `tasks`
    pub tasks: TaskKeys,
    /// `shield`
    pub shield: ShieldKeys,
    /// `projects`
    pub projects: BTreeMap<String, ProjectKeys>,
}

impl TerokdConfig {
    /// Firewall profiles of a project.
    pub fn shield_profiles(&self, project_id: &str) -> &[String] {
        self.projects
            .get(project_id)
            .and_then(|project| project.shield_profiles.as_deref())
            .unwrap_or(&self.shield.profiles)
    }
}

/// `rpc`
#[derive(Clone, Debug, Deserialize)]
pub struct RpcLimits {
    /// Bytes of one message.
    pub max_message_bytes: usize,
    /// Nesting of one message.
    pub max_depth: usize,
    /// Requests of one batch.
    pub max_batch: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Requests under way on one connection.
    pub max_in_flight: usize,
    /// Subscriptions at once.
    pub max_subscriptions: usize,
    /// Seconds within which a new connection has to speak.
    pub first_message_timeout_seconds: u64,
}

/// `polling`
#[derive(Clone, Debug, Deserialize)]
pub struct PollingKeys {
    /// Upstreams asked at once.
    pub max_concurrent: usize,
    /// Upstreams of one host asked at once.
    pub max_per_host: usize,
    /// How far an interval may vary.
    pub jitter_percent: u32,
    /// Longest wait after failures.
    pub backoff_max_minutes: u64,
    /// Poll online projects too.
    pub poll_online_projects: bool,
    /// Seconds for one look.
    pub timeout_seconds: u64,
}

impl Default for PollingKeys {
    fn default() -> Self {
        Self {
            max_concurrent: 8,
            max_per_host: 2,
            jitter_percent: 15,
            backoff_max_minutes: 120,
            poll_online_projects: true,
            timeout_seconds: 30,
        }
    }
}

/// `gate` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct GateKeys {
    /// Apply changes that lose nothing.
    pub auto_apply_lossless: bool,
    /// Days that backup refs are kept; 0 means for ever.
    pub backup_retention_days: u32,
}

/// `gate_server` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct GateServerLimits {
    /// Bytes of one push.
    pub max_push_bytes: u64,
}

/// Library or program for talking to upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GitBackend {
    /// The library.
    Gix,
    /// The program.
    Cli,
}

/// `git` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct GitKeys {
    /// Library or program.
    pub backend: GitBackend,
    /// Stored token that HTTPS upstreams may use.
    pub credential_provider: Option<String>,
}

/// What to do with unknown host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeys {
    /// Remember them.
    AcceptNew,
    /// Refuse them.
    Strict,
}

/// `ssh` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct SshKeys {
    /// What to do with unknown ones.
    pub host_keys: HostKeys,
}

/// Where tokens of tasks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStore {
    /// In the credential database, as the reference does.
    Shared,
    /// As hashes in the daemon's state.
    Daemon,
}

/// `vault` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct VaultLimits {
    /// Bytes of one request to the API proxy.
    pub max_request_bytes: u64,
    /// Accept fixed placeholder tokens on shared listeners.
    pub allow_static_markers: bool,
    /// Ask before the SSH agent signs.
    pub agent_confirm: bool,
    /// Where tokens are kept.
    pub token_store: TokenStore,
}

/// `network` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct NetworkKeys {
    /// Certificates that images trust.
    pub ca_bundle: Option<String>,
    /// Proxy for builds.
    pub proxy: Proxy,
}

/// `network.proxy`
#[derive(Clone, Debug, Deserialize)]
pub struct Proxy {
    /// For HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts reached directly.
    pub no_proxy: Option<String>,
}

/// `panic`
#[derive(Clone, Debug, Deserialize)]
pub struct PanicKeys {
    /// Freeze containers.
    pub freeze: bool,
}

/// What happens to interactive tasks after a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBoot {
    /// Nothing.
    None,
    /// Those that ran are started.
    RestartRunning,
}

/// `tasks` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct TaskKeys {
    /// Days that archives are kept.
    pub archive_keep_days: Option<u32>,
    /// Live tasks per project.
    pub max_running: Option<u32>,
    /// What happens after a boot.
    pub on_boot: OnBoot,
    /// Minutes after which idle containers stop.
    pub auto_stop_idle_minutes: Option<u32>,
    /// Stop tasks at logout.
    pub stop_on_logout: bool,
    /// Size of a workspace that is worth a warning.
    pub disk_quota_warn: Option<String>,
}

/// `shield` of `terokd.yml`
#[derive(Clone, Debug, Deserialize)]
pub struct ShieldKeys {
    /// Profiles of all projects.
    pub profiles: Vec<String>,
}

/// `projects.<id>`
#[derive(Clone, Debug, Deserialize)]
pub struct ProjectKeys {
    /// Firewall profiles.
    pub shield_profiles: Option<Vec<String>>,
    /// A failing `pre_start` hook stops the launch.
    pub pre_start_required: bool,
    /// Processes of one container.
    pub pids_limit: Option<u32>,
    /// Size of `/tmp`.
    pub tmp_size: Option<String>,
    /// Live tasks.
    pub max_running: Option<u32>,
}
