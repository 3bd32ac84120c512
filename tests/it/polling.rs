//! Polling as clients see it: what `polling.status` says, and what follows from a file, a server or a restart.

use serde_json::{Value, json};
use terok_tests::http_git::Answer;
use terok_tests::{Daemon, HttpGit, Upstream, World, eventually};

fn project(url: &str, polling: &str) -> String {
    format!(
        "project: {{security_class: gatekeeping}}\ngit: {{upstream_url: \"{url}\", default_branch: main}}\n\
         gatekeeping: {polling}\n"
    )
}

fn write(world: &World, url: &str, polling: &str) {
    world.write("$CONFIG/projects/alpha/project.yml", project(url, polling));
}

fn of() -> Value {
    json!({"project_id": "alpha"})
}

fn status(daemon: &Daemon) -> Option<Value> {
    let all = daemon.ok("polling.status", of());
    all.as_array().expect("a list").first().cloned()
}

/// How `alpha` is polled once that is so.
fn status_when(daemon: &Daemon, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || status(daemon).filter(&is_so))
}

fn poll(daemon: &Daemon) -> Value {
    daemon.ok("polling.poll_now", of())[0].clone()
}

/// Seconds from the last poll to the next.
fn pause(state: &Value) -> i64 {
    let at = |key: &str| {
        let text = state[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key}: {state}"));
        text.parse::<jiff::Timestamp>()
            .expect("a moment")
            .as_second()
    };
    at("next_poll_at") - at("last_poll_at")
}

#[test]
fn what_project_yml_says_of_polling_holds_on_save() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let url = up.file_url();
    write(&world, &url, "{upstream_polling: {interval_minutes: 60}}");
    let daemon = world.start();
    assert_eq!(status(&daemon), None, "there is no gate yet");
    daemon.ok("project.gate.sync", of());
    let hourly = status_when(&daemon, "a gate that is made is watched", |_| true);
    assert_eq!(hourly["interval_seconds"], 3_600, "{hourly}");
    assert_eq!(hourly["project_ids"], json!(["alpha"]));
    assert_eq!(hourly["auto_sync"]["enabled"], false);

    write(
        &world,
        &url,
        "{upstream_polling: {interval_minutes: 7}, auto_sync: {enabled: true, branches: [side]}}",
    );
    let changed = status_when(&daemon, "the new interval", |s| {
        s["interval_seconds"] == 420
    });
    assert_eq!(changed["auto_sync"]["enabled"], true, "{changed}");
    assert_eq!(changed["auto_sync"]["branches"], json!(["side"]));

    // Only what auto-sync is for is synced by itself.
    let mut events = daemon.events(json!({"kinds": ["gate.synced", "gate.stale"]}));
    up.commit("main", "more");
    let side = up.commit("side", "more");
    poll(&daemon);
    let synced = events.next_about("gate.synced", "alpha");
    let applied = &synced["data"]["result"]["applied"];
    assert_eq!(applied[0]["branch"], "side", "{synced}");
    assert_eq!(applied[0]["new"], json!(side));
    assert_eq!(applied.as_array().map(Vec::len), Some(1), "{synced}");

    write(&world, &url, "{upstream_polling: {enabled: false}}");
    eventually("a project that is not polled is not listed", || {
        status(&daemon).is_none().then_some(())
    });
    let asked = daemon.call("polling.poll_now", of());
    assert!(asked.is_ok(), "who asks is answered: {asked:?}");
}

#[test]
fn a_server_that_says_when_to_come_back_is_left_alone_until_then() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let http = HttpGit::start(&world, up.base()).unwrap();
    let url = http.url(&up);
    write(&world, &url, "{upstream_polling: {interval_minutes: 1}}");
    let mut daemon = world.start();
    daemon.ok("project.gate.sync", of());
    status_when(&daemon, "it is on the schedule", |_| true);
    let mut events = daemon.events(json!({"kinds": ["gate.poll_failed"]}));
    http.answer(Answer::Status {
        code: 429,
        retry_after: Some("7200".to_owned()),
    });
    let found = poll(&daemon);
    assert_eq!(found["error_kind"], "unreachable", "{found}");
    let told = events.next_about("gate.poll_failed", "alpha");
    assert!(told["data"]["next_poll_at"].is_string(), "{told}");
    let state = status_when(&daemon, "one failure", |s| s["consecutive_failures"] == 1);
    assert!(pause(&state) >= 7_199, "{state}");

    // The daemon that comes after knows of the failure and does not tell again.
    drop(events);
    daemon.terminate();
    let daemon = world.start();
    let state = status_when(&daemon, "remembered", |_| true);
    assert_eq!(state["consecutive_failures"], 1, "{state}");
    http.answer(Answer::Honest);
    let found = poll(&daemon);
    assert_eq!(found["relation"], "equal", "{found}");
    let state = status_when(&daemon, "no failure", |s| s["consecutive_failures"] == 0);
    assert_eq!(state["last_error"], Value::Null);
    assert!((50..=70).contains(&pause(&state)), "{state}");
}

