use super::*;
use serde_json::json;

fn id(n: u32) -> String {
    format!("sha256:{n:064x}")
}

fn image(n: u32, names: &[&str]) -> Image {
    Image {
        id: id(n),
        names: names.iter().map(|name| Name::parse(name)).collect(),
        ..Image::default()
    }
}

fn ours(n: u32, names: &[&str]) -> Image {
    let mut image = image(n, names);
    image
        .labels
        .insert(labels::LAYER.to_owned(), "l2-cli".to_owned());
    image
}

fn known(ids: &[&str]) -> Projects {
    Projects::Known(ids.iter().map(|id| (*id).to_owned()).collect())
}

struct World {
    images: Vec<Image>,
    projects: Projects,
    built: BTreeSet<String>,
}

impl World {
    fn new(images: Vec<Image>) -> Self {
        Self {
            images,
            projects: known(&["demo"]),
            built: BTreeSet::new(),
        }
    }

    fn store(&self) -> Store<'_> {
        Store {
            images: &self.images,
            projects: &self.projects,
            built: &self.built,
        }
    }

    fn orphaned(&self) -> Vec<String> {
        self.store()
            .orphaned()
            .iter()
            .map(Listed::full_name)
            .collect()
    }

    fn removal(&self, wanted: serde_json::Value) -> Plan {
        let wanted = Wanted::parse(&wanted).expect("a request");
        self.store().plan_removal(&[wanted], Some(&BTreeSet::new()))
    }
}

#[test]
fn a_project_called_like_a_base_layer_has_its_own_image() {
    assert_eq!(
        Name::parse("localhost/terok-l0:l2-cli").layer(),
        Some(Layer::L2Cli)
    );
    assert_eq!(
        Name::parse("localhost/terok-l0:l2-cli").project(),
        Some("terok-l0")
    );
    assert_eq!(
        Name::parse("terok-l1-sidecar:ubuntu-24.04").layer(),
        Some(Layer::L1Sidecar)
    );
    assert_eq!(Name::parse("docker.io/library/ubuntu:24.04").layer(), None);
    assert_eq!(Name::parse("host:5000/x").tag, "latest");
    for stranger in [
        "docker.io/library/x:l2-cli",
        "localhost/team/x:l2-cli",
        "terok-l0.example.org/x:1",
    ] {
        let name = Name::parse(stranger);
        assert_eq!((name.layer(), name.project()), (None, None));
    }
}

#[test]
fn an_image_whose_projects_are_unreadable_stays() {
    let mut world = World::new(vec![ours(1, &["localhost/gone:l2-cli"]), ours(2, &[])]);
    assert_eq!(world.orphaned().len(), 2);
    world.projects = Projects::Unknown;
    assert_eq!(world.orphaned(), ["<none> (000000000000)"]);
    assert_eq!(world.removal(json!(id(1))).refused, [id(1)]);
}

#[test]
fn an_inherited_label_does_not_make_a_strangers_image_ours() {
    let mut world = World::new(vec![ours(
        1,
        &["localhost/gone:l2-cli", "localhost/mine:1"],
    )]);
    assert!(world.orphaned().is_empty());
    world.built.insert(id(1));
    assert_eq!(world.orphaned(), ["localhost/gone:l2-cli"]);
    let plan = world.store().plan_cleanup();
    assert_eq!(
        plan.removals[0].names,
        ["localhost/gone:l2-cli"],
        "the stranger's name stays"
    );
}

#[test]
fn old_base_layers_are_found_by_history_comment() {
    let mut old = image(1, &[]);
    old.history = vec!["FROM localhost/terok-l0:ubuntu-24.04".to_owned()];
    let mut stranger = image(2, &[]);
    stranger.history = vec!["FROM docker.io/library/alpine:3".to_owned()];
    let mut recorded = image(3, &[]);
    recorded.id = id(3);
    let mut world = World::new(vec![old, stranger, recorded]);
    world.built.insert(id(3));
    let ids: Vec<&str> = world
        .store()
        .orphaned()
        .iter()
        .map(|l| l.image.id.as_str())
        .collect();
    assert_eq!(ids, [id(1), id(3)]);
    assert!(world.images[1].needs_history(&world.store()));
    assert!(!world.images[2].needs_history(&world.store()));
}

#[test]
fn what_others_were_built_from_is_not_dangling() {
    let mut top = ours(2, &[]);
    top.parent = Some(id(1));
    let world = World::new(vec![ours(1, &[]), top]);
    let ids: Vec<&str> = world
        .store()
        .orphaned()
        .iter()
        .map(|l| l.image.id.as_str())
        .collect();
    assert_eq!(ids, [id(2)], "the parent shows once its child is gone");
}

