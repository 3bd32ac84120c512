//! Projects: tables, presets, and a project from a file.

use super::config;
use super::wizard::Answers;
use crate::args::Values;
use crate::failure::{Failure, Result};
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde_json::{Map, Value, json};
use std::io::Read;
use terok_proto::config::{Scope, Severity};
use terok_proto::methods as m;

/// Columns of `project list`.
pub(super) const COLUMNS: &[Column] = &[
    Column::new("ID", "/id"),
    Column::new("CLASS", "/security_class"),
    Column::new("UPSTREAM", "/config/upstream_url"),
    Column::new("AGENTS", "/config/agents"),
    Column::new("NAME", "/display_name"),
];

const DISCOVERED: &[Column] = &[
    Column::new("ID", "/id"),
    Column::new("STATE", "/state"),
    Column::new("CLASS", "/security_class"),
    Column::new("PLACE", "/place"),
    Column::new("PROBLEM", "/problem"),
];

const PRESETS: &[Column] = &[
    Column::new("NAME", "/name"),
    Column::new("SOURCE", "/source"),
    Column::new("PATH", "/path"),
    Column::new("PROBLEM", "/error"),
];

/// Valid and broken projects in one table, by id.
pub(super) fn show_discovered(screen: &mut Screen, value: &Value) -> Result<()> {
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut rows: Vec<Value> = list("projects")
        .into_iter()
        .map(|p| json!({"id": p["id"], "state": "valid", "security_class": p["security_class"], "place": p["root"]}))
        .collect();
    rows.extend(list("broken").into_iter().map(|p| {
        json!({"id": p["id"], "state": "broken", "place": p["config_path"], "problem": p["error"]})
    }));
    rows.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    screen.table(DISCOVERED, &rows)
}

/// A derived project: its id and what the user should look at.
pub(super) fn show_derived(screen: &mut Screen, value: &Value) -> Result<()> {
    for text in texts(&value["warnings"]) {
        screen.warning(text);
    }
    const ROWS: &[Column] = &[
        Column::new("ID", "/id"),
        Column::new("ROOT", "/config/root"),
        Column::new("NOT TAKEN OVER", "/dropped").show(Show::Plain),
    ];
    screen.table(ROWS, std::slice::from_ref(value))
}

/// The strings of a list.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Presets, or one of them.
pub(super) fn presets(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let mut params = values.params();
    match values.text("NAME") {
        Some(name) => {
            params.insert("name".to_owned(), name.into());
            session.call_and_show("project.load_preset", params, &View::Json)
        }
        None => session.call_and_show("project.list_presets", params, &View::Table(PRESETS)),
    }
}

/// Makes a project from a file.
pub(super) fn new(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let Some(from) = values.text("from") else {
        return Err(Failure::Usage(
            "name the file with --from, or use `terokctl project wizard`".to_owned(),
        ));
    };
    let text = read_input(from)?;
    let (id, rendered) = match serde_json::from_str::<Map<String, Value>>(&text) {
        Ok(answers) => from_answers(session, values.text("ID"), &answers)?,
        Err(_) => {
            let id = values
                .text("ID")
                .map(str::to_owned)
                .or_else(|| id_in(&text));
            let id = id.ok_or_else(|| {
                Failure::Usage(
                    "the file names no project: use `terokctl project new ID --from FILE`"
                        .to_owned(),
                )
            })?;
            (id, text)
        }
    };
    let problems = session.ask(&m::ConfigValidate {
        text: rendered.clone(),
        kind: Scope::Project,
    })?;
    let is_bad = problems.iter().any(|p| p.severity == Severity::Error);
    if is_bad && !values.flag("draft") {
        for problem in &problems {
            session.screen.warning(&config::problem_line(problem));
        }
        session.hint("write it nevertheless with --draft");
        return Err(Failure::Told(crate::failure::REFUSED));
    }
    if !values.flag("overwrite") && super::wizard::target(session, &id)?.exists() {
        return Err(Failure::Usage(format!(
            "project `{id}` has a project.yml already; replace it with --overwrite"
        )));
    }
    let params =
        json!({"project_id": id, "rendered": rendered, "overwrite": values.flag("overwrite")});
    let Value::Object(params) = params else {
        return Ok(());
    };
    session.call_and_show("write_project_yaml", params, &View::Text)
}

