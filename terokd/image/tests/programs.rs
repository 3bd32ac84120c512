//! The helpers in images, with doubles of what they start.

use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("files/scripts")
        .join(name)
}

/// A home directory, and a directory of programs before those of the system.
struct Inside {
    dir: TempDir,
}

impl Inside {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("bin")).expect("created");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that does what the shell text says.
    fn double(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permitted");
    }

    fn command(&self, program: &Path) -> Command {
        let path = std::env::var("PATH").expect("PATH");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null());
        command
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn versions_are_recorded_for_what_answers() {
    let inside = Inside::new();
    inside.double("good", "echo 'good 1.2.3 (build \"x\")'");
    inside.double("talker", "echo 'Talker CLI 1.0.2-rc.1.'");
    inside.double("silent", "exit 1");
    inside.double("wordy", "echo no number here");
    let file = inside.path("versions.json");
    let output = inside
        .command(&script("terok-record-versions.sh"))
        .env("TEROK_VERSIONS_FILE", &file)
        .args([
            "good=good",
            "talker=talker",
            "silent=silent",
            "wordy=wordy",
            "gone=gone-from-here",
            "two=good",
        ])
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", stderr(&output));
    let written: Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("written")).expect("JSON");
    assert_eq!(
        written,
        json!({"good": "1.2.3", "talker": "1.0.2-rc.1", "two": "1.2.3"})
    );
    let read = terok_image::build::versions(&stdout(&output)).expect("the line");
    assert_eq!(json!(read), written);
}

#[test]
fn help_shows_what_is_installed() {
    let inside = Inside::new();
    fs::create_dir(inside.path("help.d")).expect("created");
    fs::write(inside.path("help.d/agents.txt"), "Claude\nCodex ü\n").expect("written");
    let output = inside
        .command(&script("hilfe"))
        .env("TEROK_SHARE", inside.dir.path())
        .output()
        .expect("sh");
    let text = stdout(&output);
    assert!(
        output.status.success() && text.contains("\nAgents\n  Claude\n  Codex ü\n"),
        "{text}"
    );
    assert!(!text.contains("\nTools\n"), "{text}");
}

/// Answers one request for `/v1/models`; its URL and what the request said.
fn models(names: &'static [&'static str]) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..read]);
        }
        let list: Vec<Value> = names.iter().map(|name| json!({"id": name})).collect();
        let body = json!({"data": list}).to_string();
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("answered");
        String::from_utf8_lossy(&request).into_owned()
    });
    (url, served)
}

fn provider(inside: &Inside, name: &str, url: &str) -> Command {
    let link = inside.path("bin").join(name);
    let _ = std::os::unix::fs::symlink(script("agents/opencode-provider.py"), &link);
    let mut command = inside.command(&link);
    command.envs([
        ("TEROK_OC_BLABLADOR_BASE_URL", url),
        ("TEROK_OC_BLABLADOR_PREFERRED_MODEL", "big"),
        ("TEROK_OC_BLABLADOR_FALLBACK_MODEL", "small"),
        ("TEROK_OC_BLABLADOR_DISPLAY_NAME", "Helmholtz Blablador"),
        ("TEROK_OC_BLABLADOR_ENV_VAR_PREFIX", "BLABLADOR"),
        ("TEROK_OC_BLABLADOR_CONFIG_DIR", ".blablador"),
    ]);
    command
}

#[test]
fn a_provider_is_offered_to_opencode() {
    let inside = Inside::new();
    inside.double("opencode", "echo \"$OPENCODE_CONFIG $*\"");
    let config = inside.path(".blablador/opencode/opencode.json");
    let read = || -> Value {
        serde_json::from_str(&fs::read_to_string(&config).expect("written")).expect("JSON")
    };

    let (url, served) = models(&["big", "other"]);
    let output = provider(&inside, "blablador", &url)
        .env("BLABLADOR_API_KEY", "k3y")
        .args(["run", "hello"])
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        stdout(&output).trim(),
        format!("{} run hello", config.display())
    );
    let request = served.join().expect("served");
    assert!(
        request.starts_with("GET /v1/models ") && request.contains("Bearer k3y"),
        "{request}"
    );
    let written = read();
    assert_eq!(written["model"], "blablador/big");
    assert_eq!(
        written["provider"]["blablador"]["options"]["baseURL"],
        json!(url)
    );
    assert!(
        !written.to_string().contains("k3y"),
        "the key stays in the environment"
    );
    assert_eq!(
        fs::metadata(&config).expect("written").permissions().mode() & 0o777,
        0o600
    );

    // What the user chose stays; the key may come from the login's file; an editor is served the same way.
    let mut own = written;
    own["model"] = json!("another/model");
    own["permission"] = json!({"bash": "ask"});
    own["theme"] = json!("dark");
    fs::write(&config, own.to_string()).expect("written");
    fs::write(
        inside.path(".blablador/config.json"),
        r#"{"api_key": "fromfile"}"#,
    )
    .expect("written");
    let (url, served) = models(&["other"]);
    let output = provider(&inside, "blablador-acp", &url)
        .output()
        .expect("python3");
    assert!(
        stdout(&output).trim().ends_with("opencode.json acp"),
        "{} {}",
        stdout(&output),
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("using other"),
        "{}",
        stderr(&output)
    );
    assert!(served.join().expect("served").contains("Bearer fromfile"));
    let kept = read();
    assert_eq!(
        (&kept["model"], &kept["theme"]),
        (&json!("another/model"), &json!("dark"))
    );
    assert_eq!(kept["permission"], json!({"bash": "ask"}));
    assert_eq!(
        kept["provider"]["blablador"]["models"],
        json!({"other": {"name": "other"}})
    );
}

