//! Where the programs are, ours and others', and what a test does when one is absent.

use nix::unistd::{Uid, geteuid};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The ordinary account that programs run under when the tests run as root, so that root's rules do not apply.
pub const UNPRIVILEGED: u32 = 65534;

/// The uid and gid to run programs under, if not our own.
pub fn account() -> Option<u32> {
    // What is private already has nobody to be protected from.
    let root = std::env::var("PODMAN_TEST_MODE").is_ok_and(|mode| mode == "rootful");
    (geteuid() == Uid::from_raw(0) && !root).then_some(UNPRIVILEGED)
}

/// The daemon.
pub fn terokd() -> PathBuf {
    ours("terokd", "TEROKD_BIN")
}

/// The command-line client.
pub fn terokctl() -> PathBuf {
    ours("terokctl", "TEROKCTL_BIN")
}

/// The checkout that these tests were built from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn ours(name: &str, variable: &str) -> PathBuf {
    let built = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            // target/PROFILE/deps/it-HASH, or target/PROFILE/terok-bench
            let exe = std::env::current_exe().expect("our own path");
            let beside = exe
                .ancestors()
                .skip(1)
                .take(2)
                .map(|dir| dir.join(name))
                .find(|path| path.is_file());
            beside.unwrap_or_else(|| {
                panic!("{name} is not built: run `cargo build --workspace`, or set {variable}")
            })
        }
    };
    assert!(
        built.is_file(),
        "{} is not there: run `cargo build --workspace`",
        built.display()
    );
    if account().is_some() {
        reachable(&built)
    } else {
        built
    }
}

/// A copy of the program where an ordinary user can execute it; a checkout may lie in root's home.
fn reachable(built: &Path) -> PathBuf {
    let meta = fs::metadata(built).expect("the program");
    let stamp = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .expect("its age");
    let dir = std::env::temp_dir().join(format!(
        "terok-tests-bin-{:x}-{:x}",
        stamp.as_nanos(),
        meta.len()
    ));
    let copy = dir.join(built.file_name().expect("a name"));
    if !copy.is_file() {
        remove_older(built);
        fs::create_dir_all(&dir).expect("a directory for the copy");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("a mode");
        // Tests run side by side: whoever comes last replaces the same bytes by the same bytes.
        let mut part = tempfile::NamedTempFile::new_in(&dir).expect("a temporary file");
        part.write_all(&fs::read(built).expect("the program"))
            .expect("a copy");
        fs::set_permissions(part.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let part = part.into_temp_path();
        fs::rename(&part, &copy).expect("the copy in place");
        let _ = part.keep();
        let _ = fs::write(dir.join(SOURCE), built.as_os_str().as_encoded_bytes());
    }
    copy
}

/// What a copy was made of.
const SOURCE: &str = "source";

/// Removes copies of what the same program was before it was built again.
fn remove_older(built: &Path) {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    for dir in entries.flatten().map(|entry| entry.path()) {
        let is_ours = dir
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("terok-tests-bin-"));
        let source = fs::read(dir.join(SOURCE)).unwrap_or_default();
        if is_ours && source == built.as_os_str().as_encoded_bytes() {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// A program of somebody else, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places
        .into_iter()
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The program, or a skipped test: `let Some(curl) = need("curl") else { return };`.
///
/// # Panics
/// It is absent although everything is required.
pub fn need(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(name, &format!("`{name}` is not installed"));
    }
    found
}

/// Gives a test up, visibly.
///
/// # Panics
/// Everything is required (`TEROKD_REQUIRE_ALL=1`) and README does not list `subject` under what may be skipped.
pub fn skip(subject: &str, reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}", thread.name().unwrap_or("test"));
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(list) = std::env::var_os("TEROKD_SKIPPED_FILE") {
        let list = fs::OpenOptions::new().append(true).create(true).open(list);
        let _ = list.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
    if std::env::var("TEROKD_REQUIRE_ALL").is_ok_and(|v| v == "1") {
        let readme = fs::read_to_string(checkout().join("README.md")).unwrap_or_default();
        let excused = readme
            .lines()
            .any(|l| l.to_lowercase().contains("skip") && l.contains(subject));
        assert!(
            excused,
            "{line}, and everything is required; README does not excuse `{subject}`"
        );
    }
}
