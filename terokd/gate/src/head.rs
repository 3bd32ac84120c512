//! Where a gate's `HEAD` points: what clones check out.

use crate::refs::{Edits, HEADS, Refs};
use terok_proto::Fault;

/// The branch that `HEAD` points at.
pub(crate) fn branch(repository: &gix::Repository) -> Option<String> {
    let name = repository.head_name().ok()??;
    name.as_bstr()
        .to_string()
        .strip_prefix(HEADS)
        .map(str::to_owned)
}

/// Points `HEAD` where upstream's does, if the gate has that branch; else keeps it while it is of use. False if there are
/// branches but none that it could point at.
pub(crate) fn align(
    repository: &gix::Repository,
    refs: &Refs,
    theirs: Option<&str>,
    configured: Option<&str>,
) -> Result<bool, Fault> {
    let now = branch(repository);
    let only = (refs.heads.len() == 1)
        .then(|| refs.heads.keys().next())
        .flatten();
    let candidates = [theirs, now.as_deref(), configured, only.map(String::as_str)];
    let wanted = if refs.heads.is_empty() {
        // Unborn: the first push should become what clones check out.
        [theirs, configured, now.as_deref(), Some("main")]
            .into_iter()
            .flatten()
            .next()
    } else {
        candidates
            .into_iter()
            .flatten()
            .find(|branch| refs.heads.contains_key(*branch))
    };
    let Some(wanted) = wanted else {
        return Ok(false);
    };
    if now.as_deref() != Some(wanted) {
        let mut edits = Edits::default();
        edits.point_head(&format!("{HEADS}{wanted}"))?;
        edits
            .commit(repository)
            .map_err(crate::refs::CommitError::into_fault)?;
    }
    Ok(true)
}
