//! Counters of the daemon, as Prometheus reads them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use terok_proto::{Kind, methods};

/// Counters of one method.
#[derive(Debug, Default)]
struct PerMethod {
    ok: AtomicU64,
    refused: AtomicU64,
    internal: AtomicU64,
    micros: AtomicU64,
}

/// Counters of the daemon.
#[derive(Debug)]
pub struct Metrics {
    per_method: Vec<PerMethod>,
    /// Connections open now.
    pub connections: AtomicI64,
    /// Connections by dialect: line, LSP, HTTP, WebSocket.
    pub dialects: [AtomicU64; 4],
    /// Connections closed because the peer is somebody else.
    pub refused_peers: AtomicU64,
    /// Connections closed because there were too many.
    pub refused_connections: AtomicU64,
    /// Streams that ended as garbage or beyond a limit.
    pub bad_streams: AtomicU64,
}

/// Figures that are read at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Valid projects.
    pub valid: u64,
    /// Broken projects.
    pub broken: u64,
    /// Operations under way.
    pub operations: u64,
    /// Events so far.
    pub events: u64,
    /// Seconds since the start.
    pub uptime: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            per_method: methods::ALL.iter().map(|_| PerMethod::default()).collect(),
            connections: AtomicI64::new(0),
            dialects: Default::default(),
            refused_peers: AtomicU64::new(0),
            refused_connections: AtomicU64::new(0),
            bad_streams: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts one call of the method registered at that place.
    pub fn call(&self, index: usize, took: Duration, failed: Option<Kind>) {
        let Some(method) = self.per_method.get(index) else {
            return;
        };
        let counter = match failed {
            None => &method.ok,
            Some(Kind::Internal) => &method.internal,
            Some(_) => &method.refused,
        };
        counter.fetch_add(1, Relaxed);
        method
            .micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The text that `GET /metrics` answers.
    pub fn render(&self, names: &[&str], gauges: Gauges) -> String {
        let mut out = String::new();
        let mut gauge = |name: &str, help: &str, kind: &str, rows: &[(&str, u64)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        gauge(
            "terokd_uptime_seconds",
            "Seconds since the start.",
            "counter",
            &[("", gauges.uptime)],
        );
        gauge(
            "terokd_projects",
            "Projects on disk.",
            "gauge",
            &[
                ("{state=\"valid\"}", gauges.valid),
                ("{state=\"broken\"}", gauges.broken),
            ],
        );
        gauge(
            "terokd_operations_running",
            "Operations under way.",
            "gauge",
            &[("", gauges.operations)],
        );
        gauge(
            "terokd_events_total",
            "Events published.",
            "counter",
            &[("", gauges.events)],
        );
        let open = u64::try_from(self.connections.load(Relaxed)).unwrap_or(0);
        gauge(
            "terokd_connections",
            "Connections open.",
            "gauge",
            &[("", open)],
        );
        let [line, lsp, http, ws] = &self.dialects;
        gauge(
            "terokd_connections_total",
            "Connections by dialect.",
            "counter",
            &[
                ("{dialect=\"line\"}", line.load(Relaxed)),
                ("{dialect=\"lsp\"}", lsp.load(Relaxed)),
                ("{dialect=\"http\"}", http.load(Relaxed)),
                ("{dialect=\"websocket\"}", ws.load(Relaxed)),
            ],
        );
        gauge(
            "terokd_connections_refused_total",
            "Connections closed at once.",
            "counter",
            &[
                ("{reason=\"peer\"}", self.refused_peers.load(Relaxed)),
                ("{reason=\"limit\"}", self.refused_connections.load(Relaxed)),
                ("{reason=\"garbage\"}", self.bad_streams.load(Relaxed)),
            ],
        );
        let _ = writeln!(
            out,
            "# HELP terokd_calls_total Calls by method and outcome.\n# TYPE terokd_calls_total counter"
        );
        for (name, method) in names.iter().zip(&self.per_method) {
            for (outcome, value) in [
                ("ok", &method.ok),
                ("refused", &method.refused),
                ("internal", &method.internal),
            ] {
                let value = value.load(Relaxed);
                if value > 0 {
                    let _ = writeln!(
                        out,
                        "terokd_calls_total{{method=\"{name}\",outcome=\"{outcome}\"}} {value}"
                    );
                }
            }
        }
        let _ = writeln!(
            out,
            "# HELP terokd_call_microseconds_total Time spent in calls.\n# TYPE terokd_call_microseconds_total counter"
        );
        for (name, method) in names.iter().zip(&self.per_method) {
            let micros = method.micros.load(Relaxed);
            if micros > 0 {
                let _ = writeln!(
                    out,
                    "terokd_call_microseconds_total{{method=\"{name}\"}} {micros}"
                );
            }
        }
        out
    }
}
