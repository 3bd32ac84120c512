//! `project generate` and `project build`, and how every command that builds tells what came of it.

use super::image::short_id;
use super::project::texts;
use crate::args::Values;
use crate::failure::Result;
use crate::operation;
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde_json::{Map, Value};

/// The method that builds.
pub(super) const BUILD: &str = "project.build_images";
/// The method that renders what is built.
pub(super) const GENERATE: &str = "project.generate_dockerfiles";

const IMAGES: &[Column] = &[
    Column::new("LAYER", "/layer"),
    Column::new("TAG", "/tag"),
    Column::new("IMAGE", "/image_id").show(Show::With(short_id)),
    Column::new("RESULT", "/cached").show(Show::With(outcome)),
];

fn outcome(cached: &Value) -> String {
    match cached.as_bool() {
        Some(true) => "cached".to_owned(),
        Some(false) => "built".to_owned(),
        None => String::new(),
    }
}

/// Builds and tells what was built.
pub(super) fn run(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let params = values.params();
    if session.options.no_wait {
        return session.call_and_show(BUILD, params, &View::Nothing);
    }
    let answer = build(session, params)?;
    tell(session, values.required("ID"), &answer)
}

/// Builds; its log goes to standard error meanwhile.
pub(super) fn build(session: &mut Session, params: Map<String, Value>) -> Result<String> {
    operation::run(session, BUILD, &Value::Object(params).to_string())
}

/// Tells what was built, what the user should know, and what is still old.
pub(super) fn tell(session: &mut Session, id: &str, answer: &str) -> Result<()> {
    session.show(answer, &View::Custom(show_built))?;
    if session.is_wire() {
        return Ok(());
    }
    // The table stands above what is said about it.
    session.screen.finish()?;
    let result: Value = session.read(BUILD, answer)?;
    for warning in texts(&result["warnings"]) {
        session.screen.warning(warning);
    }
    let stale: Vec<&str> = texts(&result["still_stale"]).collect();
    if !stale.is_empty() {
        let stale = stale.join(", ");
        session.screen.warning(&format!("still stale: {stale}"));
        session.hint(&format!(
            "rebuild them with `terokctl project build {id} --rebuild-stale`"
        ));
    }
    Ok(())
}

/// The layers that a build touched.
fn show_built(screen: &mut Screen, value: &Value) -> Result<()> {
    let images = value["images"].as_array().map_or(&[][..], Vec::as_slice);
    screen.table(IMAGES, images)
}

/// The files that were rendered, one per line.
pub(super) fn show_generated(screen: &mut Screen, value: &Value) -> Result<()> {
    texts(&value["paths"]).try_for_each(|path| screen.line(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_build_ends_with_a_table_of_its_layers() {
        let id = format!("sha256:{}", "0123456789ab".repeat(5));
        let value = json!({
            "images": [
                {"layer": "l0", "tag": "localhost/terok-l0:fedora-44", "image_id": id, "cached": true},
                {"layer": "l2-cli", "tag": "localhost/a\u{1b}:l2-cli", "image_id": id, "cached": false},
            ],
            "still_stale": [], "warnings": [],
        });
        let mut screen = Screen::memory(true);
        show_built(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        LAYER   TAG                           IMAGE         RESULT
        l0      localhost/terok-l0:fedora-44  0123456789ab  cached
        l2-cli  localhost/a\x1b:l2-cli        0123456789ab  built
        ");
    }

    #[test]
    fn rendered_files_are_listed() {
        let mut screen = Screen::memory(false);
        show_generated(
            &mut screen,
            &json!({"paths": ["/b/L0.Dockerfile", "/b/L1\n.cli"]}),
        )
        .expect("memory");
        assert_eq!(screen.text(), "/b/L0.Dockerfile\n/b/L1 .cli\n");
    }
}
