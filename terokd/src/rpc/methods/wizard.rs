//! The new-project wizard, agents, and texts that are rendered for humans.

use crate::project;
use crate::rpc::call::Registrar;
use terok_config::{selection, wizard};
use terok_proto::methods as m;

/// Where the container runtimes look for descriptions of GPUs.
const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

pub(super) fn register(r: &mut Registrar) {
    r.method(|_, _: m::Questions| async {
        Ok(wizard::questions(
            wizard::gpu_unavailable(&CDI_DIRS).as_deref(),
        ))
    });
    r.method(|d, _: m::AgentsQuestion| async move {
        Ok(wizard::agents_question(&d.registry.snapshot().roster))
    });
    r.method(|d, p: m::ValidateAnswer| async move {
        wizard::validate_answer(&p.question, &p.raw, &d.registry.snapshot().roster)
    });
    r.method(|_, p: m::RenderProjectYaml| async move { wizard::render_project_yaml(&p.values) });
    r.method(|_, p: m::FormatPanicReport| async move { Ok(crate::panic::report(&p.result)) });
    r.method(|_, p: m::SummarizeSshInit| async move { Ok(project::ssh_summary(&p.result)) });
    r.method(|d, _: m::AgentsList| async move { Ok(d.registry.snapshot().roster.list()) });
    r.method(|d, p: m::AgentsParseSelection| async move {
        Ok(selection::resolve_text(&p.selection, &d.registry.snapshot().roster)?.names)
    });
}
