//! What the vault tells whoever listens.

/// One thing that happened in the vault. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultEvent {
    /// Secrets can no longer be used.
    Locked,
    /// Secrets can be used.
    Unlocked,
    /// The agent signed something.
    Signed {
        /// Scope whose agent was asked.
        scope: String,
        /// The key.
        fingerprint: String,
    },
    /// A new key was stored.
    KeyMinted {
        /// Scope that got it.
        scope: String,
        /// Its number.
        key_id: i64,
        /// The key.
        fingerprint: String,
    },
    /// A new key replaced all others of a scope.
    KeyRotated {
        /// Scope that got it.
        scope: String,
        /// Its number.
        key_id: i64,
        /// The key.
        fingerprint: String,
    },
}
