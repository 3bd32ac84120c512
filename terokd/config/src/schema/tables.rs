//! The tables themselves, in the order in which problems are reported.

use super::{Field, Limits, Preset, Type};
use terok_proto::config::Scope;

/// The top-level keys of a file.
pub fn fields(scope: Scope) -> &'static [Field] {
    match scope {
        Scope::Project => PROJECT,
        Scope::Global => GLOBAL,
        Scope::Terokd => TEROKD,
    }
}

const fn opt(key: &'static str, kind: Type, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        nullable: true,
        default: Preset::Null,
        secret: false,
        doc,
    }
}

const fn req(key: &'static str, kind: Type, default: Preset, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        nullable: false,
        default,
        secret: false,
        doc,
    }
}

const fn secret(key: &'static str, doc: &'static str) -> Field {
    Field {
        secret: true,
        ..opt(key, Type::Text, doc)
    }
}

const fn section(key: &'static str, fields: &'static [Field], doc: &'static str) -> Field {
    Field {
        key,
        kind: Type::Section(fields),
        nullable: true,
        default: Preset::Map,
        secret: false,
        doc,
    }
}

const fn free(key: &'static str, doc: &'static str) -> Field {
    Field {
        key,
        kind: Type::Mapping,
        nullable: true,
        default: Preset::Map,
        secret: false,
        doc,
    }
}

const fn clamped(min: i64, max: i64) -> Type {
    Type::Int(Limits {
        min,
        max,
        clamp: true,
    })
}

const fn within(min: i64, max: i64) -> Type {
    Type::Int(Limits {
        min,
        max,
        clamp: false,
    })
}

const PORT: Type = within(1, 65535);
const RESTART: &[&str] = &["retain", "up"];

const RUN: &[Field] = &[
    req(
        "shutdown_timeout",
        clamped(0, 86_400),
        Preset::Int(10),
        "Seconds before a stopping container is killed.",
    ),
    opt(
        "gpus",
        Type::Gpus,
        "GPUs for the containers: `true`, `all`, `none` or a CDI name `vendor/class=name`.",
    ),
    opt(
        "memory",
        Type::Memory,
        "Podman `--memory`, for example `4g`.",
    ),
    opt("cpus", Type::Cpus, "Podman `--cpus`, for example `2.5`."),
    req(
        "nested_containers",
        Type::Bool,
        Preset::Bool(false),
        "Allow podman or docker inside the container.",
    ),
    opt(
        "runtime",
        Type::Word(&["crun", "krun"]),
        "OCI runtime; `krun` needs `experimental: true`.",
    ),
    opt(
        "timezone",
        Type::Text,
        "IANA time zone of the containers, or `UTC`; unset means the host's.",
    ),
    section("hooks", HOOKS, "Shell commands on the host."),
];

const HOOKS: &[Field] = &[
    opt(
        "pre_start",
        Type::Hook,
        "Before a task starts; `false` switches a global hook off.",
    ),
    opt(
        "post_start",
        Type::Hook,
        "After a task started; `false` switches a global hook off.",
    ),
    opt(
        "post_ready",
        Type::Hook,
        "Once a task is ready; `false` switches a global hook off.",
    ),
    opt(
        "post_stop",
        Type::Hook,
        "After a task stopped; `false` switches a global hook off.",
    ),
];

const SSH: &[Field] = &[opt(
    "use_personal",
    Type::Bool,
    "Use the user's own `~/.ssh` keys for syncing on the host.",
)];

const IMAGE: &[Field] = &[
    req(
        "base_image",
        Type::Text,
        Preset::Text("ubuntu:24.04"),
        "Base of the project image.",
    ),
    opt(
        "family",
        Type::Word(&["deb", "rpm"]),
        "Package family; unset means by the base image.",
    ),
    opt(
        "agents",
        Type::Text,
        "Agents to install: `all`, or names separated by commas, `-name` excludes.",
    ),
    opt(
        "user_snippet_inline",
        Type::Text,
        "Dockerfile fragment for the project image.",
    ),
    opt(
        "user_snippet_file",
        Type::Text,
        "File with a Dockerfile fragment.",
    ),
];

