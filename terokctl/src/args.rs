//! The command line as a table: each command once, with its arguments, its method and how its result is shown.
//!
//! The parser, the completions, the man pages and the reference are all made from it.

use crate::commands::COMMANDS;
use crate::failure::Result;
use crate::render::View;
use crate::session::Session;
use clap::{ArgAction, ArgMatches};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;
use terok_proto::methods;

/// One command, or a group of commands.
pub(crate) struct Command {
    /// Word on the command line.
    pub(crate) name: &'static str,
    /// One line; by default the method's summary.
    about: &'static str,
    /// The method behind it, if it is one.
    pub(crate) method: &'static str,
    /// Its arguments.
    pub(crate) args: &'static [Arg],
    /// What it does.
    pub(crate) run: Run,
    /// Commands below it.
    pub(crate) sub: &'static [Self],
}

/// What a command does.
pub(crate) enum Run {
    /// Nothing by itself: a group.
    Group,
    /// One call, whose result is shown.
    Call(View),
    /// More than that.
    Own(fn(&mut Session, &Values<'_>) -> Result<()>),
}

/// One argument.
pub(crate) struct Arg {
    /// Name of a flag or option, or the word that stands for a positional argument.
    pub(crate) name: &'static str,
    /// The parameter it fills, if any.
    pub(crate) param: &'static str,
    /// How it is given.
    pub(crate) shape: Shape,
    /// What completes it.
    pub(crate) hint: Hint,
    help: &'static str,
    metavar: &'static str,
    short: Option<char>,
}

/// How an argument is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// By its place.
    Required,
    /// By its place, if at all.
    Optional,
    /// By its place, once or several times.
    Rest,
    /// By its place, a number.
    Key,
    /// `--name`.
    Flag,
    /// `--name VALUE`.
    Value,
    /// `--name VALUE`, any number of times or with commas.
    Many,
    /// `--name NUMBER`.
    Number,
}

/// What completes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nothing.
    None,
    /// Ids of projects, broken ones too.
    Project,
    /// Selection of agents.
    Agents,
    /// Presets of the project named before.
    Preset,
    /// Branches with something pending in the gate of the project named before.
    Pending,
    /// Kept heads in the gate of the project named before.
    Backup,
    /// Numbers of SSH keys.
    Key,
    /// Names of images.
    Image,
    /// Ids of operations.
    Operation,
    /// Kinds of events.
    EventKind,
    /// Methods.
    Method,
    /// A file.
    File,
    /// A directory.
    Dir,
    /// One of these.
    OneOf(&'static [&'static str]),
}

impl Arg {
    const fn new(name: &'static str, param: &'static str, shape: Shape) -> Self {
        Self {
            name,
            param,
            shape,
            hint: Hint::None,
            help: "",
            metavar: "VALUE",
            short: None,
        }
    }

