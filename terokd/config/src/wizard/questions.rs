//! The questions, and how their answers are judged.

use super::{BASES, SECURITY_CLASSES, slugify, upstream_warning};
use crate::id;
use crate::roster::Roster;
use crate::selection::{self, is_blank};
use std::path::Path;
use terok_proto::Fault;
use terok_proto::error::{Result, printable_line};
use terok_proto::wizard::{Question, QuestionKind, QuestionRef, ValidatedAnswer};

/// The wizard's questions in order. `gpu_unavailable` says why this host cannot use GPUs, if it cannot.
pub fn questions(gpu_unavailable: Option<&str>) -> Vec<Question> {
    let unavailable = gpu_unavailable.map(|why| ("nvidia".to_owned(), why.to_owned()));
    vec![
        Question {
            required: true,
            choices: pairs(&SECURITY_CLASSES),
            ..question(
                "security_class",
                QuestionKind::Choice,
                "Select security mode",
            )
        },
        Question {
            required: true,
            choices: pairs(&BASES),
            unavailable: unavailable.into_iter().collect(),
            ..question("base", QuestionKind::Choice, "Select base image")
        },
        Question {
            required: true,
            placeholder: "lowercase; letters, digits, hyphens, underscores".to_owned(),
            has_transform: true,
            has_validator: true,
            ..question("project_id", QuestionKind::Text, "Project ID")
        },
        Question {
            help: "Leave empty for a project without a remote.".to_owned(),
            placeholder: "git@github.com:org/repo.git or https://…".to_owned(),
            default_visible: true,
            ..question("upstream_url", QuestionKind::Text, "Upstream git URL")
        },
        Question {
            help: "Leave empty for the remote's default branch, or `main` without a remote."
                .to_owned(),
            placeholder: "main".to_owned(),
            default_visible: true,
            ..question("default_branch", QuestionKind::Text, "Default branch")
        },
        Question {
            help: "Optional Dockerfile instructions that run while the project's image is built."
                .to_owned(),
            default_visible: true,
            ..question("user_snippet", QuestionKind::Editor, "Custom image snippet")
        },
    ]
}

/// The question about agents, asked only on demand. Tools can be selected by name but are not offered.
pub fn agents_question(roster: &Roster) -> Question {
    let choices = roster
        .entries()
        .filter(|entry| entry.is_agent())
        .filter_map(|entry| Some((entry.name.clone(), entry.definition.as_ref()?.label.clone())));
    Question {
        help: "Overrides the global default for this project. \"all\" also takes in agents added later; a list \
               stays as it is."
            .to_owned(),
        choices: choices.collect(),
        required: true,
        has_validator: true,
        ..question("agents", QuestionKind::Multichoice, "Select agents to install")
    }
}

/// Why GPUs cannot be used: no directory of the list describes an NVIDIA device for containers.
pub fn gpu_unavailable<P: AsRef<Path>>(cdi_dirs: &[P]) -> Option<String> {
    let described = cdi_dirs
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir.as_ref()).ok())
        .flat_map(|entries| entries.take(1000).flatten())
        .any(|entry| {
            let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
            let description = [".yaml", ".yml", ".json"]
                .iter()
                .any(|ext| name.ends_with(ext));
            description && name.contains("nvidia") && entry.path().is_file()
        });
    (!described).then(|| {
        "no CDI description of an NVIDIA GPU on this host; `nvidia-ctk cdi generate` makes one"
            .to_owned()
    })
}

/// Normalises an answer and says what is wrong with it. Fails only for an unknown key.
pub fn validate_answer(
    question: &QuestionRef,
    raw: &str,
    roster: &Roster,
) -> Result<ValidatedAnswer> {
    let own = |key: &str| {
        if key == "agents" {
            return Some(agents_question(roster));
        }
        questions(None).into_iter().find(|q| q.key == key)
    };
    let question = match question {
        QuestionRef::Key(key) => own(key).ok_or_else(|| unknown_key(key))?,
        QuestionRef::Question(given) => match own(&given.key) {
            Some(ours) => ours,
            None => return Ok(judge(given, raw.trim_matches(is_blank).to_owned())),
        },
    };
    let value = raw.trim_matches(is_blank);
    let value = if question.key == "project_id" {
        slugify(value)
    } else {
        value.to_owned()
    };
    let mut answer = judge(&question, value);
    if answer.error.is_none() {
        check(&question.key, &mut answer, roster);
    }
    Ok(answer)
}

fn question(key: &str, kind: QuestionKind, prompt: &str) -> Question {
    Question {
        key: key.to_owned(),
        kind,
        prompt: prompt.to_owned(),
        help: String::new(),
        choices: Vec::new(),
        required: false,
        placeholder: String::new(),
        default_visible: false,
        has_transform: false,
        has_validator: false,
        unavailable: Vec::new(),
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(value, label)| ((*value).to_owned(), (*label).to_owned()))
        .collect()
}

