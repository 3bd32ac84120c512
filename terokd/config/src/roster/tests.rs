use super::*;
use std::fs;

#[test]
fn bundled_entries_are_those_of_the_catalog() {
    let roster = Roster::bundled();
    assert_eq!(roster.entries().count(), 15);
    assert_eq!(
        roster.agents(),
        [
            "blablador",
            "claude",
            "codex",
            "copilot",
            "kisski",
            "opencode",
            "openrouter",
            "pi",
            "vibe"
        ]
    );
    let missing: Vec<_> = roster
        .entries()
        .filter(|e| !e.installable())
        .map(|e| &e.name)
        .collect();
    assert_eq!(missing, ["coderabbit"]);
    assert!(roster.warnings().is_empty());
    for entry in roster.entries() {
        let definition = entry.definition.as_ref().expect("bundled");
        assert_eq!(roster.check_conflicts(&entry.name, definition), Ok(()));
        for needed in definition.depends_on() {
            assert!(
                roster.get(needed).is_some_and(Entry::installable),
                "{needed}"
            );
        }
    }
}

#[test]
fn providers_say_how_an_agent_is_run() {
    let roster = Roster::bundled();
    let claude = roster.provider("claude").expect("claude");
    assert_eq!(
        (claude.prompt_flag.as_str(), claude.log_format.as_str()),
        ("-p", "claude-stream-json")
    );
    assert!(claude.supports_agents_json && claude.opencode_config.is_none());
    let kisski = roster.provider("kisski").expect("kisski");
    assert_eq!(kisski.headless_subcommand.as_deref(), Some("run"));
    assert_eq!(kisski.model_flag, None);
    assert_eq!(
        kisski.opencode_config.expect("section")["config_dir"],
        ".kisski"
    );
    for name in ["gh", "toad", "nosuch", ""] {
        let fault = roster.provider(name).expect_err(name);
        assert_eq!(fault.kind, Kind::UnknownProvider);
        assert!(fault.message.contains("claude, codex"), "{fault}");
    }
}

#[test]
fn user_files_merge_add_and_are_quarantined() {
    let dir = tempfile::tempdir().expect("dir");
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("write");
    put(
        "claude.yaml",
        "roster_version: 1\nlabel: My Claude\nheadless:\n  max_turns_flag: null\n",
    );
    put("codex.yaml", "headless: {nonsense: 1}\n");
    put("vibe.yaml", "label: [\n");
    put(
        "mine.yaml",
        "roster_version: 7\nheadless: {prompt_flag: ''}\ninstall: {depends_on: [gh]}\n",
    );
    put("empty.yaml", "roster_version: 1\n");
    put(
        "thief.yaml",
        "vault: {route_prefix: claude, upstream: https://x.example}\n",
    );
    put(
        "loud.yaml",
        "auto_approve: {env: {COPILOT_ALLOW_ALL: 'no'}}\n",
    );
    put("all.yaml", "label: x\n");
    put("note.yml", "label: x\n");
    let roster = Roster::load(dir.path());

    let claude = roster.get("claude").expect("claude");
    assert_eq!(claude.origin, RosterOrigin::Merged);
    let definition = claude.definition.as_ref().expect("merged");
    assert_eq!(definition.label, "My Claude");
    assert_eq!(definition.headless.max_turns_flag, None);
    assert_eq!(definition.headless.model_flag.as_deref(), Some("--model"));

    let list = roster.list();
    let of = |name: &str| list.iter().find(|e| e.name == name).expect("listed");
    assert!(
        of("codex")
            .error
            .as_deref()
            .is_some_and(|e| e.contains("nonsense"))
    );
    assert!(of("codex").installable && of("codex").origin == RosterOrigin::Bundled);
    assert!(of("vibe").error.is_some() && of("vibe").is_agent);
    assert!(of("thief").error.is_some() && !of("thief").is_agent);
    assert!(of("loud").error.is_some());
    assert_eq!(of("mine").depends_on, ["gh"]);
    assert_eq!(
        roster.provider("mine").expect("mine").git_author_email,
        "noreply@mine.ai"
    );
    assert!(
        roster.get("all").is_none()
            && roster.get("note").is_none()
            && roster.get("empty").is_none()
    );
    assert!(
        roster
            .warnings()
            .iter()
            .any(|w| w.contains("roster_version: 7"))
    );
    assert!(roster.warnings().iter().any(|w| w.contains("empty.yaml")));
}

#[test]
fn a_missing_directory_means_bundled_entries_only() {
    assert_eq!(
        Roster::load(Path::new("/nonexistent/roster")),
        Roster::bundled()
    );
}

#[test]
fn mounts_are_unique_by_host_directory() {
    let mounts = Roster::bundled().mounts();
    let hosts: BTreeSet<_> = mounts.iter().map(|(_, m)| m.host_dir.as_str()).collect();
    assert_eq!(hosts.len(), mounts.len());
    assert!(hosts.contains("_blablador-config") && hosts.contains("_opencode-state"));
}
