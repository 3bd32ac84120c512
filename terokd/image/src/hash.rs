//! Content hashes of layers, scheme 2.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Scheme that this daemon writes. The reference writes scheme 1, which never equals it.
pub const SCHEME: u32 = 2;

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256 over the parts with a NUL between any two.
pub fn parts(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hasher.update([0]);
        }
        hasher.update(part.as_bytes());
    }
    hex(hasher.finalize())
}

/// SHA-256 over files as a walk that sorts the children of each directory meets them. Paths are relative, with `/`.
pub fn tree<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut files: Vec<(&str, &[u8])> = files.into_iter().collect();
    files.sort_by(|a, b| a.0.split('/').cmp(b.0.split('/')));
    let mut hasher = Sha256::new();
    for (path, bytes) in files {
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(bytes);
        hasher.update([0]);
    }
    hex(hasher.finalize())
}

/// SHA-256 of bytes.
pub fn bytes(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// Hashes of a project's layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Base layer.
    pub l0: String,
    /// Agent layer.
    pub l1: String,
    /// Project layer.
    pub l2: String,
    /// All three.
    pub combined: String,
}

impl Hashes {
    /// The hashes with their combination.
    pub fn new(l0: String, l1: String, l2: String) -> Self {
        let combined = parts(&[&l0, &l1, &l2]);
        Self {
            l0,
            l1,
            l2,
            combined,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_published() {
        assert_eq!(
            parts(&["a"]),
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        );
        assert_eq!(
            parts(&["a", "b"]),
            "59b271ae1bbcb1d31d41929817f4b16fb439eb4f31520b5ad1d5ce98920a7138"
        );
        assert_ne!(parts(&["ab"]), parts(&["a", "b"]));
    }

    #[test]
    fn a_tree_is_walked_directory_by_directory() {
        let walked = tree([("a/b", &b"1"[..]), ("a.b", b"2")]);
        assert_eq!(walked, tree([("a.b", &b"2"[..]), ("a/b", b"1")]));
        assert_eq!(walked, bytes(b"a/b\x001\x00a.b\x002\x00"));
    }
}