#[test]
fn a_host_that_is_away_is_asked_less_and_less() {
    let world = World::new();
    let Some(upstream) = Upstream::new(&world, "up") else {
        return;
    };
    let hourly = "{upstream_polling: {interval_minutes: 60}}";
    write(&world, &upstream.file_url(), hourly);
    let daemon = world.start();
    daemon.ok("project.gate.sync", of());
    status_when(&daemon, "it is on the schedule", |_| true);
    let up = world.path("$HOME/upstreams/up.git");
    let away = world.path("$HOME/upstreams/away.git");
    std::fs::rename(&up, &away).unwrap();
    let mut pauses = Vec::new();
    for failures in 1..=3 {
        let found = poll(&daemon);
        assert_eq!(found["error_kind"], "unreachable", "{found}");
        let state = status_when(&daemon, "a failure more", |s| {
            s["consecutive_failures"] == failures
        });
        pauses.push(pause(&state));
    }
    // Twice the hour, and then no more: the cap is two hours. Both within the jitter of 15 %.
    assert!(
        pauses.iter().all(|p| (6_119..=8_281).contains(p)),
        "{pauses:?}"
    );
    std::fs::rename(&away, &up).unwrap();
    // A sync that a human asks for ends the streak, too.
    daemon.ok("project.gate.sync", of());
    let state = status_when(&daemon, "no failure", |s| s["consecutive_failures"] == 0);
    assert!(pause(&state) <= 4_141, "{state}");
}

/// The gate that both share, and the file of one of them.
fn sharing(world: &World, id: &str, url: &str) -> String {
    let gate = world.path("$HOME/shared.git");
    let yaml = project(url, "{upstream_polling: {interval_minutes: 60}}");
    let yaml = format!("{yaml}gate: {{path: \"{}\"}}\n", gate.display());
    let file = format!("$CONFIG/projects/{id}/project.yml");
    world.write(&file, &yaml);
    file
}

#[test]
fn a_project_that_is_being_broken_stops_nobody() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let broken = sharing(&world, "alpha", &up.file_url());
    sharing(&world, "beta", &up.file_url());
    let daemon = world.start();
    daemon.ok("project.gate.sync", of());
    status_when(&daemon, "both are polled at once", |s| {
        s["project_ids"] == json!(["alpha", "beta"])
    });
    let beta = json!({"project_id": "beta"});
    world.write(&broken, "project: [");
    daemon.ok("daemon.reload", json!({}));
    let found = daemon.ok("discover_projects", json!({}));
    assert_eq!(found["broken"][0]["id"], "alpha", "{found}");
    up.commit("main", "more");
    let found = daemon.ok("polling.poll_now", beta.clone());
    assert_eq!(found[0]["relation"], "behind", "{found}");
    let state = daemon.ok("polling.status", beta);
    assert_eq!(state[0]["last_error"], Value::Null, "{state}");
}

#[test]
fn what_is_not_asked_of_upstream_is_no_news_of_it() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let hourly = "{upstream_polling: {interval_minutes: 60}}";
    write(&world, &up.file_url(), hourly);
    let daemon = world.start();
    up.commit("side", "a branch");
    daemon.ok("project.gate.sync", of());
    status_when(&daemon, "it is on the schedule", |_| true);
    let mut events = daemon.events(json!({"kinds": ["gate.stale", "gate.current", "gate.synced"]}));
    up.commit("main", "more");
    up.commit("side", "more");
    poll(&daemon);
    events.next_about("gate.stale", "alpha");
    let before = status_when(&daemon, "polled", |s| {
        s["staleness"]["relation"] == "behind"
    });

    // Only one branch: of the other nothing was heard since.
    let side = json!({"project_id": "alpha", "branches": ["side"]});
    daemon.ok("project.gate.sync_branches", side);
    events.next_about("gate.synced", "alpha");
    let after = status(&daemon).expect("its state");
    assert_eq!(after["staleness"]["relation"], "behind", "{after}");
    for key in ["next_poll_at", "last_poll_at", "last_success_at"] {
        assert_eq!(after[key], before[key], "{key}");
    }

    // All of them: that is as good as a poll, as far as the gate's state goes.
    daemon.ok("project.gate.sync", of());
    events.next_about("gate.synced", "alpha");
    events.next_about("gate.current", "alpha");
    let current = status(&daemon).expect("its state");
    assert_eq!(current["staleness"]["relation"], "equal", "{current}");
    assert_eq!(current["next_poll_at"], before["next_poll_at"]);
}
