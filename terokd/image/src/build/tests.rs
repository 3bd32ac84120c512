use super::*;
use crate::layers::{Foundation, ProjectLayer};
use jiff::Timestamp;
use std::sync::Arc;
use terok_config::roster::Roster;

struct World {
    context: Context,
}

fn world(names: &[&str]) -> World {
    on("debian:12", names)
}

fn on(base: &str, names: &[&str]) -> World {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let foundation =
        Foundation::new(base, None, &names, &Roster::bundled(), None).expect("a foundation");
    let project = ProjectLayer::new(true, None, None, None).expect("legal");
    World {
        context: Context::new(Arc::new(Rendered::new(foundation)), &project),
    }
}

impl World {
    fn plan(&self, options: Options) -> Plan<'_> {
        Plan {
            base: &self.context.base,
            project: Some(("demo", &self.context)),
            options,
            bust: "17",
            version: "1.2.3",
        }
    }

    fn labels(&self) -> (Labels, Labels) {
        let label = |hash: &str| Labels::from([(labels::CONTENT_HASH.to_owned(), hash.to_owned())]);
        let base = &self.context.base;
        let mut l1 = label(&base.l1);
        l1.insert(labels::L0_HASH.to_owned(), base.l0.clone());
        (label(&base.l0), l1)
    }
}

fn layers(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().map(|step| step.layer.name()).collect()
}

