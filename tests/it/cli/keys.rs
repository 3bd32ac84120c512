//! The vault and SSH keys on the command line: secrets are typed or piped in, and never shown.

use super::Desk;
use super::terminal::Terminal;
use serde_json::json;
use terok_tests::programs::need;
use terok_tests::{Sshd, Upstream, World};

const PASSPHRASE: &str = "correct horse battery";

/// A project behind SSH, and a vault that is set up.
fn desk(upstream: &str) -> Desk {
    let yaml =
        format!("project: {{security_class: online}}\ngit: {{upstream_url: \"{upstream}\"}}\n");
    let desk = Desk::new(World::new().project("alpha", &yaml));
    provision(&desk);
    desk
}

fn provision(desk: &Desk) {
    let (code, out, error) = desk.fed(
        &["vault", "provision", "--tier", "config"],
        &format!("{PASSPHRASE}\n"),
    );
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.starts_with("The vault is unlocked (passphrase from config)."),
        "{out}"
    );
}

#[test]
fn a_vault_is_set_up_locked_and_unlocked() {
    let desk = Desk::new(World::with_project("alpha"));
    assert_eq!(desk.wire(&["vault", "status"])["state"], "absent");
    provision(&desk);
    assert_eq!(desk.wire(&["vault", "status"])["state"], "unlocked");
    desk.fails(&["vault", "provision"], 1);
    let (_, out, _) = desk.fed(&["vault", "lock"], "");
    assert_eq!(
        out,
        "The vault is locked; it can still be opened from: config\n"
    );
    let error = desk.fails(&["vault", "keys"], 1);
    assert!(error.contains("locked"), "{error}");
    let (code, _, error) = desk.fed(&["vault", "unlock"], "wrong horse\n");
    assert_eq!(code, Some(1), "{error}");
    assert!(!error.contains("wrong horse"), "{error}");
    assert_eq!(desk.wire(&["vault", "status"])["locked"], true);
    let out = desk.ok(&["vault", "unlock"]);
    assert!(
        out.starts_with("The vault is unlocked (passphrase from config)."),
        "{out}"
    );
    desk.ok(&["vault", "lock"]);
    let (code, out, error) = desk.fed(&["vault", "unlock"], &format!("{PASSPHRASE}\n"));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("unlocked"), "{out}");
    desk.ok(&["vault", "acknowledge"]);
    assert_eq!(
        desk.wire(&["vault", "status"])["recovery"]["acknowledged"],
        true
    );

    let (code, out, error) = desk.fed(&["vault", "lock", "--forget"], "");
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    assert!(error.contains("Cancelled"), "{error}");
    assert_eq!(desk.wire(&["vault", "status"])["locked"], false);
    assert_eq!(
        desk.ok(&["vault", "lock", "--forget", "--yes"]),
        "The vault is locked.\n"
    );
    desk.fails(&["vault", "unlock"], 1);
}

#[test]
fn a_passphrase_is_typed_without_echo() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    let Some(mut terminal) = Terminal::open(&desk, "vault provision --tier session-file", &[])
    else {
        return;
    };
    terminal.answer("made up): ", &format!("{PASSPHRASE}\n"));
    terminal.answer("again: ", "something else\n");
    terminal.answer("They differ.", "");
    terminal.answer("made up): ", &format!("{PASSPHRASE}\n"));
    terminal.answer("again: ", &format!("{PASSPHRASE}\n"));
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("The vault is unlocked"), "{text}");
    assert!(
        !text.contains(PASSPHRASE) && !text.contains("something else"),
        "{text}"
    );
    desk.ok(&["vault", "lock"]);
    let mut terminal = Terminal::open(&desk, "vault unlock", &[]).unwrap();
    terminal.answer("Passphrase of the vault: ", &format!("{PASSPHRASE}\n"));
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(PASSPHRASE), "{text}");
    assert_eq!(desk.wire(&["vault", "status"])["locked"], false);
}

