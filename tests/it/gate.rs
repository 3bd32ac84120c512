//! Gates as clients see them: the real daemon before real upstreams, behind file, ssh, http and git addresses.

mod faults;
mod http;
mod pending;
mod review;
mod ssh;
mod sync;

use serde_json::{Value, json};
use terok_tests::{Daemon, Upstream, World};

/// A project with that upstream, which nobody polls.
fn project(url: &str) -> String {
    format!(
        "project: {{security_class: gatekeeping}}\ngit: {{upstream_url: \"{url}\", default_branch: main}}\n\
         gatekeeping: {{upstream_polling: {{enabled: false}}}}\n"
    )
}

/// Adds the project `alpha` with that upstream.
fn alpha(world: &World, url: &str) {
    world.write("$CONFIG/projects/alpha/project.yml", project(url));
}

/// The gate of a project as a repository to look into and to push to, as agents do.
fn gate(world: &World, id: &str) -> Upstream {
    let path = world.path(&format!("$DATA/sandbox/gate/{id}.git"));
    Upstream::open(world, &path).unwrap()
}

fn of(id: &str) -> Value {
    json!({"project_id": id})
}

/// A sync of `alpha` that has to succeed.
fn sync(daemon: &Daemon) -> Value {
    let result = daemon.ok("project.gate.sync", of("alpha"));
    assert_eq!(result["success"], true, "{result}");
    assert_eq!(result["errors"], json!([]), "{result}");
    result
}

/// A sync of `alpha` that upstream does not let succeed; what it says.
fn refused(daemon: &Daemon) -> String {
    let result = daemon.ok("project.gate.sync", of("alpha"));
    assert_eq!(result["success"], false, "{result}");
    assert_eq!(result["updated_branches"], json!([]), "{result}");
    result["errors"][0].as_str().expect("why").to_owned()
}

/// What upstream and gate hold below `refs/heads` and `refs/tags`.
fn visible(repository: &Upstream) -> String {
    repository.git(&["for-each-ref", "refs/heads", "refs/tags"])
}

/// The gate holds all of upstream, whole.
fn assert_whole(gate: &Upstream) {
    gate.git(&["fsck", "--connectivity-only", "--no-dangling"]);
}
