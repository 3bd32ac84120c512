//! Private keys that the user brings: where they come from, and what is checked before one is stored.

use super::codec::{self, KeyError, SigningKey};
use super::rules;
use super::store::NewKey;
use crate::files;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use terok_proto::vault::Secret;
use terok_proto::{Fault, Kind};
use zeroize::Zeroizing;

/// A key to be imported: exactly one of `path` and `private_key`.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// File in OpenSSH format: absolute, regular, of our user, 64 KiB at most, no link.
    pub path: Option<PathBuf>,
    /// Text in OpenSSH format.
    pub private_key: Option<Secret>,
    /// Public half to compare with.
    pub public_key: Option<String>,
    /// Passphrase of the key.
    pub passphrase: Option<Secret>,
    /// Comment; by default that of the public key.
    pub comment: Option<String>,
    /// Scope that gets the key.
    pub scope: Option<String>,
}

/// Reads, decrypts and checks a key. Blocks: decrypting takes time on purpose.
pub(crate) fn prepare(request: &ImportRequest) -> Result<(NewKey, String), Fault> {
    if let Some(scope) = &request.scope {
        rules::check_scope(scope)?;
    }
    if let Some(comment) = &request.comment {
        rules::check_comment(comment)?;
    }
    let from_file;
    let text: &[u8] = match (&request.path, &request.private_key) {
        (Some(path), None) => {
            from_file = read_key_file(path)?;
            &from_file
        }
        (None, Some(text)) if text.expose().len() as u64 <= files::SMALL => {
            text.expose().as_bytes()
        }
        (None, Some(_)) => {
            return Err(Fault::invalid_argument(
                "`private_key` is larger than 64 KiB",
            ));
        }
        _ => {
            return Err(Fault::invalid_argument(
                "give exactly one of `path` and `private_key`",
            ));
        }
    };
    let passphrase = request.passphrase.as_ref().map(Secret::expose);
    let (key, own_comment) =
        codec::from_openssh(text, passphrase).map_err(|e| refuse(&e, request))?;
    let new = NewKey::new(&key).map_err(|e| refuse(&e, request))?;
    drop::<SigningKey>(key);
    let mut found = own_comment;
    if let Some(line) = &request.public_key {
        let (blob, comment) = codec::from_public_line(line).map_err(|_| {
            Fault::invalid_argument("`public_key` is not a line like that of a `.pub` file")
        })?;
        if blob != new.blob {
            return Err(Fault::new(
                Kind::KeyMismatch,
                "the private key does not belong to the public key",
            ));
        }
        if !comment.is_empty() {
            found = comment;
        }
    }
    let comment = match &request.comment {
        Some(comment) => comment.clone(),
        None => {
            rules::check_comment(&found)
                .map_err(|fault| fault.hint("give a `comment` to use instead"))?;
            found
        }
    };
    Ok((new, comment))
}

fn refuse(error: &KeyError, request: &ImportRequest) -> Fault {
    match error {
        KeyError::Malformed => {
            Fault::invalid_argument("this is not a private key in OpenSSH format")
                .hint("`ssh-keygen -p -f FILE` converts older formats")
        }
        KeyError::Unsupported => Fault::invalid_argument(
            "only Ed25519 keys and RSA keys of 2048 bits or more can be imported",
        ),
        KeyError::Encrypted => Fault::new(
            Kind::KeyPasswordProtected,
            if request.passphrase.is_some() {
                "the passphrase does not decrypt the key"
            } else {
                "the key is protected with a passphrase"
            },
        )
        .hint("give its passphrase, or remove it with `ssh-keygen -p -f FILE`"),
    }
}

fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if !path.is_absolute() {
        return Err(Fault::invalid_argument("`path` is not absolute"));
    }
    let unusable =
        |why: &str| Fault::invalid_argument(format!("cannot import `{}`: {why}", path.display()));
    let meta = std::fs::symlink_metadata(path).map_err(|e| unusable(&e.to_string()))?;
    if !meta.is_file() {
        return Err(unusable("not a regular file"));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unusable("the file belongs to another user"));
    }
    // Looked at again on the open file, so that an exchange in between is noticed.
    match files::read_owned(path, meta.uid()) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(unusable("no such file")),
        Err(fault) => Err(Fault::invalid_argument(fault.message)),
    }
}
