//! The daemon itself: start, stop, and where its directories are.

use super::project::texts;
use crate::args::Values;
use crate::connect::Connection;
use crate::env::Env;
use crate::failure::{Failure, Result};
use crate::render::{Column, Screen, View};
use crate::session::Session;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use terok_proto::daemon::{DaemonPaths, PathSource};

/// Directories that a variable of their own can move. The first one set wins.
const VARIABLES: &[(&str, &[&str])] = &[
    ("state_root", &["TEROK_ROOT"]),
    ("config_root", &["TEROK_CONFIG_DIR"]),
    ("core_state_dir", &["TEROK_STATE_DIR"]),
    ("sandbox_live_dir", &["TEROK_SANDBOX_LIVE_DIR"]),
    ("sandbox_state_dir", &["TEROK_SANDBOX_STATE_DIR"]),
    ("executor_state_dir", &["TEROK_EXECUTOR_STATE_DIR"]),
    ("vault_dir", &["TEROK_VAULT_DIR", "TEROK_CREDENTIALS_DIR"]),
    ("sandbox_runtime_dir", &["TEROK_SANDBOX_RUNTIME_DIR"]),
    ("runtime_root", &["TEROK_RUNTIME_DIR"]),
    ("sandbox_config_dir", &["TEROK_SANDBOX_CONFIG_DIR"]),
    ("port_registry_dir", &["TEROK_PORT_REGISTRY_DIR"]),
];

/// How long the daemon may take to end once its drain is over.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// The status as a record, warnings apart.
pub(super) fn show_status(screen: &mut Screen, value: &Value) -> Result<()> {
    screen.record(value)?;
    if screen.is_terminal() {
        for warning in texts(&value["warnings"]) {
            screen.warning(warning);
        }
    }
    Ok(())
}

pub(super) fn start(session: &mut Session, _: &Values<'_>) -> Result<()> {
    // Asked for by name, so the general refusal does not apply.
    session.options.no_autostart = false;
    let status = session.call("daemon.status", "{}")?;
    session.show(&status, &View::Custom(show_started))
}

fn show_started(screen: &mut Screen, value: &Value) -> Result<()> {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    screen.line(&format!(
        "terokd {} runs as process {} on {}",
        text("version"),
        value["pid"],
        text("socket")
    ))
}

pub(super) fn stop(session: &mut Session, values: &Values<'_>) -> Result<()> {
    session.options.no_autostart = true;
    let deadline = session.deadline();
    match session.connection(deadline) {
        Ok(_) => {}
        // A socket that nobody serves: what was asked for is so already.
        Err(Failure::NoDaemon { hint: Some(_), .. }) => {
            session.note("no daemon is running");
            return session.show("null", &View::Nothing);
        }
        Err(failure) => return Err(failure),
    }
    let status = session.call("daemon.status", "{}")?;
    let status: Value = session.read("daemon.status", &status)?;
    let drain = Duration::from_millis(values.number("drain-ms").unwrap_or(0));
    let result = session.call(
        "daemon.shutdown",
        &Value::Object(values.params()).to_string(),
    )?;
    let limit = deadline.or_else(|| Instant::now().checked_add(drain + LAST_WORDS));
    session.connection(limit)?.wait_for_end(limit)?;
    wait_until_gone(session, status["pid"].as_u64(), limit)?;
    session.disconnect();
    session.show(&result, &View::Nothing)
}