#[test]
fn keys_are_imported_shared_and_removed() {
    let Some(keygen) = need("ssh-keygen") else {
        return;
    };
    let desk = desk("git@127.0.0.1:x/y.git");
    let file = desk.0.path("$HOME/key");
    let secret = "of the key";
    let status = desk
        .0
        .command(&keygen)
        .args(["-q", "-t", "ed25519", "-N", secret, "-C", "ada@desk", "-f"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success());
    let file = file.to_str().unwrap();
    let import = ["vault", "import", file, "--comment", "mine"];
    desk.fails(&import, 1);
    let (code, out, error) = desk.fed(&import, &format!("{secret}\n"));
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.starts_with("imported: key ") && out.ends_with(" mine\n"),
        "{out}"
    );
    let key = out.split(' ').nth(2).unwrap().to_owned();
    let linked = desk.fed(
        &[&import[..], &["--project", "alpha"]].concat(),
        &format!("{secret}\n"),
    );
    assert!(linked.1.starts_with("linked existing: "), "{linked:?}");
    let linked = desk.fed(
        &[&import[..], &["--project", "alpha"]].concat(),
        &format!("{secret}\n"),
    );
    assert!(linked.1.starts_with("already linked: "), "{linked:?}");

    let public = desk.ok(&["vault", "export", &key]);
    let made = std::fs::read_to_string(format!("{file}.pub")).unwrap();
    assert_eq!(public.split(' ').nth(1), made.split(' ').nth(1));
    let row = desk.ok(&["ssh", "keys", "alpha"]);
    assert!(
        row.starts_with(&format!("{key}\talpha\tmine\ted25519\tSHA256:")),
        "{row}"
    );
    desk.ok(&["ssh", "register", "alpha", &key]);
    assert_eq!(desk.ok(&["ssh", "keys"]), row);
    assert_eq!(desk.ok(&["vault", "keys"]), row);

    let (code, out, error) = desk.fed(&["vault", "remove", &key], "n\n");
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    assert!(error.contains("Unassign it from alpha?"), "{error}");
    assert_eq!(
        desk.ok(&["vault", "remove", &key, "--yes"]),
        "unassigned from alpha\nthe key is removed\n"
    );
    assert_eq!(desk.ok(&["vault", "keys"]), "");
    desk.fails(&["vault", "export", &key], 1);
    desk.fails(&["vault", "export", "no-number"], 2);
}

#[test]
fn a_project_gets_its_key_once() {
    let desk = desk("git@127.0.0.1:x/y.git");
    let text = desk.ok(&["project", "ssh-init", "alpha"]);
    assert!(
        text.contains("tk-main:alpha") && text.contains("\n  ssh-ed25519 "),
        "{text}"
    );
    assert_eq!(desk.ok(&["project", "ssh-init", "alpha"]), text);
    let wire = desk.wire(&[
        "project",
        "ssh-init",
        "alpha",
        "--comment",
        "other",
        "--type",
        "rsa",
    ]);
    assert_eq!(
        (&wire["key_type"], &wire["comment"]),
        (&json!("rsa"), &json!("other"))
    );
    assert_eq!(
        desk.wire(&["ssh", "keys", "alpha"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    desk.ok(&["project", "ssh-init", "alpha", "--force"]);
    assert_eq!(
        desk.wire(&["ssh", "keys", "alpha"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_human_is_waited_for_until_enter() {
    // Nobody listens there, so only Enter ends the wait.
    let desk = desk("ssh://git@127.0.0.1:1/x/y.git");
    let Some(mut terminal) = Terminal::open(&desk, "project ssh-init alpha", &[]) else {
        return;
    };
    terminal.answer("Add this public key as a deploy key", "");
    terminal.answer("press Enter", "\n");
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Going on with the key."), "{text}");
    desk.fails(&["project", "check-key", "alpha"], 1);
    let mut terminal = Terminal::open(&desk, "project ssh-init alpha", &[]).unwrap();
    terminal.answer("Ctrl-C to leave", "\x03");
    assert_eq!(terminal.end().0, 130);
}

#[test]
fn a_key_that_upstream_accepts_needs_no_enter() {
    let world = World::new();
    let (Some(upstream), Some(sshd)) = (Upstream::new(&world, "orion"), Sshd::start(&world)) else {
        return;
    };
    let yaml = format!(
        "project: {{security_class: online}}\ngit: {{upstream_url: \"{}\", default_branch: main}}\n",
        sshd.url(&upstream)
    );
    world.write("$CONFIG/projects/alpha/project.yml", yaml);
    let desk = Desk::new(world);
    provision(&desk);
    let Some(mut terminal) = Terminal::open(&desk, "project init alpha --skip-images", &[]) else {
        return;
    };
    terminal.answer("Ctrl-C to leave", "");
    let keys = desk.wire(&["ssh", "keys", "alpha"]);
    sshd.accept(keys[0]["public_line"].as_str().unwrap());
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Gate ready at "), "{text}");
    assert_eq!(
        desk.ok(&["project", "check-key", "alpha"]),
        "upstream accepts the project's key\n"
    );
}
