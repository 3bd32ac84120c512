//! Start on demand: one daemon, however many clients find none at the same time.
//!
//! A client that finds no daemon takes `<socket>.start`, looks again, and starts one; the others wait for the socket.
//! The daemon's own lock has the last word: a second one ends with "already running", which is no failure here.

use crate::connect::Connection;
use crate::env::{Env, SocketPath};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use terok_proto::error::printable_line;

/// How long a daemon may take until it accepts.
const PATIENCE: Duration = Duration::from_secs(10);
/// Exit code of a daemon that found another one.
const ALREADY_RUNNING: i32 = 4;
/// A log beyond this begins anew with the next start.
const MAX_LOG: u64 = 1 << 20;
/// Units that start the daemon, the preferred one first.
const UNITS: [&str; 2] = ["terokd.socket", "terokd.service"];
/// First argument of the process that becomes the daemon.
pub(crate) const BECOME_DAEMON: &str = "__become-daemon";

/// Connects, and starts a daemon first if there is none.
pub(crate) fn connect(
    env: &Env,
    socket: &SocketPath,
    interrupts: &Rc<Interrupts>,
    autostart: bool,
    deadline: Option<Instant>,
) -> Result<Connection> {
    match Connection::open(&socket.path, Rc::clone(interrupts)) {
        Ok(connection) => Ok(connection),
        Err(error) if !is_absent(&error) => Err(Failure::no_daemon(format!(
            "cannot connect to `{}`: {error}",
            socket.path.display()
        ))),
        Err(error) if !autostart => Err(Failure::NoDaemon {
            message: format!("no daemon serves `{}`: {error}", socket.path.display()),
            hint: Some("start it with `terokctl daemon start`".into()),
        }),
        Err(_) => start(env, socket, interrupts, deadline),
    }
}

/// Nobody serves the socket, as opposed to: we may not talk to whoever does.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn start(
    env: &Env,
    socket: &SocketPath,
    interrupts: &Rc<Interrupts>,
    deadline: Option<Instant>,
) -> Result<Connection> {
    let patience = Instant::now() + PATIENCE;
    let limit = deadline.map_or(patience, |at| at.min(patience));
    let lock = open_start_lock(&socket.path)?;
    let mut started: Option<Started> = None;
    let mut delay = Duration::from_millis(2);
    loop {
        match Connection::open(&socket.path, Rc::clone(interrupts)) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                return Err(Failure::no_daemon(format!(
                    "cannot connect to `{}`: {error}",
                    socket.path.display()
                )));
            }
        }
        match &mut started {
            // Held until we leave: whoever gets it afterwards finds the daemon.
            None if lock.try_lock().is_ok() => {
                // The last holder's daemon may have come up between our look and the lock.
                if let Ok(connection) = Connection::open(&socket.path, Rc::clone(interrupts)) {
                    return Ok(connection);
                }
                started = Some(launch(env, socket)?);
            }
            None => {}
            Some(started) => started.check(&socket.path)?,
        }
        if Instant::now() >= limit {
            return Err(if deadline.is_some_and(|at| at <= patience) {
                Failure::Timeout(
                    "the daemon was not ready in the time given with --timeout".to_owned(),
                )
            } else {
                Failure::NoDaemon {
                    message: format!(
                        "the daemon does not accept connections on `{}` after {} s",
                        socket.path.display(),
                        PATIENCE.as_secs()
                    ),
                    hint: Some(format!("see `{}`", log_path(&socket.path).display())),
                }
            });
        }
        interrupts.pause(delay)?;
        delay = (delay * 2).min(Duration::from_millis(50));
    }
}

/// What was set off.
enum Started {
    /// systemd, which looks after the rest.
    Unit,
    /// A process of ours; `Some` until it has ended.
    Process(Option<Child>),
}

impl Started {
    /// Fails when the daemon ended for any reason other than another daemon.
    fn check(&mut self, socket: &Path) -> Result<()> {
        let Self::Process(process) = self else {
            return Ok(());
        };
        let Some(child) = process else { return Ok(()) };
        let Ok(Some(status)) = child.try_wait() else {
            return Ok(());
        };
        *process = None;
        if status.code() == Some(ALREADY_RUNNING) {
            return Ok(());
        }
        let said = last_line(&log_path(socket));
        Err(Failure::NoDaemon {
            message: match said {
                Some(line) => format!("the daemon did not start ({status}): {line}"),
                None => format!("the daemon did not start ({status})"),
            },
            hint: Some(format!("see `{}`", log_path(socket).display())),
        })
    }
}

