//! The agent layer: language runtimes, tools, the shell environment and the selected roster entries.

use super::entry::{Entry, Step};
use super::{
    BASE_ARGUMENT, BUST_ARGUMENT, File, Files, Foundation, copy_data, copy_program,
    install_packages, shipped,
};
use crate::base::family_name;
use crate::embedded;
use crate::labels;
use terok_config::roster::HelpSection;
use terok_proto::config::Family;

const DEB: &[&str] = &[
    "python3",
    "python3-pip",
    "python3-venv",
    "python-is-python3",
    "pipx",
    "fd-find",
    "jq",
    "unzip",
    "wget",
    "socat",
    "curl",
    "ca-certificates",
    "gnupg",
];
const RPM: &[&str] = &[
    "python3",
    "python3-pip",
    "python-unversioned-command",
    "pipx",
    "fd-find",
    "jq",
    "unzip",
    "wget",
    "socat",
    "curl",
    "ca-certificates",
    "gnupg2",
];

const LIB: &str = "/usr/local/lib/terok";
const SHARE: &str = "/usr/local/share/terok";
const IDENTITIES: &str = "scripts/identities.tsv";

/// Programs below the cache-bust point, in `/usr/local/bin`.
const PROGRAMS: [&str; 4] = [
    "hilfe",
    "allthethings.sh",
    "update-all-the-things",
    "terok-acp",
];

pub(super) fn files(foundation: &Foundation) -> Files {
    let entries = &foundation.entries;
    let mut files: Files = shipped(embedded::L1).collect();
    files.extend(shipped(embedded::INSTALL.iter().filter(|file| {
        entries
            .iter()
            .flat_map(steps)
            .any(|(_, step)| matches!(step, Step::Script(path) if *path == file.path))
    })));
    for (section, path) in HELP {
        let text: String = help_lines(entries, section)
            .map(|line| format!("{line}\n"))
            .collect();
        if !text.is_empty() {
            files.insert(path.to_owned(), File::data(text));
        }
    }
    let identities = entries.iter().filter_map(|entry| {
        let identity = entry.identity.as_ref()?;
        Some(format!(
            "{}\t{}\t{}\n",
            entry.name, identity.name, identity.email
        ))
    });
    files.insert(IDENTITIES.to_owned(), File::data(identities.collect()));
    for entry in entries {
        if let Some(command) = &entry.toad_command {
            files.insert(
                format!("toad-agents/terok-{}.toml", entry.name),
                File::data(toad_agent(entry, command)),
            );
        }
    }
    files
}

const HELP: [(HelpSection, &str); 2] = [
    (HelpSection::Agent, "help.d/agents.txt"),
    (HelpSection::DevTool, "help.d/dev-tools.txt"),
];

fn help_lines(entries: &[Entry], wanted: HelpSection) -> impl Iterator<Item = &str> {
    entries
        .iter()
        .filter_map(|entry| entry.help.as_ref())
        .filter(move |(section, _)| *section == wanted)
        .map(|(_, line)| line.trim_end_matches('\n'))
}

/// What Toad has to know to offer an agent.
fn toad_agent(entry: &Entry, command: &str) -> String {
    // A TOML basic string is a JSON string.
    let string = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "identity = {identity}\n\
         name = {label}\n\
         short_name = {name}\n\
         url = \"\"\n\
         protocol = \"acp\"\n\
         author_name = \"\"\n\
         author_url = \"\"\n\
         publisher_name = \"terok\"\n\
         publisher_url = \"\"\n\
         type = \"coding\"\n\
         description = {description}\n\
         tags = []\n\
         run_command.\"*\" = {command}\n\
         help = \"\"\n",
        identity = string(&format!("{}.terok", entry.name)),
        label = string(&entry.label),
        name = string(&entry.name),
        description = string(&format!("{} as installed in this container", entry.label)),
        command = string(command),
    )
}

fn steps(entry: &Entry) -> impl Iterator<Item = (&'static str, &Step)> {
    [("root", &entry.root), ("dev", &entry.dev)]
        .into_iter()
        .filter_map(|(user, step)| Some((user, step.as_ref()?)))
}

/// The steps of all entries for one user, and what puts the user back after foreign instructions.
fn install(entries: &[Entry], wanted: &str, family: Family, restore: &str) -> String {
    let mut text = String::new();
    for entry in entries {
        for (_, step) in steps(entry).filter(|(user, _)| *user == wanted) {
            text.push_str(&format!("# {} ({wanted})\n", entry.name));
            match step {
                Step::Script(path) => {
                    let to = format!("{LIB}/install/{}-{wanted}.sh", entry.name);
                    text.push_str(&copy_program(path, &to));
                    text.push_str(&format!("RUN {to} {}\n", family_name(family)));
                }
                Step::Fragment(fragment) => {
                    text.push_str(fragment.trim_end());
                    text.push('\n');
                    text.push_str(restore);
                }
            }
        }
    }
    text
}

