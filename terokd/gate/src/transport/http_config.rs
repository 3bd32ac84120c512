//! The user's settings for HTTP: proxies, certificates, extra headers.
//!
//! Read from git's configuration of system and user, without the git program.

use crate::{GateUrl, HostEnv, access};
use curl::easy::{Easy2, HttpVersion};
use gix::bstr::ByteSlice;
use std::path::PathBuf;

/// What requests to one upstream look like.
#[derive(Clone, Default)]
pub(super) struct HttpConfig {
    proxy: Option<String>,
    ca_info: Option<PathBuf>,
    ca_path: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    no_verify: bool,
    http1: bool,
    pub(super) extra_headers: Vec<String>,
}

impl HttpConfig {
    /// For one upstream: what `http.*` says, then what `http.<url>.*` says, then what the environment says.
    pub(super) fn read(env: &HostEnv, url: &GateUrl) -> Self {
        Self::read_with(env, url, true)
    }

    /// The same for a server that another one has named: secrets that are not said to be for it are not told to it.
    pub(super) fn read_elsewhere(env: &HostEnv, url: &GateUrl) -> Self {
        Self::read_with(env, url, false)
    }

    fn read_with(env: &HostEnv, url: &GateUrl, chosen: bool) -> Self {
        let mut config = Self::default();
        for file in access::user_git_config(env) {
            let Some(sections) = file.sections_by_name("http") else {
                continue;
            };
            let mut sections: Vec<_> = sections
                .filter_map(|section| {
                    let pattern = section.header().subsection_name();
                    let weight = match pattern {
                        None => 0,
                        Some(pattern) => matches(pattern.to_str().ok()?, url)?,
                    };
                    Some((weight, section))
                })
                .collect();
            // The most exact one last, so that it wins.
            sections.sort_by_key(|(weight, _)| *weight);
            for (weight, section) in sections {
                let trusted = chosen || weight > 0;
                let text = |key: &str| {
                    section
                        .value(key)
                        .map(|value| value.to_str_lossy().into_owned())
                };
                let path = |key: &str| {
                    text(key)
                        .filter(|text| !text.is_empty())
                        .map(|text| expand(env, &text))
                };
                let truth = |key: &str| {
                    section
                        .value(key)
                        .and_then(|value| gix::config::Boolean::try_from(value).ok())
                        .map(|value| value.0)
                };
                config.proxy = text("proxy").or(config.proxy);
                config.ca_info = path("sslCAInfo").or(config.ca_info);
                config.ca_path = path("sslCAPath").or(config.ca_path);
                config.certificate = path("sslCert").or(config.certificate);
                config.key = path("sslKey").or(config.key);
                config.no_verify = truth("sslVerify").map_or(config.no_verify, |verify| !verify);
                config.http1 =
                    text("version").map_or(config.http1, |version| version == "HTTP/1.1");
                for header in section.values("extraHeader") {
                    if header.is_empty() {
                        config.extra_headers.clear();
                    } else if trusted || !is_secret(&header) {
                        config
                            .extra_headers
                            .push(header.to_str_lossy().into_owned());
                    }
                }
            }
        }
        config.ca_info = env
            .get("GIT_SSL_CAINFO")
            .map(PathBuf::from)
            .or(config.ca_info);
        config.ca_path = env
            .get("GIT_SSL_CAPATH")
            .map(PathBuf::from)
            .or(config.ca_path);
        config.no_verify |= env.get("GIT_SSL_NO_VERIFY").is_some();
        config
    }

    /// Sets what differs from curl's own ways; those include the proxies of the environment.
    pub(super) fn apply<H>(&self, easy: &mut Easy2<H>) -> Result<(), curl::Error> {
        if let Some(proxy) = &self.proxy {
            easy.proxy(proxy)?;
        }
        if let Some(path) = &self.ca_info {
            easy.cainfo(path)?;
        }
        if let Some(path) = &self.ca_path {
            easy.capath(path)?;
        }
        if let Some(path) = &self.certificate {
            easy.ssl_cert(path)?;
        }
        if let Some(path) = &self.key {
            easy.ssl_key(path)?;
        }
        if self.no_verify {
            easy.ssl_verify_peer(false)?;
            easy.ssl_verify_host(false)?;
        }
        if self.http1 {
            easy.http_version(HttpVersion::V11)?;
        }
        Ok(())
    }
}

/// How well `http.<pattern>` fits; nothing if it does not.
fn matches(pattern: &str, url: &GateUrl) -> Option<usize> {
    let pattern = GateUrl::parse(pattern).ok()?;
    let port = |url: &GateUrl| url.port();
    if pattern.kind() != url.kind() || pattern.host() != url.host() || port(&pattern) != port(url) {
        return None;
    }
    let path = pattern.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(path)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(1 + path.len())
}

/// Whether a header is one that curl, too, keeps from other servers.
fn is_secret(header: &[u8]) -> bool {
    let name = header.split(|byte| *byte == b':').next();
    let name = name.unwrap_or_default().trim_ascii();
    ["authorization", "cookie"]
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

fn expand(env: &HostEnv, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env.get("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_section_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(
            &file,
            "[http \"https://h/o\"]\nproxy = exact\nextraHeader = \"X: 2\"\n[http]\nproxy = plain\nsslVerify = false\n\
             sslCAInfo = ~/ca\nextraHeader = \"X: 1\"\n[http \"https://h/other\"]\nproxy = wrong\n",
        )
        .unwrap();
        let env = HostEnv::new([
            ("GIT_CONFIG_GLOBAL", file.to_str().unwrap()),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("HOME", "/home/u"),
        ]);
        let config = HttpConfig::read(&env, &GateUrl::parse("https://h/o/r").unwrap());
        assert_eq!(config.proxy.as_deref(), Some("exact"));
        assert_eq!(config.extra_headers, ["X: 1", "X: 2"]);
        assert_eq!(config.ca_info, Some("/home/u/ca".into()));
        assert!(config.no_verify);
        let config = HttpConfig::read(&env, &GateUrl::parse("https://h/or").unwrap());
        assert_eq!(config.proxy.as_deref(), Some("plain"));
    }
}
