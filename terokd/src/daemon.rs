//! The daemon as one value: what it owns, how it starts, what it tells about itself, how it stops.

use crate::events::{Bus, Filter};
use crate::gates::Gates;
use crate::images::Images;
use crate::keys::Keys;
use crate::ops::{Ops, Replay, Resumable};
use crate::polling::Polling;
use crate::project::Domain;
use crate::registry::{Registry, Snapshot};
use crate::rpc::metrics::{Gauges, Metrics};
use crate::socket::{self, Bound, Busy, Limits};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::{memory, panic, project, rpc, systemd, vault};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use terok_config::env::Environment;
use terok_config::global::TerokdConfig;
use terok_proto::daemon::{
    DaemonState, DaemonStatus, GateServerSummary, OperationCounts, ProjectCounts, VaultSummary,
};
use terok_proto::{API_VERSION, Fault, MethodInfo};
use tokio::sync::watch;

/// How long operations may take to finish when nobody says otherwise.
const DRAIN: Duration = Duration::from_secs(10);
/// What the start sets going (vault, gate server, first polls) is over by then.
const SETTLED: Duration = Duration::from_secs(3);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket cannot be taken.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Something that the daemon needs is missing.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// What the command line and systemd decide.
#[derive(Debug, Default)]
pub struct Settings {
    /// Path of the socket; by default from the environment.
    pub socket: Option<PathBuf>,
    /// A socket that was handed over.
    pub activated: Option<std::os::unix::net::UnixListener>,
    /// Where gates are served, if that was handed over.
    pub gate: terok_gate_server::Handed,
    /// Where a keyring is asked for.
    pub session_bus: terok_vault::SessionBus,
}

/// One daemon.
#[derive(Debug)]
pub struct Daemon {
    /// What the process was started with.
    pub env: Arc<Environment>,
    /// What clients may use up.
    pub limits: Limits,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Everything that was spawned.
    pub tasks: Tasks,
    /// The event stream.
    pub bus: Bus,
    /// All projects and the configuration in force.
    pub registry: Registry,
    /// Long work.
    pub ops: Ops,
    /// Repeated calls under one `request_id`.
    pub replay: Replay,
    /// What can be done with projects.
    pub domain: Domain,
    /// Gates and their upstreams.
    pub gates: Gates,
    /// SSH keys, and the vault they are in.
    pub keys: Keys,
    /// Container images, and Podman.
    pub images: Images,
    /// When upstreams are asked.
    pub polling: Polling,
    /// Filled once, by the method table.
    pub(crate) methods: OnceLock<Vec<&'static MethodInfo>>,
    started: Instant,
    socket: PathBuf,
    ready: AtomicBool,
    stopping: AtomicBool,
    stop: watch::Sender<Option<Duration>>,
}

/// A started daemon; the socket accepts.
#[derive(Debug)]
pub struct Running {
    /// The daemon.
    pub daemon: Arc<Daemon>,
}

/// Where the socket is when nobody says otherwise. Depends on the environment alone, so that a client finds it
/// without reading configuration.
pub fn socket_path(env: &Environment) -> PathBuf {
    if let Some(path) = env.var("TEROKD_SOCKET") {
        return PathBuf::from(path);
    }
    runtime_dir(env).join("terokd.sock")
}

/// Where sockets are when nobody says otherwise.
fn runtime_dir(env: &Environment) -> PathBuf {
    if let Some(dir) = env.var("XDG_RUNTIME_DIR") {
        return Path::new(dir).join("terok");
    }
    let settings = terok_config::paths::PathSettings::default();
    terok_config::paths::Paths::new(env, &settings)
        .state_root
        .join("run")
}

/// Starts a daemon and answers when its socket accepts.
///
/// # Errors
/// Another daemon runs, or something that it needs cannot be opened.
pub async fn start(env: Environment, settings: Settings) -> Result<Running, StartError> {
    let started = Instant::now();
    let socket = settings.socket.unwrap_or_else(|| socket_path(&env));
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    let bound = socket::bind(&socket, settings.activated)?;
    let env = Arc::new(env);
    let tasks = Tasks::default();
    let bus = Bus::new();
    let registry = Registry::start(Arc::clone(&env), bus.clone(), tasks.clone()).await?;
    let snapshot = registry.snapshot();
    let store = Store::open(&snapshot.paths.terokd_dir.join("state.db")).await?;
    let (ops, resumable) = Ops::open(store.clone(), bus.clone(), tasks.clone()).await?;
    let bus_address = settings.session_bus;
    let vault = vault::start(&registry, &bus, &tasks, bus_address);
    let gates = Gates::new(
        Arc::clone(&env),
        registry.clone(),
        bus.clone(),
        tasks.clone(),
        vault.clone(),
    );
    let upstreams = Arc::new(gates.clone());
    let polling = Polling::start(
        upstreams,
        Arc::clone(&env),
        registry.clone(),
        bus.clone(),
        tasks.clone(),
        store.clone(),
    )
    .await?;
    gates.attach(polling.clone());
    gates.serve(&store, settings.gate).await?;
    let keys = Keys::new(vault.clone(), gates.clone(), registry.clone());
    let images = Images::start(
        Arc::clone(&env),
        registry.clone(),
        bus.clone(),
        tasks.clone(),
        store,
        &runtime_dir(&env),
    );
    let domain = Domain::new(
        Arc::clone(&env),
        registry.clone(),
        bus.clone(),
        vault,
        gates.clone(),
        images.clone(),
    );
    let daemon = Arc::new(Daemon {
        limits: limits(&snapshot.global.terokd),
        metrics: Arc::default(),
        replay: Replay::new(tasks.clone()),
        methods: OnceLock::new(),
        started,
        socket,
        ready: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        stop: watch::Sender::new(None),
        env,
        tasks,
        bus,
        registry,
        ops,
        domain,
        gates,
        keys,
        images,
        polling,
    });
    let is_sync = |left: &Resumable| left.method.starts_with("project.gate.");
    let (syncs, others) = resumable.into_iter().partition(is_sync);
    project::resume(&daemon.domain, &daemon.ops, others).await;
    daemon.gates.resume(&daemon.ops, syncs).await;
    daemon.announce(bound);
    Ok(Running { daemon })
}

