//! What runs when a container pushes: old tips that the push would lose are kept before anything moves, and what has
//! moved is written down.
//!
//! Backups are made by `pre-receive`: whatever ends git once a ref has moved, its old tip is safe. A push that is refused
//! after that leaves a backup too many. The running half is `terokd gate-hook`, a child of git's: no runtime, no
//! configuration, no database. It refuses deletions of what the pusher has not seen, but no push because of a failure of
//! its own to keep or announce; what it writes to stderr is read by whoever pushes.

use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use terok_proto::Fault;

/// Directory of the hooks, below the base.
const DIRECTORY: &str = ".hooks";

/// Hooks that are answered to.
const HOOKS: [&str; 2] = [BEFORE, "post-receive"];
const BEFORE: &str = "pre-receive";

/// With these, git writes no ref: it might name an object that is never taken over from the push. Backups name only
/// what was there before.
const QUARANTINE: [&str; 3] = [
    "GIT_QUARANTINE_PATH",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
];

/// Largest list of updates that is read.
const LARGEST: u64 = 64 << 20;

/// Updates that are looked at one by one; of more, every old tip is kept.
const LOOKED_AT: usize = 200;

/// Seconds by which the name of a backup moves on when something is in its place.
const TRIES: i64 = 30;

/// Writes the hooks into the base, each whole or not at all, and gives the directory.
pub(crate) fn install(base: &Path, program: &Path) -> Result<PathBuf, Fault> {
    let dir = base.join(DIRECTORY);
    let failed = |error: io::Error| Fault::io("write the hook in", &dir, &error);
    crate::listen::private_dir(base, DIRECTORY)?;
    let mut script = b"#!/bin/sh\n# Written by terokd when it starts.\nexec ".to_vec();
    script.push(b'\'');
    for byte in program.as_os_str().as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            other => script.push(*other),
        }
    }
    for hook in HOOKS {
        let mut file = tempfile::Builder::new()
            .prefix(&format!(".{hook}-"))
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempfile_in(&dir)
            .map_err(failed)?;
        file.write_all(&script).map_err(failed)?;
        writeln!(file, "' gate-hook {hook}").map_err(failed)?;
        // Closed before it gets its name: a script that is open for writing cannot be run.
        let path = file.into_temp_path();
        path.persist(dir.join(hook))
            .map_err(|error| failed(error.error))?;
    }
    Ok(dir)
}

/// One moved ref, as git tells it.
#[derive(Debug, PartialEq, Eq)]
struct Update {
    old: String,
    new: String,
    name: Vec<u8>,
}

impl Update {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b' ');
        let mut id = || {
            let text = std::str::from_utf8(fields.next()?).ok()?;
            let fits = (40..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| text.to_owned())
        };
        Some(Self {
            old: id()?,
            new: id()?,
            name: fields.next()?.to_vec(),
        })
    }

    /// The branch whose old tip this update may lose.
    fn branch(&self) -> Option<&[u8]> {
        let branch = self.name.strip_prefix(b"refs/heads/")?;
        (!is_zero(&self.old)).then_some(branch)
    }
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

/// Runs as git's hook of that name, in the repository that is pushed to.
pub fn run(hook: Option<&OsStr>) -> ExitCode {
    // Whoever ends git ends its group; what is begun here is brief and must be finished.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
    answer(hook, io::stdin(), LARGEST)
}

fn answer(hook: Option<&OsStr>, list: impl io::Read, largest: u64) -> ExitCode {
    let mut text = Vec::new();
    if let Err(error) = list.take(largest + 1).read_to_end(&mut text) {
        warn(&format!("cannot read what is pushed: {error}"));
        // No failure of ours rejects a push.
        return ExitCode::SUCCESS;
    }
    let updates: Vec<_> = text
        .split(|byte| *byte == b'\n')
        .filter_map(Update::parse)
        .collect();
    if hook.is_some_and(|hook| hook == BEFORE) {
        if text.len() as u64 > largest {
            // What is not read may hold what is to be refused, or kept.
            warn("too many refs at once: push them in several steps");
            return ExitCode::FAILURE;
        }
        if let Some(message) = refusal(&updates) {
            warn(&message);
            return ExitCode::FAILURE;
        }
        if let Err(message) = keep(&updates) {
            warn(&format!("not every old tip is kept: {message}"));
        }
    } else if let Some(path) = std::env::var_os("TEROKD_HOOK_REPORT")
        && let Err(error) = write_down(Path::new(&path), &updates)
    {
        warn(&format!("the push is not announced: {error}"));
    }
    ExitCode::SUCCESS
}

/// Nobody may read any more; that is no reason to fail.
fn warn(message: &str) {
    let _ = writeln!(io::stderr(), "terok: {message}");
}

