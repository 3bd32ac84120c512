//! The environment of this process, read once, and the one thing that follows from it alone: where the socket is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Variables and home directory.
#[derive(Clone, Debug)]
pub(crate) struct Env {
    vars: BTreeMap<OsString, OsString>,
    home: PathBuf,
    /// The effective user is root of the host, not of a user namespace.
    pub(crate) is_root: bool,
}

/// Where the socket is, and whether somebody said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPath {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// Named by `--socket` or `TEROKD_SOCKET`.
    pub(crate) named: bool,
}

impl Env {
    /// What this process was started with.
    pub(crate) fn from_process() -> Self {
        let euid = nix::unistd::geteuid();
        let vars: BTreeMap<_, _> = std::env::vars_os().collect();
        let home = vars
            .get(&OsString::from("HOME"))
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| {
                nix::unistd::User::from_uid(euid)
                    .ok()
                    .flatten()
                    .map(|u| u.dir)
            })
            .unwrap_or_else(|| PathBuf::from("/"));
        let is_root = euid.is_root()
            && is_host_root(
                std::fs::read_to_string("/proc/self/uid_map")
                    .ok()
                    .as_deref(),
            );
        Self {
            vars,
            home,
            is_root,
        }
    }

    #[cfg(test)]
    pub(crate) fn of(vars: &[(&str, &str)], home: &str, is_root: bool) -> Self {
        Self {
            vars: vars
                .iter()
                .map(|(k, v)| (OsString::from(k), OsString::from(v)))
                .collect(),
            home: home.into(),
            is_root,
        }
    }

    /// The variable, unless it is unset or empty.
    pub(crate) fn var(&self, name: &str) -> Option<&OsString> {
        self.vars
            .get(&OsString::from(name))
            .filter(|v| !v.is_empty())
    }

    /// A path as the daemon reads it from a variable: `~` is the home directory, and so is the start of a relative path.
    pub(crate) fn expand(&self, path: &OsString) -> PathBuf {
        let bytes = path.as_bytes();
        if bytes == b"~" {
            return self.home.clone();
        }
        match bytes.strip_prefix(b"~/") {
            Some(rest) => self.home.join(std::ffi::OsStr::from_bytes(rest)),
            None => self.home.join(path),
        }
    }

    /// The home directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The socket (rpc.md §1), found without reading any configuration.
    pub(crate) fn socket(&self, option: Option<&Path>) -> SocketPath {
        let named = option
            .map(Path::to_owned)
            .or_else(|| self.var("TEROKD_SOCKET").map(PathBuf::from));
        if let Some(path) = named {
            return SocketPath {
                path: std::path::absolute(&path).unwrap_or(path),
                named: true,
            };
        }
        let path = match self.var("XDG_RUNTIME_DIR") {
            Some(dir) => Path::new(dir).join("terok/terokd.sock"),
            None => self.state_root().join("run/terokd.sock"),
        };
        SocketPath { path, named: false }
    }

    fn state_root(&self) -> PathBuf {
        if let Some(root) = self.var("TEROK_ROOT") {
            return self.expand(root);
        }
        if self.is_root {
            return PathBuf::from("/var/lib/terok");
        }
        match self.var("XDG_DATA_HOME") {
            Some(data) => self.expand(data).join("terok"),
            None => self.home.join(".local/share/terok"),
        }
    }
}

/// Whether uid 0 of our user namespace is uid 0 of the one around it; without a map it is.
fn is_host_root(uid_map: Option<&str>) -> bool {
    let Some(map) = uid_map else { return true };
    for line in map.lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(0)), Some(Ok(outer)), Some(Ok(length))) =
            (numbers.next(), numbers.next(), numbers.next())
            && length > 0
        {
            return outer == 0;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_in_order() {
        let all = [
            ("TEROKD_SOCKET", "/s"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("TEROK_ROOT", "~/t"),
            ("XDG_DATA_HOME", "/data"),
        ];
        let path = |from: usize, root: bool| Env::of(&all[from..], "/home/ada", root).socket(None);
        let option = Env::of(&all, "/home/ada", false).socket(Some(Path::new("/o")));
        assert_eq!((option.path, option.named), ("/o".into(), true));
        assert_eq!(
            (path(0, false).path, path(0, false).named),
            ("/s".into(), true)
        );
        assert_eq!(
            path(1, false).path,
            Path::new("/run/user/7/terok/terokd.sock")
        );
        assert!(!path(1, false).named);
        assert_eq!(
            path(2, false).path,
            Path::new("/home/ada/t/run/terokd.sock")
        );
        assert_eq!(
            path(3, false).path,
            Path::new("/data/terok/run/terokd.sock")
        );
        assert_eq!(
            path(4, false).path,
            Path::new("/home/ada/.local/share/terok/run/terokd.sock")
        );
        assert_eq!(
            path(3, true).path,
            Path::new("/var/lib/terok/run/terokd.sock")
        );
    }

    #[test]
    fn empty_variables_are_unset() {
        let env = Env::of(
            &[
                ("TEROKD_SOCKET", ""),
                ("XDG_RUNTIME_DIR", ""),
                ("TEROK_ROOT", ""),
            ],
            "/h",
            false,
        );
        assert_eq!(
            env.socket(None).path,
            Path::new("/h/.local/share/terok/run/terokd.sock")
        );
    }

    #[test]
    fn root_of_a_user_namespace_is_not_root() {
        assert!(is_host_root(Some("         0          0 4294967295\n")));
        assert!(!is_host_root(Some("0 1000 1\n1 100000 65536\n")));
        assert!(is_host_root(None));
    }
}
