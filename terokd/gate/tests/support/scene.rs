//! A gate, an upstream that can be told how to behave, and calls in their plainest form.

use super::http::HttpServer;
use super::lab::{HANG, Lab, at};
use gix::ObjectId;
use std::path::{Path, PathBuf};
use terok_gate::{Control, GitTransport, Limits, RemoteRef, TransportError, Upstream};

pub(crate) fn ls(
    transport: &dyn GitTransport,
    upstream: &Upstream,
) -> Result<terok_gate::Advertisement, TransportError> {
    transport.ls_refs(
        upstream,
        &["refs/heads/"],
        &Limits::default(),
        &Control::new(),
    )
}

pub(crate) fn fetch(
    transport: &dyn GitTransport,
    gate: &Path,
    upstream: &Upstream,
    wants: &[RemoteRef],
) -> Result<terok_gate::FetchReport, TransportError> {
    transport.fetch(gate, upstream, wants, &Limits::default(), &Control::new())
}

pub(crate) fn want(id: ObjectId) -> Vec<RemoteRef> {
    vec![RemoteRef {
        name: "refs/heads/main".into(),
        id,
        peeled: None,
    }]
}

/// Limits under which nothing ends by itself while the test runs.
pub(crate) fn patient() -> Limits {
    let long = HANG * 100;
    Limits {
        connect: long,
        ls_refs: long,
        inactivity: long,
        total: long,
        first: long,
    }
}

/// A web server with `up.git`, a gate without anything, and what the gate looks like.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) up: PathBuf,
    pub(crate) gate: PathBuf,
    pub(crate) http: HttpServer,
    pub(crate) upstream: Upstream,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let lab = Lab::new();
        let up = lab.upstream();
        let gate = lab.bare("gate.git");
        let http = HttpServer::start(lab.dir.path());
        let upstream = at(&http.url("up.git"));
        Self {
            lab,
            up,
            gate,
            http,
            upstream,
        }
    }

    pub(crate) fn wants(&self) -> Vec<RemoteRef> {
        want(self.lab.rev(&self.up, "refs/heads/main"))
    }
}
