//! What a push moved: lines that the hook appends to a file of ours, and the server reads when git has ended.

use super::PushedRef;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tempfile::TempPath;

const PREFIX: &str = "push-";
const SUFFIX: &str = ".refs";

/// More is not read; what is cut off is not told.
const LARGEST: u64 = 4 << 20;

/// Makes an empty report, readable for us only. It is removed when dropped.
pub(crate) fn create(dir: &Path) -> io::Result<TempPath> {
    let file = tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .tempfile_in(dir)?;
    Ok(file.into_temp_path())
}

/// Removes reports that a killed daemon left.
pub(crate) fn sweep(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads a report.
pub(crate) fn read(path: &Path) -> io::Result<Vec<PushedRef>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text)
        .split_inclusive('\n')
        .filter_map(|line| parse(line.strip_suffix('\n')?))
        .collect())
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
        let path = create(dir.path()).unwrap();
        assert!(read(&path).unwrap().is_empty());
        std::fs::write(
            &path,
            "00 1a refs/heads/a b\n1a 00 refs/heads/c\nx\n1a 2b refs/he",
        )
        .unwrap();
        let refs = read(&path).unwrap();
        assert_eq!(refs.len(), 2);
        assert_eq!(
            (refs[0].name.as_str(), &refs[0].old),
            ("refs/heads/a b", &None)
        );
        assert_eq!(refs[1].new, None);
        drop(path);
        std::mem::forget(create(dir.path()).unwrap());
        sweep(dir.path());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
