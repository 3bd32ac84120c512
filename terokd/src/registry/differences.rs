//! What subscribers are told about the step from one state to the next.

use super::snapshot::{ProjectEntry, Snapshot};
use crate::events::Draft;
use serde_json::{Map, Value, json};
use terok_config::env::Environment;
use terok_config::global::Global;
use terok_config::resolve::{Context, resolved_config};
use terok_proto::events::EventKind;

/// The events of a step, in the order in which they are told.
pub(super) fn differences(env: &Environment, old: &Snapshot, new: &Snapshot) -> Vec<Draft> {
    let mut events = Vec::new();
    events.extend(config_changed(env, old, new));
    // A directory whose file states another id is another project to everybody else.
    let renamed = |name: &str| match (old.projects.get(name), new.projects.get(name)) {
        (Some(before), Some(after)) => {
            before.id() != after.id() && before.broken().is_none() && after.broken().is_none()
        }
        _ => false,
    };
    for (name, entry) in &old.projects {
        if !new.projects.contains_key(name) || renamed(name) {
            events.push(Draft::new(EventKind::ProjectRemoved).project(entry.id()));
        }
    }
    for (name, entry) in &new.projects {
        let before = old.projects.get(name);
        if before.is_some_and(|before| std::sync::Arc::ptr_eq(before, entry)) {
            continue;
        }
        events.extend(project_event(before.filter(|_| !renamed(name)), entry));
    }
    events
}

fn project_event(
    before: Option<&std::sync::Arc<ProjectEntry>>,
    entry: &ProjectEntry,
) -> Option<Draft> {
    let draft = |kind| Draft::new(kind).project(entry.id());
    match (before, entry.broken()) {
        (None, None) => Some(draft(EventKind::ProjectAdded)),
        (before, Some(broken)) => {
            let told = before.and_then(|before| before.broken());
            (told.as_ref() != Some(&broken))
                .then(|| draft(EventKind::ProjectBroken).data(json!({"error": broken.error})))
        }
        (Some(before), None) => {
            let repaired = before.broken().is_some();
            let fields = changed_fields(before, entry);
            (repaired || !fields.is_empty()).then(|| {
                let data = json!({"fields": fields, "repaired": repaired});
                draft(EventKind::ProjectChanged).data(data)
            })
        }
    }
}

/// A comment or a new order of keys is no change of the configuration.
fn config_changed(env: &Environment, old: &Snapshot, new: &Snapshot) -> Option<Draft> {
    if std::sync::Arc::ptr_eq(&old.global, &new.global) {
        return None;
    }
    let keys = changed_keys(env, old, &new.global);
    (!keys.is_empty() || old.global.problems != new.global.problems).then(|| {
        let data = json!({"generation": new.generation, "keys": keys});
        Draft::new(EventKind::ConfigChanged).data(data)
    })
}

fn changed_keys(env: &Environment, current: &Snapshot, next: &Global) -> Vec<String> {
    let values = |global: &Global| {
        let context = Context {
            global,
            identity: &current.identity,
            env,
            roster: None,
        };
        resolved_config(context, None).values
    };
    let (old, new) = (values(&current.global), values(next));
    let mut keys: Vec<String> = new
        .iter()
        .filter(|(key, value)| {
            old.get(*key)
                .is_none_or(|before| before.value != value.value)
        })
        .map(|(key, _)| key.clone())
        .chain(old.keys().filter(|key| !new.contains_key(*key)).cloned())
        .collect();
    keys.sort();
    keys
}

/// Names of the fields that differ from the last healthy state.
fn changed_fields(before: &ProjectEntry, after: &ProjectEntry) -> Vec<String> {
    let fields = |entry: &ProjectEntry| -> Map<String, Value> {
        let Some(good) = entry.good() else {
            return Map::new();
        };
        let mut all = match serde_json::to_value(&good.project.config) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        all.insert("gpu".into(), json!(good.project.gpu));
        all.insert("display_name".into(), json!(good.project.display_name));
        all
    };
    let (old, new) = (fields(before), fields(after));
    if old.is_empty() {
        return Vec::new();
    }
    new.iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect()
}
