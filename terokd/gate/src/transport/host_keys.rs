//! Notices host keys that ssh pinned during a call, so that somebody can be told.

use super::PinnedKey;
use crate::{Access, Control, TransportError, Upstream, access};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nobody pins this much; what is behind it is not looked at.
const LIMIT: u64 = 4 * 1024 * 1024;

/// A call that may pin host keys of ours. Whatever was pinned when [`Self::look`] is called, or when this ends, is told to
/// the watcher of the call: also by a call that fails, and once, whichever of several calls pinned it.
pub(super) struct Contact {
    file: PathBuf,
    host: String,
    control: Control,
}

/// What a file with pins held, as far as somebody was told of it.
#[derive(Default)]
struct Ledger {
    lines: BTreeSet<String>,
    /// Calls under way; when there are none, nothing of what the file holds is news.
    contacts: usize,
}

/// Files with pins that calls under way may add to.
static LEDGERS: Mutex<BTreeMap<PathBuf, Ledger>> = Mutex::new(BTreeMap::new());

fn ledgers() -> MutexGuard<'static, BTreeMap<PathBuf, Ledger>> {
    LEDGERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Contact {
    /// Takes stock, if this call may pin anything of ours. Makes the file if it is missing.
    pub(super) fn begin(
        upstream: &Upstream,
        control: &Control,
    ) -> Result<Option<Self>, TransportError> {
        let Access::VaultAgent { known_hosts, .. } = &upstream.access else {
            return Ok(None);
        };
        if !upstream.url.is_ssh() {
            return Ok(None);
        }
        access::ensure_known_hosts(known_hosts)?;
        let name = upstream.url.bare_host().to_lowercase();
        let host = match upstream.url.port() {
            None | Some(22) => name,
            Some(port) => format!("[{name}]:{port}"),
        };
        let mut ledgers = ledgers();
        let ledger = ledgers.entry(known_hosts.clone()).or_default();
        let now = lines(known_hosts);
        if ledger.contacts == 0 {
            ledger.lines = now;
        } else {
            // What came is for those to tell who are under way; what went may come again.
            ledger.lines.retain(|line| now.contains(line));
        }
        ledger.contacts += 1;
        Ok(Some(Self {
            file: known_hosts.clone(),
            host,
            control: control.clone(),
        }))
    }

    /// Tells what came since.
    pub(super) fn look(&self) {
        let news = self.news(&mut ledgers());
        for key in news {
            self.control.pinned(key);
        }
    }

    /// Keys of this host that nobody was told of yet.
    fn news(&self, ledgers: &mut BTreeMap<PathBuf, Ledger>) -> Vec<PinnedKey> {
        let Some(ledger) = ledgers.get_mut(&self.file) else {
            return Vec::new();
        };
        lines(&self.file)
            .into_iter()
            .filter_map(|line| {
                let key = parse(&line, &self.host)?;
                ledger.lines.insert(line).then_some(key)
            })
            .collect()
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        let mut ledgers = ledgers();
        let news = self.news(&mut ledgers);
        if let Some(ledger) = ledgers.get_mut(&self.file) {
            ledger.contacts -= 1;
            if ledger.contacts == 0 {
                ledgers.remove(&self.file);
            }
        }
        drop(ledgers);
        for key in news {
            self.control.pinned(key);
        }
    }
}

fn lines(file: &Path) -> BTreeSet<String> {
    use std::io::Read;
    let mut text = Vec::new();
    // Without waiting: a pipe in the file's place would have us wait for its other end.
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(file);
    if let Ok(file) = opened {
        // A file that cannot be read in whole has no news for us; ssh complains by itself.
        file.take(LIMIT).read_to_end(&mut text).ok();
    }
    // Comments may be written in anything.
    let text = String::from_utf8_lossy(&text);
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// `host[,host…] type base64`
fn parse(line: &str, host: &str) -> Option<PinnedKey> {
    let mut words = line.split_ascii_whitespace();
    let hosts = words.next()?;
    if !hosts.split(',').any(|name| name.eq_ignore_ascii_case(host)) {
        return None;
    }
    let key_type = words.next()?.to_owned();
    let blob = base64_decode(words.next()?)?;
    Some(PinnedKey {
        host: host.to_owned(),
        key_type,
        fingerprint: format!("SHA256:{}", base64_encode(&Sha256::digest(blob))),
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|known| *known == byte)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xFFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xFF).ok()?);
        }
    }
    Some(out)
}

/// Without padding, as ssh shows fingerprints.
pub(super) fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 1);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter().take(3 - chunk.len()))
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..=chunk.len() {
            let index = word >> (18 - 6 * place) & 0x3F;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&key)
            .status()
            .unwrap();
        assert!(made.success());
        let shown = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&key)
            .output()
            .unwrap();
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let found = parse(&format!("[h.x]:2222 {public}"), "[h.x]:2222").unwrap();
        assert!(
            String::from_utf8_lossy(&shown.stdout).contains(&found.fingerprint),
            "{found:?}"
        );
        assert_eq!(parse(&format!("other {public}"), "h.x"), None);
        assert_eq!(base64_encode(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    }
}