#[test]
fn all_orphaned_names_of_an_image_go_together() {
    let world = World::new(vec![ours(
        1,
        &[
            "localhost/gone:l2-cli",
            "localhost/gone:l2-dev",
            "localhost/demo:l2-cli",
        ],
    )]);
    let plan = world.store().plan_cleanup();
    assert_eq!(plan.removals.len(), 1);
    assert_eq!(
        plan.removals[0].names,
        ["localhost/gone:l2-cli", "localhost/gone:l2-dev"]
    );
    let one = world.removal(json!("localhost/gone:l2-dev"));
    assert_eq!(one.removals[0].names, ["localhost/gone:l2-dev"]);
    assert_eq!(
        world.removal(json!("localhost/demo:l2-cli")).refused,
        ["localhost/demo:l2-cli"]
    );
}

#[test]
fn a_client_removes_nothing_that_is_not_an_orphan() {
    let world = World::new(vec![
        image(1, &["docker.io/library/alpine:latest"]),
        ours(2, &["localhost/demo:l2-cli"]),
        ours(3, &["localhost/gone:l2-cli"]),
        ours(4, &[]),
        image(5, &[]),
    ]);
    for wanted in [
        json!("docker.io/library/alpine:latest"),
        json!(id(1)),
        json!(id(2)),
        json!(id(5)),
        json!(id(9)),
        json!("nothing:here"),
        json!("<none> (ffffffffffff)"),
        json!({"image_id": id(1), "repository": "localhost/gone", "tag": "l2-cli"}),
        json!({"image_id": id(3), "repository": "localhost/other", "tag": "l2-cli"}),
        // All ids here begin alike.
        json!("000000000000"),
    ] {
        let plan = world.removal(wanted.clone());
        assert!(
            plan.removals.is_empty() && plan.refused.len() == 1,
            "{wanted} {plan:?}"
        );
    }
    for wanted in [
        json!(id(3)),
        json!(id(3)["sha256:".len()..]),
        json!("localhost/gone:l2-cli"),
        json!({"image_id": id(3), "repository": "localhost/gone", "tag": "l2-cli"}),
    ] {
        let plan = world.removal(wanted.clone());
        assert_eq!(plan.removals.len(), 1, "{wanted}");
        assert_eq!(plan.removals[0].names, ["localhost/gone:l2-cli"]);
    }
    let dangling =
        world.removal(json!({"image_id": id(4), "repository": "<none>", "tag": "<none>"}));
    assert_eq!(
        (
            dangling.removals[0].id.as_str(),
            dangling.removals[0].names.len()
        ),
        (id(4).as_str(), 0)
    );
    for invalid in [
        json!(""),
        json!(3),
        json!(null),
        json!({}),
        json!("<none> (xyz)"),
        json!({"image_id": "../x"}),
    ] {
        assert!(Wanted::parse(&invalid).is_err(), "{invalid}");
    }
}

#[test]
fn the_same_image_twice_is_removed_once() {
    let world = World::new(vec![ours(3, &["localhost/gone:l2-cli"])]);
    let wanted: Vec<Wanted> = [json!(id(3)), json!("localhost/gone:l2-cli")]
        .iter()
        .map(|value| Wanted::parse(value).expect("a request"))
        .collect();
    assert_eq!(world.store().plan_removal(&wanted, None).removals.len(), 1);
}

#[test]
fn base_layers_that_nothing_needs_are_offered() {
    let on = |mut image: Image, parent: u32| {
        image.parent = Some(id(parent));
        image
    };
    let mut busy = ours(9, &["localhost/terok-l1-sidecar:debian-12"]);
    busy.containers = Some(1);
    let world = World::new(vec![
        ours(1, &["localhost/terok-l0:old"]),
        on(ours(2, &["localhost/terok-l1-cli:old-claude"]), 1),
        ours(3, &["localhost/terok-l0:ubuntu-24.04"]),
        on(
            ours(
                4,
                &[
                    "localhost/terok-l1-cli:ubuntu-24.04",
                    "localhost/terok-l1-cli:ubuntu-24.04-codex",
                ],
            ),
            3,
        ),
        ours(5, &["localhost/terok-l0:fedora-44"]),
        on(ours(6, &["localhost/terok-l1-cli:fedora-44-claude"]), 5),
        on(ours(7, &["localhost/demo:l2-cli"]), 6),
        busy,
    ]);
    let needed = BTreeSet::from(["terok-l1-cli:ubuntu-24.04".to_owned()]);
    let unused: Vec<String> = world
        .store()
        .unused_base_images(&needed)
        .iter()
        .map(Listed::full_name)
        .collect();
    assert_eq!(
        unused,
        [
            "localhost/terok-l0:old",
            "localhost/terok-l1-cli:old-claude"
        ]
    );
    assert!(world.orphaned().is_empty(), "never by itself");

    let wanted = Wanted::parse(&json!("localhost/terok-l0:old")).expect("a request");
    let plan = world
        .store()
        .plan_removal(std::slice::from_ref(&wanted), Some(&needed));
    assert_eq!(plan.removals[0].names, ["localhost/terok-l0:old"]);
    assert!(
        world
            .store()
            .plan_removal(&[wanted], None)
            .removals
            .is_empty()
    );
    let alias = Wanted::parse(&json!("localhost/terok-l1-cli:ubuntu-24.04")).expect("a request");
    assert!(
        world
            .store()
            .plan_removal(&[alias], Some(&needed))
            .removals
            .is_empty()
    );
}

