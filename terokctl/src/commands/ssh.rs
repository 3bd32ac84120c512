//! SSH keys of projects: minting, and the wait for their registration with upstream (projects.md §12).

use crate::args::Values;
use crate::connect::Connection;
use crate::dialog::Dialog;
use crate::failure::{Failure, REFUSED, Result};
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use terok_proto::project::SshInitResult;
use terok_proto::vault::{CheckedKey, KeyRegistration};

const INIT: &str = "project.provision_ssh_key";
const PAUSE: &str = "project.pause_for_ssh_key_registration_if_needed";
const CONFIRM: &str = "project.confirm_ssh_key_registration";
const CHECK: &str = "project.check_ssh_key";
/// How long the daemon may take to end the wait once it was told to; then it is told again, because it may have been told
/// before the wait began.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Columns of `vault keys` and `ssh keys` (vault.md §4.4).
pub(super) const KEYS: &[Column] = &[
    Column::new("KEY", "/key_id"),
    Column::new("SCOPE", "/scopes"),
    Column::new("COMMENT", "").show(Show::With(comment)),
    Column::new("TYPE", "/key_type"),
    Column::new("FINGERPRINT", "/fingerprint"),
];

fn comment(row: &Value) -> String {
    match row["comment"].as_str() {
        Some(comment) if !comment.is_empty() => comment.to_owned(),
        _ => format!("id={}", row["key_id"]),
    }
}

/// Keys of a project, or all.
pub(super) fn keys(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let params = values.params();
    let method = if params.is_empty() {
        "vault.list_ssh_keys"
    } else {
        "project.ssh.list_keys"
    };
    session.call_and_show(method, params, &View::Table(KEYS))
}

/// Answers the project's key, and waits for its registration where a human can do it.
pub(super) fn init(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let answer = session.call(INIT, &Value::Object(values.params()).to_string())?;
    session.show(&answer, &View::Custom(show_key))?;
    let key: SshInitResult = session.read(INIT, &answer)?;
    register(session, values.required("ID"), &key)
}

/// Makes the key of a project that has none; the answer as the wire has it.
pub(super) fn provision(session: &mut Session, id: &str) -> Result<(String, SshInitResult)> {
    let answer = session.call(INIT, &json!({ "project_id": id }).to_string())?;
    let key = session.read(INIT, &answer)?;
    Ok((answer, key))
}

/// What a human reads of a key.
pub(super) fn show_key(screen: &mut Screen, value: &Value) -> Result<()> {
    match value["text"].as_str() {
        Some(text) => screen.block(text),
        None => screen.record(value),
    }
}

/// Waits until the key is registered, if it has to be and somebody sits there.
pub(super) fn register(session: &mut Session, id: &str, key: &SshInitResult) -> Result<()> {
    if key.needs_registration != Some(true) {
        return Ok(());
    }
    session.screen.finish()?;
    if !Dialog::is_interactive() || session.is_wire() {
        session.hint(&format!(
            "register the public key with upstream, then `terokctl project check-key {id}`"
        ));
        return Ok(());
    }
    let mut dialog = Dialog::new(session.interrupts.clone());
    for line in banner(key) {
        dialog.say(&line);
    }
    let registered = wait(session, &mut dialog, id)?;
    session.note(if registered {
        "Going on with the key."
    } else {
        "The key is not registered yet."
    });
    Ok(())
}

fn banner(key: &SshInitResult) -> Vec<String> {
    let place = match &key.deploy_key_url {
        Some(url) => format!("Add this public key as a deploy key at {url}"),
        None => "Add this public key as a deploy key of the upstream repository".to_owned(),
    };
    vec![
        String::new(),
        format!("{place}:"),
        format!("  {}", key.public_line),
        "This goes on as soon as upstream accepts it; press Enter to go on at once, Ctrl-C to leave."
            .to_owned(),
    ]
}

/// The daemon watches upstream meanwhile; Enter tells it to stop.
fn wait(session: &mut Session, dialog: &mut Dialog, id: &str) -> Result<bool> {
    let params = json!({ "project_id": id }).to_string();
    let deadline = session.deadline();
    let (path, interrupts) = (session.socket.path.clone(), session.interrupts.clone());
    let connection = session.connection(deadline)?;
    let call = connection.send(PAUSE, &params, deadline)?;
    let stdin = std::io::stdin();
    let typed = connection.is_first(stdin.as_fd(), deadline)?;
    let answer = if typed && dialog.line()?.is_some() {
        let mut beside = Connection::open(&path, interrupts)
            .map_err(|error| Failure::no_daemon(format!("the daemon went away: {error}")))?;
        loop {
            beside.call(CONFIRM, &params, deadline)?;
            let soon = Instant::now() + TELL_AGAIN;
            match connection.answer(call, PAUSE, Some(soon)) {
                Err(Failure::Timeout(_)) if deadline.is_none_or(|at| Instant::now() < at) => {}
                outcome => break outcome?,
            }
        }
    } else {
        connection.answer(call, PAUSE, deadline)?
    };
    let answer: KeyRegistration = session.read(PAUSE, &answer)?;
    Ok(answer.registered || !answer.needed)
}

/// Asks upstream; the exit code tells what it said.
pub(super) fn check(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let params: Map<String, Value> = values.params();
    let answer = session.call(CHECK, &Value::Object(params).to_string())?;
    session.show(
        &answer,
        &View::Custom(|screen, value| screen.line(value["message"].as_str().unwrap_or_default())),
    )?;
    let checked: CheckedKey = session.read(CHECK, &answer)?;
    if checked.ok {
        Ok(())
    } else {
        Err(Failure::Told(REFUSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_comment_show_their_number() {
        let rows = [
            json!({"key_id": 7, "key_type": "ed25519", "fingerprint": "SHA256:x", "comment": "", "scopes": ["a", "b"]}),
            json!({"key_id": 8, "key_type": "rsa", "fingerprint": "SHA256:y", "comment": "me\u{1b}", "scopes": []}),
        ];
        let mut screen = Screen::memory(true);
        screen.table(KEYS, &rows).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        KEY  SCOPE  COMMENT  TYPE     FINGERPRINT
        7    a, b   id=7     ed25519  SHA256:x
        8           me\x1b   rsa      SHA256:y
        ");
    }

    #[test]
    fn the_banner_names_the_page_if_there_is_one() {
        let key = SshInitResult {
            public_line: "ssh-ed25519 AAAA tk-main:orion".into(),
            deploy_key_url: Some("https://github.com/o/r/settings/keys/new".into()),
            ..SshInitResult::default()
        };
        assert_eq!(
            banner(&key)[1..3],
            [
                "Add this public key as a deploy key at https://github.com/o/r/settings/keys/new:",
                "  ssh-ed25519 AAAA tk-main:orion"
            ]
        );
    }
}
