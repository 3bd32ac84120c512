//! The network around the host, as images and containers have to know it: private certificates and a proxy.

use std::collections::BTreeMap;
use terok_proto::{Fault, Kind};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Certificates of one bundle at most.
const MAX_CERTIFICATES: usize = 2000;

/// Certificates that images trust besides those of their base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    certificates: Vec<String>,
}

impl CaBundle {
    /// The certificates of a PEM file. Anything else in it, private keys above all, is left behind.
    ///
    /// # Errors
    /// `invalid_config` if there is no certificate, or one is no PEM.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let invalid = |why: &str| {
            Fault::new(Kind::InvalidConfig, format!("`network.ca_bundle`: {why}"))
                .with("key", "network.ca_bundle")
        };
        let mut certificates = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(BEGIN) {
            let (body, after) = after
                .split_once(END)
                .ok_or_else(|| invalid("the last certificate has no end"))?;
            rest = after;
            let lines: Vec<&str> = body
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect();
            let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
            if lines.is_empty() || !lines.iter().all(|line| line.chars().all(is_base64)) {
                return Err(invalid("a certificate is not in PEM format"));
            }
            if certificates.len() == MAX_CERTIFICATES {
                return Err(invalid("there are too many certificates"));
            }
            certificates.push(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
        }
        if certificates.is_empty() {
            return Err(invalid("the file holds no certificate in PEM format"));
        }
        Ok(Self { certificates })
    }

    /// One file per certificate below `ca/`: some tools skip files with several.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, &str)> {
        self.certificates
            .iter()
            .enumerate()
            .map(|(at, text)| (format!("ca/terok-ca-{at:04}.crt"), text.as_str()))
    }
}

/// A proxy between the host and the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// For HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts reached directly, comma-separated.
    pub no_proxy: Option<String>,
}

impl Proxy {
    /// Variables in upper and lower case: predefined build arguments, which no layer records, and a task's environment.
    /// Empty without a proxy. What is inside the container or on its host is never reached by it.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if self.http.is_none() && self.https.is_none() {
            return variables;
        }
        let mut direct: Vec<&str> = self
            .no_proxy
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .collect();
        for host in ["localhost", "127.0.0.1", "::1", "host.containers.internal"] {
            if !direct.contains(&host) {
                direct.push(host);
            }
        }
        let direct = Some(direct.join(","));
        for (name, value) in [
            ("HTTP_PROXY", &self.http),
            ("HTTPS_PROXY", &self.https),
            ("NO_PROXY", &direct),
        ] {
            if let Some(value) = value {
                variables.insert(name.to_owned(), value.clone());
                variables.insert(name.to_lowercase(), value.clone());
            }
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_do_not_get_into_images() {
        let text = format!(
            "junk\n-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n{BEGIN}\r\nAAAA\r\nBB==\r\n{END}\n# x\n{BEGIN}\nCC==\n{END}"
        );
        let bundle = CaBundle::parse(&text).expect("two certificates");
        let files: Vec<(String, &str)> = bundle.files().collect();
        assert_eq!(
            files[0],
            (
                "ca/terok-ca-0000.crt".to_owned(),
                &*format!("{BEGIN}\nAAAA\nBB==\n{END}\n")
            )
        );
        assert_eq!(files.len(), 2);
        for bad in [
            "",
            "text",
            BEGIN,
            &format!("{BEGIN}\n\n{END}"),
            &format!("{BEGIN}\na b\n{END}"),
        ] {
            assert_eq!(
                CaBundle::parse(bad).expect_err(bad).kind,
                Kind::InvalidConfig
            );
        }
    }

    #[test]
    fn a_proxy_is_told_in_both_cases() {
        assert!(
            Proxy {
                no_proxy: Some("x".into()),
                ..Proxy::default()
            }
            .variables()
            .is_empty()
        );
        let proxy = Proxy {
            https: Some("http://p:3128".into()),
            no_proxy: Some(" corp, localhost".into()),
            http: None,
        };
        let variables = proxy.variables();
        assert_eq!(variables["https_proxy"], "http://p:3128");
        assert_eq!(
            variables["NO_PROXY"],
            "corp,localhost,127.0.0.1,::1,host.containers.internal"
        );
        assert!(!variables.contains_key("HTTP_PROXY"));
    }
}
