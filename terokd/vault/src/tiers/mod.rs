//! The places where the passphrase may be, in their order, and how each is read, filled and emptied.
//!
//! Two of them fail closed: a sealed file or a command that is configured and does not work ends the search.

pub(crate) mod keyring;
pub(crate) mod systemd;

use crate::settings::Settings;
use crate::{child, files, words};
use std::path::PathBuf;
use std::time::Duration;
use terok_proto::vault::{PassphraseSource, Secret};
use terok_proto::{Fault, Kind};
use zeroize::Zeroizing;

/// How long a passphrase command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// A passphrase and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) passphrase: Secret,
    pub(crate) source: PassphraseSource,
}

/// A tier that is configured and does not work.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) source: PassphraseSource,
    pub(crate) why: String,
}

impl Broken {
    fn new(source: PassphraseSource, why: impl Into<String>) -> Self {
        Self {
            source,
            why: why.into(),
        }
    }

    /// The fault that callers see.
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(Kind::VaultTierFailed, &self.why)
            .with("source", self.source.label())
            .hint("repair it, or unlock with `terokctl vault unlock`")
    }
}

/// The first passphrase in the order of the tiers.
pub(crate) async fn resolve(settings: &Settings) -> Result<Option<Found>, Broken> {
    use PassphraseSource as Source;
    let found = |passphrase, source| Ok(Some(Found { passphrase, source }));
    if let Some(text) = session(settings).await {
        return found(text, Source::SessionFile);
    }
    // `exists` would take a broken link for nothing.
    if settings.sealed().symlink_metadata().is_ok() {
        let text = systemd::unseal(settings)
            .await
            .map_err(|why| Broken::new(Source::SystemdCreds, why))?;
        return found(text, Source::SystemdCreds);
    }
    if settings.use_keyring {
        match keyring::lookup(&settings.session_bus).await {
            Ok(Some(text)) => return found(text, Source::Keyring),
            Ok(None) => {}
            Err(error) => {
                tracing::info!(%error, "the keyring does not answer: the next place is asked")
            }
        }
    }
    if let Some(line) = &settings.passphrase_command {
        let text = command(line)
            .await
            .map_err(|why| Broken::new(Source::PassphraseCommand, why))?;
        return found(text, Source::PassphraseCommand);
    }
    if let Some(text) = &settings.config_passphrase
        && !text.expose().is_empty()
    {
        return found(text.clone(), Source::Config);
    }
    Ok(None)
}

/// The tiers that are set up, by what can be seen without asking anybody.
pub(crate) fn present(settings: &Settings) -> Vec<PassphraseSource> {
    use PassphraseSource as Source;
    let mut tiers = Vec::new();
    let mut add = |there: bool, source| {
        if there {
            tiers.push(source);
        }
    };
    add(settings.session_file().exists(), Source::SessionFile);
    add(
        settings.sealed().symlink_metadata().is_ok(),
        Source::SystemdCreds,
    );
    add(settings.use_keyring, Source::Keyring);
    add(
        settings.passphrase_command.is_some(),
        Source::PassphraseCommand,
    );
    add(
        settings
            .config_passphrase
            .as_ref()
            .is_some_and(|p| !p.expose().is_empty()),
        Source::Config,
    );
    tiers
}

/// A number that changes when a tier's file or the database is exchanged, so that they need not be read to know.
pub(crate) fn stamp(settings: &Settings) -> Vec<Option<(u64, u64, i64, i64)>> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: PathBuf| {
        let meta = path.symlink_metadata().ok()?;
        Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    let database = settings.database();
    let identity = std::fs::metadata(&database)
        .ok()
        .map(|m| (m.ino(), 0, 0, 0));
    vec![
        stamp(settings.session_file()),
        stamp(settings.sealed()),
        identity,
    ]
}

async fn session(settings: &Settings) -> Option<Secret> {
    let path = settings.session_file();
    match files::blocking(move || files::read(&path)).await {
        Ok(bytes) => text(&bytes?, &['\n']),
        Err(fault) => {
            tracing::warn!(error = %fault, "the session passphrase cannot be read: the next place is asked");
            None
        }
    }
}

async fn command(line: &Secret) -> Result<Secret, &'static str> {
    let words =
        words::split(line.expose()).ok_or("`credentials.passphrase_command` has an open quote")?;
    let (program, arguments) = words
        .split_first()
        .ok_or("`credentials.passphrase_command` is empty")?;
    let arguments: Vec<&str> = arguments.iter().map(|word| word.as_str()).collect();
    match child::run(program.as_str(), &arguments, None, COMMAND).await {
        Ok(end) if end.success => text(&end.stdout, &['\r', '\n'])
            .ok_or("`credentials.passphrase_command` printed no passphrase"),
        Ok(_) => Err("`credentials.passphrase_command` failed"),
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
            Err("`credentials.passphrase_command` took longer than 30 s")
        }
        Err(_) => Err("`credentials.passphrase_command` cannot be run"),
    }
}

/// Bytes as a passphrase, without those characters at the end. Empty and unreadable ones are none.
pub(crate) fn text(bytes: &[u8], trim: &[char]) -> Option<Secret> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(trim);
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

/// A passphrase that nobody has to type: 32 random bytes as 43 characters.
pub(crate) fn generate() -> Result<Secret, Fault> {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes)
        .map_err(|e| Fault::internal(format!("the system gives no random numbers: {e}")))?;
    Ok(Secret::new(Base64UrlUnpadded::encode_string(&*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passphrases_are_43_url_safe_characters() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert_eq!(a.expose().len(), 43);
        assert!(
            a.expose()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_ne!(a, b);
    }
}