    pub(crate) const fn required(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Required)
    }

    pub(crate) const fn optional(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Optional)
    }

    pub(crate) const fn rest(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Rest)
    }

    pub(crate) const fn key(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Key).hint(Hint::Key)
    }

    pub(crate) const fn flag(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Flag)
    }

    pub(crate) const fn value(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Value)
    }

    pub(crate) const fn many(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Many)
    }

    pub(crate) const fn number(name: &'static str, param: &'static str) -> Self {
        Self::new(name, param, Shape::Number)
    }

    pub(crate) const fn hint(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }

    pub(crate) const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    pub(crate) const fn metavar(mut self, metavar: &'static str) -> Self {
        self.metavar = metavar;
        self
    }

    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// Whether a word follows its name.
    pub(crate) const fn takes_value(&self) -> bool {
        matches!(self.shape, Shape::Value | Shape::Many | Shape::Number)
    }

    /// Whether it is given by its place.
    pub(crate) const fn is_positional(&self) -> bool {
        matches!(
            self.shape,
            Shape::Required | Shape::Optional | Shape::Rest | Shape::Key
        )
    }

    /// One line; by default that of the parameter.
    pub(crate) fn help_line(&self, method: &str) -> String {
        if !self.help.is_empty() {
            return self.help.to_owned();
        }
        methods::find(method)
            .and_then(|m| m.params.iter().find(|p| p.name == self.param))
            .map(|p| p.doc.replace('`', ""))
            .unwrap_or_default()
    }

    /// The word that stands for its value.
    pub(crate) const fn value_name(&self) -> &'static str {
        match (self.shape, self.hint) {
            _ if self.is_positional() => self.name,
            (Shape::Number, _) => "N",
            (_, Hint::File) => "FILE",
            (_, Hint::Project) => "ID",
            (_, Hint::EventKind) => "KIND",
            _ => self.metavar,
        }
    }

    fn to_clap(&self, method: &str) -> clap::Arg {
        let mut arg = clap::Arg::new(self.name).help(self.help_line(method));
        if let Some(short) = self.short {
            arg = arg.short(short);
        }
        if !self.is_positional() {
            arg = arg.long(self.name);
        }
        match self.shape {
            Shape::Flag => return arg.action(ArgAction::SetTrue),
            Shape::Required => arg = arg.required(true),
            Shape::Rest => arg = arg.required(true).num_args(1..).action(ArgAction::Append),
            Shape::Key => {
                arg = arg.required(true).value_parser(clap::value_parser!(u64));
            }
            Shape::Many => arg = arg.action(ArgAction::Append).value_delimiter(','),
            Shape::Number => arg = arg.value_parser(clap::value_parser!(u64)),
            Shape::Optional | Shape::Value => {}
        }
        if self.hint == Hint::Agents {
            // `-vibe` leaves one out.
            arg = arg.allow_hyphen_values(true);
        }
        if let Hint::OneOf(words) = self.hint {
            arg = arg.value_parser(clap::builder::PossibleValuesParser::new(words));
        }
        arg.value_name(self.value_name())
    }
}

impl Command {
    /// A group.
    pub(crate) const fn group(
        name: &'static str,
        about: &'static str,
        sub: &'static [Self],
    ) -> Self {
        Self {
            name,
            about,
            method: "",
            args: &[],
            run: Run::Group,
            sub,
        }
    }

    /// One call.
    pub(crate) const fn call(
        name: &'static str,
        method: &'static str,
        args: &'static [Arg],
        view: View,
    ) -> Self {
        Self {
            name,
            about: "",
            method,
            args,
            run: Run::Call(view),
            sub: &[],
        }
    }

    /// More than one call.
    pub(crate) const fn own(
        name: &'static str,
        method: &'static str,
        about: &'static str,
        args: &'static [Arg],
        run: fn(&mut Session, &Values<'_>) -> Result<()>,
    ) -> Self {
        Self {
            name,
            about,
            method,
            args,
            run: Run::Own(run),
            sub: &[],
        }
    }

    /// The same with commands below it.
    pub(crate) const fn with(mut self, sub: &'static [Self]) -> Self {
        self.sub = sub;
        self
    }

    /// One line.
    pub(crate) fn about(&self) -> &'static str {
        if self.about.is_empty() {
            methods::find(self.method).map_or("", |m| m.summary)
        } else {
            self.about
        }
    }

    fn to_clap(&self) -> clap::Command {
        let is_group = matches!(self.run, Run::Group);
        let mut command = clap::Command::new(self.name)
            .about(self.about())
            .subcommand_required(is_group)
            .arg_required_else_help(is_group)
            .args(self.args.iter().map(|arg| arg.to_clap(self.method)))
            .subcommands(self.sub.iter().map(Self::to_clap));
        if !self.sub.is_empty() {
            command = command.disable_help_subcommand(true);
        }
        if !self.sub.is_empty() && !is_group {
            command = command.args_conflicts_with_subcommands(true);
        }
        command
    }
}

/// Options that every command takes.
pub(crate) const GLOBALS: &[Arg] = &[
    Arg::value("socket", "").hint(Hint::File)
        .help("Socket of the daemon [default: $TEROKD_SOCKET, $XDG_RUNTIME_DIR/terok/terokd.sock, or run/terokd.sock below the state root]"),
    Arg::flag("json", "").help("Print the result as the wire has it, on one line; errors as JSON-RPC error objects"),
    Arg::flag("flat", "").help("Print the result as path=value lines"),
    Arg::flag("quiet", "").short('q').help("Print results and errors only: no progress, notes or hints"),
    Arg::flag("no-color", "").help("Print without colors [also: $NO_COLOR]"),
    Arg::flag("no-autostart", "").help("Do not start a daemon; without one the exit code is 69"),
    Arg::value("timeout", "").metavar("SECONDS").help("Seconds to wait for an answer; then the exit code is 75"),
    Arg::flag("no-wait", "").help("Do not wait for an operation; print its id"),
];

