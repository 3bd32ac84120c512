//! The passphrase sealed with `systemd-creds --user`, to this machine or its TPM.

use crate::settings::Settings;
use crate::{child, files};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;
use terok_proto::vault::Secret;

const NAME: &str = "--name=terok-sandbox.vault-passphrase";
const DEADLINE: Duration = Duration::from_secs(10);
/// The first release whose user mode works without root.
const MAJOR: u32 = 257;

/// What the passphrase is sealed to, as `--with-key=` wants it, from the name that users give.
pub(crate) fn key_mode(name: &str) -> Option<&'static str> {
    Some(match name {
        "auto" => "auto",
        "host" => "host",
        "tpm" => "tpm2",
        "tpm+host" => "host+tpm2",
        _ => return None,
    })
}

/// Whether sealing can work here.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn available(settings: &Settings) -> Result<(), String> {
    let socket = &settings.systemd_creds_socket;
    if !std::fs::metadata(socket).is_ok_and(|meta| meta.file_type().is_socket()) {
        return Err(format!(
            "systemd-creds is not usable: `{}` is no socket",
            socket.display()
        ));
    }
    let end = child::run(&settings.systemd_creds, &["--version"], None, DEADLINE)
        .await
        .map_err(|e| format!("systemd-creds cannot be run: {e}"))?;
    let version = std::str::from_utf8(&end.stdout).ok().and_then(major);
    match version {
        Some(version) if version >= MAJOR => Ok(()),
        Some(version) => Err(format!(
            "systemd-creds is of release {version}, {MAJOR} is needed"
        )),
        None => Err("systemd-creds does not tell its release".into()),
    }
}

/// Seals a passphrase into the vault directory.
pub(crate) async fn seal(
    settings: &Settings,
    passphrase: &Secret,
    with_key: &str,
) -> Result<(), String> {
    let target = settings.sealed();
    let (dir, file) = (settings.vault_dir.clone(), target.clone());
    files::blocking(move || refuse_links(&dir, &file))
        .await
        .map_err(|f| f.message)?;
    let with_key = format!("--with-key={with_key}");
    let arguments = ["encrypt", "--user", NAME, &with_key, "-", "-"];
    let input = passphrase.expose().as_bytes();
    let end = child::run(&settings.systemd_creds, &arguments, Some(input), DEADLINE)
        .await
        .map_err(|e| format!("systemd-creds cannot seal the passphrase: {e}"))?;
    if !end.success || end.stdout.is_empty() {
        return Err("systemd-creds cannot seal the passphrase".into());
    }
    files::blocking(move || files::replace(&target, &end.stdout))
        .await
        .map_err(|fault| fault.message)
}

/// The sealed passphrase.
pub(crate) async fn unseal(settings: &Settings) -> Result<Secret, String> {
    let sealed = settings.sealed();
    let file = sealed
        .to_str()
        .ok_or("the path of the vault directory is not text")?;
    let arguments = ["decrypt", "--user", NAME, file, "-"];
    match child::run(&settings.systemd_creds, &arguments, None, DEADLINE).await {
        Ok(end) if end.success => super::text(&end.stdout, &['\n'])
            .ok_or_else(|| "the sealed passphrase is empty".into()),
        Ok(_) => Err("systemd-creds cannot unseal the passphrase: it was sealed for another machine or user, or the TPM refuses".into()),
        Err(e) => Err(format!("systemd-creds cannot be run to unseal the passphrase: {e}")),
    }
}

fn refuse_links(dir: &Path, file: &Path) -> Result<(), terok_proto::Fault> {
    files::private_dir(dir)?;
    for path in [dir, file] {
        if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(terok_proto::Fault::new(
                terok_proto::Kind::StorageError,
                format!(
                    "`{}` is a symbolic link: nothing is sealed there",
                    path.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The release in the first line of `--version`: `systemd 257 (257.4-1)`.
fn major(text: &str) -> Option<u32> {
    let digits = text.split_whitespace().nth(1)?;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_release() {
        assert_eq!(major("systemd 257 (257.4-1)\n+PAM"), Some(257));
        assert_eq!(major("systemd 258~rc2 (x)"), Some(258));
        assert_eq!(major("systemd-creds"), None);
        assert_eq!(major("systemd v257"), None);
    }

    #[test]
    fn names_of_keys() {
        let modes: Vec<_> = ["auto", "host", "tpm", "tpm+host"].map(key_mode).into();
        assert_eq!(
            modes,
            [Some("auto"), Some("host"), Some("tpm2"), Some("host+tpm2")]
        );
        assert_eq!(key_mode("tpm2"), None);
    }
}
