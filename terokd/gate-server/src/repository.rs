//! From a name to an open directory: a direct child of the base, and never by way of a link.

use crate::route;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use terok_proto::{Fault, Kind};

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_RDONLY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The gate base, held open.
#[derive(Debug)]
pub(crate) struct Base {
    path: PathBuf,
    dir: OwnedFd,
}

impl Base {
    /// Opens the base, and makes it where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Fault::io("create", path, &error))?;
        let path = path
            .canonicalize()
            .map_err(|error| Fault::io("resolve", path, &error))?;
        let dir = open(&path, DIRECTORY, Mode::empty())
            .map_err(|error| Fault::io("open", &path, &error.into()))?;
        if let Err(error) = narrow(&dir) {
            tracing::warn!(path = %path.display(), %error, "others may have access, and the mode cannot be changed");
        }
        Ok(Self { path, dir })
    }

    /// Where it is, resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the repository of that name.
    pub(crate) fn repository(&self, name: &str) -> io::Result<Repository> {
        debug_assert!(route::servable(name), "the route was checked");
        let dir = openat(&self.dir, name, DIRECTORY, Mode::empty())?;
        Ok(Repository { dir })
    }
}

/// Takes others every right, whoever made the directory.
fn narrow(dir: &OwnedFd) -> Result<(), nix::Error> {
    let found = fstat(dir)?;
    if found.st_mode & 0o077 == 0 {
        return Ok(());
    }
    if found.st_uid != nix::unistd::geteuid().as_raw() {
        return Err(nix::Error::EPERM);
    }
    fchmod(dir, Mode::S_IRWXU)
}

/// A repository, held open.
#[derive(Debug)]
pub(crate) struct Repository {
    dir: OwnedFd,
}

impl Repository {
    /// A path to it that a child can use as its working directory, whatever happens to the name meanwhile.
    pub(crate) fn working_dir(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.dir.as_raw_fd()).into()
    }

    /// The text of `HEAD`.
    pub(crate) fn head(&self) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&self.dir, "HEAD", flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = Vec::new();
        file.take(4096).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// The name under which a gate is served: its last component, if it is a direct child of the base.
///
/// # Errors
/// `gate_not_servable`, naming both paths and the settings that move them.
pub fn servable_name(base: &Path, gate: &Path) -> Result<String, Fault> {
    let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let name = gate.file_name().and_then(|name| name.to_str());
    match name {
        Some(name) if gate.parent() == Some(base.as_path()) && route::servable(name) => {
            Ok(name.to_owned())
        }
        _ => Err(Fault::new(
            Kind::GateNotServable,
            format!(
                "gate `{}` cannot be served: it is no directory `NAME.git` directly below `{}`",
                gate.display(),
                base.display()
            ),
        )
        .with("gate_path", gate.to_string_lossy())
        .with("base_path", base.to_string_lossy())
        .hint("change `gate.path` of the project, or `gate_server.repos_dir` of the global configuration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_files_are_no_repositories() {
        let root = tempfile::tempdir().unwrap();
        let base = Base::open(&root.path().join("gate")).unwrap();
        std::fs::create_dir(root.path().join("out.git")).unwrap();
        std::os::unix::fs::symlink("../out.git", base.path().join("link.git")).unwrap();
        std::fs::write(base.path().join("file.git"), "").unwrap();
        std::fs::create_dir(base.path().join("real.git")).unwrap();
        assert!(base.repository("link.git").is_err());
        assert!(base.repository("file.git").is_err());
        assert!(base.repository("none.git").is_err());
        let real = base.repository("real.git").unwrap();
        assert!(real.head().is_err());
        std::os::unix::fs::symlink("/etc/passwd", base.path().join("real.git/HEAD")).unwrap();
        assert!(real.head().is_err());
    }

    #[test]
    fn a_base_that_others_may_enter_is_closed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let root = tempfile::tempdir().unwrap();
        let (base, link) = (root.path().join("gate"), root.path().join("link"));
        std::fs::create_dir(&base).unwrap();
        symlink(&base, &link).unwrap();
        for path in [&base, &link] {
            std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
            Base::open(path).unwrap();
            let mode = base.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700);
        }
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&base, Some(12345), None).unwrap();
            std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
            Base::open(&base).unwrap();
            let mode = base.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "somebody else's");
        }
    }

    #[test]
    fn only_direct_children_are_servable() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        assert_eq!(servable_name(&base, &base.join("a.git")).unwrap(), "a.git");
        for wrong in ["a", "x/a.git", "../a.git", ".git", "é.git"] {
            let fault = servable_name(&base, &base.join(wrong)).unwrap_err();
            assert_eq!(fault.kind, Kind::GateNotServable);
            assert!(fault.message.contains(&*base.to_string_lossy()), "{fault}");
        }
    }
}
