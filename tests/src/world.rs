//! One throw-away home directory: its files, its environment, and the programs over it.

use crate::daemon::Daemon;
use crate::programs;
use serde_json::{Map, Value};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A home directory of its own, gone with the value.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    env: Vec<(String, String)>,
    places: Vec<(&'static str, String)>,
    late_modes: Vec<(PathBuf, u32)>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty home.
    ///
    /// # Panics
    /// There is no room for one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tk-")
            .tempdir()
            .expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let (home, system) = (dir.path().join("home"), dir.path().join("system"));
        fs::create_dir(&home).expect("a home");
        fs::create_dir(&system).expect("a system root");
        let home = home.to_str().expect("a printable path").to_owned();
        let places = vec![
            ("$CONFIG", format!("{home}/.config/terok")),
            ("$DATA", format!("{home}/.local/share/terok")),
            ("$CACHE", format!("{home}/.cache/terok")),
            (
                "$SYSTEM",
                system.to_str().expect("a printable path").to_owned(),
            ),
            ("$HOME", home),
        ];
        let world = Self {
            dir,
            env: Vec::new(),
            places,
            late_modes: Vec::new(),
        };
        world.own(&world.path("$HOME"));
        world.own(&world.path("$SYSTEM"));
        world
    }

    /// A home with one valid project.
    pub fn with_project(id: &str) -> Self {
        Self::new().project(id, "project: {security_class: online}\n")
    }

    /// Adds a project.
    #[must_use]
    pub fn project(self, id: &str, yaml: &str) -> Self {
        self.file(&format!("$CONFIG/projects/{id}/project.yml"), yaml)
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        self
    }

    /// Adds a variable to the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), self.real(value)));
        self
    }

    /// The directory that holds everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("run/d.sock")
    }

    /// A path with placeholders as a real one.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(self.real(path))
    }

    /// Placeholders to paths.
    pub fn real(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (name, path)| {
                text.replace(name, path)
            })
    }

    /// Placeholders to paths in any JSON value.
    pub fn real_value(&self, value: &Value) -> Value {
        map_strings(value, &|text| self.real(text))
    }

    /// Paths back to placeholders in any JSON value.
    pub fn symbolic(&self, value: &Value) -> Value {
        map_strings(value, &|text| {
            self.places
                .iter()
                .fold(text.to_owned(), |t, (name, path)| t.replace(path, name))
        })
    }

    /// Writes a file in place, as an ordinary editor would, with the directories above it.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        self.mkdirs(path.parent().expect("a parent"));
        fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        self.own(&path);
        path
    }

    /// Writes a file by renaming a temporary one over it, as vim does.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write_by_rename(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        self.mkdirs(path.parent().expect("a parent"));
        let part = path.with_extension("swp~");
        fs::write(&part, text).expect("a temporary file");
        self.own(&part);
        fs::rename(&part, &path).expect("a rename");
        path
    }

    /// Makes a directory and those above it, all owned by the daemon's account.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn mkdirs(&self, dir: &Path) {
        if dir.is_dir() {
            return;
        }
        if let Some(parent) = dir.parent() {
            self.mkdirs(parent);
        }
        match fs::create_dir(dir) {
            Ok(()) => self.own(dir),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => panic!("cannot make {}: {e}", dir.display()),
        }
    }

    /// Makes a symbolic link.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        self.mkdirs(path.parent().expect("a parent"));
        symlink(self.real(target), &path).expect("a link");
        self.own(&path);
    }

    /// Sets a mode when the programs start, after everything is in place.
    pub fn mode_at_start(&mut self, path: &str, mode: u32) {
        self.late_modes.push((self.path(path), mode));
    }

    /// Gives a file to the daemon's account.
    ///
    /// # Panics
    /// That is not permitted.
    pub fn own(&self, path: &Path) {
        self.runner().own(path);
    }

    /// Gives everything below a directory to the daemon's account, for what other programs made.
    ///
    /// # Panics
    /// That is not permitted.
    pub fn own_all(&self, path: &Path) {
        self.own(path);
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            for entry in fs::read_dir(path).expect("a directory").flatten() {
                self.own_all(&entry.path());
            }
        }
    }

    /// A command in this world: the account, the home, and nothing else of our environment but `PATH`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.runner().command(program);
        command
            .env("TEROKD_SOCKET", self.socket())
            // No test finds a Podman by accident: those that want one name its socket.
            .env(
                "CONTAINER_HOST",
                format!("unix://{}/no-podman.sock", self.path("$HOME").display()),
            )
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// What other threads need to start programs in this world.
    pub fn runner(&self) -> Runner {
        Runner {
            home: self.path("$HOME"),
        }
    }

    /// Applies what has to wait until all files are there.
    ///
    /// # Panics
    /// A mode cannot be set.
    pub fn settle(&self) {
        self.own_all(self.dir());
        for (path, mode) in &self.late_modes {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("a mode");
        }
    }

    /// Starts the daemon and returns when it says that it is ready.
    pub fn start(&self) -> Daemon {
        Daemon::start(self, |_| {})
    }

    /// Starts the daemon with a change to its command.
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        Daemon::start(self, change)
    }
}

/// Starts programs in a world's home, under its account.
#[derive(Clone, Debug)]
pub struct Runner {
    home: PathBuf,
}

impl Runner {
    /// A command with the account, the home, and nothing else of our environment but `PATH`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .current_dir(&self.home);
        if let Some(uid) = programs::account() {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Gives a file to the account.
    ///
    /// # Panics
    /// That is not permitted.
    pub fn own(&self, path: &Path) {
        if let Some(uid) = programs::account() {
            lchown(path, Some(uid), Some(uid)).expect("ownership");
        }
    }
}

fn map_strings(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|v| map_strings(v, change)).collect(),
        Value::Object(map) => {
            let map: Map<String, Value> = map
                .iter()
                .map(|(k, v)| (change(k), map_strings(v, change)))
                .collect();
            Value::Object(map)
        }
        other => other.clone(),
    }
}