/// Values of the global options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) flat: bool,
    pub(crate) quiet: bool,
    pub(crate) no_autostart: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) no_wait: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the daemon refused, 2 wrong usage, 69 no daemon, 70 internal error,
75 panicked, busy or out of time (try again), 130 interrupted.";

/// The parser. Commands are built in full only where `wanted` says so: building all of them costs more than a call.
pub(crate) fn parser(wanted: impl Fn(&str) -> bool) -> clap::Command {
    let globals = GLOBALS.iter().map(|arg| {
        let built = arg.to_clap("").global(true).help_heading("Global options");
        match arg.name {
            "socket" => built.value_parser(clap::value_parser!(PathBuf)),
            "timeout" => built.value_parser(seconds),
            "json" => built.conflicts_with("flat"),
            _ => built,
        }
    });
    let commands = COMMANDS.iter().map(|command| {
        if wanted(command.name) {
            command.to_clap()
        } else {
            clap::Command::new(command.name).about(command.about())
        }
    });
    clap::Command::new("terokctl")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The command-line client of terokd")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .args(globals)
        .subcommands(commands)
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

impl Options {
    /// Reads the global options.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        Self {
            socket: matches.get_one::<PathBuf>("socket").cloned(),
            json: matches.get_flag("json"),
            flat: matches.get_flag("flat"),
            quiet: matches.get_flag("quiet"),
            no_autostart: matches.get_flag("no-autostart"),
            timeout: matches.get_one::<Duration>("timeout").copied(),
            no_wait: matches.get_flag("no-wait"),
        }
    }
}

/// The command that was chosen, and its arguments.
pub(crate) fn chosen(matches: &ArgMatches) -> Option<(&'static Command, Values<'_>)> {
    let (mut commands, mut matches) = (COMMANDS, matches);
    let mut found = None;
    while let Some((name, below)) = matches.subcommand() {
        let command = commands.iter().find(|c| c.name == name)?;
        found = Some(command);
        (commands, matches) = (command.sub, below);
    }
    let command = found?;
    Some((command, Values { command, matches }))
}

/// Arguments of the chosen command.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    command: &'static Command,
    matches: &'a ArgMatches,
}

