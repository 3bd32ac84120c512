//! The audit log: one compact JSON object per line, appended with a single write so that several writers never mix.
//!
//! Fields are those of the reference plus `kind`. Writing never fails what is being logged.

use crate::files;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROTATE_AT: u64 = 64 * 1024 * 1024;
const KEEP: u32 = 5;

/// What was done.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    SshSign,
    Unlock,
    Lock,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ok,
    CredentialMissing,
    CredentialMisconfigured,
}

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    kind: Kind,
    scope: &'a str,
    subject: &'a str,
    credential_set: &'a str,
    provider: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    outcome: Outcome,
    duration_ms: u64,
}

/// The log's writer.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    warned: AtomicBool,
}

impl Audit {
    /// A signature of a scope's agent; `fingerprint` is empty if the key is not known.
    pub(crate) async fn signed(
        &self,
        log: PathBuf,
        scope: &str,
        fingerprint: &str,
        outcome: Outcome,
        took: Duration,
    ) {
        let line = Line {
            ts: now(),
            kind: Kind::SshSign,
            scope,
            subject: "",
            credential_set: scope,
            provider: "ssh",
            method: "sign",
            path: fingerprint,
            status: 0,
            outcome,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        self.write(log, &line).await;
    }

    /// The vault was opened or closed; `source` is the tier.
    pub(crate) async fn vault(&self, log: PathBuf, kind: Kind, source: &str) {
        let line = Line {
            ts: now(),
            kind,
            scope: "",
            subject: "",
            credential_set: "",
            provider: "",
            method: source,
            path: "",
            status: 0,
            outcome: Outcome::Ok,
            duration_ms: 0,
        };
        self.write(log, &line).await;
    }

    async fn write(&self, log: PathBuf, line: &Line<'_>) {
        let Ok(mut bytes) = serde_json::to_vec(line) else {
            return;
        };
        bytes.push(b'\n');
        let written = files::blocking(move || {
            append(&log, &bytes).map_err(|e| terok_proto::Fault::io("write", &log, &e))
        })
        .await;
        if let Err(error) = written
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the audit log cannot be written");
        }
    }
}

fn append(log: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(log)
    };
    let mut file = open()?;
    if file.metadata()?.size() >= ROTATE_AT {
        let numbered = |n: u32| {
            let mut name = log.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..KEEP).rev() {
            // There may be fewer.
            let _ = std::fs::rename(numbered(n), numbered(n + 1));
        }
        std::fs::rename(log, numbered(1))?;
        file = open()?;
    }
    file.write_all(bytes)
}

fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S+00:00")
        .to_string()
}
