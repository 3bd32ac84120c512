//! A subscription to events, read with a deadline.

use crate::client::Client;
use serde_json::{Value, json};
use std::path::Path;

/// One subscription on a connection of its own.
#[derive(Debug)]
pub struct Events {
    /// The connection.
    pub client: Client,
    /// Id of the subscription.
    pub id: Value,
}

impl Events {
    /// Subscribes; returns once the daemon has said so.
    pub fn subscribe(socket: &Path, params: Value) -> Self {
        let mut client = Client::connect(socket);
        let id = client.ok("events.subscribe", params);
        Self { client, id }
    }

    /// The next event.
    ///
    /// # Panics
    /// None comes in time.
    pub fn receive(&mut self) -> Value {
        let notification = self.client.notification();
        assert_eq!(notification["method"], "events.event", "{notification}");
        assert_eq!(
            notification["params"]["subscription"], self.id,
            "{notification}"
        );
        assert!(notification.get("id").is_none(), "{notification}");
        let event = notification["params"]["result"].clone();
        for member in ["epoch", "at", "kind"] {
            assert!(event[member].is_string(), "no {member}: {event}");
        }
        assert!(event["seq"].is_u64(), "no seq: {event}");
        event
    }

    /// The next event of that kind; others are passed over.
    pub fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.receive();
            if event["kind"] == kind {
                return event;
            }
        }
    }

    /// The next event of that kind about that project.
    pub fn next_about(&mut self, kind: &str, project: &str) -> Value {
        loop {
            let event = self.next_of(kind);
            if event["project_id"] == project {
                return event;
            }
        }
    }

    /// Everything up to and including the first event for which `is_last` holds.
    pub fn until(&mut self, mut is_last: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let event = self.receive();
            let last = is_last(&event);
            all.push(event);
            if last {
                return all;
            }
        }
    }

    /// Ends the subscription.
    pub fn unsubscribe(&mut self) {
        let id = self.id.clone();
        assert_eq!(
            self.client
                .ok("events.unsubscribe", json!({"subscription": id})),
            json!(true)
        );
    }
}