impl Values<'_> {
    /// Text of a positional argument or option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.matches.get_one::<String>(name).map(String::as_str)
    }

    /// Text of an argument that the parser insists on.
    pub(crate) fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    /// A flag.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    /// Values of a repeated option.
    pub(crate) fn many(&self, name: &str) -> Vec<String> {
        self.matches
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.matches.get_one::<u64>(name).copied()
    }

    /// The parameters that the arguments make; what was not given is left to the daemon.
    pub(crate) fn params(&self) -> Map<String, Value> {
        let mut params = Map::new();
        for arg in self.command.args.iter().filter(|arg| !arg.param.is_empty()) {
            let value = match arg.shape {
                Shape::Required | Shape::Optional | Shape::Value => {
                    self.text(arg.name).map(Value::from)
                }
                Shape::Flag => self.flag(arg.name).then_some(Value::Bool(true)),
                Shape::Many | Shape::Rest => Some(self.many(arg.name))
                    .filter(|all| !all.is_empty())
                    .map(Value::from),
                Shape::Number | Shape::Key => self.number(arg.name).map(Value::from),
            };
            if let Some(value) = value {
                params.insert(arg.param.to_owned(), value);
            }
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terok_proto::Access;

    fn params(line: &str) -> String {
        let words = ["terokctl"].into_iter().chain(line.split(' '));
        let matches = parser(|_| true)
            .try_get_matches_from(words)
            .unwrap_or_else(|e| panic!("{e}"));
        let (command, values) = chosen(&matches).expect("a command");
        format!("{} {}", command.method, Value::Object(values.params()))
    }

    fn each(commands: &'static [Command], see: &mut impl FnMut(&'static Command)) {
        for command in commands {
            see(command);
            each(command.sub, see);
        }
    }

    #[test]
    fn the_tree_is_sound() {
        parser(|_| true).debug_assert();
        parser(|_| false).debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_fits_its_method() {
        each(COMMANDS, &mut |command| {
            assert!(!command.about().is_empty(), "{}", command.name);
            assert!(!command.about().ends_with('.'), "{}", command.name);
            for arg in command.args {
                assert!(
                    !arg.help_line(command.method).is_empty(),
                    "{} {}",
                    command.name,
                    arg.name
                );
                let known = methods::find(command.method)
                    .is_some_and(|m| m.params.iter().any(|p| p.name == arg.param));
                assert!(
                    arg.param.is_empty() || known,
                    "{} {}",
                    command.name,
                    arg.name
                );
            }
            if let Run::Call(_) = command.run {
                let method = methods::find(command.method).expect(command.method);
                assert_ne!(method.access, Access::Subscription, "{}", command.name);
                for param in method.params.iter().filter(|p| p.required) {
                    assert!(
                        command.args.iter().any(|a| a.param == param.name
                            && matches!(a.shape, Shape::Required | Shape::Key)),
                        "{} {}",
                        command.name,
                        param.name
                    );
                }
            }
        });
    }

    #[test]
    fn arguments_become_parameters() {
        insta::assert_snapshot!(params("project list"), @"list_projects {}");
        insta::assert_snapshot!(params("project show orion --json"), @r#"get_project {"project_id":"orion"}"#);
        insta::assert_snapshot!(
            params("project derive a b --without-keys --copy presets,snippets"),
            @r#"derive_project {"source_id":"a","new_id":"b","without_keys":true,"copy":["presets","snippets"]}"#
        );
        insta::assert_snapshot!(params("project generate a"), @r#"project.generate_dockerfiles {"project_id":"a"}"#);
        insta::assert_snapshot!(params("project build a"), @r#"project.build_images {"project_id":"a"}"#);
        insta::assert_snapshot!(params("project build a --dev --refresh-agents --full --agents all,-vibe --rebuild-stale"), @r#"project.build_images {"project_id":"a","include_dev":true,"refresh_agents":true,"full":true,"agents":"all,-vibe","rebuild_stale":true}"#);
        insta::assert_snapshot!(params("project agents a -vibe"), @r#"set_project_image_agents {"project_id":"a","selection":"-vibe"}"#);
        insta::assert_snapshot!(params("project agents a all,-vibe --json -q"), @r#"set_project_image_agents {"project_id":"a","selection":"all,-vibe"}"#);
        insta::assert_snapshot!(params("project agents --json a -q"), @r#"set_project_image_agents {"project_id":"a"}"#);
        insta::assert_snapshot!(params("project agents a --json"), @r#"set_project_image_agents {"project_id":"a"}"#);
        insta::assert_snapshot!(params("project build a --agents -vibe --dev"), @r#"project.build_images {"project_id":"a","include_dev":true,"agents":"-vibe"}"#);
        insta::assert_snapshot!(params("image remove a b --yes"), @r#"remove_images {"images":["a","b"]}"#);
        insta::assert_snapshot!(params("op list --state running --project a"), @r#"operation.list {"project_id":"a","state":"running"}"#);
        insta::assert_snapshot!(params("daemon stop --drain-ms 5"), @r#"daemon.shutdown {"drain_ms":5}"#);
        insta::assert_snapshot!(
            params("watch --kind project.changed --kind project.added --project a"),
            @r#"events.subscribe {"kinds":["project.changed","project.added"],"projects":["a"]}"#
        );
        insta::assert_snapshot!(params("panic --stop-containers --yes"), @r#"execute_panic {"stop_containers":true}"#);
        insta::assert_snapshot!(params("panic status"), @"panic.status {}");
    }

    #[test]
    fn global_options_stand_anywhere_and_exclude_each_other() {
        let options = |line: &str| {
            parser(|_| true)
                .try_get_matches_from(line.split(' '))
                .map(|m| {
                    // A subcommand's matches know the globals given after it.
                    Options::of(&m)
                })
        };
        let all =
            options("terokctl --socket /s project list --timeout 1.5 -q --no-wait").expect("valid");
        assert_eq!(all.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(all.socket, Some("/s".into()));
        assert!(all.quiet && all.no_wait && !all.json);
        assert!(options("terokctl project list --json --flat").is_err());
        assert!(options("terokctl project list --timeout 0").is_err());
        assert!(options("terokctl project list --timeout x").is_err());
    }
}
