//! The vault. Secrets are typed without echo or piped in; none is ever an argument, and none comes back.

use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::{Failure, Result};
use crate::render::{Screen, View};
use crate::session::Session;
use serde_json::{Value, json};
use std::io::Read;
use terok_proto::vault::{PassphraseSource, Secret};
use terok_proto::{Kind, Method, methods as m};

const LOCK: &str = "vault.lock";
const REMOVE: &str = "vault.remove_ssh_key";
/// A file that is larger is no key.
const MAX_KEY: u64 = 64 << 10;

/// The status as a record, warnings apart.
pub(super) fn show_status(screen: &mut Screen, value: &Value) -> Result<()> {
    screen.record(value)?;
    if screen.is_terminal() {
        for warning in super::project::texts(&value["warnings"]) {
            screen.warning(warning);
        }
    }
    Ok(())
}

/// Where the vault stands now, in one line.
pub(super) fn show_state(screen: &mut Screen, value: &Value) -> Result<()> {
    let state = value["state"].as_str().unwrap_or_default();
    let source = value["passphrase_source"].as_str();
    screen.line(&match source {
        Some(source) => format!("The vault is {state} (passphrase from {source})."),
        None => format!("The vault is {state}."),
    })?;
    for warning in super::project::texts(&value["warnings"]) {
        screen.warning(warning);
    }
    if value["recovery"]["urgent"] == json!(true) {
        screen.warning("only this session holds the passphrase: after a reboot it has to be typed");
    }
    Ok(())
}

/// Calls with what a human typed, and shows the result.
fn ask<M: Method>(session: &mut Session, params: &M, view: &View) -> Result<()> {
    let params = serde_json::to_string(params)
        .map_err(|e| Failure::Internal(format!("cannot encode the parameters: {e}")))?;
    let answer = session.call(M::INFO.name, &params)?;
    session.show(&answer, view)
}

/// Opens the vault: with a passphrase that is piped in, from its tiers, or with one that is asked for.
pub(super) fn unlock(session: &mut Session, _: &Values<'_>) -> Result<()> {
    const STATE: &View = &View::Custom(show_state);
    let mut dialog = Dialog::new(session.interrupts.clone());
    let piped = dialog.piped_secret()?.map(Secret::new);
    let is_piped = piped.is_some();
    let outcome = ask(session, &m::VaultUnlock { passphrase: piped }, STATE);
    let needs_one = |failure: &Failure| {
        let kinds = [
            Kind::VaultLocked,
            Kind::VaultWrongPassphrase,
            Kind::VaultTierFailed,
        ];
        kinds.iter().any(|kind| failure.is(*kind))
    };
    match outcome {
        Err(failure) if needs_one(&failure) && !is_piped && Dialog::is_interactive() => {
            let typed = dialog.secret("Passphrase of the vault: ")?;
            let Some(typed) = typed.filter(|typed| !typed.is_empty()) else {
                return Err(failure);
            };
            let passphrase = Some(Secret::new(typed));
            ask(session, &m::VaultUnlock { passphrase }, STATE)
        }
        outcome => outcome,
    }
}

/// Sets the vault up.
pub(super) fn provision(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let tier = match values.text("tier") {
        Some(name) => Some(tier(name)?),
        None => None,
    };
    let mut dialog = Dialog::new(session.interrupts.clone());
    let passphrase = if Dialog::is_interactive() {
        new_passphrase(&mut dialog)?
    } else {
        dialog.piped_secret()?
    };
    let params = m::VaultProvision {
        tier,
        passphrase: passphrase.map(Secret::new),
    };
    ask(session, &params, &View::Custom(show_state))
}

fn tier(name: &str) -> Result<PassphraseSource> {
    serde_json::from_value(json!(name))
        .map_err(|_| Failure::Usage(format!("`{name}` is not the name of a tier")))
}

/// A passphrase typed twice; none if one shall be made up.
fn new_passphrase(dialog: &mut Dialog) -> Result<Option<String>> {
    loop {
        let first = dialog.secret("New passphrase of the vault (Enter to have one made up): ")?;
        let Some(first) = first.filter(|typed| !typed.is_empty()) else {
            return Ok(None);
        };
        let again = dialog.secret("The same again: ")?;
        match again {
            Some(again) if again == first => return Ok(Some(first)),
            Some(_) => dialog.say("They differ."),
            None => return Err(Failure::Interrupted),
        }
    }
}

/// Closes the vault; `--forget` destroys every stored copy of the passphrase too.
pub(super) fn lock(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let mut params = values.params();
    if values.flag("forget") {
        if !values.flag("yes") {
            let mut dialog = Dialog::new(session.interrupts.clone());
            dialog.say("Every stored copy of the passphrase is destroyed. Without one of your own, the vault stays closed for good.");
            if !dialog.confirm("Destroy them?")? {
                session.note("Cancelled; nothing was changed.");
                return Ok(());
            }
        }
        params.insert("confirm".to_owned(), true.into());
    }
    session.call_and_show(LOCK, params, &View::Custom(show_locked))
}

fn show_locked(screen: &mut Screen, value: &Value) -> Result<()> {
    let tiers: Vec<&str> = super::project::texts(&value["remaining_tiers"]).collect();
    screen.line(&if tiers.is_empty() {
        "The vault is locked.".to_owned()
    } else {
        format!(
            "The vault is locked; it can still be opened from: {}",
            tiers.join(", ")
        )
    })
}

