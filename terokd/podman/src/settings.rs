//! Where Podman is looked for, and how long anything may take.

use std::path::{Path, PathBuf};
use std::time::Duration;
use terok_proto::{Fault, Kind};

/// Everything that a [`Podman`](crate::Podman) has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only socket to use (`CONTAINER_HOST`); nothing is started when it does not answer.
    pub explicit: Option<PathBuf>,
    /// Sockets to try, in this order, without `explicit`.
    pub candidates: Vec<PathBuf>,
    /// The program whose service is started when no socket answers; `None`: nothing is started.
    pub program: Option<PathBuf>,
    /// A directory of our own, made with mode 0700: socket, lock and log of the service that is started.
    pub directory: PathBuf,
    /// How long each class of call may take.
    pub deadlines: Deadlines,
    /// What is the most that an answer may hold.
    pub limits: Limits,
}

/// How long a call may take before it is `podman_timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Lists, inspections, version.
    pub read: Duration,
    /// Tags, creation, start; stopping gets the container's grace period on top.
    pub change: Duration,
    /// Removal of an image or a container.
    pub remove: Duration,
    /// From starting the service to its first answer.
    pub start: Duration,
    /// Silence of a build; a step may download for long without a word.
    pub build_idle: Duration,
    /// How long a connected event stream is believed without a sign of life.
    pub probe: Duration,
    /// How old a cached list may become although no event contradicts it.
    pub max_age: Duration,
    /// How long a failure is the answer to further readers before Podman is asked again.
    pub hold: Duration,
}

/// The most that is read of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one answer that is read as a whole.
    pub answer: usize,
    /// Bytes of one line of a stream.
    pub line: usize,
    /// Bytes of a build context.
    pub context: u64,
}

impl Settings {
    /// Looks for the sockets of a user (`$XDG_RUNTIME_DIR`) or, with `root`, of the machine.
    pub fn new(directory: impl Into<PathBuf>, runtime_dir: Option<&Path>, root: bool) -> Self {
        let candidates = if root {
            vec![PathBuf::from("/run/podman/podman.sock")]
        } else {
            runtime_dir
                .map(|dir| dir.join("podman/podman.sock"))
                .into_iter()
                .collect()
        };
        Self {
            explicit: None,
            candidates,
            program: None,
            directory: directory.into(),
            deadlines: Deadlines::default(),
            limits: Limits::default(),
        }
    }

    /// Uses the socket of a `CONTAINER_HOST` URL and nothing else.
    pub fn with_container_host(mut self, url: &str) -> Result<Self, Fault> {
        self.explicit = Some(socket_of_url(url)?);
        Ok(self)
    }

    /// Starts the service of this program when no socket answers.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }
}

/// The socket in a `CONTAINER_HOST` URL; only `unix://` with an absolute path can be used.
pub fn socket_of_url(url: &str) -> Result<PathBuf, Fault> {
    match url.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(Fault::new(
            Kind::PodmanUnavailable,
            format!(
                "CONTAINER_HOST is `{url}`; only a local socket as in `unix:///run/podman/podman.sock` can be used"
            ),
        )),
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(10),
            change: Duration::from_secs(60),
            remove: Duration::from_secs(30),
            start: Duration::from_secs(10),
            build_idle: Duration::from_secs(30 * 60),
            probe: Duration::from_secs(15),
            max_age: Duration::from_secs(60),
            hold: Duration::from_secs(2),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: 64 << 20,
            line: 1 << 20,
            context: 4 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_sockets_are_taken_from_container_host() {
        assert_eq!(
            socket_of_url("unix:///run/user/1000/podman/podman.sock").unwrap(),
            Path::new("/run/user/1000/podman/podman.sock")
        );
        for url in [
            "",
            "unix://",
            "unix://relative",
            "ssh://a@b/run/x",
            "tcp://1.2.3.4:5",
            "/run/x",
        ] {
            assert_eq!(
                socket_of_url(url).unwrap_err().kind,
                Kind::PodmanUnavailable,
                "{url}"
            );
        }
    }

    #[test]
    fn users_and_root_have_their_own_sockets() {
        let user = Settings::new("/x", Some(Path::new("/run/user/5")), false);
        assert_eq!(
            user.candidates,
            [Path::new("/run/user/5/podman/podman.sock")]
        );
        assert!(Settings::new("/x", None, false).candidates.is_empty());
        let root = Settings::new("/x", Some(Path::new("/run/user/0")), true);
        assert_eq!(root.candidates, [Path::new("/run/podman/podman.sock")]);
    }
}
