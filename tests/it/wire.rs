//! What may be sent over the socket, and how much of it (rpc.md §2, §3).

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use terok_tests::transport::{Line, Lsp, Transport, open};
use terok_tests::{Client, Daemon, World};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"panic.status","params":{}}"#;

fn with_limits(limits: &str) -> World {
    World::with_project("alpha").file("$CONFIG/terokd.yml", &format!("rpc: {{{limits}}}\n"))
}

/// Sends bytes, then reads until the daemon closes: the messages it sent.
fn last_words(daemon: &Daemon, bytes: &[u8]) -> Vec<Value> {
    let stream = open(daemon.socket());
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    // The daemon may close before it has taken everything.
    let writing = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let text = String::from_utf8(Line::new(stream).rest()).unwrap();
    writing.join().unwrap();
    text.lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn still_serves(daemon: &Daemon) {
    assert_eq!(
        daemon.connect().ok("panic.status", json!({}))["panicked"],
        false
    );
}

fn one_error(answers: &[Value], code: i64, kind: &str) {
    assert_eq!(answers.len(), 1, "exactly one answer: {answers:?}");
    assert_eq!(answers[0]["error"]["code"], code, "{}", answers[0]);
    assert_eq!(answers[0]["error"]["data"]["kind"], kind, "{}", answers[0]);
    assert_eq!(answers[0]["id"], Value::Null, "{}", answers[0]);
    assert!(
        answers[0].as_object().unwrap().contains_key("id"),
        "{}",
        answers[0]
    );
}

#[test]
fn a_message_beyond_the_limit_gets_one_answer_and_a_close() {
    let world = with_limits("max_message_bytes: 65536");
    let daemon = world.start();
    let mut endless = br#"{"jsonrpc":"2.0","id":1,"method":""#.to_vec();
    endless.resize(1 << 20, b'x');
    one_error(&last_words(&daemon, &endless), -32600, "request_too_large");
    // Blanks count too, and so does a line that ends in time but is too long.
    let mut blank = b"{".to_vec();
    blank.resize(200_000, b' ');
    blank.extend(b"}\n");
    one_error(&last_words(&daemon, &blank), -32600, "request_too_large");
    let announced = b"Content-Length: 999999999999\r\n\r\n{";
    let answers = String::from_utf8(exchange(&daemon, announced)).unwrap();
    assert!(answers.contains("request_too_large"), "{answers}");
    assert_eq!(answers.matches("Content-Length").count(), 1, "{answers}");
    let body = format!("{}{}", PING, " ".repeat(70_000));
    let answer = daemon.http("POST", "/", &body);
    assert!(answer.body.contains("request_too_large"), "{answer:?}");
    still_serves(&daemon);
    let fits = PING.replace("{}}", &format!("{{}}{}}}", " ".repeat(60_000)));
    let mut client = Line::new(open(daemon.socket()));
    client.send(&fits);
    assert!(client.receive().unwrap().contains("result"));
}

#[test]
fn ten_mebibytes_are_the_default_limit() {
    let world = World::new();
    let daemon = world.start();
    let mut client = Line::new(open(daemon.socket()));
    let text = "x".repeat(9 << 20);
    client.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "config.validate", "params": {"text": text, "kind": "project"}}).to_string());
    assert!(client.receive().unwrap().contains(r#""id":1"#));
    let before = daemon.proc_status("VmHWM").unwrap();
    one_error(
        &last_words(&daemon, &vec![b'['; 64 << 20]),
        -32600,
        "request_too_large",
    );
    let after = daemon.proc_status("VmHWM").unwrap();
    assert!(
        after < before + 64 * 1024,
        "an oversize message is not collected: {before} kB, then {after} kB"
    );
    still_serves(&daemon);
}

fn exchange(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open(daemon.socket());
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn messages_may_arrive_byte_by_byte() {
    let world = World::new();
    let daemon = world.start();
    let http = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{PING}",
        PING.len()
    );
    let lsp = format!(
        "content-length:{}\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n{PING}",
        PING.len()
    );
    for bytes in [format!(" \r\n\t{PING}\n"), lsp, http] {
        let mut stream = open(daemon.socket());
        for byte in bytes.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(r#""panicked":false"#), "{answer}");
    }
}

#[test]
fn a_client_that_has_stopped_sending_still_gets_its_answers() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut stream = open(daemon.socket());
    let calls: String = (0..20)
        .map(|id| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"list_projects\"}}\n"))
        .collect();
    stream.write_all(calls.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.lines().count(), 20, "{answers}");
    // A last line without its newline counts: the end of the stream ends it.
    let mut stream = open(daemon.socket());
    stream.write_all(PING.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("result"), "{answer:?}");
}

