//! The handle that everybody holds, and its calls.

use crate::build::{self, BuildRequest, BuildStream};
use crate::cache::Cache;
use crate::connect::Connector;
use crate::container::{ContainerSpec, Containers};
use crate::events::Doubt;
use crate::fault;
use crate::frames::{Frames, Tail};
use crate::http::{self, Call, Whole};
use crate::image::{self, HistoryEntry, ImageUsage, Images, Removed};
use crate::query::{Query, checked_name};
use crate::relay::{self, Relay};
use crate::settings::{Deadlines, Settings};
use crate::value;
use crate::watch as watching;
use hyper::Method;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use terok_proto::error::printable_line;
use terok_proto::{Fault, Kind};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout};

/// How long Podman gets, again and again, to finish what made a list fail.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// Podman, wherever it is. Clones share everything; nothing is connected or started before it is asked.
#[derive(Clone, Debug)]
pub struct Podman {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connector: Arc<Connector>,
    relay: OnceCell<Relay>,
    images: Arc<Cache<Images>>,
    containers: Arc<Cache<Containers>>,
    /// How often the lists were read.
    used: watch::Sender<u64>,
}

/// What the machine lets containers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Whether the service runs without root.
    pub rootless: bool,
    /// `v1` or `v2`.
    pub cgroup_version: String,
    /// Controllers whose limits are enforced; others are accepted and ignored.
    pub cgroup_controllers: Vec<String>,
    /// Where images and containers are.
    pub graph_root: PathBuf,
    /// The runtime that starts containers.
    pub runtime: String,
}

impl Podman {
    /// A handle with these settings.
    pub fn new(settings: Settings) -> Self {
        let inner = Inner {
            connector: Arc::new(Connector::new(settings)),
            relay: OnceCell::new(),
            images: Arc::default(),
            containers: Arc::default(),
            used: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn connector(&self) -> &Arc<Connector> {
        &self.inner.connector
    }

    /// The socket that answered last, or that would be tried first.
    pub fn socket(&self) -> PathBuf {
        self.inner.connector.socket()
    }

    fn settings(&self) -> &Settings {
        self.inner.connector.settings()
    }

    /// Something was changed through this handle.
    pub(crate) fn changed(&self) {
        self.doubt(Doubt {
            images: true,
            containers: true,
        });
    }

    pub(crate) fn doubt(&self, doubt: Doubt) {
        if doubt.images {
            self.inner.images.stale();
        }
        if doubt.containers {
            self.inner.containers.stale();
        }
    }

    /// Events since that moment are heard.
    pub(crate) fn heard(&self, since: Instant) {
        self.inner.images.heard(since);
        self.inner.containers.heard(since);
    }

    /// Events are not heard any more.
    pub(crate) fn deaf(&self) {
        self.inner.images.deaf();
        self.inner.containers.deaf();
    }

    pub(crate) fn used(&self) -> watch::Receiver<u64> {
        self.inner.used.subscribe()
    }

    /// Asks for lists that are wanted, so that the next reader finds them.
    pub(crate) fn refresh(&self, doubt: Doubt, within: Duration) {
        let images = doubt.images && self.inner.images.wanted(within);
        let containers = doubt.containers && self.inner.containers.wanted(within);
        let podman = self.clone();
        let Deadlines { max_age, hold, .. } = self.settings().deadlines;
        tokio::spawn(async move {
            // Whoever reads next is told of a failure.
            if images {
                let _ = podman
                    .inner
                    .images
                    .fetch(max_age, hold, || podman.clone().owned_images())
                    .await;
            }
            if containers {
                let _ = podman
                    .inner
                    .containers
                    .fetch(max_age, hold, || podman.clone().owned_containers())
                    .await;
            }
        });
    }

    async fn owned_images(self) -> Result<Images, Fault> {
        self.list_images().await
    }

    async fn owned_containers(self) -> Result<Containers, Fault> {
        self.list_containers(false).await
    }

    /// Listens to Podman's events, for as long as it is polled; the daemon runs it once, beside everything else. Podman
    /// is left alone until somebody reads a list, and its service is never started for this alone.
    pub async fn watch(&self) -> Infallible {
        watching::run(self).await
    }

    /// The images, from memory while events vouch for it. Never older than the question where they do not; readers who
    /// come together share one request.
    pub async fn images(&self) -> Result<Arc<Images>, Fault> {
        let ask = || self.clone().owned_images();
        self.remembered(&self.inner.images, "the list of images", ask)
            .await
    }

    /// The images as Podman has them now, for whoever decides something: an event of what another program did may still be
    /// on its way. Readers after it profit.
    pub async fn images_now(&self) -> Result<Arc<Images>, Fault> {
        self.inner.images.stale();
        self.images().await
    }

    /// The containers, in the same way, without sizes.
    pub async fn containers(&self) -> Result<Arc<Containers>, Fault> {
        let ask = || self.clone().owned_containers();
        self.remembered(&self.inner.containers, "the list of containers", ask)
            .await
    }

    async fn remembered<T, R>(
        &self,
        list: &Arc<Cache<T>>,
        what: &'static str,
        ask: impl Fn() -> R,
    ) -> Result<Arc<T>, Fault>
    where
        T: PartialEq + Send + Sync + 'static,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let Deadlines {
            max_age,
            hold,
            read,
            ..
        } = self.settings().deadlines;
        self.inner.used.send_modify(|count| *count += 1);
        timeout(read, list.get(max_age, hold, ask))
            .await
            .unwrap_or_else(|_| Err(fault::timeout(what, read)))
    }

