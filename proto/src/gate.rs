//! Gates: what sync, comparison, review, polling and the gate server answer.

use crate::project::CommitInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a branch of the gate was moved by a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppliedKind {
    /// The gate did not have the branch.
    Create,
    /// The gate's head was an ancestor of upstream's.
    FastForward,
}

/// One branch that a sync moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedUpdate {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// How it moved.
    pub kind: AppliedKind,
    /// Head before; null if it was created.
    pub old: Option<String>,
    /// Head after.
    pub new: String,
}

/// What a pending operation would do to the gate's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PendingKind {
    /// Move it to an unrelated commit.
    ForceUpdate,
    /// Remove it.
    Delete,
}

/// Why an operation is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PendingReason {
    /// Upstream rewrote the branch.
    UpstreamRewrite,
    /// Upstream deleted the branch.
    UpstreamDelete,
    /// A mirror of the reference had the branch and upstream has not; nobody knows whose it is.
    UnknownProvenance,
}

/// A change of upstream's that would lose or move something in the gate and waits for a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingOp {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// What would be done.
    pub kind: PendingKind,
    /// Why.
    pub reason: PendingReason,
    /// The gate's head; `project.gate.apply_pending` wants it back.
    pub gate_sha: String,
    /// Upstream's head; null if upstream has no such branch.
    pub upstream_sha: Option<String>,
    /// Upstream's head when the gate last agreed with it.
    pub old_snapshot_sha: Option<String>,
    /// Nothing that exists only in the gate would become unreachable.
    pub lossless: bool,
    /// Commits that only the gate's head reaches; null if unknown.
    pub gate_only_commits: Option<u64>,
}

/// A branch with work that upstream does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateOnlyBranch {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// Commits ahead of upstream's branch; null if upstream has no such branch.
    pub ahead: Option<u64>,
}

/// What a sync did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateSyncResult {
    /// Path of the gate.
    pub path: String,
    /// Upstream; null for a gate without one.
    pub upstream_url: Option<String>,
    /// The repository was made by this call.
    pub created: bool,
    /// `errors` is empty.
    pub success: bool,
    /// Branches that moved.
    pub updated_branches: Vec<String>,
    /// What went wrong, for humans.
    pub errors: Vec<String>,
    /// The clone cache was made or refreshed.
    pub cache_refreshed: bool,
    /// Branches that moved, and how.
    #[serde(default)]
    pub applied: Vec<AppliedUpdate>,
    /// What waits for a human.
    #[serde(default)]
    pub pending: Vec<PendingOp>,
    /// Branches with work of the gate's own.
    #[serde(default)]
    pub gate_only_branches: Vec<GateOnlyBranch>,
    /// What the user should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why the clone cache could not be refreshed.
    #[serde(default)]
    pub cache_error: Option<String>,
    /// A mirror of the reference was turned into a gate.
    #[serde(default)]
    pub migrated: bool,
    /// How long it took.
    #[serde(default)]
    pub duration_ms: u64,
}

/// What a selective sync did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BranchSyncResult {
    /// `errors` is empty.
    pub success: bool,
    /// Branches that moved.
    pub updated_branches: Vec<String>,
    /// What went wrong, for humans.
    pub errors: Vec<String>,
}

/// Why nothing is known of a gate's staleness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StalenessErrorKind {
    /// No branch was named and none is configured.
    NoBranch,
    /// There is no gate.
    GateMissing,
    /// The gate has no such branch.
    BranchMissingInGate,
    /// The project has no upstream.
    NoUpstream,
    /// Upstream cannot be reached.
    Unreachable,
    /// Upstream did not answer in time.
    Timeout,
    /// Upstream refused the credentials.
    AuthFailed,
    /// There is no key, or the vault is locked.
    AuthNotConfigured,
    /// The server's key is not the pinned one.
    HostKeyChanged,
    /// Upstream has no such branch.
    BranchMissingUpstream,
}

/// How the gate's head relates to upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The same commit.
    Equal,
    /// Upstream has commits that the gate lacks.
    Behind,
    /// The gate has commits that upstream lacks.
    Ahead,
    /// Both.
    Diverged,
    /// Not known.
    Unknown,
}

/// How current a gate's branch is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateStalenessInfo {
    /// The branch compared.
    pub branch: Option<String>,
    /// The gate's head.
    pub gate_head: Option<String>,
    /// Upstream's head.
    pub upstream_head: Option<String>,
    /// The heads differ, in either direction.
    pub is_stale: bool,
    /// Commits that the gate lacks; null if unknown.
    pub commits_behind: Option<u64>,
    /// Commits that upstream lacks; null if unknown.
    pub commits_ahead: Option<u64>,
    /// When this was found out, RFC 3339, UTC.
    pub last_checked: String,
    /// Why nothing is known.
    pub error: Option<String>,
    /// The same for machines.
    #[serde(default)]
    pub error_kind: Option<StalenessErrorKind>,
    /// How the heads relate.
    pub relation: Relation,
}

