//! Configuration: what is in force, what is wrong, what is allowed.

use crate::project;
use crate::rpc::call::Registrar;
use serde_json::{Map, Value};
use terok_config::id::ProjectId;
use terok_config::schema;
use terok_proto::methods as m;

pub(super) fn register(r: &mut Registrar) {
    r.method(|d, p: m::ConfigResolve| async move {
        let id = p.project_id.as_deref().map(ProjectId::parse).transpose()?;
        project::resolved_config(&d.domain, id.as_ref()).await
    });
    r.method(|d, _: m::ConfigProblems| async move { Ok(d.registry.snapshot().problems()) });
    r.method(|d, p: m::ConfigValidate| async move {
        Ok(project::check_text(&d.domain, &p.text, p.kind))
    });
    r.method(|_, p: m::ConfigSchema| async move {
        Ok(match schema::json_schema(p.kind) {
            Value::Object(schema) => schema,
            _ => Map::new(),
        })
    });
}
