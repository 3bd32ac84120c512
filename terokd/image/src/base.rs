//! The base image of a project: its default, its shape, its package family.

use terok_config::validate::is_base_image;
use terok_proto::config::Family;
use terok_proto::{Fault, Kind};

/// Base of a project that names none.
pub const DEFAULT_BASE: &str = "ubuntu:24.04";

/// Full names whose family is known. A name matches when it equals the entry or goes on with a slash.
const FAMILIES: [(&str, Known); 7] = [
    (
        "registry.fedoraproject.org/fedora",
        Known::Family(Family::Rpm),
    ),
    ("quay.io/podman", Known::Family(Family::Rpm)),
    ("nvcr.io/nvidia", Known::ByTag),
    ("nvidia", Known::ByTag),
    ("ubuntu", Known::Family(Family::Deb)),
    ("debian", Known::Family(Family::Deb)),
    ("fedora", Known::Family(Family::Rpm)),
];

#[derive(Clone, Copy)]
enum Known {
    Family(Family),
    ByTag,
}

/// The reference without blanks around it; a blank one is the default.
pub fn normalise(raw: &str) -> &str {
    match raw.trim() {
        "" => DEFAULT_BASE,
        base => base,
    }
}

/// The normalised reference, fit for a Dockerfile.
///
/// # Errors
/// `invalid_config` if it is no image reference.
pub fn check(raw: &str) -> Result<&str, Fault> {
    let base = normalise(raw);
    if is_base_image(base) {
        return Ok(base);
    }
    let shown: String = base.chars().take(256).collect();
    Err(Fault::new(
        Kind::InvalidConfig,
        format!(
            "`image.base_image`: `{shown}` is no image reference; use `[host/]name[:tag][@sha256:digest]`"
        ),
    )
    .with("key", "image.base_image"))
}

/// Name and tag of a reference; a registry's port stays in the name, a digest is dropped.
fn name_and_tag(base: &str) -> (&str, Option<&str>) {
    let base = base.split_once('@').map_or(base, |(name, _)| name);
    match base.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (base, None),
    }
}

/// The name without its registry; short names on the default registry also lose `library/`.
fn without_host(name: &str) -> &str {
    match name.split_once('/') {
        Some(("docker.io", rest)) => rest.strip_prefix("library/").unwrap_or(rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => rest,
        _ => name,
    }
}

fn known(name: &str) -> Option<Known> {
    FAMILIES
        .iter()
        .find(|(prefix, _)| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .map(|(_, family)| *family)
}

/// Whether a tag names a universal base image, such as `13.0-ubi9`.
fn is_ubi(tag: &str) -> bool {
    let tag = tag.to_ascii_lowercase();
    tag.match_indices("ubi")
        .any(|(at, _)| tag[at + 3..].starts_with(|c: char| c.is_ascii_digit()))
}

/// The package family of a base: what is configured, else what the name tells.
///
/// # Errors
/// `invalid_config` if neither tells.
pub fn family(base: &str, configured: Option<Family>) -> Result<Family, Fault> {
    if let Some(family) = configured {
        return Ok(family);
    }
    let base = normalise(base);
    let (name, tag) = name_and_tag(base);
    let name = name.to_lowercase();
    match known(&name).or_else(|| known(without_host(&name))) {
        Some(Known::Family(family)) => Ok(family),
        Some(Known::ByTag) if tag.is_some_and(is_ubi) => Ok(Family::Rpm),
        Some(Known::ByTag) => Ok(Family::Deb),
        None => {
            let shown: String = base.chars().take(256).collect();
            Err(Fault::new(
                Kind::InvalidConfig,
                format!(
                    "cannot tell the package family of `{shown}`; set `family: deb` or `family: rpm` under `image:` in `project.yml`"
                ),
            )
            .with("key", "image.family"))
        }
    }
}

/// A family by its name in files and calls.
///
/// # Errors
/// `invalid_config` for any other word.
pub fn parse_family(word: &str) -> Result<Family, Fault> {
    match word {
        "deb" => Ok(Family::Deb),
        "rpm" => Ok(Family::Rpm),
        _ => Err(
            Fault::new(Kind::InvalidConfig, "family must be `deb` or `rpm`")
                .with("key", "image.family"),
        ),
    }
}

/// The family's name in files.
pub const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Deb => "deb",
        Family::Rpm => "rpm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str) -> Option<Family> {
        family(base, None).ok()
    }

    #[test]
    fn families_of_known_names() {
        for (base, expected) in [
            ("ubuntu:24.04", Some(Family::Deb)),
            ("Fedora:44", Some(Family::Rpm)),
            ("", Some(Family::Deb)),
            ("debian", Some(Family::Deb)),
            ("quay.io/podman/stable:latest", Some(Family::Rpm)),
            ("registry.fedoraproject.org/fedora:44", Some(Family::Rpm)),
            ("nvidia/cuda:13.0.0-devel-ubi9", Some(Family::Rpm)),
            ("nvidia/cuda:13.0.0-devel-UBI9", Some(Family::Rpm)),
            ("nvidia/cuda:ubifoo", Some(Family::Deb)),
            ("nvidia/cuda", Some(Family::Deb)),
            (
                "nvcr.io/nvidia/nvhpc:25.9-devel-cuda13.0-ubuntu24.04",
                Some(Family::Deb),
            ),
            ("ubuntu-local:1", None),
            ("rockylinux:9", None),
            ("quay.io/podmanx:1", None),
            ("docker.io/library/ubuntu:24.04", Some(Family::Deb)),
            ("docker.io/ubuntu", Some(Family::Deb)),
            ("docker.io/library/fedora@sha256:00", Some(Family::Rpm)),
            ("docker.io/nvidia/cuda:ubi9", Some(Family::Rpm)),
            ("localhost:5000/ubuntu", Some(Family::Deb)),
            ("localhost/debian:12", Some(Family::Deb)),
            ("registry.example/fedora:44", Some(Family::Rpm)),
            ("somebody/ubuntu:24.04", None),
        ] {
            assert_eq!(of(base), expected, "{base}");
        }
        assert_eq!(
            family("rockylinux:9", Some(Family::Rpm)).expect("given"),
            Family::Rpm
        );
    }

    #[test]
    fn an_unknown_family_says_what_to_set() {
        let fault = family("rockylinux:9", None).expect_err("unknown");
        assert_eq!(fault.kind, Kind::InvalidConfig);
        assert!(fault.message.contains("family: deb"), "{fault}");
        assert!(
            parse_family("arch")
                .expect_err("other")
                .message
                .contains("`deb` or `rpm`")
        );
    }

    #[test]
    fn what_could_leave_its_line_is_refused() {
        assert_eq!(check("  ubuntu:24.04 ").expect("trimmed"), "ubuntu:24.04");
        assert_eq!(check(" ").expect("default"), DEFAULT_BASE);
        for bad in [
            "a\nRUN x",
            "a b",
            "a:1\t2",
            "-a",
            "a@sha256:12",
            &"a".repeat(257),
            "a:",
            "$X",
        ] {
            assert_eq!(check(bad).expect_err(bad).kind, Kind::InvalidConfig);
        }
    }

    #[test]
    fn one_default_everywhere() {
        let schema = terok_config::wizard::base_image("ubuntu").expect("a base");
        assert_eq!(schema, DEFAULT_BASE);
    }
}
