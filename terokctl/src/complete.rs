//! Dynamic completion: the shells' scripts ask `terokctl __complete INDEX WORD…` what could stand at INDEX.
//!
//! One candidate per line, with its description after a tab; `:files` and `:dirs` leave it to the shell. Ids come from a
//! running daemon within a moment, or not at all: completion never starts anything.

use crate::args::{Arg, Command, GLOBALS, Hint, Shape};
use crate::commands::COMMANDS;
use crate::connect::Connection;
use crate::env::Env;
use crate::interrupt::Interrupts;
use crate::render::to_stdout;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use terok_proto::error::printable_line;
use terok_proto::events::EventKind;
use terok_proto::methods;

/// The hidden command.
pub(crate) const COMMAND: &str = "__complete";
/// What a human waits for after pressing a key.
const PATIENCE: Duration = Duration::from_millis(300);

/// The script for a shell.
pub(crate) fn script(shell: &str) -> &'static str {
    match shell {
        "zsh" => include_str!("completions/terokctl.zsh"),
        "fish" => include_str!("completions/terokctl.fish"),
        _ => include_str!("completions/terokctl.bash"),
    }
}

/// Answers a shell. Whatever goes wrong, there are just no candidates.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let Some((index, words)) = words.split_first() else {
        return ExitCode::SUCCESS;
    };
    let index = index.parse().unwrap_or(words.len());
    let env = Env::from_process();
    let mut source = Daemon::new(env);
    to_stdout(&complete(words, index, &mut source));
    ExitCode::SUCCESS
}

/// Where candidates come from that only the daemon knows.
trait Source {
    /// The socket that the command line names.
    fn socket(&mut self, path: &str);
    /// The result of a call, if there is one in time.
    fn call(&mut self, method: &str, params: Value) -> Option<Value>;
}

/// What the words so far amount to.
struct Place {
    command: Option<&'static Command>,
    commands: &'static [Command],
    /// Values of positional arguments so far.
    positional: Vec<String>,
    /// The option whose value comes next.
    pending: Option<&'static Arg>,
    only_positional: bool,
}

fn complete(words: &[String], index: usize, source: &mut dyn Source) -> String {
    let current = words.get(index).map_or("", String::as_str);
    let mut place = Place {
        command: None,
        commands: COMMANDS,
        positional: Vec::new(),
        pending: None,
        only_positional: false,
    };
    for word in words.iter().take(index).skip(1) {
        place.pass(word, source);
    }
    // bash takes `--kind=x` apart at the equals sign.
    let current = if current == "=" && place.pending.is_some() {
        ""
    } else {
        current
    };
    if let Some(option) = place.pending {
        return candidates(option, current, "", &place, source);
    }
    let argument = place.command.and_then(|command| {
        let mut all = command.args.iter().filter(|a| a.is_positional());
        let given = place.positional.len();
        all.clone()
            .nth(given)
            .or_else(|| all.next_back().filter(|last| last.shape == Shape::Rest))
    });
    // A selection may begin with a name that it leaves out.
    let is_selection = argument.is_some_and(|argument| argument.hint == Hint::Agents)
        && current.len() > 1
        && !current.starts_with("--");
    if current.starts_with('-') && !place.only_positional && !is_selection {
        return match current.split_once('=') {
            Some((name, value)) => match place.option(name) {
                Some(option) => candidates(option, value, &format!("{name}="), &place, source),
                None => String::new(),
            },
            None => place.options(current),
        };
    }
    let mut out = String::new();
    if place.positional.is_empty() {
        for command in place
            .commands
            .iter()
            .filter(|c| c.name.starts_with(current))
        {
            line(&mut out, command.name, command.about());
        }
    }
    if let Some(argument) = argument {
        out.push_str(&candidates(argument, current, "", &place, source));
    }
    out
}

impl Place {
    fn pass(&mut self, word: &str, source: &mut dyn Source) {
        if let Some(option) = self.pending {
            if word == "=" {
                return;
            }
            self.pending = None;
            if option.name == "socket" {
                source.socket(word);
            }
            return;
        }
        if word == "--" {
            self.only_positional = true;
        } else if word.starts_with('-') && word.len() > 1 && !self.only_positional {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            match (self.option(name), value) {
                (Some(option), None) if option.takes_value() => self.pending = Some(option),
                (Some(option), Some(path)) if option.name == "socket" => source.socket(path),
                _ => {}
            }
        } else if let Some(command) = self
            .commands
            .iter()
            .find(|c| c.name == word && self.positional.is_empty())
        {
            self.command = Some(command);
            self.commands = command.sub;
        } else {
            self.positional.push(word.to_owned());
        }
    }

