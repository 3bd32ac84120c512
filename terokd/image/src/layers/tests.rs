use super::*;
use crate::labels;
use proptest::prelude::*;
use std::sync::Arc;
use terok_config::selection::resolve_text;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn foundation(base: &str, selection: &str) -> Foundation {
    let roster = Roster::bundled();
    let names = resolve_text(selection, &roster).expect(selection).names;
    Foundation::new(base, None, &names, &roster, None).expect(base)
}

fn with_ca(base: &str) -> Foundation {
    let ca = CaBundle::parse(CERTIFICATE).expect("a certificate");
    Foundation::new(base, None, &[], &Roster::bundled(), Some(ca)).expect(base)
}

fn project(snippet: Option<&str>) -> ProjectLayer {
    let snippet = crate::snippet::combine("p", None, snippet).expect("closed");
    ProjectLayer::new(
        false,
        Some("https://example.org/x.git"),
        Some("main"),
        snippet,
    )
    .expect("legal")
}

/// Instructions as a Dockerfile parser sees them: comments and blank lines away, continued lines joined.
fn instructions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (part, continues) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        if open {
            found.last_mut().expect("an open line").push_str(part);
        } else {
            found.push(part.to_owned());
        }
        open = continues;
    }
    found
}

fn words(text: &str) -> Vec<String> {
    instructions(text)
        .iter()
        .map(|line| {
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

/// Every source of a COPY is a file or directory of the context.
fn assert_copies_exist(files: &Files, dockerfile: &str) {
    for line in instructions(&files[dockerfile].text) {
        let Some(rest) = line.strip_prefix("COPY ") else {
            continue;
        };
        let source = rest
            .split_whitespace()
            .find(|word| !word.starts_with("--"))
            .expect("a source");
        let found = files.keys().any(|path| match source.strip_suffix('/') {
            Some(dir) => path.starts_with(&format!("{dir}/")),
            None => path == source,
        });
        assert!(
            found,
            "{dockerfile} copies `{source}`, which is not in the context"
        );
    }
}

fn context(foundation: Foundation, snippet: Option<&str>) -> Context {
    Context::new(Arc::new(Rendered::new(foundation)), &project(snippet))
}

fn files(context: &Context) -> Files {
    let owned = |(path, file): (&str, &File)| (path.to_owned(), file.clone());
    context.files().map(owned).collect()
}

fn text(context: &Context, path: &str) -> String {
    files(context)[path].text.clone().into_owned()
}

#[test]
fn dockerfiles_for_deb() {
    let context = context(
        foundation("ubuntu:24.04", "claude,blablador,gh,toad"),
        Some("RUN echo \"$X\" {{ y }}"),
    );
    insta::assert_snapshot!("l0_deb", text(&context, L0_FILE));
    insta::assert_snapshot!("l1_deb", text(&context, L1_FILE));
    insta::assert_snapshot!("l2", text(&context, L2_FILE));
}

#[test]
fn dockerfiles_for_rpm() {
    let context = context(foundation("fedora:44", "codex,vibe"), None);
    insta::assert_snapshot!("l0_rpm", text(&context, L0_FILE));
    insta::assert_snapshot!("l1_rpm", text(&context, L1_FILE));
}

#[test]
fn every_copied_file_is_in_the_context() {
    for base in ["ubuntu:24.04", "fedora:44"] {
        for selection in ["all", "claude", "sonar", "claude,-claude"] {
            let context = context(foundation(base, selection), None);
            for dockerfile in [L0_FILE, L1_FILE, L2_FILE] {
                assert_copies_exist(&files(&context), dockerfile);
            }
        }
        assert_copies_exist(&with_ca(base).files(NO_BUST), L0_FILE);
    }
}

#[test]
fn every_installable_entry_has_steps() {
    for entry in &foundation("debian:12", "all").entries {
        assert!(
            entry.root.is_some() || entry.dev.is_some(),
            "{}",
            entry.name
        );
    }
}

#[test]
fn the_selection_is_on_the_image_and_in_its_hash() {
    let some = foundation("debian:12", "codex,claude");
    let text = some.l1_text(NO_BUST);
    assert!(
        text.contains(&format!("LABEL {}=\"claude,codex\"\n", labels::AGENTS)),
        "{text}"
    );
    assert!(text.contains("l1-finish.sh 'claude,codex'\n"));
    let other = foundation("debian:12", "claude");
    assert_eq!(some.l0_hash(), other.l0_hash());
    assert_ne!(some.l1_hash(), other.l1_hash());
    assert_eq!(
        (some.l0_tag(), some.l1_tag()),
        (
            "localhost/terok-l0:debian-12".into(),
            "localhost/terok-l1-cli:debian-12-claude-codex".into()
        )
    );
    let none = foundation("debian:12", "claude,-claude");
    assert!(
        none.l1_text(NO_BUST)
            .contains(&format!("LABEL {}=\"\"\n", labels::AGENTS))
    );
}

#[test]
fn each_hash_covers_its_layer_only() {
    let hashes = |base, selection, snippet| context(foundation(base, selection), snippet).hashes;
    let one = hashes("debian:12", "claude", None);
    assert_eq!(one, hashes("debian:12", "claude", None));
    let snippet = hashes("debian:12", "claude", Some("RUN x"));
    assert_eq!((&one.l0, &one.l1), (&snippet.l0, &snippet.l1));
    assert!(one.l2 != snippet.l2 && one.combined != snippet.combined);
    assert_ne!(one.l0, hashes("debian:13", "claude", None).l0);
    assert_ne!(
        foundation("debian:12", "claude").l0_hash(),
        with_ca("debian:12").l0_hash()
    );
    // A script that only the base layer copies.
    let base = foundation("debian:12", "claude");
    let mut files = l0::files(&base);
    let before = tree(&files);
    files
        .get_mut("scripts/init-ssh-and-repo.sh")
        .expect("copied")
        .text
        .to_mut()
        .push('#');
    assert_ne!(before, tree(&files));
    assert!(!l1::files(&base).contains_key("scripts/init-ssh-and-repo.sh"));
    assert!(
        !l1::files(&base).contains_key("scripts/install/codex-dev.sh"),
        "not of this selection"
    );
}

#[test]
fn refreshing_agents_changes_no_hash_and_nothing_above_the_point() {
    let some = foundation("debian:12", "claude");
    let (a, b) = (some.l1_text("1"), some.l1_text("2"));
    let point = |text: &str| text.find("ARG AGENT_CACHE_BUST").expect("the point");
    assert_eq!(a[..point(&a)], b[..point(&b)]);
    let after = &a[point(&a)..];
    assert!(after.contains("claude-dev.sh") && after.contains("scripts/hilfe"));
    assert!(!after.contains("l1-node.sh") && !after.contains("apt-get"));
}

#[test]
fn selections_share_what_they_have_in_common() {
    let text = |selection| foundation("debian:12", selection).l1_text(NO_BUST);
    let (some, more) = (text("claude"), text("claude,codex"));
    let common = some
        .lines()
        .zip(more.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let installed = some
        .lines()
        .position(|line| line.contains("claude-dev.sh deb"))
        .expect("installed");
    assert!(
        common > installed,
        "claude is installed before the texts part"
    );
    let files = |selection| foundation("debian:12", selection).files(NO_BUST);
    let (some, more) = (files("claude"), files("claude,codex"));
    for (path, file) in some
        .iter()
        .filter(|(path, _)| path.starts_with("scripts/agents/"))
    {
        assert_eq!(more[path], *file);
    }
    assert_eq!(
        some.keys()
            .filter(|p| p.starts_with("scripts/agents/"))
            .count(),
        more.keys()
            .filter(|p| p.starts_with("scripts/agents/"))
            .count()
    );
}

#[test]
fn private_certificates_are_trusted_in_the_base_layer() {
    let deb = with_ca("debian:12").l0_text();
    assert!(
        deb.contains("update-ca-certificates")
            && deb.contains("NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt")
    );
    let rpm = with_ca("fedora:44").l0_text();
    assert!(
        rpm.contains("update-ca-trust")
            && rpm.contains("PIP_CERT=/etc/pki/tls/certs/ca-bundle.crt")
    );
    assert!(!foundation("debian:12", "all").l0_text().contains("ca/"));
}

fn user_roster(files: &[(&str, &str)]) -> Roster {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(format!("{name}.yaml")), text).expect("written");
    }
    Roster::load(dir.path())
}

#[test]
fn entries_of_users_bring_their_own_steps() {
    let roster = user_roster(&[(
        "mine",
        "kind: tool\ninstall:\n  run_as_root: |\n    {% if family == \"deb\" %}\n    RUN apt-get install -y x\n    {% else %}\n    RUN dnf install -y x\n    {% endif %}\n    USER nobody\nhelp:\n  label: 'mine \\u00fc'\n  section: dev_tool\n",
    )]);
    let of = |base: &str| {
        Foundation::new(base, None, &["mine".to_owned()], &roster, None).expect("installable")
    };
    let text = of("debian:12").l1_text(NO_BUST);
    assert!(
        text.contains(
            "# mine (root)\nRUN apt-get install -y x\nUSER nobody\nUSER root\nENV HOME=/root\n"
        ),
        "{text}"
    );
    assert!(
        of("fedora:44")
            .l1_text(NO_BUST)
            .contains("RUN dnf install -y x")
    );
    assert_eq!(
        of("debian:12").files(NO_BUST)["help.d/dev-tools.txt"].text,
        "mine ü\n"
    );
}

#[test]
fn steps_that_cannot_be_read_name_their_file() {
    for (step, told) in [
        ("RUN {{ secret }}", "line 1"),
        ("RUN a \\", "backslash"),
        ("{% if x %}", "line 1"),
    ] {
        let roster = user_roster(&[("mine", &format!("install:\n  run_as_dev: '{step}'\n"))]);
        let fault = Foundation::new("debian:12", None, &["mine".to_owned()], &roster, None)
            .expect_err(step);
        assert_eq!(fault.kind, terok_proto::Kind::InvalidConfig);
        assert!(
            fault.message.contains(told) && fault.message.contains("mine.yaml"),
            "{fault}"
        );
    }
}

#[test]
fn hostile_names_in_roster_files_stay_data() {
    let roster = user_roster(&[(
        "mine",
        "kind: native\nlabel: \"a\\\"\\nUSER root\"\nbinary: \"x; touch /pwned\"\ngit_identity: {name: \"n\\tx\\nclaude\\tEvil\", email: \"e\\n\"}\ninstall: {run_as_dev: RUN true}\nhelp: {label: \"a\\nb\"}\n",
    )]);
    let some = Foundation::new("debian:12", None, &["mine".to_owned()], &roster, None)
        .expect("installable");
    let text = some.l1_text(NO_BUST);
    assert!(!text.contains("pwned") && !text.contains("Evil"), "{text}");
    let identities = &some.files(NO_BUST)["scripts/identities.tsv"].text;
    assert_eq!(identities.lines().count(), 1, "{identities}");
    assert!(Foundation::new("debian:12", None, &["../x".to_owned()], &roster, None).is_err());
    assert!(Foundation::new("debian:12", None, &["coderabbit".to_owned()], &roster, None).is_err());
}

#[test]
fn toad_is_told_of_what_is_installed() {
    let files = foundation("debian:12", "all").files(NO_BUST);
    let agents: Vec<&str> = files
        .keys()
        .filter_map(|path| path.strip_prefix("toad-agents/"))
        .collect();
    assert!(agents.contains(&"terok-openrouter.toml") && agents.contains(&"terok-claude.toml"));
    assert!(!agents.contains(&"terok-gh.toml"));
    assert!(
        files["toad-agents/terok-openrouter.toml"]
            .text
            .contains("\"openrouter-acp\"")
    );
    let identities = &files["scripts/identities.tsv"].text;
    assert!(
        identities.contains("claude\tClaude\tnoreply@anthropic.com\n"),
        "{identities}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_adds_an_instruction(upstream in "(\\PC|[\n\r\\\\\"$`']){0,40}", branch in "(\\PC|[\n\r\\\\\"$`']){0,40}") {
        let Ok(layer) = ProjectLayer::new(false, Some(&upstream), Some(&branch), None) else {
            return Ok(());
        };
        let expected = ["ARG", "FROM", "ENV", "ENV", "USER", "ENV", "WORKDIR", "ENV", "USER"];
        prop_assert_eq!(words(&layer.text()), expected);
    }

    #[test]
    fn no_snippet_changes_what_follows_it(snippet in "((RUN|USER|#|\\\\|[a-z]| )[ a-z\\\\#]{0,6}\r?\n?){0,8}") {
        let Ok(Some(snippet)) = crate::snippet::combine("p", Some(&snippet), None) else {
            return Ok(());
        };
        let text = ProjectLayer::new(false, None, None, Some(snippet)).expect("legal").text();
        let words = words(&text);
        prop_assert_eq!(&words[..6], ["ARG", "FROM", "ENV", "ENV", "USER", "ENV"]);
        prop_assert_eq!(&words[words.len() - 3..], ["WORKDIR", "ENV", "USER"]);
    }

    #[test]
    fn no_base_adds_an_instruction(base in "(ubuntu|debian)?(\\PC|[\n\r\\\\ $]){0,20}") {
        let roster = Roster::bundled();
        if let Ok(some) = Foundation::new(&base, Some(Family::Deb), &[], &roster, None) {
            let plain = foundation("debian:12", "claude,-claude");
            prop_assert_eq!(words(&some.l0_text()), words(&plain.l0_text()));
            prop_assert_eq!(words(&some.l1_text(NO_BUST)), words(&plain.l1_text(NO_BUST)));
        }
    }
}