#[test]
fn a_provider_without_key_says_so() {
    let inside = Inside::new();
    let output = provider(&inside, "blablador", "http://127.0.0.1:9/v1")
        .output()
        .expect("python3");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("BLABLADOR_API_KEY"),
        "{}",
        stderr(&output)
    );
    let output = provider(&inside, "blablador", "http://127.0.0.1:9/v1")
        .env("BLABLADOR_API_KEY", "k")
        .output()
        .expect("python3");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot be listed") && !stderr(&output).contains("Traceback"),
        "{}",
        stderr(&output)
    );
}

fn toad(inside: &Inside, token: &str) -> Command {
    fs::write(inside.path("toad.token"), token).expect("written");
    inside.double("init-ssh-and-repo.sh", "echo '>> init complete'");
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .expect("bound")
            .local_addr()
            .expect("an address")
            .port()
            .to_string()
    };
    let mut command = inside.command(&script("agents/terok-toad-entry"));
    command
        .env("TEROK_TOAD_TOKEN_FILE", inside.path("toad.token"))
        .env("TOAD_PUBLIC_PORT", free())
        .env("TOAD_INTERNAL_PORT", free())
        .args(["--public-url", "http://127.0.0.1:1", "/workspace"]);
    command
}

const LISTEN: &str = "exec python3 -c 'import socket, sys, time\nlistener = socket.create_server((\"127.0.0.1\", int(sys.argv[1])))\nopen(sys.argv[2], \"w\").close()\nwhile True: time.sleep(60)'";

#[test]
fn toad_is_ready_when_both_ends_listen_and_ends_with_either() {
    let inside = Inside::new();
    inside.double("caddy", &format!("[[ $TEROK_TOAD_COOKIE == terok_token=t0k ]] || exit 9\n{LISTEN} \"$TOAD_PUBLIC_PORT\" {}", inside.path("proxy-up").display()));
    inside.double("toad", &format!("[[ -z ${{TEROK_TOAD_TOKEN:-}} ]] || exit 9\necho \"$*\" >{0}\necho $$ >{1}\n{LISTEN} \"$TOAD_INTERNAL_PORT\" {2}", inside.path("arguments").display(), inside.path("pid").display(), inside.path("toad-up").display()));
    let mut child = toad(&inside, "t0k")
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut said = String::new();
    let mut out = child.stdout.take().expect("piped");
    let mut byte = [0];
    while !said.contains("TEROK_READY\n") {
        assert_eq!(
            out.read(&mut byte).expect("readable"),
            1,
            "it ended early: {said}"
        );
        said.push(byte[0] as char);
    }
    assert!(said.starts_with(">> init complete\n"), "{said}");
    assert!(inside.path("proxy-up").exists() && inside.path("toad-up").exists());
    let arguments = fs::read_to_string(inside.path("arguments")).expect("written");
    assert!(
        arguments.starts_with("serve --host 127.0.0.1 --port ")
            && arguments.ends_with("--public-url http://127.0.0.1:1 /workspace\n"),
        "{arguments}"
    );
    let pid = fs::read_to_string(inside.path("pid")).expect("written");
    Command::new("kill").arg(pid.trim()).status().expect("kill");
    assert!(!child.wait().expect("ended").success());
}

#[test]
fn toad_does_not_start_without_a_token_or_a_proxy() {
    for token in ["", "a b", "a\nb", "$(x)", &"a".repeat(257)] {
        let inside = Inside::new();
        let output = toad(&inside, token).output().expect("bash");
        assert_eq!(output.status.code(), Some(1), "{token:?}");
        assert!(!stdout(&output).contains("init complete"), "{token:?}");
    }
    let inside = Inside::new();
    inside.double("caddy", "exit 3");
    inside.double(
        "toad",
        &format!("{LISTEN} \"$TOAD_INTERNAL_PORT\" /dev/null"),
    );
    let output = toad(&inside, "t0k").output().expect("bash");
    assert!(output.status.code() != Some(0) && !stdout(&output).contains("TEROK_READY"));
}
