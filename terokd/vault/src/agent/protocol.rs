//! The agent protocol, as far as a signing-only agent speaks it: list and sign; everything else is refused and the
//! connection stays. Messages are decoded and encoded by `ssh-agent-lib`; framing is here, for its limits.

use crate::audit::Outcome;
use crate::keys::snapshot::{MAIN, StoredKey};
use crate::vault::WeakVault;
use ssh_agent_lib::proto::{Identity, PublicCredential, Request, Response, SignRequest};
use ssh_agent_lib::ssh_encoding::{Decode, Encode};
use ssh_key::PublicKey;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use terok_proto::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const MESSAGE_LIMIT: usize = 262_144;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// Serves one connection until the client leaves or sends an impossible length.
pub(super) async fn serve(
    mut stream: UnixStream,
    vault: &WeakVault,
    scope: &str,
) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        let length = match stream.read_u32().await {
            Ok(length) => length as usize,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        if length == 0 || length > MESSAGE_LIMIT {
            return Ok(());
        }
        message.clear();
        // Grows with what arrives, not with what is announced.
        let got = (&mut stream)
            .take(length as u64)
            .read_to_end(&mut message)
            .await?;
        if got < length {
            return Ok(());
        }
        let response = answer(&message, vault, scope).await;
        stream.write_all(&frame(&response)?).await?;
    }
}

async fn answer(message: &[u8], vault: &WeakVault, scope: &str) -> Response {
    let result = match message.first() {
        Some(&REQUEST_IDENTITIES) => identities(vault, scope)
            .await
            .map(Response::IdentitiesAnswer),
        Some(&SIGN_REQUEST) => match decode(message) {
            Some(request) => sign(&request, vault, scope).await,
            None => Ok(Response::Failure),
        },
        _ => Ok(Response::Failure),
    };
    result.unwrap_or_else(|error| {
        tracing::warn!(scope, %error, "the SSH agent cannot answer");
        Response::Failure
    })
}

fn decode(message: &[u8]) -> Option<SignRequest> {
    let mut rest = message;
    match Request::decode(&mut rest) {
        Ok(Request::SignRequest(request)) if rest.is_empty() => Some(request),
        _ => None,
    }
}

fn frame(response: &Response) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    response.encode(&mut bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// The keys that can sign, main ones first.
async fn identities(vault: &WeakVault, scope: &str) -> Result<Vec<Identity>, Fault> {
    let Some(open) = vault.open().await else {
        return Ok(Vec::new());
    };
    let snapshot = open.database.snapshot().await?;
    let mut keys: Vec<&StoredKey> = snapshot.of_scope(scope).collect();
    keys.sort_by_key(|key| !key.comment.starts_with(MAIN));
    let mut identities = Vec::with_capacity(keys.len());
    for key in keys {
        let Ok(public) = PublicKey::from_bytes(&key.blob) else {
            tracing::error!(
                key_id = key.id,
                "a stored public key cannot be read: it is not offered"
            );
            continue;
        };
        if open.database.signing_key(&snapshot, key).await?.is_ok() {
            identities.push(Identity {
                credential: public.key_data().clone().into(),
                comment: key.comment.clone(),
            });
        }
    }
    Ok(identities)
}

async fn sign(request: &SignRequest, vault: &WeakVault, scope: &str) -> Result<Response, Fault> {
    let began = Instant::now();
    let Some(open) = vault.open().await else {
        return Ok(Response::Failure);
    };
    let snapshot = open.database.snapshot().await?;
    let key = match &request.credential {
        PublicCredential::Key(data) => {
            let blob = PublicKey::new(data.clone(), "")
                .to_bytes()
                .unwrap_or_default();
            snapshot.of_scope(scope).find(|key| key.blob == blob)
        }
        PublicCredential::Cert(_) => None,
    };
    let Some(key) = key else {
        vault
            .note(scope, "", Outcome::CredentialMissing, began)
            .await;
        return Ok(Response::Failure);
    };
    let signature = match open.database.signing_key(&snapshot, key).await? {
        Ok(signing) => {
            let (data, flags) = (request.data.clone(), request.flags);
            // RSA takes milliseconds.
            crate::files::blocking(move || Ok(Arc::clone(&signing).sign(&data, flags).ok())).await?
        }
        Err(_) => None,
    };
    let (response, outcome) = match signature {
        Some(signature) => (Response::SignResponse(signature), Outcome::Ok),
        None => (Response::Failure, Outcome::CredentialMisconfigured),
    };
    vault.note(scope, &key.fingerprint, outcome, began).await;
    Ok(response)
}
