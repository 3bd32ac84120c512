//! Addresses of upstreams: which are allowed, what is in them, and how they are shown.
//!
//! What a [`GateUrl`] holds is safe to hand to git and ssh as an argument. It opens no connection and expands no `~`.

use terok_proto::{Fault, Kind};

/// Longer addresses are refused.
const MAX_LEN: usize = 4096;

/// How an upstream is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UrlKind {
    /// `https://`
    Https,
    /// `http://`
    Http,
    /// `ssh://`, `git+ssh://`, `ssh+git://` or `[user@]host:path`.
    Ssh,
    /// `git://`
    Git,
    /// `file://` or an absolute path.
    File,
}

/// An upstream's address, checked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GateUrl {
    text: String,
    kind: UrlKind,
    /// Everything before `@`, as written.
    userinfo: Option<String>,
    /// As written, without brackets; empty for paths.
    host: String,
    port: Option<u16>,
    /// Decoded, as the server or the file system gets it.
    path: String,
}

impl GateUrl {
    /// Checks an address from a configuration; blanks around it do not count.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.trim();
        parse(text).map_err(|why| {
            Fault::new(
                Kind::InvalidUrl,
                format!(
                    "`{}` is not a usable upstream: {why}",
                    crate::clean_message(text)
                ),
            )
        })
    }

    /// The address as configured; it may hold a password.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How the upstream is reached.
    pub fn kind(&self) -> UrlKind {
        self.kind
    }

    /// Whether ssh carries it, so that the vault's agent is needed.
    pub fn is_ssh(&self) -> bool {
        self.kind == UrlKind::Ssh
    }

    /// The host in lower case, for limits per host; `local` for paths.
    pub fn host(&self) -> String {
        if self.kind == UrlKind::File {
            "local".to_owned()
        } else {
            self.host.to_lowercase()
        }
    }

    /// The address for logs and messages: no password, and for HTTP no user either.
    pub fn redacted(&self) -> String {
        match &self.userinfo {
            Some(info)
                if info.contains(':') || matches!(self.kind, UrlKind::Https | UrlKind::Http) =>
            {
                self.text.replacen(&format!("{info}@"), "***@", 1)
            }
            _ => self.text.clone(),
        }
    }

    /// The address as it may be written to a file: the user stays, the password does not.
    pub fn without_password(&self) -> String {
        match &self.userinfo {
            Some(info) => match info.split_once(':') {
                Some((user, _)) if !user.is_empty() => {
                    self.text
                        .replacen(&format!("{info}@"), &format!("{user}@"), 1)
                }
                Some(_) => self.text.replacen(&format!("{info}@"), "", 1),
                None => self.text.clone(),
            },
            None => self.text.clone(),
        }
    }

    /// The user name, decoded.
    pub(crate) fn user(&self) -> Option<String> {
        let info = self.userinfo.as_deref()?;
        let user = info.split_once(':').map_or(info, |(user, _)| user);
        Some(self.decoded(user)).filter(|user| !user.is_empty())
    }

    /// The password, decoded.
    pub(crate) fn password(&self) -> Option<String> {
        let (_, password) = self.userinfo.as_deref()?.split_once(':')?;
        Some(self.decoded(password))
    }

    fn decoded(&self, part: &str) -> String {
        if self.text.contains("://") {
            percent_decode(part).unwrap_or_else(|| part.to_owned())
        } else {
            part.to_owned()
        }
    }

    /// The address without user and password.
    pub(crate) fn without_userinfo(&self) -> String {
        match &self.userinfo {
            Some(info) => self.text.replacen(&format!("{info}@"), "", 1),
            None => self.text.clone(),
        }
    }

    /// The host as written, without brackets.
    pub(crate) fn bare_host(&self) -> &str {
        &self.host
    }

    /// The port, if the address has one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path as the server or the file system gets it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What git may speak to get there; a web server may lead to its encrypted self.
    pub(crate) fn protocols(&self) -> &'static str {
        match self.kind {
            UrlKind::Https => "https",
            UrlKind::Http => "http:https",
            UrlKind::Ssh => "ssh",
            UrlKind::Git => "git",
            UrlKind::File => "file",
        }
    }
}

impl std::fmt::Debug for GateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GateUrl").field(&self.redacted()).finish()
    }
}

impl std::fmt::Display for GateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl std::str::FromStr for GateUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::parse(text)
    }
}