fn limits(config: &TerokdConfig) -> Limits {
    let rpc = &config.rpc;
    Limits {
        message_bytes: rpc.max_message_bytes,
        depth: rpc.max_depth,
        batch: rpc.max_batch,
        connections: rpc.max_connections,
        in_flight: rpc.max_in_flight.max(1),
        subscriptions: u32::try_from(rpc.max_subscriptions).unwrap_or(u32::MAX),
        first_message: Duration::from_secs(rpc.first_message_timeout_seconds),
    }
}

impl Running {
    /// Waits for the order to stop, by a client or by `signal`, and stops in order: no new changes, operations
    /// finished or checkpointed, connections told, tasks ended, socket gone.
    pub async fn until(self, signal: impl Future<Output = ()>) {
        let mut ordered = self.daemon.stop.subscribe();
        let drain = tokio::select! {
            () = signal => DRAIN,
            drain = ordered.wait_for(Option::is_some) => drain.ok().and_then(|drain| *drain).unwrap_or(DRAIN),
        };
        self.stop(drain).await;
    }

    /// Stops in order.
    pub async fn stop(self, drain: Duration) {
        let daemon = self.daemon;
        daemon.stopping.store(true, Ordering::Release);
        systemd::stopping();
        tracing::info!("stopping");
        daemon.ops.drain(drain).await;
        daemon.tasks.stop().await;
        // A database that is still being closed while the process exits would crash it.
        daemon.keys.vault.shutdown().await;
        tracing::info!("stopped");
    }
}

