//! Which upstreams need a key: the one rule for all front-ends.

/// Whether git reaches the URL over SSH, by its look: `ssh://…`, or `[user@]host:path`.
pub fn is_ssh_url(url: &str) -> bool {
    let url = url.trim();
    if url
        .get(..6)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("ssh://"))
    {
        return true;
    }
    if url.contains("://") {
        return false;
    }
    // An optional `user@` is part of what stands before the colon.
    let Some((host, rest)) = url.split_once(':') else {
        return false;
    };
    host.chars().count() >= 2
        && !host.contains(|c: char| c == '/' || c.is_whitespace())
        && !rest.is_empty()
        && !rest.starts_with('\n')
}

#[cfg(test)]
mod tests {
    use super::is_ssh_url;

    #[test]
    fn follows_the_table() {
        for yes in [
            "git@github.com:o/r.git",
            "ssh://git@h/r",
            "SSH://h/r",
            "github.com:o/r",
            "deploy@host:repo.git",
            "ab:x",
            "host:22/path",
            "git@[::1]:r.git",
            "  git@h.x:r  ",
        ] {
            assert!(is_ssh_url(yes), "{yes}");
        }
        for no in [
            "https://x/y",
            "git://h/r",
            "git+ssh://h/r",
            "file:///x",
            "/abs/path",
            "./rel:thing",
            "C:\\x",
            "C:/x",
            "h:x",
            "host:",
            "a@b:",
            "[::1]:x",
            "",
            "a b:c",
        ] {
            assert!(!is_ssh_url(no), "{no}");
        }
    }
}
