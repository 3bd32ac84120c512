//! The reference's `tokens.json`: tokens in clear text, of which only hashes are kept.

use crate::token::{self, Hash};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use terok_proto::Fault;

/// More is not read: a hundred thousand tokens fit.
const LARGEST: u64 = 16 << 20;

/// One token of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) hash: Hash,
    pub(crate) scope: String,
    pub(crate) task: String,
}

#[derive(Deserialize)]
struct Written {
    scope: String,
    task: String,
}

/// Reads the file; none if it does not exist or is not understood.
pub(crate) fn read(base: &Path) -> Result<Option<Vec<Entry>>, Fault> {
    let path = base.join("tokens.json");
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io("read", &path, &error)),
    };
    let mut text = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut text)
        .map_err(|error| Fault::io("read", &path, &error))?;
    if text.len() as u64 > LARGEST {
        tracing::warn!(path = %path.display(), "the file is too large to be one of tokens, and is ignored");
        return Ok(None);
    }
    let parsed: HashMap<String, serde_json::Value> = match serde_json::from_slice(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Neither the text nor the message that quotes it belongs into a log.
            tracing::warn!(path = %path.display(), line = error.line(), "the file is no JSON object, and is ignored");
            return Ok(None);
        }
    };
    let entries = parsed.into_iter().filter_map(|(token, value)| {
        let written: Written = serde_json::from_value(value).ok()?;
        token::well_formed(&token).then(|| Entry {
            hash: token::hash(token.as_bytes()),
            scope: written.scope,
            task: written.task,
        })
    });
    Ok(Some(entries.collect()))
}
