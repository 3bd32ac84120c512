//! Work that waits at a named point of the daemon until a test lets it go on.

use crate::{World, eventually};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A daemon's work, held whenever it comes to a point of `terokd/src/crash.rs`.
#[derive(Debug)]
pub struct Hold {
    pipe: PathBuf,
    open: Option<File>,
}

impl Hold {
    /// Daemons of this world wait at `point`.
    ///
    /// # Panics
    /// The pipe cannot be made.
    #[must_use]
    pub fn at(world: World, point: &str) -> (World, Self) {
        let pipe = world.dir().join("hold");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        world.own(&pipe);
        let world = world.env("TEROKD_HOLD_AT", point);
        let path = pipe.to_str().expect("a path of our own").to_owned();
        (
            world.env("TEROKD_HOLD_PIPE", &path),
            Self { pipe, open: None },
        )
    }

    /// Waits until the work is there.
    ///
    /// # Panics
    /// It does not come there in time.
    pub fn wait(&mut self) {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(O_NONBLOCK);
        // Refused until there is a reader, who then waits for this end to close.
        let open = || options.open(&self.pipe).ok();
        self.open = Some(eventually("the work is held", open));
    }

    /// Lets the work go on, now and whenever it comes there again.
    ///
    /// # Panics
    /// The pipe is gone.
    pub fn release(self) {
        // With both ends it opens whether or not somebody waits, and lets in whoever comes before it is removed.
        let mut options = OpenOptions::new();
        let both = options.read(true).write(true).open(&self.pipe);
        fs::remove_file(&self.pipe).expect("the pipe");
        drop((both.expect("the pipe"), self.open));
    }
}
