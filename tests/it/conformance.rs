//! Replays the recorded behaviour of the reference (`tests/vectors`) through the daemon's real socket.
//!
//! A rule of comparison per kind of record; cases of class `core` must match, `quirk` is not replayed.

use serde_json::{Map, Value, json};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use terok_tests::{Client, Daemon, RpcError, World};

type Answer = Result<Value, RpcError>;
/// What differs; `None` when the case cannot be judged from outside.
type Verdict = Option<Vec<String>>;

const AGREED: Verdict = Some(Vec::new());

/// Records that the specification overrules; ARCHITECTURE.md says why. One that agrees again has to leave this list.
const DEVIATIONS: [(&str, &str); 1] = [
    // A bad key costs its own section, not the valid ones beside it.
    ("paths", "cfg-invalid-elsewhere-paths-still-raw"),
];

fn records(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.into_iter()
        .filter(|case| case["class"] == "core")
        .collect()
}

/// Runs every record of one kind and reports all that differ at once.
fn replay(name: &str, judge: impl Fn(&Value, &Value) -> Verdict) {
    let (mut failed, mut judged) = (Vec::new(), 0);
    for case in records(name) {
        let kind = name;
        let name = case["name"].as_str().unwrap_or("unnamed").to_owned();
        let deviates = DEVIATIONS.contains(&(kind, name.as_str()));
        match catch_unwind(AssertUnwindSafe(|| judge(&case["input"], &case["expect"]))) {
            Ok(None) => {}
            Ok(Some(differences)) if deviates => {
                judged += 1;
                if differences.is_empty() {
                    failed.push(format!("{name} agrees: it is no deviation any more"));
                }
            }
            Ok(Some(differences)) => {
                judged += 1;
                if !differences.is_empty() {
                    failed.push(format!(
                        "{name}\n        {}",
                        differences.join("\n        ")
                    ));
                }
            }
            Err(_) => failed.push(format!("{name}: panicked, see above")),
        }
    }
    assert!(judged > 0, "no record of {name} was judged");
    assert!(
        failed.is_empty(),
        "{} of {judged} differ:\n    {}",
        failed.len(),
        failed.join("\n    ")
    );
}

/// A world with the files and the environment of a record.
fn world(input: &Value) -> World {
    let mut world = World::new();
    for (path, content) in input["files"].as_object().into_iter().flatten() {
        put(&mut world, path, content);
    }
    for (name, value) in input["env"].as_object().into_iter().flatten() {
        world = world.env(name, value.as_str().unwrap());
    }
    world
}

fn put(world: &mut World, path: &str, content: &Value) {
    if let Some(text) = content.as_str() {
        world.write(path, world.real(text));
        return;
    }
    if content["dir"] == json!(true) {
        world.mkdirs(&world.path(path));
    } else if let Some(target) = content["symlink"].as_str() {
        world.link(path, target);
    } else if let Some(encoded) = content["base64"].as_str() {
        world.write(path, decode_base64(encoded));
    } else if let Some(text) = content["text"].as_str() {
        world.write(path, world.real(text));
    }
    if let Some(mode) = content["mode"].as_str() {
        world.mode_at_start(path, u32::from_str_radix(mode, 8).unwrap());
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        let six = ALPHABET.iter().position(|a| *a == byte).expect("base64");
        bits = bits << 6 | u32::try_from(six).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    out
}

/// Calls with placeholders replaced, and puts them back into the result.
fn ask(world: &World, daemon: &Daemon, method: &str, params: Value) -> Answer {
    daemon
        .call(method, world.real_value(&params))
        .map(|result| world.symbolic(&result))
}

/// Where `got` lacks or contradicts `want`. Additional members of objects are allowed.
fn differences(want: &Value, got: &Value, at: &str) -> Vec<String> {
    const INEXPRESSIBLE: [&str; 6] = [
        "$float",
        "$repr",
        "$tagged",
        "$bytes_b64",
        "$date",
        "$timestamp",
    ];
    match (want, got) {
        (Value::Object(want), _) if INEXPRESSIBLE.iter().any(|k| want.contains_key(*k)) => {
            Vec::new()
        }
        (Value::Object(want), Value::Object(got)) => want
            .iter()
            .flat_map(|(key, value)| match got.get(key) {
                Some(got) => differences(value, got, &format!("{at}.{key}")),
                None => vec![format!("{at}.{key} is missing")],
            })
            .collect(),
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => want
            .iter()
            .zip(got)
            .enumerate()
            .flat_map(|(i, (w, g))| differences(w, g, &format!("{at}[{i}]")))
            .collect(),
        _ if same_scalar(want, got) => Vec::new(),
        _ => vec![format!("{at}: want {want:.120}, got {got:.160}")],
    }
}

fn same_scalar(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Number(w), Value::Number(g)) => w == g || w.as_f64() == g.as_f64(),
        _ => want == got,
    }
}

