//! What happens, as it is told to subscribers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! event_kinds {
    ($($variant:ident $name:literal,)*) => {
        /// Kind of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum EventKind { $(#[doc = concat!("`", $name, "`")] #[serde(rename = $name)] $variant,)* }

        impl EventKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

event_kinds! {
    Gap "events.gap",
    Lagged "events.lagged",
    Snapshot "events.snapshot",
    ProjectAdded "project.added",
    ProjectChanged "project.changed",
    ProjectBroken "project.broken",
    ProjectRemoved "project.removed",
    ConfigChanged "config.changed",
    GateStale "gate.stale",
    GateCurrent "gate.current",
    GatePending "gate.pending",
    GateAutoSyncStarted "gate.auto_sync_started",
    GatePollFailed "gate.poll_failed",
    GateSynced "gate.synced",
    GateSyncFailed "gate.sync_failed",
    GatePushed "gate.pushed",
    HostKeyPinned "ssh.host_key_pinned",
    VaultLocked "vault.locked",
    VaultUnlocked "vault.unlocked",
    VaultSigned "vault.signed",
    VaultKeyMinted "vault.key_minted",
    VaultKeyRotated "vault.key_rotated",
    ImageBuilt "image.built",
    ImageRemoved "image.removed",
    OperationStarted "operation.started",
    OperationProgress "operation.progress",
    OperationLog "operation.log",
    OperationFinished "operation.finished",
    DaemonWarning "daemon.warning",
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Random per start of the daemon.
    pub epoch: String,
    /// Rises by one within an epoch.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// What kind of thing.
    pub kind: EventKind,
    /// The project it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The task it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// The operation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// Details; their shape follows from `kind`.
    pub data: Value,
}
