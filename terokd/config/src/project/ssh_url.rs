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
    let host_and_path = match url.split_once('@') {
        Some((user, rest)) if is_user(user) => rest,
        Some(_) => return bracketless(url),
        None => url,
    };
    bracketless(host_and_path) || is_bracketed(url)
}

fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// `host:rest`
fn bracketless(text: &str) -> bool {
    let Some((host, rest)) = text.split_once(':') else {
        return false;
    };
    host.chars().count() >= 2
        && !host.contains(|c: char| c == '/' || c.is_whitespace())
        && !rest.is_empty()
        && !rest.starts_with('\n')
}

/// `user@[address]:rest`
fn is_bracketed(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((address, rest)) = rest
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    else {
        return false;
    };
    is_user(user)
        && !address.is_empty()
        && !address.contains(char::is_whitespace)
        && !rest.is_empty()
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
            "a@b@:c d",
        ] {
            assert!(!is_ssh_url(no), "{no}");
        }
    }
}