const PROJECT: &[Field] = &[
    section(
        "project",
        &[
            opt(
                "id",
                Type::ProjectId,
                "Project id; unset means the directory's name.",
            ),
            opt("name", Type::Text, "Name for display."),
            req(
                "security_class",
                Type::FoldedWord(&["online", "gatekeeping"]),
                Preset::Text("gatekeeping"),
                "Agents push to upstream (`online`), or changes wait in the gate for review.",
            ),
            req(
                "isolation",
                Type::FoldedWord(&["shared", "sealed"]),
                Preset::Text("shared"),
                "Bind mounts as usual, or none at all (`sealed`).",
            ),
        ],
        "What the project is.",
    ),
    section(
        "git",
        &[
            opt(
                "upstream_url",
                Type::Text,
                "Git URL of the upstream; unset for a local-only project.",
            ),
            opt(
                "default_branch",
                Type::Text,
                "Branch to work on; unset means the remote's default.",
            ),
            opt("human_name", Type::Text, "Your name for commits."),
            opt("human_email", Type::Text, "Your address for commits."),
            opt(
                "authorship",
                Type::Text,
                "Author and committer: `agent-human`, `human-agent`, `agent` or `human`.",
            ),
        ],
        "Upstream and identity.",
    ),
    section("ssh", SSH, "SSH keys."),
    section(
        "tasks",
        &[
            opt(
                "root",
                Type::Text,
                "Where the workspaces of the tasks live.",
            ),
            opt(
                "name_categories",
                Type::Categories,
                "Word lists for task names.",
            ),
        ],
        "Tasks.",
    ),
    section(
        "gate",
        &[
            req(
                "enabled",
                Type::Bool,
                Preset::Bool(true),
                "Keep a mirror on the host that agents push to.",
            ),
            opt("path", Type::Text, "The bare mirror."),
        ],
        "The git gate.",
    ),
    section(
        "gatekeeping",
        &[
            opt(
                "staging_root",
                Type::Text,
                "Build stage of a gatekeeping project.",
            ),
            req(
                "expose_external_remote",
                Type::Bool,
                Preset::Bool(false),
                "Tell agents the real upstream.",
            ),
            section(
                "upstream_polling",
                &[
                    req(
                        "enabled",
                        Type::Bool,
                        Preset::Bool(true),
                        "Watch upstream for new commits.",
                    ),
                    req(
                        "interval_minutes",
                        clamped(1, 10_080),
                        Preset::Int(5),
                        "Minutes between two looks.",
                    ),
                ],
                "Watching upstream.",
            ),
            section(
                "auto_sync",
                &[
                    req(
                        "enabled",
                        Type::Bool,
                        Preset::Bool(false),
                        "Let the gate follow upstream by itself.",
                    ),
                    req(
                        "branches",
                        Type::TextList,
                        Preset::List(&[]),
                        "Branches that follow; empty means all.",
                    ),
                ],
                "Following upstream.",
            ),
        ],
        "Review and upstream of gatekeeping projects.",
    ),
    section("run", RUN, "Containers."),
    section(
        "shield",
        &[
            opt(
                "drop_on_task_run",
                Type::Bool,
                "Open the firewall once a task runs; unset means the global value.",
            ),
            opt(
                "on_task_restart",
                Type::Word(RESTART),
                "Keep the firewall's state on restart, or raise it; unset means the global value.",
            ),
        ],
        "The egress firewall.",
    ),
    section("image", IMAGE, "The project image."),
    free("agent", "Settings of agents, free-form."),
    opt(
        "default_agent",
        Type::Text,
        "Agent of a run that names none.",
    ),
    opt(
        "default_login",
        Type::Text,
        "Command of a login that names none.",
    ),
    opt(
        "shared_dir",
        Type::SharedDir,
        "Directory shared by all tasks: `true`, or an absolute path.",
    ),
];

