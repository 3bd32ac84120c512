use super::*;
use proptest::prelude::*;

fn agents(text: &str) -> Edited {
    set_agents_text(text, "claude").unwrap_or_else(|fault| panic!("{text:?}: {fault}"))
}

/// The text after setting `image.agents` in place.
fn in_place(text: &str) -> String {
    let edited = agents(text);
    assert!(!edited.reemitted, "{text:?} became {:?}", edited.text);
    edited.text
}

#[test]
fn block_files_change_in_one_or_two_lines() {
    for (old, new) in [
        (
            "project:\n  id: demo\n",
            "project:\n  id: demo\nimage:\n  agents: claude\n",
        ),
        (
            "project:\n  id: demo",
            "project:\n  id: demo\nimage:\n  agents: claude\n",
        ),
        ("", "image:\n  agents: claude\n"),
        (
            "# only\n\n# comments",
            "# only\n\n# comments\nimage:\n  agents: claude\n",
        ),
        ("\u{feff}a: 1\n", "\u{feff}a: 1\nimage:\n  agents: claude\n"),
        ("\u{feff}", "\u{feff}image:\n  agents: claude\n"),
        (
            "image:\n  agents: all # c\n",
            "image:\n  agents: claude # c\n",
        ),
        (
            "image:\n  agents: \"all\" # c\n",
            "image:\n  agents: \"claude\" # c\n",
        ),
        ("image:\n  agents: 'all'\n", "image:\n  agents: claude\n"),
        (
            "image:\n  agents:\n  x: 1\n",
            "image:\n  agents: claude\n  x: 1\n",
        ),
        ("image:\n  agents: # c\n", "image:\n  agents: claude # c\n"),
        ("image:\n  agents: ~\n", "image:\n  agents: claude\n"),
        ("image: # c\nrun:\n", "image: # c\n  agents: claude\nrun:\n"),
        ("image: ~ # c\n", "image: # c\n  agents: claude\n"),
        ("image: oops\n", "image:\n  agents: claude\n"),
        (
            "image:\n- a\n- b\nrun:\n",
            "image:\n  agents: claude\nrun:\n",
        ),
        (
            "image:\n    # why\n  - a\n",
            "image:\n    # why\n  agents: claude\n",
        ),
        (
            "image:\n# why\n    oops\n",
            "image:\n# why\n  agents: claude\n",
        ),
        ("image:\n  - a\nrun:\n", "image:\n  agents: claude\nrun:\n"),
        (
            "image:\n  base_image: fedora:44\n\n# run section\nrun:\n  memory: 4g\n",
            "image:\n  base_image: fedora:44\n  agents: claude\n\n# run section\nrun:\n  memory: 4g\n",
        ),
        (
            "project:\n    id: demo\n",
            "project:\n    id: demo\nimage:\n    agents: claude\n",
        ),
        (
            "image:\n    x: 1\n",
            "image:\n    x: 1\n    agents: claude\n",
        ),
        (
            "a: 1\r\nimage:\r\n  x: 1\r\n",
            "a: 1\r\nimage:\r\n  x: 1\r\n  agents: claude\r\n",
        ),
        (
            "---\na: 1\n...\n",
            "---\na: 1\nimage:\n  agents: claude\n...\n",
        ),
        (
            "%YAML 1.2\n---\na: 1\n",
            "%YAML 1.2\n---\na: 1\nimage:\n  agents: claude\n",
        ),
        (
            "image:\n  agents: >-\n    a,\n    b\n  x: 1\n",
            "image:\n  agents: claude\n  x: 1\n",
        ),
        (
            "image:\n  agents: | # c\n    a\n\nrun:\n",
            "image:\n  agents: claude # c\n\nrun:\n",
        ),
        (
            "image:\n  agents: a\n    b\n  x: 1\n",
            "image:\n  agents: claude\n  x: 1\n",
        ),
        (
            "image:\n  agents:\n    - a\n    - b\n  x: 1\n",
            "image:\n  agents: claude\n  x: 1\n",
        ),
        (
            "image:\n  agents: [a,\n    b]\n  x: 1\n",
            "image:\n  agents: claude\n  x: 1\n",
        ),
        (
            "image:\n  s: |\n    RUN a\n    # b\n",
            "image:\n  s: |\n    RUN a\n    # b\n  agents: claude\n",
        ),
        ("image: {}\n", "image: {agents: claude}\n"),
        ("image: {x: 1}\n", "image: {x: 1, agents: claude}\n"),
        ("image: {x: 1, }\n", "image: {x: 1, agents: claude }\n"),
        (
            "image: {agents: all, x: 1}\n",
            "image: {agents: claude, x: 1}\n",
        ),
        (
            "image: {agents: , x: 1}\n",
            "image: {agents: claude , x: 1}\n",
        ),
        ("{a: {b: 1}}\n", "{a: {b: 1}, image: {agents: claude}}\n"),
        ("{}\n", "{image: {agents: claude}}\n"),
        ("{image: ~, a: 1}\n", "{image: {agents: claude}, a: 1}\n"),
        (
            "image: &i\n  agents: all\nagent:\n  ref: *i\n",
            "image: &i\n  agents: claude\nagent:\n  ref: *i\n",
        ),
        (
            "image:\n  <<: {x: 1}\n  y: 2\n",
            "image:\n  <<: {x: 1}\n  y: 2\n  agents: claude\n",
        ),
        (
            "image:\n  s: |+\n    a\n\n\nrun:\n",
            "image:\n  s: |+\n    a\n\n\n  agents: claude\nrun:\n",
        ),
    ] {
        assert_eq!(in_place(old), new, "{old:?}");
    }
}