/// What kind, `required` and `choices` alone say.
fn judge(question: &Question, value: String) -> ValidatedAnswer {
    let error = if value.is_empty() {
        question
            .required
            .then(|| format!("{} is required.", question.prompt))
    } else if question.kind == QuestionKind::Choice
        && !question.choices.iter().any(|(v, _)| *v == value)
    {
        let mut values: Vec<&str> = question.choices.iter().map(|(v, _)| v.as_str()).collect();
        values.sort_unstable();
        Some(format!(
            "{} must be one of: {}",
            question.prompt,
            values.join(", ")
        ))
    } else {
        None
    };
    ValidatedAnswer {
        value,
        error: error.map(|text| printable_line(&text)),
        warning: None,
    }
}

/// What the daemon's own questions check beyond that.
fn check(key: &str, answer: &mut ValidatedAnswer, roster: &Roster) {
    match key {
        "project_id" => {
            answer.error = if id::is_valid(&answer.value) {
                id::new_id_problem(&answer.value)
                    .map(|why| format!("this id cannot be used for a new project: {why}"))
            } else {
                Some(format!("this is no project id: {}", id::RULE))
            };
        }
        "upstream_url" => answer.warning = upstream_warning(&answer.value),
        "agents" => match selection::resolve_text(&answer.value, roster) {
            Ok(resolved) if resolved.warnings.is_empty() => {}
            Ok(resolved) => answer.warning = Some(resolved.warnings.join("; ")),
            Err(fault) => answer.error = Some(fault.message),
        },
        _ => {}
    }
}

fn unknown_key(key: &str) -> Fault {
    let mut known: Vec<String> = questions(None).into_iter().map(|q| q.key).collect();
    known.push("agents".to_owned());
    let shown: String = key.chars().take(80).collect();
    Fault::invalid_argument(format!(
        "unknown question `{shown}`; use one of: {}",
        known.join(", ")
    ))
    .with("argument", "question")
}

#[cfg(test)]
mod tests {
    use super::*;
    use terok_proto::Kind;

    fn answer(key: &str, raw: &str) -> ValidatedAnswer {
        validate_answer(&QuestionRef::Key(key.to_owned()), raw, &Roster::bundled()).expect(key)
    }

    #[test]
    fn new_ids_must_be_legal_image_names() {
        for raw in ["a_-b", "a___b", "terok-l0x", &"x".repeat(65)] {
            let got = answer("project_id", raw);
            assert_eq!((got.value.as_str(), got.error.is_some()), (raw, true));
        }
        assert_eq!(answer("project_id", "My Project").error, None);
    }

    #[test]
    fn doubtful_answers_are_warned_about() {
        let got = answer("upstream_url", "not a url");
        assert!(got.error.is_none() && got.warning.is_some());
        assert!(answer("agents", "claude,-claude").warning.is_some());
        assert_eq!(answer("agents", "claude").warning, None);
    }

    #[test]
    fn foreign_questions_are_judged_by_themselves() {
        let own = Question {
            required: true,
            choices: pairs(&[("b", "B"), ("a", "A")]),
            ..question("colour", QuestionKind::Choice, "Colour")
        };
        let ask = |question: &Question, raw: &str| {
            let question = QuestionRef::Question(Box::new(question.clone()));
            validate_answer(&question, raw, &Roster::bundled()).expect("judged")
        };
        assert_eq!(ask(&own, " a ").error, None);
        assert_eq!(
            ask(&own, "c").error.as_deref(),
            Some("Colour must be one of: a, b")
        );
        assert_eq!(ask(&own, " ").error.as_deref(), Some("Colour is required."));
        let disguised = Question {
            required: false,
            ..question("project_id", QuestionKind::Text, "x")
        };
        assert_eq!(ask(&disguised, "My App").value, "my-app");
    }

    #[test]
    fn an_unknown_key_is_an_argument_error() {
        let fault = validate_answer(&QuestionRef::Key("nope".into()), "", &Roster::bundled())
            .expect_err("key");
        assert_eq!(fault.kind, Kind::InvalidArgument);
    }

    #[test]
    fn gpus_need_a_description() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(gpu_unavailable(&[dir.path()]).is_some());
        std::fs::write(dir.path().join("nvidia.yaml"), "cdiVersion: 0.6.0\n").expect("write");
        assert_eq!(gpu_unavailable(&[dir.path()]), None);
        assert_eq!(questions(Some("none"))[1].unavailable[0].0, "nvidia");
    }
}
