//! One roster entry as data: the sections of an entry file, typed and checked one by one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use terok_proto::project::RosterKind;

/// What an entry file says, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Kind.
    pub kind: RosterKind,
    /// Name for humans.
    pub label: String,
    /// Program; a helper component may have none.
    pub binary: Option<String>,
    /// It serves a web page that the host may publish.
    pub web_ingress: bool,
    /// Directories beside that of `auth`.
    pub mounts: Vec<Mount>,
    /// Author of its commits.
    pub git_identity: GitIdentity,
    /// How a prompt is run.
    pub headless: Headless,
    /// What switches its questions off.
    pub auto_approve: AutoApprove,
    /// How it goes on with earlier work.
    pub session: Session,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its shell wrapper does.
    pub wrapper: Wrapper,
    /// OpenAI-compatible provider.
    pub opencode: Option<Opencode>,
    /// Credential route.
    pub vault: Option<Vault>,
    /// How its credential is obtained.
    pub auth: Option<Auth>,
    /// Runs in the sidecar image.
    pub sidecar: Option<Sidecar>,
    /// How it gets into an image; null means it cannot be selected.
    pub install: Option<Install>,
    /// Place in the help of the container.
    pub help: Option<Help>,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

/// A directory that all tasks share.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Directory below the shared mounts root.
    pub host_dir: String,
    /// Where containers see it.
    pub container_path: String,
    /// Name for humans.
    #[serde(default)]
    pub label: Option<String>,
}

section! {
    /// Author of an agent's commits.
    GitIdentity {
        /// Name.
        name: Option<String>,
        /// Address.
        email: Option<String>,
    }
}

/// How a prompt is run without a terminal.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headless {
    /// Subcommand.
    pub subcommand: Option<String>,
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
}

impl Default for Headless {
    fn default() -> Self {
        Self {
            subcommand: None,
            prompt_flag: "-p".to_owned(),
            model_flag: None,
            max_turns_flag: None,
            verbose_flag: None,
            output_format_flags: Vec::new(),
        }
    }
}

section! {
    /// What switches an agent's questions off in unrestricted mode.
    AutoApprove {
        /// Variables of the container.
        env: BTreeMap<String, String>,
        /// Flags of the wrapper.
        flags: Vec<String>,
    }
}

section! {
    /// How an agent goes on with earlier work.
    Session {
        /// It can.
        supports_resume: bool,
        /// Flag before a session id.
        resume_flag: Option<String>,
        /// Flag that goes on with the last session.
        continue_flag: Option<String>,
        /// File below `/home/dev/.terok` that holds the session id.
        session_file: Option<String>,
        /// It reports its session id by a hook.
        supports_hook: bool,
    }
}

/// What an agent can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// It takes sub-agents.
    pub agents_json: bool,
    /// It takes further directories.
    pub add_dir: bool,
    /// How its output reads.
    pub log_format: LogFormat,
}

/// How an agent's output reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text.
    #[default]
    Plain,
    /// One JSON object per line, as Claude writes them.
    ClaudeStreamJson,
}

impl LogFormat {
    /// The name in files and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ClaudeStreamJson => "claude-stream-json",
        }
    }
}

section! {
    /// What an agent's shell wrapper does.
    Wrapper {
        /// Subcommands that it refuses.
        refuse_subcommands: Vec<String>,
    }
}

/// An OpenAI-compatible provider behind OpenCode.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Opencode {
    /// Name of the provider.
    pub display_name: String,
    /// Its API.
    pub base_url: String,
    /// Model of choice.
    pub preferred_model: String,
    /// Model if that one is not offered.
    pub fallback_model: String,
    /// Prefix of its variables.
    pub env_var_prefix: String,
    /// Directory below the container's home.
    pub config_dir: String,
    /// Page that hands out keys.
    pub auth_key_url: String,
    /// How to get a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_hint: Option<String>,
}

/// What kind of secret a route carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    /// A key that does not expire.
    #[default]
    ApiKey,
    /// An OAuth login with refresh.
    Oauth,
    /// An OAuth token that does not expire.
    OauthToken,
    /// A personal access token.
    Pat,
}

