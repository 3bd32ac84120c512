//! The vault's state: closed or open, how it opens by itself, and how it is closed.
//!
//! It opens when it is first needed. Whoever needs it meanwhile waits for the same attempt, which goes on when nobody
//! waits any more; nothing else waits for a slow tier. A failed attempt is not repeated until something changed.

mod operate;
mod ssh;
mod status;

pub use ssh::ProvisionedKey;

use crate::agent::Agents;
use crate::audit::{self, Audit};
use crate::db::{self, Database, OpenError};
use crate::events::VaultEvent;
use crate::files;
use crate::pending::Pending;
use crate::settings::{ConfigFile, Settings};
use crate::tiers::{self, Broken, Found};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use terok_proto::vault::PassphraseSource;
use terok_proto::{Fault, Kind};
use tokio::sync::broadcast;

/// How long a keyring that had nothing is not asked again: at login the daemon may be faster than the desktop.
const KEYRING_PAUSE: Duration = Duration::from_secs(30);

/// How long a stopping daemon waits for those who use the database.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Events kept for a listener that is slow.
const EVENTS: usize = 256;

/// The vault. Clones are handles of the same one.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

/// A handle that does not keep the vault alive, for its own agents.
#[derive(Clone)]
pub(crate) struct WeakVault(Weak<Inner>);

impl WeakVault {
    /// The open vault, if it is.
    pub(crate) async fn open(&self) -> Option<Arc<Open>> {
        Vault {
            inner: self.0.upgrade()?,
        }
        .for_agent()
        .await
    }

    /// A signature was made or refused.
    pub(crate) async fn note(
        &self,
        scope: &str,
        fingerprint: &str,
        outcome: audit::Outcome,
        began: Instant,
    ) {
        if let Some(inner) = self.0.upgrade() {
            Vault { inner }
                .note_signature(scope, fingerprint, outcome, began.elapsed())
                .await;
        }
    }
}

struct Inner {
    settings: RwLock<Arc<Settings>>,
    config: Arc<dyn ConfigFile>,
    panicked: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<Guarded>,
    /// Held by whoever opens the vault or moves its passphrase.
    changing: tokio::sync::Mutex<()>,
    events: broadcast::Sender<VaultEvent>,
    agents: Agents,
    audit: Audit,
    pending: Pending,
}

struct Guarded {
    state: State,
    /// Counts what makes the result of an attempt worthless that is still under way.
    epoch: u64,
}

enum State {
    /// Nobody has tried since something changed.
    Unknown,
    /// Locked on purpose: it does not open by itself.
    Closed,
    Open(Arc<Open>),
    Failed(Failure),
}

/// The open vault: as long as somebody holds it, it can be used.
pub(crate) struct Open {
    pub(crate) database: Database,
    source: Mutex<PassphraseSource>,
}

impl Open {
    fn source(&self) -> PassphraseSource {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_source(&self, source: PassphraseSource) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }
}

/// Why the last attempt did not open it.
struct Failure {
    reason: Reason,
    stamp: Vec<Option<(u64, u64, i64, i64)>>,
    at: Instant,
}

enum Reason {
    NoTier,
    Wrong(PassphraseSource),
    Broken(Broken),
    Plaintext,
    Newer(i64),
    Other(Fault),
}

impl Reason {
    fn fault(&self) -> Fault {
        match self {
            Self::NoTier => locked(),
            Self::Wrong(source) => Fault::new(
                Kind::VaultWrongPassphrase,
                format!(
                    "the passphrase from `{}` does not open the vault",
                    source.label()
                ),
            )
            .with("source", source.label())
            .hint("unlock with the right one: `terokctl vault unlock`"),
            Self::Broken(broken) => broken.fault(),
            Self::Plaintext => Fault::new(
                Kind::VaultPlaintextDb,
                "the vault's database is not encrypted: nothing is read from it or written to it",
            )
            .hint("move it away, or let the release that made it encrypt it"),
            Self::Newer(version) => Fault::new(
                Kind::VaultSchemaNewer,
                format!(
                    "the vault's database has schema {version}, this release knows {}",
                    db::schema::VERSION
                ),
            )
            .with("version", *version)
            .hint("update terokd"),
            Self::Other(fault) => fault.clone(),
        }
    }
}

