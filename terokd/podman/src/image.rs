//! Images as Podman lists them.

use crate::value;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use terok_proto::Fault;

/// One image of the local store. Text in it is as hostile as whoever built the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// 64 hex digits.
    pub id: String,
    /// The image it was built on, as far as Podman knows.
    pub parent: Option<String>,
    /// `repository:tag`, each with its registry (`localhost/…`).
    pub tags: Vec<String>,
    /// Seconds since the epoch.
    pub created: i64,
    /// Bytes of all layers, those that other images share included.
    pub size: u64,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Neither tagged nor the base of another image.
    pub dangling: bool,
    /// Containers made from it, running or not.
    pub containers: u64,
}

/// What Podman shows as images, taken by one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Images {
    list: Vec<Image>,
    ids: HashMap<String, usize>,
    tags: HashMap<String, usize>,
}

impl Images {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let list = value::list("the list of images", body)?;
        let list = list.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(list))
    }

    /// The same from images that are at hand, as tests have them.
    pub fn new(list: Vec<Image>) -> Self {
        let mut ids = HashMap::new();
        let mut tags = HashMap::new();
        for (index, image) in list.iter().enumerate() {
            ids.entry(image.id.clone()).or_insert(index);
            for tag in &image.tags {
                tags.entry(tag.clone()).or_insert(index);
            }
        }
        Self { list, ids, tags }
    }

    /// All, in Podman's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Image> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The image with that id, given with or without `sha256:`.
    pub fn by_id(&self, id: &str) -> Option<&Image> {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        self.list.get(*self.ids.get(id)?)
    }

    /// The image with that tag; `localhost/` may be left out, nothing else is guessed.
    pub fn by_tag(&self, tag: &str) -> Option<&Image> {
        let index = self
            .tags
            .get(tag)
            .or_else(|| self.tags.get(&format!("localhost/{tag}")))?;
        self.list.get(*index)
    }
}

fn image(value: &Value) -> Result<Image, Fault> {
    Ok(Image {
        id: value::id("the list of images", value, "Id")?,
        parent: Some(value::text(value, "ParentId"))
            .filter(|id| value::is_id(id))
            .map(str::to_owned),
        tags: value::texts(value, "RepoTags"),
        created: value::signed(value, "Created").unwrap_or_default(),
        size: value::size(value, "Size"),
        labels: value::labels(value, "Labels"),
        dangling: value::flag(value, "Dangling"),
        containers: value::size(value, "Containers"),
    })
}

/// What one image costs on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// Bytes of all layers.
    pub size: u64,
    /// Bytes of layers that other images use, too.
    pub shared: u64,
    /// Bytes that its removal would free.
    pub unique: u64,
}

pub(crate) fn usage(answer: &Value) -> Result<HashMap<String, ImageUsage>, Fault> {
    let list = answer.get("Images").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|value| {
            let id = value::id("disk usage", value, "ImageID")?;
            let usage = ImageUsage {
                size: value::size(value, "Size"),
                shared: value::size(value, "SharedSize"),
                unique: value::size(value, "UniqueSize"),
            };
            Ok((id, usage))
        })
        .collect()
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The command that made the layer.
    pub created_by: String,
    /// Podman's remark, which holds `FROM …` where a build began.
    pub comment: String,
    /// Bytes of the layer.
    pub size: u64,
    /// Tags of the image that ends here.
    pub tags: Vec<String>,
}

/// What became of an image that was to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// Ids that are gone.
    pub deleted: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Podman 4.3.1 after two builds under the same tags.
    const LIST: &str = r#"[{"Id":"3f7df62c47c810e8a7af8c75e25ef703be878ccd1cb5c9dc4f83b3f24f7aaa3f","ParentId":"","RepoTags":["localhost/terok-test-base:latest"],"RepoDigests":["localhost/terok-test-base@sha256:88cfa357bb6ff0042d9d21fa7d136371707fe69e570466bab015fd09f0db4d95"],"Created":1795437993,"Size":2141348,"SharedSize":0,"VirtualSize":2141348,"Labels":null,"Containers":1,"Names":["localhost/terok-test-base:latest"],"Digest":"sha256:88cfa357bb6ff0042d9d21fa7d136371707fe69e570466bab015fd09f0db4d95","History":["localhost/terok-test-base:latest"]},{"Id":"8b749189c818983ea85a9c6d315888d9b43df8f7b4f19df5540c6f41ce62f91e","ParentId":"c80d289f4a728c8113fb55a062a4e864b4f15c795877cc0905f7ad705e0eb783","RepoTags":null,"RepoDigests":[],"Created":1795438001,"Size":2153869,"SharedSize":0,"VirtualSize":2153869,"Labels":{"a":"b","io.buildah.version":"1.28.2"},"Containers":0,"Dangling":true,"Digest":"sha256:11bbc918a24b3ebffb701d8e9db12fdd3225382c4f5383a4799ac91dd44d7218","History":["localhost/lab:2","localhost/lab:1"]},{"Id":"10438d88f43b403c2f4a90b2af07681b72c7735ea0bcec458be329331a5e8848","ParentId":"05563f0ad5733f97eda75182255c61c5a7f6a92167da94a9aeef6cbd269666fb","RepoTags":["localhost/lab:1","localhost/lab:2"],"RepoDigests":[],"Created":1795438005,"Size":2153868,"SharedSize":0,"VirtualSize":2153868,"Labels":{"a":"b"},"Containers":0,"Names":["localhost/lab:1","localhost/lab:2"]}]"#;

    #[test]
    fn a_recorded_list_is_read() {
        let images = Images::parse(LIST.as_bytes()).unwrap();
        assert_eq!(images.len(), 3);
        let base = images.by_tag("terok-test-base:latest").unwrap();
        assert_eq!(
            (base.size, base.containers, base.parent.as_deref()),
            (2_141_348, 1, None)
        );
        assert!(base.labels.is_empty() && !base.dangling);
        let old = images.iter().nth(1).unwrap();
        assert!(old.dangling && old.tags.is_empty() && old.parent.is_some());
        assert_eq!(old.labels["a"], "b");
        let lab = images.by_tag("localhost/lab:2").unwrap();
        assert_eq!(images.by_id(&format!("sha256:{}", lab.id)), Some(lab));
        assert_eq!(lab.tags, ["localhost/lab:1", "localhost/lab:2"]);
        assert!(images.by_tag("lab:3").is_none());
    }

    #[test]
    fn lies_are_errors_or_clamped() {
        assert!(Images::parse(br#"[{"Id":"short"}]"#).is_err());
        assert!(Images::parse(br#"[{}]"#).is_err());
        assert!(Images::parse(br#"{"Images":[]}"#).is_err());
        let id = "a".repeat(64);
        let odd = format!(
            r#"[{{"Id":"{id}","Size":-5,"Created":1e300,"Labels":[1],"RepoTags":[null,7,"x"],"Containers":-1,"Dangling":"yes","ParentId":5}}]"#
        );
        let images = Images::parse(odd.as_bytes()).unwrap();
        let image = images.by_id(&id).unwrap();
        assert_eq!(
            (image.size, image.created, image.containers),
            (0, i64::MAX, 0)
        );
        assert_eq!(image.tags, ["x"]);
        assert!(!image.dangling && image.labels.is_empty());
    }

    proptest! {
        #[test]
        fn any_cut_or_changed_answer_is_read_or_refused(at in 0..LIST.len(), byte: u8) {
            let mut bytes = LIST.as_bytes().to_vec();
            let _ = Images::parse(&bytes[..at]);
            bytes[at] = byte;
            let _ = Images::parse(&bytes);
        }
    }
}
