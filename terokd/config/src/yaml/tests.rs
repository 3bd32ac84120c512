use super::*;
use proptest::prelude::*;
use serde_json::json;

fn value(text: &str) -> Value {
    parse(text).unwrap().value
}

fn path(text: &str) -> Vec<Step> {
    text.split('.')
        .map(|step| step.parse().map_or_else(|_| Step::from(step), Step::Index))
        .collect()
}

#[test]
fn scalars_follow_yaml_1_2() {
    let cases = [
        ("true", json!(true)),
        ("TRUE", json!(true)),
        ("tRue", json!("tRue")),
        ("yes", json!("yes")),
        ("~", json!(null)),
        ("", json!(null)),
        ("Null", json!(null)),
        ("'~'", json!("~")),
        ("10", json!(10)),
        ("+12", json!(12)),
        ("0x1F", json!(31)),
        ("0o10", json!(8)),
        ("0b11", json!(3)),
        ("-0", json!(0)),
        ("010", json!(10)),
        ("08", json!(8)),
        ("00", json!(0)),
        ("-010", json!(-10)),
        ("1_000", json!(1000)),
        ("'010'", json!("010")),
        ("\"1_000\"", json!("1_000")),
        ("0x1_F", json!(31)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("5.", json!(5.0)),
        ("1e3", json!(1000.0)),
        ("1_0.5", json!(10.5)),
        ("12:30:45", json!("12:30:45")),
        ("1:30", json!("1:30")),
        ("2024-01-01", json!("2024-01-01")),
        ("'12'", json!("12")),
        (".inf", json!(".inf")),
        ("-.INF", json!("-.inf")),
        (".NaN", json!(".nan")),
        ("_1", json!("_1")),
        ("1a", json!("1a")),
        ("0x", json!("0x")),
        ("1_", json!(1)),
        ("!!str 12", json!("12")),
        ("!!bool 'false'", json!(false)),
        ("!!float 3", json!(3.0)),
        ("!!null ''", json!(null)),
        ("!!int '7'", json!(7)),
        ("\"\\e\"", json!("\u{1b}")),
        ("100000000000000000000", json!(1e20)),
    ];
    for (text, want) in cases {
        assert_eq!(value(&format!("a: {text}\n"))["a"], want, "{text}");
    }
}

#[test]
fn dubious_documents_are_errors() {
    for text in [
        "a: 1\n---\nb: 2\n",
        "a: 1\na: 2\n",
        "a: {b: 1, 'b': 2}\n",
        "a: [",
        "a: }\n",
        "a: *x\n",
        "a: !foo x\n",
        "a: &x [*x]\n",
        "a: \u{1b}\n",
        "a: \0\n",
        "a: b: c\n",
        "a:\n  b: 1\n c: 2\n",
        "\tb: 1\n",
        "a: !!python/object:os.system x\n",
        "a:\n  <<: 5\n",
        "a: \u{7f}\n",
        "a:\tb\n",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_duplicate_names_both_places() {
    let problems = parse("a:\n  id: 1\n  x: 2\n  'id': 3\n").unwrap_err();
    assert_eq!(problems[0].code, ProblemCode::DuplicateKey);
    assert_eq!((problems[0].line, problems[0].column), (Some(4), Some(3)));
    assert!(
        problems[0].message.contains("line 2, column 3"),
        "{}",
        problems[0].message
    );
}

#[test]
fn a_tag_is_taken_from_its_own_value_only() {
    assert_eq!(
        value("{a: '!!int', b: !<tag:yaml.org,2002:int> 1, c: !!int &x '2', d: &y !!int '3'}\n"),
        json!({"a": "!!int", "b": 1, "c": 2, "d": 3})
    );
    assert_eq!(
        value("a: !!str\nb: [!!str , x]\n"),
        json!({"a": "", "b": ["", "x"]})
    );
    assert_eq!(value("a: ! 12\n"), json!({"a": "12"}));
    assert!(parse("a: !!int x\n").is_err());
}

#[test]
fn merges_and_aliases() {
    assert_eq!(
        value("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b], z: 4}\nd: {<<: *b, y: 9}\n"),
        json!({"a": {"x": 1}, "b": {"x": 2, "y": 3}, "c": {"z": 4, "x": 1, "y": 3}, "d": {"y": 9, "x": 2}})
    );
    let doc = parse("a: &a\n  x: 010\nc:\n  <<: *a\n").unwrap();
    assert_eq!(doc.value["c"]["x"], json!(10));
    assert_eq!(doc.position(&path("c.x")).unwrap().line, 2);
    assert!(doc.position(&path("c.x")).unwrap().indirect);
}

#[test]
fn limits_hold() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(parse(&deep(64)).is_ok());
    assert!(parse(&deep(65)).is_err());
    assert!(parse(&"[".repeat(500_000)).is_err());
    assert!(parse(&"- ".repeat(400_000)).is_err());
    assert!(parse(&" ".repeat((1 << 20) + 1)).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let alias = format!("*a{}", i - 1);
        bomb.push_str(&format!(
            "a{i}: &a{i} [{}]\n",
            [alias.as_str(); 9].join(", ")
        ));
    }
    assert!(parse(&bomb).is_err());
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(500_000),
        vec!["*a"; 50].join(", ")
    );
    assert!(parse(&long).is_err());
}

#[test]
fn positions_point_at_keys_and_values() {
    let text = "\u{feff}# ü\nrun:\n  hooks: {pre_start: 'é x', post_stop: |-\n}\n";
    assert!(parse(text).is_err());
    let text =
        "\u{feff}# ü\nrun:\n  hooks: {pre_start: 'é x', é: 1}\nlist:\n- a\n- b: |\n    text\n";
    let doc = parse(text).unwrap();
    let pre = doc.position(&path("run.hooks.pre_start")).unwrap();
    assert_eq!(&text[pre.span.clone()], "'é x'");
    assert_eq!(&text[pre.key.unwrap().span], "pre_start");
    assert_eq!(
        (pre.line, pre.column, pre.style),
        (3, 22, Style::SingleQuoted)
    );
    let one = doc.position(&path("run.hooks.é")).unwrap();
    assert_eq!(&text[one.span], "1");
    let hooks = doc.position(&path("run.hooks")).unwrap();
    assert_eq!(&text[hooks.span], "{pre_start: 'é x', é: 1}");
    assert_eq!(hooks.style, Style::Flow);
    assert_eq!(&text[doc.position(&path("list.0")).unwrap().span], "a");
    assert_eq!(
        doc.position(&path("list.1.b")).unwrap().style,
        Style::Literal
    );
    assert_eq!(doc.position(&path("run")).unwrap().style, Style::Block);
    assert!(doc.position(&path("run.nothing")).is_none());
}

#[test]
fn directives_are_ignored_with_a_warning() {
    for (text, warned) in [
        ("%YAML 1.2\n---\na: yes\n", 0),
        ("%YAML 1.1\n---\na: yes\n", 1),
        ("%FOO bar\n---\na: yes\n", 1),
    ] {
        let doc = parse(text).unwrap();
        assert_eq!(doc.value, json!({"a": "yes"}), "{text}");
        assert_eq!(doc.warnings.len(), warned, "{text}");
    }
}

#[test]
fn odd_keys_are_remembered() {
    let doc = parse("1: x\na: {true: y, null: z, [a, b]: c}\n").unwrap();
    let keys: Vec<String> = doc.odd_keys().iter().map(|key| dotted(key)).collect();
    assert_eq!(keys, ["1", "a.true", "a.null", "a.[…]"]);
}

#[test]
fn empty_files_and_end_markers() {
    for text in ["", "\n\n", "# x\n", "---\n...\n", "~\n", "null", "\u{feff}"] {
        assert_eq!(value(text), json!(null), "{text:?}");
    }
    assert_eq!(
        value("a: 1\r\nb: |\r\n  x\r\n  y\r\n"),
        json!({"a": 1, "b": "x\ny\n"})
    );
    assert_eq!(
        value("a: {\tb: 1,\tc: 2 }\n"),
        json!({"a": {"b": 1, "c": 2}})
    );
    assert!(parse_bytes(b"a: caf\xe9\n").is_err());
}

proptest! {
    #[test]
    fn never_panics_on_text(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn never_panics_on_yaml_like_text(text in "[a-c:\\-\\[\\]{},&*!<>|%#'\"\\\\ \n\t?~0-9_.é]{0,120}") {
        let _ = parse(&text);
    }

    #[test]
    fn positions_hold_the_text(words in prop::collection::vec(("[a-zé]{1,6}", "[a-zéü]{2,8}"), 1..8)) {
        let mut text = String::new();
        for (i, (key, word)) in words.iter().enumerate() {
            text.push_str(&format!("k{i}{key}: # ü\n    {word}é\n"));
        }
        let doc = parse(&text).unwrap();
        for (i, (key, word)) in words.iter().enumerate() {
            let at = doc.position(&[Step::Key(format!("k{i}{key}"))]).unwrap();
            prop_assert_eq!(&text[at.span.clone()], format!("{word}é"));
            prop_assert_eq!(&text[at.key.unwrap().span], format!("k{i}{key}"));
            prop_assert_eq!(at.line, 2 * i as u64 + 2);
        }
    }
}

#[test]
fn spans_end_where_the_value_ends() {
    let text = "a: \"all\" # c\nb: 'x'   # d\nc: {d: 1}  # e\nf: plain # g\nh: &x \"y\" # z\ni: [1] # j\nk: \"é\" # l\nm:\n  n: o # p\nq: *x # r\ns: 't\n  u' # v\nw: | # x\n  block\ny: z\n";
    let doc = parse(text).unwrap();
    for (key, want) in [
        ("a", "\"all\""),
        ("b", "'x'"),
        ("c", "{d: 1}"),
        ("f", "plain"),
        ("h", "\"y\""),
        ("i", "[1]"),
        ("k", "\"é\""),
        ("q", "*x"),
        ("s", "'t\n  u'"),
        ("y", "z"),
    ] {
        assert_eq!(&text[doc.position(&path(key)).unwrap().span], want, "{key}");
    }
    let block = &text[doc.position(&path("w")).unwrap().span];
    assert!(
        block.starts_with('|') && block.trim_end().ends_with("block"),
        "{block:?}"
    );
    let doc = parse("a: &x {b: &y !!str 'c'}\nd: &z\n  e: *x\nf: !!str\ng: &n\n").unwrap();
    assert_eq!(doc.position(&path("a")).unwrap().style, Style::Flow);
    assert_eq!(
        doc.position(&path("a.b")).unwrap().style,
        Style::SingleQuoted
    );
    assert_eq!(doc.position(&path("d")).unwrap().style, Style::Block);
    assert!(doc.position(&path("f")).is_some() && doc.position(&path("g")).is_some());
}