fn built(steps: &[Step]) -> Vec<BuiltImage> {
    steps
        .iter()
        .map(|step| BuiltImage {
            layer: step.layer,
            tag: step.tag.clone(),
            image_id: format!("id-{}", step.layer.name()),
            cached: false,
        })
        .collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[test]
fn base_layers_are_built_when_missing_or_asked_for() {
    let world = world(&["claude"]);
    let (l0, l1) = world.labels();
    let both = Present {
        l0: Some(&l0),
        l1: Some(&l1),
    };
    let old = Labels::new();
    let stale = Present {
        l0: Some(&l0),
        l1: Some(&old),
    };
    let of = |options, present| layers(&world.plan(options).steps(present));
    let none = Options::default();
    let all = ["l0", "l1", "l2-cli"];
    assert_eq!(of(none, Present::default()), all);
    assert_eq!(of(none, Present { l1: None, ..both }), all);
    assert_eq!(of(none, both), ["l2-cli"]);
    assert_eq!(
        of(none, stale),
        ["l2-cli"],
        "staleness alone does not rebuild"
    );
    assert_eq!(
        of(
            Options {
                rebuild_stale: true,
                ..none
            },
            stale
        ),
        all
    );
    assert_eq!(
        of(
            Options {
                rebuild_stale: true,
                ..none
            },
            both
        ),
        ["l2-cli"]
    );
    assert_eq!(
        of(
            Options {
                refresh_agents: true,
                ..none
            },
            both
        ),
        all
    );
    assert_eq!(
        of(
            Options {
                full: true,
                include_dev: true,
                ..none
            },
            both
        ),
        ["l0", "l1", "l2-cli", "l2-dev"]
    );
}

#[test]
fn only_the_base_is_ever_pulled_and_all_names_are_local() {
    let world = world(&["claude"]);
    let options = Options {
        full: true,
        include_dev: true,
        ..Options::default()
    };
    let steps = world.plan(options).steps(Present::default());
    assert_eq!(
        steps.iter().map(|s| s.pull).collect::<Vec<_>>(),
        [true, false, false, false]
    );
    assert!(
        steps
            .iter()
            .all(|step| step.no_cache && step.tag.starts_with("localhost/"))
    );
    let bases: Vec<&str> = steps
        .iter()
        .map(|step| step.arguments[BASE_ARGUMENT].as_str())
        .collect();
    assert_eq!(
        bases,
        [
            "debian:12",
            "localhost/terok-l0:debian-12",
            "localhost/terok-l1-cli:debian-12-claude",
            "localhost/terok-l0:debian-12"
        ]
    );
    assert_eq!(steps[1].arguments[BUST_ARGUMENT], "17");
    assert!(
        !steps[0].arguments.contains_key(BUST_ARGUMENT)
            && !steps[2].arguments.contains_key(BUST_ARGUMENT)
    );
    assert_eq!(steps[2].tag, "localhost/demo:l2-cli");
    assert_eq!(
        steps[3].labels[labels::BUILD_CONTEXT_HASH],
        world.context.hashes.combined
    );
    assert_eq!(steps[0].labels[labels::VERSION], "1.2.3");
    assert!(!world.plan(Options::default()).steps(Present::default())[0].pull);
}

#[test]
fn no_registry_is_asked_for_a_base_that_the_user_made() {
    let options = Options {
        full: true,
        ..Options::default()
    };
    for (base, pull) in [
        ("localhost/debian:1", false),
        ("localhost:5000/debian:1", true),
    ] {
        let world = on(base, &["claude"]);
        assert_eq!(world.plan(options).steps(Present::default())[0].pull, pull);
    }
}

#[test]
fn the_bust_value_changes_only_for_new_agents() {
    let none = Options::default();
    assert_eq!(none.bust(at(99), None), "0");
    assert_eq!(none.bust(at(99), Some("42")), "42");
    assert_eq!(
        Options { full: true, ..none }.bust(at(99), Some("42")),
        "99"
    );
    assert_eq!(
        Options {
            refresh_agents: true,
            ..none
        }
        .bust(at(99), None),
        "99"
    );
    for odd in ["", "4\nRUN x", "-1", "999999999999999999999"] {
        assert_eq!(none.bust(at(99), Some(odd)), "0", "{odd:?}");
    }
}

#[test]
fn a_manifest_tells_what_the_used_layers_were_made_of() {
    let world = world(&["claude"]);
    let plan = world.plan(Options {
        refresh_agents: true,
        ..Options::default()
    });
    let everything = built(&plan.steps(Present::default()));
    let first = plan
        .manifest(&everything, Present::default(), None, at(0))
        .expect("a project");
    assert!(still_stale(&first, &world.context.hashes).is_empty());
    let l1 = first.l1.as_ref().expect("recorded");
    assert_eq!(
        (
            l1.tag.as_str(),
            l1.cache_bust.as_deref(),
            l1.agents_refreshed_at.as_deref()
        ),
        (
            "terok-l1-cli:debian-12-claude",
            Some("17"),
            Some("1970-01-01T00:00:00Z")
        )
    );

    // Used as they were: one as it would be built now, one of the reference without our label.
    let (l0, _) = world.labels();
    let unlabelled = Labels::new();
    let present = Present {
        l0: Some(&l0),
        l1: Some(&unlabelled),
    };
    let plan = world.plan(Options::default());
    let only_l2 = built(&plan.steps(present));
    let mut before = first.clone();
    before.agents_versions.insert("claude".into(), "2".into());
    before.l2_dev = Some(LayerRecord::default());
    let second = plan
        .manifest(&only_l2, present, Some(&before), at(100))
        .expect("a project");
    assert_eq!(
        still_stale(&second, &world.context.hashes),
        ["l0", "l1"],
        "nobody knows what it stands on"
    );
    let (l0, l1) = (
        second.l0.as_ref().expect("recorded"),
        second.l1.as_ref().expect("recorded"),
    );
    assert_eq!(
        (l0.built_at.as_deref(), l0.image_id.as_deref()),
        (Some("1970-01-01T00:00:00Z"), Some("id-l0"))
    );
    assert_eq!(
        (l1.cache_bust.as_deref(), l1.content_hash.as_deref()),
        (Some("17"), None)
    );
    assert_eq!(
        second.l2_cli.as_ref().and_then(|r| r.built_at.as_deref()),
        Some("1970-01-01T00:01:40Z")
    );
    assert!(second.agents_versions.contains_key("claude") && second.l2_dev.is_some());

    // Another selection has another history.
    let other = super::tests::world(&["codex"]);
    let third = other
        .plan(Options::default())
        .manifest(&[], present, Some(&first), at(100))
        .expect("a project");
    assert_eq!(third.l1.expect("recorded").cache_bust, None);
}

#[test]
fn an_agent_layer_on_an_older_base_layer_is_told_and_rebuilt() {
    // Another project, with other agents, built the base layer anew.
    let world = world(&["claude"]);
    let (l0, mut l1) = world.labels();
    l1.insert(labels::L0_HASH.to_owned(), "f".repeat(64));
    let present = Present {
        l0: Some(&l0),
        l1: Some(&l1),
    };
    let plan = world.plan(Options::default());
    let only_l2 = built(&plan.steps(present));
    assert_eq!(only_l2.len(), 1);
    let manifest = plan.manifest(&only_l2, present, None, at(0));
    assert_eq!(
        still_stale(&manifest.expect("a project"), &world.context.hashes),
        ["l0"]
    );
    let plan = world.plan(Options {
        rebuild_stale: true,
        ..Options::default()
    });
    let steps = plan.steps(present);
    assert_eq!(layers(&steps), ["l0", "l1", "l2-cli"]);
    assert_eq!(steps[1].labels[labels::L0_HASH], world.context.base.l0);
    assert!(!steps[0].labels.contains_key(labels::L0_HASH));
}

#[test]
fn versions_are_read_from_the_log() {
    let line = "STEP 9: terok-versions: {\"claude\": \"2.1.0\", \"x\": \"a b\"}\n";
    assert_eq!(
        versions(line),
        Some(BTreeMap::from([("claude".to_owned(), "2.1.0".to_owned())]))
    );
    for other in [
        "",
        "terok-versions: [",
        "versions: {}",
        "terok-versions: {\"a\": 1}",
    ] {
        assert_eq!(versions(other), None, "{other}");
    }
}

#[test]
fn projects_that_no_image_can_be_named_after_are_told() {
    assert!(check_project("demo").is_ok());
    assert!(
        check_project(&"long".repeat(20)).is_ok(),
        "old ids may be longer than new ones"
    );
    for bad in ["foo-", "a___b", "terok-l0x"] {
        assert_eq!(check_project(bad).expect_err(bad).kind, Kind::InvalidConfig);
    }
}