    fn all_options(&self) -> impl Iterator<Item = &'static Arg> {
        let own: &'static [Arg] = self.command.map_or(&[], |command| command.args);
        own.iter().chain(GLOBALS).filter(|arg| !arg.is_positional())
    }

    fn option(&self, name: &str) -> Option<&'static Arg> {
        let name = name.strip_prefix("--")?;
        self.all_options().find(|arg| arg.name == name)
    }

    /// The project that the first positional argument names, as parameters.
    fn project(&self) -> Value {
        json!({ "project_id": self.positional.first().map_or("", String::as_str) })
    }

    fn options(&self, current: &str) -> String {
        let method = self.command.map_or("", |command| command.method);
        let mut out = String::new();
        for arg in self.all_options() {
            let flag = format!("--{}", arg.name);
            if flag.starts_with(current) {
                line(&mut out, &flag, &arg.help_line(method));
            }
        }
        if "--help".starts_with(current) {
            line(&mut out, "--help", "Print help");
        }
        out
    }
}

/// Candidates for a value that begins with `current`; each is printed behind `prefix`.
fn candidates(
    arg: &Arg,
    current: &str,
    prefix: &str,
    place: &Place,
    source: &mut dyn Source,
) -> String {
    let found: Vec<(String, String)> = match arg.hint {
        Hint::None => Vec::new(),
        Hint::File => return ":files\n".to_owned(),
        Hint::Dir => return ":dirs\n".to_owned(),
        Hint::OneOf(words) => plain(words.iter().copied()),
        Hint::EventKind => plain(EventKind::ALL.iter().map(|kind| kind.name())),
        Hint::Method => methods::ALL
            .iter()
            .map(|m| (m.name.to_owned(), m.summary.to_owned()))
            .collect(),
        Hint::Project => projects(source),
        Hint::Operation => rows(source.call("operation.list", json!({})), "id", "method"),
        Hint::Preset => {
            let presets = source.call("project.list_presets", place.project());
            rows(presets, "name", "source")
        }
        Hint::Pending => {
            let pending = source.call("project.gate.pending", place.project());
            rows(pending, "branch", "kind")
                .into_iter()
                .filter(|(branch, _)| !place.positional.iter().skip(1).any(|b| b == branch))
                .collect()
        }
        Hint::Backup => {
            let backups = source.call("project.gate.backups", place.project());
            rows(backups, "ref", "reason")
        }
        Hint::Key => keys(source),
        Hint::Image => images(&place.positional, source),
        Hint::Agents => return agents(current, prefix, source),
    };
    let mut out = String::new();
    for (word, about) in found.iter().filter(|(word, _)| word.starts_with(current)) {
        line(&mut out, &format!("{prefix}{word}"), about);
    }
    out
}

fn plain<'a>(words: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    words.map(|word| (word.to_owned(), String::new())).collect()
}

fn projects(source: &mut dyn Source) -> Vec<(String, String)> {
    let Some(mut all) = source.call("discover_projects", json!({})) else {
        return Vec::new();
    };
    let mut found = rows(Some(all["projects"].take()), "id", "security_class");
    let broken = rows(Some(all["broken"].take()), "id", "");
    found.extend(broken.into_iter().map(|(id, _)| (id, "broken".to_owned())));
    found.sort();
    found
}

fn keys(source: &mut dyn Source) -> Vec<(String, String)> {
    let keys = source.call("vault.list_ssh_keys", json!({}));
    let keys = keys.unwrap_or_default();
    keys.as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| {
            let comment = key["comment"].as_str().unwrap_or_default();
            Some((key["key_id"].as_i64()?.to_string(), comment.to_owned()))
        })
        .collect()
}

/// Images by name, those without one by the digits of their id; without what was named already.
fn images(named: &[String], source: &mut dyn Source) -> Vec<(String, String)> {
    let all = source.call("list_images", json!({})).unwrap_or_default();
    let mut found = Vec::new();
    for image in all.as_array().into_iter().flatten() {
        let text = |name: &str| image[name].as_str().unwrap_or_default();
        let word = match text("full_name") {
            name if name.starts_with('<') => text("image_id").trim_start_matches("sha256:"),
            name => name,
        };
        if !word.is_empty() && !named.iter().any(|n| n == word) {
            let owner = image["project_id"].as_str().unwrap_or("all projects");
            let about = format!("{}, {owner}", text("size"));
            found.push((word.to_owned(), about));
        }
    }
    found
}