pub(super) fn text(foundation: &Foundation, bust: &str) -> String {
    let family = foundation.family;
    let entries = &foundation.entries;
    let selection = foundation.selection();
    let name = family_name(family);
    let as_root = "USER root\nENV HOME=/root\n";
    let as_dev = "USER dev\nENV HOME=/home/dev\n";
    let mut text = format!(
        "# Agent layer, made by terokd. Changes are overwritten.\n\
         ARG {BASE_ARGUMENT}={l0}\n\
         FROM ${{{BASE_ARGUMENT}}}\n\
         {as_root}\
         ENV PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin\n",
        l0 = foundation.l0_tag(),
    );
    text.push_str(&install_packages(
        family,
        if family == Family::Deb { DEB } else { RPM },
    ));
    if family == Family::Deb {
        text.push_str("RUN ln -sf /usr/bin/fdfind /usr/local/bin/fd\n");
    }
    for (script, arguments, before) in [
        ("l1-node.sh", name, ""),
        // A mirror of the releases, for networks without the original.
        (
            "l1-tools.sh",
            "\"${TEROK_RELEASES}\"",
            "ARG TEROK_RELEASES=https://github.com\n",
        ),
    ] {
        let to = format!("{LIB}/{script}");
        text.push_str(&copy_program(&format!("scripts/build/{script}"), &to));
        text.push_str(before);
        text.push_str(&format!("RUN {to} {arguments}\n"));
    }
    text.push_str(&copy_data(
        "scripts/terok-env.sh",
        "/etc/profile.d/terok-env.sh",
    ));
    text.push_str(&copy_data(
        "scripts/terok-env-wrappers.sh",
        &format!("{SHARE}/terok-env-wrappers.sh"),
    ));
    text.push_str(&copy_program(
        "scripts/build/l1-shell.sh",
        &format!("{LIB}/l1-shell.sh"),
    ));
    text.push_str(&format!(
        "RUN {LIB}/l1-shell.sh {name}\n\
         ENV BASH_ENV=/etc/profile.d/terok-env.sh\n\
         ENV PATH=/home/dev/.npm-packages/bin:/home/dev/.local/bin:/home/dev/.opencode/bin:${{PATH}}\n\
         # What follows is done again when agents are refreshed.\n\
         ARG {BUST_ARGUMENT}={bust}\n\
         RUN mkdir -p /etc/terok && echo \"${{{BUST_ARGUMENT}}}\" > /etc/terok/agents-refreshed\n"
    ));
    for program in PROGRAMS {
        text.push_str(&copy_program(
            &format!("scripts/{program}"),
            &format!("/usr/local/bin/{program}"),
        ));
    }
    text.push_str(&copy_program(
        "scripts/terok-record-versions.sh",
        &format!("{LIB}/terok-record-versions.sh"),
    ));
    text.push_str(&format!("COPY scripts/agents/ {SHARE}/agents/\n"));
    text.push_str(&install(entries, "root", family, as_root));
    text.push_str(as_dev);
    text.push_str("ENV NPM_CONFIG_PREFIX=/home/dev/.npm-packages\n");
    text.push_str(&install(entries, "dev", family, as_dev));
    // Last, so that what two selections have in common is built once.
    text.push_str(as_root);
    text.push_str(&format!(
        "COPY --chmod=0644 {IDENTITIES} {SHARE}/identities.tsv\n"
    ));
    if HELP
        .iter()
        .any(|(section, _)| help_lines(entries, *section).next().is_some())
    {
        text.push_str(&format!("COPY help.d/ {SHARE}/help.d/\n"));
    }
    if entries.iter().any(|entry| entry.toad_command.is_some()) {
        text.push_str(&format!("COPY toad-agents/ {SHARE}/toad-agents/\n"));
    }
    for entry in entries.iter().filter(|entry| entry.acp) {
        text.push_str(&format!(
            "RUN ln -s terok-acp /usr/local/bin/terok-{}-acp\n",
            entry.name
        ));
    }
    text.push_str(&copy_program(
        "scripts/build/l1-finish.sh",
        &format!("{LIB}/l1-finish.sh"),
    ));
    text.push_str(&format!("RUN {LIB}/l1-finish.sh '{selection}'\n"));
    text.push_str(as_dev);
    let programs: String = entries
        .iter()
        .filter_map(|entry| Some(format!(" {}={}", entry.name, entry.binary.as_ref()?)))
        .collect();
    text.push_str(&format!(
        "RUN {LIB}/terok-record-versions.sh{programs}\n\
         LABEL {label}=\"{selection}\"\n\
         WORKDIR /workspace\n\
         {as_dev}",
        label = labels::AGENTS,
    ));
    text
}
