use super::*;
use serde_json::json;
use std::fs;
use tempfile::TempDir;

struct Home {
    dir: TempDir,
    vars: Vec<(String, String)>,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            vars: Vec::new(),
        }
    }

    fn with(vars: &[(&str, &str)]) -> Self {
        let vars = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Self {
            vars,
            ..Self::new()
        }
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn config(&self, text: &str) -> &Self {
        self.write(".config/terok/config.yml", text)
    }

    fn load(&self, previous: Option<&Global>) -> Global {
        load(
            &Environment::new(self.vars.clone(), self.dir.path()),
            previous,
        )
    }
}

fn codes(global: &Global) -> Vec<(String, ProblemCode)> {
    global
        .problems
        .iter()
        .map(|p| (p.location.clone(), p.code))
        .collect()
}

#[test]
fn defaults_fit_the_types() {
    let global = Home::new().load(None);
    assert!(global.config.shield.drop_on_task_run);
    assert_eq!(global.terokd.rpc.max_message_bytes, 10_485_760);
    assert_eq!(global.terokd.shield_profiles("x"), ["dev-standard"]);
    assert!(global.launch_fault().is_none());
}

/// Every key of the tables has a field: a tree where each one is set must arrive.
#[test]
fn every_key_reaches_its_type() {
    let home = Home::new();
    home.config("vault: {port: 5, ssh_signer_port: 6}\ngate_server: {port: 7}\nrun: {gpus: all, runtime: krun, hooks: {pre_start: a, post_stop: false}}\nimage: {family: rpm}\nservices: {mode: tcp}\ntasks: {name_categories: x}\nshield: {profiles: {a: 1}, on_task_restart: up}\nssh: {use_personal: yes}\n");
    home.write(".config/terok/terokd.yml", "tasks: {on_boot: restart_running, max_running: 3}\ngit: {backend: cli}\nssh: {host_keys: strict}\nvault: {token_store: daemon}\nprojects: {a: {shield_profiles: [x], pids_limit: 9}}\n");
    let global = home.load(None);
    assert_eq!(codes(&global), []);
    assert_eq!(global.config.vault.port, Some(5));
    assert_eq!(global.config.run.hooks["post_stop"], json!(false));
    assert_eq!(global.terokd.tasks.on_boot, typed::OnBoot::RestartRunning);
    assert_eq!(global.terokd.shield_profiles("a"), ["x"]);
    assert_eq!(global.terokd.shield_profiles("b"), ["dev-standard"]);
}

#[test]
fn a_bad_key_does_not_reset_what_protects() {
    let home = Home::new();
    home.config("shield: {drop_on_task_run: false}\n");
    let first = home.load(None);
    assert!(!first.config.shield.drop_on_task_run);
    home.config("shield: {drop_on_task_run: false}\ntuii: 1\n");
    let second = home.load(Some(&first));
    assert!(!second.config.shield.drop_on_task_run);
    assert_eq!(codes(&second), [("tuii".into(), ProblemCode::UnknownKey)]);
    home.config("shield: {drop_on_task_run: perhaps}\nlogs: {partial_streaming: no}\n");
    let third = home.load(Some(&second));
    assert!(
        !third.config.shield.drop_on_task_run,
        "the last good value stays"
    );
    assert!(
        !third.config.logs.partial_streaming,
        "other sections follow"
    );
    assert!(third.launch_fault().is_none());
    home.config("shield: {drop_on_task_run: [\n");
    let fourth = home.load(Some(&third));
    assert!(!fourth.config.shield.drop_on_task_run);
    assert_eq!(fourth.problems[0].code, ProblemCode::Syntax);
    assert!(fourth.launch_fault().is_none());
    home.config("logs: {}\n");
    let fifth = home.load(Some(&fourth));
    assert!(fifth.config.shield.drop_on_task_run);
    assert_eq!(codes(&fifth), []);
}

#[test]
fn broken_from_the_start_forbids_launching() {
    let home = Home::new();
    home.config("shield: {drop_on_task_run: perhaps}\ndefault_agent: codex\n");
    let global = home.load(None);
    assert_eq!(global.config.default_agent.as_deref(), Some("codex"));
    assert_eq!(global.invalid_sections(), ["shield"]);
    let fault = global.launch_fault().unwrap();
    assert_eq!(fault.kind, Kind::InvalidConfig);
    assert_eq!(
        fault.data["errors"][0]["location"],
        json!("shield.drop_on_task_run")
    );
    home.config("sheild: {drop_on_task_run: false}\n");
    assert_eq!(home.load(None).invalid_sections(), ["shield"]);
    home.config("- a\n");
    assert!(home.load(None).launch_fault().is_some());
    home.config("default_agent: x\n");
    assert!(home.load(Some(&global)).launch_fault().is_none());
}

