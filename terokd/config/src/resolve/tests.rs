use crate::GitIdentity;
use crate::env::Environment;
use crate::global::{self, Global};
use crate::project::{Candidate, LoadedProject, ProjectLoad, Tier, load_one};
use crate::resolve::{Context, resolved_config};
use crate::roster::Roster;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use terok_proto::config::{Origin, ProblemCode, ProjectConfig};

struct Bench {
    dir: TempDir,
    env: Environment,
    identity: GitIdentity,
    global: Global,
}

impl Bench {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(home.join(".config/terok")).unwrap();
        fs::write(home.join(".config/terok/config.yml"), config).unwrap();
        let env = Environment::new([("A", "")], &home);
        Self {
            global: global::load(&env, None),
            identity: GitIdentity::default(),
            dir,
            env,
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            global: &self.global,
            identity: &self.identity,
            env: &self.env,
            roster: None,
        }
    }

    fn load_as(&self, dir_name: &str, text: &str, context: Context<'_>) -> ProjectLoad {
        let root = self.env.home.join(dir_name);
        fs::create_dir_all(&root).unwrap();
        let yml_path = root.join("project.yml");
        fs::write(&yml_path, text).unwrap();
        let candidate = Candidate {
            dir_name: dir_name.into(),
            root,
            yml_path,
            tier: Tier::User,
        };
        load_one(&candidate, context)
    }

    fn load(&self, text: &str) -> ProjectLoad {
        self.load_as("demo", text, self.context())
    }

    fn project(&self, text: &str) -> Arc<LoadedProject> {
        self.load(text).outcome.unwrap()
    }

    fn config(&self, text: &str) -> ProjectConfig {
        self.project(text).project.config.clone()
    }

    fn warned(&self, text: &str) -> Vec<(String, ProblemCode)> {
        let load = self.load(text);
        assert!(load.outcome.is_ok(), "{:?}", load.outcome);
        load.problems()
            .iter()
            .map(|p| (p.location.clone(), p.code))
            .collect()
    }

    fn failed(&self, text: &str) -> Vec<(String, ProblemCode)> {
        let fault = self.load(text).outcome.unwrap_err();
        fault
            .problems
            .iter()
            .map(|p| (p.location.clone(), p.code))
            .collect()
    }
}

const ONLINE: &str = "project: {security_class: online}\n";

fn online(rest: &str) -> String {
    format!("{ONLINE}{rest}")
}

#[test]
fn global_values_are_inherited_key_by_key() {
    let bench = Bench::new(
        "run: {memory: 6g, cpus: 2, nested_containers: yes, timezone: UTC, shutdown_timeout: 3, gpus: all, runtime: crun, hooks: {pre_start: g, post_stop: g}}\nimage: {base_image: 'a:1', family: rpm, user_snippet_inline: RUN x, user_snippet_file: s}\n",
    );
    let project = bench.project(&online(
        "run: {cpus: 1, hooks: {pre_start: false, post_stop: ''}}\n",
    ));
    let c = &project.project.config;
    assert_eq!(
        (c.memory.as_deref(), c.cpus.as_deref()),
        (Some("6g"), Some("1"))
    );
    assert_eq!(
        (c.nested_containers, c.shutdown_timeout, c.runtime),
        (true, 3, None)
    );
    assert_eq!(
        (c.hook_pre_start.as_deref(), c.hook_post_stop.as_deref()),
        (None, Some("g"))
    );
    assert_eq!(
        (c.base_image.as_str(), c.snippet_inline.as_deref()),
        ("a:1", Some("RUN x"))
    );
    assert_eq!(project.snippet_dir, bench.env.home.join(".config/terok"));
    assert!(project.project.gpu);
    let own = bench.project(&online(
        "run: {gpus: false}\nimage: {user_snippet_file: y}\n",
    ));
    assert!(!own.project.gpu);
    assert_eq!(own.snippet_dir, bench.env.home.join("demo"));
}

#[test]
fn the_rules_of_the_format() {
    let bench = Bench::new("ssh: {use_personal: true}\nshield: {drop_on_task_run: false}\n");
    assert!(
        !bench
            .config(&online("ssh: {use_personal: no}\n"))
            .ssh_use_personal
    );
    assert!(
        !bench
            .config(&online("shield: {drop_on_task_run: ~}\n"))
            .shield_drop_on_task_run
    );
    assert_eq!(
        bench.failed("gate: {enabled: off}\n"),
        [("gate.enabled".into(), ProblemCode::Conflict)]
    );
    assert!(!bench.config(&online("gate: {enabled: off}\n")).gate_enabled);
    let merged = bench.config("project: {<<: {security_class: online}, isolation: Sealed}\n");
    assert!(merged.is_sealed && merged.staging_root.is_none());
    assert_eq!(bench.config("").id, "demo");
}

#[test]
fn broken_rules_are_one_sentence_each_all_at_once() {
    let bench = Bench::new("");
    let load = bench.load(
        "gate: {enabled: no}\nshared_dir: rel\ngit: {authorship: robots}\nagent: {subagents: 5}\n",
    );
    let fault = load.outcome.unwrap_err();
    let at: Vec<&str> = fault.problems.iter().map(|p| p.location.as_str()).collect();
    assert_eq!(
        at,
        [
            "gate.enabled",
            "shared_dir",
            "git.authorship",
            "agent.subagents"
        ]
    );
    assert!(
        fault.text.contains("`demo`") && fault.text.contains("\"robots\""),
        "{}",
        fault.text
    );
    assert!(
        fault
            .text
            .contains("agent-human, human-agent, agent, human")
    );
    assert_eq!(fault.fault().data["errors"].as_array().unwrap().len(), 4);
}

