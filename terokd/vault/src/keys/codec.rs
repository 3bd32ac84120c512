//! Private keys in memory and their encodings: PKCS#8 DER in the database, SSH blobs and OpenSSH files elsewhere.

use base64ct::{Base64, Base64Unpadded, Encoding};
use rsa::pkcs1v15;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use sha2::{Digest, Sha256};
use ssh_key::private::{Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::public::KeyData;
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey, Signature};
use zeroize::Zeroizing;

const RSA_BITS: usize = 3072;

/// PKCS#8, version 0, of an Ed25519 key up to its seed.
const ED25519_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Flag of a sign request that asks for SHA-512.
const RSA_SHA2_512: u32 = 4;

/// More would keep a core busy for longer than anybody waits; OpenSSH's default is 24.
const KDF_ROUNDS: u32 = 2048;

/// A kind of key that the vault keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Ed25519,
    Rsa,
}

impl KeyType {
    /// The name in the database and on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }
}

/// Why bytes are no key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// Not in a known format, or inconsistent.
    Malformed,
    /// Encrypted, and there is no passphrase or a wrong one.
    Encrypted,
    /// A kind of key that the vault does not keep.
    Unsupported,
}

/// A private key, wiped when dropped.
pub(crate) enum SigningKey {
    Ed25519(Ed25519Keypair),
    Rsa(Box<rsa::RsaPrivateKey>),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.key_type().name())
    }
}

impl SigningKey {
    /// Makes a new key. An RSA key takes seconds.
    pub(crate) fn mint(key_type: KeyType) -> Result<Self, KeyError> {
        Ok(match key_type {
            KeyType::Ed25519 => Self::Ed25519(Ed25519Keypair::random(&mut OsRng)),
            KeyType::Rsa => Self::Rsa(Box::new(
                rsa::RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|_| KeyError::Malformed)?,
            )),
        })
    }

    /// Reads the database's form.
    pub(crate) fn from_der(key_type: KeyType, der: &[u8]) -> Result<Self, KeyError> {
        match key_type {
            KeyType::Ed25519 => ed25519_seed(der)
                .map(|seed| Self::Ed25519(Ed25519Keypair::from_seed(seed)))
                .ok_or(KeyError::Malformed),
            KeyType::Rsa => rsa::RsaPrivateKey::from_pkcs8_der(der)
                .map(|key| Self::Rsa(Box::new(key)))
                .map_err(|_| KeyError::Malformed),
        }
    }

    /// The database's form.
    pub(crate) fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match self {
            Self::Ed25519(key) => {
                let mut der = Zeroizing::new(Vec::with_capacity(48));
                der.extend_from_slice(&ED25519_PREFIX);
                der.extend_from_slice(key.private.as_ref());
                Ok(der)
            }
            Self::Rsa(key) => key
                .to_pkcs8_der()
                .map(|der| der.to_bytes())
                .map_err(|_| KeyError::Malformed),
        }
    }

    pub(crate) fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Rsa(_) => KeyType::Rsa,
        }
    }

    /// The public half in SSH wire format.
    pub(crate) fn public_blob(&self) -> Result<Vec<u8>, KeyError> {
        let data = match self {
            Self::Ed25519(key) => KeyData::Ed25519(key.public),
            Self::Rsa(key) => KeyData::Rsa(
                ssh_key::public::RsaPublicKey::try_from(key.to_public_key())
                    .map_err(|_| KeyError::Malformed)?,
            ),
        };
        PublicKey::new(data, "")
            .to_bytes()
            .map_err(|_| KeyError::Malformed)
    }

    /// Signs as an agent does: RSA with SHA-512 if asked, else with SHA-256; never with SHA-1.
    pub(crate) fn sign(&self, data: &[u8], flags: u32) -> Result<Signature, KeyError> {
        match self {
            Self::Ed25519(key) => key.try_sign(data).map_err(|_| KeyError::Malformed),
            Self::Rsa(key) => {
                let key = (**key).clone();
                let (hash, bytes) = if flags & RSA_SHA2_512 != 0 {
                    let signer = pkcs1v15::SigningKey::<rsa::sha2::Sha512>::new(key);
                    (HashAlg::Sha512, signer.try_sign_with_rng(&mut OsRng, data))
                } else {
                    let signer = pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(key);
                    (HashAlg::Sha256, signer.try_sign_with_rng(&mut OsRng, data))
                };
                let bytes = bytes.map_err(|_| KeyError::Malformed)?.to_vec();
                Signature::new(Algorithm::Rsa { hash: Some(hash) }, bytes)
                    .map_err(|_| KeyError::Malformed)
            }
        }
    }
}

/// The seed in a PKCS#8 structure of version 0, or of version 1, which has the public half after it.
fn ed25519_seed(der: &[u8]) -> Option<&[u8; 32]> {
    let (head, rest) = der.split_at_checked(ED25519_PREFIX.len())?;
    let known = head[0] == ED25519_PREFIX[0]
        && usize::from(head[1]) == der.len() - 2
        && head[1] < 0x80
        && head[2..4] == ED25519_PREFIX[2..4]
        && head[4] <= 1
        && head[5..] == ED25519_PREFIX[5..];
    if !known {
        return None;
    }
    rest.first_chunk()
}

