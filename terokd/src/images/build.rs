//! Building: which layers, shared with whoever wants the same ones at the same time, told as it goes.

use super::records::Record;
use super::render::{Render, Subject, Surroundings, surroundings};
use super::{Images, blocking};
use crate::events::Draft;
use crate::fs;
use crate::ops::OpCx;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use terok_config::id::ProjectId;
use terok_image::build::{self, Labels, Options, Plan, Present, Source, Step};
use terok_image::labels;
use terok_image::layers::Rendered;
use terok_image::manifest::{LayerRecord, Manifest};
use terok_podman::{BuildItem, BuildNetwork, Context, Images as Store, Pull};
use terok_proto::events::EventKind;
use terok_proto::image::{BuildResult, BuiltImage, Layer};
use terok_proto::ops::Progress;
use terok_proto::{Fault, Kind};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Lines of a build that a reader may lag behind.
const LAG: usize = 4096;
/// Bytes of a project's last build log that are kept.
const LOG: usize = 1 << 20;
/// The log's name beside the manifest.
const LOG_FILE: &str = "build.log";

/// What is asked of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// What to build.
    pub options: Options,
    /// A selection of agents instead of the configured one.
    pub agents: Option<String>,
}

/// Builds that end in the same image, as far as that can be known beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LayerKey {
    tag: String,
    content_hash: String,
    /// What is there does not count.
    anew: bool,
    no_cache: bool,
}

/// A layer that somebody built.
#[derive(Clone, Debug)]
pub(super) struct BuiltLayer {
    image: BuiltImage,
    /// Of what is installed, if the build told them.
    versions: Option<BTreeMap<String, String>>,
}

/// What a build says while it runs.
#[derive(Clone, Debug)]
enum Said {
    Step {
        number: u32,
        total: u32,
        text: String,
    },
    Line(String),
}

/// Where those who share a build hear it.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<LayerKey, Weak<broadcast::Sender<Said>>>>);

impl Lines {
    /// The voice of the build under way, or of the one that is about to begin.
    fn of(&self, key: &LayerKey) -> Arc<broadcast::Sender<Said>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, voice| voice.strong_count() > 0);
        if let Some(voice) = all.get(key).and_then(Weak::upgrade) {
            return voice;
        }
        let voice = Arc::new(broadcast::channel(LAG).0);
        all.insert(key.clone(), Arc::downgrade(&voice));
        voice
    }
}

/// Everything that one layer is built from; it outlives the call that asked for it first.
struct Order {
    step: Step,
    /// Path, content, whether it is a program.
    files: Vec<(String, Vec<u8>, bool)>,
    key: LayerKey,
    surroundings: Surroundings,
    project_id: Option<String>,
    base: String,
    bust: Option<String>,
    /// What it stands on was made anew a moment ago.
    on_new_ground: bool,
}

/// The end of a build's log, as it is kept beside the manifest.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Log {
    fn push(&mut self, line: &str) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.bytes > LOG
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + 1;
        }
    }

    fn text(&self) -> String {
        self.lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }
}

impl Images {
    /// Builds a project's images: base layers where they are missing or asked for, its own always. What others build
    /// at the same time is built once.
    ///
    /// # Errors
    /// There is no such project, its images cannot be rendered, somebody else builds it, Podman cannot be asked or a
    /// step fails. Tags and manifest are then as they were, but for layers that were finished.
    pub async fn build(
        &self,
        cx: &OpCx,
        id: &ProjectId,
        request: BuildRequest,
    ) -> Result<BuildResult, Fault> {
        let subject = self.subject(id, request.agents).await?;
        crate::panic::refuse_while_panicked(&subject.snapshot.paths, "building images")?;
        build::check_project(subject.id())?;
        let _hold = self.hold(subject.id())?;
        let mut log = Log::default();
        let outcome = self
            .build_held(cx, &subject, request.options, &mut log)
            .await;
        let path = subject.stage()?.manifest().with_file_name(LOG_FILE);
        let kept = keep_log(&path, &log, outcome.as_ref().err()).await;
        if let Err(fault) = &kept {
            tracing::warn!(%fault, "the log of a build is not kept");
        }
        outcome.map_err(|fault| match (fault.kind, kept) {
            (Kind::BuildFailed, Ok(())) => fault.with("log", path.to_string_lossy()),
            _ => fault,
        })
    }