/// A closed connection is not yet an ended process, which still holds the lock that the next one needs.
fn wait_until_gone(session: &Session, pid: Option<u64>, limit: Option<Instant>) -> Result<()> {
    let mut delay = Duration::from_millis(2);
    // Its socket may stay where systemd holds it.
    while pid.is_some_and(is_alive) {
        if limit.is_some_and(|at| Instant::now() >= at) {
            return Err(Failure::Timeout("the daemon has not ended yet".to_owned()));
        }
        session.interrupts.pause(delay)?;
        delay = (delay * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(stat.rsplit(") ").next(), Some(rest) if rest.starts_with('Z')))
}

pub(super) fn paths(session: &mut Session, _: &Values<'_>) -> Result<()> {
    let answer = session.call("daemon.paths", "{}")?;
    let paths: DaemonPaths = session.read("daemon.paths", &answer)?;
    session.show(&answer, &View::Custom(show_paths))?;
    session.screen.finish()?;
    for warning in differences(&session.env, &paths) {
        session.screen.warning(&warning);
    }
    Ok(())
}

fn show_paths(screen: &mut Screen, value: &Value) -> Result<()> {
    const PATHS: &[Column] = &[
        Column::new("NAME", "/name"),
        Column::new("PATH", "/path"),
        Column::new("SOURCE", "/source"),
        Column::new("EXISTS", "/exists"),
    ];
    let rows: Vec<Value> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, path)| path.is_string())
        .map(|(name, path)| {
            json!({"name": name, "path": path, "source": value["sources"][name], "exists": value["exists"][name]})
        })
        .collect();
    screen.table(PATHS, &rows)
}

/// Where this environment would have led to another directory than the daemon's.
fn differences(env: &Env, paths: &DaemonPaths) -> Vec<String> {
    let mut found = Vec::new();
    for (name, variables) in VARIABLES {
        let Some(theirs) = paths.paths.get(*name).and_then(Value::as_str) else {
            continue;
        };
        let ours = variables
            .iter()
            .find_map(|v| Some((*v, env.expand(env.var(v)?))));
        match ours {
            Some((variable, ours)) if !is_same(&ours, Path::new(theirs)) => found.push(format!(
                "{variable} is `{}` here, but the daemon has `{theirs}` as {name}: it was started with another environment",
                ours.display()
            )),
            None if paths.sources.get(*name) == Some(&PathSource::Env)
                // A directory below one that was moved says `env` too.
                && !is_below_a_moved_one(name, theirs, env, paths) =>
            {
                found.push(format!(
                    "the daemon has `{theirs}` as {name} from its environment, but {} is not set here",
                    variables[0]
                ));
            }
            _ => {}
        }
    }
    found
}

fn is_below_a_moved_one(name: &str, path: &str, env: &Env, paths: &DaemonPaths) -> bool {
    let generic = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"]
        .iter()
        .filter_map(|variable| env.var(variable).map(|dir| env.expand(dir)));
    VARIABLES
        .iter()
        .filter(|(other, _)| *other != name)
        .filter_map(|(other, _)| paths.paths.get(*other)?.as_str().map(PathBuf::from))
        .chain(generic)
        .any(|dir| Path::new(path).starts_with(dir))
}

fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        path.canonicalize()
            .unwrap_or_else(|_| path.components().collect())
    };
    real(a) == real(b)
}

/// A connection to whoever serves the socket now, for as long as it takes to ask something small.
pub(super) fn connect_if_running(session: &Session) -> Result<Connection> {
    Connection::open(&session.socket.path, Rc::clone(&session.interrupts)).map_err(|error| {
        Failure::no_daemon(format!(
            "no daemon serves `{}`: {error}",
            session.socket.path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(value: Value) -> DaemonPaths {
        serde_json::from_value(value).expect("paths")
    }

    #[test]
    fn another_environment_is_noticed() {
        let there = paths(json!({
            "state_root": "/there", "vault_dir": "/v", "core_state_dir": "/there/core",
            "sources": {"state_root": "env", "vault_dir": "env", "core_state_dir": "env"}, "exists": {},
        }));
        let env = Env::of(&[("TEROK_ROOT", "/here")], "/h", false);
        insta::assert_snapshot!(differences(&env, &there).join("\n"), @r"
        TEROK_ROOT is `/here` here, but the daemon has `/there` as state_root: it was started with another environment
        the daemon has `/v` as vault_dir from its environment, but TEROK_VAULT_DIR is not set here
        ");
    }

    #[test]
    fn the_same_environment_is_no_difference() {
        let there = paths(json!({
            "state_root": "/h/t", "vault_dir": "/h/t/vault",
            "sources": {"state_root": "env", "vault_dir": "default"}, "exists": {},
        }));
        let env = Env::of(&[("TEROK_ROOT", "~/t/")], "/h", false);
        assert_eq!(differences(&env, &there), Vec::<String>::new());
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(u64::from(std::process::id())));
        assert!(!is_alive(u64::MAX));
    }
}
