//! When a file that changed may count: not while somebody writes it, not while an editor has moved it away.

use super::watch::Hints;
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use terok_config::project::Stamp;

/// A file counts once nothing has touched it for this long.
const SETTLE: Duration = Duration::from_millis(80);

/// A file that makes a healthy project broken or empty counts after this time: it may be half of what is meant.
const DOUBT: Duration = Duration::from_millis(300);

/// A project whose file is gone counts as removed after this time: editors move files away for a moment.
const ABSENCE: Duration = Duration::from_millis(200);

/// Whatever is touched again and again counts after this time all the same.
const PATIENCE: Duration = Duration::from_millis(600);

/// Within this time a file may change again without a new time stamp: the clock of file systems is coarse.
pub(super) const COARSE: Duration = Duration::from_millis(20);

/// One look's judgement of what still changes.
pub(super) struct Settling<'a> {
    now: Instant,
    /// Since when what is seen for the first time now may have been changing.
    begun: Instant,
    since: HashMap<PathBuf, Instant>,
    waiting: HashSet<PathBuf>,
    again: Option<Duration>,
    hints: &'a Hints,
    /// Nothing may be waited for.
    hurried: bool,
}

impl<'a> Settling<'a> {
    /// `since` is what the last look remembered; `begun` the first hint since then.
    pub(super) fn new(
        since: HashMap<PathBuf, Instant>,
        begun: Option<Instant>,
        hints: &'a Hints,
        hurried: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            now,
            begun: begun.map_or(now, |begun| begun.min(now)),
            since,
            waiting: HashSet::new(),
            again: None,
            hints,
            hurried,
        }
    }

    /// What the next look has to remember, and when it is due.
    pub(super) fn finish(mut self) -> (HashMap<PathBuf, Instant>, Option<Duration>) {
        let waiting = &self.waiting;
        self.since.retain(|path, _| waiting.contains(path));
        (self.since, self.again)
    }

    /// All files that differ from what was seen last have settled.
    pub(super) fn all_settled(
        &mut self,
        files: &[(PathBuf, Option<Stamp>)],
        before: &[(PathBuf, Option<Stamp>)],
    ) -> bool {
        let before: HashMap<&Path, &Option<Stamp>> = before
            .iter()
            .map(|(path, stamp)| (path.as_path(), stamp))
            .collect();
        let mut settled = true;
        let now: HashSet<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
        for (path, stamp) in before.iter().filter(|(path, _)| !now.contains(*path)) {
            settled &= stamp.is_none() || !self.absent_for_a_moment(path);
        }
        for (path, stamp) in files {
            let known = before.get(path.as_path());
            if known.is_some_and(|known| *known == stamp) {
                continue;
            }
            settled &= match (stamp, known) {
                (Some(_), _) => self.settled(path),
                (None, Some(Some(_))) => !self.absent_for_a_moment(path),
                (None, _) => true,
            };
        }
        settled
    }

    /// Nothing has touched the file for a while, or it has been touched for too long to wait further.
    pub(super) fn settled(&mut self, path: &Path) -> bool {
        if self.hurried {
            return true;
        }
        let Ok(meta) = std::fs::metadata(path) else {
            return true;
        };
        let age = age(&meta).unwrap_or(SETTLE);
        let written = self.hints.is_written(meta.dev(), meta.ino());
        if age >= SETTLE && !written {
            return true;
        }
        // The end of writing comes with a hint of its own.
        let delay = if written { PATIENCE } else { SETTLE - age };
        !self.wait(path, delay, PATIENCE)
    }

    /// What has been read makes less of a project than there was, and may not be all that is being written.
    pub(super) fn doubtful(&mut self, path: &Path) -> bool {
        if self.hurried {
            return false;
        }
        let age = std::fs::metadata(path).ok().as_ref().and_then(age);
        match age {
            Some(age) if age < DOUBT => self.wait(path, DOUBT - age, PATIENCE),
            _ => false,
        }
    }

    /// The file is away, but not for long enough to count as removed.
    pub(super) fn absent_for_a_moment(&mut self, path: &Path) -> bool {
        !self.hurried && self.wait(path, ABSENCE, ABSENCE)
    }

    /// A further look is due after that time.
    pub(super) fn look_again(&mut self, delay: Duration) {
        // A little more than needed, so that the next look does not come a moment too early.
        let delay = delay + Duration::from_millis(2);
        self.again = Some(self.again.map_or(delay, |known| known.min(delay)));
    }

    /// Waits for the path unless it has been waited for long enough.
    fn wait(&mut self, path: &Path, delay: Duration, patience: Duration) -> bool {
        let since = *self.since.entry(path.to_owned()).or_insert(self.begun);
        let left = patience.saturating_sub(self.now.duration_since(since));
        if left.is_zero() {
            return false;
        }
        self.waiting.insert(path.to_owned());
        self.look_again(delay.min(left));
        true
    }
}

/// How long ago the file was touched. A time in the future says nothing: the clock was set back.
pub(super) fn age(meta: &Metadata) -> Option<Duration> {
    let changed = Duration::new(
        u64::try_from(meta.ctime()).ok()?,
        u32::try_from(meta.ctime_nsec()).ok()?,
    );
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + changed)
        .ok()
}
