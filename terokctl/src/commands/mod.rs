//! The commands: arguments → calls → rendering. No rule of the domain lives here.

mod agents;
mod build;
mod call;
mod config;
mod daemon;
mod delete;
mod gate;
mod image;
mod init;
mod meta;
mod operations;
mod panic;
mod project;
mod ssh;
mod state;
mod vault;
mod watch;
mod wizard;

use crate::args::{Arg, Command, Hint};
use crate::render::{Column, Show, View};

const PROJECT: Arg = Arg::required("ID", "project_id").hint(Hint::Project);
const SCOPES: &[&str] = &["project", "global", "terokd"];
const SHELLS: &[&str] = &["bash", "zsh", "fish"];
const KEY_TYPES: &[&str] = &["ed25519", "rsa"];
const TIERS: &[&str] = &["session-file", "systemd-creds", "keyring", "config"];
const SEALS: &[&str] = &["auto", "host", "tpm", "tpm+host"];
const STATES: &[&str] = &["queued", "running", "succeeded", "failed", "cancelled"];

/// Every command there is.
pub(crate) const COMMANDS: &[Command] = &[
    Command::group(
        "project",
        "Projects: list, make, inspect, delete",
        &[
            Command::call("list", "list_projects", &[], View::Table(project::COLUMNS)),
            Command::call(
                "discover",
                "discover_projects",
                &[],
                View::Custom(project::show_discovered),
            ),
            Command::call("show", "get_project", &[PROJECT], View::Record),
            Command::call("config", "load_project", &[PROJECT], View::Record),
            Command::own(
                "wizard",
                "questions",
                "Asks for everything a new project needs and writes it",
                &[],
                wizard::run,
            ),
            Command::own(
                "new",
                "write_project_yaml",
                "Makes a project from a file: a project.yml, or the wizard's answers as a JSON object",
                &[
                    Arg::optional("ID", "").help("Project id [default: the one in the file]"),
                    Arg::value("from", "")
                        .hint(Hint::File)
                        .help("The file; - reads standard input"),
                    Arg::flag("overwrite", "").help("Replace an existing project.yml"),
                    Arg::flag("draft", "").help("Write it even if it is not valid"),
                ],
                project::new,
            ),
            Command::call(
                "derive",
                "derive_project",
                &[
                    Arg::required("SRC", "source_id").hint(Hint::Project),
                    Arg::required("NEW", "new_id"),
                    Arg::flag("without-keys", "without_keys"),
                    Arg::many("copy", "copy")
                        .hint(Hint::OneOf(&["presets", "snippets"]))
                        .metavar("WHAT"),
                    Arg::flag("shadow", "shadow"),
                ],
                View::Custom(project::show_derived),
            ),
            Command::own(
                "delete",
                "delete_project",
                "Archives a project and removes everything that is its own",
                &[
                    PROJECT,
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                    Arg::flag("dry-run", "").help("Only say what would be removed"),
                    Arg::flag("keep-images", "keep_images"),
                ],
                delete::run,
            ),
            Command::own(
                "state",
                "project.state",
                "Tells which parts of a project's infrastructure exist, which are stale, and what renews them",
                &[PROJECT],
                state::run,
            ),
            Command::call(
                "storage",
                "project.storage_detail",
                &[PROJECT, Arg::flag("refresh", "refresh")],
                View::Custom(image::show_project),
            ),
            Command::own(
                "presets",
                "project.list_presets",
                "Lists the presets that a project can use, or shows one",
                &[
                    PROJECT,
                    Arg::optional("NAME", "")
                        .hint(Hint::Preset)
                        .help("Show this preset"),
                ],
                project::presets,
            ),
            Command::own(
                "agents",
                "set_project_image_agents",
                "Writes a selection of agents into the project's project.yml",
                &[
                    PROJECT,
                    Arg::optional("SELECTION", "selection")
                        .hint(Hint::Agents)
                        .help("Comma-separated agents, -name to exclude, or all; without it you are asked"),
                ],
                agents::select,
            ),
            Command::call(
                "generate",
                build::GENERATE,
                &[PROJECT],
                View::Custom(build::show_generated),
            ),
            Command::own(
                "build",
                build::BUILD,
                "Builds the project's images: what is missing below, and its own layer always",
                &[
                    PROJECT,
                    Arg::flag("dev", "include_dev")
                        .help("Also the image for debugging, which has no agents"),
                    Arg::flag("refresh-agents", "refresh_agents")
                        .help("Install the agents anew, in the versions of today"),
                    Arg::flag("full", "full")
                        .help("Build every layer anew, without a cache, on the newest base image"),
                    Arg::value("agents", "agents")
                        .hint(Hint::Agents)
                        .metavar("SELECTION")
                        .help("Agents for this build, instead of those that are configured"),
                    Arg::flag("rebuild-stale", "rebuild_stale")
                        .help("Also the layers below that are stale"),
                ],
                build::run,
            ),
            Command::own(
                "ssh-init",
                "project.provision_ssh_key",
                "Answers the project's SSH key, minting one if it has none, and waits until upstream knows it",
                &[
                    PROJECT,
                    Arg::value("type", "key_type")
                        .hint(Hint::OneOf(KEY_TYPES))
                        .metavar("TYPE"),
                    Arg::value("comment", "comment").metavar("TEXT"),
                    Arg::flag("force", "force"),
                ],
                ssh::init,
            ),
            Command::own(
                "check-key",
                "project.check_ssh_key",
                "Asks upstream whether it accepts the project's key now; the exit code is 1 if it does not",
                &[PROJECT],
                ssh::check,
            ),
            Command::own(
                "init",
                "project.gate.sync",
                "Makes a project ready: SSH key if upstream needs one, Dockerfiles, images, gate",
                &[
                    PROJECT,
                    Arg::flag("skip-images", "").help("Leave Dockerfiles and images out"),
                ],
                init::run,
            ),
        ],
    ),
    Command::group(
        "gate",
        "Gates: sync, review, promote, what waits for a human",
        &[
            Command::own(
                "sync",
                "project.gate.sync",
                "Brings the project's gate up to date with upstream; work that only the gate has is never lost",
                &[
                    PROJECT,
                    Arg::many("branch", "branches").metavar("BRANCH"),
                    Arg::flag("force-reinit", "force_reinit"),
                    Arg::flag("use-personal-ssh", "use_personal_ssh"),
                ],
                gate::sync,
            ),
            Command::call(
                "status",
                "project.gate.status",
                &[PROJECT],
                View::Custom(gate::show_status),
            ),
            Command::own(
                "path",
                "project.gate.status",
                "Prints where the project's gate is or would be",
                &[PROJECT],
                |session, values| {
                    let view = View::Custom(gate::show_path);
                    session.call_and_show("project.gate.status", values.params(), &view)
                },
            ),
            Command::call(
                "compare",
                "project.gate.compare_vs_upstream",
                &[PROJECT, Arg::value("branch", "branch").metavar("BRANCH")],
                View::Custom(gate::show_staleness),
            ),
            Command::call(
                "review",
                "project.gate.review",
                &[PROJECT, Arg::value("branch", "branch").metavar("BRANCH")],
                View::Custom(gate::show_review),
            ),
            Command::call(
                "promote",
                "project.gate.promote",
                &[
                    PROJECT,
                    Arg::required("BRANCH", "branch"),
                    Arg::value("to", "upstream_branch").metavar("BRANCH"),
                    Arg::value("expect", "expect_commit").metavar("COMMIT"),
                ],
                View::Custom(gate::show_promoted),
            ),
            Command::call(
                "pending",
                "project.gate.pending",
                &[PROJECT],
                View::Table(gate::PENDING),
            ),
            Command::own(
                "apply",
                "project.gate.apply_pending",
                "Applies what upstream did to branches, after showing it; every old head is kept",
                &[
                    PROJECT,
                    Arg::rest("BRANCH", "")
                        .hint(Hint::Pending)
                        .help("Branches that `gate pending` lists"),
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                ],
                gate::apply,
            ),
            Command::call(
                "backups",
                "project.gate.backups",
                &[PROJECT],
                View::Table(gate::BACKUPS),
            ),
            Command::call(
                "restore",
                "project.gate.restore_backup",
                &[PROJECT, Arg::required("REF", "ref").hint(Hint::Backup)],
                View::Custom(gate::show_moved),
            ),
            Command::call(
                "prune",
                "project.gate.prune_backups",
                &[PROJECT, Arg::number("older-than-days", "older_than_days")],
                View::Custom(gate::show_pruned),
            ),
            Command::call(
                "poll",
                "polling.poll_now",
                &[Arg::optional("ID", "project_id").hint(Hint::Project)],
                View::Table(gate::STALENESS),
            ),
            Command::call(
                "polling",
                "polling.status",
                &[Arg::optional("ID", "project_id").hint(Hint::Project)],
                View::Table(gate::POLLING),
            ),
            Command::call("server", "gate_server.status", &[], View::Record),
        ],
    ),
    Command::group(
        "vault",
        "The vault: passphrase, SSH keys",
        &[
            Command::call(
                "status",
                "vault.status",
                &[],
                View::Custom(vault::show_status),
            ),
            Command::own(
                "unlock",
                "vault.unlock",
                "Opens the vault from its tiers, or with a passphrase that is typed or piped in",
                &[],
                vault::unlock,
            ),
            Command::own(
                "lock",
                "vault.lock",
                "Closes the vault until somebody unlocks it or the daemon restarts",
                &[
                    Arg::flag("forget", "forget"),
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                ],
                vault::lock,
            ),
            Command::own(
                "provision",
                "vault.provision",
                "Sets the vault up for the first time; a passphrase is typed, piped in or made up",
                &[Arg::value("tier", "tier")
                    .hint(Hint::OneOf(TIERS))
                    .metavar("TIER")
                    .help("Where the passphrase is kept [default: the best that works]")],
                vault::provision,
            ),
            Command::call(
                "seal",
                "vault.seal",
                &[Arg::value("key", "key")
                    .hint(Hint::OneOf(SEALS))
                    .metavar("KEY")],
                View::Custom(vault::show_state),
            ),
            Command::call(
                "to-keyring",
                "vault.to_keyring",
                &[],
                View::Custom(vault::show_state),
            ),
            Command::call(
                "acknowledge",
                "vault.acknowledge_recovery",
                &[],
                View::Nothing,
            ),
            Command::call("keys", "vault.list_ssh_keys", &[], View::Table(ssh::KEYS)),
            Command::own(
                "import",
                "vault.import_ssh_key",
                "Stores a private key; its passphrase is typed or piped in",
                &[
                    Arg::required("FILE", "")
                        .hint(Hint::File)
                        .help("File in OpenSSH format; - reads standard input"),
                    Arg::value("project", "project_id").hint(Hint::Project),
                    Arg::value("comment", "comment").metavar("TEXT"),
                ],
                vault::import,
            ),
            Command::call(
                "export",
                "vault.export_ssh_key",
                &[Arg::key("KEY", "key_id")],
                View::Custom(vault::show_public),
            ),
            Command::own(
                "remove",
                "vault.remove_ssh_key",
                "Takes a key from a project, or from all; a key that nobody has left is removed",
                &[
                    Arg::key("KEY", "key_id"),
                    Arg::value("project", "project_id").hint(Hint::Project),
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                ],
                vault::remove,
            ),
        ],
    ),
    Command::group(
        "ssh",
        "SSH keys of projects",
        &[
            Command::own(
                "keys",
                "project.ssh.list_keys",
                "Lists the keys that a project may use, or all",
                &[Arg::optional("ID", "project_id").hint(Hint::Project)],
                ssh::keys,
            ),
            Command::call(
                "register",
                "project.register_ssh_key",
                &[PROJECT, Arg::key("KEY", "key_id")],
                View::Nothing,
            ),
        ],
    ),
    Command::group(
        "agents",
        "Agents and tools that images can hold",
        &[Command::own(
            "list",
            "agents.list",
            "Lists the agents that can be installed into an image, and files of roster entries that cannot be used",
            &[Arg::flag("all", "").help("Tools too, which are no agents")],
            agents::list,
        )],
    ),
    Command::group(
        "image",
        "Images: list, usage, clean up",
        &[
            Command::call(
                "list",
                "list_images",
                &[Arg::optional("ID", "project_id").hint(Hint::Project)],
                View::Table(image::COLUMNS),
            ),
            Command::call(
                "orphans",
                "find_orphaned_images",
                &[],
                View::Table(image::COLUMNS),
            ),
            Command::own(
                "remove",
                "remove_images",
                "Removes images that nothing needs: orphans, and base images that no project uses",
                &[
                    Arg::rest("IMAGE", "images")
                        .hint(Hint::Image)
                        .help("Full names or ids, as `image list` and `image orphans` have them"),
                    Arg::flag("dry-run", "").help("Only say what would be removed"),
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                ],
                image::remove,
            ),
            Command::own(
                "cleanup",
                "cleanup_images",
                "Finds and removes orphaned images",
                &[
                    Arg::flag("dry-run", "").help("Only say what would be removed"),
                    Arg::flag("yes", "").short('y').help("Do not ask"),
                ],
                image::cleanup,
            ),
            Command::own(
                "usage",
                "storage.overview",
                "Measures everything that terok stores",
                &[Arg::flag("refresh", "refresh")],
                image::usage,
            ),
        ],
    ),
    Command::group(
        "config",
        "Configuration: what is in force, wrong, allowed",
        &[
            Command::call(
                "resolve",
                "config.resolve",
                &[Arg::optional("ID", "project_id").hint(Hint::Project)],
                View::Custom(config::show_resolved),
            ),
            Command::call(
                "problems",
                "config.problems",
                &[],
                View::Table(config::PROBLEMS),
            ),
            Command::own(
                "validate",
                "config.validate",
                "Checks a file without applying it; the exit code is 1 if it cannot be used",
                &[
                    Arg::required("FILE", "")
                        .hint(Hint::File)
                        .help("The file; - reads standard input"),
                    Arg::value("kind", "")
                        .hint(Hint::OneOf(SCOPES))
                        .metavar("KIND")
                        .help("Which kind of file it is [default: by its name]"),
                ],
                config::validate,
            ),
            Command::call(
                "schema",
                "config.schema",
                &[Arg::required("KIND", "kind").hint(Hint::OneOf(SCOPES))],
                View::Json,
            ),
        ],
    ),
    Command::group(
        "daemon",
        "The daemon itself",
        &[
            Command::call(
                "status",
                "daemon.status",
                &[],
                View::Custom(daemon::show_status),
            ),
            Command::own(
                "start",
                "daemon.status",
                "Starts a daemon unless one is running",
                &[],
                daemon::start,
            ),
            Command::own(
                "stop",
                "daemon.shutdown",
                "Finishes or checkpoints operations, ends the daemon and waits for its end",
                &[Arg::number("drain-ms", "drain_ms")],
                daemon::stop,
            ),
            Command::call("reload", "daemon.reload", &[], View::Record),
            Command::own(
                "paths",
                "daemon.paths",
                "Lists every directory the daemon uses, and warns where this environment would choose another",
                &[],
                daemon::paths,
            ),
        ],
    ),
    Command::group(
        "op",
        "Operations: long work",
        &[
            Command::call(
                "list",
                "operation.list",
                &[
                    Arg::value("project", "project_id").hint(Hint::Project),
                    Arg::value("state", "state")
                        .hint(Hint::OneOf(STATES))
                        .metavar("STATE"),
                ],
                View::Table(operations::COLUMNS),
            ),
            Command::own(
                "show",
                "operation.get",
                "Shows one operation",
                &[
                    Arg::required("OPERATION", "id").hint(Hint::Operation),
                    Arg::flag("wait", "").help("Follow it to its end and print its result"),
                ],
                operations::show,
            ),
            Command::call(
                "cancel",
                "operation.cancel",
                &[Arg::required("OPERATION", "id").hint(Hint::Operation)],
                View::Custom(operations::show_one),
            ),
        ],
    ),
    Command::own(
        "panic",
        "execute_panic",
        "Cuts every task container off the network and stops vault and gate",
        &[
            Arg::flag("stop-containers", "stop_containers"),
            Arg::flag("yes", "").short('y').help("Do not ask"),
        ],
        panic::run,
    )
    .with(&[Command::own(
        "status",
        "panic.status",
        "Tells whether the kill switch is engaged",
        &[],
        panic::status,
    )]),
    Command::own(
        "watch",
        "events.subscribe",
        "Prints events as they happen, one per line",
        &[
            Arg::many("kind", "kinds").hint(Hint::EventKind),
            Arg::many("project", "projects").hint(Hint::Project),
            Arg::flag("snapshot", "snapshot"),
            Arg::number("since", "since"),
            Arg::value("epoch", "epoch").metavar("EPOCH"),
            Arg::flag("follow", "")
                .short('f')
                .help("Go on with the next daemon when this one goes away"),
        ],
        watch::run,
    ),
    Command::own(
        "call",
        "",
        "Calls any method; a subscription prints its items until it is interrupted",
        &[
            Arg::required("METHOD", "")
                .hint(Hint::Method)
                .help("Name of the method"),
            Arg::optional("PARAMS", "").help("Parameters as JSON; - reads standard input"),
        ],
        call::run,
    ),
    Command::own(
        "completions",
        "",
        "Prints a completion script for a shell",
        &[Arg::required("SHELL", "")
            .hint(Hint::OneOf(SHELLS))
            .help("The shell")],
        meta::completions,
    ),
    Command::own(
        "man",
        "",
        "Writes manual pages into a directory",
        &[Arg::required("DIR", "")
            .hint(Hint::Dir)
            .help("The directory; made if it is not there")],
        meta::man,
    ),
];

/// A column that shows yes or nothing.
const fn mark(header: &'static str, pointer: &'static str) -> Column {
    Column::new(header, pointer).show(Show::Mark("yes"))
}