/// A credential route of the vault.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Name of the route.
    pub route_prefix: String,
    /// Where requests go.
    pub upstream: String,
    /// Where requests below a path go instead.
    #[serde(default)]
    pub path_upstreams: BTreeMap<String, String>,
    /// Headers added to requests with an OAuth credential.
    #[serde(default)]
    pub oauth_extra_headers: BTreeMap<String, String>,
    /// Header of the credential; `dynamic` depends on its type.
    #[serde(default = "authorization")]
    pub auth_header: String,
    /// Text before the credential.
    #[serde(default = "bearer")]
    pub auth_prefix: String,
    /// What kind of secret it carries.
    #[serde(default)]
    pub credential_type: CredentialType,
    /// File of the login below the mount, overlaid read-only.
    #[serde(default)]
    pub credential_file: Option<String>,
    /// Variables of the container: `true` stands for the phantom token, text for itself.
    #[serde(default)]
    pub phantom_env: BTreeMap<String, PhantomValue>,
    /// The same when the stored credential is an OAuth login.
    #[serde(default)]
    pub oauth_phantom_env: BTreeMap<String, PhantomValue>,
    /// Variable that gets the route's URL.
    #[serde(default)]
    pub base_url_env: Option<String>,
    /// Variable that gets the route's socket.
    #[serde(default)]
    pub socket_env: Option<String>,
    /// Change to a configuration file below the mount.
    #[serde(default)]
    pub shared_config_patch: Option<Map<String, Value>>,
    /// How an OAuth login is refreshed.
    #[serde(default)]
    pub oauth_refresh: Option<OauthRefresh>,
    /// The upstream's domain serves more than this API.
    #[serde(default)]
    pub shared_domain: bool,
}

fn authorization() -> String {
    "Authorization".to_owned()
}

fn bearer() -> String {
    "Bearer ".to_owned()
}

/// Value of a variable beside a phantom token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum PhantomValue {
    /// Whether the variable holds the token.
    Token(bool),
    /// A fixed text.
    Text(String),
}

/// How an OAuth login is refreshed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OauthRefresh {
    /// Where.
    pub token_url: String,
    /// As whom.
    pub client_id: String,
    /// For what.
    #[serde(default)]
    pub scope: Option<String>,
}

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// The vendor's login in a container.
    Oauth,
    /// A key typed in by the user.
    ApiKey,
}

impl AuthMode {
    /// The name in files and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oauth => "oauth",
            Self::ApiKey => "api_key",
        }
    }
}

/// How a credential is obtained.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Directory below the shared mounts root.
    pub host_dir: String,
    /// Where containers see it.
    pub container_mount: String,
    /// Login command.
    #[serde(default)]
    pub command: Vec<String>,
    /// Name of the key in the login file.
    #[serde(default)]
    pub auth_key: Option<String>,
    /// What to tell before the login.
    #[serde(default)]
    pub banner_hint: Option<String>,
    /// Arguments of the login container.
    #[serde(default)]
    pub extra_run_args: Vec<String>,
    /// Ways to authenticate.
    #[serde(default = "api_key_only")]
    pub modes: Vec<AuthMode>,
    /// How to get a key.
    #[serde(default)]
    pub api_key_hint: Option<String>,
    /// JSON files below the mount and what is merged into them after a login.
    #[serde(default)]
    pub post_capture_state: Map<String, Value>,
}

fn api_key_only() -> Vec<AuthMode> {
    vec![AuthMode::ApiKey]
}

section! {
    /// A tool in the sidecar image.
    Sidecar {
        /// Name of the tool.
        tool_name: Option<String>,
        /// Variables and the field of the real credential that they get.
        env_map: BTreeMap<String, String>,
    }
}

section! {
    /// How an entry gets into an image.
    Install {
        /// Entries that it needs.
        #[serde(deserialize_with = "one_or_many")]
        depends_on: Vec<String>,
        /// Dockerfile fragment as root.
        run_as_root: Option<String>,
        /// Dockerfile fragment as the container's user.
        run_as_dev: Option<String>,
    }
}