/// What stands in base64 between the two marks. OpenSSH breaks lines after 70 characters and `ssh-key` insists on it;
/// other programs, the reference among them, break where they like.
fn openssh_bytes(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END OPENSSH PRIVATE KEY-----")?;
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.split_ascii_whitespace());
    Base64::decode_vec(&base64).map(Zeroizing::new).ok()
}

/// Reads an OpenSSH private key file. Answers the key and the comment in it.
pub(crate) fn from_openssh(
    pem: &[u8],
    passphrase: Option<&str>,
) -> Result<(SigningKey, String), KeyError> {
    let bytes = openssh_bytes(pem).ok_or(KeyError::Malformed)?;
    let mut key = PrivateKey::from_bytes(&bytes).map_err(|_| KeyError::Malformed)?;
    if key.is_encrypted() {
        let passphrase = passphrase.ok_or(KeyError::Encrypted)?;
        if matches!(key.kdf(), ssh_key::Kdf::Bcrypt { rounds, .. } if *rounds > KDF_ROUNDS) {
            return Err(KeyError::Unsupported);
        }
        key = key.decrypt(passphrase).map_err(|_| KeyError::Encrypted)?;
    }
    let comment = key.comment().to_owned();
    let signing = match key.key_data() {
        KeypairData::Ed25519(pair) => SigningKey::Ed25519(pair.clone()),
        KeypairData::Rsa(pair) => SigningKey::Rsa(Box::new(rsa_key(pair)?)),
        _ => return Err(KeyError::Unsupported),
    };
    Ok((signing, comment))
}

fn rsa_key(pair: &RsaKeypair) -> Result<rsa::RsaPrivateKey, KeyError> {
    let number = |value: &ssh_key::Mpint| {
        value
            .as_positive_bytes()
            .map(rsa::BigUint::from_bytes_be)
            .ok_or(KeyError::Malformed)
    };
    let key = rsa::RsaPrivateKey::from_components(
        number(&pair.public.n)?,
        number(&pair.public.e)?,
        number(&pair.private.d)?,
        vec![number(&pair.private.p)?, number(&pair.private.q)?],
    )
    .map_err(|_| KeyError::Malformed)?;
    // Both are asked for by the traits in scope, and a key that lies about its size is not kept.
    if key.primes().len() != 2 || key.size() < 256 {
        return Err(KeyError::Unsupported);
    }
    Ok(key)
}

/// The blob and the comment of a public key line.
pub(crate) fn from_public_line(line: &str) -> Result<(Vec<u8>, String), KeyError> {
    let key = PublicKey::from_openssh(line.trim()).map_err(|_| KeyError::Malformed)?;
    let blob = key.to_bytes().map_err(|_| KeyError::Malformed)?;
    Ok((blob, key.comment().to_owned()))
}

/// `SHA256:` and the unpadded base64 of the blob's hash.
pub(crate) fn fingerprint(blob: &[u8]) -> String {
    format!(
        "SHA256:{}",
        Base64Unpadded::encode_string(&Sha256::digest(blob))
    )
}

/// The line for `authorized_keys`.
pub(crate) fn public_line(key_type: &str, blob: &[u8], comment: &str) -> String {
    let algorithm = if key_type == "rsa" {
        "ssh-rsa"
    } else {
        "ssh-ed25519"
    };
    format!("{algorithm} {} {comment}", Base64::encode_string(blob))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_has_the_48_bytes_that_everybody_reads() {
        let key = SigningKey::mint(KeyType::Ed25519).unwrap();
        let der = key.to_der().unwrap();
        assert_eq!(der.len(), 48);
        assert_eq!(der[..16], ED25519_PREFIX);
        let back = SigningKey::from_der(KeyType::Ed25519, &der).unwrap();
        assert_eq!(back.public_blob().unwrap(), key.public_blob().unwrap());
    }

    #[test]
    fn ed25519_with_its_public_half_is_read_too() {
        let key = SigningKey::mint(KeyType::Ed25519).unwrap();
        let der = key.to_der().unwrap();
        let mut long = der.to_vec();
        (long[1], long[4]) = (0x51, 1);
        long.extend([0x81, 0x21, 0x00]);
        long.extend(&key.public_blob().unwrap()[19..]);
        let back = SigningKey::from_der(KeyType::Ed25519, &long).unwrap();
        assert_eq!(back.public_blob().unwrap(), key.public_blob().unwrap());
        for bad in [&long[..82], &der[..47], &der[..10], &[][..]] {
            assert_eq!(
                SigningKey::from_der(KeyType::Ed25519, bad).unwrap_err(),
                KeyError::Malformed
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = SigningKey::from_der(KeyType::Ed25519, &bytes);
            let _ = SigningKey::from_der(KeyType::Rsa, &bytes);
            let _ = from_openssh(&bytes, Some("x"));
        }
    }
}