#[test]
fn layers_merge_and_say_where_values_come_from() {
    let home = Home::new();
    let prefix = home.dir.path().join("pfx");
    let home = Home {
        vars: vec![("TEROK_PREFIX".into(), prefix.display().to_string())],
        ..home
    };
    home.write(
        "pfx/etc/terok/config.yml",
        "default_agent: codex\nrun:\n  cpus: 2\n  memory: 1g\n",
    );
    home.config("run:\n  memory: 2g\n  cpus: null\n");
    let global = home.load(None);
    assert_eq!(global.config.run.memory.as_deref(), Some("2g"));
    assert_eq!(global.config.run.cpus, None);
    let origin = |path: &[&str]| {
        let path: Vec<Step> = path.iter().map(|key| Step::from(*key)).collect();
        global
            .config_layers
            .origin(&path)
            .map(|(layer, line)| (layer.origin, line))
    };
    assert_eq!(origin(&["run", "memory"]), Some((Origin::User, Some(2))));
    assert_eq!(origin(&["default_agent"]), Some((Origin::Prefix, Some(1))));
    assert_eq!(origin(&["run", "cpus"]), None);
    assert_eq!(origin(&["run", "timezone"]), None);
}

#[test]
fn an_override_stands_alone() {
    let home = Home::with(&[("TEROK_CONFIG_FILE", "~/c.yml")]);
    home.config("default_agent: a\n")
        .write("c.yml", "default_login: b\n")
        .write("terokd.yml", "rpc: {max_batch: 7}\n");
    let global = home.load(None);
    assert_eq!(global.config.default_agent, None);
    assert_eq!(global.config.default_login.as_deref(), Some("b"));
    assert_eq!(global.terokd.rpc.max_batch, 7);
    assert_eq!(
        global.paths.global_config_path,
        fs::canonicalize(home.dir.path()).unwrap().join("c.yml")
    );
}

#[test]
fn some_changes_wait_for_a_restart() {
    let home = Home::new();
    home.config("paths: {root: ~/a}\nvault: {port: 5}\n");
    let first = home.load(None);
    home.config("paths: {root: ~/b, build_dir: ~/x}\n");
    let second = home.load(Some(&first));
    assert_eq!(
        codes(&second),
        [
            ("paths.root".into(), ProblemCode::RestartRequired),
            ("vault.port".into(), ProblemCode::RestartRequired),
        ]
    );
    assert!(second.paths.state_root.ends_with("a"));
    assert!(second.paths.build_dir.ends_with("x"));
    assert_eq!(second.config.vault.port, Some(5));
    home.config("paths: {root: ~/a}\nvault: {port: 5}\n");
    assert_eq!(codes(&home.load(Some(&second))), []);
}

#[test]
fn secrets_stay_inside() {
    let home = Home::new();
    home.config("credentials: {passphrase: hunter2, passphrase_command: 'cat hunter3'}\n");
    let global = home.load(None);
    assert_eq!(
        global
            .config
            .credentials
            .passphrase
            .as_ref()
            .unwrap()
            .expose(),
        "hunter2"
    );
    let shown = format!(
        "{global:?} {:?} {:?}",
        global.config_layers, global.config_layers.layers
    );
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(
        !serde_json::to_string(&global.problems)
            .unwrap()
            .contains("hunter")
    );
    assert_eq!(global.problems.len(), 2, "in clear, and readable by others");
    let path = home.dir.path().join(".config/terok/config.yml");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(home.load(None).problems.len(), 1);
}

#[test]
fn oauth_modes() {
    let home = Home::new();
    home.config("experimental: yes\nagent: {claude: {allow_oauth: true}, codex: {allow_oauth: yes, expose_oauth_token: true}}\n");
    let config = home.load(None).config;
    assert_eq!(
        config.oauth("claude"),
        typed::OauthModes {
            exposed: false,
            proxied: true,
            enabled: true
        }
    );
    assert_eq!(
        config.oauth("codex"),
        typed::OauthModes {
            exposed: true,
            proxied: false,
            enabled: true
        }
    );
    assert!(config.oauth("other").enabled);
    home.config("agent: {claude: 5}\n");
    assert!(!home.load(None).config.oauth("claude").enabled);
}