/// Section of the container's help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HelpSection {
    /// Agents.
    #[default]
    Agent,
    /// Tools of developers.
    DevTool,
}

section! {
    /// Place in the help of the container.
    Help {
        /// Text.
        label: Option<String>,
        /// Where.
        section: HelpSection,
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a name or a list of names")]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    })
}

impl Definition {
    /// An entry from its merged mapping. The error names the key.
    pub fn from_map(name: &str, mut map: Map<String, Value>) -> Result<Self, String> {
        let kind = take(&mut map, "kind")?.unwrap_or(RosterKind::Native);
        let binary = match take(&mut map, "binary")? {
            None if kind == RosterKind::Runtime => None,
            None => Some(name.to_owned()),
            named => named,
        };
        let opencode: Option<Opencode> = take(&mut map, "opencode")?;
        let mut auth: Option<Auth> = take(&mut map, "auth")?;
        if kind == RosterKind::Opencode {
            let Some(provider) = &opencode else {
                return Err("`opencode`: this kind of entry needs the section".to_owned());
            };
            auth.get_or_insert_with(|| derived_auth(name, provider));
        }
        let mut identity: GitIdentity = take(&mut map, "git_identity")?.unwrap_or_default();
        identity.name.get_or_insert_with(|| capitalised(name));
        identity
            .email
            .get_or_insert_with(|| format!("noreply@{name}.ai"));
        let definition = Self {
            kind,
            label: take(&mut map, "label")?.unwrap_or_else(|| name.to_owned()),
            binary,
            web_ingress: take(&mut map, "web_ingress")?.unwrap_or_default(),
            mounts: take(&mut map, "mounts")?.unwrap_or_default(),
            git_identity: identity,
            headless: take(&mut map, "headless")?.unwrap_or_default(),
            auto_approve: take(&mut map, "auto_approve")?.unwrap_or_default(),
            session: take(&mut map, "session")?.unwrap_or_default(),
            capabilities: take(&mut map, "capabilities")?.unwrap_or_default(),
            wrapper: take(&mut map, "wrapper")?.unwrap_or_default(),
            opencode,
            vault: take(&mut map, "vault")?,
            auth,
            sidecar: take(&mut map, "sidecar")?,
            install: take(&mut map, "install")?,
            help: take(&mut map, "help")?,
        };
        match map.keys().next() {
            Some(key) => Err(format!("`{key}`: unknown key")),
            None => Ok(definition),
        }
    }

    /// Whether the entry can run a prompt.
    pub const fn is_agent(&self) -> bool {
        matches!(
            self.kind,
            RosterKind::Native | RosterKind::Opencode | RosterKind::Bridge
        )
    }

    /// Entries it needs.
    pub fn depends_on(&self) -> &[String] {
        self.install
            .as_ref()
            .map_or(&[], |install| &install.depends_on)
    }

    /// Every shared directory of the entry, that of its login first.
    pub fn all_mounts(&self) -> Vec<Mount> {
        let login = self.auth.as_ref().map(|auth| Mount {
            host_dir: auth.host_dir.clone(),
            container_path: auth.container_mount.clone(),
            label: None,
        });
        login
            .into_iter()
            .chain(self.mounts.iter().cloned())
            .collect()
    }
}

/// A section or scalar; null counts as absent.
fn take<T: DeserializeOwned>(map: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match serde_json::from_value(value) {
            Ok(read) => Ok(Some(read)),
            Err(error) => Err(format!("`{key}`: {error}")),
        },
    }
}

fn derived_auth(name: &str, provider: &Opencode) -> Auth {
    let hint = provider
        .api_key_hint
        .clone()
        .unwrap_or_else(|| format!("key at {}", provider.auth_key_url));
    Auth {
        host_dir: format!("_{name}-config"),
        container_mount: format!("/home/dev/{}", provider.config_dir),
        command: Vec::new(),
        auth_key: None,
        banner_hint: None,
        extra_run_args: Vec::new(),
        modes: api_key_only(),
        api_key_hint: Some(hint),
        post_capture_state: Map::new(),
    }
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
