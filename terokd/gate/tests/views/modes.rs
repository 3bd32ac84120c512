//! Who may look into gates.

use super::*;

fn modes(dir: &Path) -> Vec<String> {
    let mut odd = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        let good: &[u32] = if meta.is_dir() {
            &[0o700]
        } else {
            &[0o600, 0o400]
        };
        if !good.contains(&mode) {
            odd.push(format!("{} {mode:o}", entry.path().display()));
        }
        if meta.is_dir() {
            odd.extend(modes(&entry.path()));
        }
    }
    odd
}

#[test]
fn nobody_else_may_look_into_a_gate() {
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let world = World::new();
    world.sync();
    let first = modes(&world.spec.base);
    world.commit_up("main", "more");
    world.commit_up("fresh", "fresh");
    world.sync();
    let second = modes(&world.spec.base);
    nix::sys::stat::umask(old);
    let base = world.spec.base.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(base, 0o700);
    assert_eq!(first, Vec::<String>::new());
    assert_eq!(second, Vec::<String>::new());
}

/// Opens a directory and all in it to everybody, as the umask of the reference may have.
fn open_up(dir: &Path) {
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => open_up(&entry.path()),
            kind if kind.is_file() => set(&entry.path(), 0o644),
            _ => {}
        }
    }
    set(dir, 0o755);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_the_reference_left_open_is_closed() {
    let mut world = mirrored();
    let outside = world.lab.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let link = world.gate().join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    open_up(&outside);
    open_up(&world.spec.base);
    world.sync();
    assert_eq!(mode(&world.spec.base), 0o700);
    assert_eq!(mode(world.gate()), 0o700);
    assert_eq!(mode(&outside), 0o755, "behind a link");
    std::fs::remove_file(link).unwrap();
    assert_eq!(modes(world.gate()), Vec::<String>::new());
    // Also where there is nothing to fetch, and without an upstream.
    open_up(&world.spec.base);
    assert!(world.sync().applied.is_empty());
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o700, 0o700));
    assert_eq!(modes(world.gate()), Vec::<String>::new());
    open_up(&world.spec.base);
    world.spec.upstream_url = None;
    world.sync();
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o700, 0o700));
    // A gate at a place of the user's: the gate is ours, what it is in is not.
    let place = world.lab.path("mine");
    std::fs::create_dir(&place).unwrap();
    std::fs::rename(world.gate(), place.join("x.git")).unwrap();
    world.spec.path = place.join("x.git");
    open_up(&place);
    world.sync();
    assert_eq!((mode(&place), mode(world.gate())), (0o755, 0o700));
}

#[test]
fn what_belongs_to_somebody_else_stays_as_open_as_it_is() {
    let world = World::synced();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    open_up(&world.spec.base);
    std::os::unix::fs::chown(&world.spec.base, Some(12345), None).unwrap();
    world.sync();
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o755, 0o700));
}
