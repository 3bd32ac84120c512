//! What is on the disk, compared by everything that a user could miss.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use terok_tests::World;

/// Every path below the home with its kind, mode and content, but for the daemon's own state and new archives.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    pub(super) fn of(world: &World) -> Self {
        let mut found = BTreeMap::new();
        walk(&world.path("$HOME"), &mut found);
        let own = world.path("$DATA/core/terokd");
        let archive = world.path("$DATA/archive");
        let new: Vec<PathBuf> = archives(world);
        found.retain(|path, _| !path.starts_with(&own) && *path != archive && !new.contains(path));
        Self(found)
    }

    /// The same without some directories.
    pub(super) fn without(&self, world: &World, roots: &[&str]) -> Self {
        let roots: Vec<PathBuf> = roots.iter().map(|root| world.path(root)).collect();
        let kept = self.0.iter();
        let kept = kept.filter(|(path, _)| !roots.iter().any(|root| path.starts_with(root)));
        Self(kept.map(|(p, s)| (p.clone(), s.clone())).collect())
    }

    /// What is only here, only there, or another thing.
    pub(super) fn difference(&self, other: &Self) -> Vec<String> {
        let gone = self.0.iter().filter_map(|(path, here)| {
            let problem = match other.0.get(path) {
                None => "gone",
                Some(there) if there != here => "changed",
                Some(_) => return None,
            };
            Some(format!("{problem}: {}", path.display()))
        });
        let new = other.0.keys().filter(|path| !self.0.contains_key(*path));
        gone.chain(new.map(|path| format!("new: {}", path.display())))
            .collect()
    }
}

fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().unwrap();
        let mode = meta.permissions().mode();
        let what = if meta.is_dir() {
            walk(&path, found);
            String::new()
        } else if meta.file_type().is_socket() {
            "a socket".to_owned()
        } else if path.extension().is_some_and(|end| end == "lock") {
            // Says which process had it last.
            "a lock".to_owned()
        } else if meta.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
        };
        found.insert(path, format!("{mode:o} {what}"));
    }
}

/// Names that only a half-done deletion or derivation leaves.
pub(super) fn leftovers(world: &World) -> Vec<String> {
    let mut found = BTreeMap::new();
    for dir in ["$CONFIG", "$DATA"] {
        walk(&world.path(dir), &mut found);
    }
    let journals = world.path("$DATA/core/terokd/deletions");
    let is_left = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        [".deleting-", ".deriving-", ".partial"]
            .iter()
            .any(|mark| name.contains(mark))
            || path.parent() == Some(&journals)
    };
    let left = found.keys().filter(is_left);
    left.map(|path| path.display().to_string()).collect()
}

pub(super) fn no_leftovers(world: &World, what: &str) {
    assert_eq!(leftovers(world), Vec::<String>::new(), "{what}");
}

/// The archives of the project `alpha`.
pub(super) fn archives(world: &World) -> Vec<PathBuf> {
    let dir = fs::read_dir(world.path("$DATA/archive"));
    let all = dir.into_iter().flatten().flatten().map(|e| e.path());
    all.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains("_alpha") && name.ends_with(".tar.gz")
    })
    .collect()
}

/// Unpacks an archive with `tar`: name and text of every regular file.
pub(super) fn read_archive(archive: &Path) -> BTreeMap<String, String> {
    let mode = fs::metadata(archive).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{}", archive.display());
    let to = tempfile::tempdir().unwrap();
    let output = Command::new("tar")
        .args(["--no-same-owner", "-xzf"])
        .arg(archive)
        .arg("-C")
        .arg(to.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {output:?}", archive.display());
    let mut found = BTreeMap::new();
    read_below(to.path(), to.path(), &mut found);
    assert!(found.contains_key("MANIFEST.json"), "{found:?}");
    found
}

fn read_below(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        let path = entry.path();
        if kind.is_dir() {
            read_below(root, &path, found);
        } else if kind.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.insert(name.to_owned(), text);
        }
    }
}
