//! What can be seen of gates, and who may see it: comparison, review and promotion, the clone cache, modes, size.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod cache;
mod compare;
mod migration;
mod modes;
mod review;
mod size;
#[path = "../support/mod.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use support::gates::{World, at_point, pending_of};
use terok_gate::{
    Advertisement, CliTransport, Control, FetchReport, GateSpec, GitTransport, GixTransport, Lag,
    Limits, PromoteRequest, PushError, Reach, RemoteRef, SyncOptions, TransportError, Upstream,
    compare, compare_with_known, facts, poll, promote, review,
};
use terok_proto::gate::{
    AppliedKind, GateStalenessInfo, PendingReason, PromoteResult, Relation, ReviewRow,
    StalenessErrorKind,
};
use terok_proto::{Fault, Kind};

fn rows(world: &World, branch: Option<&str>) -> Vec<ReviewRow> {
    let upstream = world.upstream();
    review(
        &world.spec,
        Some(&upstream),
        &world.transport,
        branch,
        &Limits::default(),
        &Control::new(),
    )
    .unwrap()
}

fn mirrored() -> World {
    let world = World::new();
    world.lab.git(
        &world.up,
        &["update-ref", "refs/pull/1/head", "refs/heads/side/x"],
    );
    world
        .lab
        .git(&world.up, &["update-ref", "refs/notes/commits", "main"]);
    std::fs::create_dir_all(&world.spec.base).unwrap();
    world.lab.git(
        &world.spec.base,
        &[
            "clone",
            "-q",
            "--mirror",
            world.up.to_str().unwrap(),
            "alpha.git",
        ],
    );
    world
}

fn look(world: &World, branch: Option<&str>) -> GateStalenessInfo {
    let upstream = world.upstream();
    compare(
        &world.spec,
        Reach::Upstream(&upstream),
        &world.transport,
        branch,
        &Limits::default(),
        &Control::new(),
    )
    .unwrap()
}

fn push_out(world: &World, request: &PromoteRequest) -> Result<PromoteResult, Fault> {
    promote(
        &world.spec,
        &world.upstream(),
        &world.transport,
        request,
        &Limits::default(),
        &Control::new(),
    )
}

fn request(branch: &str) -> PromoteRequest {
    PromoteRequest {
        branch: branch.to_owned(),
        upstream_branch: None,
        expect_commit: None,
    }
}
