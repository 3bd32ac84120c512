//! The passphrase sealed with `systemd-creds --user`, to this machine or its TPM.

use crate::settings::Settings;
use crate::{child, files};
use base64ct::{Base64, Encoding};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;
use terok_proto::vault::Secret;

const NAME: &str = "--name=terok-sandbox.vault-passphrase";
const DEADLINE: Duration = Duration::from_secs(10);
/// The first release whose user mode works without root.
const MAJOR: u32 = 257;

/// What a user's credential begins with that is sealed to this machine alone.
const MACHINE: u128 = 0x55b9_ed1d_3859_4d43_a831_9d2e_bb33_2ac6;
/// The same for this machine together with its TPM, without and with a policy of public keys.
const MACHINE_AND_TPM: [u128; 2] = [
    0xef4a_c136_79a9_480e_a7db_6889_7f9f_165d,
    0xadbc_4ca3_efb6_4201_ba88_1b6f_2e40_95ea,
];

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
    let option = format!("--with-key={with_key}");
    let arguments = ["encrypt", "--user", NAME, &option, "-", "-"];
    let input = passphrase.expose().as_bytes();
    let end = child::run(&settings.systemd_creds, &arguments, Some(input), DEADLINE)
        .await
        .map_err(|e| format!("systemd-creds cannot seal the passphrase: {e}"))?;
    if !end.success || end.stdout.is_empty() {
        return Err(match with_key {
            "tpm2" => "systemd-creds cannot seal the passphrase to the TPM alone: for a user it does so only together with the machine's key, which is `tpm+host`",
            "host+tpm2" => "systemd-creds cannot seal the passphrase to the TPM and this machine: is there a usable TPM?",
            _ => "systemd-creds cannot seal the passphrase",
        }
        .into());
    }
    check_key(with_key, &end.stdout)?;
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

/// Release 257 drops `--with-key=` on the way to the service that seals for an ordinary user, which then
/// chooses by itself. What is sealed in a way that is not known here passes.
fn check_key(with_key: &str, credential: &[u8]) -> Result<(), String> {
    let kind = kind(credential);
    let with_tpm = kind.is_some_and(|kind| MACHINE_AND_TPM.contains(&kind));
    match with_key {
        "tpm2" | "host+tpm2" if kind == Some(MACHINE) => Err("systemd-creds would seal the passphrase to this machine alone, not to its TPM, which it finds unusable: `auto` and `host` do that".into()),
        "host" if with_tpm => Err("systemd-creds would seal the passphrase to the TPM too, as this release always does for an ordinary user: `auto` and `tpm+host` do that".into()),
        _ => Ok(()),
    }
}

/// The first 16 bytes of a credential, which is base64 in lines.
fn kind(credential: &[u8]) -> Option<u128> {
    let text = std::str::from_utf8(credential.get(..24)?).ok()?;
    let mut bytes = [0; 18];
    let bytes = Base64::decode(text, &mut bytes).ok()?;
    Some(u128::from_be_bytes(bytes.get(..16)?.try_into().ok()?))
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
