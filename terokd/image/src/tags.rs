//! Names of images: what terok calls its layers, and how a name is compared.

use crate::base::normalise;
use sha1::{Digest, Sha1};
use std::collections::BTreeSet;

/// Fragment of a base whose name has nothing to make one of.
const FALLBACK: &str = "ubuntu-24.04";
/// Longest tag.
const MAX_TAG: usize = 120;
/// Repository of base layers.
pub const L0_REPOSITORY: &str = "terok-l0";
/// Repository of agent layers.
pub const L1_REPOSITORY: &str = "terok-l1-cli";
/// Repository of sidecar layers.
pub const SIDECAR_REPOSITORY: &str = "terok-l1-sidecar";
/// Tag of a project's image.
pub const L2_TAG: &str = "l2-cli";
/// Tag of a project's image for debugging.
pub const L2_DEV_TAG: &str = "l2-dev";

fn sha1_hex(text: &str, digits: usize) -> String {
    let mut hex = String::new();
    for byte in Sha1::digest(text.as_bytes()) {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex.truncate(digits);
    hex
}

/// The part of a tag that stands for a base.
pub fn base_tag(base: &str) -> String {
    let raw = normalise(base);
    let mut tag = String::new();
    let mut in_run = false;
    for c in raw.chars() {
        if c.is_ascii_alphanumeric() || "_.-".contains(c) {
            tag.push(c.to_ascii_lowercase());
            in_run = false;
        } else if !in_run {
            tag.push('-');
            in_run = true;
        }
    }
    let tag = tag.trim_matches(['-', '.']);
    if tag.is_empty() {
        return FALLBACK.to_owned();
    }
    if tag.len() <= MAX_TAG {
        return tag.to_owned();
    }
    format!("{}-{}", &tag[..MAX_TAG - 9], sha1_hex(raw, 8))
}

/// Base layer of a base image.
pub fn l0(base: &str) -> String {
    format!("{L0_REPOSITORY}:{}", base_tag(base))
}

/// Agent layer with exactly these entries.
pub fn l1<S: AsRef<str>>(base: &str, names: &[S]) -> String {
    let names: BTreeSet<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut base = base_tag(base);
    let fragments: Vec<String> = names.iter().map(|name| base_tag(name)).collect();
    let mut suffix = if names.is_empty() {
        "empty".to_owned()
    } else {
        fragments.join("-")
    };
    if base.len() + 1 + suffix.len() > MAX_TAG {
        let names: Vec<&str> = names.into_iter().collect();
        suffix = sha1_hex(&names.join(","), 12);
        base.truncate(MAX_TAG - 1 - suffix.len());
    }
    format!("{L1_REPOSITORY}:{base}-{suffix}")
}

/// Alias of the agent layer with the globally configured selection.
pub fn l1_alias(base: &str) -> String {
    format!("{L1_REPOSITORY}:{}", base_tag(base))
}

/// Layer with one tool and no agents.
pub fn sidecar(base: &str) -> String {
    format!("{SIDECAR_REPOSITORY}:{}", base_tag(base))
}

/// A project's image.
pub fn l2(project_id: &str) -> String {
    format!("{project_id}:{L2_TAG}")
}

/// A project's image for debugging.
pub fn l2_dev(project_id: &str) -> String {
    format!("{project_id}:{L2_DEV_TAG}")
}

/// The full name of a local image: no registry is ever asked for it.
pub fn local(name: &str) -> String {
    format!("localhost/{name}")
}

/// Whether a name says that the image is in no registry.
pub fn is_local(name: &str) -> bool {
    name.starts_with("localhost/")
}

/// A repository or name without one leading `localhost/`.
pub fn without_localhost(name: &str) -> &str {
    name.strip_prefix("localhost/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [&str; 14] = [
        "vibe",
        "blablador",
        "caddy",
        "claude",
        "codex",
        "copilot",
        "gh",
        "glab",
        "kisski",
        "opencode",
        "openrouter",
        "pi",
        "sonar",
        "toad",
    ];

    #[test]
    fn fragments_of_bases() {
        for (base, fragment) in [
            ("ubuntu:24.04", "ubuntu-24.04"),
            ("Fedora:44", "fedora-44"),
            (
                "nvidia/cuda:12.4.1-devel-ubuntu24.04",
                "nvidia-cuda-12.4.1-devel-ubuntu24.04",
            ),
            (
                "quay.io/podman/stable:latest",
                "quay.io-podman-stable-latest",
            ),
            ("???", "ubuntu-24.04"),
        ] {
            assert_eq!(base_tag(base), fragment);
        }
        assert_eq!(base_tag(&"a".repeat(120)), "a".repeat(120));
        assert_eq!(
            base_tag(&"a".repeat(121)),
            format!("{}-fa6b5a6f", "a".repeat(111))
        );
    }

    #[test]
    fn names_of_agent_layers() {
        assert_eq!(
            l1("ubuntu:24.04", &["codex", "claude"]),
            "terok-l1-cli:ubuntu-24.04-claude-codex"
        );
        assert_eq!(
            l1::<&str>("ubuntu:24.04", &[]),
            "terok-l1-cli:ubuntu-24.04-empty"
        );
        assert_eq!(
            l1("nvcr.io/nvidia/nvhpc:25.9-devel-cuda13.0-ubuntu24.04", &ALL),
            "terok-l1-cli:nvcr.io-nvidia-nvhpc-25.9-devel-cuda13.0-ubuntu24.04-b29ec749c386"
        );
        assert_eq!(
            l1(&"b".repeat(110), &["claude", "codex"]),
            format!("terok-l1-cli:{}-abf6a3512976", "b".repeat(107))
        );
    }

    proptest! {
        #[test]
        fn any_base_and_selection_make_a_legal_tag(base in "\\PC{0,200}", names in prop::collection::vec("[a-z][a-z0-9._-]{0,40}", 0..6)) {
            for name in [l0(&base), l1(&base, &names), l1_alias(&base), sidecar(&base)] {
                let (_, tag) = name.split_once(':').expect("a tag");
                prop_assert!(!tag.is_empty() && tag.len() <= 128);
                prop_assert!(tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
                prop_assert!(tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
            }
        }
    }
}
