//! `project init`: key, Dockerfiles, images and gate, one after the other.

use super::{build, gate, ssh};
use crate::args::Values;
use crate::failure::{Failure, REFUSED, Result};
use crate::render::View;
use crate::session::Session;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use terok_proto::gate::GateSyncResult;
use terok_proto::{Kind, methods as m};

/// What becomes of a project, step by step.
struct Progress<'a> {
    session: &'a mut Session,
    id: String,
    /// Steps and their results as the wire has them.
    done: Vec<(&'static str, Box<RawValue>)>,
    /// Steps that were left out, and why.
    skipped: Vec<(&'static str, &'static str)>,
    /// Steps that could not be done.
    failed: Vec<(&'static str, Value)>,
}

/// Runs all steps, or all but the images.
pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    make_ready(session, values.required("ID"), values.flag("skip-images"))
}

/// Runs all steps; images that cannot be made do not keep the gate from being brought up.
pub(super) fn make_ready(session: &mut Session, id: &str, skip_images: bool) -> Result<()> {
    let mut progress = Progress {
        session,
        id: id.to_owned(),
        done: Vec::new(),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    progress.key()?;
    if skip_images {
        progress.skip("generate", "--skip-images was given");
        progress.skip("build", "--skip-images was given");
    } else {
        progress.images()?;
    }
    let outcome = progress.gate();
    progress.end(outcome)
}

impl Progress<'_> {
    fn is_wire(&self) -> bool {
        self.session.is_wire()
    }

    fn heading(&self, step: &str) {
        if !self.is_wire() {
            self.session.note(&format!("== {step}"));
        }
    }

    fn skip(&mut self, step: &'static str, why: &'static str) {
        if !self.is_wire() {
            self.session.note(&format!("== {step}: skipped, {why}"));
        }
        self.skipped.push((step, why));
    }

    fn keep(&mut self, step: &'static str, answer: String) -> Result<()> {
        let raw = RawValue::from_string(answer)
            .map_err(|error| Failure::Internal(format!("the answer cannot be read: {error}")))?;
        self.done.push((step, raw));
        Ok(())
    }

    /// The SSH key, if upstream needs one.
    fn key(&mut self) -> Result<()> {
        const STEP: &str = "ssh-init";
        let needed = self.session.ask(&m::ProjectNeedsSshKeyRegistration {
            project_id: self.id.clone(),
        })?;
        if !needed {
            self.skip(STEP, "upstream needs no SSH key");
            return Ok(());
        }
        self.heading(STEP);
        let (answer, key) = ssh::provision(self.session, &self.id)?;
        if !self.is_wire() {
            self.session.show(&answer, &View::Custom(ssh::show_key))?;
        }
        ssh::register(self.session, &self.id, &key)?;
        self.keep(STEP, answer)
    }

    /// Dockerfiles and images.
    fn images(&mut self) -> Result<()> {
        const GENERATE: &str = "generate";
        const BUILD: &str = "build";
        let params = json!({ "project_id": self.id });
        self.heading(GENERATE);
        let rendered = self.session.call(build::GENERATE, &params.to_string());
        let Some(answer) = self.unless_refused(GENERATE, rendered)? else {
            self.skip(BUILD, "there are no Dockerfiles");
            return Ok(());
        };
        if !self.is_wire() {
            self.session
                .show(&answer, &View::Custom(build::show_generated))?;
            self.session.screen.finish()?;
        }
        self.keep(GENERATE, answer)?;
        self.heading(BUILD);
        let params = params.as_object().cloned().unwrap_or_default();
        let built = build::build(self.session, params);
        if let Some(answer) = self.unless_refused(BUILD, built)? {
            if !self.is_wire() {
                build::tell(self.session, &self.id, &answer)?;
            }
            self.keep(BUILD, answer)?;
        }
        Ok(())
    }

    /// The answer of a step that the others do not need; a refusal is told and noted.
    fn unless_refused(
        &mut self,
        step: &'static str,
        outcome: Result<String>,
    ) -> Result<Option<String>> {
        match outcome {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.exit_code() == REFUSED && !failure.is(Kind::Cancelled) => {
                if !self.is_wire() {
                    self.session.complain(&failure);
                }
                let error = failure.to_json().unwrap_or_default();
                self.failed
                    .push((step, serde_json::from_str(&error).unwrap_or_default()));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The gate, unless the project has none.
    fn gate(&mut self) -> Result<()> {
        const STEP: &str = "gate sync";
        self.heading(STEP);
        let params = json!({ "project_id": self.id }).to_string();
        let answer = match gate::run_sync(self.session, &self.id, &params) {
            Err(failure) if failure.is(Kind::GateDisabled) => {
                self.skip(STEP, "the project's gate is disabled");
                return Ok(());
            }
            outcome => outcome?,
        };
        let result: GateSyncResult = self.session.read("project.gate.sync", &answer)?;
        self.keep(STEP, answer)?;
        gate::tell_sync(self.session, &self.id, &result)
    }

    /// The wire results of all steps, and what they amount to.
    fn end(self, outcome: Result<()>) -> Result<()> {
        let told = matches!(outcome, Ok(()) | Err(Failure::Told(_)));
        if self.session.is_wire() && told {
            let done: serde_json::Map<String, Value> = self
                .done
                .iter()
                .map(|(step, raw)| {
                    let value = serde_json::from_str(raw.get()).unwrap_or_default();
                    ((*step).to_owned(), value)
                })
                .collect();
            let list = |rows: Vec<(&str, Value)>, why: &str| -> Vec<Value> {
                rows.into_iter()
                    .map(|(step, what)| json!({"step": step, why: what}))
                    .collect()
            };
            let skipped = self.skipped.into_iter().map(|(s, why)| (s, json!(why)));
            let all = json!({
                "done": done,
                "skipped": list(skipped.collect(), "reason"),
                "failed": list(self.failed.clone(), "error"),
            });
            self.session.show(&all.to_string(), &View::Nothing)?;
        }
        outcome?;
        if self.failed.is_empty() {
            return Ok(());
        }
        if !self.session.is_wire() {
            let steps: Vec<&str> = self.failed.iter().map(|(step, _)| *step).collect();
            self.session.screen.error(&format!(
                "not done: {}; everything else is",
                steps.join(", ")
            ));
            let id = &self.id;
            self.session
                .hint(&format!("try these again with `terokctl project build {id}`, or leave them out with --skip-images"));
        }
        Err(Failure::Told(REFUSED))
    }
}
