//! Builds: a request, its context streamed as tar, and what comes back.

mod context;
mod output;
mod service;

pub use context::Context;
pub use output::{BuildItem, Built};

use crate::Podman;
use crate::fault;
use crate::http::{self, Answer, Call};
use crate::query::{Query, checked_name};
use hyper::Method;
use output::Output;
use service::BuildService;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use terok_proto::{Fault, Kind};
use tokio::time::timeout;

/// One image to be built.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The files that the build sees.
    pub context: Context,
    /// The build file, relative to the context.
    pub dockerfile: String,
    /// Names that the image gets, each with its registry (`localhost/…`).
    pub tags: Vec<String>,
    /// Labels beside those of the build file.
    pub labels: BTreeMap<String, String>,
    /// `ARG`s and the predefined ones, such as `HTTP_PROXY`.
    pub build_args: BTreeMap<String, String>,
    /// Whether base images may come from a registry.
    pub pull: Pull,
    /// Runs every step again.
    pub no_cache: bool,
    /// Which network the steps see.
    pub network: BuildNetwork,
}

impl BuildRequest {
    /// A build of `Dockerfile` that pulls nothing and may use the cache.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            dockerfile: "Dockerfile".into(),
            tags: Vec::new(),
            labels: BTreeMap::new(),
            build_args: BTreeMap::new(),
            pull: Pull::Never,
            no_cache: false,
            network: BuildNetwork::Private,
        }
    }

    fn query(&self) -> Result<Query, Fault> {
        let mut query = Query::default().with("dockerfile", &self.dockerfile);
        for tag in &self.tags {
            query = query.with("t", checked_name("an image", tag)?);
        }
        if !self.labels.is_empty() {
            query = query.with("labels", json(&self.labels));
        }
        if !self.build_args.is_empty() {
            query = query.with("buildargs", json(&self.build_args));
        }
        if self.network == BuildNetwork::Private {
            // `networkmode` is ignored by 4.3, and without this word the steps are in the host's network.
            query = query.with(
                "nsoptions",
                r#"[{"Name":"network","Host":false,"Path":""}]"#,
            );
        }
        Ok(query
            .with("pullpolicy", self.pull.name())
            .flag("nocache", self.no_cache)
            .flag("layers", true)
            .flag("rm", true)
            .flag("forcerm", true)
            // Without it 4.3 finds nothing in its cache.
            .with("outputformat", "application/vnd.oci.image.manifest.v1+json"))
    }
}

fn json(map: &BTreeMap<String, String>) -> String {
    serde_json::to_string(map).expect("texts are JSON")
}

/// Which network the steps of a build see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// One of their own that reaches outside, as `podman build` has it.
    Private,
    /// The host's, its loopback included: a proxy that listens there can be used, and everything else there, too.
    Host,
}

/// When a base image is fetched from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Never: it is here or the build fails.
    Never,
    /// If it is not here.
    Missing,
    /// Always.
    Always,
}

impl Pull {
    fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Missing => "missing",
            Self::Always => "always",
        }
    }
}

/// A build that runs. Dropping it ends it: at once where Podman's program is ours to start, else after its current step.
pub struct BuildStream {
    podman: Podman,
    answer: Answer,
    output: Output,
    ready: VecDeque<BuildItem>,
    ended: bool,
    // Last, so that the connection is closed before the service behind it is told to go.
    _service: Option<BuildService>,
}

impl fmt::Debug for BuildStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildStream")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn start(podman: &Podman, request: BuildRequest) -> Result<BuildStream, Fault> {
    let what = match request.tags.first() {
        Some(tag) => format!("the build of `{}`", fault::cut(tag, 200)),
        None => "the build".to_owned(),
    };
    let connector = podman.connector();
    let settings = connector.settings();
    let path = request.query()?.at("/build");
    let (body, trouble) = context::body(request.context, settings.limits.context).await?;
    let (stream, service) = service::connect(connector).await?;
    let call = Call::new(what.clone(), Method::POST, path).body("application/x-tar", body);
    let idle = settings.deadlines.build_idle;
    let answer = timeout(idle, http::send(stream, call))
        .await
        .unwrap_or_else(|_| Err(fault::timeout(&what, idle)))
        // A context that cannot be read breaks the request; the reason is with the reader.
        .map_err(|fault| trouble.take().unwrap_or(fault))?;
    if answer.status >= 400 {
        answer.whole(settings.limits.answer).await?.done()?;
        return Err(fault::nonsense(&what, "a refusal that is none"));
    }
    Ok(BuildStream {
        podman: podman.clone(),
        answer,
        output: Output::new(settings.limits.line),
        ready: VecDeque::new(),
        ended: false,
        _service: service,
    })
}

impl BuildStream {
    /// The next item; [`BuildItem::Done`] is the last, `None` follows it. A failed step is `build_failed`.
    pub async fn next(&mut self) -> Result<Option<BuildItem>, Fault> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            let idle = self.podman.connector().settings().deadlines.build_idle;
            let piece = self.answer.piece_within(idle).await;
            let fed = match piece {
                Ok(Some(piece)) => self.output.feed(&piece, &mut self.ready),
                Ok(None) => self.output.end(&mut self.ready),
                Err(fault) => Err(fault),
            };
            let over = fed.as_ref().map_or(true, |over| *over);
            if over {
                self.ended = true;
                self.podman.changed();
            }
            if let Err(fault) = fed {
                // What was said before it is part of the story.
                self.output.bury(fault);
            }
            if self.ended && self.ready.is_empty() {
                return match self.output.take_fault() {
                    Some(fault) => Err(fault),
                    None => Ok(None),
                };
            }
        }
    }

    /// Runs the build to its end and hands every item but the last to `each`.
    pub async fn finish(mut self, mut each: impl FnMut(BuildItem)) -> Result<Built, Fault> {
        while let Some(item) = self.next().await? {
            match item {
                BuildItem::Done(built) => return Ok(built),
                item => each(item),
            }
        }
        Err(Fault::new(
            Kind::BuildFailed,
            "the build ended without an image",
        ))
    }
}

impl Drop for BuildStream {
    fn drop(&mut self) {
        self.podman.changed();
    }
}
