//! The size of a tree: links not followed, hard links counted once, what cannot be read passed over.

use crate::fs::tree::{self, At, Identity, Options, Visit};
use nix::libc;
use nix::sys::stat::FileStat;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Files with several names that are remembered, so that each counts once.
const MAX_LINKED: usize = 1 << 20;

/// Entries between two looks at whether anybody still waits.
const PATIENCE: u64 = 1024;

/// The size of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Sum of the lengths of its regular files.
    pub apparent: u64,
    /// What the file system set aside for them.
    pub allocated: u64,
    /// Something could not be read, or nobody waited for the end.
    pub incomplete: bool,
}

struct Meter<'a> {
    size: Size,
    linked: HashSet<Identity>,
    seen: u64,
    give_up: &'a dyn Fn() -> bool,
}

impl Meter<'_> {
    fn patience(&mut self) -> io::Result<()> {
        self.seen += 1;
        if self.seen.is_multiple_of(PATIENCE) && (self.give_up)() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        Ok(())
    }
}

impl Visit for Meter<'_> {
    fn other(&mut self, at: &At<'_>) -> io::Result<()> {
        self.patience()?;
        let stat = match at.stat() {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {
                self.size.incomplete = true;
                return Ok(());
            }
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            if self.linked.len() >= MAX_LINKED {
                self.size.incomplete = true;
            } else if !self.linked.insert(Identity::from_stat(&stat)) {
                return Ok(());
            }
        }
        self.size.apparent += u64::try_from(stat.st_size).unwrap_or(0);
        self.size.allocated += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        Ok(())
    }

    fn enter(&mut self, _at: &At<'_>, _stat: &FileStat) -> io::Result<()> {
        self.patience()
    }

    fn failed(&mut self, _rel: &Path, _error: io::Error) -> io::Result<()> {
        self.size.incomplete = true;
        Ok(())
    }
}

/// Measures a tree; an absent one is empty. Asks `give_up` now and then.
pub(super) fn measure(dir: &Path, give_up: &dyn Fn() -> bool) -> Size {
    let mut meter = Meter {
        size: Size::default(),
        linked: HashSet::new(),
        seen: 0,
        give_up,
    };
    if dir
        .symlink_metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        return meter.size;
    }
    let walked = tree::open_parent(dir).and_then(|(parent, name)| {
        tree::walk(parent.as_fd(), &name, None, Options::default(), &mut meter)
    });
    meter.size.incomplete |= walked.is_err();
    meter.size
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_count_once_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), vec![1; 10_000]).unwrap();
        fs::hard_link(root.join("a/b/f"), root.join("again")).unwrap();
        fs::write(dir.path().join("outside"), "12345").unwrap();
        symlink(dir.path().join("outside"), root.join("link")).unwrap();
        let size = measure(&root, &|| false);
        assert_eq!((size.apparent, size.incomplete), (10_000, false));
        assert!(size.allocated >= 8_192, "{}", size.allocated);
        assert_eq!(
            measure(&dir.path().join("none"), &|| false),
            Size::default()
        );
        symlink(&root, dir.path().join("way-in")).unwrap();
        let size = measure(&dir.path().join("way-in"), &|| false);
        assert_eq!(
            (size.apparent, size.incomplete),
            (0, true),
            "a link is no directory"
        );
    }

    #[test]
    fn nobody_waiting_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..1_100 {
            fs::write(dir.path().join(number.to_string()), "1").unwrap();
        }
        let size = measure(dir.path(), &|| true);
        assert!(size.incomplete && size.apparent < 1_100);
    }
}
