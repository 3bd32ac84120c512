//! Upstreams by the git program: slower, but what git can reach, this can.
//!
//! Upstream's address goes to git as the configuration of a remote in the environment, so that no argument can be taken
//! for an option and no password is seen in the list of processes.

use super::child::{self, Finished};
use super::quarantine::Quarantine;
use super::watch::{Meter, Watch};
use super::{
    Advertisement, FetchReport, GitTransport, RemoteRef, asked_for, host_keys, push, stderr,
};
use crate::{Control, HostEnv, Limits, Phase, Progress, PushError, TransportError, Upstream};
use gix::ObjectId;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Name of the remote that exists only in the environment of our children.
pub(super) const REMOTE: &str = "terok-upstream";
/// Two million refs.
const LIST_LIMIT: usize = 128 * 1024 * 1024;

/// The git program.
#[derive(Clone, Debug)]
pub struct CliTransport {
    env: HostEnv,
}

impl Default for CliTransport {
    fn default() -> Self {
        Self::new(HostEnv::from_process())
    }
}

impl CliTransport {
    /// Children start from `env`.
    pub fn new(env: HostEnv) -> Self {
        Self { env }
    }

    fn list(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        watch: &Watch,
    ) -> Result<Listing, TransportError> {
        let mut command = git(&self.env, upstream)?;
        // Outside of any repository, wherever the daemon was started.
        command.env("GIT_DIR", "/dev/null");
        command.args(["ls-remote", "--symref", "--end-of-options", REMOTE]);
        // git asks the server for exact names only; for anything else it lists all and we choose.
        if !prefixes.is_empty() && !prefixes.iter().any(|prefix| prefix.ends_with('/')) {
            command.arg("HEAD").args(prefixes);
            command.args(prefixes.iter().map(|prefix| format!("{prefix}^{{}}")));
        }
        let finished = child::run(&mut command, b"", LIST_LIMIT, watch, |_| {})?;
        check(&finished, upstream)?;
        parse(&finished.stdout, prefixes)
    }
}

impl GitTransport for CliTransport {
    fn ls_refs(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        control: &Control,
    ) -> Result<Advertisement, TransportError> {
        let watch = Watch::start(control, limits.ls_refs, None)?;
        let _contact = host_keys::Contact::begin(upstream, control)?;
        let mut listing = self.list(upstream, prefixes, &watch)?;
        let mut empty_confirmed = false;
        if listing.refs.is_empty() {
            // git does not tell an empty repository from a server that keeps silent.
            listing = self.list(upstream, prefixes, &watch)?;
            empty_confirmed = listing.refs.is_empty();
        }
        Ok(Advertisement {
            refs: listing.refs,
            head: listing.head,
            empty_confirmed,
        })
    }

    fn fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
        limits: &Limits,
        control: &Control,
    ) -> Result<FetchReport, TransportError> {
        if wants.is_empty() {
            return Ok(FetchReport::default());
        }
        let watch = Watch::start(control, limits.total, Some(limits.inactivity))?;
        let _contact = host_keys::Contact::begin(upstream, control)?;
        let quarantine = Quarantine::new(repository)?;
        let mut command = git(&self.env, upstream)?;
        command
            .env("GIT_DIR", repository)
            .env("GIT_OBJECT_DIRECTORY", quarantine.path())
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", alternate(repository));
        for setting in [
            "core.bare=true",
            "fetch.unpackLimit=1",
            "transfer.unpackLimit=1",
            "fetch.writeCommitGraph=false",
            "fetch.recurseSubmodules=false",
            "gc.auto=0",
            "maintenance.auto=false",
        ] {
            command.args(["-c", setting]);
        }
        command.args([
            "fetch",
            "--no-tags",
            "--no-auto-gc",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--progress",
            "--stdin",
            "--end-of-options",
            REMOTE,
        ]);
        let mut input = String::with_capacity(wants.len() * 41);
        for want in wants {
            input.push_str(&format!("{}\n", want.id));
        }
        let mut reader = ProgressReader::new(watch.meter());
        let finished = child::run(
            &mut command,
            input.as_bytes(),
            LIST_LIMIT,
            &watch,
            |piece| {
                reader.push(piece);
            },
        )?;
        check(&finished, upstream)?;
        let report = FetchReport {
            objects: quarantine.objects()?,
            // git tells sizes only of transfers that take a while.
            bytes: reader.bytes.max(quarantine.bytes()?),
        };
        control.check()?;
        quarantine.admit()?;
        Ok(report)
    }

    fn push(
        &self,
        repository: &Path,
        upstream: &Upstream,
        commit: ObjectId,
        to: &str,
        lease: Option<ObjectId>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), PushError> {
        push::push(
            &self.env, repository, upstream, commit, to, lease, limits, control,
        )
    }
}

