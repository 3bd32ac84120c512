//! The new-project wizard's questions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// One of `choices`.
    Choice,
    /// A line.
    Text,
    /// Several lines.
    Editor,
    /// Some of `choices`, comma-separated.
    Multichoice,
}

/// One wizard prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Name in the answers object.
    pub key: String,
    /// Shape of the answer.
    pub kind: QuestionKind,
    /// One-line label.
    #[serde(default)]
    pub prompt: String,
    /// Longer explanation.
    #[serde(default)]
    pub help: String,
    /// `[value, label]` pairs.
    #[serde(default)]
    pub choices: Vec<(String, String)>,
    /// Empty answers are refused.
    #[serde(default)]
    pub required: bool,
    /// Hint inside the input.
    #[serde(default)]
    pub placeholder: String,
    /// A command line marks the prompt as optional.
    #[serde(default)]
    pub default_visible: bool,
    /// The daemon normalises answers before checking them.
    #[serde(default)]
    pub has_transform: bool,
    /// The daemon checks answers beyond `required` and `choices`.
    #[serde(default)]
    pub has_validator: bool,
    /// Choices that this host cannot use, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<(String, String)>,
}

/// A question by its key, or spelled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum QuestionRef {
    /// One of the daemon's questions.
    Key(String),
    /// Any question.
    Question(Box<Question>),
}

/// A judged answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValidatedAnswer {
    /// The answer as it would be stored.
    pub value: String,
    /// Why it was refused.
    pub error: Option<String>,
    /// What is doubtful about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answers that make a project.
pub type WizardValues = serde_json::Map<String, Value>;
