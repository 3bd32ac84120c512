//! Clones, fetches and pushes as they are meant to be.

use crate::world::World;

#[tokio::test]
async fn a_token_clones_and_pushes() {
    let mut world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let work = world.path("work");
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    assert_eq!(
        std::fs::read_to_string(work.join("README")).unwrap(),
        "alpha"
    );

    let old = world.git(&work, &["rev-parse", "HEAD"]).await;
    world
        .git(&work, &["commit", "-q", "--allow-empty", "-m", "third"])
        .await;
    world
        .git(&work, &["push", "-q", "origin", "main", "main:new"])
        .await;
    let new = world.git(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(
        world
            .git(&world.gate_path("alpha"), &["rev-parse", "main"])
            .await,
        new
    );

    let event = world.pushes.recv().await.unwrap();
    assert_eq!(
        (event.project.as_str(), event.task_id.as_str()),
        ("alpha", "t1")
    );
    assert_eq!(event.gate_path, world.gate_path("alpha"));
    let mut refs = event.refs;
    refs.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(refs.len(), 2);
    assert_eq!(
        (
            refs[0].name.as_str(),
            refs[0].old.as_ref(),
            refs[0].new.as_ref()
        ),
        ("refs/heads/main", Some(&old), Some(&new))
    );
    assert_eq!(
        (
            refs[1].name.as_str(),
            refs[1].old.as_ref(),
            refs[1].new.as_ref()
        ),
        ("refs/heads/new", None, Some(&new))
    );
    world.idle().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_push_loses_is_kept_before_it_is_lost() {
    let world = World::new().await;
    // As when everything is stopped between the move of a branch and what git runs after it.
    std::fs::write(world.path("it's terokd.post-receive.missing"), "").unwrap();
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let gate = world.gate_path("alpha");
    let old = world.git(&gate, &["rev-parse", "main"]).await;
    world.git(&gate, &["branch", "feature", "main~1"]).await;
    let feature = world.git(&gate, &["rev-parse", "feature"]).await;
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    let amend = ["commit", "-q", "--amend", "-m", "rewritten"];
    world.git(&work, &amend).await;
    let push = [
        "push",
        "-q",
        "--force",
        "origin",
        "HEAD:main",
        "HEAD:new",
        ":feature",
    ];
    world.git(&work, &push).await;
    let backups = || async {
        let list = [
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/terok/backup",
        ];
        world.git(&gate, &list).await
    };
    let kept = backups().await;
    assert_eq!(kept.lines().count(), 2, "{kept}");
    for (id, branch) in [(&old, "main"), (&feature, "feature")] {
        let kept = kept.contains(&format!("{id} refs/terok/backup/{branch}/"));
        assert!(kept, "nothing of {branch}");
    }
    let head = world.git(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(world.git(&gate, &["rev-parse", "main"]).await, head);
    // A push that loses nothing keeps nothing.
    let more = ["commit", "-q", "--allow-empty", "-m", "more"];
    world.git(&work, &more).await;
    world
        .git(&work, &["push", "-q", "origin", "HEAD:main"])
        .await;
    assert_eq!(backups().await, kept);
    world.git(&gate, &["fsck", "--strict"]).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_when_something_else_would_take_its_name() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let gate = world.gate_path("alpha");
    let head = world.git(&gate, &["rev-parse", "main"]).await;
    let other = world.git(&gate, &["rev-parse", "main~1"]).await;
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    // Backups of another commit whose id begins as that of `main` does, made within the seconds to come.
    let now = jiff::Timestamp::now().as_second();
    let mut taken = Vec::new();
    for second in now..now + 25 {
        let at = jiff::Timestamp::from_second(second).unwrap();
        let stamp = at.strftime("%Y%m%dT%H%M%SZ");
        let name = format!("refs/terok/backup/main/{stamp}-{}", &head[..12]);
        world.git(&gate, &["update-ref", &name, &other]).await;
        taken.push(name);
    }
    let work = world.path("work");
    let amend = ["commit", "-q", "--amend", "-m", "rewritten"];
    world.git(&work, &amend).await;
    let push = ["push", "-q", "--force", "origin", "HEAD:main"];
    world.git(&work, &push).await;
    for name in taken {
        assert_eq!(world.git(&gate, &["rev-parse", &name]).await, other);
    }
    let format = "--format=%(objectname)";
    let list = ["for-each-ref", format, "refs/terok/backup/main"];
    let kept = world.git(&gate, &list).await;
    assert!(kept.contains(&head), "{kept}");
    world.server.stop().await;
}
