//! `git daemon`, one process per connection.

use crate::listen::Listener;
use crate::{Upstream, World, programs};
use std::ops::Deref;
use std::path::Path;

/// The repositories below a directory over `git://`, readable and writable.
#[derive(Debug)]
pub struct GitDaemon {
    listener: Listener,
}

impl GitDaemon {
    /// Starts one, unless git has none here.
    pub fn start(world: &World, base: &Path) -> Option<Self> {
        let git = programs::need("git")?;
        let (runner, base) = (world.runner(), base.to_owned());
        let listener = Listener::start(move |stream, shared| {
            let mut command = runner.command(&git);
            command
                .args(["daemon", "--inetd", "--export-all", "--enable=receive-pack"])
                .arg(format!("--base-path={}", base.display()));
            shared.inetd(&mut command, stream);
        });
        Some(Self { listener })
    }

    /// The address of a repository in the directory.
    pub fn url(&self, upstream: &Upstream) -> String {
        format!("git://127.0.0.1:{}/{}", self.port(), upstream.name())
    }
}

impl Deref for GitDaemon {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.listener
    }
}