impl Daemon {
    /// Opens the doors: the socket accepts, systemd knows, the watchdog is fed.
    fn announce(self: &Arc<Self>, bound: Bound) {
        let methods = rpc::table(self);
        let path = bound.path.clone();
        self.tasks
            .spawn("socket", socket::serve(Arc::clone(self), bound, methods));
        self.ready.store(true, Ordering::Release);
        systemd::ready(&self.status_line());
        if let Some(every) = systemd::watchdog_interval() {
            self.tasks
                .spawn("watchdog", Arc::clone(self).feed_watchdog(every));
        }
        self.tasks.spawn("status", Arc::clone(self).keep_status());
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn("start's memory", async move {
            if stopping
                .run_until_cancelled(tokio::time::sleep(SETTLED))
                .await
                .is_some()
            {
                memory::give_back();
            }
        });
        let counts = self.counts();
        tracing::info!(
            socket = %path.display(),
            valid = counts.valid,
            broken = counts.broken,
            took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
    }

    /// Proves to systemd that the runtime still runs tasks and that the registry still answers.
    async fn feed_watchdog(self: Arc<Self>, every: Duration) {
        let mut tick = tokio::time::interval(every);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.tasks.stopping().cancelled() => return,
            }
            let daemon = Arc::clone(&self);
            let probe = self.tasks.spawn("watchdog probe", async move {
                daemon.registry.snapshot().generation
            });
            if probe.await.is_ok() {
                systemd::watchdog();
            }
        }
    }

    /// Keeps `systemctl status` current: only what changes projects or operations changes the line.
    async fn keep_status(self: Arc<Self>) {
        use terok_proto::events::EventKind::{
            OperationFinished, OperationStarted, ProjectAdded, ProjectBroken, ProjectChanged,
            ProjectRemoved,
        };
        let kinds = [
            ProjectAdded,
            ProjectBroken,
            ProjectChanged,
            ProjectRemoved,
            OperationStarted,
            OperationFinished,
        ];
        let filter = Filter {
            projects: None,
            kinds: Some(kinds.into_iter().collect()),
        };
        let mut events = self.bus.subscribe(filter, crate::events::Start::Now);
        loop {
            tokio::select! {
                event = events.next() => {
                    if event.is_none() {
                        return;
                    }
                }
                () = self.tasks.stopping().cancelled() => return,
            }
            systemd::status(&self.status_line());
        }
    }

    fn status_line(&self) -> String {
        let counts = self.counts();
        format!(
            "{} projects, {} broken, {} operations running",
            counts.valid,
            counts.broken,
            self.ops.running()
        )
    }

    /// Counts of projects.
    pub fn counts(&self) -> ProjectCounts {
        self.registry.snapshot().counts()
    }

    /// Methods that are registered, in order.
    pub fn methods(&self) -> &[&'static MethodInfo] {
        self.methods.get().map_or(&[], Vec::as_slice)
    }

    /// No new changes are accepted any more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Orders the daemon to stop; answers at once.
    pub fn order_stop(&self, drain: Option<Duration>) {
        self.stopping.store(true, Ordering::Release);
        self.stop.send_replace(Some(drain.unwrap_or(DRAIN)));
    }

    /// Reads everything again; systemd learns of it.
    pub async fn reload(&self) -> ProjectCounts {
        systemd::reloading();
        let counts = self.registry.reload().await;
        systemd::ready(&self.status_line());
        counts
    }

    /// Answer of `daemon.status`.
    pub async fn status(&self) -> DaemonStatus {
        let podman = self.images.podman_status().await;
        let snapshot = self.registry.snapshot();
        let served = self.gates.server_status();
        let state = match (self.is_stopping(), self.ready.load(Ordering::Acquire)) {
            (true, _) => DaemonState::Stopping,
            (false, true) => DaemonState::Ready,
            (false, false) => DaemonState::Starting,
        };
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: API_VERSION.to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            socket: self.socket.to_string_lossy().into_owned(),
            state,
            panicked: panic::is_engaged(&snapshot.paths),
            projects: snapshot.counts(),
            tasks: Default::default(),
            podman,
            vault: self.vault_summary(),
            gate_server: GateServerSummary {
                listening: served.running,
                address: served.address,
            },
            polling: self.polling.summary(),
            operations: OperationCounts {
                running: self.ops.running(),
            },
            features: vec![
                "projects".to_owned(),
                "events".to_owned(),
                "operations".to_owned(),
                "gates".to_owned(),
                "vault".to_owned(),
                "polling".to_owned(),
                "images".to_owned(),
            ],
            epoch: self.bus.epoch().to_owned(),
            warnings: self.warnings(&snapshot),
        }
    }

    /// Without asking any tier: a vault that nobody needed yet counts as locked if there is one.
    fn vault_summary(&self) -> VaultSummary {
        VaultSummary {
            locked: self.keys.vault.is_locked(),
            tier: self
                .keys
                .vault
                .source()
                .map(|source| source.label().to_owned()),
        }
    }

    /// What the user should look at.
    fn warnings(&self, snapshot: &Snapshot) -> Vec<String> {
        let degraded = self.registry.is_degraded().then(|| {
            "not all files can be watched: they are compared every two seconds; raise fs.inotify.max_user_watches"
                .to_owned()
        });
        let errors = snapshot.global_errors().map(|p| {
            let path = p.path.as_deref().unwrap_or("configuration");
            format!("{path}: {}: {}", p.location, p.message)
        });
        let server = self.gates.server_status().error;
        let server = server.map(|error| format!("gates are not served: {error}"));
        let clear = snapshot.global.config.credentials.passphrase.is_some().then(|| {
            "the vault's passphrase is in clear text in config.yml; `terokctl vault to-keyring` moves it, or seal it with `terokctl vault seal` and remove the key"
                .to_owned()
        });
        degraded
            .into_iter()
            .chain(errors)
            .chain(server)
            .chain(clear)
            .collect()
    }

    /// What a subscriber's snapshot holds, cut to its filter. Runs while no event can be published.
    pub fn snapshot_value(&self, filter: &Filter) -> Value {
        let snapshot = self.registry.snapshot();
        let wanted = |id: &str| filter.projects.as_ref().is_none_or(|ids| ids.contains(id));
        let (mut projects, mut broken) = (Vec::new(), Vec::new());
        for entry in snapshot
            .projects
            .values()
            .filter(|entry| wanted(entry.id()))
        {
            match entry.project() {
                Ok(project) => projects.push(json!(project)),
                Err(_) => broken.push(json!(entry.broken())),
            }
        }
        let operations: Vec<_> = self
            .ops
            .running_now()
            .into_iter()
            .filter(|op| op.project_id.as_deref().is_none_or(wanted))
            .collect();
        json!({
            "projects": projects,
            "broken": broken,
            "tasks": [],
            "operations": operations,
            "panicked": panic::is_engaged(&snapshot.paths),
            "vault": self.vault_summary(),
        })
    }

    /// Answer of `GET /metrics`.
    pub fn render_metrics(&self) -> String {
        let counts = self.counts();
        let names: Vec<&str> = self.methods().iter().map(|m| m.name).collect();
        let gauges = Gauges {
            valid: counts.valid,
            broken: counts.broken,
            operations: self.ops.running(),
            events: self.bus.seq(),
            uptime: self.started.elapsed().as_secs(),
        };
        self.metrics.render(&names, gauges)
    }
}