    /// A number that changes when the images do, as far as they are looked at; holding it keeps them looked at.
    pub fn images_changed(&self) -> watch::Receiver<u64> {
        self.inner.images.generation()
    }

    /// The same for containers.
    pub fn containers_changed(&self) -> watch::Receiver<u64> {
        self.inner.containers.generation()
    }

    async fn api(&self) -> Result<&podman_api::Podman, Fault> {
        let connector = &self.inner.connector;
        let relay = self
            .inner
            .relay
            .get_or_try_init(|| async { Relay::open(Arc::clone(connector)) })
            .await?;
        Ok(relay.api())
    }

    /// One call of the thin client, from connecting to the last byte within the deadline.
    async fn call(&self, call: Call, deadline: Duration) -> Result<Whole, Fault> {
        let what = call.what.clone();
        // A question may be asked again: a service that is on its way down accepts a last connection and breaks it, and
        // Podman fails to list what is removed at that moment.
        let question = (call.method == Method::GET).then(|| call.path.clone());
        let again = |path: &str| Call::new(&what, Method::GET, path.to_owned());
        let whole = async {
            let mut answer = self.exchange(call).await;
            let Some(path) = question else {
                return answer;
            };
            if matches!(&answer, Err(fault) if fault.kind == Kind::PodmanUnavailable) {
                answer = self.exchange(again(&path)).await;
            }
            for pause in AGAIN {
                if !matches!(&answer, Ok(whole) if whole.status == 500) {
                    break;
                }
                tokio::time::sleep(pause).await;
                answer = self.exchange(again(&path)).await;
            }
            answer
        };
        timeout(deadline, whole)
            .await
            .unwrap_or_else(|_| Err(fault::timeout(&what, deadline)))
    }

    async fn exchange(&self, call: Call) -> Result<Whole, Fault> {
        let stream = self.inner.connector.connect().await?;
        http::send(stream, call)
            .await?
            .whole(self.settings().limits.answer)
            .await
    }

    /// Whether Podman answers; its API version.
    pub async fn ping(&self) -> Result<String, Fault> {
        let api = self.api().await?;
        let deadline = self.settings().deadlines.read;
        let info = relay::call(self.connector(), "a ping", deadline, api.ping()).await?;
        Ok(printable_line(fault::cut(&info.libpod_api_version, 100)))
    }

