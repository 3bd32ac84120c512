//! Recorded behaviour, replayed through the code that reads real answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use terok_image::classify::{Image, NONE, Name, Projects, Store, short_id};
use terok_proto::image::Layer;

fn cases(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("vectors are part of the checkout");
    serde_json::from_str(&text).expect("a list of cases")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

#[test]
fn names_of_base_layers() {
    let cases = cases("image_tags.json");
    assert!(cases.len() >= 12);
    for case in &cases {
        let base = text(&case["input"], "base_image");
        let expected = &case["expect"]["ok"];
        let name = text(case, "name");
        assert_eq!(terok_image::tags::l0(base), text(expected, "l0"), "{name}");
        assert_eq!(
            terok_image::tags::l1_alias(base),
            text(expected, "l1"),
            "{name}"
        );
    }
}

/// Bytes of a size as Podman's command line shows it.
fn size(text: &str) -> u64 {
    let (number, unit) = text.split_once(' ').expect("a number and its unit");
    let factor = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other} in {text}"),
    };
    (number.parse::<f64>().expect("a number") * factor).round() as u64
}

/// The recorded image list as the store that Podman's answer becomes.
fn images(input: &Value, now: Timestamp) -> Vec<Image> {
    let list = input["images"].as_array().expect("a list");
    let mut images: Vec<Image> = Vec::new();
    for row in list {
        let id = text(row, "id");
        let name = Name {
            repository: text(row, "repository").to_owned(),
            tag: text(row, "tag").to_owned(),
        };
        // Recorded is one row per name, Podman answers one entry per image.
        if let Some(image) = images.iter_mut().find(|image| image.id == id) {
            image.names.push(name);
            continue;
        }
        let is_dangling = name.repository == NONE && name.tag == NONE;
        assert_eq!(text(row, "created"), "2 days ago");
        images.push(Image {
            id: id.to_owned(),
            names: if is_dangling { Vec::new() } else { vec![name] },
            created: now - SignedDuration::from_hours(48),
            size: size(text(row, "size")),
            labels: serde_json::from_value(row["labels"].clone()).expect("labels"),
            history: serde_json::from_value(row["history"].clone()).expect("history"),
            ..Image::default()
        });
    }
    images
}

fn projects(input: &Value) -> Projects {
    if input["discovery_fails"] == true {
        return Projects::Unknown;
    }
    let files = input["files"].as_object().expect("files");
    Projects::Known(
        files
            .keys()
            .filter_map(|path| path.strip_prefix("$CONFIG/projects/")?.split('/').next())
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn lists_orphans_and_clean_ups() {
    let now = Timestamp::from_second(1_790_000_000).expect("in range");
    let mut replayed = 0;
    for case in cases("images.json")
        .iter()
        .filter(|case| case["class"] == "core")
    {
        let case_name = text(case, "name");
        let (input, expected) = (&case["input"], &case["expect"]["ok"]);
        let (images, projects) = (images(input, now), projects(input));
        let built = BTreeSet::new();
        let store = Store {
            images: &images,
            projects: &projects,
            built: &built,
        };

        let list: Vec<Value> = store
            .list(input["project_filter"].as_str())
            .iter()
            .map(|listed| listed.info(now))
            // The reference does not see sidecar images.
            .filter(|info| info.layer != Some(Layer::L1Sidecar))
            .map(|info| {
                json!({"created": info.created, "full_name": info.full_name, "id": info.image_id,
                    "project_key": info.project_key, "size": info.size})
            })
            .collect();
        assert_eq!(json!(list), expected["list"], "{case_name}");

        // The reference cuts ids of dangling images after `sha256:00000`; here they have twelve digits.
        let recorded: Vec<(&str, String)> = expected["orphaned"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|orphan| {
                let (id, name) = (text(orphan, "id"), text(orphan, "full_name"));
                let is_dangling = name.starts_with(NONE);
                let name = if is_dangling {
                    format!("{NONE} ({})", short_id(id))
                } else {
                    name.to_owned()
                };
                (id, name)
            })
            .collect();
        let orphaned: Vec<(&str, String)> = store
            .orphaned()
            .iter()
            .map(|listed| (listed.image.id.as_str(), listed.full_name()))
            .collect();
        assert_eq!(orphaned, recorded, "{case_name}");

        let removed: Vec<String> = store
            .plan_cleanup()
            .removals
            .into_iter()
            .flat_map(|removal| removal.full_names)
            .collect();
        let recorded: Vec<String> = recorded.into_iter().map(|(_, name)| name).collect();
        if case_name == "dedupe-same-id" {
            // Two names of one image: both go, where the reference asks for the image and fails.
            assert_eq!((removed.len(), &removed[0]), (2, &recorded[0]));
        } else {
            assert_eq!(removed, recorded, "{case_name}");
        }
        replayed += 1;
    }
    assert!(replayed >= 14);
}
