//! What a push moved: lines that the hook appends to a file of ours, and the server reads when git has ended. The first
//! line says who pushes, so that the next server can tell of a push that the hook outlived this one with.

use super::{PushEvent, PushedRef};
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tempfile::TempPath;

const PREFIX: &str = "push-";
const SUFFIX: &str = ".refs";

/// More is not read; what is cut off is not told.
const LARGEST: u64 = 4 << 20;

/// Makes a report of that push that has moved nothing so far, readable for us only. It is removed when dropped.
pub(crate) fn create(dir: &Path, push: &PushEvent) -> io::Result<TempPath> {
    let mut file = tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .tempfile_in(dir)?;
    serde_json::to_writer(&mut file, push)?;
    writeln!(file)?;
    Ok(file.into_temp_path())
}

/// Takes the reports that an earlier server left: pushes that nobody was told of.
pub(crate) fn take_left(dir: &Path) -> Vec<PushEvent> {
    let mut left = Vec::new();
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_report = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if name.to_str().is_some_and(is_report) {
            // One that says nothing belongs to a push that did not happen.
            left.extend(
                read(&entry.path())
                    .ok()
                    .filter(|push| !push.refs.is_empty()),
            );
            let _ = std::fs::remove_file(entry.path());
        }
    }
    left
}

/// Reads a report.
pub(crate) fn read(path: &Path) -> io::Result<PushEvent> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.split_inclusive('\n');
    let mut push: PushEvent = serde_json::from_str(lines.next().unwrap_or_default())?;
    push.refs = lines
        .filter_map(|line| parse(line.strip_suffix('\n')?))
        .collect();
    Ok(push)
}

fn parse(line: &str) -> Option<PushedRef> {
    let mut fields = line.splitn(3, ' ');
    let (old, new, name) = (fields.next()?, fields.next()?, fields.next()?);
    let id = |text: &str| {
        text.bytes()
            .any(|byte| byte != b'0')
            .then(|| text.to_owned())
    };
    Some(PushedRef {
        name: name.to_owned(),
        old: id(old),
        new: id(new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_refs_and_a_torn_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let push = PushEvent {
            project: "alpha".to_owned(),
            task_id: "t1".to_owned(),
            gate_path: "/gate/alpha.git".into(),
            refs: Vec::new(),
        };
        let path = create(dir.path(), &push).unwrap();
        assert_eq!(read(&path).unwrap(), push);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"00 1a refs/heads/a b\n1a 00 refs/heads/c\nx\n1a 2b refs/he")
            .unwrap();
        let told = read(&path).unwrap();
        assert_eq!(told.refs.len(), 2);
        assert_eq!(
            (told.refs[0].name.as_str(), &told.refs[0].old),
            ("refs/heads/a b", &None)
        );
        assert_eq!(told.refs[1].new, None);
        std::mem::forget(path);
        // One of a push that did not happen, one that is torn, and what is none of ours.
        std::mem::forget(create(dir.path(), &push).unwrap());
        std::fs::write(dir.path().join("push-torn.refs"), "{\"proj").unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        assert_eq!(take_left(dir.path()), [told]);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