#[test]
fn a_client_that_does_not_read_harms_nobody() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut lazy = open(daemon.socket());
    lazy.set_write_timeout(Some(std::time::Duration::from_millis(300)))
        .unwrap();
    let call = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n";
    // Until back-pressure stops us: the daemon must not take requests whose answers nobody reads.
    let mut sent = 0;
    while lazy.write_all(call).is_ok() {
        sent += 1;
        assert!(sent < 200_000, "the daemon takes requests without end");
    }
    still_serves(&daemon);
    let resident = daemon.proc_status("VmRSS").unwrap();
    assert!(
        resident < 200 * 1024,
        "{resident} kB for one client that does not read"
    );
}

#[test]
fn a_lazy_reader_of_events_harms_nobody() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let lazy = daemon.events(json!({}));
    let mut eager = daemon.events(json!({}));
    for round in 0..50 {
        let class = if round % 2 == 0 {
            "gatekeeping"
        } else {
            "online"
        };
        world.write(
            "$CONFIG/projects/alpha/project.yml",
            format!("project: {{security_class: {class}}}\n"),
        );
        eager.next_about("project.changed", "alpha");
    }
    drop(lazy);
    still_serves(&daemon);
}

#[test]
fn connections_are_limited_and_come_back() {
    let world = World::new();
    let daemon = world.start();
    let mut clients: Vec<Client> = (0..256).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.ok("panic.status", json!({}));
    }
    for _ in 256..300 {
        let text = String::from_utf8(Line::new(open(daemon.socket())).rest()).unwrap();
        let answer: Value =
            serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        assert_eq!(answer["error"]["code"], 1505, "{answer}");
        assert!(
            answer["error"]["data"]["retry_after_ms"].is_u64(),
            "{answer}"
        );
    }
    for client in &mut clients {
        client.ok("panic.status", json!({}));
    }
    clients.truncate(200);
    terok_tests::eventually("a slot becomes free", || {
        let mut client = daemon.connect();
        client
            .transport
            .stream
            .write_all(format!("{PING}\n").as_bytes())
            .ok()?;
        client
            .transport
            .receive()
            .filter(|text| text.contains("result"))
    });
}

#[test]
fn many_calls_in_flight_are_all_answered_once() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut client = daemon.connect();
    let methods = [
        "list_projects",
        "daemon.status",
        "discover_projects",
        "questions",
        "agents.list",
    ];
    // More at a time would fill both directions of the socket: the daemon does not read for one who does not.
    for _ in 0..5 {
        let ids: Vec<u64> = (0..100)
            .map(|n| client.send(methods[n % methods.len()], json!({})))
            .collect();
        for id in ids.into_iter().rev() {
            client.answer(id).unwrap();
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    for depth in [129, 1000, 200_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        client.transport.send(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"agents.list","params":{deep}}}"#
        ));
        let answer = client.message().unwrap();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        client.transport.send(&deep);
        assert_eq!(client.message().unwrap()["error"]["code"], -32600);
    }
    let fits = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
    client.transport.send(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"render_project_yaml","params":{{"values":{fits}}}}}"#
    ));
    let answer = client.message().unwrap();
    assert_eq!(
        answer["error"]["data"]["kind"], "invalid_argument",
        "{answer}"
    );
    assert_ne!(daemon.http("POST", "/", &"[".repeat(500_000)).status, 0);
    still_serves(&daemon);
}

#[test]
fn batches_are_answered_as_one() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut client = daemon.connect();
    let mut batch = |value: Value| {
        client.transport.send(&value.to_string());
        client.message().unwrap()
    };
    let answer = batch(json!([
        {"jsonrpc": "2.0", "id": "a", "method": "panic.status"},
        {"jsonrpc": "2.0", "method": "panic.status"},
        {"jsonrpc": "2.0", "id": 2, "method": "no.such"},
        {"jsonrpc": "2.0", "id": null, "method": "require_project_exists", "params": ["alpha"]},
        7,
    ]));
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 4, "{answer}");
    let by_id = |id: Value| answers.iter().filter(|a| a["id"] == id).collect::<Vec<_>>();
    assert!(by_id(json!("a"))[0]["result"].is_object(), "{answer}");
    assert_eq!(by_id(json!(2))[0]["error"]["code"], -32601, "{answer}");
    assert_eq!(
        by_id(Value::Null).len(),
        2,
        "the null id and the number that is no request: {answer}"
    );
    assert!(
        by_id(Value::Null)
            .iter()
            .any(|a| a["error"]["code"] == -32600),
        "{answer}"
    );

    assert_eq!(batch(json!([]))["error"]["code"], -32600);
    let call = |n| json!({"jsonrpc": "2.0", "id": n, "method": "panic.status"});
    let hundred: Vec<Value> = (0..100).map(call).collect();
    assert_eq!(batch(json!(hundred)).as_array().unwrap().len(), 100);
    let more: Vec<Value> = (0..101).map(call).collect();
    let refused = batch(json!(more));
    assert_eq!(refused["error"]["code"], -32600, "{refused}");
    // A batch of notifications gets no answer at all: the next answer is that of the next call.
    client
        .transport
        .send(&json!([{"jsonrpc": "2.0", "method": "panic.status"}]).to_string());
    client.ok("panic.status", json!({}));
}

