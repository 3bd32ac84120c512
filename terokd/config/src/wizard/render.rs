//! Answers as the text of a `project.yml`.

use super::{BASES, SECURITY_CLASSES, base_image};
use crate::edit::{double_quoted, is_printable};
use crate::{id, yaml};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use terok_proto::error::Result;
use terok_proto::wizard::WizardValues;
use terok_proto::{Fault, Kind};

struct Answers<'a> {
    project_id: &'a str,
    upstream_url: &'a str,
    default_branch: &'a str,
    security_class: &'a str,
    base: &'a str,
    image: &'static str,
    agents: Option<&'a str>,
    snippet: String,
}

/// The project file for these answers. What it says is read back and compared before it is returned.
pub fn render_project_yaml(values: &WizardValues) -> Result<String> {
    let answers = Answers::read(values)?;
    let wanted = answers.as_tree();
    for block in [true, false] {
        let text = answers.render(block);
        if yaml::parse(&text).is_ok_and(|document| document.value == wanted) {
            return Ok(text);
        }
    }
    Err(Fault::invalid_argument(
        "these answers cannot be written as a project file",
    ))
}

impl<'a> Answers<'a> {
    fn read(values: &'a WizardValues) -> Result<Self> {
        let project_id = line(values, "project_id")?;
        let upstream_url = line(values, "upstream_url")?;
        let default_branch = line(values, "default_branch")?;
        let snippet = required(values, "user_snippet")?;
        let security_class = line(values, "security_class")?;
        let base = line(values, "base")?;
        let agents = match values.get("agents") {
            None | Some(Value::Null) => None,
            Some(_) => Some(line(values, "agents")?).filter(|text| !text.is_empty()),
        };
        let Some(image) = base_image(base) else {
            return Err(unknown("base", base, BASES.iter().map(|(name, _)| *name)));
        };
        if !SECURITY_CLASSES
            .iter()
            .any(|(name, _)| *name == security_class)
        {
            return Err(unknown(
                "security_class",
                security_class,
                SECURITY_CLASSES.iter().map(|(name, _)| *name),
            ));
        }
        if !id::is_valid(project_id) {
            let shown: String = project_id.chars().take(80).collect();
            return Err(Fault::new(
                Kind::InvalidProjectId,
                format!("invalid project id `{shown}`: {}", id::RULE),
            )
            .with("project_id", shown));
        }
        let snippet = snippet.replace('\r', "");
        let snippet = snippet.trim_end_matches('\n');
        let snippet = if snippet.is_empty() {
            String::new()
        } else {
            format!("{snippet}\n")
        };
        Ok(Self {
            project_id,
            upstream_url,
            default_branch,
            security_class,
            base,
            image,
            agents,
            snippet,
        })
    }

    /// What the text must read back as.
    fn as_tree(&self) -> Value {
        let mut image = Map::new();
        image.insert("base_image".into(), self.image.into());
        if let Some(agents) = self.agents {
            image.insert("agents".into(), agents.into());
        }
        image.insert("user_snippet_inline".into(), self.snippet.as_str().into());
        let mut tree = Map::new();
        tree.insert(
            "project".into(),
            json!({"id": self.project_id, "security_class": self.security_class}),
        );
        tree.insert(
            "git".into(),
            json!({"upstream_url": self.upstream_url, "default_branch": self.default_branch}),
        );
        tree.insert("image".into(), image.into());
        if self.base == "nvidia" {
            tree.insert("run".into(), json!({"gpus": "all"}));
        }
        if self.is_gatekeeping() {
            let polling = json!({"enabled": true, "interval_minutes": 5});
            tree.insert(
                "gatekeeping".into(),
                json!({"expose_external_remote": true, "upstream_polling": polling}),
            );
        }
        tree.into()
    }

    fn is_gatekeeping(&self) -> bool {
        self.security_class == "gatekeeping"
    }

    fn render(&self, block: bool) -> String {
        let mut out = String::new();
        let push = if self.is_gatekeeping() {
            "agents push to the gate; a human reviews before upstream"
        } else {
            "agents push directly to upstream"
        };
        let label = BASES
            .iter()
            .find(|(name, _)| *name == self.base)
            .map_or(self.base, |(_, label)| *label);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "# Security class: {class} ({push})\n\
             # Base image: {label}\n\
             \n\
             project:\n  id: {id}\n  security_class: {class_quoted}\n\
             \n\
             git:\n  upstream_url: {url}\n  default_branch: {branch}\n\
             \n\
             # Without a gate the container talks to upstream itself: right for a project that needs no host-side\n\
             # mirror. Needs `security_class: online`.\n\
             # gate:\n#   enabled: false\n\
             \n\
             image:\n  base_image: {image}\n",
            class = self.security_class,
            id = double_quoted(self.project_id),
            class_quoted = double_quoted(self.security_class),
            url = double_quoted(self.upstream_url),
            branch = double_quoted(self.default_branch),
            image = double_quoted(self.image),
        );
        match self.agents {
            Some(agents) => {
                let _ = writeln!(out, "  agents: {}", double_quoted(agents));
            }
            None => out.push_str(
                "  # agents: \"all\"   # `terokctl project agents` sets it for this project; `image.agents` in config.yml\n  \
                 # is the default for all of them\n",
            ),
        }
        out.push_str(
            "  # Dockerfile instructions that run as root at the end of the project's image. A longer fragment can\n  \
             # stand in a file of its own: user_snippet_file.\n",
        );
        self.render_snippet(&mut out, block);
        if self.base == "nvidia" {
            out.push_str("\nrun:\n  gpus: all\n");
        }
        if self.is_gatekeeping() {
            out.push_str(
                "\ngatekeeping:\n  expose_external_remote: true\n  upstream_polling:\n    enabled: true\n    \
                 interval_minutes: 5\n",
            );
        }
        out
    }

    /// As a literal block with an explicit indentation; in quotes if a reader could trip over a block.
    fn render_snippet(&self, out: &mut String, block: bool) {
        let printable = self
            .snippet
            .chars()
            .all(|c| matches!(c, '\n' | '\t') || is_printable(c));
        if !block || !printable {
            let _ = writeln!(
                out,
                "  user_snippet_inline: {}",
                double_quoted(&self.snippet)
            );
            return;
        }
        out.push_str("  user_snippet_inline: |2\n");
        if self.snippet.is_empty() {
            out.push_str("    \n");
        }
        for line in self.snippet.lines() {
            if !line.is_empty() {
                out.push_str("    ");
            }
            out.push_str(line);
            out.push('\n');
        }
    }
}

