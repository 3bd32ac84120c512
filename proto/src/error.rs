//! Errors as they cross the wire: a stable kind, its code, one line for the human, and context.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

macro_rules! kinds {
    ($($variant:ident $name:literal $code:literal,)*) => {
        /// Every kind of error that a method can answer. The name is stable, the code follows from it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = concat!("`", $name, "`")] $variant,)* }

        impl Kind {
            /// All kinds, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The JSON-RPC error code.
            pub const fn code(self) -> i32 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    ParseError "parse_error" -32700,
    InvalidRequest "invalid_request" -32600,
    RequestTooLarge "request_too_large" -32600,
    MethodNotFound "method_not_found" -32601,
    InvalidParams "invalid_params" -32602,
    Internal "internal" -32603,

    ProjectNotFound "project_not_found" 1001,
    TaskNotFound "task_not_found" 1002,
    PresetNotFound "preset_not_found" 1003,
    ImageMissing "image_missing" 1004,
    GateMissing "gate_missing" 1005,
    KeyNotFound "key_not_found" 1006,
    OperationNotFound "operation_not_found" 1007,
    ArchiveNotFound "archive_not_found" 1008,
    NoLogs "no_logs" 1009,
    ContainerMissing "container_missing" 1010,
    BackupNotFound "backup_not_found" 1011,

    InvalidArgument "invalid_argument" 1101,
    InvalidProjectId "invalid_project_id" 1102,
    InvalidTaskId "invalid_task_id" 1103,
    InvalidName "invalid_name" 1104,
    InvalidConfig "invalid_config" 1105,
    TaskAmbiguous "task_ambiguous" 1106,
    UnknownAgent "unknown_agent" 1107,
    UnknownProvider "unknown_provider" 1108,
    InvalidUrl "invalid_url" 1109,
    InvalidScope "invalid_scope" 1110,
    UnsafeComment "unsafe_comment" 1111,
    KeyPasswordProtected "key_password_protected" 1112,
    KeyMismatch "key_mismatch" 1113,

    AlreadyExists "already_exists" 1201,
    TaskBusy "task_busy" 1202,
    TaskDeleting "task_deleting" 1203,
    TaskRunning "task_running" 1204,
    TaskNotRunning "task_not_running" 1205,
    TaskNeverRun "task_never_run" 1206,
    ModeConflict "mode_conflict" 1207,
    GateConflict "gate_conflict" 1208,
    GateDisabled "gate_disabled" 1209,
    ProjectBusy "project_busy" 1210,
    ConfirmationRequired "confirmation_required" 1211,
    TaskNotStoppable "task_not_stoppable" 1212,
    TaskCorrupt "task_corrupt" 1213,
    SetupRequired "setup_required" 1214,
    EditConflict "edit_conflict" 1215,
    GateCorrupt "gate_corrupt" 1216,
    GateBusy "gate_busy" 1217,
    BranchMoved "branch_moved" 1218,
    VaultSchemaNewer "vault_schema_newer" 1219,
    VaultPlaintextDb "vault_plaintext_db" 1220,

    PodmanUnavailable "podman_unavailable" 1301,
    PodmanTimeout "podman_timeout" 1302,
    PodmanError "podman_error" 1303,
    UpstreamUnreachable "upstream_unreachable" 1304,
    UpstreamAuthFailed "upstream_auth_failed" 1305,
    GitError "git_error" 1306,
    BuildFailed "build_failed" 1307,
    ContainerStartFailed "container_start_failed" 1308,
    GateUnreachable "gate_unreachable" 1309,
    VaultUnreachable "vault_unreachable" 1310,
    ShieldSetupFailed "shield_setup_failed" 1311,
    AgentNotInstalled "agent_not_installed" 1312,
    GpuUnavailable "gpu_unavailable" 1313,
    RuntimeRejected "runtime_rejected" 1314,
    NoFreePort "no_free_port" 1315,
    PortUnavailable "port_unavailable" 1316,
    GateNotServable "gate_not_servable" 1317,
    HookFailed "hook_failed" 1318,
    ArchiveFailed "archive_failed" 1319,
    StorageError "storage_error" 1320,
    GitMissing "git_missing" 1321,
    GateAuthNotConfigured "gate_auth_not_configured" 1322,
    GateUnsupportedObjectFormat "gate_unsupported_object_format" 1323,
    HostKeyChanged "host_key_changed" 1324,
    PushRejected "push_rejected" 1325,
    VaultTierFailed "vault_tier_failed" 1326,
    ShieldChangeFailed "shield_change_failed" 1327,

    VaultLocked "vault_locked" 1401,
    Panicked "panicked" 1402,
    UnmanagedPath "unmanaged_path" 1403,
    PermissionDenied "permission_denied" 1404,
    VaultWrongPassphrase "vault_wrong_passphrase" 1405,

    Cancelled "cancelled" 1501,
    Timeout "timeout" 1502,
    WaitTimeout "wait_timeout" 1503,
    ShuttingDown "shutting_down" 1504,
    Overloaded "overloaded" 1505,
    Interrupted "interrupted" 1506,
}

/// Longest message, in bytes before control characters are spelled out.
const MAX_MESSAGE: usize = 16 << 10;

/// One failure, ready for the wire: what went wrong, in one line that says what to do, plus context.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The stable name and, through it, the code.
    pub kind: Kind,
    /// One line for the human. [`Fault::new`] makes it printable.
    pub message: String,
    /// Further members of `data`, beside `kind`.
    pub data: Map<String, Value>,
}

/// Result of everything that can fail towards a client.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// A fault of that kind. Control characters in the message are made visible; what quotes more than anybody reads
    /// is cut.
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        let message = message.as_ref();
        let readable = message.floor_char_boundary(MAX_MESSAGE);
        let mut line = printable_line(&message[..readable]);
        if readable < message.len() {
            line.push('…');
        }
        Self {
            kind,
            message: line,
            data: Map::new(),
        }
    }

    /// An unexpected failure inside the daemon; never for bad input.
    pub fn internal(message: impl AsRef<str>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A value that a caller passed and that cannot be used.
    pub fn invalid_argument(message: impl AsRef<str>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// A file-system failure on `path`.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Kind::StorageError,
            format!("cannot {action} `{}`: {error}", path.display()),
        )
        .with("path", path.to_string_lossy())
    }

    /// Adds a member to `data`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// Adds advice on what to do.
    #[must_use]
    pub fn hint(self, hint: impl AsRef<str>) -> Self {
        let hint = printable_line(hint.as_ref());
        self.with("hint", hint)
    }

    /// Says when trying again makes sense.
    #[must_use]
    pub fn retry_after_ms(self, ms: u64) -> Self {
        self.with("retry_after_ms", ms)
    }

    /// The JSON-RPC error object.
    pub fn to_object(&self) -> ErrorObject {
        let mut data = Map::with_capacity(self.data.len() + 1);
        data.insert("kind".into(), self.kind.name().into());
        data.extend(self.data.clone());
        ErrorObject {
            code: self.kind.code(),
            message: self.message.clone(),
            data: Some(Value::Object(data)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// The JSON-RPC error object as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorObject {
    /// See [`Kind::code`].
    pub code: i32,
    /// One line for the human.
    pub message: String,
    /// `kind` and further context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ErrorObject {
    /// `data.kind`, if the server sent one.
    pub fn kind(&self) -> Option<&str> {
        self.data.as_ref()?.get("kind")?.as_str()
    }
}

/// Text from outside as one printable line: line breaks and tabs become blanks, every other control, format,
/// private-use or unassigned-looking character becomes `\x` and its code in hex. Idempotent on clean text.
pub fn printable_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_unprintable(c) => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// Text from outside that may have several lines: control characters except tab and newline become `?`.
pub fn printable_text(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' => c,
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

/// Controls, format characters (bidirectional overrides among them), private use and non-characters.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x180E
            | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF0..=0xFFFB
            | 0xE000..=0xF8FF | 0xFDD0..=0xFDEF | 0x110BD | 0x110CD | 0x13430..=0x1343F
            | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF | 0xF0000..=0x10FFFF)
        || u32::from(c) & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_agree() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
        }
    }

    #[test]
    fn messages_are_bounded() {
        let fault = Fault::invalid_argument("é".repeat(MAX_MESSAGE));
        assert!(
            fault.message.len() <= MAX_MESSAGE + '…'.len_utf8() && fault.message.ends_with('…')
        );
        let fits = "x".repeat(MAX_MESSAGE);
        assert_eq!(Fault::invalid_argument(&fits).message, fits);
    }

    #[test]
    fn messages_cannot_carry_terminal_control() {
        let fault = Fault::invalid_argument("a\u{1b}[31mred\nline\u{202e}x");
        assert_eq!(fault.message, "a\\x1b[31mred line\\x202ex");
        assert_eq!(printable_line(&fault.message), fault.message);
        assert_eq!(printable_text("a\u{7}b\n\tc\u{9b}"), "a?b\n\tc?");
    }
}
