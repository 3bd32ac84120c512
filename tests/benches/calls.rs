//! A trivial call in each dialect against a bare echo, and the listing of a thousand projects.

use crate::{Measurement, Samples, micros, millis, world};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use terok_tests::transport::{Transport, Ws};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CALLS: usize = 5_000;
const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"require_project_exists","params":{"project_id":"proj-0000"}}"#;

pub(crate) fn measure() -> Vec<Measurement> {
    let mut out = Vec::new();
    let small = world(1);
    let daemon = small.start();
    let socket = daemon.socket().to_owned();
    let line = format!("{REQUEST}\n");
    let echo = echo(small.dir(), line.as_bytes());
    let samples = [
        ("line", lines(&socket, &line, CALLS)),
        ("lsp", framed(&socket)),
        ("http", http(&socket)),
        ("websocket", websocket(&socket)),
    ];
    out.push(Measurement::figure("echo_p50", micros(echo.p50()), "us"));
    out.push(Measurement::figure("echo_p99", micros(echo.p99()), "us"));
    for (dialect, samples) in &samples {
        let ratio = |ours: Duration, bare: Duration| ours.as_secs_f64() / bare.as_secs_f64();
        out.push(Measurement::figure(
            format!("call_{dialect}_p50"),
            micros(samples.p50()),
            "us",
        ));
        out.push(Measurement::figure(
            format!("call_{dialect}_p99"),
            micros(samples.p99()),
            "us",
        ));
        let p50 = ratio(samples.p50(), echo.p50());
        let name = format!("call_{dialect}_p50_vs_echo");
        out.push(match *dialect {
            "line" => Measurement::at_most(name, p50, "x", 2.0),
            _ => Measurement::figure(name, p50, "x"),
        });
        out.push(Measurement::figure(
            format!("call_{dialect}_p99_vs_echo"),
            ratio(samples.p99(), echo.p99()),
            "x",
        ));
    }
    drop(daemon);
    let large = world(1_000);
    let daemon = large.start();
    let list = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list_projects\"}\n";
    let listed = lines(daemon.socket(), list, 200);
    out.push(Measurement::at_most(
        "list_1000_projects_p50",
        millis(listed.p50()),
        "ms",
        5.0,
    ));
    out.push(Measurement::figure(
        "list_1000_projects_p99",
        millis(listed.p99()),
        "ms",
    ));
    out
}

/// What the socket and the runtime cost: the same bytes there and back through the daemon's own kind of server, with
/// nothing in between.
fn echo(dir: &Path, message: &[u8]) -> Samples {
    let path = dir.join("echo.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .expect("a runtime");
    let listener = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::bind(&path).expect("bind")
    };
    runtime.spawn(async move {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    });
    let mut stream = UnixStream::connect(&path).expect("connect");
    let mut buffer = vec![0; message.len()];
    let samples = Samples::take(CALLS, || {
        let begin = Instant::now();
        stream.write_all(message).expect("write");
        stream.read_exact(&mut buffer).expect("read");
        begin.elapsed()
    });
    drop(stream);
    runtime.shutdown_background();
    samples
}

fn lines(socket: &Path, message: &str, n: usize) -> Samples {
    let mut stream = UnixStream::connect(socket).expect("connect");
    let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone().expect("clone"));
    let mut answer = Vec::new();
    Samples::take(n, || {
        answer.clear();
        let begin = Instant::now();
        stream.write_all(message.as_bytes()).expect("write");
        reader.read_until(b'\n', &mut answer).expect("read");
        let took = begin.elapsed();
        assert!(
            answer.starts_with(br#"{"jsonrpc":"2.0","id":1,"result""#),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        took
    })
}

/// Headers up to the empty line, then as many bytes as they announce.
fn headed(reader: &mut BufReader<UnixStream>, body: &mut Vec<u8>) {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("header");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("length")
            }
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    body.resize(length, 0);
    reader.read_exact(body).expect("body");
}

fn exchanging(socket: &Path, message: String) -> Samples {
    let mut stream = UnixStream::connect(socket).expect("connect");
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut body = Vec::new();
    Samples::take(CALLS, || {
        let begin = Instant::now();
        stream.write_all(message.as_bytes()).expect("write");
        headed(&mut reader, &mut body);
        let took = begin.elapsed();
        assert!(
            body.ends_with(br#""result":null}"#),
            "{}",
            String::from_utf8_lossy(&body)
        );
        took
    })
}

fn framed(socket: &Path) -> Samples {
    exchanging(
        socket,
        format!("Content-Length: {}\r\n\r\n{REQUEST}", REQUEST.len()),
    )
}

fn http(socket: &Path) -> Samples {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        REQUEST.len()
    );
    exchanging(socket, format!("{head}{REQUEST}"))
}

fn websocket(socket: &Path) -> Samples {
    let mut client = Ws::new(UnixStream::connect(socket).expect("connect"));
    Samples::take(CALLS, || {
        let begin = Instant::now();
        client.send(REQUEST);
        client.receive().expect("an answer");
        begin.elapsed()
    })
}
