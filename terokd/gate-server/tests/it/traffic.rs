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
