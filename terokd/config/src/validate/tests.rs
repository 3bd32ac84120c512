use super::*;
use crate::yaml::parse;
use serde_json::json;

fn run(scope: Scope, text: &str) -> Checked {
    let document = parse(text).unwrap();
    let tree = root(scope, &document.value).unwrap();
    check(scope, &tree, &Places::one(None, &document))
}

fn errors(scope: Scope, text: &str) -> Vec<(String, ProblemCode)> {
    run(scope, text)
        .problems
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| (problem.location, problem.code))
        .collect()
}

fn locations(scope: Scope, text: &str) -> Vec<String> {
    errors(scope, text).into_iter().map(|(at, _)| at).collect()
}

#[test]
fn everything_is_reported_at_once_in_table_order() {
    let text = "zzz: 1\nrun:\n  hook: x\n  hooks: {on_crash: y, pre_start: 5}\n  shutdown_timeout: ten\nprojecct: {}\nproject: {id: A}\n";
    assert_eq!(
        locations(Scope::Project, text),
        [
            "project.id",
            "run.shutdown_timeout",
            "run.hooks.pre_start",
            "run.hooks.on_crash",
            "run.hook",
            "zzz",
            "projecct"
        ]
    );
    let problems = run(Scope::Project, text).problems;
    let at = |location: &str| problems.iter().find(|p| p.location == location).unwrap();
    assert_eq!(at("projecct").suggestion.as_deref(), Some("project"));
    assert_eq!(
        (at("projecct").line, at("projecct").column),
        (Some(6), Some(1))
    );
    assert_eq!(
        (
            at("run.hooks.on_crash").line,
            at("run.hooks.on_crash").column
        ),
        (Some(4), Some(11))
    );
    assert_eq!(
        (
            at("run.shutdown_timeout").line,
            at("run.shutdown_timeout").column
        ),
        (Some(5), Some(21))
    );
    assert_eq!(at("run.hook").suggestion.as_deref(), Some("hooks"));
    assert_eq!(at("zzz").suggestion, None);
}

#[test]
fn booleans_are_lenient() {
    let enabled = |value: &str| {
        run(Scope::Project, &format!("gate: {{enabled: {value}}}\n")).tree["gate"]
            .get("enabled")
            .cloned()
    };
    for yes in ["true", "yes", "ON", "'t'", "1", "1.0", "'1'", "Y"] {
        assert_eq!(enabled(yes), Some(json!(true)), "{yes}");
    }
    for no in ["false", "no", "Off", "f", "0", "0.0", "n"] {
        assert_eq!(enabled(no), Some(json!(false)), "{no}");
    }
    for bad in ["2", "''", "'on '", "[]", "{}", "~", "maybe"] {
        assert_eq!(enabled(bad), None, "{bad}");
        assert_eq!(
            locations(Scope::Project, &format!("gate: {{enabled: {bad}}}\n")),
            ["gate.enabled"]
        );
    }
}

#[test]
fn integers_are_lenient() {
    let timeout = |value: &str| {
        run(
            Scope::Project,
            &format!("run: {{shutdown_timeout: {value}}}\n"),
        )
    };
    for (text, want) in [
        ("15", 15),
        ("5.0", 5),
        ("1e1", 10),
        ("' +15 '", 15),
        ("'1_0'", 10),
        ("'5.00'", 5),
        ("010", 10),
        ("0x1F", 31),
    ] {
        let checked = timeout(text);
        assert_eq!(
            checked.tree["run"]["shutdown_timeout"],
            json!(want),
            "{text}"
        );
        assert!(checked.problems.is_empty(), "{text}");
    }
    for (text, want, code) in [
        ("true", 1, ProblemCode::WrongType),
        ("-3", 0, ProblemCode::OutOfRange),
        ("100000000000000000000", 86_400, ProblemCode::OutOfRange),
    ] {
        let checked = timeout(text);
        assert_eq!(
            checked.tree["run"]["shutdown_timeout"],
            json!(want),
            "{text}"
        );
        assert_eq!(
            (checked.problems[0].code, checked.problems[0].severity),
            (code, Severity::Warning)
        );
    }
    for bad in [
        "5.5", "'0x10'", "''", "~", "[1]", "'1__0'", "'_1'", "'5.'", ".inf", "'٣'",
    ] {
        assert_eq!(
            locations(
                Scope::Project,
                &format!("run: {{shutdown_timeout: {bad}}}\n")
            ),
            ["run.shutdown_timeout"],
            "{bad}"
        );
    }
}

