//! Whether an upstream looks like something git can fetch from. Only ever a warning: git decides.

/// What is doubtful about an upstream, if anything: it should be a URL, `host:path` or an absolute path.
pub fn upstream_warning(upstream: &str) -> Option<String> {
    let text = upstream.trim();
    if text.is_empty() {
        return None;
    }
    let why = if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "it holds a blank or a control character"
    } else if text.starts_with('-') {
        "it begins with a dash, which git takes for an option"
    } else if text.contains("::") && !text.contains('[') {
        "remote helpers (`name::address`) are not supported"
    } else if let Some((scheme, rest)) = text.split_once("://") {
        return url_problem(scheme, rest).map(describe);
    } else if text.starts_with('/') || is_scp(text) {
        return None;
    } else {
        "use a URL, `user@host:path` or an absolute path"
    };
    Some(describe(why))
}

fn describe(why: &str) -> String {
    format!("this does not look like a git URL: {why}")
}

fn url_problem(scheme: &str, rest: &str) -> Option<&'static str> {
    let known = [
        "https", "http", "ssh", "git", "file", "ftp", "ftps", "git+ssh", "ssh+git",
    ];
    if !known.contains(&scheme.to_ascii_lowercase().as_str()) {
        return Some("git knows no such scheme");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.eq_ignore_ascii_case("file") {
        return path.is_empty().then_some("the path is missing");
    }
    if host.is_empty() || host.starts_with(':') || host.starts_with('-') {
        Some("the host is missing")
    } else if path.is_empty() {
        Some("the path is missing")
    } else {
        None
    }
}

/// `[user@]host:path` with the colon before the first slash.
fn is_scp(text: &str) -> bool {
    let colon = if text.starts_with('[') || text.contains("@[") {
        text.find("]:").map(|at| at + 1)
    } else {
        text.find(':')
    };
    let Some(at) = colon else { return false };
    let (target, path) = (&text[..at], &text[at + 1..]);
    let host = target.rsplit('@').next().unwrap_or_default();
    !target.contains('/') && !host.is_empty() && !host.starts_with('-') && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_upstreams_pass_and_others_are_explained() {
        for fine in [
            "",
            "git@github.com:o/r.git",
            "host:r",
            "https://u:p@h/r",
            "ssh://git@h:22/r",
            "file:///srv/r.git",
            "/srv/r.git",
            "git@[::1]:r.git",
            "https://例え.jp/r.git",
        ] {
            assert_eq!(upstream_warning(fine), None, "{fine}");
        }
        for odd in [
            "not a url",
            "r.git",
            "--upload-pack=x",
            "ext::sh",
            "https://",
            "https://h",
            "gopher://h/r",
            "a\nb",
            "./r",
            "h:",
        ] {
            assert!(upstream_warning(odd).is_some(), "{odd}");
        }
    }
}
