//! Paths and query strings as Podman reads them.

use std::fmt::Write as _;
use terok_proto::Fault;

/// A query string under construction; values are percent-encoded.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode(&mut self.0, name);
        self.0.push('=');
        encode(&mut self.0, value.as_ref());
        self
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.with(name, if value { "true" } else { "false" })
    }

    /// `path?query`, below the oldest version of the API that is used.
    pub(crate) fn at(&self, path: &str) -> String {
        // Podman 4.0 is the oldest that 5.x still speaks.
        if self.0.is_empty() {
            format!("/v4.0.0/libpod{path}")
        } else {
            format!("/v4.0.0/libpod{path}?{}", self.0)
        }
    }
}

fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            _ => write!(out, "%{byte:02X}").expect("a string takes everything"),
        }
    }
}

/// A name or id of an image or a container that can stand in a path: nothing that ends or leaves it.
pub(crate) fn checked_name<'a>(what: &str, name: &'a str) -> Result<&'a str, Fault> {
    let good = !name.is_empty()
        && name.len() <= 512
        && name.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@')
        })
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        Ok(name)
    } else {
        Err(Fault::invalid_argument(format!(
            "`{}` is no name of {what}",
            crate::fault::cut(name, 100)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place() {
        let query = Query::default()
            .with("t", "localhost/a:1")
            .with("labels", "{\"a\":\"b&c=d #%\"}");
        assert_eq!(
            query.at("/build"),
            "/v4.0.0/libpod/build?t=localhost%2Fa%3A1&labels=%7B%22a%22%3A%22b%26c%3Dd%20%23%25%22%7D"
        );
        assert_eq!(Query::default().at("/x"), "/v4.0.0/libpod/x");
    }

    #[test]
    fn names_cannot_leave_their_path() {
        for good in [
            "localhost/terok-l0:ubuntu-24.04",
            "3f7df62c",
            "sha256:ab",
            "a_b",
            "localhost:5000/a@sha256:00",
        ] {
            assert_eq!(checked_name("an image", good).unwrap(), good);
        }
        for bad in [
            "",
            "../containers",
            "a/../b",
            "a//b",
            "/a",
            "a?b",
            "a#b",
            "a%2f",
            "a b",
            "a\n",
            "ä",
        ] {
            assert!(checked_name("an image", bad).is_err(), "{bad}");
        }
    }
}