#[test]
fn what_cannot_be_spliced_is_written_anew_with_its_comments() {
    for old in [
        "# top\nx: &x\n  agents: all\n  y: 1\nimage: *x # here\n",
        "# top\nx: &x {agents: all, y: 1}\nimage:\n  # inner\n  <<: *x\n",
        "? image # key\n: {y: 1}\n",
        "--- # root\n~\n",
    ] {
        let edited = agents(old);
        let before = yaml::parse(old).expect("old").value;
        let mut wanted = before;
        put(&mut wanted, &["image", "agents"], "claude");
        assert_eq!(
            yaml::parse(&edited.text).expect("new").value,
            wanted,
            "{:?}",
            edited.text
        );
        assert!(
            edited.text.contains("# top") || !old.contains("# top"),
            "{:?}",
            edited.text
        );
    }
}

#[test]
fn files_that_are_no_mapping_are_refused() {
    for (text, code) in [
        ("hello\n", "wrong_type"),
        ("- a\n", "wrong_type"),
        ("project: [\n", "syntax"),
    ] {
        let fault = set_agents_text(text, "claude").expect_err(text);
        assert_eq!(fault.kind, Kind::InvalidConfig);
        assert_eq!(fault.data["errors"][0]["code"], code, "{fault}");
    }
}

#[test]
fn nothing_changes_when_the_value_is_there() {
    let text = "image: {agents: 'claude'}  # kept as it is\n";
    assert_eq!(in_place(text), text);
    assert_eq!(
        remove_key("a: 1\n", &["b", "c"]).expect("absent").text,
        "a: 1\n"
    );
}

#[test]
fn keys_are_removed_with_their_lines_only() {
    for (old, path, new) in [
        (
            "a: 1\nb:\n  c: 1\n  # d\n# tail\n",
            &["b"][..],
            "a: 1\n# tail\n",
        ),
        ("a: 1\nb:\n- x\n- y\nc: 2\n", &["b"], "a: 1\nc: 2\n"),
        ("a:\n  b: 1 # x\n  c: 2\n", &["a", "b"], "a:\n  c: 2\n"),
        ("a:\n  b: 1\n", &["a", "b"], "a:\n"),
        ("a: {b: 1, c: 2}\n", &["a", "b"], "a: {c: 2}\n"),
        ("a: {b: 1, c: 2}\n", &["a", "c"], "a: {b: 1}\n"),
        ("a: {b: 1}\n", &["a", "b"], "a: {}\n"),
        ("b: |\n  x\n\n  y\na: 1\n", &["b"], "a: 1\n"),
        ("b: {\n  c: 1\n}\na: 1\n", &["b"], "a: 1\n"),
        ("b: \"x\n  y\"\na: 1\n", &["b"], "a: 1\n"),
        ("\u{feff}b: 1\na: 1\n", &["b"], "\u{feff}a: 1\n"),
        ("b: 1\r\na: 1\r\n", &["b"], "a: 1\r\n"),
    ] {
        let edited = remove_key(old, path).expect(old);
        assert_eq!(
            (edited.text.as_str(), edited.reemitted),
            (new, false),
            "{old:?}"
        );
    }
    let edited = remove_key("agent: &a {x: 1}\nb: *a\n", &["agent"]).expect("anchor");
    assert!(edited.reemitted);
    assert_eq!(
        yaml::parse(&edited.text).expect("new").value,
        serde_json::json!({"b": {"x": 1}})
    );
}

#[test]
fn a_sibling_keeps_comments_and_drops_what_is_not_shared() {
    let source = "# top\nproject:\n  id: src  # the id\ngit:\n  default_branch: main # b\nagent:\n  model: x\n\
                  tasks:\n  root: /srv/t\n  name_categories: rivers\ngatekeeping: {staging_root: /s}\n# tail\n";
    let derived = derive_text(source, "dst", "/srv/g.git").expect("derived");
    assert_eq!(
        derived.text,
        "# top\nproject:\n  id: dst  # the id\ngit:\n  default_branch: main # b\n\
         tasks:\n  name_categories: rivers\ngatekeeping: {}\n# tail\ngate:\n  path: /srv/g.git\n"
    );
    assert_eq!(
        derived.dropped,
        ["agent", "tasks.root", "gatekeeping.staging_root"]
    );
    assert!(!derived.reemitted);
    for falsy in [
        "",
        "~\n",
        "[]\n",
        "{}\n",
        "0\n",
        "false\n",
        "project:\n",
        "# c\n[]\n",
    ] {
        let derived = derive_text(falsy, "dst", "/g").expect(falsy);
        let value = yaml::parse(&derived.text).expect("text").value;
        assert_eq!(
            value,
            serde_json::json!({"project": {"id": "dst"}, "gate": {"path": "/g"}}),
            "{falsy:?}"
        );
        assert_eq!(derived.text.contains("# c"), falsy.contains("# c"));
    }
}