    async fn build_held(
        &self,
        cx: &OpCx,
        subject: &Subject,
        options: Options,
        log: &mut Log,
    ) -> Result<BuildResult, Fault> {
        let (render, configured) = {
            let (images, subject) = (self.clone(), subject.clone());
            blocking(move || subject.render_both(&images.inner.contexts)).await?
        };
        let store = self.podman()?.images_now().await?;
        let stage = subject.stage()?;
        let before = {
            let path = stage.manifest().to_owned();
            blocking(move || Ok(Manifest::read(&path))).await?
        };
        let bust = self
            .bust(&render.context.base, options, before.as_ref())
            .await?;
        let plan = Plan {
            base: &render.context.base,
            project: Some((subject.id(), &render.context)),
            options,
            bust: &bust,
            version: VERSION,
        };
        let (l0, l1) = present(&render.context.base, &store);
        let present = Present {
            l0: l0.as_ref(),
            l1: l1.as_ref(),
        };
        let steps = plan.steps(present);
        let mut warnings = render.warnings.clone();
        let around = surroundings(&subject.snapshot.global.terokd.network);
        if around.network == BuildNetwork::Host {
            warnings.push(
                "the proxy is on this host's loopback, so the steps of the build share the host's network".to_owned(),
            );
        }
        let (mut images, mut versions, mut staged) = (Vec::<BuiltImage>::new(), None, false);
        for step in steps {
            cx.check_cancelled()?;
            if step.source == Source::Project && !staged {
                let (stage, context) = (stage.clone(), Arc::clone(&configured));
                blocking(move || stage.write(&context).map(drop)).await?;
                staged = true;
            }
            let mut order = order(&step, &render, subject, &bust, options, &around);
            order.on_new_ground = images.last().is_some_and(|below| !below.cached);
            let built = self.layer(cx, order, log).await?;
            if built.image.layer == Layer::L1 {
                versions = built.versions;
            }
            images.push(built.image);
        }
        let manifest = plan.manifest(&images, present, before.as_ref(), jiff::Timestamp::now());
        let mut manifest = manifest.ok_or_else(|| Fault::internal("a project has a manifest"))?;
        if let Some(versions) = versions {
            manifest.agents_versions = versions;
        }
        let still_stale = build::still_stale(&manifest, &configured.hashes);
        blocking(move || stage.write_manifest(&manifest)).await?;
        self.forget_gone().await;
        Ok(BuildResult {
            images,
            still_stale,
            warnings,
        })
    }

    /// The cache-bust value of this build: what other selections on the base were built with, unless it is to be new.
    async fn bust(
        &self,
        base: &Rendered,
        options: Options,
        before: Option<&Manifest>,
    ) -> Result<String, Fault> {
        let of_base = self.inner.records.bust(base.foundation.base()).await?;
        let of_project = before
            .filter(|manifest| manifest.base_image == base.foundation.base())
            .and_then(|manifest| manifest.l1.as_ref())
            .and_then(|record: &LayerRecord| record.cache_bust.clone());
        let last = of_base.or(of_project);
        Ok(options.bust(jiff::Timestamp::now(), last.as_deref()))
    }

