//! What the user's credential helpers know, asked of `git credential` without anybody being asked anything.

use super::child;
use super::cli;
use super::http::Credentials;
use super::watch::Watch;
use crate::{Access, GateUrl, HostEnv, TransportError, Upstream, UrlKind};
use std::rc::Rc;

/// Helpers answer in a few lines.
const LIMIT: usize = 64 * 1024;

pub(super) struct Helpers {
    env: HostEnv,
    watch: Rc<Watch>,
    /// The user that the address names.
    user: Option<String>,
    /// What was filled last, as `git credential` wants it back.
    filled: Option<(GateUrl, String)>,
}

impl Helpers {
    pub(super) fn new(env: &HostEnv, watch: &Rc<Watch>, url: &GateUrl) -> Self {
        Self {
            env: env.clone(),
            watch: Rc::clone(watch),
            user: url.user(),
            filled: None,
        }
    }

    fn git(
        &self,
        action: &str,
        url: &GateUrl,
        input: &str,
    ) -> Result<child::Finished, TransportError> {
        let upstream = Upstream {
            url: url.clone(),
            access: Access::Plain,
        };
        let mut command = cli::git(&self.env, &upstream)?;
        command
            .env("GIT_DIR", "/dev/null")
            .args(["credential", action]);
        child::run(&mut command, input.as_bytes(), LIMIT, &self.watch, |_| {})
    }
}

impl Credentials for Helpers {
    fn fill(
        &mut self,
        url: &GateUrl,
        challenges: &[String],
    ) -> Result<(String, String), TransportError> {
        let mut input = String::new();
        let mut line = |key: &str, value: &str| {
            // A line break would start another attribute.
            if !value.contains(['\n', '\r', '\0']) {
                input.push_str(&format!("{key}={value}\n"));
            }
        };
        line(
            "protocol",
            if url.kind() == UrlKind::Https {
                "https"
            } else {
                "http"
            },
        );
        let name = url.bare_host();
        let name = if name.contains(':') {
            format!("[{name}]")
        } else {
            name.to_owned()
        };
        line(
            "host",
            &url.port()
                .map_or(name.clone(), |port| format!("{name}:{port}")),
        );
        line("path", url.path().trim_start_matches('/'));
        if let Some(user) = &self.user {
            line("username", user);
        }
        for challenge in challenges.iter().take(16) {
            line("wwwauth[]", challenge);
        }
        input.push('\n');
        let finished = self.git("fill", url, &input)?;
        let answer = String::from_utf8_lossy(&finished.stdout).into_owned();
        let value = |key: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
        };
        match (
            finished.status.success(),
            value("username"),
            value("password"),
        ) {
            (true, Some(user), Some(password)) => {
                self.filled = Some((url.clone(), answer));
                Ok((user, password))
            }
            _ => Err(TransportError::auth_failed(
                "it wants a user and a password, and no credential helper knows them: store them with `git credential approve`",
            )),
        }
    }

    fn settle(&mut self, good: bool) {
        if let Some((url, answer)) = self.filled.take() {
            let action = if good { "approve" } else { "reject" };
            if let Err(error) = self.git(action, &url, &format!("{}\n\n", answer.trim_end())) {
                tracing::debug!(%error, action, "credential helpers were not told");
            }
        }
    }
}
