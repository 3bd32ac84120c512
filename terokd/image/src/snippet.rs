//! The user's part of a project's Dockerfile: where it comes from, and that it ends where it should.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use terok_proto::{Fault, Kind};

/// Longest snippet file.
const MAX_BYTES: u64 = 1 << 20;

/// Where the file of a snippet is: `~` is the home directory, relative means below the project's directory.
pub fn path(file: &str, project_root: &Path, home: &Path) -> PathBuf {
    match file.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => project_root.join(file),
    }
}

fn invalid(project_id: &str, message: &str) -> Fault {
    Fault::new(
        Kind::InvalidConfig,
        format!("snippet of project `{project_id}`: {message}"),
    )
    .with("project_id", project_id)
}

/// The text of the file.
///
/// # Errors
/// `invalid_config` naming path and project if there is no such file, it cannot be read or is not UTF-8.
pub fn read(path: &Path, project_id: &str) -> Result<String, Fault> {
    let shown = path.display();
    let fault = |why: &str| {
        invalid(project_id, &format!("`{shown}` {why}"))
            .with("key", "image.user_snippet_file")
            .with("path", path.to_string_lossy())
    };
    // Asked first, for a better answer; what stands there a moment later is not waited for either.
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(fault("is not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(fault("does not exist"));
        }
        Err(error) => return Err(fault(&format!("cannot be read: {error}"))),
    }
    let mut bytes = Vec::new();
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| fault(&format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fault("is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| fault("is not UTF-8"))
}

/// The snippet: the file's text, one newline, then the inline text. Null if there is neither.
///
/// # Errors
/// `invalid_config` if what follows the snippet would become part of it.
pub fn combine(
    project_id: &str,
    file: Option<&str>,
    inline: Option<&str>,
) -> Result<Option<String>, Fault> {
    let inline = inline.filter(|text| !text.trim().is_empty());
    let text = match (file, inline) {
        (None, None) => return Ok(None),
        (Some(file), None) => file.to_owned(),
        (None, Some(inline)) => inline.to_owned(),
        (Some(file), Some(inline)) => format!("{file}\n{inline}"),
    };
    // Comments and blank lines do not end a continued line, so the last line that says something counts.
    let last = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.starts_with('#'));
    if last.is_some_and(|line| line.ends_with('\\')) || text.contains('\0') {
        return Err(invalid(
            project_id,
            "its last line ends in a backslash; what follows would be taken for a part of it",
        ));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_from_home_and_project() {
        let at = |file| path(file, Path::new("/p"), Path::new("/h"));
        assert_eq!(at("x/y"), Path::new("/p/x/y"));
        assert_eq!(at("/x"), Path::new("/x"));
        assert_eq!(at("~/x"), Path::new("/h/x"));
        assert_eq!(at("~x"), Path::new("/p/~x"));
    }

    #[test]
    fn file_comes_before_inline() {
        let combined = |file, inline| combine("p", file, inline).expect("fine");
        assert_eq!(
            combined(Some("RUN a\n"), Some("RUN b")).as_deref(),
            Some("RUN a\n\nRUN b")
        );
        assert_eq!(combined(Some(""), Some(" ")).as_deref(), Some(""));
        assert_eq!(combined(None, Some(" \n")), None);
        assert_eq!(
            combined(None, Some("RUN {{ x }} $y")).as_deref(),
            Some("RUN {{ x }} $y")
        );
    }

    #[test]
    fn an_open_line_is_refused() {
        for open in [
            "RUN a \\",
            "RUN a \\\n",
            "RUN a \\  \n\n# comment\n",
            "RUN a\\\r\n",
        ] {
            assert!(combine("p", Some(open), None).is_err(), "{open:?}");
        }
        assert!(combine("p", Some("RUN a \\\n  b"), None).is_ok());
    }

    #[test]
    fn unreadable_files_are_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let fault = |path: &Path| read(path, "demo").expect_err("unreadable");
        let missing = dir.path().join("none");
        let told = fault(&missing);
        assert_eq!(told.kind, Kind::InvalidConfig);
        assert!(
            told.message.contains("demo") && told.message.contains("none"),
            "{told}"
        );
        assert!(fault(dir.path()).message.contains("regular"));
        assert!(fault(Path::new("/dev/zero")).message.contains("regular"));
        std::fs::write(dir.path().join("b"), b"\xff").expect("written");
        assert!(fault(&dir.path().join("b")).message.contains("UTF-8"));
        std::fs::write(dir.path().join("c"), vec![b' '; (1 << 20) + 1]).expect("written");
        assert!(fault(&dir.path().join("c")).message.contains("1 MiB"));
    }
}