    /// One layer: the build under way that makes the same, else one of its own.
    async fn layer(&self, cx: &OpCx, order: Order, log: &mut Log) -> Result<BuiltLayer, Fault> {
        let layer = order.step.layer.name();
        let key = order.key.clone();
        let voice = self.inner.lines.of(&key);
        let mut said = voice.subscribe();
        let mut tell = |said: Said| match said {
            Said::Step {
                number,
                total,
                text,
            } => {
                let line = format!("STEP {number}/{total}: {text}");
                log.push(&line);
                cx.log("stdout", &line);
                cx.progress(Progress {
                    phase: layer.to_owned(),
                    done: Some(u64::from(number)),
                    total: Some(u64::from(total)),
                    unit: Some("steps".to_owned()),
                    message: Some(text),
                });
            }
            Said::Line(line) => {
                log.push(&line);
                cx.log("stdout", &line);
            }
        };
        tell(Said::Line(format!("== {layer}: {}", order.step.tag)));
        cx.progress(Progress {
            phase: layer.to_owned(),
            ..Progress::default()
        });
        let images = self.clone();
        let begin = move |stop| images.build_layer(order, voice, stop);
        let run = self
            .inner
            .layers
            .join(&self.inner.tasks, key, cx.cancelled(), begin);
        let mut run = std::pin::pin!(run);
        let outcome = loop {
            tokio::select! {
                biased;
                heard = said.recv() => match heard {
                    Ok(what) => tell(what),
                    Err(RecvError::Lagged(lines)) => tell(Said::Line(format!("… {lines} lines are missing here"))),
                    Err(RecvError::Closed) => break run.await,
                },
                outcome = &mut run => break outcome,
            }
        };
        while let Ok(what) = said.try_recv() {
            tell(what);
        }
        outcome
    }

    /// Runs one build. Nobody else builds the same name meanwhile.
    async fn build_layer(
        self,
        order: Order,
        voice: Arc<broadcast::Sender<Said>>,
        stop: CancellationToken,
    ) -> Result<BuiltLayer, Fault> {
        let work = async {
            let _tag = self.inner.tags.lock(order.step.tag.as_str()).await;
            let _slot = self.inner.slots.acquire().await;
            if let Some(there) = self.unchanged(&order).await? {
                return Ok(there);
            }
            self.run_build(&order, &voice).await
        };
        stop.run_until_cancelled(work)
            .await
            .unwrap_or_else(|| Err(Fault::new(Kind::Cancelled, "the build was cancelled")))
    }

    /// A base layer that is there already, made of just this: somebody was faster, or it was never missing.
    async fn unchanged(&self, order: &Order) -> Result<Option<BuiltLayer>, Fault> {
        if order.key.anew || order.on_new_ground || order.step.source == Source::Project {
            return Ok(None);
        }
        let store = self.podman()?.images_now().await?;
        let Some(image) = store.by_tag(&order.step.tag) else {
            return Ok(None);
        };
        let label = |key| image.labels.get(key).map(String::as_str);
        if label(labels::CONTENT_HASH) != Some(order.key.content_hash.as_str())
            || label(labels::LAYER) != Some(order.step.layer.name())
            || label(labels::L0_HASH) != order.step.labels.get(labels::L0_HASH).map(String::as_str)
        {
            return Ok(None);
        }
        let image_id = format!("sha256:{}", image.id);
        Ok(Some(BuiltLayer {
            versions: self.inner.records.versions(&image_id).await?,
            image: BuiltImage {
                layer: order.step.layer,
                tag: order.step.tag.clone(),
                image_id,
                cached: true,
            },
        }))
    }

