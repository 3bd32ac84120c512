//! Commits as clients see them.

use crate::{GateSpec, layout};
use gix::ObjectId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use terok_proto::error::printable_line;
use terok_proto::project::CommitInfo;

/// A commit larger than this is not looked at.
const MAX_COMMIT: u64 = 1 << 20;

/// The last commit of the default branch, else of `HEAD`. Whatever is wrong with the repository means none.
pub fn last_commit(spec: &GateSpec) -> Option<CommitInfo> {
    let read = || -> Option<CommitInfo> {
        let repository = layout::open(&spec.path).ok()?;
        let by_branch = spec.default_branch.as_deref().and_then(|branch| {
            let name = format!("refs/heads/{branch}");
            let mut reference = repository.try_find_reference(&name).ok()??;
            Some(reference.peel_to_id().ok()?.detach())
        });
        let id = match by_branch {
            Some(id) => id,
            None => repository.head_id().ok()?.detach(),
        };
        describe(&repository, id)
    };
    // The repository is hostile and the parser large.
    catch_unwind(AssertUnwindSafe(read)).ok()?
}

/// One commit, if it can be read.
pub(crate) fn describe(repository: &gix::Repository, id: ObjectId) -> Option<CommitInfo> {
    if repository.find_header(id).ok()?.size() > MAX_COMMIT {
        return None;
    }
    let commit = repository.find_object(id).ok()?.try_into_commit().ok()?;
    let author = commit.author().ok()?;
    let time = author.time().ok()?;
    let title = commit.message_raw().ok()?.to_string();
    Some(CommitInfo {
        commit_hash: id.to_string(),
        commit_date: iso(time.seconds, time.offset)?,
        commit_author: printable_line(&author.name.to_string()),
        commit_message: printable_line(title.lines().next().unwrap_or_default()),
    })
}

/// A moment with the offset it was written with, in git's ISO-like form.
fn iso(seconds: i64, offset: i32) -> Option<String> {
    let offset = jiff::tz::Offset::from_seconds(offset).ok()?;
    let moment = jiff::Timestamp::from_second(seconds).ok()?;
    let moment = moment.to_zoned(offset.to_time_zone());
    Some(moment.strftime("%Y-%m-%d %H:%M:%S %z").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_keeps_its_offset() {
        assert_eq!(iso(0, 3600).as_deref(), Some("1970-01-01 01:00:00 +0100"));
        assert_eq!(iso(0, 999_999), None);
    }
}