/// What is known of a project's gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateStatus {
    /// `gate.enabled`.
    pub enabled: bool,
    /// The gate is a directory.
    pub exists: bool,
    /// Where it is or would be.
    pub path: String,
    /// Upstream.
    pub upstream_url: Option<String>,
    /// Last known staleness.
    pub staleness: Option<GateStalenessInfo>,
    /// Last poll, RFC 3339, UTC.
    pub last_polled_at: Option<String>,
    /// Next poll, RFC 3339, UTC.
    pub next_poll_at: Option<String>,
    /// Last successful sync, RFC 3339, UTC.
    pub last_sync_at: Option<String>,
    /// Last failure of a poll or sync; null after a success.
    pub last_error: Option<String>,
    /// Number of heads.
    pub refs: u64,
    /// Size on disk; null if there is no gate.
    pub size_bytes: Option<u64>,
}

/// A pending operation that the human confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmedOp {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// The gate's head as it was shown.
    pub gate_sha: String,
}

/// A branch that was moved or removed on request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MovedBranch {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// Head before; null if there was none.
    pub old: Option<String>,
    /// Head after; null if the branch was removed.
    pub new: Option<String>,
    /// Where the old head is kept; null if there was none.
    pub backup_ref: Option<String>,
}

/// A confirmed operation that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedOp {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// `branch_moved` or `invalid_argument`.
    pub kind: String,
    /// Why.
    pub message: String,
}

/// What `project.gate.apply_pending` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyPendingResult {
    /// What was done.
    pub applied: Vec<MovedBranch>,
    /// What was not.
    pub refused: Vec<RefusedOp>,
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupReason {
    /// A pending operation was applied.
    Sync,
    /// A task force-pushed or deleted the branch.
    AgentPush,
    /// Another backup was restored over it.
    Restore,
    /// A promotion replaced it.
    Promote,
    /// The repository does not say.
    Unknown,
}

/// A head that was replaced and is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateBackup {
    /// Full name of the backup ref.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The branch it was.
    pub branch: String,
    /// The head it was at.
    pub commit: String,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// Why.
    pub reason: BackupReason,
}

/// What `project.gate.prune_backups` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrunedBackups {
    /// Full names of the refs.
    pub pruned: Vec<String>,
}

/// A branch with commits that upstream lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewRow {
    /// Branch name without `refs/heads/`.
    pub branch: String,
    /// At most 200, newest first.
    pub commits: Vec<CommitInfo>,
    /// Commits that upstream lacks.
    pub ahead: u64,
    /// Commits that the gate lacks.
    pub behind: u64,
    /// Files that differ between merge base and head.
    pub files_changed: u64,
    /// Lines added.
    pub insertions: u64,
    /// Lines removed.
    pub deletions: u64,
    /// Upstream could not be asked: this compares with what was last fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// When upstream was last fetched, RFC 3339, UTC; set if `stale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<String>,
}

/// What `project.gate.promote` pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromoteResult {
    /// Branch of upstream.
    pub branch: String,
    /// Upstream's head before; null if the branch is new there.
    pub old: Option<String>,
    /// Upstream's head now.
    pub new: String,
}

/// Auto-sync of one gate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AutoSyncState {
    /// A project asks for it.
    pub enabled: bool,
    /// Only these branches; empty means all.
    pub branches: Vec<String>,
    /// Last start, RFC 3339, UTC.
    pub last_at: Option<String>,
    /// Whether the last one succeeded; null if there was none.
    pub last_result: Option<bool>,
    /// No start before this moment, RFC 3339, UTC.
    pub cooldown_until: Option<String>,
}

/// Polling of one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PollState {
    /// Projects that share the gate.
    pub project_ids: Vec<String>,
    /// Path of the gate.
    pub gate_path: String,
    /// Host of upstream; `local` for a path.
    pub host: String,
    /// Interval in force.
    pub interval_seconds: u64,
    /// Next poll, RFC 3339, UTC; null while paused.
    pub next_poll_at: Option<String>,
    /// Last poll, RFC 3339, UTC.
    pub last_poll_at: Option<String>,
    /// Last poll that reached upstream, RFC 3339, UTC.
    pub last_success_at: Option<String>,
    /// Failures since then.
    pub consecutive_failures: u32,
    /// Why the last poll failed; null if it did not.
    pub last_error: Option<String>,
    /// The same for machines.
    pub last_error_kind: Option<StalenessErrorKind>,
    /// What the last poll found.
    pub staleness: Option<GateStalenessInfo>,
    /// Auto-sync.
    pub auto_sync: AutoSyncState,
}

/// How the gate server came by its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerMode {
    /// From systemd.
    Systemd,
    /// Bound by the daemon.
    Daemon,
    /// It does not run.
    None,
}

/// Kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerTransport {
    /// Loopback port.
    Tcp,
    /// Unix socket.
    Socket,
}

/// What the gate server is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateServerStatus {
    /// How it came by its listener.
    pub mode: ServerMode,
    /// It accepts connections.
    pub running: bool,
    /// Its port, if it has one.
    pub port: Option<u16>,
    /// Kind of listener.
    pub transport: Option<ServerTransport>,
    /// Where it listens.
    pub address: Option<String>,
    /// Requests under way.
    pub active_requests: u64,
    /// Requests since it started.
    pub requests_total: u64,
    /// Tokens that open a gate now.
    pub tokens: u64,
    /// Directory whose gates it serves.
    pub base_path: String,
    /// Since when, RFC 3339, UTC.
    pub since: Option<String>,
    /// Why it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