#[test]
fn hostile_values_stay_strings() {
    for value in [
        "yes",
        "012",
        "1e3",
        "~",
        "a\": {x",
        "a\n---\nb",
        "*x",
        "!t",
        "\u{2028}",
        "",
        " a ",
        "-",
    ] {
        for text in [
            "image:\n  agents: all\n",
            "image: {agents: all}\n",
            "",
            "{}\n",
        ] {
            let edited = set_agents_text(text, value).expect(value);
            let read = yaml::parse(&edited.text).expect("text").value;
            assert_eq!(read["image"]["agents"], value);
            let other: Value = serde_yaml::from_str(&edited.text).expect("yaml");
            assert_eq!(other["image"]["agents"], value);
        }
    }
}

/// Lines that a file may consist of; not every combination is YAML.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("# comment".to_owned()),
        Just(String::new()),
        Just("  # inner".to_owned()),
        Just("image:".to_owned()),
        Just("  agents: all # why".to_owned()),
        Just("  base_image: \"x\"".to_owned()),
        Just("  snippet: |".to_owned()),
        Just("    RUN a".to_owned()),
        Just("    # in block".to_owned()),
        Just("run:".to_owned()),
        Just("  memory: 4g".to_owned()),
        Just("  list:".to_owned()),
        Just("  - a".to_owned()),
        Just("project: {id: demo} # p".to_owned()),
        Just("git: &g".to_owned()),
        Just("  <<: *g".to_owned()),
        Just("ref: *g".to_owned()),
        Just("image: {x: 1}".to_owned()),
        Just("---".to_owned()),
        Just("...".to_owned()),
    ]
}

/// Lines of one text that the other lacks, by count.
fn lost(from: &str, to: &str) -> usize {
    let mut left: Vec<&str> = to.lines().collect();
    let mut count = 0;
    for line in from.lines() {
        match left.iter().position(|other| *other == line) {
            Some(at) => {
                left.remove(at);
            }
            None => count += 1,
        }
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn edits_keep_everything_but_the_key(lines in prop::collection::vec(line(), 0..14)) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let Ok(before) = yaml::parse(&text) else { return Ok(()) };
        let Ok(edited) = set_agents_text(&text, "claude") else {
            prop_assert!(!matches!(before.value, Value::Object(_) | Value::Null), "{text}");
            return Ok(());
        };
        let after = yaml::parse(&edited.text).expect("reads").value;
        prop_assert_eq!(&after["image"]["agents"], "claude");
        if !edited.reemitted {
            // A section that is no mapping goes away altogether, however long it is.
            let replaced = before.value.get("image").is_some_and(|v| !v.is_object() && !v.is_null());
            prop_assert!((replaced || lost(&text, &edited.text) <= 2) && lost(&edited.text, &text) <= 2, "{}\n=>\n{}", text, edited.text);
            for line in text.lines().filter(|line| line.trim_start().starts_with('#')) {
                prop_assert!(edited.text.contains(line));
            }
        }
        let removed = remove_key(&edited.text, &["image", "agents"]).expect("removes");
        let gone = yaml::parse(&removed.text).expect("reads").value;
        prop_assert!(lookup(&gone, &["image", "agents"]).is_none());
    }

    #[test]
    fn nothing_panics(text in any::<String>(), value in any::<String>()) {
        if let Ok(edited) = set_agents_text(&text, &value) {
            prop_assert_eq!(&yaml::parse(&edited.text).expect("reads").value["image"]["agents"], &value);
        }
        let _ = remove_key(&text, &["image"]);
        let _ = derive_text(&text, "dst", "/g");
    }

    #[test]
    fn nothing_panics_on_yaml_like_text(text in "[a-c:{}\\[\\],&*|>?!'\"#~ \\-\n\r\t%.é\u{feff}]{0,40}", value in ".{0,8}") {
        let path = ["a", "b"];
        if let Ok(edited) = set_scalar(&text, &path, &value) {
            let read = yaml::parse(&edited.text).expect("reads").value;
            prop_assert_eq!(lookup(&read, &path).and_then(Value::as_str), Some(value.as_str()));
        }
        let _ = remove_key(&text, &["a"]);
        let _ = derive_text(&text, "dst", "/g");
    }
}

#[test]
fn a_flag_is_written_as_one() {
    let text = "# mine\ncredentials:\n  use_keyring: no # for now\n";
    let edited = set_flag(text, &["credentials", "use_keyring"], true).expect("an edit");
    assert_eq!(
        edited.text,
        "# mine\ncredentials:\n  use_keyring: true # for now\n"
    );
    let new = set_flag("", &["credentials", "use_keyring"], false).expect("an edit");
    assert_eq!(new.text, "credentials:\n  use_keyring: false\n");
}
