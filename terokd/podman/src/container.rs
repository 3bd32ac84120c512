//! Containers: as Podman lists them, and as they are made.

use crate::value;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use terok_proto::Fault;

/// One container. Text in it is as hostile as whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Its names; one, as a rule.
    pub names: Vec<String>,
    /// The image as it was named when the container was made.
    pub image: String,
    /// The id of that image.
    pub image_id: String,
    /// What it does at the moment.
    pub state: ContainerState,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339, as Podman writes it.
    pub created: String,
    /// How it ended, if it did.
    pub exit_code: Option<i32>,
    /// Process id of its first process while it runs.
    pub pid: Option<u32>,
    /// Bytes on disk, where they were asked for.
    pub size: Option<ContainerSize>,
}

/// What a container costs on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSize {
    /// Bytes of the image below it.
    pub root_fs: u64,
    /// Bytes that it has written itself.
    pub writable: u64,
}

/// What a container does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// On its way down.
    Stopping,
    /// Ended; the exit code is not collected yet.
    Stopped,
    /// Ended.
    Exited,
    /// Anything else, such as one that is being removed.
    Other,
}

/// All containers, taken by one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Containers {
    list: Vec<Container>,
    names: HashMap<String, usize>,
}

impl Containers {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let list = value::list("the list of containers", body)?;
        let list = list.iter().map(container).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(list))
    }

    /// The same from containers that are at hand, as tests have them.
    pub fn new(list: Vec<Container>) -> Self {
        let mut names = HashMap::new();
        for (index, container) in list.iter().enumerate() {
            names.insert(container.id.clone(), index);
            for name in &container.names {
                names.entry(name.clone()).or_insert(index);
            }
        }
        Self { list, names }
    }

    /// All, in Podman's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Container> {
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

    /// The container with that name or full id.
    pub fn get(&self, name: &str) -> Option<&Container> {
        self.list.get(*self.names.get(name)?)
    }

    /// Those that were made from that image.
    pub fn of_image<'a>(&'a self, image_id: &'a str) -> impl Iterator<Item = &'a Container> {
        self.list
            .iter()
            .filter(move |container| container.image_id == image_id)
    }
}

fn container(value: &Value) -> Result<Container, Fault> {
    let state = match value::text(value, "State") {
        "created" | "configured" | "initialized" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "stopping" => ContainerState::Stopping,
        "stopped" => ContainerState::Stopped,
        "exited" => ContainerState::Exited,
        _ => ContainerState::Other,
    };
    let ended = matches!(state, ContainerState::Exited | ContainerState::Stopped);
    let image_id = value::text(value, "ImageID");
    Ok(Container {
        id: value::id("the list of containers", value, "Id")?,
        names: value::texts(value, "Names"),
        image: value::text(value, "Image").to_owned(),
        image_id: image_id
            .strip_prefix("sha256:")
            .unwrap_or(image_id)
            .to_owned(),
        state,
        labels: value::labels(value, "Labels"),
        created: value::text(value, "Created").to_owned(),
        exit_code: value::signed(value, "ExitCode")
            .filter(|_| ended)
            .and_then(|code| i32::try_from(code).ok()),
        pid: value::signed(value, "Pid")
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0),
        size: value
            .get("Size")
            .filter(|size| size.is_object())
            .map(|size| ContainerSize {
                root_fs: value::size(size, "rootFsSize"),
                writable: value::size(size, "rwSize"),
            }),
    })
}

/// A container to be made, in the words of libpod's specification; what is absent is left to Podman.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ContainerSpec {
    /// The image, with its registry or by id. It is never pulled.
    pub image: String,
    /// Its name; Podman invents one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Instead of the image's entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Environment beside that of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `user[:group]` inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the command begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_dir: Option<String>,
    /// Which network it sees.
    #[serde(rename = "netns", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// No process inside gains privileges.
    pub no_new_privileges: bool,
    /// Seconds from the signal to the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u32>,
}

/// Which network a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "nsmode", content = "value", rename_all = "lowercase")]
pub enum Network {
    /// Its own loopback only.
    None,
    /// The host's.
    Host,
    /// A bridge; what root has by default.
    Bridge,
    /// slirp4netns, with its options.
    Slirp4netns(String),
    /// pasta; its options are given elsewhere.
    Pasta,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: &str = r#"[{"AutoRemove":false,"Command":["sh","-c","echo out; echo err \u003e\u00262; exit 5"],"Created":"2026-11-23T12:46:46.547085919Z","CreatedAt":"","Exited":true,"ExitedAt":1795438006,"ExitCode":5,"Id":"2854a4c7d7a205d1a246822f225d3c9cd9e42377a0be6f94e817f00cc4e62eb3","Image":"localhost/terok-test-base:latest","ImageID":"3f7df62c47c810e8a7af8c75e25ef703be878ccd1cb5c9dc4f83b3f24f7aaa3f","IsInfra":false,"Labels":{"a":"b"},"Mounts":[],"Names":["c1"],"Namespaces":{},"Networks":[],"Pid":0,"Pod":"","PodName":"","Ports":null,"Size":{"rootFsSize":1984243,"rwSize":12},"StartedAt":1795438006,"State":"exited","Status":""}]"#;

    #[test]
    fn a_recorded_list_is_read() {
        let containers = Containers::parse(LIST.as_bytes()).unwrap();
        let container = containers.get("c1").unwrap();
        assert_eq!(containers.get(&container.id), Some(container));
        assert_eq!(container.state, ContainerState::Exited);
        assert_eq!((container.exit_code, container.pid), (Some(5), None));
        assert_eq!(
            container.size,
            Some(ContainerSize {
                root_fs: 1_984_243,
                writable: 12
            })
        );
        assert_eq!(containers.of_image(&container.image_id).count(), 1);
        assert_eq!(containers.of_image("0").count(), 0);
    }

    #[test]
    fn a_running_container_has_no_exit_code() {
        let running = LIST
            .replace("\"exited\"", "\"running\"")
            .replace("\"Pid\":0", "\"Pid\":77");
        let containers = Containers::parse(running.as_bytes()).unwrap();
        let container = containers.get("c1").unwrap();
        assert_eq!((container.exit_code, container.pid), (None, Some(77)));
        for lie in ["\"Pid\":-7", "\"Pid\":99999999999999", "\"Pid\":\"x\""] {
            let lying = Containers::parse(LIST.replace("\"Pid\":0", lie).as_bytes()).unwrap();
            assert_eq!(lying.get("c1").unwrap().pid, None);
        }
    }

    #[test]
    fn a_specification_is_written_in_libpods_words() {
        let spec = ContainerSpec {
            image: "localhost/a:1".into(),
            network: Some(Network::None),
            no_new_privileges: true,
            ..ContainerSpec::default()
        };
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"image":"localhost/a:1","netns":{"nsmode":"none"},"no_new_privileges":true}"#
        );
        let slirp = serde_json::to_string(&Network::Slirp4netns("allow_host_loopback=true".into()))
            .unwrap();
        assert_eq!(
            slirp,
            r#"{"nsmode":"slirp4netns","value":"allow_host_loopback=true"}"#
        );
    }

    proptest! {
        #[test]
        fn any_cut_or_changed_answer_is_read_or_refused(at in 0..LIST.len(), byte: u8) {
            let mut bytes = LIST.as_bytes().to_vec();
            let _ = Containers::parse(&bytes[..at]);
            bytes[at] = byte;
            let _ = Containers::parse(&bytes);
        }
    }
}
