//! The daemon's environment, captured once as data.
//!
//! [`Environment::from_process`] is the only place that reads the process; everything else takes the value. Paths
//! are resolved here: `~`, relative to the home directory, symbolic links, missing components kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links followed on the way through one path, as the kernel does.
const MAX_LINKS: usize = 40;
/// Longest path that the system takes, in bytes.
const MAX_PATH: usize = nix::libc::PATH_MAX as usize;

/// Variables, home directory and the few other facts of the process that paths depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Variables by name; empty ones count as unset and are not in here.
    pub vars: BTreeMap<String, String>,
    /// The user's home directory.
    pub home: PathBuf,
    /// The effective user is root of the host, not of a user namespace.
    pub is_root: bool,
    /// The system's temporary directory.
    pub temp_dir: PathBuf,
    /// The running program, if known.
    pub exe: Option<PathBuf>,
}

/// A `~user` of whom the system knows no home directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no user `{0}`")]
pub struct UnknownUser(pub String);

impl Environment {
    /// An environment made of these variables; empty values are dropped.
    pub fn new<I, K, V>(vars: I, home: impl Into<PathBuf>) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        let vars: BTreeMap<String, String> = vars
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let temp_dir = vars
            .get("TMPDIR")
            .map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        Self {
            vars,
            home: home.into(),
            is_root: false,
            temp_dir,
            exe: None,
        }
    }

    /// What this process was started with.
    pub fn from_process() -> Self {
        let euid = nix::unistd::geteuid();
        let vars = std::env::vars_os().map(|(key, value)| {
            (
                key.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        let home = std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| {
                nix::unistd::User::from_uid(euid)
                    .ok()
                    .flatten()
                    .map(|user| user.dir)
            })
            .unwrap_or_else(|| PathBuf::from("/"));
        let uid_map = fs::read_to_string("/proc/self/uid_map").ok();
        Self {
            is_root: is_root(uid_map.as_deref(), euid.as_raw()),
            exe: std::env::current_exe().ok(),
            ..Self::new(vars, home)
        }
    }

    /// The variable, unless it is unset or empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All variables.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// `text` with a leading `~` or `~user` replaced.
    pub fn expand_user(&self, text: &str) -> Result<PathBuf, UnknownUser> {
        let Some(rest) = text.strip_prefix('~') else {
            return Ok(PathBuf::from(text));
        };
        let (user, tail) = rest.split_once('/').unwrap_or((rest, ""));
        let base = if user.is_empty() {
            self.home.clone()
        } else {
            home_of(user).ok_or_else(|| UnknownUser(user.to_owned()))?
        };
        let tail = tail.trim_start_matches('/');
        Ok(if tail.is_empty() {
            base
        } else {
            base.join(tail)
        })
    }

    /// The absolute path without `.`, `..` and symbolic links; a relative one starts at the home directory.
    pub fn normalise(&self, path: impl AsRef<Path>) -> PathBuf {
        normalise(&self.home.join(path))
    }

    /// [`Self::expand_user`], then [`Self::normalise`].
    pub fn resolve(&self, text: &str) -> Result<PathBuf, UnknownUser> {
        Ok(self.normalise(self.expand_user(text)?))
    }
}

fn home_of(user: &str) -> Option<PathBuf> {
    if user.contains('\0') {
        return None;
    }
    nix::unistd::User::from_name(user)
        .ok()
        .flatten()
        .map(|user| user.dir)
}

/// Whether `euid`, translated to the initial user namespace by the rows of `/proc/self/uid_map`, is 0.
pub fn is_root(uid_map: Option<&str>, euid: u32) -> bool {
    let euid = u64::from(euid);
    for row in uid_map.unwrap_or_default().lines() {
        let mut columns = row.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inner)), Some(Ok(outer)), Some(Ok(length))) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if euid >= inner && euid - inner < length {
            return outer.saturating_add(euid - inner) == 0;
        }
    }
    euid == 0
}

/// Follows links component by component; what does not exist, or loops, is kept as written.
fn normalise(path: &Path) -> PathBuf {
    let mut pending: Vec<OsString> = components(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(next) = pending.pop() {
        if next == ".." {
            done.pop();
            continue;
        }
        done.push(&next);
        // No system call takes a longer path, so there is no link to be found; asking would copy it each time.
        if links >= MAX_LINKS || done.as_os_str().len() >= MAX_PATH {
            continue;
        }
        if let Ok(target) = fs::read_link(&done) {
            links += 1;
            done.pop();
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            pending.extend(components(&target));
        }
    }
    done
}

/// The named components and `..`, last first.
fn components(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_means_root_of_the_host() {
        assert!(is_root(Some("         0          0 4294967295\n"), 0));
        assert!(!is_root(Some("         0          0 4294967295\n"), 1000));
        assert!(!is_root(Some("0 1000 1\n1 100000 65536\n"), 0));
        assert!(is_root(Some("1000 0 1\n"), 1000));
        assert!(is_root(None, 0));
        assert!(is_root(Some("5 5 1\n"), 0));
        assert!(!is_root(Some("garbage\n"), 7));
    }

    #[test]
    fn empty_variables_are_unset() {
        let env = Environment::new([("A", ""), ("B", "x")], "/home/u");
        assert_eq!(env.var("A"), None);
        assert_eq!(env.var("B"), Some("x"));
    }

    #[test]
    fn tilde_and_relative_paths_start_at_home() {
        let env = Environment::new([("A", "")], "/nonexistent-home");
        let resolve = |text: &str| env.resolve(text).map(|p| p.display().to_string());
        assert_eq!(resolve("~").as_deref(), Ok("/nonexistent-home"));
        assert_eq!(resolve("~//x").as_deref(), Ok("/nonexistent-home/x"));
        assert_eq!(resolve("a/../b/").as_deref(), Ok("/nonexistent-home/b"));
        assert_eq!(resolve("/../x/./y").as_deref(), Ok("/x/y"));
        assert_eq!(resolve("$X/y").as_deref(), Ok("/nonexistent-home/$X/y"));
        assert_eq!(resolve("~root/x").as_deref(), Ok("/root/x"));
        assert!(env.resolve("~no-such-user-here/x").is_err());
    }

    #[test]
    fn a_path_of_any_length_is_normalised_in_one_pass() {
        let env = Environment::new([("A", "")], "/h");
        let long = format!("/{}", "a/".repeat(2_000_000));
        assert_eq!(env.normalise(&long).as_os_str().len(), long.len() - 1);
        let back = format!("{long}{}", "../".repeat(2_000_000));
        assert_eq!(env.normalise(back), Path::new("/"));
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", base.join("loop")).unwrap();
        fs::create_dir_all(base.join("real/sub")).unwrap();
        let env = Environment::new([("A", "")], &base);
        assert_eq!(env.normalise("link/sub/new"), base.join("real/sub/new"));
        assert_eq!(env.normalise("link/../x"), base.join("x"));
        assert_eq!(env.normalise("loop/x"), base.join("loop/x"));
    }
}