    /// The version of the Podman that answers, such as `4.3.1`.
    pub async fn version(&self) -> Result<String, Fault> {
        let what = "the question for its version";
        let call = Call::new(what, Method::GET, Query::default().at("/version"));
        let answer = self
            .call(call, self.settings().deadlines.read)
            .await?
            .done()?;
        let version = answer.json::<Value>()?;
        Ok(printable_line(fault::cut(
            value::text(&version, "Version"),
            100,
        )))
    }

    /// What the machine lets containers do.
    pub async fn info(&self) -> Result<Info, Fault> {
        let api = self.api().await?;
        let deadline = self.settings().deadlines.read;
        let info = relay::call(
            self.connector(),
            "the question for its host",
            deadline,
            api.info(),
        )
        .await?;
        let host = info
            .host
            .ok_or_else(|| fault::nonsense("the question for its host", "it says nothing of it"))?;
        Ok(Info {
            rootless: host
                .security
                .and_then(|security| security.rootless)
                .unwrap_or_default(),
            cgroup_version: host.cgroup_version.unwrap_or_default(),
            cgroup_controllers: host.cgroup_controllers.unwrap_or_default(),
            graph_root: info
                .store
                .and_then(|store| store.graph_root)
                .unwrap_or_default()
                .into(),
            runtime: host
                .oci_runtime
                .and_then(|runtime| runtime.name)
                .unwrap_or_default(),
        })
    }

    /// The images as they are now, by one request.
    pub async fn list_images(&self) -> Result<Images, Fault> {
        let path = Query::default().at("/images/json");
        let call = Call::new("the list of images", Method::GET, path);
        let answer = self
            .call(call, self.settings().deadlines.read)
            .await?
            .done()?;
        Images::parse(&answer.body)
    }

    /// What each image costs on disk, shared layers told apart. Podman counts for a while.
    pub async fn image_usage(&self) -> Result<HashMap<String, ImageUsage>, Fault> {
        let call = Call::new("disk usage", Method::GET, Query::default().at("/system/df"));
        let answer = self
            .call(call, self.settings().deadlines.change)
            .await?
            .done()?;
        image::usage(&answer.json::<Value>()?)
    }

    /// The history of an image from its newest layer on; `None` if there is no such image.
    pub async fn image_history(&self, image: &str) -> Result<Option<Vec<HistoryEntry>>, Fault> {
        let image = checked_name("an image", image)?;
        let deadline = self.settings().deadlines.read;
        let handle = self.api().await?.images().get(image);
        let history = relay::call(
            self.connector(),
            "the history of an image",
            deadline,
            handle.history(),
        )
        .await;
        let entries = found(history)?.map(|entries| {
            let entry = |entry: podman_api::models::HistoryResponse| HistoryEntry {
                created_by: entry.created_by.unwrap_or_default(),
                comment: entry.comment.unwrap_or_default(),
                size: entry
                    .size
                    .and_then(|size| u64::try_from(size).ok())
                    .unwrap_or_default(),
                tags: entry.tags.unwrap_or_default(),
            };
            entries.into_iter().map(entry).collect()
        });
        Ok(entries)
    }

    /// The full id behind a name or a part of an id; `None` if there is no such image.
    pub async fn image_id(&self, image: &str) -> Result<Option<String>, Fault> {
        let image = checked_name("an image", image)?;
        let deadline = self.settings().deadlines.read;
        let handle = self.api().await?.images().get(image);
        let what = "the inspection of an image";
        let Some(data) =
            found(relay::call(self.connector(), what, deadline, handle.inspect()).await)?
        else {
            return Ok(None);
        };
        let id = data.id.unwrap_or_default();
        let id = id.strip_prefix("sha256:").unwrap_or(&id);
        if value::is_id(id) {
            Ok(Some(id.to_owned()))
        } else {
            Err(fault::nonsense(what, "it has no id"))
        }
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, image: &str, name: &str) -> Result<(), Fault> {
        self.name_image(image, name, false).await
    }