fn launch(env: &Env, socket: &SocketPath) -> Result<Started> {
    if !socket.named
        && let Some(unit) = installed_unit(env)
        && start_unit(unit)
    {
        return Ok(Started::Unit);
    }
    let program = find_daemon(env).ok_or_else(|| Failure::NoDaemon {
        message: "no daemon is running, and `terokd` is neither beside terokctl nor on PATH".into(),
        hint: Some("install terokd, or name a running daemon's socket with --socket".into()),
    })?;
    spawn(&program, socket)
        .map(|child| Started::Process(Some(child)))
        .map_err(|error| {
            Failure::no_daemon(format!("cannot start `{}`: {error}", program.display()))
        })
}

/// Starts the daemon through a copy of this program, which makes itself a session of its own first.
fn spawn(program: &Path, socket: &SocketPath) -> io::Result<Child> {
    let log = log_path(&socket.path);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)?;
    if file.metadata()?.len() > MAX_LOG {
        file.set_len(0)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(BECOME_DAEMON)
        .arg(program)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID");
    if socket.named {
        command.env("TEROKD_SOCKET", &socket.path);
    }
    command.spawn()
}

/// Becomes the daemon: a session of its own, so that no terminal takes it along, then its program.
pub(crate) fn become_daemon(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(program) = arguments.next() else {
        return ExitCode::from(crate::failure::USAGE);
    };
    // Fails only for the leader of a group, which a child never is.
    let _ = nix::unistd::setsid();
    let error = Command::new(&program).args(arguments).exec();
    crate::render::complain(&format!(
        "cannot start `{}`: {error}",
        program.to_string_lossy()
    ));
    ExitCode::from(crate::failure::INTERNAL)
}

fn start_unit(unit: &str) -> bool {
    Command::new("systemctl")
        .args(["--user", "--quiet", "start", unit])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The unit that would start the daemon, if a user manager runs and has one.
fn installed_unit(env: &Env) -> Option<&'static str> {
    let runtime = PathBuf::from(env.var("XDG_RUNTIME_DIR")?);
    if !runtime.join("systemd").is_dir() {
        return None;
    }
    let config = env
        .var("XDG_CONFIG_HOME")
        .map_or_else(|| env.home().join(".config"), PathBuf::from);
    let data = env
        .var("XDG_DATA_HOME")
        .map_or_else(|| env.home().join(".local/share"), PathBuf::from);
    let dirs = [
        config.join("systemd/user"),
        PathBuf::from("/etc/systemd/user"),
        runtime.join("systemd/user"),
        PathBuf::from("/run/systemd/user"),
        data.join("systemd/user"),
        PathBuf::from("/usr/local/lib/systemd/user"),
        PathBuf::from("/usr/lib/systemd/user"),
    ];
    UNITS
        .into_iter()
        .find(|unit| dirs.iter().any(|dir| dir.join(unit).exists()))
}

fn find_daemon(env: &Env) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("terokd")));
    let path = env.var("PATH").cloned().unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join("terokd")))
        .filter_map(|candidate| std::path::absolute(candidate).ok())
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn open_start_lock(socket: &Path) -> Result<File> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let failed = |error: io::Error| {
        Failure::no_daemon(format!(
            "cannot prepare `{}` for a daemon: {error}",
            dir.display()
        ))
    };
    // The daemon refuses a directory that others can enter, so it is made private from the beginning.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(with_suffix(socket, ".start"))
        .map_err(failed)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where a daemon that we started writes what it has to say.
fn log_path(socket: &Path) -> PathBuf {
    if socket.extension().is_some_and(|e| e == "sock") {
        socket.with_extension("log")
    } else {
        with_suffix(socket, ".log")
    }
}

/// The end of the log, made printable.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(printable_line(line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stands_beside_the_socket() {
        assert_eq!(
            log_path(Path::new("/r/terokd.sock")),
            Path::new("/r/terokd.log")
        );
        assert_eq!(log_path(Path::new("/r/s")), Path::new("/r/s.log"));
    }

    #[test]
    fn the_last_line_of_a_log_is_printable() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, "first\nlast \u{1b}[31m\n\n").expect("a log");
        assert_eq!(last_line(&path).as_deref(), Some("last \\x1b[31m"));
        assert_eq!(last_line(&dir.path().join("none")), None);
    }

    #[test]
    fn units_count_only_with_a_user_manager() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().to_str().expect("a name");
        let runtime = format!("{root}/run");
        let config = format!("{root}/config");
        let vars = [
            ("XDG_RUNTIME_DIR", runtime.as_str()),
            ("XDG_CONFIG_HOME", &config),
        ];
        let env = Env::of(&vars, root, false);
        std::fs::create_dir_all(format!("{config}/systemd/user")).expect("a directory");
        std::fs::write(format!("{config}/systemd/user/terokd.socket"), "").expect("a unit");
        assert_eq!(installed_unit(&env), None);
        std::fs::create_dir_all(format!("{runtime}/systemd")).expect("a directory");
        assert_eq!(installed_unit(&env), Some("terokd.socket"));
    }
}