/// Stores a private key; its bytes go to the daemon, its passphrase is asked for if it has one.
pub(super) fn import(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let file = values.required("FILE");
    let text = read_key(file)?;
    let request = |passphrase: Option<String>| m::VaultImportSshKey {
        path: None,
        private_key: Some(Secret::new(text.clone())),
        public_key: None,
        passphrase: passphrase.map(Secret::new),
        comment: values.text("comment").map(str::to_owned),
        project_id: values.text("project").map(str::to_owned),
    };
    const IMPORTED: &View = &View::Custom(show_imported);
    match ask(session, &request(None), IMPORTED) {
        Err(failure) if failure.is(Kind::KeyPasswordProtected) && file != "-" => {
            let mut dialog = Dialog::new(session.interrupts.clone());
            let passphrase = if Dialog::is_interactive() {
                dialog.secret(&format!("Passphrase of `{file}`: "))?
            } else {
                dialog.piped_secret()?
            };
            let Some(passphrase) = passphrase.filter(|typed| !typed.is_empty()) else {
                return Err(failure);
            };
            ask(session, &request(Some(passphrase)), IMPORTED)
        }
        outcome => outcome,
    }
}

fn read_key(file: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if file == "-" {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_KEY + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_KEY + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Usage(format!("cannot read `{file}`: {error}")))?;
    let too_large = bytes.len() as u64 > MAX_KEY;
    match String::from_utf8(bytes) {
        Ok(text) if !too_large => Ok(text),
        _ => Err(Failure::Usage(format!(
            "`{file}` is no private key in OpenSSH format"
        ))),
    }
}

fn show_imported(screen: &mut Screen, value: &Value) -> Result<()> {
    let outcome = match (
        value["already_present"] == json!(true),
        value["scope_was_assigned"] == json!(true),
    ) {
        (_, true) => "already linked",
        (true, false) => "linked existing",
        (false, false) => "imported",
    };
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    screen.line(&format!(
        "{outcome}: key {} {} {}",
        value["key_id"],
        text("fingerprint"),
        text("comment")
    ))
}

/// The public half of a key, as a file would have it.
pub(super) fn show_public(screen: &mut Screen, value: &Value) -> Result<()> {
    screen.line(value["public_line"].as_str().unwrap_or_default())
}

/// Takes a key from a project or from all, after showing it.
pub(super) fn remove(session: &mut Session, values: &Values<'_>) -> Result<()> {
    if !values.flag("yes") {
        let key = session.ask(&m::VaultExportSshKey {
            key_id: i64::try_from(values.number("KEY").unwrap_or_default()).unwrap_or(i64::MAX),
        })?;
        let mut dialog = Dialog::new(session.interrupts.clone());
        dialog.say(&format!("  {} {}", key.fingerprint, key.comment));
        let question = match values.text("project") {
            Some(project) => format!("Unassign it from {project}?"),
            None if key.scopes.is_empty() => "Remove it?".to_owned(),
            None => format!("Unassign it from {}?", key.scopes.join(", ")),
        };
        if !dialog.confirm(&format!(
            "{question} A key that no project has left is removed."
        ))? {
            session.note("Cancelled; nothing was removed.");
            return Ok(());
        }
    }
    session.call_and_show(REMOVE, values.params(), &View::Custom(show_removed))
}

fn show_removed(screen: &mut Screen, value: &Value) -> Result<()> {
    for scope in super::project::texts(&value["unassigned"]) {
        screen.line(&format!("unassigned from {scope}"))?;
    }
    screen.line(if value["deleted"] == json!(true) {
        "the key is removed"
    } else {
        "the key stays in the vault"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(show: fn(&mut Screen, &Value) -> Result<()>, value: &Value) -> String {
        let mut screen = Screen::memory(true);
        show(&mut screen, value).expect("memory");
        screen.text()
    }

    #[test]
    fn results_are_sentences() {
        let import = |present, assigned| {
            let value = json!({"key_id": 7, "fingerprint": "SHA256:x", "comment": "me", "already_present": present, "scope_was_assigned": assigned});
            shown(show_imported, &value)
        };
        assert_eq!(import(false, false), "imported: key 7 SHA256:x me\n");
        assert_eq!(import(true, false), "linked existing: key 7 SHA256:x me\n");
        assert_eq!(import(true, true), "already linked: key 7 SHA256:x me\n");
        assert_eq!(
            shown(
                show_removed,
                &json!({"unassigned": ["a", "b"], "deleted": true})
            ),
            "unassigned from a\nunassigned from b\nthe key is removed\n"
        );
        assert_eq!(
            shown(show_locked, &json!({"remaining_tiers": ["config"]})),
            "The vault is locked; it can still be opened from: config\n"
        );
        assert_eq!(
            shown(
                show_state,
                &json!({"state": "unlocked", "passphrase_source": "keyring"})
            ),
            "The vault is unlocked (passphrase from keyring).\n"
        );
    }

    #[test]
    fn every_tier_on_the_command_line_is_one() {
        for name in super::super::TIERS {
            assert_eq!(tier(name).expect("a tier").label(), *name);
        }
    }
}