const GLOBAL: &[Field] = &[
    section(
        "credentials",
        &[
            opt("dir", Type::Text, "The vault's directory."),
            secret(
                "passphrase",
                "Passphrase of the vault in clear; prefer any other way.",
            ),
            req(
                "use_keyring",
                Type::Bool,
                Preset::Bool(false),
                "Keep the passphrase in the desktop's keyring.",
            ),
            secret(
                "passphrase_command",
                "Command whose output is the passphrase.",
            ),
        ],
        "The vault's passphrase and place.",
    ),
    section(
        "paths",
        &[
            opt("root", Type::Text, "Root of everything durable."),
            opt("build_dir", Type::Text, "Where images are built."),
            opt(
                "sandbox_live_dir",
                Type::Text,
                "Where tasks and mounts live.",
            ),
            opt("user_projects_dir", Type::Text, "Your projects."),
            opt("user_presets_dir", Type::Text, "Your presets."),
            opt(
                "port_registry_dir",
                Type::Text,
                "Where users of a host agree on ports.",
            ),
        ],
        "Directories.",
    ),
    section(
        "shield",
        &[
            req(
                "bypass_firewall_no_protection",
                Type::Bool,
                Preset::Bool(false),
                "Dangerous: run without egress firewall.",
            ),
            opt(
                "profiles",
                Type::Mapping,
                "Settings of the firewall's profiles, free-form.",
            ),
            req(
                "audit",
                Type::Bool,
                Preset::Bool(true),
                "Log what the firewall decides.",
            ),
            req(
                "drop_on_task_run",
                Type::Bool,
                Preset::Bool(true),
                "Open the firewall once a task runs.",
            ),
            req(
                "on_task_restart",
                Type::Word(RESTART),
                Preset::Text("retain"),
                "Keep the firewall's state on restart, or raise it.",
            ),
        ],
        "The egress firewall.",
    ),
    section(
        "services",
        &[req(
            "mode",
            Type::Word(&["tcp", "socket"]),
            Preset::Text("socket"),
            "How containers reach the services of the host.",
        )],
        "Services of the host.",
    ),
    section(
        "vault",
        &[
            req(
                "bypass_no_secret_protection",
                Type::Bool,
                Preset::Bool(false),
                "Dangerous: mount real credentials into containers.",
            ),
            opt(
                "port",
                PORT,
                "Port of the API proxy; unset means a free one.",
            ),
            opt(
                "ssh_signer_port",
                PORT,
                "Port of the SSH agent; unset means a free one.",
            ),
        ],
        "The vault.",
    ),
    section(
        "gate_server",
        &[
            opt(
                "port",
                PORT,
                "Port of the gate server; unset means a free one.",
            ),
            opt("repos_dir", Type::Text, "Where the mirrors live."),
            req(
                "suppress_systemd_warning",
                Type::Bool,
                Preset::Bool(false),
                "Do not warn about missing systemd units.",
            ),
        ],
        "The gate server.",
    ),
    section(
        "network",
        &[
            req(
                "port_range_start",
                within(1024, 65535),
                Preset::Int(18_700),
                "First port that may be used.",
            ),
            req(
                "port_range_end",
                within(1024, 65535),
                Preset::Int(32_700),
                "Last port that may be used.",
            ),
        ],
        "Ports.",
    ),
    section("ssh", SSH, "SSH keys."),
    section("run", RUN, "Containers: defaults for projects."),
    section("image", IMAGE, "Images: defaults for projects."),
    section(
        "tui",
        &[
            req(
                "default_tmux",
                Type::Bool,
                Preset::Bool(false),
                "Hint for front-ends: open logins in tmux.",
            ),
            req(
                "external_editor",
                Type::Bool,
                Preset::Bool(true),
                "Hint for front-ends: edit in an external editor.",
            ),
            req(
                "desktop_entry",
                Type::Word(&["auto", "skip", "install"]),
                Preset::Text("auto"),
                "Hint for front-ends: install a desktop entry.",
            ),
        ],
        "Front-ends.",
    ),
    section(
        "logs",
        &[req(
            "partial_streaming",
            Type::Bool,
            Preset::Bool(true),
            "Stream messages of agents while they are written.",
        )],
        "Logs.",
    ),
    section(
        "tasks",
        &[opt(
            "name_categories",
            Type::Categories,
            "Word lists for task names.",
        )],
        "Tasks.",
    ),
    section(
        "git",
        &[
            opt("human_name", Type::Text, "Your name for commits."),
            opt("human_email", Type::Text, "Your address for commits."),
            opt(
                "authorship",
                Type::Text,
                "Author and committer: `agent-human`, `human-agent`, `agent` or `human`.",
            ),
        ],
        "Identity.",
    ),
    free("agent", "Settings of agents, free-form."),
    req(
        "experimental",
        Type::Bool,
        Preset::Bool(false),
        "Allow what is experimental: `krun` and the OAuth modes.",
    ),
    opt(
        "default_agent",
        Type::Text,
        "Agent of a run that names none.",
    ),
    opt(
        "default_login",
        Type::Text,
        "Command of a login that names none.",
    ),
];

