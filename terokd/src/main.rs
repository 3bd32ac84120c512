//! Arguments, environment, runtime and exit code of `terokd`; everything else is in the library.

use clap::{Parser, ValueEnum};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use terok_config::env::Environment;
use terokd::daemon::{self, Settings, StartError};
use terokd::socket::Busy;
use terokd::systemd;
use terokd::telemetry::{self, Logging};
use tokio::signal::unix::{SignalKind, signal};

/// The daemon that owns terok's projects, gates and tasks.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Serve on this socket [default: $TEROKD_SOCKET, $XDG_RUNTIME_DIR/terok/terokd.sock, or run/terokd.sock below the state root]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What to log, such as `info,terokd=debug` [default: $TEROKD_LOG or info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Log one JSON object per line
    #[arg(long)]
    log_json: bool,
    /// Print a generated reference and exit
    #[arg(long, value_name = "WHAT", hide = true)]
    reference: Option<Reference>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reference {
    Methods,
    Config,
}

/// How long the end waits for systemd to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Another daemon serves the socket.
const ALREADY_RUNNING: u8 = 4;

fn main() -> ExitCode {
    // Git's hooks are short-lived and called for every push: no configuration, no runtime.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "gate-hook") {
        return terok_gate_server::hook::run(words.next().as_deref());
    }
    // What the vault holds is in this process's memory: no core file of it, and no debugger of the same user.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return fail(
            &format!("cannot keep this process out of core files: {error}"),
            1,
        );
    }
    terok_gate::set_crash_hook(terokd::crash::point);
    let arguments = Arguments::parse();
    if let Some(reference) = arguments.reference {
        return print(reference);
    }
    let env = Environment::from_process();
    telemetry::init(&Logging {
        filter: arguments
            .log
            .or_else(|| env.var("TEROKD_LOG").map(str::to_owned)),
        json: arguments.log_json,
        journal: env.var("JOURNAL_STREAM").is_some(),
    });
    let activated = match systemd::take_listeners(env.var("LISTEN_FDNAMES").unwrap_or_default()) {
        Ok(listeners) => listeners,
        Err(error) => {
            return fail(
                &format!("cannot use the socket that was handed over: {error}"),
                1,
            );
        }
    };
    if env.var("NOTIFY_SOCKET").is_some() {
        systemd::connect();
    }
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}"), 1),
    };
    let settings = Settings {
        socket: arguments.socket,
        activated: activated.main,
        gate: activated.gate,
        ..Settings::default()
    };
    let end = runtime.block_on(serve(env, settings));
    runtime.shutdown_timeout(Duration::from_secs(2));
    systemd::flush(LAST_WORDS);
    end
}

async fn serve(env: Environment, settings: Settings) -> ExitCode {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        return fail("cannot listen for signals", 1);
    };
    let running = match daemon::start(env, settings).await {
        Ok(running) => running,
        Err(error @ StartError::Busy(Busy::AlreadyRunning(_))) => {
            return fail(&error.to_string(), ALREADY_RUNNING);
        }
        Err(error) => {
            systemd::status(&error.to_string());
            return fail(&error.to_string(), 1);
        }
    };
    let daemon = std::sync::Arc::clone(&running.daemon);
    let signalled = async move {
        loop {
            tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                _ = hup.recv() => {
                    daemon.reload().await;
                }
            }
        }
    };
    running.until(signalled).await;
    ExitCode::SUCCESS
}

fn print(reference: Reference) -> ExitCode {
    let text = match reference {
        Reference::Methods => terok_proto::reference::markdown(terok_proto::methods::ALL),
        Reference::Config => terokd::reference::config(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(
        std::io::stderr(),
        "terokd: {}",
        terok_proto::error::printable_line(message)
    );
    ExitCode::from(code)
}