/// git with everything that holds for all calls.
pub(super) fn git(env: &HostEnv, upstream: &Upstream) -> Result<Command, TransportError> {
    if upstream.url.is_ssh() && env.find_program("ssh").is_none() {
        return Err(TransportError::GitMissing("ssh".to_owned()));
    }
    let mut command = env.git(upstream)?;
    let settings = [
        (format!("remote.{REMOTE}.url"), upstream.url.as_str()),
        ("core.hooksPath".to_owned(), "/dev/null"),
        ("core.askPass".to_owned(), ""),
        ("credential.interactive".to_owned(), "false"),
        ("protocol.version".to_owned(), "2"),
    ];
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (index, (key, value)) in settings.iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{index}"), key)
            .env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    Ok(command)
}

pub(super) fn check(finished: &Finished, upstream: &Upstream) -> Result<(), TransportError> {
    if finished.status.success() {
        Ok(())
    } else {
        Err(stderr::classify(&finished.stderr, upstream))
    }
}

/// The repository's own objects, quoted as git splits the variable at colons.
fn alternate(repository: &Path) -> std::ffi::OsString {
    let path = repository.join("objects");
    let text = path.to_string_lossy();
    if text.contains([':', '"', '\\']) || text.starts_with('#') {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into()
    } else {
        path.into()
    }
}

#[derive(Default)]
struct Listing {
    refs: Vec<RemoteRef>,
    head: Option<String>,
}

/// `ID<tab>NAME` lines, `NAME^{}` for what a tag points at, and `ref: TARGET<tab>HEAD`.
fn parse(stdout: &[u8], prefixes: &[&str]) -> Result<Listing, TransportError> {
    let mut listing = Listing::default();
    let mut refs: BTreeMap<String, RemoteRef> = BTreeMap::new();
    for line in stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        // A name that is no UTF-8 is no branch of ours.
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        let (what, name) = line
            .split_once('\t')
            .ok_or_else(|| TransportError::protocol("git lists refs in an unknown form"))?;
        if let Some(target) = what.strip_prefix("ref: ") {
            if name == "HEAD" {
                listing.head = Some(target.to_owned());
            }
            continue;
        }
        let id = ObjectId::from_hex(what.as_bytes()).map_err(|_| object_format(what))?;
        if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(known) = refs.get_mut(tag) {
                known.peeled = Some(id);
            }
        } else if asked_for(name, prefixes) && name != "HEAD" {
            refs.insert(
                name.to_owned(),
                RemoteRef {
                    name: name.to_owned(),
                    id,
                    peeled: None,
                },
            );
        }
    }
    listing.refs = refs.into_values().collect();
    Ok(listing)
}

fn object_format(id: &str) -> TransportError {
    if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        TransportError::UnsupportedObjectFormat("sha256".into())
    } else {
        TransportError::protocol("git lists ids that are none")
    }
}

/// Reads git's progress lines.
struct ProgressReader {
    meter: Meter,
    line: Vec<u8>,
    bytes: u64,
}

impl ProgressReader {
    fn new(meter: Meter) -> Self {
        Self {
            meter,
            line: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            if matches!(byte, b'\r' | b'\n') {
                let line = std::mem::take(&mut self.line);
                self.line_done(&String::from_utf8_lossy(&line));
            } else if self.line.len() < 512 {
                self.line.push(*byte);
            }
        }
    }

    /// `Receiving objects:  42% (42/100), 1.20 MiB | 3.00 MiB/s`
    fn line_done(&mut self, line: &str) {
        let Some((what, rest)) = line.split_once(':') else {
            return;
        };
        let phase = match what {
            "Receiving objects" => Phase::Receiving,
            "Resolving deltas" => Phase::Resolving,
            _ => return,
        };
        let counted = rest
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(counted, _)| counted.split_once('/'))
            .and_then(|(done, total)| Some((done.parse().ok()?, total.parse().ok()?)));
        let Some((objects, total)) = counted else {
            return;
        };
        if let Some(bytes) = size(rest) {
            self.bytes = bytes;
        }
        self.meter.control().progress(Progress {
            phase,
            objects,
            total: Some(total),
            bytes: self.bytes,
        });
    }
}

/// The size in `…), 1.20 MiB | …`.
fn size(rest: &str) -> Option<u64> {
    let mut words = rest.split_once("), ")?.1.split_ascii_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches(',') {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size for a progress bar"
    )]
    Some((number * unit) as u64)
}