const MANY: i64 = 1 << 40;

const TEROKD: &[Field] = &[
    section(
        "rpc",
        &[
            req(
                "max_message_bytes",
                within(1024, 1 << 30),
                Preset::Int(10_485_760),
                "Bytes of one message.",
            ),
            req(
                "max_depth",
                within(8, 1024),
                Preset::Int(128),
                "Nesting of one message.",
            ),
            req(
                "max_batch",
                within(1, 10_000),
                Preset::Int(100),
                "Requests of one batch.",
            ),
            req(
                "max_connections",
                within(1, 65_536),
                Preset::Int(256),
                "Connections at once.",
            ),
            req(
                "max_in_flight",
                within(1, 65_536),
                Preset::Int(64),
                "Requests under way on one connection.",
            ),
            req(
                "max_subscriptions",
                within(1, 1_000_000),
                Preset::Int(1024),
                "Subscriptions at once.",
            ),
            req(
                "first_message_timeout_seconds",
                within(1, 3600),
                Preset::Int(10),
                "Seconds within which a new connection has to speak.",
            ),
        ],
        "Limits of the socket.",
    ),
    section(
        "polling",
        &[
            req(
                "max_concurrent",
                within(1, 256),
                Preset::Int(8),
                "Upstreams asked at once.",
            ),
            req(
                "max_per_host",
                within(1, 256),
                Preset::Int(2),
                "Upstreams of one host asked at once.",
            ),
            req(
                "jitter_percent",
                within(0, 100),
                Preset::Int(15),
                "How far an interval may vary.",
            ),
            req(
                "backoff_max_minutes",
                within(1, 10_080),
                Preset::Int(120),
                "Longest wait after failures.",
            ),
            req(
                "poll_online_projects",
                Type::Bool,
                Preset::Bool(true),
                "Poll online projects too.",
            ),
            req(
                "timeout_seconds",
                within(1, 3600),
                Preset::Int(30),
                "Seconds for one look at an upstream.",
            ),
        ],
        "Watching upstreams.",
    ),
    section(
        "gate",
        &[
            req(
                "auto_apply_lossless",
                Type::Bool,
                Preset::Bool(false),
                "Apply changes that lose nothing without asking.",
            ),
            req(
                "backup_retention_days",
                within(0, 36_500),
                Preset::Int(30),
                "Days that backup refs are kept; 0 means for ever.",
            ),
        ],
        "Gates.",
    ),
    section(
        "gate_server",
        &[req(
            "max_push_bytes",
            within(1024, MANY),
            Preset::Int(2_147_483_648),
            "Bytes of one push.",
        )],
        "The gate server.",
    ),
    section(
        "git",
        &[
            req(
                "backend",
                Type::Word(&["gix", "cli"]),
                Preset::Text("gix"),
                "Library or program for talking to upstreams.",
            ),
            opt(
                "credential_provider",
                Type::Text,
                "Stored token that HTTPS upstreams may use, for example `gh`.",
            ),
        ],
        "Git on the host.",
    ),
    section(
        "ssh",
        &[req(
            "host_keys",
            Type::Word(&["accept-new", "strict"]),
            Preset::Text("accept-new"),
            "What to do with unknown host keys.",
        )],
        "SSH on the host.",
    ),
    section(
        "vault",
        &[
            req(
                "max_request_bytes",
                within(1024, MANY),
                Preset::Int(134_217_728),
                "Bytes of one request to the API proxy.",
            ),
            req(
                "allow_static_markers",
                Type::Bool,
                Preset::Bool(false),
                "Accept the fixed placeholder tokens on shared listeners.",
            ),
            req(
                "agent_confirm",
                Type::Bool,
                Preset::Bool(false),
                "Ask before the SSH agent signs.",
            ),
            req(
                "token_store",
                Type::Word(&["shared", "daemon"]),
                Preset::Text("shared"),
                "Where tokens of tasks are kept.",
            ),
        ],
        "The vault.",
    ),
    section(
        "network",
        &[
            opt(
                "ca_bundle",
                Type::Text,
                "Certificates that images trust, a PEM file.",
            ),
            section(
                "proxy",
                &[
                    opt("http", Type::Text, "Proxy for HTTP."),
                    opt("https", Type::Text, "Proxy for HTTPS."),
                    opt("no_proxy", Type::Text, "Hosts reached without proxy."),
                ],
                "Proxy for builds.",
            ),
        ],
        "The network around the host.",
    ),
    section(
        "panic",
        &[req(
            "freeze",
            Type::Bool,
            Preset::Bool(true),
            "Freeze containers when the kill switch is engaged.",
        )],
        "The kill switch.",
    ),
    section(
        "tasks",
        &[
            opt(
                "archive_keep_days",
                within(0, 36_500),
                "Days that archives of tasks are kept; unset means for ever.",
            ),
            opt(
                "max_running",
                within(1, 100_000),
                "Live tasks per project; unset means no limit.",
            ),
            req(
                "on_boot",
                Type::Word(&["none", "restart_running"]),
                Preset::Text("none"),
                "What happens to interactive tasks after a boot.",
            ),
            opt(
                "auto_stop_idle_minutes",
                within(1, 525_600),
                "Minutes after which idle containers stop; unset means never.",
            ),
            req(
                "stop_on_logout",
                Type::Bool,
                Preset::Bool(false),
                "Stop tasks when the user logs out.",
            ),
            opt(
                "disk_quota_warn",
                Type::Memory,
                "Size of a workspace that is worth a warning, for example `20g`.",
            ),
        ],
        "Tasks.",
    ),
    section(
        "shield",
        &[req(
            "profiles",
            Type::TextList,
            Preset::List(&["dev-standard"]),
            "Firewall profiles of all projects.",
        )],
        "The egress firewall.",
    ),
    Field {
        kind: Type::PerProject(PER_PROJECT),
        ..section("projects", &[], "Settings per project id.")
    },
];

const PER_PROJECT: &[Field] = &[
    opt(
        "shield_profiles",
        Type::TextList,
        "Firewall profiles; unset means those of all projects.",
    ),
    req(
        "pre_start_required",
        Type::Bool,
        Preset::Bool(false),
        "A failing `pre_start` hook stops the launch.",
    ),
    opt(
        "pids_limit",
        within(1, 4_194_304),
        "Processes of one container.",
    ),
    opt("tmp_size", Type::Memory, "Size of `/tmp` in a container."),
    opt(
        "max_running",
        within(1, 100_000),
        "Live tasks; unset means the value for all projects.",
    ),
];