    /// Takes one name from an image; the image itself stays.
    pub async fn untag_image(&self, image: &str, name: &str) -> Result<(), Fault> {
        self.name_image(image, name, true).await
    }

    async fn name_image(&self, image: &str, name: &str, away: bool) -> Result<(), Fault> {
        let image = checked_name("an image", image)?;
        let name = checked_name("an image", name)?;
        let no_tag = || Fault::invalid_argument(format!("`{name}` has no tag"));
        let (repository, tag) = name
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .ok_or_else(no_tag)?;
        let opts = podman_api::opts::ImageTagOpts::builder()
            .repo(repository)
            .tag(tag)
            .build();
        let deadline = self.settings().deadlines.change;
        let handle = self.api().await?.images().get(image);
        let done = if away {
            relay::call(
                self.connector(),
                "taking a name from an image",
                deadline,
                handle.untag(&opts),
            )
            .await
        } else {
            relay::call(
                self.connector(),
                "naming an image",
                deadline,
                handle.tag(&opts),
            )
            .await
        };
        self.changed();
        done
    }

    /// Removes an image by id or takes away the name it is given by; never one that a container uses. `None` if there is
    /// no such image.
    pub async fn remove_image(&self, image: &str) -> Result<Option<Removed>, Fault> {
        let path = format!("/images/{}", checked_name("an image", image)?);
        let call = Call::new(
            "the removal of an image",
            Method::DELETE,
            Query::default().flag("force", false).at(&path),
        );
        let answer = self.call(call, self.settings().deadlines.remove).await;
        self.changed();
        let Some(answer) = answer?.found()? else {
            return Ok(None);
        };
        let report: Value = answer.json()?;
        if let [error, ..] = value::texts(&report, "Errors").as_slice() {
            return Err(fault::refused_with("the removal of an image", 200, error));
        }
        Ok(Some(Removed {
            untagged: value::texts(&report, "Untagged"),
            deleted: value::texts(&report, "Deleted"),
        }))
    }

    /// Starts a build; it runs while the stream is held.
    pub async fn build(&self, request: BuildRequest) -> Result<BuildStream, Fault> {
        build::start(self, request).await
    }

    /// All containers as they are now, by one request; sizes cost Podman time and are asked for.
    pub async fn list_containers(&self, sizes: bool) -> Result<Containers, Fault> {
        let query = Query::default().flag("all", true).flag("size", sizes);
        let call = Call::new(
            "the list of containers",
            Method::GET,
            query.at("/containers/json"),
        );
        let deadlines = &self.settings().deadlines;
        let deadline = if sizes {
            deadlines.change
        } else {
            deadlines.read
        };
        Containers::parse(&self.call(call, deadline).await?.done()?.body)
    }

    /// Makes a container and returns its id; a missing image is `image_missing`, and never looked for elsewhere.
    pub async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Fault> {
        let body = serde_json::to_vec(spec).map_err(|error| {
            Fault::internal(format!("a container's specification is no JSON: {error}"))
        })?;
        let what = "the creation of a container";
        let call = Call::new(
            what,
            Method::POST,
            Query::default().at("/containers/create"),
        )
        .body("application/json", http::full(body));
        let answer = self.call(call, self.settings().deadlines.change).await;
        self.changed();
        let missing = || {
            Fault::new(
                Kind::ImageMissing,
                format!("there is no image `{}`; build it", spec.image),
            )
        };
        match answer?.found() {
            Ok(Some(answer)) => value::id(what, &answer.json()?, "Id"),
            Ok(None) => Err(missing()),
            // 4.3 says it with status 500.
            Err(fault) if fault.message.ends_with("image not known") => Err(missing()),
            Err(fault) => Err(fault),
        }
    }