/// The last name of a list with commas.
fn agents(current: &str, prefix: &str, source: &mut dyn Source) -> String {
    let (before, last) = match current.rsplit_once(',') {
        Some((before, last)) => (format!("{before},"), last),
        None => (String::new(), current),
    };
    let (minus, last) = match last.strip_prefix('-') {
        Some(last) => ("-", last),
        None => ("", last),
    };
    let roster = source.call("agents.list", json!({}));
    let installable = roster.map(|all| {
        let rows = all.as_array().into_iter().flatten();
        Value::Array(
            rows.filter(|e| e["installable"] != json!(false))
                .cloned()
                .collect(),
        )
    });
    let mut found = rows(installable, "name", "label");
    found.push((
        "all".to_owned(),
        "Everything, also what is added later".to_owned(),
    ));
    let mut out = String::new();
    for (name, label) in found.iter().filter(|(name, _)| name.starts_with(last)) {
        line(&mut out, &format!("{prefix}{before}{minus}{name}"), label);
    }
    out
}

fn rows(list: Option<Value>, word: &str, about: &str) -> Vec<(String, String)> {
    let list = list.unwrap_or_default();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    list.as_array()
        .into_iter()
        .flatten()
        .map(|row| (text(row, word), text(row, about)))
        .filter(|(word, _)| !word.is_empty())
        .collect()
}

fn line(out: &mut String, word: &str, about: &str) {
    // A name that would not be what it shows is none that anybody wants inserted.
    if printable_line(word) != word {
        return;
    }
    out.push_str(word);
    if !about.is_empty() {
        out.push('\t');
        out.push_str(&printable_line(about));
    }
    out.push('\n');
}

/// A running daemon, asked for as long as a human does not notice.
struct Daemon {
    env: Env,
    socket: Option<String>,
    deadline: Instant,
    connection: Option<Connection>,
}

impl Daemon {
    fn new(env: Env) -> Self {
        Self {
            env,
            socket: None,
            deadline: Instant::now() + PATIENCE,
            connection: None,
        }
    }
}

impl Source for Daemon {
    fn socket(&mut self, path: &str) {
        self.socket = Some(path.to_owned());
    }

