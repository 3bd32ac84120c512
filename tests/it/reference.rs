//! The generated reference pages are those that the programs print; `make reference` rewrites them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use terok_tests::programs::{checkout, terokctl, terokd};

fn printed(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_current(page: &str, printed: &str) {
    let path = checkout().join(page);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(&path, printed).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let first = committed.lines().zip(printed.lines()).find(|(a, b)| a != b);
    assert!(
        committed == printed,
        "{page} is behind; run `make reference`. It has {} lines instead of {}; the first difference: {first:?}",
        committed.lines().count(),
        printed.lines().count()
    );
}

#[test]
fn methods_are_current() {
    let page = printed(&terokd(), &["--reference", "methods"]);
    assert!(page.contains("## `list_projects`"), "{page}");
    is_current("terokd/reference/methods.md", &page);
}

#[test]
fn configuration_is_current() {
    let page = printed(&terokd(), &["--reference", "config"]);
    assert!(page.contains("| `project.security_class` |"), "{page}");
    is_current("terokd/reference/config.md", &page);
}

#[test]
fn commands_are_current() {
    let page = printed(&terokctl(), &["__reference"]);
    assert!(page.contains("`terokctl project list`"), "{page}");
    is_current("terokctl/reference.md", &page);
}