#[test]
fn strings_are_strict() {
    for bad in ["5", "1.5", "true", "[a]", "{a: b}", ".inf", ".nan"] {
        assert_eq!(
            locations(Scope::Project, &format!("git: {{upstream_url: {bad}}}\n")),
            ["git.upstream_url"],
            "{bad}"
        );
    }
    assert_eq!(
        run(Scope::Project, "git: {upstream_url: ' x '}\n").tree["git"]["upstream_url"],
        json!(" x ")
    );
    assert_eq!(
        run(Scope::Project, "git: {upstream_url: ~}\n").tree["git"],
        json!({})
    );
}

#[test]
fn quantities_follow_podman() {
    for (text, want) in [
        ("4g", "4g"),
        ("'4 G'", "4 G"),
        ("4gib", "4gib"),
        ("4i", "4i"),
        ("4b", "4b"),
        ("0", "0"),
        ("1024", "1024"),
        ("2.0", "2.0"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("1.5g", "1.5g"),
    ] {
        let checked = run(Scope::Project, &format!("run: {{memory: {text}}}\n"));
        assert_eq!(checked.tree["run"]["memory"], json!(want), "{text}");
    }
    for bad in [
        "4x", "4.g", "' 4g'", "'4g '", "-1", "true", "1e-7", ".inf", "[4g]", "'٤g'", ".5g", "4g4",
    ] {
        assert_eq!(
            locations(Scope::Project, &format!("run: {{memory: {bad}}}\n")),
            ["run.memory"],
            "{bad}"
        );
    }
    assert!(
        run(Scope::Project, "run: {cpus: '  '}\n").tree["run"]
            .get("cpus")
            .is_none()
    );
    assert_eq!(
        locations(Scope::Project, "run: {cpus: two}\n"),
        ["run.cpus"]
    );
}

#[test]
fn unions_report_every_alternative() {
    assert_eq!(
        locations(Scope::Project, "run: {gpus: [0]}\nshared_dir: 2\n"),
        [
            "run.gpus.bool",
            "run.gpus.str",
            "shared_dir.bool",
            "shared_dir.str"
        ]
    );
    let checked = run(Scope::Project, "run: {gpus: 1}\nshared_dir: 0\n");
    assert_eq!(checked.tree["run"]["gpus"], json!(true));
    assert_eq!(checked.tree["shared_dir"], json!(false));
}

#[test]
fn lists_and_categories() {
    assert_eq!(
        locations(
            Scope::Project,
            "gatekeeping: {auto_sync: {branches: [1, a, 2]}}\n"
        ),
        [
            "gatekeeping.auto_sync.branches.0",
            "gatekeeping.auto_sync.branches.2"
        ]
    );
    let one = run(
        Scope::Project,
        "gatekeeping: {auto_sync: {branches: main}}\n",
    );
    assert_eq!(
        one.tree["gatekeeping"]["auto_sync"]["branches"],
        json!(["main"])
    );
    assert_eq!(
        run(Scope::Project, "tasks: {name_categories: ' a '}\n").tree["tasks"]["name_categories"],
        json!(["a"])
    );
    assert!(
        run(Scope::Project, "tasks: {name_categories: []}\n").tree["tasks"]
            .get("name_categories")
            .is_none()
    );
    for bad in ["[a, 1]", "42", "{a: b}"] {
        assert_eq!(
            locations(
                Scope::Project,
                &format!("tasks: {{name_categories: {bad}}}\n")
            ),
            ["tasks.name_categories"]
        );
    }
}

#[test]
fn keys_of_other_files_name_their_file() {
    let problems = run(
        Scope::Global,
        "rpc: {max_batch: 5}\nvault: {agent_confirm: true}\ngit: {upstream_url: x}\n",
    )
    .problems;
    let message = |location: &str| {
        problems
            .iter()
            .find(|p| p.location == location)
            .unwrap()
            .message
            .clone()
    };
    assert!(message("rpc").contains("terokd.yml"));
    assert!(message("vault.agent_confirm").contains("terokd.yml"));
    assert!(message("git.upstream_url").contains("project.yml"));
    assert!(problems.iter().all(|p| p.code == ProblemCode::UnknownKey));
}

#[test]
fn ports_and_ranges() {
    assert_eq!(
        locations(
            Scope::Global,
            "vault: {port: 70000}\nnetwork: {port_range_start: 30000, port_range_end: 20000}\n"
        ),
        ["vault.port", "network"]
    );
    assert!(
        locations(
            Scope::Global,
            "network: {port_range_start: 20000, port_range_end: 20000}\n"
        )
        .is_empty()
    );
    assert_eq!(
        locations(Scope::Global, "network: {port_range_start: 32701}\n"),
        ["network"]
    );
}

#[test]
fn secrets_are_not_quoted() {
    let problems = run(
        Scope::Global,
        "credentials: {passphrase: 12345, passphrase_command: [hunter2]}\n",
    )
    .problems;
    assert_eq!(problems.len(), 2);
    let text = serde_json::to_string(&problems).unwrap();
    assert!(
        !text.contains("12345") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn doubtful_values_are_warnings() {
    let warned = |text: &str| {
        let problems = run(Scope::Project, text).problems;
        assert!(
            problems.iter().all(|p| p.severity == Severity::Warning),
            "{text}"
        );
        problems.into_iter().map(|p| p.location).collect::<Vec<_>>()
    };
    assert_eq!(warned("run: {gpus: some}\n"), ["run.gpus"]);
    assert!(warned("run: {gpus: nvidia.com/gpu=0}\n").is_empty());
    assert!(warned("run: {gpus: ALL}\n").is_empty());
    assert_eq!(warned("image: {base_image: 'a b'}\n"), ["image.base_image"]);
    assert_eq!(warned("image: {base_image: ''}\n"), ["image.base_image"]);
    assert_eq!(warned("git: {human_name: ' '}\n"), ["git.human_name"]);
    assert_eq!(
        warned("git: {default_branch: \"a\\tb\"}\n"),
        ["git.default_branch"]
    );
}

#[test]
fn image_references() {
    let digest = format!("a@sha256:{}", "0".repeat(64));
    for good in [
        "ubuntu:24.04",
        "quay.io/podman/stable:latest",
        "localhost:5000/a/b:1",
        &digest,
        "a",
    ] {
        assert!(is_base_image(good), "{good}");
    }
    for bad in [
        "",
        "a b",
        "a:",
        "-a",
        "a-",
        "a@sha256:12",
        "a\n",
        "$(x)",
        "h:x/a",
        &"a".repeat(257),
    ] {
        assert!(!is_base_image(bad), "{bad}");
    }
}

#[test]
fn odd_keys_and_odd_roots() {
    assert_eq!(
        locations(Scope::Project, "1: x\nagent: {2: y, a: {3: z}}\n"),
        ["agent.2", "1"]
    );
    assert!(root(Scope::Project, &json!([])).is_some());
    assert!(root(Scope::Project, &json!([1])).is_none());
    assert!(root(Scope::Global, &json!("")).is_none());
    assert!(root(Scope::Project, &json!(true)).is_none());
}

#[test]
fn per_project_settings() {
    let checked = run(
        Scope::Terokd,
        "projects: {a: {pids_limit: 5, x: 1}, B: {}, c: ~}\n",
    );
    assert_eq!(checked.tree["projects"], json!({"a": {"pids_limit": 5}}));
    let at: Vec<&str> = checked
        .problems
        .iter()
        .map(|p| p.location.as_str())
        .collect();
    assert_eq!(at, ["projects.a.x", "projects.B"]);
}

#[test]
fn hostile_files_take_no_quadratic_time() {
    let mut text = String::from("gatekeeping: {auto_sync: {branches: [");
    text.push_str(&".inf, ".repeat(60_000));
    text.push_str("]}}\n");
    for i in 0..60_000 {
        text.push_str(&format!("{i}: x\n"));
    }
    let begin = std::time::Instant::now();
    let checked = run(Scope::Project, &text);
    assert!(checked.problems.len() <= MAX_PROBLEMS && !checked.is_valid());
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