    async fn run_build(
        &self,
        order: &Order,
        voice: &broadcast::Sender<Said>,
    ) -> Result<BuiltLayer, Fault> {
        let step = &order.step;
        let files = order
            .files
            .iter()
            .map(|(path, content, executable)| (path.as_str(), content.as_slice(), *executable));
        let mut request = terok_podman::BuildRequest::new(Context::files(files));
        request.dockerfile = step.dockerfile.to_owned();
        request.tags = vec![step.tag.clone()];
        request.build_args = step.arguments.clone();
        request
            .build_args
            .extend(order.surroundings.variables.clone());
        request.no_cache = step.no_cache;
        request.network = order.surroundings.network;
        request.pull = match (step.layer, step.pull) {
            (Layer::L0, true) => Pull::Always,
            (Layer::L0, false) => Pull::Missing,
            _ => Pull::Never,
        };
        let of_layer = |fault: Fault| {
            fault
                .with("layer", step.layer.name())
                .with("tag", step.tag.as_str())
        };
        let mut versions = None;
        // Nobody has to listen.
        let say = |said| drop(voice.send(said));
        let stream = self.podman()?.build(request).await.map_err(of_layer)?;
        let built = stream
            .finish(|item| match item {
                BuildItem::Step {
                    number,
                    total,
                    instruction,
                } => say(Said::Step {
                    number,
                    total,
                    text: instruction,
                }),
                BuildItem::Log(line) => {
                    if let Some(told) = build::versions(&line) {
                        versions = Some(told);
                    }
                    say(Said::Line(line));
                }
                BuildItem::Done(_) => {}
            })
            .await
            .map_err(of_layer)?;
        let image = BuiltImage {
            layer: step.layer,
            tag: step.tag.clone(),
            image_id: format!("sha256:{}", built.image_id),
            cached: built.cached,
        };
        self.remember(order, &image, versions.as_ref()).await;
        if versions.is_none() && step.layer == Layer::L1 {
            versions = self.inner.records.versions(&image.image_id).await?;
        }
        let data = json!({"layer": image.layer, "tag": image.tag, "image_id": image.image_id});
        let draft = Draft::new(EventKind::ImageBuilt).data(data);
        self.inner.bus.publish(match &order.project_id {
            Some(project) => draft.project(project.as_str()),
            None => draft,
        });
        Ok(BuiltLayer { image, versions })
    }

    /// Notes what was built. The image is there either way, and says by its labels whose it is.
    async fn remember(
        &self,
        order: &Order,
        image: &BuiltImage,
        versions: Option<&BTreeMap<String, String>>,
    ) {
        let records = &self.inner.records;
        let record = Record {
            image_id: &image.image_id,
            layer: image.layer,
            tag: &image.tag,
            project_id: order.project_id.as_deref(),
            base: &order.base,
            content_hash: &order.key.content_hash,
            versions,
        };
        let mut noted = records.add(&record).await;
        if let Some(bust) = &order.bust
            && noted.is_ok()
        {
            noted = records.set_bust(&order.base, bust).await;
        }
        if let Err(fault) = noted {
            tracing::warn!(%fault, tag = image.tag, "an image is not recorded");
        }
    }

    /// Forgets records of images that are gone.
    pub(super) async fn forget_gone(&self) {
        let forgotten = async {
            let records = &self.inner.records;
            // Asked first: what somebody else builds meanwhile may not be in the list yet.
            let known = records.ids().await?;
            let store = self.podman()?.images_now().await?;
            let there: BTreeSet<String> = store
                .iter()
                .map(|image| format!("sha256:{}", image.id))
                .collect();
            records.forget(known.difference(&there)).await
        };
        if let Err(fault) = forgotten.await {
            tracing::debug!(%fault, "records of images are not tidied");
        }
    }
}

/// Labels of the base layers under the names that this project uses.
fn present(base: &Rendered, store: &Store) -> (Option<Labels>, Option<Labels>) {
    let labels = |tag: String| store.by_tag(&tag).map(|image| image.labels.clone());
    (
        labels(base.foundation.l0_tag()),
        labels(base.foundation.l1_tag()),
    )
}

