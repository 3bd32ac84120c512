//! The method table. Each method is declared here once; registration, `rpc.discover`, the reference, `terokctl`
//! and the checks of the test suite all come from this.

use crate::config::{Problem, ProjectConfig, ResolvedConfig, Scope};
use crate::daemon::{DaemonPaths, DaemonStatus, Object, PanicStatus, ProjectCounts};
use crate::gate as g;
use crate::image as i;
use crate::method::methods;
use crate::ops::{Operation, OperationState};
use crate::panic::PanicResult;
use crate::project as p;
use crate::storage as s;
use crate::vault as v;
use crate::wizard::{Question, QuestionRef, ValidatedAnswer, WizardValues};
use serde_json::{Map, Value};

methods! {
    /// Lists the valid projects, sorted by id
    Read ListProjects "list_projects" {;} -> Vec<p::Project>, [], "{}";

    /// Lists every project on disk, the valid ones apart from the broken ones
    Read DiscoverProjects "discover_projects" {;} -> p::DiscoverResult, [], "{}";

    /// Answers one project
    Read GetProject "get_project" {
        /// Project id
        project_id: String;
    } -> p::Project, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Reads a project's configuration afresh from disk
    Read LoadProject "load_project" {
        /// Project id
        project_id: String;
    } -> ProjectConfig, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Fails unless a project of that id is on disk, healthy or not
    Read RequireProjectExists "require_project_exists" {
        /// Project id
        project_id: String;
    } -> (), [InvalidProjectId, ProjectNotFound], r#"{"project_id": "orion"}"#;

    /// Makes a sibling project that shares the source's gate and SSH keys
    Mutate DeriveProject "derive_project" {
        /// Project to start from
        source_id: String,
        /// Id of the new project
        new_id: String;
        /// Go on without SSH keys while the vault is locked
        without_keys: bool,
        /// What else to copy: `presets`, `snippets`
        copy: Vec<String>,
        /// Allow hiding a system project of the new id
        shadow: bool
    } -> p::Project, [InvalidProjectId, InvalidArgument, ProjectNotFound, InvalidConfig, AlreadyExists, ProjectBusy, VaultLocked, Panicked, PermissionDenied, StorageError],
        r#"{"source_id": "orion", "new_id": "orion-exp"}"#;

    /// Archives a project and removes everything that is its own
    Operation DeleteProject "delete_project" {
        /// Project id
        project_id: String;
        /// Only say what would be removed
        dry_run: bool,
        /// Leave the project's images
        keep_images: bool
    } -> p::DeleteProjectResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, ProjectBusy, ArchiveFailed, Panicked, UnmanagedPath, PermissionDenied, StorageError, Cancelled, Interrupted],
        r#"{"project_id": "orion-exp", "dry_run": true}"#;

    /// Lists the projects whose gate is at that path
    Read FindProjectsSharingGate "find_projects_sharing_gate" {
        /// Path of a gate
        gate_path: String;
        /// Project to leave out
        exclude_project: String
    } -> Vec<(String, Option<String>)>, [InvalidArgument], r#"{"gate_path": "/home/ada/.local/share/terok/sandbox/gate/orion.git"}"#;

    /// Writes a selection of agents into the project's `project.yml`
    Mutate SetProjectImageAgents "set_project_image_agents" {
        /// Project id
        project_id: String,
        /// Comma-separated agents, `-name` to exclude, or `all`
        selection: String;
    } -> String, [InvalidProjectId, ProjectNotFound, UnknownAgent, InvalidConfig, ProjectBusy, StorageError],
        r#"{"project_id": "orion", "selection": "claude,codex"}"#;

    /// Lists the new-project wizard's questions
    Read Questions "questions" {;} -> Vec<Question>, [], "{}";

    /// Answers the question for agents, its choices resolved
    Read AgentsQuestion "agents_question" {;} -> Question, [], "{}";

    /// Normalises and judges one answer
    Read ValidateAnswer "validate_answer" {
        /// Key of a question, or a whole question
        question: QuestionRef,
        /// What the user typed
        raw: String;
    } -> ValidatedAnswer, [InvalidArgument], r#"{"question": "project_id", "raw": "My Project"}"#;

    /// Renders a `project.yml` from the wizard's answers without writing it
    Read RenderProjectYaml "render_project_yaml" {
        /// Answers by key
        values: WizardValues;
    } -> String, [InvalidArgument, InvalidProjectId],
        r#"{"values": {"project_id": "orion", "security_class": "online", "base": "ubuntu", "upstream_url": "", "default_branch": "", "user_snippet": ""}}"#;

    /// Writes a new `project.yml`; an existing one is left alone unless told otherwise
    Mutate WriteProjectYaml "write_project_yaml" {
        /// Project id
        project_id: String,
        /// Text of the file
        rendered: String;
        /// Replace an existing file
        overwrite: bool
    } -> String, [InvalidProjectId, InvalidArgument, AlreadyExists, ProjectBusy, StorageError, PermissionDenied],
        r#"{"project_id": "orion", "rendered": "project:\n  id: orion\n"}"#;

    /// Tells whether the project's image exists
    Read ProjectImageExists "project_image_exists" {
        /// Project id
        project_id: String;
    } -> bool, [InvalidProjectId, PodmanUnavailable, PodmanTimeout, PodmanError], r#"{"project_id": "orion"}"#;

    /// Lists terok's images
    Read ListImages "list_images" {;
        /// Only images of this project
        project_id: String
    } -> Vec<i::ImageInfo>, [InvalidProjectId, PodmanUnavailable, PodmanTimeout, PodmanError], "{}";

    /// Lists terok's images that nothing needs any more
    Read FindOrphanedImages "find_orphaned_images" {;} -> Vec<i::ImageInfo>, [StorageError, PodmanUnavailable, PodmanTimeout, PodmanError], "{}";

    /// Removes images
    Operation RemoveImages "remove_images" {
        /// Image ids, full names or `ImageInfo` objects
        images: Vec<Value>;
        /// Only say what would be removed
        dry_run: bool
    } -> i::CleanupResult, [InvalidArgument, Panicked, StorageError, PodmanUnavailable, PodmanTimeout, PodmanError, Cancelled, Interrupted], r#"{"images": [], "dry_run": true}"#;

    /// Finds and removes orphaned images
    Operation CleanupImages "cleanup_images" {;
        /// Only say what would be removed
        dry_run: bool
    } -> i::CleanupResult, [Panicked, StorageError, PodmanUnavailable, PodmanTimeout, PodmanError, Cancelled, Interrupted], r#"{"dry_run": true}"#;

    /// Cuts every task container off the network and stops vault and gate
    Mutate ExecutePanic "execute_panic" {;
        /// Kill the containers afterwards
        stop_containers: bool
    } -> PanicResult, [PodmanUnavailable], "{}";

    /// Kills every task container
    Mutate PanicStopContainers "panic_stop_containers" {;} -> Object, [PodmanUnavailable], "{}";

    /// Renders the result of a lockdown for humans
    Read FormatPanicReport "format_panic_report" {
        /// Result of `execute_panic`
        result: PanicResult;
    } -> String, [], r#"{"result": {"total_running": 2, "vault_stopped": true, "gate_stopped": true}}"#;

    /// Renders a freshly bound SSH key for humans
    Read SummarizeSshInit "summarize_ssh_init" {
        /// Result of `project.provision_ssh_key`
        result: SshInitInput;
    } -> String, [],
        r#"{"result": {"key_id": 1, "key_type": "ed25519", "fingerprint": "SHA256:x", "comment": "tk-main:orion", "public_line": "ssh-ed25519 AAAA tk-main:orion"}}"#;

    /// Archives a project and removes everything that is its own
    Operation ProjectDelete "project.delete" {
        /// Project id
        project_id: String;
        /// Only say what would be removed
        dry_run: bool,
        /// Leave the project's images
        keep_images: bool
    } -> p::DeleteProjectResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, ProjectBusy, ArchiveFailed, Panicked, UnmanagedPath, PermissionDenied, StorageError, Cancelled, Interrupted],
        r#"{"project_id": "orion-exp", "dry_run": true}"#;

    /// Tells which parts of a project's infrastructure exist and which are stale
    Read ProjectGetState "project.state" {
        /// Project id
        project_id: String;
        /// Include the gate's last commit (default true)
        gate_commit: bool
    } -> p::ProjectState, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Measures a project's footprint on disk
    Read ProjectStorageDetail "project.storage_detail" {
        /// Project id
        project_id: String;
        /// Measure again even if a fresh figure is at hand
        refresh: bool
    } -> s::ProjectDetail, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Tells whether a deploy key has to be registered with upstream
    Read ProjectNeedsSshKeyRegistration "project.needs_ssh_key_registration" {
        /// Project id
        project_id: String;
    } -> bool, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Lists the presets that a project can use
    Read ProjectListPresets "project.list_presets" {
        /// Project id
        project_id: String;
    } -> Vec<p::PresetInfo>, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Reads one preset
    Read ProjectLoadPreset "project.load_preset" {
        /// Project id
        project_id: String,
        /// Preset name
        name: String;
    } -> p::LoadedPreset, [InvalidProjectId, ProjectNotFound, InvalidConfig, PresetNotFound, InvalidName],
        r#"{"project_id": "orion", "name": "solo"}"#;

    /// Reads the text of a `project.yml`, also of a broken project
    Read ProjectReadYaml "project.read_yaml" {
        /// Project id
        project_id: String;
    } -> p::ProjectYaml, [InvalidProjectId, ProjectNotFound, StorageError, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Replaces the text of a `project.yml` if it is valid and nobody changed it meanwhile
    Mutate ProjectWriteYaml "project.write_yaml" {
        /// Project id
        project_id: String,
        /// New text
        text: String;
        /// Hash that `project.read_yaml` gave
        base_hash: String
    } -> String, [InvalidProjectId, ProjectNotFound, InvalidConfig, EditConflict, ProjectBusy, StorageError],
        r#"{"project_id": "orion", "text": "project:\n  id: orion\n"}"#;

    /// Merges a project's agent configuration from all its layers
    Read ProjectAgentsResolveConfig "project.agents.resolve_config" {
        /// Project id
        project_id: String;
        /// Preset to lay over the project's
        preset: String,
        /// Overrides on top
        cli_overrides: Map<String, Value>
    } -> Map<String, Value>, [InvalidProjectId, ProjectNotFound, InvalidConfig, PresetNotFound, InvalidName],
        r#"{"project_id": "orion", "preset": "solo"}"#;

    /// Renders the instructions that an agent gets
    Read ProjectAgentsResolveInstructions "project.agents.resolve_instructions" {
        /// Project id
        project_id: String,
        /// Agent
        provider: String;
        /// Preset to lay over the project's
        preset: String
    } -> String, [InvalidProjectId, ProjectNotFound, InvalidConfig, UnknownProvider, PresetNotFound, InvalidName],
        r#"{"project_id": "orion", "provider": "claude"}"#;

    /// Tells which agent a run would use and how it is called
    Read ProjectAgentsGetProvider "project.agents.get_provider" {
        /// Project id
        project_id: String;
        /// Agent; by default the project's
        name: String
    } -> p::AgentProvider, [InvalidProjectId, ProjectNotFound, InvalidConfig, UnknownProvider], r#"{"project_id": "orion"}"#;

    /// Creates a task
    Mutate ProjectCreateTask "project.create_task" {
        /// Project id
        project_id: String;
        /// Name of the task; by default one is made up
        name: String
    } -> Object, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion"}"#;

    /// Answers one task
    Read ProjectGetTask "project.get_task" {
        /// Project id
        project_id: String,
        /// Task id, or an unambiguous beginning of it
        task: String;
    } -> Object, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion", "task": "k3v"}"#;

    /// Lists a project's tasks
    Read ProjectListTasks "project.list_tasks" {
        /// Project id
        project_id: String;
        /// Only tasks in this status
        status: String,
        /// Only tasks of this mode
        mode: String
    } -> Vec<Object>, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion"}"#;

    /// Lists a project's tasks
    Read ProjectTasks "project.tasks" {
        /// Project id
        project_id: String;
        /// Only tasks in this status
        status: String,
        /// Only tasks of this mode
        mode: String
    } -> Vec<Object>, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion"}"#;

    /// Creates a task and runs an agent in it without a terminal
    Operation ProjectRunHeadless "project.run_headless" {
        /// Project id
        project_id: String,
        /// What the agent is asked to do
        prompt: String;
        /// File with overrides of the agent configuration
        config_path: String,
        /// Model
        model: String,
        /// Turns at most
        max_turns: u64,
        /// Seconds at most
        timeout: u64,
        /// Answer when the agent has finished
        follow: bool,
        /// Sub-agents
        agents: Vec<String>,
        /// Preset
        preset: String,
        /// Name of the task
        name: String,
        /// Agent
        provider: String,
        /// Instructions instead of the configured ones
        instructions: String,
        /// Approve what the agent does
        unrestricted: bool,
        /// Overrides of the agent configuration
        config: Object,
        /// Keep the task if the run fails
        keep_on_failure: bool
    } -> Object, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion", "prompt": "fix the tests"}"#;

    /// Sends another prompt to a finished headless task
    Operation ProjectFollowupHeadless "project.followup_headless" {
        /// Project id
        project_id: String,
        /// Task id, or an unambiguous beginning of it
        task: String,
        /// What the agent is asked to do
        prompt: String;
        /// Answer when the agent has finished
        follow: bool
    } -> Object, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion", "task": "k3v", "prompt": "now the docs"}"#;

    /// Lists the ACP endpoints of a project's running tasks
    Read ProjectAcpEndpoints "project.acp_endpoints" {
        /// Project id
        project_id: String;
    } -> Vec<Object>, [InvalidProjectId, ProjectNotFound, InvalidConfig, PodmanUnavailable], r#"{"project_id": "orion"}"#;

    /// Renders the project's Dockerfiles
    Mutate ProjectGenerateDockerfiles "project.generate_dockerfiles" {
        /// Project id
        project_id: String;
    } -> i::GeneratedDockerfiles, [InvalidProjectId, ProjectNotFound, InvalidConfig, UnknownAgent, ProjectBusy, StorageError], r#"{"project_id": "orion"}"#;

    /// Builds the project's images
    Operation ProjectBuildImages "project.build_images" {
        /// Project id
        project_id: String;
        /// The development image too
        include_dev: bool,
        /// Install agents anew
        refresh_agents: bool,
        /// Build every layer
        full: bool,
        /// Selection instead of the configured one
        agents: String,
        /// Only what is stale
        rebuild_stale: bool
    } -> i::BuildResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, UnknownAgent, ProjectBusy, Panicked, StorageError, BuildFailed, PodmanUnavailable, PodmanTimeout, PodmanError, Cancelled, Interrupted], r#"{"project_id": "orion"}"#;

    /// Answers the project's SSH key, minting one if it has none
    Mutate ProjectProvisionSshKey "project.provision_ssh_key" {
        /// Project id
        project_id: String;
        /// `ed25519` or `rsa`
        key_type: String,
        /// Comment of an additional key
        comment: String,
        /// Make a new key the project's only one
        force: bool
    } -> p::SshInitResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, InvalidScope, UnsafeComment, ProjectBusy, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"project_id": "orion"}"#;

    /// Binds a key of the vault to a project
    Mutate ProjectRegisterSshKey "project.register_ssh_key" {
        /// Project id
        project_id: String,
        /// Number of the key
        key_id: i64;
    } -> (), [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidScope, KeyNotFound, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"project_id": "orion", "key_id": 1}"#;

    /// Waits until upstream accepts the project's key
    Mutate ProjectPauseForSshKeyRegistrationIfNeeded "project.pause_for_ssh_key_registration_if_needed" {
        /// Project id
        project_id: String;
        /// How long to wait; by default until the key works
        timeout_ms: u64
    } -> v::KeyRegistration, [InvalidProjectId, ProjectNotFound, InvalidConfig, GitMissing, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"project_id": "orion", "timeout_ms": 0}"#;

    /// Ends a wait for the registration of the project's key
    Mutate ProjectConfirmSshKeyRegistration "project.confirm_ssh_key_registration" {
        /// Project id
        project_id: String;
    } -> (), [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Asks upstream whether it accepts the project's key now
    Read ProjectCheckSshKey "project.check_ssh_key" {
        /// Project id
        project_id: String;
    } -> v::CheckedKey, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, UpstreamUnreachable, UpstreamAuthFailed, HostKeyChanged, GateAuthNotConfigured, GitMissing, InvalidUrl, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"project_id": "orion"}"#;

    /// Lists the keys that a project may use
    Read ProjectSshListKeys "project.ssh.list_keys" {
        /// Project id
        project_id: String;
    } -> Vec<v::SshKeyRow>, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidScope, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"project_id": "orion"}"#;

    /// Tells where the vault stands; never fails because it is locked
    Read VaultGetStatus "vault.status" {;} -> v::VaultStatus, [], "{}";

    /// Sets the vault up for the first time
    Mutate VaultProvision "vault.provision" {;
        /// `session-file`, `systemd-creds`, `keyring` or `config`; by default the best that works
        tier: v::PassphraseSource,
        /// Passphrase; by default one is made up
        passphrase: v::Secret
    } -> v::VaultStatus, [AlreadyExists, InvalidArgument, InvalidConfig, VaultTierFailed, Panicked, StorageError], "{}";

    /// Opens the vault, from its tiers or with a passphrase that is then kept for the session
    Mutate VaultUnlock "vault.unlock" {;
        /// Passphrase
        passphrase: v::Secret
    } -> v::VaultStatus, [VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, InvalidArgument, InvalidConfig, Panicked, StorageError], "{}";

    /// Closes the vault until somebody unlocks it or the daemon restarts
    Mutate VaultLock "vault.lock" {;
        /// Destroy every stored copy of the passphrase too
        forget: bool,
        /// Really
        confirm: bool
    } -> v::LockResult, [ConfirmationRequired, VaultTierFailed, StorageError], "{}";

    /// Seals the passphrase with systemd-creds
    Mutate VaultSeal "vault.seal" {;
        /// `auto`, `host`, `tpm` or `tpm+host`
        key: String
    } -> v::VaultStatus, [VaultLocked, VaultTierFailed, InvalidArgument, InvalidConfig, Panicked, StorageError], "{}";

    /// Moves the passphrase into the desktop's keyring
    Mutate VaultToKeyring "vault.to_keyring" {;} -> v::VaultStatus, [VaultLocked, VaultTierFailed, InvalidConfig, Panicked, StorageError], "{}";

    /// Notes that the user has written the passphrase down
    Mutate VaultAcknowledgeRecovery "vault.acknowledge_recovery" {;} -> v::VaultStatus, [StorageError], "{}";

    /// Lists the public halves of all keys
    Read VaultListSshKeys "vault.list_ssh_keys" {;} -> Vec<v::SshKeyRow>, [VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], "{}";

    /// Stores a private key
    Mutate VaultImportSshKey "vault.import_ssh_key" {;
        /// File in OpenSSH format
        path: String,
        /// Text in OpenSSH format
        private_key: v::Secret,
        /// Public half to compare with
        public_key: String,
        /// Passphrase of the key
        passphrase: v::Secret,
        /// Comment; by default that of the public key
        comment: String,
        /// Bind it to this project
        project_id: String
    } -> v::ImportResult, [InvalidArgument, InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidScope, UnsafeComment, KeyPasswordProtected, KeyMismatch, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError],
        r#"{"path": "/home/ada/.ssh/id_ed25519"}"#;

    /// Answers the public half of one key
    Read VaultExportSshKey "vault.export_ssh_key" {
        /// Number of the key
        key_id: i64;
    } -> v::SshKeyRow, [KeyNotFound, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"key_id": 1}"#;

    /// Takes a key from a project, or from all; a key that nobody has left is removed
    Mutate VaultRemoveSshKey "vault.remove_ssh_key" {
        /// Number of the key
        key_id: i64;
        /// Only from this project
        project_id: String
    } -> v::RemovedKey, [InvalidProjectId, InvalidScope, KeyNotFound, VaultLocked, VaultWrongPassphrase, VaultTierFailed, VaultPlaintextDb, VaultSchemaNewer, Panicked, StorageError], r#"{"key_id": 1}"#;

    /// Brings the project's gate up to date with upstream; work that only the gate has is never lost
    Operation ProjectGateSync "project.gate.sync" {
        /// Project id
        project_id: String;
        /// Only these branches
        branches: Vec<String>,
        /// Build the gate anew
        force_reinit: bool,
        /// Use the user's own SSH keys
        use_personal_ssh: bool
    } -> g::GateSyncResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, GateDisabled, GateConflict, GateCorrupt, GateBusy, GateUnsupportedObjectFormat, StorageError, Panicked, Cancelled, UpstreamUnreachable, UpstreamAuthFailed, HostKeyChanged, GateAuthNotConfigured, GitMissing, InvalidUrl], r#"{"project_id": "orion"}"#;

    /// Brings branches of an existing gate up to date
    Operation ProjectGateSyncBranches "project.gate.sync_branches" {
        /// Project id
        project_id: String;
        /// Only these branches
        branches: Vec<String>
    } -> g::BranchSyncResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, GateDisabled, GateConflict, GateCorrupt, GateBusy, GateUnsupportedObjectFormat, StorageError, Panicked, Cancelled, UpstreamUnreachable, UpstreamAuthFailed, HostKeyChanged, GateAuthNotConfigured, GitMissing, InvalidUrl], r#"{"project_id": "orion", "branches": ["main"]}"#;

    /// Asks upstream how current the gate is
    Read ProjectGateCompareVsUpstream "project.gate.compare_vs_upstream" {
        /// Project id
        project_id: String;
        /// Branch; by default the project's, else upstream's
        branch: String
    } -> g::GateStalenessInfo, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument], r#"{"project_id": "orion"}"#;

    /// Answers the last commit of the gate's default branch
    Read ProjectGateLastCommit "project.gate.last_commit" {
        /// Project id
        project_id: String;
    } -> Option<p::CommitInfo>, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Tells what is known of the gate
    Read ProjectGateGetStatus "project.gate.status" {
        /// Project id
        project_id: String;
    } -> g::GateStatus, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Lists changes of upstream's that wait for a human
    Read ProjectGatePending "project.gate.pending" {
        /// Project id
        project_id: String;
    } -> Vec<g::PendingOp>, [InvalidProjectId, ProjectNotFound, InvalidConfig, GateMissing, GateCorrupt], r#"{"project_id": "orion"}"#;

    /// Applies confirmed changes of upstream's; every old head is kept
    Mutate ProjectGateApplyPending "project.gate.apply_pending" {
        /// Project id
        project_id: String,
        /// What is confirmed
        ops: Vec<g::ConfirmedOp>;
    } -> g::ApplyPendingResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, GateMissing, GateCorrupt, GateBusy, Panicked, StorageError],
        r#"{"project_id": "orion", "ops": [{"branch": "main", "gate_sha": "8f1f8dc31ee6b4a1d6a7e2c8ad8c0e5d6a1f0c9b"}]}"#;

    /// Lists the heads that were replaced and are kept, newest first
    Read ProjectGateBackups "project.gate.backups" {
        /// Project id
        project_id: String;
    } -> Vec<g::GateBackup>, [InvalidProjectId, ProjectNotFound, InvalidConfig, GateMissing, GateCorrupt], r#"{"project_id": "orion"}"#;

    /// Moves a branch to a kept head
    Mutate ProjectGateRestoreBackup "project.gate.restore_backup" {
        /// Project id
        project_id: String,
        /// Full name of the backup ref
        r#ref: String;
    } -> g::MovedBranch, [InvalidProjectId, ProjectNotFound, InvalidConfig, BackupNotFound, GateMissing, GateCorrupt, GateBusy, BranchMoved, Panicked, StorageError],
        r#"{"project_id": "orion", "ref": "refs/terok/backup/main/20260301T120000Z-8f1f8dc31ee6"}"#;

    /// Removes kept heads that are older than the retention
    Mutate ProjectGatePruneBackups "project.gate.prune_backups" {
        /// Project id
        project_id: String;
        /// Instead of the retention
        older_than_days: u64
    } -> g::PrunedBackups, [InvalidProjectId, ProjectNotFound, InvalidConfig, GateMissing, GateCorrupt, GateBusy, Panicked, StorageError], r#"{"project_id": "orion"}"#;

    /// Lists what the gate holds that upstream does not
    Read ProjectGateReview "project.gate.review" {
        /// Project id
        project_id: String;
        /// Only this branch
        branch: String
    } -> Vec<g::ReviewRow>, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, GateMissing, GateCorrupt, GateBusy], r#"{"project_id": "orion"}"#;

    /// Pushes a reviewed branch of the gate to upstream; only creates and fast-forwards
    Operation ProjectGatePromote "project.gate.promote" {
        /// Project id
        project_id: String,
        /// Branch of the gate
        branch: String;
        /// Branch of upstream; by default the same
        upstream_branch: String,
        /// Commit that was reviewed
        expect_commit: String
    } -> g::PromoteResult, [InvalidProjectId, ProjectNotFound, InvalidConfig, InvalidArgument, BranchMoved, PushRejected, GateMissing, GateCorrupt, GateBusy, Panicked, Cancelled, StorageError, UpstreamUnreachable, UpstreamAuthFailed, HostKeyChanged, GateAuthNotConfigured, GitMissing, InvalidUrl],
        r#"{"project_id": "orion", "branch": "agent/fix"}"#;

    /// Tells what the gate server is doing
    Read GateServerGetStatus "gate_server.status" {;} -> g::GateServerStatus, [], "{}";

    /// Tells how each gate is polled
    Read PollingGetStatus "polling.status" {;
        /// Only the gate of this project
        project_id: String
    } -> Vec<g::PollState>, [InvalidProjectId, ProjectNotFound, InvalidConfig], "{}";

    /// Polls now
    Operation PollingPollNow "polling.poll_now" {;
        /// Only the gate of this project
        project_id: String
    } -> Vec<g::GateStalenessInfo>, [InvalidProjectId, ProjectNotFound, InvalidConfig, Panicked, Cancelled], "{}";

    /// Tells what the daemon is doing
    Read DaemonGetStatus "daemon.status" {;} -> DaemonStatus, [], "{}";

    /// Lists every directory the daemon uses, where each comes from and whether it exists
    Read DaemonGetPaths "daemon.paths" {;} -> DaemonPaths, [], "{}";

    /// Answers once every change made to the files before the call is active
    Read DaemonReload "daemon.reload" {;} -> ProjectCounts, [], "{}";

    /// Finishes or checkpoints operations and ends the daemon
    Mutate DaemonShutdown "daemon.shutdown" {;
        /// How long operations may take to finish
        drain_ms: u64
    } -> (), [InvalidArgument], "{}";

    /// Tells whether the kill switch is engaged
    Read PanicGetStatus "panic.status" {;} -> PanicStatus, [], "{}";

    /// Lists operations, newest first
    Read OperationList "operation.list" {;
        /// Only of this project
        project_id: String,
        /// Only in this state
        state: OperationState
    } -> Vec<Operation>, [], r#"{"state": "running"}"#;

    /// Answers one operation
    Read OperationGet "operation.get" {
        /// Operation id
        id: String;
    } -> Operation, [OperationNotFound], r#"{"id": "01"}"#;

    /// Asks an operation to stop
    Mutate OperationCancel "operation.cancel" {
        /// Operation id
        id: String;
    } -> Operation, [OperationNotFound], r#"{"id": "01"}"#;

    /// Lists everything that can be installed into an image
    Read AgentsList "agents.list" {;} -> Vec<p::RosterEntry>, [], "{}";

    /// Resolves a selection of agents
    Read AgentsParseSelection "agents.parse_selection" {
        /// Comma-separated agents, `-name` to exclude, or `all`
        selection: String;
    } -> Vec<String>, [UnknownAgent], r#"{"selection": "all,-vibe"}"#;

    /// Lists the values in force and where each was set
    Read ConfigResolve "config.resolve" {;
        /// Resolve this project's configuration
        project_id: String
    } -> ResolvedConfig, [InvalidProjectId, ProjectNotFound, InvalidConfig], r#"{"project_id": "orion"}"#;

    /// Lists what is wrong with the configuration files now
    Read ConfigProblems "config.problems" {;} -> Vec<Problem>, [], "{}";

    /// Checks a text without applying it
    Read ConfigValidate "config.validate" {
        /// Text of the file
        text: String,
        /// Which kind of file it is
        kind: Scope;
    } -> Vec<Problem>, [], r#"{"text": "project:\n  id: orion\n", "kind": "project"}"#;

    /// Answers the JSON Schema of a configuration file
    Read ConfigSchema "config.schema" {
        /// Which kind of file
        kind: Scope;
    } -> Map<String, Value>, [], r#"{"kind": "project"}"#;

    /// Measures everything that terok stores
    Read GetStorageOverview "storage.overview" {;
        /// Measure again even if fresh figures are at hand
        refresh: bool
    } -> s::StorageOverview, [], "{}";

    /// Answers the OpenRPC document of the methods registered
    Read RpcDiscover "rpc.discover" {;} -> Map<String, Value>, [], "{}";

    /// Lists the names of the methods registered
    Read RpcMethods "rpc.methods" {;} -> Vec<String>, [], "{}";

    /// Streams events: `events.event` notifications
    Subscription EventsSubscribe "events.subscribe" {;
        /// Only of these projects
        projects: Vec<String>,
        /// Only of these kinds
        kinds: Vec<String>,
        /// Replay what came after this sequence number
        since: u64,
        /// Epoch that `since` belongs to
        epoch: String,
        /// Send the present state first
        snapshot: bool
    } -> SubscriptionId, [InvalidArgument], r#"{"kinds": ["project.changed"], "snapshot": true}"#;

    /// Ends a stream of events
    Read EventsUnsubscribe "events.unsubscribe" {
        /// Subscription id
        subscription: SubscriptionId;
    } -> bool, [], r#"{"subscription": "x"}"#;

    /// Streams one operation's progress, log and final state: `operation.update` notifications
    Subscription OperationSubscribe "operation.subscribe" {
        /// Operation id
        id: String;
    } -> SubscriptionId, [OperationNotFound], r#"{"id": "01"}"#;

    /// Ends a stream of an operation
    Read OperationUnsubscribe "operation.unsubscribe" {
        /// Subscription id
        subscription: SubscriptionId;
    } -> bool, [], r#"{"subscription": "x"}"#;
}