/// Compares an answer with a recorded outcome, of which `ok` is what counts.
fn outcome(expect: &Value, answer: &Answer, ok: &Value) -> Verdict {
    match (expect["error"] == json!(true), answer) {
        (true, Ok(result)) => Some(vec![format!(
            "want an error ({:.80}), got {result:.120}",
            expect["message"]
        )]),
        (true, Err(error)) => Some(wrong_fields(expect, error)),
        (false, Err(error)) => Some(vec![format!("want {ok:.100}, got {error:?}")]),
        (false, Ok(result)) => Some(differences(ok, result, "")),
    }
}

fn wrong_fields(expect: &Value, error: &RpcError) -> Vec<String> {
    let Some(fields) = expect["fields"].as_array() else {
        return Vec::new();
    };
    let mut want: Vec<&str> = fields.iter().filter_map(Value::as_str).collect();
    let errors = error.data["errors"].as_array().into_iter().flatten();
    let mut said: Vec<&str> = errors.filter_map(|e| e["location"].as_str()).collect();
    want.sort_unstable();
    said.sort_unstable();
    said.dedup();
    if want == said {
        Vec::new()
    } else {
        vec![format!(
            "want errors at {want:?}, got {said:?} ({})",
            error.message
        )]
    }
}

/// A YAML file as data; `None` when it holds what JSON cannot express.
fn yaml(text: &str) -> Option<Value> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    value.apply_merge().ok()?;
    serde_json::to_value(&value).ok()
}