    fn call(&mut self, method: &str, params: Value) -> Option<Value> {
        if self.connection.is_none() {
            let socket = self.env.socket(self.socket.as_deref().map(Path::new));
            let interrupts = Rc::new(Interrupts::install());
            self.connection = Some(Connection::open(&socket.path, interrupts).ok()?);
        }
        let connection = self.connection.as_mut()?;
        let answer = connection.call(method, &params.to_string(), Some(self.deadline));
        serde_json::from_str(&answer.ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that answers from a table and notes what it was asked.
    #[derive(Default)]
    struct Fake {
        asked: Vec<String>,
        socket: Option<String>,
        silent: bool,
    }

    impl Source for Fake {
        fn socket(&mut self, path: &str) {
            self.socket = Some(path.to_owned());
        }

        fn call(&mut self, method: &str, params: Value) -> Option<Value> {
            self.asked.push(format!("{method} {params}"));
            if self.silent {
                return None;
            }
            Some(match method {
                "discover_projects" => json!({
                    "projects": [{"id": "orion", "security_class": "online"}, {"id": "odd\u{1b}", "security_class": "online"}],
                    "broken": [{"id": "oops"}],
                }),
                "agents.list" => json!([
                    {"name": "claude", "label": "Claude", "installable": true},
                    {"name": "codex", "label": "Codex", "installable": true},
                    {"name": "core", "label": "Core", "installable": false},
                ]),
                "project.list_presets" => json!([{"name": "solo", "source": "bundled"}]),
                "operation.list" => json!([{"id": "01", "method": "delete_project"}]),
                "project.gate.pending" => {
                    json!([{"branch": "main", "kind": "force_update"}, {"branch": "dev", "kind": "delete"}])
                }
                "project.gate.backups" => {
                    json!([{"ref": "refs/terok/backup/main/1", "reason": "sync"}])
                }
                "list_images" => json!([
                    {"full_name": "localhost/terok-l0:fedora-44", "image_id": "sha256:aa", "size": "1.2 GB", "project_id": null},
                    {"full_name": "localhost/orion:l2-cli", "image_id": "sha256:bb", "size": "3 MB", "project_id": "orion"},
                    {"full_name": "<none> (cc)", "image_id": "sha256:cc", "size": "1 B", "project_id": null},
                ]),
                "vault.list_ssh_keys" => json!([{"key_id": 7, "comment": "tk-main:orion"}]),
                _ => return None,
            })
        }
    }

    fn ask(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        complete(&words, words.len() - 1, &mut Fake::default())
    }

    fn names(line: &str) -> Vec<String> {
        ask(line)
            .lines()
            .map(|l| l.split('\t').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn commands_complete() {
        assert_eq!(names("terokctl pro"), ["project"]);
        assert_eq!(names("terokctl project de"), ["derive", "delete"]);
        assert_eq!(names("terokctl panic st"), ["status"]);
        assert_eq!(
            names("terokctl nonsense "),
            COMMANDS.iter().map(|_| "").take(0).collect::<Vec<_>>()
        );
    }

    #[test]
    fn options_complete_with_those_of_every_command() {
        assert_eq!(names("terokctl project delete --ke"), ["--keep-images"]);
        assert_eq!(names("terokctl project delete --js"), ["--json"]);
        assert_eq!(names("terokctl --so"), ["--socket"]);
        assert_eq!(names("terokctl project show -- --js"), Vec::<String>::new());
    }

    #[test]
    fn ids_come_from_the_daemon() {
        assert_eq!(
            ask("terokctl project show o"),
            "oops\tbroken\norion\tonline\n"
        );
        assert_eq!(names("terokctl --json project show or"), ["orion"]);
        assert_eq!(names("terokctl watch --project=or"), ["--project=orion"]);
        assert_eq!(names("terokctl watch --project = or"), ["orion"]);
        assert_eq!(names("terokctl watch --project ="), ["oops", "orion"]);
        assert_eq!(names("terokctl project show orion "), Vec::<String>::new());
        assert_eq!(names("terokctl op cancel 0"), ["01"]);
    }

    #[test]
    fn a_preset_belongs_to_the_project_before_it() {
        let mut fake = Fake::default();
        let words = [
            "terokctl", "--socket", "/s", "project", "presets", "orion", "",
        ]
        .map(str::to_owned);
        assert_eq!(complete(&words, 6, &mut fake), "solo\tbundled\n");
        assert_eq!(
            fake.asked,
            [r#"project.list_presets {"project_id":"orion"}"#]
        );
        assert_eq!(fake.socket.as_deref(), Some("/s"));
    }

    #[test]
    fn branches_heads_and_keys_come_from_the_daemon() {
        assert_eq!(
            ask("terokctl gate apply orion "),
            "main\tforce_update\ndev\tdelete\n"
        );
        assert_eq!(names("terokctl gate apply orion main "), ["dev"]);
        assert_eq!(
            names("terokctl gate restore orion refs/"),
            ["refs/terok/backup/main/1"]
        );
        assert_eq!(ask("terokctl vault export "), "7\ttk-main:orion\n");
        assert_eq!(names("terokctl ssh register orion "), ["7"]);
    }

    #[test]
    fn images_complete_by_name_or_id() {
        assert_eq!(
            ask("terokctl image remove "),
            "localhost/terok-l0:fedora-44\t1.2 GB, all projects\nlocalhost/orion:l2-cli\t3 MB, orion\ncc\t1 B, all projects\n"
        );
        assert_eq!(
            names("terokctl image remove cc localhost/orion:l2-cli localhost/"),
            ["localhost/terok-l0:fedora-44"]
        );
    }

    #[test]
    fn agents_complete_after_commas_and_minus() {
        assert_eq!(
            names("terokctl project agents orion claude,c"),
            ["claude,claude", "claude,codex"]
        );
        assert_eq!(
            names("terokctl project agents orion all,-co"),
            ["all,-codex"]
        );
        assert_eq!(names("terokctl project agents orion -co"), ["-codex"]);
        assert_eq!(names("terokctl project agents orion --js"), ["--json"]);
        assert_eq!(
            names("terokctl project build orion --agents claude,co"),
            ["claude,codex"]
        );
    }

    #[test]
    fn static_words_need_no_daemon() {
        let mut fake = Fake::default();
        for (line, expected) in [
            ("terokctl completions z", "zsh\n"),
            ("terokctl op list --state que", "queued\n"),
            ("terokctl watch --kind project.b", "project.broken\n"),
            ("terokctl man ", ":dirs\n"),
            ("terokctl config validate ", ":files\n"),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(
                complete(&words, words.len() - 1, &mut fake),
                expected,
                "{line}"
            );
        }
        assert!(names("terokctl call project.s").contains(&"project.state".to_owned()));
        assert!(fake.asked.is_empty());
    }

    #[test]
    fn without_a_daemon_there_are_no_ids() {
        let mut fake = Fake {
            silent: true,
            ..Fake::default()
        };
        let words = ["terokctl", "project", "show", ""].map(str::to_owned);
        assert_eq!(complete(&words, 3, &mut fake), "");
    }
}
