//! The clone that seeds tasks.

use super::*;

#[test]
fn the_cache_follows_the_gate() {
    let mut world = World::new();
    let cache = world.lab.path("cache/alpha");
    world.spec.cache_dir = Some(cache.clone());
    let branch = || world.lab.git(&cache, &["symbolic-ref", "--short", "HEAD"]);
    assert!(world.sync().cache_refreshed);
    assert_eq!(branch(), "main");
    assert!(cache.join("two").is_file());
    assert!(!world.sync().cache_refreshed, "nothing moved");
    // An agent's push counts too.
    world.commit_gate("main", "agent");
    assert!(world.sync().cache_refreshed);
    assert!(cache.join("agent").is_file());
    // LFS pointers are plain files: nobody follows them.
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    let blob = world
        .lab
        .feed(world.gate(), &["hash-object", "-w", "--stdin"], pointer);
    let attributes = world.lab.feed(
        world.gate(),
        &["hash-object", "-w", "--stdin"],
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    let tree = world.lab.feed(
        world.gate(),
        &["mktree"],
        &format!("100644 blob {attributes}\t.gitattributes\n100644 blob {blob}\tbig.bin\n"),
    );
    let commit = world.lab.git(
        world.gate(),
        &["commit-tree", "-m", "lfs", "-p", "refs/heads/main", &tree],
    );
    world
        .lab
        .git(world.gate(), &["update-ref", "refs/heads/main", &commit]);
    assert_eq!(world.sync().cache_error, None);
    assert_eq!(
        std::fs::read_to_string(cache.join("big.bin")).unwrap(),
        pointer
    );
    // The default branch has another name.
    let id = world.up_head("main");
    world.put(&world.up, "trunk", Some(id));
    world
        .lab
        .git(&world.up, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    assert!(world.sync().cache_refreshed);
    assert_eq!(branch(), "trunk");
    assert_eq!(
        world
            .lab
            .git(&cache, &["config", "remote.origin.url"])
            .trim_start_matches("file://"),
        world.gate().to_str().unwrap()
    );
    // It is gone: made again. It cannot be made: told, and the sync is fine.
    std::fs::remove_dir_all(&cache).unwrap();
    assert!(world.sync().cache_refreshed);
    world.spec.cache_dir = Some("/proc/nowhere/alpha".into());
    let result = world.sync();
    assert!(result.cache_error.is_some() && !result.cache_refreshed);
    world.spec.cache_dir = Some(cache.clone());
    let left: Vec<_> = std::fs::read_dir(cache.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let reinit = SyncOptions {
        force_reinit: true,
        ..SyncOptions::default()
    };
    assert!(world.try_sync(&reinit).unwrap().cache_refreshed);
    assert!(!cache.join("agent").exists());
}

/// Ten million files in eight trees, and as many directories without any.
#[test]
fn a_tree_that_multiplies_is_looked_at_for_a_while_and_not_checked_out() {
    let mut world = World::synced();
    world.spec.cache_dir = Some(world.lab.path("cache/alpha"));
    assert!(world.sync().cache_refreshed);
    let gate = world.gate();
    let blob = world.lab.feed(gate, &["hash-object", "-w", "--stdin"], "x");
    let ten = |what: &str, id: &str| {
        let line = |n| format!("{what} {id}\t{n}\n");
        world
            .lab
            .feed(gate, &["mktree"], &(0..10).map(line).collect::<String>())
    };
    let files = ten("100644 blob", &blob);
    let nothing = world.lab.feed(gate, &["mktree"], "");
    let before = world.head("main").unwrap().to_string();
    for (lowest, count) in [
        (files, 11_111_110),
        (ten("040000 tree", &nothing), 11_111_110),
    ] {
        let tree = (0..6).fold(lowest, |below, _| ten("040000 tree", &below));
        let commit = ["commit-tree", "-m", "many", "-p", &before, &tree];
        let commit = world.lab.git(gate, &commit);
        world
            .lab
            .git(gate, &["update-ref", "refs/heads/main", &commit]);
        let [row] = rows(&world, Some("main")).try_into().unwrap();
        assert_eq!((row.ahead, row.files_changed), (1, 500_000), "{row:?}");
        let result = world.try_sync(&SyncOptions::default()).unwrap();
        assert!(result.success && !result.cache_refreshed, "{result:?}");
        let why = result.cache_error.unwrap();
        assert!(
            why.contains(&format!("{count} files and directories")),
            "{why}"
        );
    }
    assert!(
        world.lab.path("cache/alpha/one").is_file(),
        "the old one stays"
    );
}
