//! `project wizard`: asks the daemon's questions one by one (projects.md §7.9).
//!
//! Questions, judgement and text are the daemon's; here is only the conversation.

use super::{agents, init};
use crate::args::Values;
use crate::dialog::{Dialog, is_yes};
use crate::failure::{Failure, Result};
use crate::render::View;
use crate::session::Session;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use terok_proto::config::{Origin, Scope};
use terok_proto::methods as m;
use terok_proto::wizard::{Question, QuestionKind, QuestionRef, WizardValues};

/// What the editor shows above an empty snippet.
const PREAMBLE: &str = "\
# Lines for the project's image: a Dockerfile fragment, such as RUN apt-get install -y jq
# Save an empty file for none. These two lines are removed.
";

/// Answers that the daemon has accepted.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) values: WizardValues,
}

/// How a conversation went on.
enum Step {
    Answered,
    Cancelled,
}

impl Answers {
    /// Has an answer judged; keeps it, or tells why not.
    pub(super) fn judge(
        &mut self,
        session: &mut Session,
        key: &str,
        raw: &str,
    ) -> Result<Option<String>> {
        let judged = session.ask(&m::ValidateAnswer {
            question: QuestionRef::Key(key.to_owned()),
            raw: raw.to_owned(),
        })?;
        if judged.error.is_some() {
            return Ok(judged.error);
        }
        if let Some(warning) = judged.warning.filter(|_| !session.options.quiet) {
            session.screen.warning(&warning);
        }
        if judged.value != raw.trim() {
            session.note(&format!("stored as `{}`", judged.value));
        }
        self.values.insert(key.to_owned(), judged.value.into());
        Ok(None)
    }