fn parse(text: &str) -> Result<GateUrl, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_LEN {
        return Err("it is too long");
    }
    if text.contains(char::is_control) {
        return Err("it has control characters");
    }
    if text.starts_with('-') {
        return Err("it begins with `-`");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return with_scheme(text, scheme, rest);
    }
    if text.starts_with('/') {
        return Ok(GateUrl {
            text: text.to_owned(),
            kind: UrlKind::File,
            userinfo: None,
            host: String::new(),
            port: None,
            path: text.to_owned(),
        });
    }
    scp_form(text)
}

fn with_scheme(text: &str, scheme: &str, rest: &str) -> Result<GateUrl, &'static str> {
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "https" => UrlKind::Https,
        "http" => UrlKind::Http,
        "ssh" | "git+ssh" | "ssh+git" => UrlKind::Ssh,
        "git" => UrlKind::Git,
        "file" => UrlKind::File,
        _ => return Err("use https, http, ssh, git, file, host:path or an absolute path"),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if kind != UrlKind::File && (authority.contains(['?', '#', '\\']) || rest.contains('#')) {
        return Err("its host or path has characters that mean something else");
    }
    let (userinfo, host_port) = match authority.rsplit_once('@') {
        Some((info, host)) => (Some(info.to_owned()), host),
        None => (None, authority),
    };
    let decoded = percent_decode(path).ok_or("its path has a broken `%` escape")?;
    if decoded.contains(char::is_control) {
        return Err("its path has control characters");
    }
    if kind == UrlKind::File {
        if !authority.is_empty() {
            return Err("a file address has three slashes and no host");
        }
    } else if matches!(kind, UrlKind::Ssh | UrlKind::Git)
        && decoded.trim_start_matches('/').is_empty()
    {
        return Err("it names no repository");
    }
    // `ssh://host/-x` reaches the server as `/-x`, but `/~` is cut, as git does.
    if decoded.starts_with('-') || decoded.starts_with("/~-") {
        return Err("its path begins with `-`");
    }
    if let Some(info) = &userinfo {
        let plain = percent_decode(info).ok_or("its user has a broken `%` escape")?;
        if plain.starts_with('-')
            || plain.contains(char::is_control)
            || plain.contains(char::is_whitespace)
        {
            return Err("its user begins with `-` or has blanks");
        }
    }
    let (host, port) = if kind == UrlKind::File {
        (String::new(), None)
    } else {
        split_host(host_port)?
    };
    Ok(GateUrl {
        text: text.to_owned(),
        kind,
        userinfo,
        host,
        port,
        path: decoded,
    })
}

/// `[user@]host:path`; the host may stand in brackets, with a port or as an IPv6 address.
fn scp_form(text: &str) -> Result<GateUrl, &'static str> {
    const WANTED: &str = "use https, http, ssh, git, file, host:path or an absolute path";
    // A user may not hold a colon here, so the first `@` before any colon ends it.
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) if !user.contains([':', '/', '[']) => (Some(user), rest),
        _ => (None, text),
    };
    let (host, path) = if rest.starts_with('[') {
        rest.split_once("]:").map(|(host, path)| (&host[1..], path))
    } else {
        rest.split_once(':')
    }
    .ok_or(WANTED)?;
    let in_brackets = rest.starts_with('[');
    let (host, port) = match host.split_once(':') {
        Some((name, port)) if in_brackets && !port.contains(':') && !name.is_empty() => (
            name,
            Some(port.parse().map_err(|_| "its port is no number")?),
        ),
        _ => (host, None),
    };
    if host.contains('/') || path.starts_with(':') {
        return Err(WANTED);
    }
    // `C:\repo` is a drive, not a host; and a command-line habit of git's, `a:b`, is not worth the confusion.
    if user.is_none() && !in_brackets && host.chars().count() < 2 {
        return Err(WANTED);
    }
    if path.is_empty() {
        return Err("it names no repository");
    }
    if path.starts_with('-') {
        return Err("its path begins with `-`");
    }
    if user.is_some_and(|user| {
        user.is_empty() || user.starts_with('-') || user.contains(char::is_whitespace)
    }) {
        return Err("its user is empty, begins with `-` or has blanks");
    }
    check_host(host)?;
    Ok(GateUrl {
        text: text.to_owned(),
        kind: UrlKind::Ssh,
        userinfo: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    })
}

fn split_host(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or("its host has a bracket too few")?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("its host is followed by something else"),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    check_host(host)?;
    let port = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| "its port is out of range")?)
        }
        Some(_) => return Err("its port is no number"),
    };
    Ok((host.to_owned(), port))
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.starts_with('-') {
        return Err("its host begins with `-`");
    }
    if !host
        .chars()
        .all(|c| c.is_alphanumeric() || "._-:%".contains(c))
    {
        return Err("its host has characters that no host name has");
    }
    // A zone of an IPv6 address may hold `%`; elsewhere it would be an escape that hides something.
    if host.contains('%') && !host.contains(':') {
        return Err("its host has a `%` escape");
    }
    Ok(())
}