fn write_down(path: &Path, updates: &[Update]) -> io::Result<()> {
    let mut lines = Vec::new();
    for update in updates {
        lines.extend_from_slice(update.old.as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(update.new.as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(&update.name);
        lines.push(b'\n');
    }
    OpenOptions::new()
        .append(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?
        .write_all(&lines)
}

/// Why a push is refused: git carries out deletions whatever old id they claim, if that names nothing, and then nobody
/// has seen what is lost.
fn refusal(updates: &[Update]) -> Option<String> {
    let is_deletion =
        |update: &&Update| is_zero(&update.new) && update.name.starts_with(b"refs/heads/");
    let mut deletions = updates.iter().filter(is_deletion).peekable();
    deletions.peek()?;
    let heads = match heads() {
        Ok(heads) => heads,
        Err(error) => return Some(format!("git does not start: {error}")),
    };
    let stale = deletions.find(|update| {
        let there = heads.get(&update.name);
        there.is_some_and(|id| id.as_slice() != update.old.as_bytes())
    })?;
    let name = String::from_utf8_lossy(&stale.name);
    Some(format!("{name:?} has moved: fetch, and delete it again"))
}

/// Keeps the old tips that their branches will not reach any more.
fn keep(updates: &[Update]) -> Result<(), String> {
    let mut candidates: Vec<_> = updates
        .iter()
        .filter(|update| update.branch().is_some())
        .collect();
    if candidates.is_empty() {
        return Ok(());
    }
    // A client may claim anything; only what is there can be lost.
    let heads = heads().map_err(|error| format!("git does not start: {error}"))?;
    candidates.retain(|update| {
        let there = heads.get(&update.name);
        there.is_some_and(|id| id.as_slice() == update.old.as_bytes())
    });
    let all = candidates.len() > LOOKED_AT;
    let lost: Vec<_> = candidates
        .into_iter()
        .filter(|update| all || is_zero(&update.new) || !is_ancestor(&update.old, &update.new))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    if create(lost.iter().map(|update| backup(update, now, 0))).is_ok() {
        return Ok(());
    }
    // One of them is in the way of another, or of one that is there: one by one, and a little later.
    let mut failed = None;
    for update in lost {
        let mut why = String::new();
        let kept = (0..TRIES).any(|later| {
            let (name, id) = backup(update, now, later);
            let created = create([(name.clone(), id)]);
            created.map_err(|message| why = message).is_ok() || is_at(&name, id)
        });
        if !kept {
            failed = Some(why);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn is_ancestor(old: &str, new: &str) -> bool {
    git(&["merge-base", "--is-ancestor", old, new]).is_ok_and(|output| output.status.success())
}

/// Every branch and its tip.
fn heads() -> io::Result<HashMap<Vec<u8>, Vec<u8>>> {
    let format = "--format=%(refname) %(objectname)";
    let listed = git(&["for-each-ref", format, "refs/heads/"])?.stdout;
    let lines = listed.split(|byte| *byte == b'\n').filter_map(|line| {
        let space = line.iter().rposition(|byte| *byte == b' ')?;
        Some((line[..space].to_vec(), line[space + 1..].to_vec()))
    });
    Ok(lines.collect())
}

/// A backup's name, and what it points to.
fn backup(update: &Update, now: Timestamp, later: i64) -> (Vec<u8>, &str) {
    let at = Timestamp::from_second(now.as_second() + later).unwrap_or(now);
    let mut name = b"refs/terok/backup/".to_vec();
    name.extend_from_slice(update.branch().unwrap_or_default());
    let stamp = at.strftime("/%Y%m%dT%H%M%SZ-").to_string();
    name.extend_from_slice(stamp.as_bytes());
    name.extend_from_slice(&update.old.as_bytes()[..12]);
    (name, &update.old)
}

/// Whether a ref is there and has that value.
fn is_at(name: &[u8], id: &str) -> bool {
    let mut command = command(&["rev-parse", "--verify", "--quiet"]);
    command.arg(OsStr::from_bytes(name));
    feed(command, &[]).is_ok_and(|output| output.stdout.trim_ascii() == id.as_bytes())
}

/// Makes refs, all or none. What is there stays as it is.
fn create<'a>(refs: impl IntoIterator<Item = (Vec<u8>, &'a str)>) -> Result<(), String> {
    let mut input = Vec::new();
    let mut seen = HashSet::new();
    for (name, id) in refs {
        if seen.insert(name.clone()) {
            input.extend_from_slice(b"create ");
            input.extend_from_slice(&name);
            input.push(0);
            input.extend_from_slice(id.as_bytes());
            input.push(0);
        }
    }
    let arguments = [
        "update-ref",
        "-m",
        "terok: agent_push",
        "--create-reflog",
        "--stdin",
        "-z",
    ];
    let mut command = command(&arguments);
    for name in QUARANTINE {
        command.env_remove(name);
    }
    let output = feed(command, &input).map_err(|error| format!("git does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message: String = message.trim().chars().take(500).collect();
    Err(terok_proto::error::printable_line(&message))
}

fn git(arguments: &[&str]) -> io::Result<Output> {
    feed(command(arguments), &[])
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn feed(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_is_refused_before_anything_moves() {
        let tag = format!("{} {} refs/tags/t\n", "0".repeat(40), "1".repeat(40));
        let list = tag.repeat(10);
        let largest = list.len() as u64;
        let before = Some(OsStr::new(BEFORE));
        assert_eq!(answer(before, list.as_bytes(), largest), ExitCode::SUCCESS);
        assert_eq!(
            answer(before, list.as_bytes(), largest - 1),
            ExitCode::FAILURE
        );
        // It has happened: nothing is left to refuse.
        let after = Some(OsStr::new("post-receive"));
        assert_eq!(
            answer(after, list.as_bytes(), largest - 1),
            ExitCode::SUCCESS
        );
    }
}