#[test]
fn what_is_not_json_gets_one_answer_and_a_close() {
    let world = World::new();
    let daemon = world.start();
    for bytes in [
        &b"hello\n"[..],
        b"\x00\x01\x02\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}\n",
        b"{\"jsonrpc\":\"2.0\",\n",
        b"{} trailing\n",
        b"Content-Lenght: 4\r\n\r\n{}\n",
        b"CONNECT x HTTP/1.1\r\n\r\n",
    ] {
        one_error(&last_words(&daemon, bytes), -32700, "parse_error");
    }
    // The same after a good message.
    let mut client = daemon.connect();
    client.ok("panic.status", json!({}));
    client.transport.raw(b"[1,\n{}\n");
    assert_eq!(client.message().unwrap()["error"]["code"], -32700);
    assert!(client.message().is_none(), "nothing after the last answer");
    let frame = String::from_utf8(exchange(&daemon, b"Content-Length: x\r\n\r\n{}")).unwrap();
    assert!(
        frame.starts_with("Content-Length") && frame.contains("-32700"),
        "{frame}"
    );
    still_serves(&daemon);
}

#[test]
fn noise_never_harms() {
    let world = World::new();
    let daemon = world.start();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let begins: [&[u8]; 8] = [
        b"",
        b"{",
        b"[",
        b"Content-Length: ",
        b"GET / ",
        b"POST / HTTP/1.1\r\n",
        b"{\"jsonrpc\":\"2.0\",",
        b" \n",
    ];
    for _ in 0..300 {
        let mut bytes = begins[usize::try_from(random() % 8).unwrap()].to_vec();
        let length = random() % 400;
        bytes.extend((0..length).map(|_| match random() % 4 {
            0 => b"{}[]\",:\\\r\n 0123456789"[usize::try_from(random() % 21).unwrap()],
            _ => u8::try_from(random() % 256).unwrap(),
        }));
        let mut stream = open(daemon.socket());
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !String::from_utf8_lossy(&answer).contains("-32603"),
            "{bytes:?}"
        );
    }
    still_serves(&daemon);
}

#[test]
fn every_shape_of_id_comes_back_as_it_was() {
    let world = World::new();
    let daemon = world.start();
    let mut client = Line::new(open(daemon.socket()));
    for id in [
        "1",
        "0",
        "-7",
        "1.5",
        "18446744073709551615",
        "123456789012345678901234567890",
        r#""x""#,
        r#""""#,
        "null",
    ] {
        client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"panic.status"}}"#
        ));
        let answer = client.receive().unwrap();
        assert!(answer.contains(&format!(r#""id":{id}"#)), "{id}: {answer}");
        assert!(answer.contains("result"), "{id}: {answer}");
    }
    for id in ["true", "[]", "{}"] {
        client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"panic.status"}}"#
        ));
        let answer: Value = serde_json::from_str(&client.receive().unwrap()).unwrap();
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(-32600), &Value::Null),
            "{answer}"
        );
    }
}

#[test]
fn what_is_no_request_is_told_so_and_the_connection_goes_on() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    for (text, code) in [
        (r#"{}"#, -32600),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"panic.status"}"#,
            -32600,
        ),
        (r#"{"id":1,"method":"panic.status"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"panic.status","params":5}"#,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, -32601),
    ] {
        client.transport.send(text);
        let answer = client.message().unwrap();
        assert_eq!(answer["error"]["code"], code, "{text}: {answer}");
        assert!(
            answer["error"]["data"]["kind"].is_string(),
            "{text}: {answer}"
        );
    }
    client.ok("panic.status", json!({}));
}