    /// Starts a container; one that runs is left alone.
    pub async fn start_container(&self, container: &str) -> Result<(), Fault> {
        let deadline = self.settings().deadlines.change;
        self.change(
            container,
            "the start of a container",
            Method::POST,
            "/start",
            Query::default(),
            deadline,
        )
        .await
    }

    /// Stops a container, after `grace` without mercy; one that does not run is left alone.
    pub async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), Fault> {
        let deadline = self.settings().deadlines.change + grace;
        let query = Query::default().with("timeout", grace.as_secs().to_string());
        self.change(
            container,
            "the stop of a container",
            Method::POST,
            "/stop",
            query,
            deadline,
        )
        .await
    }

    /// Removes a container, with `force` even a running one; one that does not exist is removed already.
    pub async fn remove_container(&self, container: &str, force: bool) -> Result<(), Fault> {
        let query = Query::default().flag("force", force).with("timeout", "0");
        let deadline = self.settings().deadlines.remove;
        let done = self
            .change(
                container,
                "the removal of a container",
                Method::DELETE,
                "",
                query,
                deadline,
            )
            .await;
        match done {
            Err(fault) if fault.kind == Kind::ContainerMissing => Ok(()),
            done => done,
        }
    }

    async fn change(
        &self,
        container: &str,
        what: &str,
        method: Method,
        action: &str,
        query: Query,
        deadline: Duration,
    ) -> Result<(), Fault> {
        let path = format!(
            "/containers/{}{action}",
            checked_name("a container", container)?
        );
        let answer = self
            .call(Call::new(what, method, query.at(&path)), deadline)
            .await;
        self.changed();
        match answer?.found()? {
            Some(_) => Ok(()),
            None => Err(no_container(container)),
        }
    }

    /// Waits until a container has ended, for at most `deadline`, and returns its exit code.
    pub async fn wait_container(&self, container: &str, deadline: Duration) -> Result<i32, Fault> {
        let what = "waiting for a container";
        let path = format!(
            "/containers/{}/wait",
            checked_name("a container", container)?
        );
        let call = Call::new(what, Method::POST, Query::default().at(&path));
        let answer = self
            .call(call, deadline)
            .await?
            .found()?
            .ok_or_else(|| no_container(container))?;
        answer
            .json()
            .map_err(|_| fault::nonsense(what, "it is no exit code"))
    }

    /// What a container has written so far, both streams in their order; of much only the end.
    pub async fn container_log(&self, container: &str) -> Result<Vec<u8>, Fault> {
        let what = "the log of a container";
        let deadline = self.settings().deadlines.read;
        let query = Query::default().flag("stdout", true).flag("stderr", true);
        let path = format!(
            "/containers/{}/logs",
            checked_name("a container", container)?
        );
        let call = Call::new(what, Method::GET, query.at(&path));
        let read = async {
            let stream = self.inner.connector.connect().await?;
            let mut answer = http::send(stream, call).await?;
            if answer.status >= 300 {
                let limit = self.settings().limits.answer;
                let refusal = answer.whole(limit).await?.found()?;
                return match refusal {
                    Some(_) => Err(fault::nonsense(what, "it is no stream")),
                    None => Err(no_container(container)),
                };
            }
            let mut frames = Frames::default();
            let mut log = Tail::new(self.settings().limits.line);
            while let Some(piece) = answer.piece().await? {
                frames.feed(&piece, |_, text| log.push(text))?;
            }
            Ok(log.take())
        };
        timeout(deadline, read)
            .await
            .unwrap_or_else(|_| Err(fault::timeout(what, deadline)))
    }
}

fn no_container(container: &str) -> Fault {
    Fault::new(
        Kind::ContainerMissing,
        format!("there is no container `{container}`"),
    )
}

/// `None` where podman-api met a 404.
fn found<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.data.get("status") == Some(&Value::from(404)) => Ok(None),
        Err(fault) => Err(fault),
    }
}