fn order(
    step: &Step,
    render: &Render,
    subject: &Subject,
    bust: &str,
    options: Options,
    around: &Surroundings,
) -> Order {
    let foundation = &render.context.base.foundation;
    let files = match step.source {
        Source::Foundation => foundation
            .files(bust)
            .into_iter()
            .map(|(path, file)| (path, file.text.into_owned().into_bytes(), file.executable))
            .collect(),
        Source::Project => render
            .context
            .files()
            .map(|(path, file)| {
                (
                    path.to_owned(),
                    file.text.as_bytes().to_vec(),
                    file.executable,
                )
            })
            .collect(),
    };
    let mut files: Vec<(String, Vec<u8>, bool)> = files;
    if let Some((_, text, _)) = files.iter_mut().find(|(path, ..)| path == step.dockerfile) {
        *text = labelled(&String::from_utf8_lossy(text), &step.labels).into_bytes();
    }
    let is_base = step.source == Source::Foundation;
    Order {
        files,
        key: LayerKey {
            tag: step.tag.clone(),
            content_hash: step
                .labels
                .get(labels::CONTENT_HASH)
                .cloned()
                .unwrap_or_default(),
            anew: options.refresh_agents || options.full,
            no_cache: step.no_cache,
        },
        surroundings: around.clone(),
        project_id: (!is_base).then(|| subject.id().to_owned()),
        base: foundation.base().to_owned(),
        bust: (step.layer == Layer::L1).then(|| bust.to_owned()),
        step: step.clone(),
        on_new_ground: false,
    }
}

/// A Dockerfile with labels. Podman is not told of them otherwise: it takes those of a request in any order, and then
/// misses its cache every other time. The project's comes first, so that steps that two projects run at the same time
/// are not mistaken for each other; the others come last, so that a change leaves the steps before it in the cache.
fn labelled(text: &str, labels: &Labels) -> String {
    let (project, others): (Vec<_>, Vec<_>) =
        labels.iter().partition(|(key, _)| *key == labels::PROJECT);
    let mut text = text.to_owned();
    let from = text.find("\nFROM ").map(|at| at + 1);
    if let Some(end) = from.and_then(|at| Some(at + text[at..].find('\n')? + 1)) {
        text.insert_str(end, &label_instruction(&project));
    }
    text.push('\n');
    text.push_str(&label_instruction(&others));
    text
}

fn label_instruction(labels: &[(&String, &String)]) -> String {
    let quoted = |text: &str| {
        let escaped = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('$', "\\$");
        format!("\"{escaped}\"")
    };
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{}={}", quoted(key), quoted(value)))
        .collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("LABEL {}\n", pairs.join(" "))
}

/// Keeps the end of a build's log where its user can read it later.
async fn keep_log(path: &Path, log: &Log, fault: Option<&Fault>) -> Result<(), Fault> {
    // A build that did not begin leaves the log of the one before.
    if log.lines.is_empty() {
        return Ok(());
    }
    let mut text = log.text();
    if let Some(fault) = fault {
        text.push_str(&format!("== {}\n", fault.message));
    }
    let path = path.to_owned();
    blocking(move || {
        if let Some(dir) = path.parent() {
            fs::create_dir_all_mode(dir, 0o755)?;
        }
        fs::replace(&path, text.as_bytes(), 0o600)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_the_cache_wants_them() {
        let labels = Labels::from([
            ("b".to_owned(), "x\"y\\$z".to_owned()),
            ("a".to_owned(), "1".to_owned()),
            (labels::PROJECT.to_owned(), "p".to_owned()),
        ]);
        assert_eq!(
            labelled("ARG X\nFROM ${X}\nRUN y\n", &labels),
            "ARG X\nFROM ${X}\nLABEL \"terokd.project\"=\"p\"\nRUN y\n\nLABEL \"a\"=\"1\" \"b\"=\"x\\\"y\\\\\\$z\"\n"
        );
        assert_eq!(labelled("FROM x\n", &Labels::new()), "FROM x\n\n");
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let mut log = Log::default();
        let line = "x".repeat(1000);
        for n in 0..3000 {
            log.push(&format!("{n} {line}"));
        }
        let text = log.text();
        assert!(text.len() <= LOG && text.len() > LOG - 2000);
        assert!(text.ends_with(&format!("2999 {line}\n")));
        assert!(!text.starts_with("0 "));
    }
}
