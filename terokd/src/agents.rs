//! Agents of a project: the configuration stack, presets, instructions and the provider of a run.
//!
//! Puts the pieces of the configuration crate together over a snapshot; owns no state.

use crate::registry::{ProjectEntry, Snapshot};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;
use terok_config::agent::{self, Effective, Guidance, Layers, Surroundings};
use terok_config::env::Environment;
use terok_config::presets::{self, Found, Tiers};
use terok_config::selection;
use terok_image::base;
use terok_proto::Fault;
use terok_proto::project::{AgentProvider, PresetInfo};

/// One project's agents, as of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ProjectAgents<'a> {
    /// The configuration in force.
    pub snapshot: &'a Snapshot,
    /// The project.
    pub entry: &'a ProjectEntry,
    /// The daemon's environment.
    pub env: &'a Environment,
}

impl ProjectAgents<'_> {
    /// Presets that the project can use.
    pub fn list_presets(&self) -> Result<Vec<PresetInfo>, Fault> {
        self.with_tiers(|tiers| Ok(presets::list(tiers, self.env)))
    }

    /// One preset, with its tier.
    pub fn load_preset(&self, name: &str) -> Result<Found, Fault> {
        self.with_tiers(|tiers| presets::load(name, tiers, self.env))
    }

    /// The merged configuration.
    pub fn resolve_config(
        &self,
        preset: Option<&str>,
        cli: Option<&Map<String, Value>>,
    ) -> Result<Effective, Fault> {
        let preset = preset.map(|name| self.load_preset(name)).transpose()?;
        Ok(agent::resolve_config(&Layers {
            global: Some(self.snapshot.global.agent()),
            project: Some(&self.entry.project()?.config.agent_config),
            preset: preset.as_ref(),
            cli,
        }))
    }

    /// The text that an agent gets. Where nobody knows what is `installed`, what the configuration selects counts.
    pub fn resolve_instructions(
        &self,
        provider: &str,
        preset: Option<&str>,
        installed: Option<BTreeSet<String>>,
    ) -> Result<String, Fault> {
        let provider = self.get_provider(Some(provider))?;
        let config = self.resolve_config(preset, None)?.config;
        let project = &self.entry.project()?.config;
        let beside = |file: &Path| file.with_file_name("instructions.md");
        let (global, global_warning) =
            agent::read_guidance(&beside(&self.snapshot.paths.global_config_path));
        let (own, own_warning) =
            agent::read_guidance(&Path::new(&project.root).join("instructions.md"));
        for warning in [global_warning, own_warning].into_iter().flatten() {
            tracing::warn!(project = project.id, "{warning}");
        }
        let guidance = Guidance {
            global,
            project: own,
        };
        let around = Surroundings {
            family: base::family(&project.base_image, project.family).ok(),
            installed: installed.or_else(|| {
                let selected = selection::resolve_text(&project.agents, &self.snapshot.roster);
                Some(selected.ok()?.names.into_iter().collect())
            }),
        };
        Ok(agent::resolve_instructions(
            &config,
            &provider.name,
            &guidance,
            &around,
        ))
    }

    /// The agent that a run would use.
    pub fn get_provider(&self, name: Option<&str>) -> Result<AgentProvider, Fault> {
        let default = self.entry.project()?.config.default_agent.as_deref();
        agent::resolve_provider(name, default, &self.snapshot.roster)
    }

    fn with_tiers<T>(&self, read: impl FnOnce(&Tiers<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let project = Path::new(&self.entry.project()?.config.presets_dir);
        read(&Tiers {
            project,
            user: &self.snapshot.paths.user_presets_dir,
        })
    }
}
