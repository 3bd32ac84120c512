//! The passphrase in the desktop's Secret Service, over D-Bus, in the item that the reference uses too.
//!
//! Nothing here waits for a human: a locked collection counts as missing, and everything ends after three seconds.

use crate::settings::SessionBus;
use std::collections::HashMap;
use std::time::Duration;
use terok_proto::vault::Secret;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, Proxy};
use zeroize::Zeroizing;

const DEADLINE: Duration = Duration::from_secs(3);
const SERVICE: &str = "org.freedesktop.secrets";
const ATTRIBUTES: [(&str, &str); 2] =
    [("service", "terok-sandbox"), ("username", "credentials-db")];

/// Why the keyring cannot be used. Holds no secret.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nobody answers, or not in time.
    Unreachable(String),
    /// The collection is locked: only the user can open it.
    Locked,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the keyring cannot be reached: {why}"),
            Self::Locked => f.write_str("the keyring is locked: unlock it first"),
        }
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// A secret as the service passes it: session, parameters, value, content type.
type Wire = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// The stored passphrase; `None` if there is no item or the service would have to ask the user.
pub(crate) async fn lookup(bus: &SessionBus) -> Result<Option<Secret>, Error> {
    limited(bus, async |service| {
        let (unlocked, _locked) = service.search().await?;
        let Some(item) = unlocked.first() else {
            return Ok(None);
        };
        let proxy = service.proxy(item, "org.freedesktop.Secret.Item").await?;
        let (_, _, value, _): Wire = proxy.call("GetSecret", &(&service.session,)).await?;
        let value = Zeroizing::new(value);
        Ok(super::text(&value, &[]))
    })
    .await
}

/// Stores the passphrase in the default collection, in place of one that is there.
pub(crate) async fn store(bus: &SessionBus, passphrase: &Secret) -> Result<(), Error> {
    limited(bus, async |service| {
        let collection = service.default_collection().await?;
        let proxy = service
            .proxy(&collection, "org.freedesktop.Secret.Collection")
            .await?;
        if proxy.get_property::<bool>("Locked").await? {
            return Err(Error::Locked);
        }
        let attributes: HashMap<&str, &str> = ATTRIBUTES.into();
        let properties: HashMap<&str, Value<'_>> = HashMap::from([
            (
                "org.freedesktop.Secret.Item.Label",
                Value::from("Password for 'credentials-db' on 'terok-sandbox'"),
            ),
            (
                "org.freedesktop.Secret.Item.Attributes",
                Value::from(attributes),
            ),
        ]);
        let secret = (
            &service.session,
            &[][..] as &[u8],
            passphrase.expose().as_bytes(),
            "text/plain; charset=utf-8",
        );
        let (item, prompt): (OwnedObjectPath, OwnedObjectPath) = proxy
            .call("CreateItem", &(properties, secret, true))
            .await?;
        settled(&item, &prompt)
    })
    .await
}

/// Deletes the stored passphrase. Nothing stored is as good.
pub(crate) async fn delete(bus: &SessionBus) -> Result<(), Error> {
    limited(bus, async |service| {
        let (unlocked, locked) = service.search().await?;
        for item in &unlocked {
            let proxy = service.proxy(item, "org.freedesktop.Secret.Item").await?;
            let prompt: OwnedObjectPath = proxy.call("Delete", &()).await?;
            settled(item, &prompt)?;
        }
        if locked.is_empty() {
            Ok(())
        } else {
            Err(Error::Locked)
        }
    })
    .await
}

/// Whether a Secret Service answers and could store without asking.
pub(crate) async fn answers(bus: &SessionBus) -> bool {
    limited(bus, async |service| {
        let collection = service.default_collection().await?;
        let proxy = service
            .proxy(&collection, "org.freedesktop.Secret.Collection")
            .await?;
        Ok(!proxy.get_property::<bool>("Locked").await?)
    })
    .await
    .unwrap_or(false)
}

/// A prompt that would have to be answered means that nothing was done.
fn settled(item: &OwnedObjectPath, prompt: &OwnedObjectPath) -> Result<(), Error> {
    if item.as_str() != "/" && prompt.as_str() == "/" {
        Ok(())
    } else {
        Err(Error::Locked)
    }
}

struct Service {
    connection: Connection,
    session: OwnedObjectPath,
}

impl Service {
    async fn connect(bus: &SessionBus) -> Result<Self, Error> {
        let connection = match bus {
            SessionBus::Environment => Connection::session().await?,
            SessionBus::Address(address) => {
                zbus::connection::Builder::address(address.as_str())?
                    .build()
                    .await?
            }
            SessionBus::Disabled => {
                return Err(Error::Unreachable("there is no session bus".into()));
            }
        };
        let mut service = Self {
            connection,
            session: ObjectPath::from_static_str_unchecked("/").into(),
        };
        let proxy = service.service().await?;
        // The bus is the user's own: encrypting on it would hide nothing from anybody who could listen.
        let (_, session): (OwnedValue, OwnedObjectPath) = proxy
            .call("OpenSession", &("plain", Value::from("")))
            .await?;
        service.session = session;
        Ok(service)
    }

    async fn proxy(
        &self,
        path: &OwnedObjectPath,
        interface: &'static str,
    ) -> Result<Proxy<'static>, Error> {
        Ok(Proxy::new(&self.connection, SERVICE, path.clone(), interface).await?)
    }

    async fn service(&self) -> Result<Proxy<'static>, Error> {
        let path = ObjectPath::from_static_str_unchecked("/org/freedesktop/secrets").into();
        self.proxy(&path, "org.freedesktop.Secret.Service").await
    }

    /// Items that can be read now, and those that are locked.
    async fn search(&self) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), Error> {
        let attributes: HashMap<&str, &str> = ATTRIBUTES.into();
        Ok(self
            .service()
            .await?
            .call("SearchItems", &(attributes,))
            .await?)
    }

    async fn default_collection(&self) -> Result<OwnedObjectPath, Error> {
        let path: OwnedObjectPath = self
            .service()
            .await?
            .call("ReadAlias", &("default",))
            .await?;
        if path.as_str() == "/" {
            // Making one would ask the user.
            return Err(Error::Unreachable("it has no default collection".into()));
        }
        Ok(path)
    }
}

async fn limited<T>(
    bus: &SessionBus,
    work: impl AsyncFnOnce(&Service) -> Result<T, Error>,
) -> Result<T, Error> {
    let all = async {
        let service = Service::connect(bus).await?;
        work(&service).await
    };
    match tokio::time::timeout(DEADLINE, all).await {
        Ok(result) => result,
        Err(_) => Err(Error::Unreachable("it does not answer within 3 s".into())),
    }
}