    /// An accepted answer.
    pub(super) fn text(&self, key: &str) -> &str {
        self.values
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

pub(super) fn run(session: &mut Session, _: &Values<'_>) -> Result<()> {
    let mut dialog = Dialog::new(session.interrupts.clone());
    let mut answers = Answers::default();
    for question in session.ask(&m::Questions {})? {
        if let Step::Cancelled = ask(session, &mut dialog, &question, &mut answers)? {
            return cancelled(&dialog);
        }
    }
    if let Step::Cancelled = ask_agents(session, &mut dialog, &mut answers)? {
        return cancelled(&dialog);
    }
    let id = answers.text("project_id").to_owned();
    let rendered = session.ask(&m::RenderProjectYaml {
        values: answers.values.clone(),
    })?;
    dialog.say(&format!("\n{}", rendered.trim_end()));
    dialog.say("");
    let path = target(session, &id)?;
    let overwrite = path.exists();
    if overwrite && !dialog.confirm(&format!("`{}` exists. Overwrite it?", path.display()))? {
        return cancelled(&dialog);
    }
    let params =
        serde_json::json!({"project_id": id, "rendered": rendered, "overwrite": overwrite});
    let written = session.call("write_project_yaml", &params.to_string())?;
    session.show(&written, &View::Text)?;
    session.screen.finish()?;
    let path: String = session.read("write_project_yaml", &written)?;
    // From here on the file stays, whatever happens.
    let selected = answers.text("agents");
    let wanted = match after(session, &mut dialog, Path::new(&path), selected) {
        Ok(()) => initialise(session, &mut dialog, &id),
        Err(failure) => Err(failure),
    };
    match wanted {
        Ok(true) => return init::make_ready(session, &id, false),
        Ok(false) | Err(Failure::Interrupted) => {}
        Err(failure) => return Err(failure),
    }
    session.hint(&format!("make it ready with `terokctl project init {id}`"));
    Ok(())
}

/// Whether the project shall be made ready now. Nobody is asked whose answers a program reads.
fn initialise(session: &Session, dialog: &mut Dialog, id: &str) -> Result<bool> {
    let question = format!("Make `{id}` ready now: SSH key, images, gate?");
    Ok(!session.is_wire() && dialog.confirm(&question)?)
}

fn cancelled(dialog: &Dialog) -> Result<()> {
    dialog.say("Cancelled; nothing was written.");
    Ok(())
}

/// Where the daemon would write the project's file.
pub(super) fn target(session: &mut Session, id: &str) -> Result<PathBuf> {
    let paths = session.ask(&m::DaemonGetPaths {})?;
    let dir = paths
        .paths
        .get("user_projects_dir")
        .and_then(Value::as_str)
        .ok_or_else(|| {
            Failure::Internal("the daemon names no directory for projects".to_owned())
        })?;
    Ok(Path::new(dir).join(id).join("project.yml"))
}

fn ask(
    session: &mut Session,
    dialog: &mut Dialog,
    question: &Question,
    answers: &mut Answers,
) -> Result<Step> {
    loop {
        let raw = match question.kind {
            QuestionKind::Choice => menu(dialog, question)?,
            QuestionKind::Text | QuestionKind::Multichoice => line(dialog, question)?,
            QuestionKind::Editor => snippet(session, dialog, question)?,
        };
        let Some(raw) = raw else {
            return Ok(Step::Cancelled);
        };
        match answers.judge(session, &question.key, &raw)? {
            None => return Ok(Step::Answered),
            Some(error) => dialog.say(&error),
        }
    }
}

/// A numbered menu; anything but one of its numbers cancels.
fn menu(dialog: &mut Dialog, question: &Question) -> Result<Option<String>> {
    dialog.say(&format!("{}:", question.prompt));
    for (number, (value, label)) in question.choices.iter().enumerate() {
        let reason = question
            .unavailable
            .iter()
            .find(|(unavailable, _)| unavailable == value)
            .map(|(_, reason)| format!(" (not available here: {reason})"))
            .unwrap_or_default();
        dialog.say(&format!("  {}) {label}{reason}", number + 1));
    }
    let answer = dialog.ask(&format!("[1-{}]: ", question.choices.len()))?;
    Ok(answer.and_then(|text| chosen(&text, &question.choices)))
}

fn chosen(text: &str, choices: &[(String, String)]) -> Option<String> {
    let number: usize = text.trim().parse().ok()?;
    choices
        .get(number.checked_sub(1)?)
        .map(|(value, _)| value.clone())
}

fn line(dialog: &mut Dialog, question: &Question) -> Result<Option<String>> {
    if !question.help.is_empty() {
        dialog.say(&question.help);
    }
    dialog.ask(&prompt(question))
}

fn prompt(question: &Question) -> String {
    let optional = if question.default_visible {
        " (optional)"
    } else {
        ""
    };
    let example = if question.placeholder.is_empty() {
        String::new()
    } else {
        format!(" [{}]", question.placeholder)
    };
    format!("{}{optional}{example}: ", question.prompt)
}

fn snippet(
    session: &mut Session,
    dialog: &mut Dialog,
    question: &Question,
) -> Result<Option<String>> {
    if !question.help.is_empty() {
        dialog.say(&question.help);
    }
    let Some(answer) = dialog.ask("Add a snippet? [y/N] ")? else {
        return Ok(None);
    };
    if !is_yes(&answer) {
        return Ok(Some(String::new()));
    }
    let failed =
        |error: std::io::Error| Failure::Internal(format!("cannot make a file to edit: {error}"));
    let mut file = tempfile::Builder::new()
        .prefix("terok-")
        .suffix(".dockerfile")
        .tempfile()
        .map_err(failed)?;
    file.write_all(PREAMBLE.as_bytes()).map_err(failed)?;
    if let Err(failure) = dialog.edit(&session.env, file.path()) {
        dialog.say(&failure.to_human(session.screen.error_style(), session.options.quiet));
        return Ok(Some(String::new()));
    }
    // By name: editors replace the file.
    let text = std::fs::read(file.path()).map_err(failed)?;
    Ok(Some(without_preamble(&String::from_utf8_lossy(&text))))
}

/// The snippet alone: the preamble goes if nobody touched it, and so do blanks at the end.
fn without_preamble(text: &str) -> String {
    text.strip_prefix(PREAMBLE)
        .unwrap_or(text)
        .trim_end()
        .to_owned()
}

fn ask_agents(session: &mut Session, dialog: &mut Dialog, answers: &mut Answers) -> Result<Step> {
    let Some(wanted) = dialog.ask("Override the default agents? [y/N] ")? else {
        return Ok(Step::Cancelled);
    };
    if !is_yes(&wanted) {
        return Ok(Step::Answered);
    }
    let question = session.ask(&m::AgentsQuestion {})?;
    agents::offer(dialog, &question);
    loop {
        let Some(raw) = agents::ask(dialog)? else {
            return Ok(Step::Cancelled);
        };
        match answers.judge(session, &question.key, &raw)? {
            None => return Ok(Step::Answered),
            Some(error) => dialog.say(&error),
        }
    }
}

/// What is offered once the file is written.
fn after(session: &mut Session, dialog: &mut Dialog, path: &Path, agents: &str) -> Result<()> {
    if dialog.confirm(&format!("Edit `{}` now?", path.display()))? {
        match dialog.edit(&session.env, path) {
            Ok(()) => check(session, path)?,
            Err(failure) => {
                dialog.say(&failure.to_human(session.screen.error_style(), session.options.quiet));
            }
        }
    }
    if agents.is_empty() {
        let resolved = session.ask(&m::ConfigResolve { project_id: None })?;
        let is_default = resolved
            .values
            .get("image.agents")
            .is_some_and(|value| value.origin == Origin::Default);
        if is_default {
            session.hint(
                "no agents are chosen, so images get all of them; set `image.agents` in the global config.yml to change that everywhere",
            );
        }
    }
    Ok(())
}

/// Tells what is wrong with the file after it was edited.
fn check(session: &mut Session, path: &Path) -> Result<()> {
    let text = std::fs::read(path)
        .map_err(|e| Failure::Usage(format!("cannot read `{}`: {e}", path.display())))?;
    let problems = session.ask(&m::ConfigValidate {
        text: String::from_utf8_lossy(&text).into_owned(),
        kind: Scope::Project,
    })?;
    for problem in &problems {
        session
            .screen
            .warning(&super::config::problem_line(problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn menus_take_their_numbers_only() {
        let choices = [("a", "A"), ("b", "B")].map(|(v, l)| (v.to_owned(), l.to_owned()));
        assert_eq!(chosen(" 2 ", &choices).as_deref(), Some("b"));
        for bad in ["0", "3", "a", "", "-1", "99999999999999999999"] {
            assert_eq!(chosen(bad, &choices), None, "{bad}");
        }
    }

    #[test]
    fn exactly_the_preamble_goes() {
        assert_eq!(without_preamble(PREAMBLE), "");
        assert_eq!(
            without_preamble(&format!("{PREAMBLE}# keep\n  RUN x\n\n \n")),
            "# keep\n  RUN x"
        );
        let touched = PREAMBLE.replacen('#', "##", 1);
        assert_eq!(without_preamble(&touched), touched.trim_end());
    }
}
