//! Points at which a test can make the process die, or look around.

use std::sync::OnceLock;

static HOOK: OnceLock<fn(&str)> = OnceLock::new();

/// Steps that a hook can be called at, in the order of a sync, a promotion and a restore.
pub const CRASH_POINTS: &[&str] = &[
    "gate.sync.locked",
    "gate.sync.made",
    "gate.sync.fetched",
    "gate.sync.ready",
    "gate.refs.locked",
    "gate.sync.refs",
    "gate.sync.head",
    "gate.sync.exchanging",
    "gate.sync.aside",
    "gate.sync.exchanged",
    "gate.sync.cache",
    "gate.apply.ready",
    "gate.apply.done",
    "gate.promote.fetched",
    "gate.promote.pushed",
    "gate.promote.done",
    "gate.restore.ready",
    "gate.restore.done",
];

/// Calls `hook` with the name of every step from now on; the first one that was set stays.
pub fn set_crash_hook(hook: fn(&str)) {
    HOOK.set(hook).unwrap_or_default();
}

pub(crate) fn point(name: &str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}
