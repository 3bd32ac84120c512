//! Every catalog method of this stage: what it answers, and that it fails with a documented kind (rpc.md §4, projects.md).

mod agents;
mod config;
mod delete;
mod derive;
mod edits;
mod reading;
mod state;
mod wizard;

use terok_tests::World;

const ONLINE: &str = "project: {security_class: online}\n";

/// One of everything: healthy, broken, unreadable as YAML, gated with an upstream.
fn zoo() -> World {
    World::new()
        .project(
            "alpha",
            "project:\n  security_class: online   # public\n  name: Alpha\nrun: {gpus: all}\n",
        )
        .project(
            "gated",
            "git: {upstream_url: 'git@forge.example:lab/orion.git'}\nshared_dir: true\n",
        )
        .project("broken", "projecct: {}\nrun: {hooks: {x: 1}}\n")
        .project("unparsable", "a: [\n")
}

/// Files of a bare repository, as far as the daemon looks.
fn bare_repository(world: &World, path: &str) {
    world.write(&format!("{path}/HEAD"), "ref: refs/heads/main\n");
    world.write(
        &format!("{path}/config"),
        "[core]\n\tbare = true\n\trepositoryformatversion = 0\n",
    );
    world.mkdirs(&world.path(&format!("{path}/objects")));
    world.mkdirs(&world.path(&format!("{path}/refs")));
}
