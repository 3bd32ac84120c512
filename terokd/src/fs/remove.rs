//! Removes trees by directory descriptors.
//!
//! Never follows a symbolic link, never crosses a mount point, never enters a path that was swapped, and does what
//! it can: what stays behind is counted and named.

use super::tree::{self, At, Identity, Options, Visit};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, RenameFlags, renameat2};
use nix::libc;
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Entries left behind that are named at most.
const MAX_NAMED: usize = 10;

/// Passes over a tree into which somebody keeps writing.
const MAX_PASSES: usize = 3;

/// What a removal could not remove.
#[derive(Debug, Default)]
pub struct Removal {
    /// Number of entries that stayed.
    pub left: u64,
    /// The first of them, and why.
    pub reasons: Vec<(PathBuf, String)>,
    grew: bool,
}

impl Removal {
    /// Nothing stayed.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// In words, for a warning.
    pub fn describe(&self) -> String {
        let named: Vec<String> = self
            .reasons
            .iter()
            .map(|(path, why)| format!("`{}`: {why}", path.display()))
            .collect();
        format!("{} entries stayed: {}", self.left, named.join("; "))
    }

    fn keep(&mut self, rel: &Path, error: &io::Error) {
        self.left += 1;
        if self.reasons.len() < MAX_NAMED {
            self.reasons.push((rel.to_owned(), error.to_string()));
        }
    }
}

impl Visit for Removal {
    fn other(&mut self, at: &At<'_>) -> io::Result<()> {
        match unlinkat(at.dir, at.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => self.keep(at.rel, &error.into()),
        }
        Ok(())
    }

    fn leave(&mut self, at: &At<'_>) -> io::Result<()> {
        match unlinkat(at.dir, at.name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // Something below stayed and is counted already.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if self.left > 0 => {}
            Err(error) => {
                self.grew |= matches!(error, Errno::ENOTEMPTY | Errno::EEXIST);
                self.keep(at.rel, &error.into());
            }
        }
        Ok(())
    }

    fn failed(&mut self, rel: &Path, error: io::Error) -> io::Result<()> {
        self.keep(rel, &error);
        Ok(())
    }
}

/// Removes a tree, a file or a link (then only the link). Absent is fine. With `expected`, touches nothing unless
/// the path still names that inode.
///
/// # Errors
/// The path is something else than expected, or was moved during the removal.
pub fn remove_tree(path: &Path, expected: Option<Identity>) -> io::Result<Removal> {
    let mut removal = Removal::default();
    for _ in 0..MAX_PASSES {
        removal = Removal::default();
        let (parent, name) = match tree::open_parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removal),
            other => other?,
        };
        let stat = match fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(removal),
            other => other?,
        };
        if expected.is_some_and(|expected| expected != Identity::from_stat(&stat)) {
            return Err(io::Error::other("it is not what was to be removed"));
        }
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            let at = At {
                dir: parent.as_fd(),
                name: &name,
                rel: Path::new(""),
            };
            removal.other(&at)?;
            return Ok(removal);
        }
        let options = Options {
            make_accessible: true,
            ..Options::default()
        };
        let identity = Some(Identity::from_stat(&stat));
        tree::walk(parent.as_fd(), &name, identity, options, &mut removal)?;
        if !removal.grew {
            break;
        }
    }
    Ok(removal)
}

/// Renames within one directory, never over something that exists. With `expected`, only that inode.
pub fn rename_beside(
    path: &Path,
    new_name: &std::ffi::OsStr,
    expected: Option<Identity>,
) -> io::Result<()> {
    let (parent, name) = tree::open_parent(path)?;
    let stat = fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if expected.is_some_and(|expected| expected != Identity::from_stat(&stat)) {
        return Err(io::Error::other("it is not what was to be renamed"));
    }
    let new_name = tree::c_name(new_name)?;
    let flags = RenameFlags::RENAME_NOREPLACE;
    match renameat2(
        &parent,
        name.as_c_str(),
        &parent,
        new_name.as_c_str(),
        flags,
    ) {
        // File systems without the flag: the check and the rename are two steps there.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            let there = fstatat(&parent, new_name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            if there != Err(Errno::ENOENT) {
                return Err(Errno::EEXIST.into());
            }
            nix::fcntl::renameat(&parent, name.as_c_str(), &parent, new_name.as_c_str())?;
        }
        other => other?,
    }
    nix::unistd::fsync(&parent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn deep(root: &Path, depth: usize) {
        // By descriptors, as no path that deep can be named.
        use nix::fcntl::{OFlag, openat};
        use nix::sys::stat::{Mode, mkdirat};
        fs::create_dir(root).unwrap();
        let mut at = std::os::fd::OwnedFd::from(fs::File::open(root).unwrap());
        for _ in 0..depth {
            mkdirat(&at, c"a-rather-long-directory-name", Mode::S_IRWXU).unwrap();
            at = openat(
                &at,
                c"a-rather-long-directory-name",
                OFlag::O_DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
        }
    }

    #[test]
    fn depth_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        deep(&root, 5_000);
        let removal = remove_tree(&root, None).unwrap();
        assert!(removal.is_complete(), "{}", removal.describe());
        assert!(!root.exists());
    }

    #[test]
    fn links_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        let root = dir.path().join("t");
        fs::create_dir_all(root.join("sub")).unwrap();
        symlink(&outside, root.join("sub/link")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        assert!(remove_tree(&root, None).unwrap().is_complete());
        assert!(!root.exists() && outside.join("precious").exists());
        let link = dir.path().join("link");
        symlink(&outside, &link).unwrap();
        assert!(remove_tree(&link, None).unwrap().is_complete());
        assert!(link.symlink_metadata().is_err() && outside.join("precious").exists());
    }

    #[test]
    fn a_swapped_path_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir(&root).unwrap();
        let identity = Identity::of(&root).unwrap();
        fs::rename(&root, dir.path().join("moved")).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(root.join("other"), "x").unwrap();
        remove_tree(&root, Some(identity)).unwrap_err();
        assert!(root.join("other").exists());
        rename_beside(&root, "x".as_ref(), Some(identity)).unwrap_err();
        assert!(root.exists());
    }

    #[test]
    fn read_only_directories_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir_all(root.join("locked/inner")).unwrap();
        fs::write(root.join("locked/inner/file"), "x").unwrap();
        fs::set_permissions(root.join("locked/inner"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(remove_tree(&root, None).unwrap().is_complete());
        assert!(!root.exists());
        assert!(
            remove_tree(&root, None).unwrap().is_complete(),
            "absent is fine"
        );
    }

    #[test]
    fn renaming_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        rename_beside(&dir.path().join("a"), "b".as_ref(), None).unwrap_err();
        rename_beside(&dir.path().join("a"), "c".as_ref(), None).unwrap();
        assert!(dir.path().join("c").exists() && dir.path().join("b").exists());
    }
}
