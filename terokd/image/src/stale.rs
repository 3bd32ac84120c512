//! Which layers no longer are what would be built now.

use crate::hash::Hashes;
use crate::labels;
use crate::manifest::{LayerRecord, Manifest};
use std::collections::BTreeMap;

/// Names of the three layers in answers, in build order.
pub const LAYERS: [&str; 3] = ["l0", "l1", "l2"];

/// The layers of the last build that differ from the current hashes. All of them without a manifest or without hashes.
pub fn stale_layers(manifest: Option<&Manifest>, current: Option<&Hashes>) -> Vec<&'static str> {
    let (Some(manifest), Some(current)) = (manifest, current) else {
        return LAYERS.to_vec();
    };
    let fresh = |record: &Option<LayerRecord>, hash: &str| {
        record
            .as_ref()
            .is_some_and(|r| r.content_hash.as_deref() == Some(hash))
    };
    let pairs = [
        fresh(&manifest.l0, &current.l0),
        fresh(&manifest.l1, &current.l1),
        fresh(&manifest.l2_cli, &current.l2),
    ];
    LAYERS
        .into_iter()
        .zip(pairs)
        .filter(|(_, fresh)| !fresh)
        .map(|(layer, _)| layer)
        .collect()
}

/// The stale layers and all that stand on them.
pub fn rebuild_set(stale: &[&str]) -> Vec<&'static str> {
    let lowest = LAYERS.iter().position(|layer| stale.contains(layer));
    lowest.map_or_else(Vec::new, |lowest| LAYERS[lowest..].to_vec())
}

/// Whether the image of a container is older than what would be built now. An image that does not say is.
pub fn is_old(labels: &BTreeMap<String, String>, current: &Hashes) -> bool {
    labels.get(labels::BUILD_CONTEXT_HASH) != Some(&current.combined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hash: Option<&str>) -> Option<LayerRecord> {
        Some(LayerRecord {
            content_hash: hash.map(str::to_owned),
            ..LayerRecord::default()
        })
    }

    fn hashes() -> Hashes {
        Hashes::new("a".into(), "b".into(), "c".into())
    }

    #[test]
    fn layers_are_compared_one_by_one() {
        let current = hashes();
        let mut manifest = Manifest::new("x", None, Vec::new(), &current);
        assert_eq!(stale_layers(Some(&manifest), Some(&current)), LAYERS);
        manifest.l0 = record(Some("a"));
        manifest.l1 = record(None);
        manifest.l2_cli = record(Some("c"));
        assert_eq!(stale_layers(Some(&manifest), Some(&current)), ["l1"]);
        manifest.l1 = record(Some("b"));
        assert!(stale_layers(Some(&manifest), Some(&current)).is_empty());
        assert_eq!(stale_layers(None, Some(&current)), LAYERS);
        assert_eq!(stale_layers(Some(&manifest), None), LAYERS);
    }

    #[test]
    fn what_stands_on_a_stale_layer_is_rebuilt() {
        assert_eq!(rebuild_set(&["l0"]), LAYERS);
        assert_eq!(rebuild_set(&["l1"]), ["l1", "l2"]);
        assert_eq!(rebuild_set(&["l2"]), ["l2"]);
        assert!(rebuild_set(&[]).is_empty());
    }

    #[test]
    fn an_image_of_the_reference_is_old() {
        let mut labels = BTreeMap::new();
        assert!(is_old(&labels, &hashes()));
        labels.insert(labels::BUILD_CONTEXT_HASH.to_owned(), hashes().combined);
        assert!(!is_old(&labels, &hashes()));
        labels.insert(labels::BUILD_CONTEXT_HASH.to_owned(), "f".repeat(64));
        assert!(is_old(&labels, &hashes()));
    }
}