#[test]
fn notifications_get_no_answer() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    for text in [
        r#"{"jsonrpc":"2.0","method":"panic.status"}"#,
        r#"{"jsonrpc":"2.0","method":"no.such"}"#,
        r#"{"jsonrpc":"2.0","method":"get_project","params":{"x":1}}"#,
    ] {
        client.transport.send(text);
    }
    let id = client.send("panic.status", json!({}));
    assert_eq!(
        client.message().unwrap()["id"],
        id,
        "the first answer is that of the first request"
    );
}

#[test]
fn parameters_are_checked_by_name_and_position() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let error = daemon.fails(
        "get_project",
        json!({"project_id": "alpha", "verbose": true}),
        "invalid_params",
    );
    assert_eq!(error.code, -32602);
    assert!(
        error.message.contains("verbose"),
        "the unknown name is said: {}",
        error.message
    );
    let error = daemon.fails("get_project", json!({}), "invalid_params");
    assert!(error.message.contains("project_id"), "{}", error.message);
    daemon.fails("get_project", json!({"project_id": 5}), "invalid_params");
    daemon.fails("get_project", json!({"project_id": null}), "invalid_params");
    daemon.fails("get_project", json!(["alpha", "more"]), "invalid_params");
    daemon.fails("list_projects", json!({"x": 1}), "invalid_params");
    // Whether something only reads or changes: of two values under one name neither counts.
    let mut client = daemon.connect();
    for method in ["get_project", "delete_project", "project.register_ssh_key"] {
        client.transport.send(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"project_id":"alpha","project_id":"beta"}}}}"#
        ));
        let answer = client.message().unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer.to_string().contains("duplicate"), "{answer}");
    }
    assert_eq!(
        daemon.ok("get_project", json!(["alpha"])),
        daemon.ok("get_project", json!({"project_id": "alpha"}))
    );
    assert_eq!(
        daemon.ok("list_projects", json!([])),
        daemon.ok("list_projects", json!({}))
    );
    let state = |params| daemon.ok("project.state", params);
    assert_eq!(
        state(json!(["alpha", false])),
        state(json!({"project_id": "alpha", "gate_commit": null}))
    );
}