fn required<'a>(values: &'a WizardValues, key: &str) -> Result<&'a str> {
    match values.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => {
            Err(Fault::invalid_argument(format!("`{key}` must be a string")).with("argument", key))
        }
        None => Err(
            Fault::invalid_argument(format!("the answer `{key}` is missing")).with("argument", key),
        ),
    }
}

/// An answer of one line.
fn line<'a>(values: &'a WizardValues, key: &str) -> Result<&'a str> {
    let text = required(values, key)?;
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        return Err(Fault::invalid_argument(format!(
            "`{key}` holds a line break or control character; remove it"
        ))
        .with("argument", key));
    }
    Ok(text)
}

fn unknown<'a>(key: &str, value: &str, known: impl Iterator<Item = &'a str>) -> Fault {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    let shown: String = value.chars().take(80).collect();
    Fault::invalid_argument(format!(
        "unknown {key} `{shown}`; use one of: {}",
        known.join(", ")
    ))
    .with("argument", key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(
        class: &str,
        base: &str,
        id: &str,
        url: &str,
        branch: &str,
        snippet: &str,
    ) -> WizardValues {
        let Value::Object(map) = json!({
            "security_class": class, "base": base, "project_id": id, "upstream_url": url,
            "default_branch": branch, "user_snippet": snippet,
        }) else {
            panic!("mapping")
        };
        map
    }

    fn fault(values: &WizardValues) -> Fault {
        render_project_yaml(values).expect_err("refused")
    }

    #[test]
    fn every_combination_reads_back() {
        for (class, _) in SECURITY_CLASSES {
            for (base, _) in BASES {
                for snippet in [
                    "",
                    "\n",
                    "RUN a",
                    "  RUN a\nRUN b",
                    "\tRUN a",
                    "\n\nRUN a\n\n",
                    "a\r\n  b\r\n",
                    "---\n...",
                    "# c",
                ] {
                    let text = render_project_yaml(&values(class, base, "demo", "", "", snippet))
                        .expect(snippet);
                    assert!(text.contains("user_snippet_inline: |2\n"), "{text}");
                    let read: Value = serde_yaml::from_str(&text).expect("yaml");
                    let inline = read["image"]["user_snippet_inline"]
                        .as_str()
                        .expect("string");
                    assert_eq!(
                        inline.trim_end_matches('\n'),
                        snippet.replace('\r', "").trim_end_matches('\n')
                    );
                    assert_eq!(read["image"]["base_image"], base_image(base).expect("base"));
                }
            }
        }
    }

    #[test]
    fn values_outside_the_vocabulary_are_refused() {
        let good = values("online", "ubuntu", "demo", "u", "b", "");
        for key in [
            "project_id",
            "upstream_url",
            "default_branch",
            "user_snippet",
            "security_class",
            "base",
        ] {
            let mut lacking = good.clone();
            lacking.remove(key);
            let fault = fault(&lacking);
            assert_eq!(fault.kind, Kind::InvalidArgument);
            assert!(fault.message.contains(key), "{fault}");
        }
        assert!(
            fault(&values("offline", "ubuntu", "demo", "", "", ""))
                .message
                .contains("gatekeeping, online")
        );
        assert!(
            fault(&values("online", "debian", "demo", "", "", ""))
                .message
                .contains("fedora, nvidia")
        );
        assert_eq!(
            fault(&values("online", "ubuntu", "Bad Id", "", "", "")).kind,
            Kind::InvalidProjectId
        );
        for hostile in ["a\"\nb: c", "a\u{0}", "a\u{85}b", "a\rb", "\u{1b}[31m"] {
            assert_eq!(
                fault(&values("online", "ubuntu", "demo", hostile, "", "")).kind,
                Kind::InvalidArgument
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(url in any::<String>(), branch in any::<String>(), agents in any::<String>(), snippet in any::<String>()) {
            let clean = |s: &str| -> String { s.chars().filter(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')).collect() };
            let (url, branch, agents) = (clean(&url), clean(&branch), clean(&agents));
            let mut given = values("gatekeeping", "nvidia", "demo", &url, &branch, &snippet);
            given.insert("agents".into(), agents.as_str().into());
            let text = render_project_yaml(&given).expect("renders");
            let read: Value = serde_yaml::from_str(&text).expect("yaml");
            prop_assert_eq!(&read["git"]["upstream_url"], &url);
            prop_assert_eq!(&read["git"]["default_branch"], &branch);
            prop_assert_eq!(read["image"]["agents"].as_str().unwrap_or_default(), agents);
            let inline = read["image"]["user_snippet_inline"].as_str().expect("string");
            let wanted = snippet.replace('\r', "");
            prop_assert_eq!(inline.trim_end_matches('\n'), wanted.trim_end_matches('\n'));
        }
    }
}
