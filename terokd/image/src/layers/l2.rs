//! A project's own layer: defaults for its repository, and the user's snippet.

use super::BASE_ARGUMENT;
use terok_proto::{Fault, Kind};

/// Repository of a gatekeeping project, as its containers see it.
const GATE: &str = "file:///git-gate/gate.git";

/// What a project adds to the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectLayer {
    code_repo: String,
    git_branch: String,
    snippet: Option<String>,
}

impl ProjectLayer {
    /// The layer of a project with this upstream, or of a gatekeeping one. Credentials in the upstream's address stay
    /// out. The snippet is what [`crate::snippet::combine`] made.
    ///
    /// # Errors
    /// `invalid_config` for control characters in upstream or branch.
    pub fn new(
        gatekeeping: bool,
        upstream: Option<&str>,
        branch: Option<&str>,
        snippet: Option<String>,
    ) -> Result<Self, Fault> {
        let code_repo = if gatekeeping {
            GATE.to_owned()
        } else {
            without_credentials(upstream.unwrap_or_default())
        };
        let git_branch = branch.unwrap_or_default().to_owned();
        for (key, value) in [
            ("git.upstream_url", &code_repo),
            ("git.default_branch", &git_branch),
        ] {
            if value.chars().any(is_line_breaking) {
                return Err(Fault::new(
                    Kind::InvalidConfig,
                    format!("`{key}`: it has control characters, which cannot be in an image"),
                )
                .with("key", key));
            }
        }
        Ok(Self {
            code_repo,
            git_branch,
            snippet,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "# Layer of a project, made by terokd. Changes are overwritten.\n\
             ARG {BASE_ARGUMENT}\n\
             FROM ${{{BASE_ARGUMENT}}}\n\
             ENV CODE_REPO={}\n\
             ENV GIT_BRANCH={}\n\
             USER root\n\
             ENV HOME=/root\n\
             # BEGIN USER SNIPPET\n",
            quoted(&self.code_repo),
            quoted(&self.git_branch),
        );
        if let Some(snippet) = &self.snippet {
            text.push_str(snippet);
            if !snippet.ends_with('\n') {
                text.push('\n');
            }
        }
        text.push_str(
            "# END USER SNIPPET\n\
             WORKDIR /workspace\n\
             ENV HOME=/home/dev\n\
             USER dev\n",
        );
        text
    }
}

/// Control characters, and what some programs take for an end of line.
fn is_line_breaking(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A value in the double quotes of a Dockerfile.
pub(super) fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// An address without what could be a secret in it: user and password, query; of SSH only the password goes.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let is_ssh = scheme.eq_ignore_ascii_case("ssh") || scheme.eq_ignore_ascii_case("git+ssh");
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) if is_ssh => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{user}@{host}")
        }
        Some((_, host)) => host.to_owned(),
        None => authority.to_owned(),
    };
    let is_http = scheme.to_ascii_lowercase().starts_with("http");
    let path = match path.find(['?', '#']) {
        Some(at) if is_http => &path[..at],
        _ => path,
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_out() {
        for (url, plain) in [
            ("https://u:tok@h/x.git", "https://h/x.git"),
            (
                "https://tok@h:8443/x.git?private_token=s",
                "https://h:8443/x.git",
            ),
            ("https://u:p@ss@h/x", "https://h/x"),
            ("HTTP://tok@h", "HTTP://h"),
            ("ssh://git:pw@h:22/x", "ssh://git@h:22/x"),
            ("git@h:x.git", "git@h:x.git"),
            ("file:///a@b/c", "file:///a@b/c"),
            ("/srv/x", "/srv/x"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(url), plain);
        }
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(quoted(r#"a"b\c$d"#), r#""a\"b\\c\$d""#);
        let layer = |upstream, branch| ProjectLayer::new(false, upstream, branch, None);
        for bad in [
            "x\"\nRUN touch /pwned",
            "x\r",
            "x\u{85}y",
            "x\0",
            "x\u{2028}y",
        ] {
            assert_eq!(
                layer(None, Some(bad)).expect_err(bad).kind,
                Kind::InvalidConfig
            );
            assert_eq!(
                layer(Some(bad), None).expect_err(bad).kind,
                Kind::InvalidConfig
            );
        }
        let text = layer(Some("https://h/$X"), Some("b\\"))
            .expect("odd, but legal")
            .text();
        assert!(
            text.contains("ENV CODE_REPO=\"https://h/\\$X\"\nENV GIT_BRANCH=\"b\\\\\"\n"),
            "{text}"
        );
    }

    #[test]
    fn gatekeeping_projects_do_not_name_their_upstream() {
        let layer = ProjectLayer::new(true, Some("https://secret.example/x"), None, None);
        let text = layer.expect("legal").text();
        assert!(
            text.contains("ENV CODE_REPO=\"file:///git-gate/gate.git\"")
                && !text.contains("secret")
        );
    }
}
