//! The files that go into images, as shipped.

/// One shipped file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embedded {
    /// Path in the build context.
    pub(crate) path: &'static str,
    /// Content.
    pub(crate) text: &'static str,
    /// Whether it is a program.
    pub(crate) executable: bool,
}

macro_rules! embedded {
    ($($mode:ident $path:literal),* $(,)?) => {
        &[$(Embedded {
            path: $path,
            text: include_str!(concat!("../files/", $path)),
            executable: embedded!(@ $mode),
        }),*]
    };
    (@ x) => { true };
    (@ f) => { false };
}

/// What the base layer copies.
pub(crate) const L0: &[Embedded] = embedded![
    x "scripts/build/l0-setup.sh",
    x "scripts/init-ssh-and-repo.sh",
    x "scripts/ssh-agent-bridge.sh",
    x "scripts/ensure-bridges.sh",
    f "tmux/container-tmux.conf",
];

/// What every agent layer copies.
pub(crate) const L1: &[Embedded] = embedded![
    x "scripts/build/l1-node.sh",
    x "scripts/build/l1-tools.sh",
    x "scripts/build/l1-shell.sh",
    x "scripts/build/l1-finish.sh",
    x "scripts/terok-record-versions.sh",
    f "scripts/terok-env.sh",
    f "scripts/terok-env-wrappers.sh",
    x "scripts/hilfe",
    x "scripts/allthethings.sh",
    x "scripts/update-all-the-things",
    x "scripts/terok-acp",
    f "scripts/agents/Caddyfile",
    x "scripts/agents/claude-with-instructions",
    x "scripts/agents/opencode-provider.py",
    f "scripts/agents/opencode-session.mjs",
    f "scripts/agents/pi-profile.sh",
    f "scripts/agents/pi-vault.ts",
    x "scripts/agents/terok-toad-entry",
];

/// Install steps of bundled entries: `scripts/install/NAME-root.sh` and `NAME-dev.sh`.
pub(crate) const INSTALL: &[Embedded] = embedded![
    x "scripts/install/blablador-root.sh",
    x "scripts/install/caddy-root.sh",
    x "scripts/install/claude-dev.sh",
    x "scripts/install/claude-root.sh",
    x "scripts/install/codex-dev.sh",
    x "scripts/install/copilot-dev.sh",
    x "scripts/install/gh-root.sh",
    x "scripts/install/glab-root.sh",
    x "scripts/install/kisski-root.sh",
    x "scripts/install/opencode-dev.sh",
    x "scripts/install/opencode-root.sh",
    x "scripts/install/openrouter-root.sh",
    x "scripts/install/pi-dev.sh",
    x "scripts/install/pi-root.sh",
    x "scripts/install/sonar-root.sh",
    x "scripts/install/toad-dev.sh",
    x "scripts/install/toad-root.sh",
    x "scripts/install/vibe-root.sh",
];

/// The install step of a bundled entry, as `root` or as `dev`.
pub(crate) fn install(name: &str, user: &str) -> Option<&'static Embedded> {
    INSTALL.iter().find(|file| {
        file.path
            .strip_prefix("scripts/install/")
            .and_then(|rest| rest.strip_suffix(".sh"))
            .and_then(|stem| stem.strip_suffix(user))
            .and_then(|stem| stem.strip_suffix('-'))
            == Some(name)
    })
}