#[test]
fn labels_tell_what_an_image_stands_on_where_parents_do_not() {
    let labelled = |mut image: Image, agents: Option<&str>| {
        image
            .labels
            .insert(labels::BASE.to_owned(), "debian:12".to_owned());
        if let Some(agents) = agents {
            image
                .labels
                .insert(labels::AGENTS.to_owned(), agents.to_owned());
        }
        image
    };
    let bases = || {
        vec![
            labelled(ours(1, &["localhost/terok-l0:debian-12"]), None),
            labelled(
                ours(2, &["localhost/terok-l1-cli:debian-12-claude-codex"]),
                Some("claude,codex"),
            ),
            labelled(
                ours(3, &["localhost/terok-l1-cli:debian-12-empty"]),
                Some(""),
            ),
        ]
    };
    let unused = |images: Vec<Image>, needed: &[&str]| -> Vec<String> {
        let needed = needed.iter().map(|name| (*name).to_owned()).collect();
        let world = World::new(images);
        let names = world.store().unused_base_images(&needed);
        names.iter().map(Listed::full_name).collect()
    };
    let empty = "localhost/terok-l1-cli:debian-12-empty";
    let mut images = bases();
    images.push(labelled(
        ours(4, &["localhost/demo:l2-cli"]),
        Some("claude,codex"),
    ));
    assert_eq!(unused(images, &[]), [empty]);

    let mut images = bases();
    let mut in_use = labelled(ours(4, &[]), Some("claude,codex"));
    in_use.containers = Some(1);
    images.push(in_use);
    assert_eq!(
        unused(images, &[]),
        [empty],
        "an old image that a container still runs"
    );

    let mut images = bases();
    images.push(labelled(ours(4, &["localhost/demo:l2-dev"]), None));
    assert_eq!(
        unused(images, &[]),
        ["localhost/terok-l1-cli:debian-12-claude-codex", empty]
    );
    assert_eq!(
        unused(bases(), &["localhost/terok-l1-cli:debian-12-empty"]),
        ["localhost/terok-l1-cli:debian-12-claude-codex"]
    );
    assert_eq!(unused(bases(), &[]).len(), 3);
}

#[test]
fn a_circle_of_parents_ends() {
    let mut a = ours(1, &["localhost/demo:l2-cli"]);
    a.parent = Some(id(2));
    let mut b = ours(2, &[]);
    b.parent = Some(id(1));
    let world = World::new(vec![a, b]);
    assert!(
        world
            .store()
            .unused_base_images(&BTreeSet::new())
            .is_empty()
    );
}

#[test]
fn lists_have_one_entry_per_name() {
    let mut twice = ours(
        1,
        &[
            "localhost/demo:l2-cli",
            "localhost/demo:l2-dev",
            "localhost/x:1",
        ],
    );
    twice.size = 1_200_000_000;
    twice.created = Timestamp::from_second(1_000_000).expect("in range");
    let world = World::new(vec![
        image(3, &["localhost/terok-l0:a"]),
        twice,
        ours(2, &["localhost/other:l2-cli"]),
    ]);
    let names = |project| -> Vec<String> {
        world
            .store()
            .list(project)
            .iter()
            .map(Listed::full_name)
            .collect()
    };
    assert_eq!(
        names(Some("demo")),
        [
            "localhost/terok-l0:a",
            "localhost/demo:l2-cli",
            "localhost/demo:l2-dev"
        ]
    );
    assert_eq!(names(None).len(), 4);
    assert_eq!(world.store().of_project("demo").len(), 2);
    assert_eq!(world.store().global().len(), 1);
    let now = Timestamp::from_second(1_000_000 + 2 * 86400).expect("in range");
    let info = world.store().list(Some("demo"))[1].info(now);
    assert_eq!(
        (
            info.size.as_str(),
            info.created.as_str(),
            info.created_at.as_str()
        ),
        ("1.2 GB", "2 days ago", "1970-01-12T13:46:40Z")
    );
    assert_eq!(
        (
            info.project_key.as_str(),
            info.layer,
            info.project_id.as_deref()
        ),
        ("demo", Some(Layer::L2Cli), Some("demo"))
    );
}
