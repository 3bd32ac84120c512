//! The record of a project's last build, beside its build context.
//!
//! Readable by the reference: its keys stay, ours are additional. What cannot be read counts as no manifest, since
//! it only costs a rebuild.

use crate::hash::{Hashes, SCHEME};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use terok_proto::config::Family;

/// File name below the project's build directory.
pub const FILE: &str = "build_manifest.json";

/// Version that is written.
const SCHEMA: i64 = 2;

/// Longest manifest that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What one layer was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerRecord {
    /// Name of the image.
    pub tag: String,
    /// Hash of what it was built from; null compares as stale.
    pub content_hash: Option<String>,
    /// The image behind the name at the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// When, RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_at: Option<String>,
    /// When the agents were last installed anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents_refreshed_at: Option<String>,
    /// The cache-bust value it was built with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bust: Option<String>,
}

/// A project's last build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    schema: i64,
    hash_scheme: u32,
    /// The normalised base.
    pub base_image: String,
    /// Its package family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// What is installed, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
    /// Versions of what is installed, as the programs tell them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents_versions: BTreeMap<String, String>,
    /// Base layer.
    pub l0: Option<LayerRecord>,
    /// Agent layer.
    pub l1: Option<LayerRecord>,
    /// Project layer.
    pub l2_cli: Option<LayerRecord>,
    /// Project layer for debugging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2_dev: Option<LayerRecord>,
    /// Combination of the hashes.
    pub combined_hash: String,
}

impl Manifest {
    /// A manifest of this daemon's without layers.
    pub fn new(
        base_image: &str,
        family: Option<Family>,
        agents: Vec<String>,
        current: &Hashes,
    ) -> Self {
        Self {
            schema: SCHEMA,
            hash_scheme: SCHEME,
            base_image: base_image.to_owned(),
            family,
            agents: Some(agents),
            agents_versions: BTreeMap::new(),
            l0: None,
            l1: None,
            l2_cli: None,
            l2_dev: None,
            combined_hash: current.combined.clone(),
        }
    }

    /// Reads a manifest of either schema. Null for anything else; a layer that is no object is absent.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let Value::Object(mut map) = serde_json::from_slice(bytes).ok()? else {
            return None;
        };
        let schema = map
            .get("schema")?
            .as_i64()
            .filter(|schema| (1..=2).contains(schema))?;
        Some(Self {
            schema,
            hash_scheme: take(&mut map, "hash_scheme").unwrap_or(1),
            base_image: take(&mut map, "base_image").unwrap_or_default(),
            family: take(&mut map, "family"),
            agents: take(&mut map, "agents"),
            agents_versions: take(&mut map, "agents_versions").unwrap_or_default(),
            l0: layer(&mut map, "l0"),
            l1: layer(&mut map, "l1"),
            l2_cli: layer(&mut map, "l2_cli"),
            l2_dev: layer(&mut map, "l2_dev"),
            combined_hash: take(&mut map, "combined_hash").unwrap_or_default(),
        })
    }

    /// Reads the file. Null if there is none or it says nothing.
    pub fn read(path: &Path) -> Option<Self> {
        // Nothing in the way of a build may block or fill the memory: only regular files, and not all of a huge one.
        if !std::fs::symlink_metadata(path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > MAX_BYTES {
            return None;
        }
        Self::parse(&bytes)
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has only string keys");
        text.push('\n');
        text
    }

    /// Scheme of its hashes.
    pub fn hash_scheme(&self) -> u32 {
        self.hash_scheme
    }

    /// Names of all images that it mentions.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        [&self.l0, &self.l1, &self.l2_cli, &self.l2_dev]
            .into_iter()
            .flatten()
            .map(|layer| layer.tag.as_str())
    }
}

fn take<T: DeserializeOwned>(map: &mut Map<String, Value>, key: &str) -> Option<T> {
    serde_json::from_value(map.remove(key)?).ok()
}

fn layer(map: &mut Map<String, Value>, key: &str) -> Option<LayerRecord> {
    // A list of values would pass for a record.
    map.get(key)?.as_object()?;
    take(map, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes() -> Hashes {
        Hashes::new("0".into(), "1".into(), "2".into())
    }

    #[test]
    fn the_reference_can_read_what_is_written() {
        let mut manifest = Manifest::new(
            "ubuntu:24.04",
            Some(Family::Deb),
            vec!["claude".into()],
            &hashes(),
        );
        manifest.l0 = Some(LayerRecord {
            tag: "terok-l0:ubuntu-24.04".into(),
            content_hash: Some("0".into()),
            ..LayerRecord::default()
        });
        manifest.l1 = Some(LayerRecord {
            cache_bust: Some("17".into()),
            ..LayerRecord::default()
        });
        let text = manifest.to_text();
        assert!(
            text.starts_with("{\n  \"schema\": 2,") && text.ends_with("}\n"),
            "{text}"
        );
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            read["l0"],
            serde_json::json!({"tag": "terok-l0:ubuntu-24.04", "content_hash": "0"})
        );
        assert_eq!(read["l1"]["content_hash"], Value::Null);
        assert_eq!(
            Manifest::parse(text.as_bytes()).expect("reads its own"),
            manifest
        );
    }

    #[test]
    fn a_manifest_of_the_reference_is_read() {
        let text = br#"{"schema": 1, "base_image": "fedora:44", "l0": {"tag": "terok-l0:fedora-44", "content_hash": "aa"},
            "l1": [], "l2_cli": {"tag": "demo:l2-cli", "content_hash": "bb"}, "combined_hash": "cc"}"#;
        let manifest = Manifest::parse(text).expect("schema 1");
        assert_eq!(
            (manifest.hash_scheme(), manifest.base_image.as_str()),
            (1, "fedora:44")
        );
        assert_eq!(manifest.l1, None);
        assert_eq!(
            manifest.tags().collect::<Vec<_>>(),
            ["terok-l0:fedora-44", "demo:l2-cli"]
        );
    }

    #[test]
    fn anything_else_is_no_manifest() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"schema": 3}"#,
            r#"{"schema": "1"}"#,
            r#"{"schema": 0}"#,
        ] {
            assert_eq!(Manifest::parse(text.as_bytes()), None, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Manifest::parse(deep.as_bytes()), None);
        assert_eq!(Manifest::read(Path::new("/dev/zero")), None);
        assert_eq!(Manifest::read(Path::new("/nowhere/at/all")), None);
    }
}
