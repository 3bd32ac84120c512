//! Streams of notifications: events, and one operation's updates.

use super::call::{Registrar, invalid_params, to_wire};
use crate::daemon::Daemon;
use crate::events::{Filter, Start};
use jsonrpsee::core::server::{PendingSubscriptionSink, SubscriptionSink};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use terok_proto::events::EventKind;
use terok_proto::methods::{
    EventsSubscribe, EventsUnsubscribe, OperationSubscribe, OperationUnsubscribe,
};
use terok_proto::{Fault, Method};

pub(super) fn register(registrar: &mut Registrar) {
    stream::<EventsSubscribe, EventsUnsubscribe, _>(registrar, "events.event", events);
    stream::<OperationSubscribe, OperationUnsubscribe, _>(registrar, "operation.update", operation);
}

/// Registers a subscription and its counterpart under one notification name.
fn stream<S, U, Fut>(
    registrar: &mut Registrar,
    notification: &'static str,
    run: fn(Arc<Daemon>, S, PendingSubscriptionSink) -> Fut,
) where
    S: Method,
    U: Method,
    Fut: Future<Output = ()> + Send + 'static,
{
    registrar.note::<S>();
    registrar.note::<U>();
    registrar
        .module()
        .register_subscription_raw(
            S::INFO.name,
            notification,
            U::INFO.name,
            move |params: Params<'_>, pending, daemon: Arc<Daemon>, _| {
                let text = params
                    .as_str()
                    .map_or("{}", |text| if text.trim() == "null" { "{}" } else { text });
                let decoded =
                    serde_json::from_str::<S>(text).map_err(|e| invalid_params(&S::INFO, &e));
                let inner = Arc::clone(&daemon);
                daemon.tasks.spawn(S::INFO.name, async move {
                    match decoded {
                        Ok(params) => run(Arc::clone(&inner), params, pending).await,
                        Err(fault) => reject(pending, &fault).await,
                    }
                });
            },
        )
        .expect("method names are unique: a test of the table proves it");
}

/// Parameters of an unsubscribing method, by name or position, as the one position that jsonrpsee reads.
pub(crate) fn unsubscribing(method: &str, params: &Params<'_>) -> Result<String, Fault> {
    // All of them have the same parameters.
    let info = terok_proto::methods::find(method).unwrap_or(&EventsUnsubscribe::INFO);
    let decoded = serde_json::from_str::<EventsUnsubscribe>(params.as_str().unwrap_or("{}"))
        .map_err(|e| invalid_params(info, &e))?;
    Ok(serde_json::json!([decoded.subscription]).to_string())
}

async fn reject(pending: PendingSubscriptionSink, fault: &Fault) {
    let error: ErrorObjectOwned = to_wire(fault);
    pending.reject(error).await;
}

async fn events(daemon: Arc<Daemon>, params: EventsSubscribe, pending: PendingSubscriptionSink) {
    let filter = match filter(&params) {
        Ok(filter) => filter,
        Err(fault) => return reject(pending, &fault).await,
    };
    // The client learns the id before anything can be sent under it.
    let Ok(sink) = pending.accept().await else {
        return;
    };
    let start = match (params.snapshot, params.since) {
        (Some(true), _) => {
            let daemon = Arc::clone(&daemon);
            let wanted = filter.clone();
            Start::Snapshot(Box::new(move || daemon.snapshot_value(&wanted)))
        }
        (_, Some(seq)) => Start::Since {
            epoch: params
                .epoch
                .unwrap_or_else(|| daemon.bus.epoch().to_owned()),
            seq,
        },
        _ => Start::Now,
    };
    let mut subscription = daemon.bus.subscribe(filter, start);
    loop {
        let next = tokio::select! {
            next = subscription.next() => next,
            () = sink.closed() => None,
            () = daemon.tasks.stopping().cancelled() => None,
        };
        let Some(event) = next else { return };
        if !send(&daemon, &sink, event.raw.to_owned()).await {
            return;
        }
    }
}

async fn operation(
    daemon: Arc<Daemon>,
    params: OperationSubscribe,
    pending: PendingSubscriptionSink,
) {
    let mut updates = match daemon.ops.subscribe(&params.id).await {
        Ok(updates) => updates,
        Err(fault) => return reject(pending, &fault).await,
    };
    let Ok(sink) = pending.accept().await else {
        return;
    };
    loop {
        let next = tokio::select! {
            next = updates.next() => next,
            () = sink.closed() => None,
        };
        let Some(update) = next else { return };
        let Ok(raw) = serde_json::value::to_raw_value(&update) else {
            return;
        };
        if !send(&daemon, &sink, raw).await {
            return;
        }
    }
}

/// Sends one item; waits while the client is slow, which is where its lag comes from.
async fn send(daemon: &Daemon, sink: &SubscriptionSink, raw: Box<RawValue>) -> bool {
    tokio::select! {
        sent = sink.send(raw) => sent.is_ok(),
        () = daemon.tasks.stopping().cancelled() => false,
    }
}

fn filter(params: &EventsSubscribe) -> Result<Filter, Fault> {
    let kinds = params.kinds.as_ref().map(|names| {
        names
            .iter()
            .map(|name| {
                EventKind::from_name(name).ok_or_else(|| {
                    let known: Vec<&str> = EventKind::ALL.iter().map(|k| k.name()).collect();
                    Fault::invalid_argument(format!("there is no kind of event `{name}`"))
                        .hint(format!("known kinds: {}", known.join(", ")))
                })
            })
            .collect::<Result<HashSet<_>, _>>()
    });
    Ok(Filter {
        projects: params.projects.clone().map(|ids| ids.into_iter().collect()),
        kinds: kinds.transpose()?,
    })
}
