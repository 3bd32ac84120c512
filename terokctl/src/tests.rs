//! Faults that a real daemon cannot be made to show: a thread on a socket that answers as the test wants.

use crate::args::Options;
use crate::connect::Connection;
use crate::env::Env;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::operation;
use crate::render::{Screen, View};
use crate::session::Session;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the fake does with a request: texts to send, or `None` to close.
type Script = fn(&Value) -> Option<Vec<String>>;

struct Fake {
    dir: TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    _thread: JoinHandle<()>,
}

impl Fake {
    fn new(script: Script) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("a socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream, script, &log);
            }
        });
        Self {
            dir,
            seen,
            _thread: thread,
        }
    }

    fn session(&self, options: Options) -> Session {
        let options = Options {
            socket: Some(self.dir.path().join("s")),
            no_autostart: true,
            ..options
        };
        let env = Env::of(&[], "/", false);
        Session::new(options, env, Interrupts::none(), Screen::memory(false))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic while logging").clone()
    }
}

fn serve(mut stream: UnixStream, script: Script, seen: &Mutex<Vec<String>>) {
    let reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for line in reader.lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("one JSON value per line");
        let call = format!(
            "{} {}",
            request["method"].as_str().unwrap_or("?"),
            request["params"]
        );
        seen.lock().expect("no panic while logging").push(call);
        let Some(answers) = script(&request) else {
            return;
        };
        for answer in answers {
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn result(request: &Value, result: Value) -> String {
    format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
    )
}

fn call(script: Script, timeout_ms: Option<u64>) -> Result<String, Failure> {
    let options = Options {
        timeout: timeout_ms.map(Duration::from_millis),
        ..Options::default()
    };
    Fake::new(script)
        .session(options)
        .call("daemon.status", "{}")
}

#[test]
fn an_answer_in_single_bytes_is_an_answer() {
    let script: Script = |request| {
        let text = result(request, json!({"a": "é"}));
        Some(text.chars().map(String::from).collect())
    };
    assert_eq!(call(script, None).expect("an answer"), r#"{"a":"é"}"#);
}

#[test]
fn a_silent_daemon_runs_into_the_timeout() {
    let failure = call(|_| Some(vec![]), Some(20)).expect_err("no answer");
    assert!(matches!(failure, Failure::Timeout(_)), "{failure:?}");
    assert_eq!(failure.exit_code(), 75);
}

#[test]
fn garbage_is_an_internal_error() {
    for script in [
        (|_| Some(vec!["HTTP/1.1 400\r\n\r\n".into()])) as Script,
        |_| Some(vec!["{\"id\":1}\n".into()]),
        |_| Some(vec!["{\"id\":7,\"result\":1}\n".into()]),
        |_| Some(vec!["{\"id\":1,\"error\":\"no object\"}\n".into()]),
        |_| Some(vec!["{\"method\":\"x\"}\n".into()]),
        |_| Some(vec!["\u{feff}{}\n".into()]),
    ] {
        let failure = call(script, Some(5000)).expect_err("garbage");
        assert_eq!(failure.exit_code(), 70, "{failure:?}");
    }
}

#[test]
fn a_daemon_that_dies_in_a_call_is_no_daemon() {
    let failure = call(|_| None, None).expect_err("it closed");
    assert_eq!(failure.exit_code(), 69, "{failure:?}");
    let half: Script =
        |request| (request["id"] == json!(1)).then(|| vec![r#"{"id":1,"resu"#.to_owned()]);
    let fake = Fake::new(half);
    let mut session = fake.session(Options {
        timeout: Some(Duration::from_millis(20)),
        ..Options::default()
    });
    let late = session.call("a", "{}").expect_err("half an answer");
    assert_eq!(late.exit_code(), 75);
    assert_eq!(
        session.call("b", "{}").expect_err("it closed").exit_code(),
        69
    );
}

#[test]
fn nobody_on_the_socket_is_no_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).expect("a socket"));
    let options = Options {
        socket: Some(path),
        no_autostart: true,
        ..Options::default()
    };
    let env = Env::of(&[], "/", false);
    let mut session = Session::new(options, env, Interrupts::none(), Screen::memory(false));
    let failure = session
        .call("daemon.status", "{}")
        .expect_err("nobody there");
    assert_eq!(failure.exit_code(), 69);
    assert!(!dir.path().join("s.start").exists(), "nothing was started");
}

#[test]
fn notifications_between_are_kept_and_late_answers_forgotten() {
    let fake = Fake::new(|request| {
        let item = |n: u64| {
            format!(
                "{}\n",
                json!({"method": "m", "params": {"subscription": 5, "result": n}})
            )
        };
        Some(vec![
            item(1),
            "\n".into(),
            r#"{"id":0,"result":"late"}"#.to_owned() + "\n",
            result(request, json!(null)),
            item(2),
        ])
    });
    let path = fake.dir.path().join("s");
    let mut connection = Connection::open(&path, Rc::new(Interrupts::none())).expect("it listens");
    let soon = Some(Instant::now() + Duration::from_secs(5));
    assert_eq!(
        connection
            .call("x", "{\n\"a\": 1}\n", soon)
            .expect("an answer"),
        "null"
    );
    assert_eq!(connection.next(soon).expect("an item").item, "1");
    let second = connection.next(soon).expect("an item");
    assert_eq!(
        (second.subscription.as_str(), second.item.as_str()),
        ("5", "2")
    );
    assert_eq!(fake.seen(), [r#"x {"a":1}"#]);
}

#[test]
fn an_operation_is_followed_even_if_its_stream_says_nothing() {
    let fake = Fake::new(|request| {
        let params = &request["params"];
        Some(vec![match request["method"].as_str() {
            Some("delete_project") if params["detach"] == json!(true) => {
                result(request, json!({"operation_id": "01"}))
            }
            Some("operation.subscribe") => result(request, json!("s")),
            // The first look finds it running; only the second one, a moment later, its end.
            Some("operation.get") if request["id"] == json!(3) => {
                result(request, json!({"id": "01", "state": "running"}))
            }
            Some("operation.get") => result(
                request,
                json!({"id": "01", "state": "succeeded", "result": {"deleted": []}}),
            ),
            _ => return None,
        }])
    });
    let mut session = fake.session(Options::default());
    let answer = operation::run(&mut session, "delete_project", r#"{"project_id":"a"}"#);
    assert_eq!(answer.expect("a result"), r#"{"deleted":[]}"#);
    assert_eq!(fake.seen().len(), 4, "{:?}", fake.seen());
}

#[test]
fn an_operation_that_fails_keeps_its_kind() {
    let fake = Fake::new(|request| {
        Some(vec![match request["method"].as_str() {
            Some("cleanup_images") => result(request, json!({"operation_id": "01"})),
            Some("operation.subscribe") => result(request, json!("s")),
            _ => result(
                request,
                json!({"state": "failed", "error": {"code": 1301, "message": "no podman", "data": {"kind": "podman_unavailable"}}}),
            ),
        }])
    });
    let mut session = fake.session(Options::default());
    let failure = operation::run(&mut session, "cleanup_images", "{}").expect_err("it failed");
    assert_eq!(failure.exit_code(), 1);
    assert!(
        failure
            .to_json()
            .is_some_and(|raw| raw.contains("podman_unavailable"))
    );
}

#[test]
fn no_wait_prints_the_id() {
    for (options, shown) in [
        (Options::default(), "01\n"),
        (
            Options {
                json: true,
                ..Options::default()
            },
            "{\"operation_id\":\"01\"}\n",
        ),
        (
            Options {
                flat: true,
                ..Options::default()
            },
            "operation_id=01\n",
        ),
    ] {
        let fake = Fake::new(|request| Some(vec![result(request, json!({"operation_id": "01"}))]));
        let mut session = fake.session(Options {
            no_wait: true,
            ..options
        });
        session
            .call_and_show("cleanup_images", serde_json::Map::new(), &View::Nothing)
            .expect("an id");
        assert_eq!(session.screen.text(), shown);
        assert_eq!(fake.seen(), [r#"cleanup_images {"detach":true}"#]);
    }
}

#[test]
fn results_go_through_as_they_came() {
    let script: Script = |_| {
        Some(vec![
            "{\"id\":1,\"result\": { \"a\" : 1.50, \"b\":\"\\u00e9\" } }\n".into(),
        ])
    };
    let fake = Fake::new(script);
    let mut session = fake.session(Options {
        json: true,
        ..Options::default()
    });
    session
        .call_and_show("daemon.status", serde_json::Map::new(), &View::Record)
        .expect("an answer");
    assert_eq!(
        session.screen.text(),
        "{ \"a\" : 1.50, \"b\":\"\\u00e9\" }\n"
    );
}