/// `%41` → `A`; nothing for broken escapes and for what is not UTF-8 afterwards.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_git_servers_are_called() {
        for (text, kind, host, port, path) in [
            (
                "https://github.com/o/r.git",
                UrlKind::Https,
                "github.com",
                None,
                "/o/r.git",
            ),
            (
                "HTTPS://GitHub.com:8443/o/r",
                UrlKind::Https,
                "github.com",
                Some(8443),
                "/o/r",
            ),
            ("http://h", UrlKind::Http, "h", None, ""),
            (
                "ssh://git@h:2222/o/r",
                UrlKind::Ssh,
                "h",
                Some(2222),
                "/o/r",
            ),
            (
                "ssh://git@[::1]:22/o/r",
                UrlKind::Ssh,
                "::1",
                Some(22),
                "/o/r",
            ),
            ("git+ssh://h/r", UrlKind::Ssh, "h", None, "/r"),
            (
                "git@github.com:o/r.git",
                UrlKind::Ssh,
                "github.com",
                None,
                "o/r.git",
            ),
            (
                "github.com:o/r.git",
                UrlKind::Ssh,
                "github.com",
                None,
                "o/r.git",
            ),
            ("[::1]:x", UrlKind::Ssh, "::1", None, "x"),
            (
                "me@[host:2222]:x/y",
                UrlKind::Ssh,
                "host",
                Some(2222),
                "x/y",
            ),
            ("git://h:9418/r", UrlKind::Git, "h", Some(9418), "/r"),
            (
                "file:///srv/a%20b",
                UrlKind::File,
                "local",
                None,
                "/srv/a b",
            ),
            ("/srv/r.git", UrlKind::File, "local", None, "/srv/r.git"),
            ("  /srv/~x  ", UrlKind::File, "local", None, "/srv/~x"),
        ] {
            let url = GateUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (url.kind(), url.host().as_str(), url.port(), url.path()),
                (kind, host, port, path),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_git_or_ssh_would_take_for_something_else() {
        for text in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ssh://-oProxyCommand=x/r",
            "ssh://-x@h/r",
            "ssh://%2doProxyCommand=x/r",
            "ssh://%2dx@h/r",
            "ssh://h",
            "ssh://h/",
            "-h:r",
            "u@-h:r",
            "h.x:-r",
            "ext::sh -c x",
            "fd::17",
            "ext::ssh://h/x",
            "foo://h/x",
            "https://",
            "https:///x",
            "https://a\\@b/x",
            "https://a b/x",
            "https://h/a%00b",
            "https://h/a%0ab",
            "https://h/a%zz",
            "https://h/a\nb",
            "https://h/\u{85}x",
            "https://h:99999/x",
            "https://h:x/x",
            "file://host/x",
            "~/r",
            "./r",
            "r",
            "C:\\repo",
            "C:/repo",
            "a:b",
            "host:",
            ":x",
            "::1:x",
        ] {
            let fault = GateUrl::parse(text).expect_err(text);
            assert_eq!(fault.kind, Kind::InvalidUrl, "{text}");
        }
    }

    #[test]
    fn shows_no_passwords() {
        for (text, redacted, kept) in [
            ("https://u:p@h/x", "https://***@h/x", "https://u@h/x"),
            ("https://token@h/x", "https://***@h/x", "https://token@h/x"),
            ("https://:p@h/x", "https://***@h/x", "https://h/x"),
            ("https://u:a@b:c@h/x", "https://***@h/x", "https://u@h/x"),
            ("ssh://git@h/x", "ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:pw@h/x", "ssh://***@h/x", "ssh://git@h/x"),
            ("git@h.x:x", "git@h.x:x", "git@h.x:x"),
        ] {
            let url = GateUrl::parse(text).unwrap();
            assert_eq!(url.redacted(), redacted);
            assert_eq!(url.to_string(), redacted);
            assert!(!format!("{url:?}").contains(":p"), "{url:?}");
            assert_eq!(url.without_password(), kept);
        }
        let fault = GateUrl::parse("foo://u:secret@h/x").unwrap_err();
        assert!(!fault.message.contains("secret"), "{fault}");
    }

    #[test]
    fn whatever_git_runs_over_ssh_is_known() {
        for text in [
            "git@github.com:o/r.git",
            "ssh://git@h:2222/o/r",
            "SSH://h/x",
            "github.com:o/r.git",
            "git+ssh://h/r",
            "[::1]:x",
        ] {
            assert!(GateUrl::parse(text).unwrap().is_ssh(), "{text}");
        }
    }
}