fn from_answers(
    session: &mut Session,
    id: Option<&str>,
    given: &Map<String, Value>,
) -> Result<(String, String)> {
    let mut given = given.clone();
    if let Some(id) = id {
        given.insert("project_id".to_owned(), id.into());
    }
    let mut answers = Answers::default();
    for question in session.ask(&m::Questions {})? {
        let raw = match given.remove(&question.key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        match answers.judge(session, &question.key, &raw)? {
            None => {}
            Some(error) => return Err(Failure::Usage(error)),
        }
    }
    // What is left over the daemon judges: `agents`, or a name that it does not know.
    for (key, value) in given {
        answers.values.insert(key, value);
    }
    let id = answers.text("project_id").to_owned();
    let rendered = session.ask(&m::RenderProjectYaml {
        values: answers.values,
    })?;
    Ok((id, rendered))
}

/// The value of `id:` below `project:`, where it is written in block or flow style. Anything else has to be named on
/// the command line; the daemon judges the id either way.
fn id_in(text: &str) -> Option<String> {
    let mut inside = false;
    let mut rest = text;
    for line in text.split_inclusive('\n') {
        let here = rest;
        rest = &rest[line.len()..];
        if line.starts_with('{') {
            let project = flow_value(here, "project")?;
            return flow_value(project, "id").and_then(plain);
        }
        if let Some(value) = line.strip_prefix("project:") {
            if value.trim_start().starts_with('{') {
                let flow = here["project:".len()..].trim_start();
                return flow_value(flow, "id").and_then(plain);
            }
            inside = true;
        } else if line.starts_with(|c: char| !c.is_whitespace() && c != '#') {
            inside = false;
        } else if inside && let Some(value) = line.trim_start().strip_prefix("id:") {
            return plain(value.split(" #").next()?);
        }
    }
    None
}

fn plain(value: &str) -> Option<String> {
    let bare = value.trim().trim_matches(['"', '\'']);
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// The text of a key's value in the mapping in braces that a text begins with.
fn flow_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let inside = text.strip_prefix('{')?;
    let (mut depth, mut quote, mut begin) = (0, None, 0);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(open), c) => quote = quote.filter(|_| c != open),
            (None, '"' | '\'') => quote = Some(c),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']' | ',') if depth == 0 => {
                let entry = inside[begin..at].split_once(':');
                if let Some((name, value)) = entry
                    && name.trim().trim_matches(['"', '\'']) == key
                {
                    return Some(value.trim());
                }
                if c != ',' {
                    return None;
                }
                begin = at + 1;
            }
            (None, '}' | ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// The text of a file, or of standard input for `-`.
pub(super) fn read_input(path: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if path == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Usage(format!("cannot read `{path}`: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("`{path}` is not UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_projects_stand_between_the_valid_ones() {
        let value = json!({
            "projects": [{"id": "a", "security_class": "online", "root": "/p/a"}, {"id": "c", "root": "/p/c"}],
            "broken": [{"id": "b", "config_path": "/p/b/project.yml", "error": "line 1: x\nline 2: y"}],
        });
        let mut screen = Screen::memory(false);
        show_discovered(&mut screen, &value).expect("memory");
        assert_eq!(
            screen.text(),
            "a\tvalid\tonline\t/p/a\t\nb\tbroken\t\t/p/b/project.yml\tline 1: x line 2: y\nc\tvalid\t\t/p/c\t\n"
        );
    }

    #[test]
    fn the_id_is_found_where_it_usually_is() {
        for (text, id) in [
            (
                "# c\nproject:\n  # c\n  id: \"orion\"  # c\n",
                Some("orion"),
            ),
            ("git:\n  id: no\nproject:\n  name: x\n  id: a\n", Some("a")),
            ("project:\n  name: x\ngit:\n  id: no\n", None),
            ("git: {id: no}\nproject: {id: a}\n", Some("a")),
            (
                "project: {name: \"x, id: no}\",\n  'id': \"a\"}\n",
                Some("a"),
            ),
            (
                "# c\n{git: {id: no}, project: {x: [1, {id: no}], id: a }}\n",
                Some("a"),
            ),
            ("---\n{project: {name: x}}\n", None),
            ("project: {id: }\n", None),
            ("project: {id: a\n", None),
            ("project: {", None),
            ("{", None),
            ("project:\n  id:\n", None),
        ] {
            assert_eq!(id_in(text).as_deref(), id, "{text}");
        }
    }
}