/// Replaces what the two YAML readers see differently in a scalar: `012` and the like.
fn yaml_differences(want: &Value, text: &str) -> Verdict {
    yaml(text).map(|got| differences(want, &got, "project.yml"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn project_yaml() {
    replay("project_yaml", |input, expect| {
        let world = world(input);
        let answer = ask(
            &world,
            &world.start(),
            "load_project",
            json!({"project_id": input["project_id"]}),
        );
        outcome(expect, &answer, &expect["ok"])
    });
}

#[test]
fn discover_projects() {
    replay("discover_projects", |input, expect| {
        let world = world(input);
        let answer = ask(&world, &world.start(), "discover_projects", json!({}));
        let broken = expect["ok"]["broken"].as_array().into_iter().flatten();
        let broken: Vec<Value> = broken
            .map(|b| json!({"id": b["id"], "config_path": b["config_path"]}))
            .collect();
        outcome(
            expect,
            &answer,
            &json!({"projects": expect["ok"]["valid"], "broken": broken}),
        )
    });
}

#[test]
fn projects_sharing_gate() {
    replay("projects_sharing_gate", |input, expect| {
        let world = world(input);
        let params =
            json!({"gate_path": input["gate_path"], "exclude_project": input["exclude_project"]});
        let answer = ask(&world, &world.start(), "find_projects_sharing_gate", params);
        outcome(expect, &answer, &expect["ok"])
    });
}

#[test]
fn derive_project() {
    replay("derive_project", |input, expect| {
        let world = world(input);
        let daemon = world.start();
        let params = json!({"source_id": input["source_id"], "new_id": input["new_id"]});
        let answer = ask(&world, &daemon, "derive_project", params);
        if answer.is_err() || expect["error"] == json!(true) {
            return outcome(expect, &answer, &expect["ok"]);
        }
        let ok = &expect["ok"];
        let root = world.path(ok["root"].as_str().unwrap());
        let (mut found, mut want) = (files(&root), strings(&ok["files"]));
        found.sort();
        want.sort();
        let mut wrong = if found == want {
            Vec::new()
        } else {
            vec![format!("files {found:?}, want {want:?}")]
        };
        let text = world.symbolic(&json!(read(&root.join("project.yml"))));
        wrong.extend(yaml_differences(&ok["parsed"], text.as_str().unwrap()).unwrap_or_default());
        let loads = ask(
            &world,
            &daemon,
            "load_project",
            json!({"project_id": input["new_id"]}),
        );
        if loads.is_ok() != (ok["loads"] == json!(true)) {
            wrong.push(format!("loads: {loads:?}"));
        }
        Some(wrong)
    });
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Files below a directory, relative to it.
fn files(root: &Path) -> Vec<String> {
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    all
}

#[test]
fn set_project_image_agents() {
    replay("set_project_image_agents", |input, expect| {
        let mut world = world(input);
        put(
            &mut world,
            "$CONFIG/projects/demo/project.yml",
            &input["project_yml"],
        );
        let params = json!({"project_id": "demo", "selection": input["selection"]});
        let answer = ask(&world, &world.start(), "set_project_image_agents", params);
        let ok = &expect["ok"];
        let Ok(path) = &answer else {
            return outcome(expect, &answer, ok);
        };
        if expect["error"] == json!(true) {
            return outcome(expect, &answer, ok);
        }
        let mut wrong = differences(&ok["path"], path, "path");
        let text = read(&world.path(ok["path"].as_str().unwrap()));
        for line in ok["text"].as_str().unwrap().lines() {
            if let Some(at) = line.find('#')
                && !text.contains(line[at..].trim())
            {
                wrong.push(format!("comment lost: {line:?}"));
            }
        }
        wrong.extend(yaml_differences(&ok["parsed"], &text).unwrap_or_default());
        Some(wrong)
    });
}

#[test]
fn list_presets() {
    replay("list_presets", |input, expect| {
        let world = world(input);
        let answer = ask(
            &world,
            &world.start(),
            "project.list_presets",
            json!({"project_id": input["project_id"]}),
        );
        let mut want = expect["ok"].clone();
        for preset in want.as_array_mut().into_iter().flatten() {
            if preset["source"] == "bundled" {
                preset.as_object_mut().unwrap().remove("path");
            }
        }
        outcome(expect, &answer, &want)
    });
}

#[test]
fn load_preset() {
    replay("load_preset", |input, expect| {
        if expect.to_string().contains("$BUNDLED") {
            return None;
        }
        let world = world(input);
        let params = json!({"project_id": input["project_id"], "name": input["preset"]});
        outcome(
            expect,
            &ask(&world, &world.start(), "project.load_preset", params),
            &expect["ok"],
        )
    });
}

#[test]
fn agent_config() {
    replay("agent_config", |input, expect| {
        // The bundled presets have texts of their own here.
        if expect.to_string().contains("$BUNDLED")
            || ["review", "solo", "team"]
                .iter()
                .any(|p| input["preset"] == *p)
        {
            return None;
        }
        let world = world(input);
        let params = json!({"project_id": input["project_id"], "preset": input["preset"], "cli_overrides": input["cli_overrides"]});
        let answer = ask(
            &world,
            &world.start(),
            "project.agents.resolve_config",
            params,
        );
        match &answer {
            // No additional members here: this is what an agent is configured with.
            Ok(result) if expect["error"] != json!(true) && *result != expect["ok"] => {
                Some(vec![format!(
                    "want {:.200}, got {result:.200}",
                    expect["ok"]
                )])
            }
            _ => outcome(expect, &answer, &expect["ok"]),
        }
    });
}

#[test]
fn paths() {
    replay("paths", |input, expect| {
        let world = world(input);
        outcome(
            expect,
            &ask(&world, &world.start(), "daemon.paths", json!({})),
            &expect["ok"],
        )
    });
}

#[test]
fn project_id() {
    replay("project_id", |input, expect| {
        let id = input["id"].as_str().unwrap();
        let valid = expect["ok"] == json!(true);
        let world = World::new();
        if !id.is_empty() && !id.contains(['/', '\0']) && id != "." && id != ".." && id.len() < 200
        {
            world.write(
                &format!("$CONFIG/projects/{id}/project.yml"),
                "project: {security_class: online}\n",
            );
        } else if valid {
            return None; // valid, but no file system holds a directory of that name
        }
        let answer = world
            .start()
            .call("load_project", json!({"project_id": id}));
        if answer.is_ok() == valid {
            AGREED
        } else {
            Some(vec![format!("{id:?}: want valid={valid}, got {answer:?}")])
        }
    });
}

/// A world whose only project says this, written as JSON, which is YAML too.
fn demo(text: Value) -> World {
    World::new().project("demo", &text.to_string())
}

#[test]
fn git_authorship() {
    replay("git_authorship", |input, expect| {
        let world = demo(
            json!({"project": {"security_class": "online"}, "git": {"authorship": input["value"]}}),
        );
        let answer = ask(
            &world,
            &world.start(),
            "load_project",
            json!({"project_id": "demo"}),
        );
        outcome(
            expect,
            &answer.map(|config| config["git_authorship"].clone()),
            &expect["ok"],
        )
    });
}

#[test]
fn ssh_url() {
    replay("ssh_url", |input, expect| {
        let world = demo(
            json!({"project": {"security_class": "online"}, "git": {"upstream_url": input["url"]}}),
        );
        let answer = ask(
            &world,
            &world.start(),
            "project.needs_ssh_key_registration",
            json!({"project_id": "demo"}),
        );
        outcome(expect, &answer, &expect["ok"]["needs_ssh_key_registration"])
    });
}

/// One daemon for records that need no files; its parameters go as they stand.
fn replay_pure(name: &str, judge: impl Fn(&mut Client, &Value, &Value) -> Verdict) {
    let world = World::new();
    let daemon = world.start();
    replay(name, |input, expect| {
        judge(&mut daemon.connect(), input, expect)
    });
}

#[test]
fn validate_answer() {
    replay_pure("validate_answer", |client, input, expect| {
        let answer = client.call(
            "validate_answer",
            json!({"question": input["question"], "raw": input["raw"]}),
        );
        let Ok(result) = &answer else {
            return outcome(expect, &answer, &expect["ok"]);
        };
        let mut wrong = differences(&expect["ok"]["value"], &result["value"], "value");
        if expect["ok"]["error"].is_null() != result["error"].is_null() {
            wrong.push(format!(
                "error: want {}, got {}",
                expect["ok"]["error"], result["error"]
            ));
        }
        Some(wrong)
    });
}

#[test]
fn slugify() {
    replay_pure("slugify", |client, input, expect| {
        let answer = client.call(
            "validate_answer",
            json!({"question": "project_id", "raw": input["raw"]}),
        );
        outcome(
            expect,
            &answer.map(|result| result["value"].clone()),
            &expect["ok"],
        )
    });
}

#[test]
fn render_project_yaml() {
    replay_pure("render_project_yaml", |client, input, expect| {
        let answer = client.call("render_project_yaml", json!({"values": input["values"]}));
        match &answer {
            Ok(text) if expect["error"] != json!(true) => {
                yaml_differences(&expect["ok"]["parsed"], text.as_str().unwrap())
            }
            _ => outcome(expect, &answer, &expect["ok"]),
        }
    });
}

#[test]
fn agent_selection() {
    replay_pure("agent_selection", |client, input, expect| {
        let answer = client.call("agents.parse_selection", json!({"selection": input["raw"]}));
        if expect["error"] == json!(true) || expect["ok"].get("resolve_error").is_some() {
            return if answer.is_err() {
                AGREED
            } else {
                Some(vec![format!("want an error, got {answer:?}")])
            };
        }
        outcome(expect, &answer, &expect["ok"]["resolved"])
    });
}

#[test]
fn format_panic_report() {
    replay_pure("format_panic_report", |client, input, expect| {
        let answer = client.call("format_panic_report", json!({"result": input["result"]}));
        outcome(expect, &answer, &expect["ok"]["text"])
    });
}

/// The reference archives and removes; whatever it removed goes here too, in the same order.
#[test]
fn delete_project() {
    replay("delete_project", |input, expect| {
        let world = world(input);
        let daemon = world.start();
        let answer = ask(
            &world,
            &daemon,
            "delete_project",
            json!({"project_id": input["project_id"]}),
        );
        // A refusal of the reference is recorded as a value here.
        let refused = expect["ok"]["failed"].is_string() || expect["error"] == json!(true);
        let result = match &answer {
            Err(_) if refused => return AGREED,
            Ok(result) if !refused => result,
            _ => return Some(vec![format!("want {:.200}, got {answer:?}", expect["ok"])]),
        };
        let ours = strings(&result["deleted"]);
        // The vault does not exist here, so what was said about its keys does not apply.
        let mut wrong: Vec<String> = strings(&expect["ok"]["deleted"])
            .into_iter()
            .filter(|path| path.starts_with('$') && !ours.contains(path))
            .map(|path| format!("{path} is not deleted: {result}"))
            .collect();
        let paths = |value: &Value| {
            strings(value)
                .into_iter()
                .filter(|l| l.contains("outside managed"))
                .count()
        };
        if paths(&expect["ok"]["skipped"]) != paths(&result["skipped"]) {
            wrong.push(format!(
                "skipped: want {}, got {}",
                expect["ok"]["skipped"], result["skipped"]
            ));
        }
        let id = input["project_id"].as_str().unwrap();
        let archive = result["archive"].as_str().unwrap_or_default().to_owned();
        if !archive.starts_with("$DATA/archive/20") || !archive.ends_with(&format!("Z_{id}.tar.gz"))
        {
            wrong.push(format!("archive {archive:?}"));
            return Some(wrong);
        }
        let listed = std::process::Command::new("tar")
            .arg("-tzf")
            .arg(world.path(&archive))
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for member in strings(&expect["ok"]["archive_members"]) {
            if !listed.lines().any(|l| l.trim_start_matches("./") == member) {
                wrong.push(format!("{member} is not in the archive: {listed:?}"));
            }
        }
        for (path, _) in expect["ok"]["tree_after"]
            .as_object()
            .unwrap_or(&Map::new())
        {
            if !path.contains("TIMESTAMP") && world.path(path).symlink_metadata().is_err() {
                wrong.push(format!("{path} is gone"));
            }
        }
        Some(wrong)
    });
}