/// Id of a subscription.
pub type SubscriptionId = String;

/// The part of an `SSHInitResult` that is rendered; further members are ignored.
pub type SshInitInput = p::SshInitResult;

/// The method of that name.
pub fn find(name: &str) -> Option<&'static crate::MethodInfo> {
    ALL.iter().find(|m| m.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Method};

    #[test]
    fn names_are_unique_and_examples_fit() {
        let mut seen = std::collections::HashSet::new();
        for method in ALL {
            assert!(
                seen.insert(method.name),
                "{} is declared twice",
                method.name
            );
            let example: Map<String, Value> =
                serde_json::from_str(method.example).expect(method.name);
            for name in example.keys() {
                assert!(
                    method.params.iter().any(|p| p.name == name),
                    "{}: {name}",
                    method.name
                );
            }
        }
    }

    #[test]
    fn parameters_go_by_name_and_by_position() {
        let by_name: DeleteProject =
            serde_json::from_str(r#"{"project_id":"a","dry_run":null}"#).expect("by name");
        assert_eq!((by_name.project_id.as_str(), by_name.dry_run), ("a", None));
        let by_position: DeleteProject =
            serde_json::from_str(r#"["a",true]"#).expect("by position");
        assert_eq!(by_position.dry_run, Some(true));
        assert_eq!(DeleteProject::INFO.access, Access::Operation);
        let unknown = serde_json::from_str::<DeleteProject>(r#"{"project_id":"a","dryrun":true}"#);
        assert!(
            unknown
                .expect_err("unknown name")
                .to_string()
                .contains("dryrun")
        );
    }
}
