//! Logging and the record of panics. Writes to stderr: journald takes it from there, with levels.

use std::any::Any;
use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use terok_proto::Fault;
use tracing_subscriber::EnvFilter;

/// What is logged by default. `notify` warns of every directory that is removed while it is watched.
const QUIET: &str = "info,sqlx=warn,jsonrpsee=warn,notify=error";

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Logging {
    /// Directives such as `info,terokd=debug`; by default `info`.
    pub filter: Option<String>,
    /// One JSON object per line.
    pub json: bool,
    /// stderr is the journal, which keeps times itself.
    pub journal: bool,
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs the log and the panic hook. Later calls in the same process change nothing.
pub fn init(logging: &Logging) {
    let filter = logging
        .filter
        .as_deref()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(QUIET));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only the first subscriber of a process counts; a second daemon in a test shares it.
    let _ = match (logging.json, logging.journal) {
        (true, _) => base.json().try_init(),
        (false, true) => base.without_time().try_init(),
        (false, false) => base.try_init(),
    };
    std::panic::set_hook(Box::new(|info| {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!(
            "panic-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(error_id = %id, %backtrace, "{info}");
        LAST_PANIC.with_borrow_mut(|last| *last = id);
    }));
}

/// What a panic costs whoever waits for the work: one fault, and an id under which the log holds message and backtrace.
/// To be called on the thread that panicked, as a guard that catches the panic is.
pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> Fault {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let id = LAST_PANIC.with_borrow(Clone::clone);
    tracing::error!(error_id = %id, what, panic = %message, "work panicked");
    Fault::internal(format!(
        "an internal error occurred; the log has it under {id}"
    ))
    .with("error_id", id)
}