/// What the caller wants the vault for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// What is there; if nothing is, nothing is made.
    Read,
    /// A database, if need be a new one.
    Write,
}

fn warn_of_leftover(settings: &Settings) {
    if let Some(warning) = settings.leftover_warning() {
        tracing::warn!("{warning}");
    }
}

fn locked() -> Fault {
    Fault::new(Kind::VaultLocked, "the vault is locked")
        .hint("unlock it with `terokctl vault unlock`")
}

impl Vault {
    /// A vault that is not looked at yet. `panicked` tells whether the kill switch is engaged and must be quick.
    pub fn new(
        settings: Settings,
        config: Arc<dyn ConfigFile>,
        panicked: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        warn_of_leftover(&settings);
        Self {
            inner: Arc::new(Inner {
                settings: RwLock::new(Arc::new(settings)),
                config,
                panicked: Box::new(panicked),
                state: Mutex::new(Guarded {
                    state: State::Unknown,
                    epoch: 0,
                }),
                changing: tokio::sync::Mutex::default(),
                events: broadcast::channel(EVENTS).0,
                agents: Agents::default(),
                audit: Audit::default(),
                pending: Pending::default(),
            }),
        }
    }

    /// Takes new settings. Unless the vault is locked on purpose, the tiers are evaluated again in the background; an
    /// open vault stays open as long as its file is the same. Must be called inside a runtime.
    pub fn configure(&self, settings: Settings) {
        let new = Arc::new(settings);
        let old = {
            let mut current = self
                .inner
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&new))
        };
        if old == new {
            return;
        }
        if old.vault_dir != new.vault_dir {
            warn_of_leftover(&new);
        }
        let moved = old.vault_dir != new.vault_dir || old.runtime_dir != new.runtime_dir;
        let open = {
            let mut guarded = self.state();
            match &guarded.state {
                State::Closed => return,
                State::Open(open) if !moved => Some(Arc::clone(open)),
                _ => {
                    guarded.epoch += 1;
                    let was = std::mem::replace(&mut guarded.state, State::Unknown);
                    drop(guarded);
                    if matches!(was, State::Open(_)) {
                        self.inner.agents.close();
                        self.tell(VaultEvent::Locked);
                    }
                    None
                }
            }
        };
        let vault = self.clone();
        tokio::spawn(async move {
            match open {
                Some(open) => vault.look_where_it_comes_from(&open).await,
                // Whoever waits for an unlocked vault learns of it through the event.
                None => drop(vault.open(Need::Read).await),
            }
        });
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<VaultEvent> {
        self.inner.events.subscribe()
    }

    /// Whether secrets can be used right now. Asks no tier.
    pub fn is_unlocked(&self) -> bool {
        !self.is_panicked() && matches!(self.state().state, State::Open(_))
    }

    /// Whether there are secrets that cannot be used right now. Asks no tier.
    pub fn is_locked(&self) -> bool {
        !self.is_unlocked() && (self.is_panicked() || db::exists(&self.settings().database()))
    }

    /// Where the passphrase of the open vault came from.
    pub fn source(&self) -> Option<PassphraseSource> {
        match &self.state().state {
            State::Open(open) => Some(open.source()),
            _ => None,
        }
    }

    /// For the kill switch: removes the session passphrase, closes every agent, forgets keys and connections. The other
    /// tiers stay. Afterwards the panic check keeps the vault closed.
    ///
    /// # Errors
    /// The session file cannot be removed; everything else has happened all the same.
    pub async fn panic(&self) -> Result<(), Fault> {
        let session = self.settings().session_file();
        let removed = files::blocking(move || files::remove(&session)).await;
        self.forget_open(State::Unknown).await;
        removed
    }

    /// Closes every agent and forgets keys and connections: the daemon ends. Waits a moment for those who still use
    /// them, because a database that closes while the process exits crashes it.
    pub async fn shutdown(&self) {
        self.inner.agents.close();
        let was = {
            let mut guarded = self.state();
            guarded.epoch += 1;
            std::mem::replace(&mut guarded.state, State::Unknown)
        };
        let State::Open(open) = was else {
            return;
        };
        let users = Arc::downgrade(&open);
        // Closing takes a few milliseconds of waiting for a thread.
        let _ = tokio::task::spawn_blocking(move || drop(open)).await;
        let last = Instant::now() + LAST_CALL;
        while users.strong_count() > 0 && Instant::now() < last {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn downgrade(&self) -> WeakVault {
        WeakVault(Arc::downgrade(&self.inner))
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(
            &self
                .inner
                .settings
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Notes what we wrote into the configuration, before the daemon has read it back.
    fn update_settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut current = self
            .inner
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut current));
    }

    fn state(&self) -> MutexGuard<'_, Guarded> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: VaultEvent) {
        // Nobody may be listening.
        let _ = self.inner.events.send(event);
    }

    fn is_panicked(&self) -> bool {
        (self.inner.panicked)()
    }

    fn check_panic(&self) -> Result<(), Fault> {
        if self.is_panicked() {
            return Err(Fault::new(
                Kind::Panicked,
                "the kill switch is engaged: the vault stays closed",
            )
            .hint("clear the panic first"));
        }
        Ok(())
    }

    /// The open vault. `None`: there is no database, and none was asked for.
    async fn open(&self, need: Need) -> Result<Option<Arc<Open>>, Fault> {
        self.check_panic()?;
        if let Some(open) = self.ready()? {
            return Ok(Some(open));
        }
        let vault = self.clone();
        // In a task of its own: the attempt goes on when the one who asked first gives up.
        match tokio::spawn(async move { vault.attempt(need).await }).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Fault::new(
                    Kind::ShuttingDown,
                    "the daemon is shutting down",
                )),
            },
        }
    }

    /// The open vault, with a new database if there is none.
    async fn writable(&self) -> Result<Arc<Open>, Fault> {
        self.open(Need::Write).await?.ok_or_else(locked)
    }

    /// What is known without asking anybody. `None`: an attempt is due.
    fn ready(&self) -> Result<Option<Arc<Open>>, Fault> {
        let settings = self.settings();
        let mut guarded = self.state();
        match &guarded.state {
            State::Open(open) if open.database.is_current(&settings.database()) => {
                Ok(Some(Arc::clone(open)))
            }
            State::Closed => Err(locked()),
            State::Failed(failure) if failure.stands(&settings) => Err(failure.reason.fault()),
            State::Unknown => Ok(None),
            State::Open(_) | State::Failed(_) => {
                guarded.state = State::Unknown;
                Ok(None)
            }
        }
    }

    async fn attempt(&self, need: Need) -> Result<Option<Arc<Open>>, Fault> {
        let _changing = self.inner.changing.lock().await;
        self.check_panic()?;
        if let Some(open) = self.ready()? {
            return Ok(Some(open));
        }
        let settings = self.settings();
        let epoch = self.state().epoch;
        let exists = db::exists(&settings.database());
        if !exists && need == Need::Read {
            return Ok(None);
        }
        let stamp = tiers::stamp(&settings);
        match self.try_tiers(&settings, exists).await {
            Ok(open) => self.publish(open, Some(epoch)).await.map(Some),
            Err(reason) => {
                let fault = reason.fault();
                let mut guarded = self.state();
                if guarded.epoch == epoch {
                    guarded.state = State::Failed(Failure {
                        reason,
                        stamp,
                        at: Instant::now(),
                    });
                }
                Err(fault)
            }
        }
    }

    async fn try_tiers(&self, settings: &Settings, exists: bool) -> Result<Open, Reason> {
        let found = match tiers::resolve(settings).await.map_err(Reason::Broken)? {
            Some(found) => found,
            None if exists => return Err(Reason::NoTier),
            None => self
                .choose_tier(settings, None)
                .await
                .map_err(Reason::Other)?,
        };
        self.open_with(settings, found, exists).await
    }

    /// Opens or creates the database and does what had to wait for that.
    async fn open_with(
        &self,
        settings: &Settings,
        found: Found,
        exists: bool,
    ) -> Result<Open, Reason> {
        let path = settings.database();
        let result = if exists {
            Database::open(&path, &found.passphrase).await
        } else {
            Database::create(&path, &found.passphrase).await
        };
        let database = result.map_err(|error| match error {
            OpenError::WrongPassphrase => Reason::Wrong(found.source),
            OpenError::Plaintext => Reason::Plaintext,
            OpenError::SchemaNewer(version) => Reason::Newer(version),
            OpenError::Other(fault) => Reason::Other(fault),
        })?;
        self.run_pending(settings, &database)
            .await
            .map_err(Reason::Other)?;
        Ok(Open {
            database,
            source: Mutex::new(found.source),
        })
    }

    /// Makes an open vault the one that everybody uses, unless something happened since `epoch`.
    async fn publish(&self, open: Open, epoch: Option<u64>) -> Result<Arc<Open>, Fault> {
        self.check_panic()?;
        let open = Arc::new(open);
        {
            let mut guarded = self.state();
            if epoch.is_some_and(|epoch| epoch != guarded.epoch) {
                return match &guarded.state {
                    State::Open(other) => Ok(Arc::clone(other)),
                    _ => Err(locked()),
                };
            }
            guarded.epoch += 1;
            guarded.state = State::Open(Arc::clone(&open));
        }
        self.tell(VaultEvent::Unlocked);
        let log = self.settings().audit();
        self.inner
            .audit
            .vault(log, audit::Kind::Unlock, open.source().label())
            .await;
        Ok(open)
    }

    /// Drops keys and connections, closes the agents, and tells it if the vault was open.
    async fn forget_open(&self, next: State) {
        let was = {
            let mut guarded = self.state();
            guarded.epoch += 1;
            std::mem::replace(&mut guarded.state, next)
        };
        self.inner.agents.close();
        if let State::Open(open) = was {
            let source = open.source().label();
            drop(open);
            self.tell(VaultEvent::Locked);
            let log = self.settings().audit();
            self.inner.audit.vault(log, audit::Kind::Lock, source).await;
        }
    }

    /// After a change of the configuration: which tier an open vault would open from now.
    async fn look_where_it_comes_from(&self, open: &Open) {
        match tiers::resolve(&self.settings()).await {
            Ok(Some(found)) if found.passphrase == *open.database.passphrase() => {
                open.set_source(found.source);
            }
            Ok(Some(found)) => {
                tracing::warn!(
                    source = found.source.label(),
                    "the passphrase configured now does not open the vault"
                );
            }
            Ok(None) => {
                tracing::warn!("no tier is configured that opens the vault after a restart")
            }
            Err(broken) => tracing::warn!(
                source = broken.source.label(),
                error = broken.why,
                "a tier of the vault does not work"
            ),
        }
    }
}

impl Failure {
    /// Whether trying again would find the same.
    fn stands(&self, settings: &Settings) -> bool {
        let keyring_may_be_open_now = matches!(self.reason, Reason::NoTier)
            && settings.use_keyring
            && self.at.elapsed() >= KEYRING_PAUSE;
        let file_trouble = matches!(&self.reason, Reason::Other(_));
        !keyring_may_be_open_now && !file_trouble && self.stamp == tiers::stamp(settings)
    }
}
