//! What a lockdown did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Result of `execute_panic`. Every field may be missing when it is read back; unknown ones are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PanicResult {
    /// Containers whose network was cut.
    pub shields_raised: Vec<String>,
    /// Containers whose network could not be cut, and why.
    pub shield_errors: Vec<(String, String)>,
    /// The vault is locked and stopped.
    pub vault_stopped: bool,
    /// Why it is not.
    pub vault_error: Option<String>,
    /// The gate server is stopped.
    pub gate_stopped: bool,
    /// Why it is not.
    pub gate_error: Option<String>,
    /// Containers that were killed.
    pub containers_stopped: Vec<String>,
    /// Containers that could not be killed, and why.
    pub container_stop_errors: Vec<(String, String)>,
    /// The firewall was switched off globally.
    pub shield_bypassed: bool,
    /// Containers found.
    pub total_running: u64,
    /// Containers that were frozen.
    pub frozen: Vec<String>,
    /// Containers that could not be frozen, and why.
    pub freeze_errors: Vec<(String, String)>,
    /// The panic lock could not be written.
    pub lock_error: Option<String>,
    /// What could not be searched.
    pub discovery_errors: Vec<String>,
}
