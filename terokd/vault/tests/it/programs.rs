//! Other people's programs, and what a test does without one.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where a program is; a test without it says so and passes, unless everything is required.
pub(crate) fn need(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not installed"));
    }
    found
}

/// A Python with the library through which the reference opens its database.
pub(crate) fn need_sqlcipher() -> Option<Python> {
    let python = need("python3")?;
    let tools = std::env::var_os("TEROK_TEST_TOOLS").map(|dir| Path::new(&dir).join("sqlcipher"));
    let python = Python { python, tools };
    if python.output("import sqlcipher3", &[]).status.success() {
        return Some(python);
    }
    skip("the Python package `sqlcipher3` is not installed");
    None
}

fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}", thread.name().unwrap_or("test"));
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(list) = std::env::var_os("TEROKD_SKIPPED_FILE") {
        let list = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list);
        let _ = list.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
    assert!(
        std::env::var_os("TEROKD_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "{line}, and everything is required"
    );
}

pub(crate) struct Python {
    python: PathBuf,
    tools: Option<PathBuf>,
}

impl Python {
    pub(crate) fn command(&self, script: &str, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg("-c").arg(script).args(arguments);
        if let Some(tools) = &self.tools {
            command.env("PYTHONPATH", tools);
        }
        command
    }

    pub(crate) fn output(&self, script: &str, arguments: &[&OsStr]) -> Output {
        self.command(script, arguments).output().unwrap()
    }

    /// Runs a script on a database (`db`), with the passphrase and statements of the reference; answers what it prints.
    pub(crate) fn on(&self, database: &Path, passphrase: &str, script: &str) -> String {
        let output = self
            .on_command(database, passphrase, script)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn on_command(&self, database: &Path, passphrase: &str, script: &str) -> Command {
        const OPEN: &str = r#"
import sys, json, sqlcipher3
db = sqlcipher3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("PRAGMA key = '{}'".format(sys.argv[2].replace("'", "''")))
db.execute("PRAGMA cipher_compatibility = 4")
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA foreign_keys = ON")
"#;
        self.command(
            &format!("{OPEN}{script}"),
            &[database.as_os_str(), OsStr::new(passphrase)],
        )
    }
}
