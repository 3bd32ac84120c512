//! The gate server's place in the daemon: where it listens, whom it serves, who hears of pushes.

use super::{Gates, Subject};
use crate::events::Draft;
use crate::store::Store;
use serde_json::json;
use std::path::{Path, PathBuf};
use terok_config::global::typed::ServicesMode;
use terok_gate_server::{Config, GateServer, Handed, Limits, Listen, PushEvent, Tokens};
use terok_proto::Fault;
use terok_proto::events::EventKind;
use terok_proto::gate::{GateServerStatus, ServerMode};

/// What became of the gate server at the start.
#[derive(Debug)]
pub(super) enum Served {
    Running(GateServer),
    /// It could not be started; everything else works.
    Failed(Fault),
}

impl Gates {
    /// Starts serving gates. A server that cannot start is told in its status and in a warning.
    ///
    /// # Errors
    /// The tokens cannot be read.
    pub async fn serve(&self, store: &Store, handed: Handed) -> Result<(), Fault> {
        let tokens = Tokens::open(store.pool()).await?;
        let snapshot = self.inner.registry.snapshot();
        let (paths, config) = (&snapshot.paths, &snapshot.global.config);
        let gates = self.clone();
        let gate_of = move |scope: &str| gates.gate_of(scope);
        if let Err(fault) = tokens
            .import_reference(&paths.gate_repos_dir, gate_of)
            .await
        {
            tracing::warn!("tokens of the reference are left alone: {fault}");
        }
        let port_file = paths.terokd_dir.join("gate-server.port");
        let listen = match config.services.mode {
            ServicesMode::Socket => Listen::Socket,
            ServicesMode::Tcp => Listen::Tcp {
                port: config.gate_server.port,
                previous: read_port(&port_file),
            },
        };
        let program = self.inner.env.exe.clone();
        let settings = Config {
            base: paths.gate_repos_dir.clone(),
            runtime_dir: paths.sandbox_runtime_dir.clone(),
            path: self.inner.env.var("PATH").unwrap_or_default().into(),
            hook_program: program.unwrap_or_else(|| PathBuf::from("terokd")),
            listen,
            handed,
            limits: Limits {
                max_push_bytes: snapshot.global.terokd.gate_server.max_push_bytes,
                ..Limits::default()
            },
        };
        let base = paths.gate_repos_dir.clone();
        super::blocking(move || {
            terok_gate::recover(&base);
            Ok(())
        })
        .await?;
        // Revoking works whether or not anybody is served.
        self.inner.tokens.set(tokens.clone()).unwrap_or_default();
        let served = match GateServer::start(settings, tokens).await {
            Ok((server, pushes)) => {
                if let Some(port) = server.port()
                    && let Err(fault) =
                        crate::fs::replace(&port_file, port.to_string().as_bytes(), 0o600)
                {
                    tracing::warn!("the gate server's port is not remembered: {fault}");
                }
                let told = self.clone().tell_pushes(pushes);
                self.inner.tasks.spawn("gate pushes", told);
                let (stopping, stopped) = (self.inner.tasks.stopping().clone(), server.clone());
                self.inner.tasks.spawn("gate server", async move {
                    stopping.cancelled().await;
                    stopped.stop().await;
                });
                Served::Running(server)
            }
            Err(fault) => {
                tracing::warn!("gates are not served: {fault}");
                Served::Failed(fault)
            }
        };
        self.inner.server.set(served).unwrap_or_default();
        Ok(())
    }

    /// What the gate server is doing.
    pub fn server_status(&self) -> GateServerStatus {
        if let Some(Served::Running(server)) = self.inner.server.get() {
            return server.status();
        }
        let base = self.inner.registry.snapshot().paths.gate_repos_dir.clone();
        GateServerStatus {
            mode: ServerMode::None,
            running: false,
            port: None,
            transport: None,
            address: None,
            active_requests: 0,
            requests_total: 0,
            tokens: 0,
            base_path: base.to_string_lossy().into_owned(),
            since: None,
            error: match self.inner.server.get() {
                Some(Served::Failed(fault)) => Some(fault.message.clone()),
                _ => None,
            },
        }
    }

    /// Ends the tokens of a project.
    ///
    /// # Errors
    /// They open nothing any more, but may do so again after a restart.
    pub async fn revoke_tokens(&self, scope: &str) -> Result<usize, Fault> {
        match self.inner.tokens.get() {
            Some(tokens) => tokens.revoke_scope(scope).await,
            None => Ok(0),
        }
    }

    /// The resolved gate of a healthy project.
    fn gate_of(&self, scope: &str) -> Option<PathBuf> {
        let id = terok_config::id::ProjectId::parse(scope).ok()?;
        self.subject(&id).ok().map(|subject: Subject| subject.path)
    }

    async fn tell_pushes(self, mut pushes: tokio::sync::mpsc::Receiver<PushEvent>) {
        let stopping = self.inner.tasks.stopping().clone();
        loop {
            let push = tokio::select! {
                push = pushes.recv() => push,
                () = stopping.cancelled() => return,
            };
            let Some(push) = push else { return };
            let data = json!({"gate_path": push.gate_path.to_string_lossy(), "refs": push.refs});
            let draft = Draft::new(EventKind::GatePushed)
                .project(push.project.as_str())
                .task(push.task_id.as_str())
                .data(data);
            self.inner.bus.publish(draft);
            let id = terok_config::id::ProjectId::parse(&push.project);
            if let Ok(subject) = id.and_then(|id| self.subject(&id)) {
                self.look_again(&subject, |_| false).await;
            }
        }
    }
}

fn read_port(file: &Path) -> Option<u16> {
    let bytes = crate::fs::read_limited(file, 16).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}