#[test]
fn a_first_message_has_its_time_and_then_silence_is_fine() {
    let world = with_limits("first_message_timeout_seconds: 1");
    let daemon = world.start();
    let mut quiet = daemon.connect();
    quiet.ok("panic.status", json!({}));
    let begun = std::time::Instant::now();
    for beginning in ["", "{", "  ", "Content-Length: 5", "POST / HTTP/1.1\r\n"] {
        let mut stream = open(daemon.socket());
        stream.write_all(beginning.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("closed in time");
    }
    assert!(begun.elapsed().as_millis() >= 900, "closed too early");
    quiet.ok("panic.status", json!({}));
}

#[test]
fn all_dialects_answer_the_same_bytes() {
    let world =
        World::with_project("alpha").project("broken", "projecct: {}\nrun: {hooks: {x: 1}}\n");
    let daemon = world.start();
    let mut line = Line::new(open(daemon.socket()));
    let mut lsp = Lsp::new(open(daemon.socket()));
    let mut ws = terok_tests::transport::Ws::new(open(daemon.socket()));
    for (method, params) in [
        ("list_projects", json!({})),
        ("discover_projects", json!({})),
        ("get_project", json!({"project_id": "alpha"})),
        ("get_project", json!({"project_id": "broken"})),
        ("get_project", json!({"project_id": "nö\n\u{7f}"})),
        ("get_project", json!({"nonsense": 1})),
        ("questions", json!({})),
        ("agents.list", json!({})),
        ("daemon.paths", json!({})),
        ("rpc.discover", json!({})),
        ("rpc.methods", json!({})),
        ("no.such", json!({})),
        (
            "validate_answer",
            json!({"question": "user_snippet", "raw": "  ä \u{2028} \u{1f600} \"\\/  "}),
        ),
    ] {
        let request =
            json!({"jsonrpc": "2.0", "id": "7", "method": method, "params": params}).to_string();
        for request in [request.clone(), format!("[{request},{request}]")] {
            line.send(&request);
            lsp.send(&request);
            ws.send(&request);
            let said = line.receive().unwrap();
            assert_eq!(said, lsp.receive().unwrap(), "{method}");
            assert_eq!(said, ws.receive().unwrap(), "{method}");
            assert_eq!(said, daemon.http("POST", "/", &request).body, "{method}");
        }
    }
}

#[test]
fn http_serves_monitoring_too() {
    let world = World::new();
    let daemon = world.start();
    let health = daemon.http("GET", "/healthz", "");
    assert_eq!((health.status, health.body.trim()), (200, "ok"));
    let metrics = daemon.http("GET", "/metrics", "");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain"),
        "{metrics:?}"
    );
    for line in metrics.body.lines().filter(|l| !l.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(name.starts_with("terokd_"), "{line}");
        value
            .parse::<f64>()
            .unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    let document: Value =
        serde_json::from_str(&daemon.http("GET", "/openrpc.json", "").body).unwrap();
    assert_eq!(document, daemon.ok("rpc.discover", json!({})));
    assert_eq!(daemon.http("GET", "/nothing", "").status, 404);
    assert_eq!(daemon.http("HEAD", "/healthz", "").body, "");
    assert!(daemon.http("OPTIONS", "/", "").status < 300);
    assert_eq!(daemon.http("GET", "/", "").status, 426);
    let error: Value = serde_json::from_str(&daemon.http("POST", "/", "no json").body).unwrap();
    assert_eq!(error["error"]["code"], -32700);
    let refused: Value = serde_json::from_str(
        &daemon
            .http(
                "POST",
                "/",
                r#"{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}"#,
            )
            .body,
    )
    .unwrap();
    assert!(
        refused["error"]["code"].is_i64(),
        "plain HTTP cannot carry a subscription: {refused}"
    );
    let notification = daemon.http("POST", "/", r#"{"jsonrpc":"2.0","method":"panic.status"}"#);
    assert_eq!(notification.body, "");
}

#[test]
fn the_description_is_of_exactly_the_registered_methods() {
    let world = World::new();
    let daemon = world.start();
    let document = daemon.ok("rpc.discover", json!({}));
    assert!(
        document["openrpc"].as_str().unwrap().starts_with("1.3"),
        "{}",
        document["openrpc"]
    );
    let described: Vec<&str> = document["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    let methods = daemon.ok("rpc.methods", json!({}));
    let mut names: Vec<&str> = methods
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m.as_str().unwrap())
        .collect();
    let mut sorted = described.clone();
    sorted.sort_unstable();
    names.sort_unstable();
    assert_eq!(sorted, names);
    for name in names {
        // Whatever a method thinks of no parameters, it exists.
        let answer = daemon
            .connect()
            .unchecked(name, json!({"no such parameter": 1}));
        let error = answer.expect_err("an unknown parameter is never accepted");
        assert_eq!(error.kind(), "invalid_params", "{name}: {error:?}");
    }
    for name in [
        "list_projects",
        "discover_projects",
        "get_project",
        "load_project",
        "require_project_exists",
        "derive_project",
        "delete_project",
        "find_projects_sharing_gate",
        "set_project_image_agents",
        "questions",
        "agents_question",
        "validate_answer",
        "render_project_yaml",
        "write_project_yaml",
        "project_image_exists",
        "list_images",
        "find_orphaned_images",
        "remove_images",
        "cleanup_images",
        "execute_panic",
        "panic_stop_containers",
        "format_panic_report",
        "summarize_ssh_init",
    ] {
        assert!(described.contains(&name), "{name} of the seed is missing");
    }
}

#[test]
fn subscriptions_work_in_every_stream_dialect() {
    let world = World::new();
    let daemon = world.start();
    let (mut line, mut lsp, mut ws) = (daemon.connect(), daemon.connect_lsp(), daemon.connect_ws());
    let params = json!({"kinds": ["project.added"]});
    line.ok("events.subscribe", params.clone());
    lsp.ok("events.subscribe", params.clone());
    ws.ok("events.subscribe", params);
    world.write(
        "$CONFIG/projects/new/project.yml",
        "project: {security_class: online}\n",
    );
    let seen = [line.notification(), lsp.notification(), ws.notification()];
    for notification in &seen {
        assert_eq!(
            notification["params"]["result"],
            seen[0]["params"]["result"]
        );
        assert_eq!(notification["params"]["result"]["project_id"], "new");
    }
}

#[test]
fn subscriptions_per_connection_are_limited() {
    let world = with_limits("max_subscriptions: 3");
    let daemon = world.start();
    let mut client = daemon.connect();
    let ids: Vec<Value> = (0..3)
        .map(|_| client.ok("events.subscribe", json!({})))
        .collect();
    client.fails("events.subscribe", json!({}), "overloaded");
    client.ok("events.unsubscribe", json!({"subscription": ids[0]}));
    terok_tests::eventually("the slot is free again", || {
        client.call("events.subscribe", json!({})).ok()
    });
}
