//! Base and agent layer, really built by Podman from what is generated, with agents from npm and tools from PyPI.
//!
//! Takes minutes and the network, so it runs only where it is asked for:
//! `tests/env/podman-test-env --base-image=debian --as-root -- cargo test -p terok-image --test real_build -- --ignored`

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use terok_config::roster::Roster;
use terok_image::labels::{Installed, Stamp};
use terok_image::layers::{Context, Foundation, L0_FILE, L1_FILE, L2_FILE, ProjectLayer, Rendered};
use terok_image::network::{CaBundle, Proxy};
use terok_image::{snippet, stage};
use terok_proto::config::Family;
use terok_proto::image::Layer;

fn podman(arguments: &[&str]) -> Output {
    let output = Command::new("podman")
        .arg("--remote")
        .args(arguments)
        .output()
        .expect("podman");
    let shown = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = shown.lines().rev().take(60).collect();
    let out = String::from_utf8_lossy(&output.stdout);
    let out: Vec<&str> = out.lines().rev().take(60).collect();
    assert!(
        output.status.success(),
        "podman {arguments:?}: {tail:#?} {out:#?}"
    );
    output
}

fn build(context: &Path, file: &str, tag: &str, base: &str, more: &[&str]) -> String {
    let base = format!("BASE_IMAGE={base}");
    let file = context.join(file);
    let mut arguments = vec![
        "build",
        "--pull=never",
        "-f",
        file.to_str().expect("UTF-8"),
        "--build-arg",
        &base,
        "-t",
        tag,
    ];
    arguments.extend(more);
    arguments.push(context.to_str().expect("UTF-8"));
    let output = podman(&arguments);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(image: &str, command: &str) -> String {
    let output = podman(&[
        "run",
        "--rm",
        "--pull=never",
        "--network=none",
        image,
        "bash",
        "-lc",
        command,
    ]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
#[ignore = "takes minutes, the network and Podman: see the head of the file"]
fn layers_build_and_run() {
    let base =
        std::env::var("TEROK_TEST_BASE_IMAGE").expect("TEROK_TEST_BASE_IMAGE names a Debian image");
    let ca = std::env::var("SSL_CERT_FILE").ok().map(|path| {
        CaBundle::parse(&std::fs::read_to_string(path).expect("readable")).expect("certificates")
    });
    let dir = tempfile::tempdir().expect("temporary directory");

    // A base with a user of its own, as Ubuntu's has, and with the releases that L1 downloads.
    let mirror = dir.path().join("mirror");
    std::fs::create_dir(&mirror).expect("created");
    std::fs::write(mirror.join("yq"), "#!/bin/sh\necho yq version v4.52.4\n").expect("written");
    let dockerfile = format!(
        "FROM {base}\nCOPY yq /opt/releases/mikefarah/yq/releases/download/v4.52.4/yq_linux_amd64\n\
         COPY yq /opt/releases/mikefarah/yq/releases/download/v4.52.4/yq_linux_arm64\n\
         RUN useradd --uid 1000 --create-home somebody && echo somebody:100000:65536 > /etc/subuid\n"
    );
    std::fs::write(mirror.join("Dockerfile"), dockerfile).expect("written");
    let prepared = "localhost/terok-image-test-base:1";
    build(&mirror, "Dockerfile", prepared, &base, &[]);

    let roster = Roster::bundled();
    let names = ["codex".to_owned(), "claude".to_owned()];
    let foundation =
        Foundation::new(prepared, Some(Family::Deb), &names, &roster, ca).expect("a foundation");
    let combined = snippet::combine("demo", None, Some("RUN echo \"$HOME {{ x }}\" > /snippet"))
        .expect("closed");
    let project = ProjectLayer::new(
        false,
        Some("https://example.org/$x\"y"),
        Some("main"),
        combined,
    )
    .expect("legal");
    let context = Context::new(Arc::new(Rendered::new(foundation.clone())), &project);
    let staged = stage::Stage::new(dir.path(), "demo", None);
    staged.write(&context).expect("written");

    let (l0, l1) = (foundation.l0_tag(), foundation.l1_tag());
    build(staged.dir(), L0_FILE, &l0, prepared, &[]);
    assert_eq!(
        run(
            &l0,
            "id -un; id -u; pwd; sudo id -u; cat /etc/subuid; stat -c %a ~/.ssh /workspace"
        ),
        "dev\n1000\n/workspace\n0\ndev:100000:65536\n700\n777"
    );
    assert!(run(&l0, "init-ssh-and-repo.sh </dev/null").ends_with(">> init complete"));
    run(&l0, "sudo mkdir -p /run/sshd && sudo /usr/sbin/sshd -t");

    let log = build(
        staged.dir(),
        L1_FILE,
        &l1,
        &l0,
        &[
            "--build-arg",
            "AGENT_CACHE_BUST=17",
            "--build-arg",
            "TEROK_RELEASES=file:///opt/releases",
        ],
    );
    assert!(log.contains("terok-versions: {\"claude\""), "{log}");
    let tools = run(
        &l1,
        "claude --version; codex --version; node --version; uv --version; ast-grep --version; fd --version; python --version; pipx --version",
    );
    assert!(
        tools.contains("codex")
            && tools.contains("Claude")
            && tools.contains("\nv22.")
            && tools.contains("\nuv 0."),
        "{tools}"
    );
    assert_eq!(
        run(
            &l1,
            "cat /etc/terok/installed.env /etc/terok/agents-refreshed"
        ),
        "TEROK_INSTALLED_AGENTS=claude,codex\n17"
    );
    assert!(
        run(&l1, "jq -r .codex /etc/terok/versions.json").starts_with(|c: char| c.is_ascii_digit())
    );
    assert!(run(&l1, "hilfe").contains("Codex"));
    assert_eq!(
        run(
            &l1,
            "test -x /usr/local/bin/terok-codex-acp && test -x ~/.npm-packages/bin/claude-agent-acp && type -t gh"
        ),
        "function"
    );

    let stamp = Stamp {
        layer: Layer::L2Cli,
        content_hash: &context.hashes.l2,
        base: prepared,
        version: "0",
        project: Some(("demo", &context.hashes.combined)),
    };
    let labels: Vec<String> = stamp
        .labels()
        .iter()
        .map(|(key, value)| format!("--label={key}={value}"))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let l2 = "localhost/terok-image-test:l2-cli";
    let proxy = Proxy {
        http: Some("http://user:s3cr3t@127.0.0.1:9".to_owned()),
        ..Proxy::default()
    };
    let proxy: Vec<String> = proxy
        .variables()
        .iter()
        .map(|(name, value)| format!("--build-arg={name}={value}"))
        .collect();
    let options: Vec<&str> = labels
        .into_iter()
        .chain(proxy.iter().map(String::as_str))
        .collect();
    build(staged.dir(), L2_FILE, l2, &l1, &options);
    for record in [
        &["history", "--no-trunc", l2][..],
        &["image", "inspect", l2],
    ] {
        let text = String::from_utf8_lossy(&podman(record).stdout).into_owned();
        assert!(text.contains("demo") && !text.contains("s3cr3t"), "{text}");
    }
    assert_eq!(
        run(l2, "id -un; echo \"$CODE_REPO $GIT_BRANCH\"; cat /snippet"),
        "dev\nhttps://example.org/$x\"y main\n/root {{ x }}"
    );
    let inspected = podman(&["image", "inspect", l2, "--format", "{{json .Labels}}"]);
    let labels = serde_json::from_slice(&inspected.stdout).expect("labels");
    let installed = Installed::of(&labels);
    assert!(
        installed.require("demo", l2, "codex").is_ok()
            && installed.require("demo", l2, "vibe").is_err()
    );
}