#[test]
fn doubts_are_warnings() {
    let bench = Bench::new("");
    let bad = ProblemCode::BadValue;
    assert_eq!(
        bench.warned(&online("tasks: {root: rel}\n")),
        [("tasks.root".into(), bad)]
    );
    assert!(bench.warned(&online("gate: {path: ~/x.git}\n")).is_empty());
    assert_eq!(
        bench.config(&online("gate: {path: ~/x.git}\n")).gate_path,
        bench.env.home.join("x.git").to_string_lossy()
    );
    assert_eq!(
        bench.warned(&online("git: {upstream_url: 'git+ssh://h/r'}\n")),
        [("git.upstream_url".into(), bad)]
    );
    assert_eq!(
        bench.warned("project: {id: other}\n"),
        [("project.id".into(), ProblemCode::Conflict)]
    );
    assert_eq!(bench.warned("project: {id: demo-}\n").len(), 2);
    assert_eq!(
        bench.failed(&online("shared_dir: ~no-such-user-here/x\n")),
        [("shared_dir".into(), bad)]
    );
    assert_eq!(
        bench.failed(&online("shared_dir: ''\n")),
        [("shared_dir".into(), bad)]
    );
    let roster = Roster::bundled();
    let context = Context {
        roster: Some(&roster),
        ..bench.context()
    };
    let load = bench.load_as("demo", &online("image: {agents: nosuchagent}\n"), context);
    assert_eq!(load.problems()[0].location, "image.agents");
    assert!(load.outcome.is_ok());
}

#[test]
fn identity_is_a_stack() {
    let mut bench = Bench::new("git: {human_name: Glob}\n");
    bench.identity = GitIdentity {
        name: Some("Git".into()),
        email: Some(" g@x ".into()),
        path: Some("/g".into()),
    };
    let who = |c: ProjectConfig| (c.human_name.unwrap(), c.human_email.unwrap());
    assert_eq!(who(bench.config(ONLINE)), ("Glob".into(), "g@x".into()));
    assert_eq!(
        who(bench.config(&online("git: {human_name: P, human_email: ~}\n"))).0,
        "P"
    );
    assert_eq!(
        who(bench.config(&online("git: {human_email: ''}\n"))).1,
        "nobody@localhost"
    );
    assert_eq!(
        who(bench.config(&online("git: {human_name: _inherit}\n"))).0,
        "Glob"
    );
}

#[test]
fn every_value_says_where_it_comes_from() {
    let mut bench = Bench::new(
        "run:\n  memory: 6g\ncredentials: {passphrase: hunter2}\ngit: {human_name: Glob}\n",
    );
    bench.identity.email = Some("g@x".into());
    bench.identity.path = Some("/g".into());
    let project = bench.project("project:\n  security_class: online\nrun:\n  cpus: 2\n");
    let resolved = resolved_config(bench.context(), Some(&project));
    let of = |key: &str| {
        let v = &resolved.values[key];
        (v.value.clone(), v.origin, v.line)
    };
    for key in ["run.cpus", "cpus"] {
        assert_eq!(of(key), (json!("2"), Origin::Project, Some(4)));
    }
    for key in ["run.memory", "memory"] {
        assert_eq!(of(key), (json!("6g"), Origin::User, Some(2)));
    }
    assert_eq!(of("human_email"), (json!("g@x"), Origin::GitGlobal, None));
    assert_eq!(of("human_name").1, Origin::User);
    assert_eq!(
        of("shield.drop_on_task_run"),
        (json!(true), Origin::Default, None)
    );
    assert_eq!(of("image.base_image").0, json!("ubuntu:24.04"));
    let config = serde_json::to_value(&project.project.config).unwrap();
    for field in config.as_object().unwrap().keys() {
        assert!(resolved.values.contains_key(field), "{field}");
    }
    let global = resolved_config(bench.context(), None);
    assert_eq!(
        global.values["credentials.passphrase"].value,
        json!("<set>")
    );
    assert_eq!(
        global.values["credentials.passphrase_command"].value,
        Value::Null
    );
    assert_eq!(global.values["rpc.max_batch"].value, json!(100));
    assert_eq!(
        global.values["terokd.shield.profiles"].value,
        json!(["dev-standard"])
    );
    assert!(!serde_json::to_string(&global).unwrap().contains("hunter2"));
    bench.env.vars.insert("TEROK_ROOT".into(), "/r".into());
    let global = resolved_config(bench.context(), None);
    assert_eq!(global.values["paths.root"].origin, Origin::Env);
    drop(bench.dir);
}

#[test]
fn every_field_follows_a_key() {
    let bench = Bench::new("");
    let project = bench.project(ONLINE);
    let resolved = resolved_config(bench.context(), Some(&project));
    let config = serde_json::to_value(&project.project.config).unwrap();
    let computed = ["root", "presets_dir"];
    for field in config.as_object().unwrap().keys() {
        let known = super::origins::follows(field);
        assert!(known || computed.contains(&field.as_str()), "{field}");
    }
    assert_eq!(resolved.values["security_class"].origin, Origin::Project);
}
