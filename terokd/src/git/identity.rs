//! Who the user is according to git's global configuration, read in-process and with its unconditional includes.
//!
//! gix parses; includes are followed here, so that every file is a regular one of bounded size and a file that does
//! not exist yet is known as one whose appearance matters.

use crate::fs;
use gix::config::file::{Metadata, init};
use std::path::{Path, PathBuf};
use terok_config::GitIdentity;
use terok_config::env::Environment;

/// No configuration written by people comes near this.
const MAX_BYTES: u64 = 1 << 20;

/// How deep includes may nest, as git has it.
const MAX_DEPTH: usize = 10;

/// How many files are read in all.
const MAX_FILES: usize = 100;

/// An identity and the files that decide it.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Name and address.
    pub identity: GitIdentity,
    /// Files whose change may change it, whether they exist or not.
    pub files: Vec<PathBuf>,
    /// Why a file was passed over.
    pub warnings: Vec<String>,
}

/// Reads `GIT_CONFIG_GLOBAL`, else both of git's global files, the one in the home directory last.
pub fn read(env: &Environment) -> Read {
    let files = match env.var("GIT_CONFIG_GLOBAL") {
        Some(file) => vec![env.resolve(file).unwrap_or_else(|_| PathBuf::from(file))],
        None => {
            let xdg = env
                .var("XDG_CONFIG_HOME")
                .map_or_else(|| env.home.join(".config"), PathBuf::from);
            vec![xdg.join("git/config"), env.home.join(".gitconfig")]
        }
    };
    let mut reader = Reader {
        env,
        read: Read::default(),
        budget: MAX_FILES,
    };
    for file in files {
        reader.file(&file, 0);
    }
    let mut read = reader.read;
    read.files.sort();
    read.files.dedup();
    read
}

struct Reader<'a> {
    env: &'a Environment,
    read: Read,
    budget: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH || self.budget == 0 {
            self.warn(path, "too many includes");
            return;
        }
        self.budget -= 1;
        self.read.files.push(path.to_owned());
        // Absent, or `/dev/null` to have none: both are an empty configuration.
        if !path.is_file() {
            return;
        }
        let bytes = match fs::read_limited(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(fault) => return self.warn(path, &fault.message),
        };
        let meta = Metadata::from(gix::config::Source::User);
        let options = init::Options::default();
        match gix::config::File::from_bytes_no_includes(&bytes, meta, options) {
            Ok(config) => self.sections(&config, path, depth),
            Err(error) => self.warn(path, &format!("{error:#}")),
        }
    }

    /// In the order of the file: an include stands for its content, so what follows it wins over it.
    fn sections(&mut self, config: &gix::config::File, path: &Path, depth: usize) {
        for section in config.sections() {
            let header = section.header();
            if header.subsection_name().is_some() {
                continue;
            }
            let named = |name: &str| header.name().eq_ignore_ascii_case(name.as_bytes());
            if named("user") {
                let value = |key: &str| {
                    let text = section.value(key)?.to_string();
                    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
                };
                let (name, email) = (value("name"), value("email"));
                let identity = &mut self.read.identity;
                if name.is_some() || email.is_some() {
                    identity.path = Some(path.to_string_lossy().into_owned());
                }
                identity.name = name.or(identity.name.take());
                identity.email = email.or(identity.email.take());
            } else if named("include") {
                for target in section.values("path") {
                    if let Some(target) = self.target(&target.to_string(), path) {
                        self.file(&target, depth + 1);
                    }
                }
            }
        }
    }

    /// Where an include leads: `~` is the home directory, a relative path starts at the including file.
    fn target(&mut self, text: &str, from: &Path) -> Option<PathBuf> {
        if text.is_empty() || text.starts_with("%(prefix)") {
            return None;
        }
        match self.env.expand_user(text) {
            Ok(target) => Some(from.parent().unwrap_or(Path::new("/")).join(target)),
            Err(error) => {
                self.warn(from, &error.to_string());
                None
            }
        }
    }

    fn warn(&mut self, path: &Path, why: &str) {
        // A cycle would say the same thing many times.
        if self.read.warnings.len() < MAX_DEPTH {
            let warning = format!("`{}` is passed over: {why}", path.display());
            self.read.warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().expect("temporary directory");
        let env = Environment::new([("X", "y")], home.path());
        (home, env)
    }

    #[test]
    fn the_file_in_the_home_directory_wins_and_includes_are_followed() {
        let (home, env) = world();
        std::fs::create_dir_all(home.path().join(".config/git")).expect("dir");
        std::fs::write(
            home.path().join(".config/git/config"),
            "[user]\nname = Xdg\nemail = x@x\n",
        )
        .expect("write");
        std::fs::write(
            home.path().join(".gitconfig"),
            "[user]\n name = Old\n[include]\n path = more.inc\n",
        )
        .expect("write");
        std::fs::write(home.path().join("more.inc"), "[user]\n name = \" Ada \"\n").expect("write");
        let read = read(&env);
        assert_eq!(read.identity.name.as_deref(), Some("Ada"));
        assert_eq!(read.identity.email.as_deref(), Some("x@x"));
        assert!(read.files.contains(&home.path().join("more.inc")));
    }

    #[test]
    fn a_broken_file_is_an_empty_identity_and_a_warning() {
        let (home, env) = world();
        std::fs::write(home.path().join(".gitconfig"), "[user\nname").expect("write");
        let read = read(&env);
        assert_eq!(read.identity, GitIdentity::default());
        assert_eq!(read.warnings.len(), 1);
    }

    #[test]
    fn an_include_cycle_ends() {
        let (home, env) = world();
        std::fs::write(
            home.path().join(".gitconfig"),
            "[user]\nname=A\n[include]\npath = .gitconfig\n",
        )
        .expect("write");
        let read = read(&env);
        assert_eq!(read.identity.name.as_deref(), Some("A"));
        assert!(!read.warnings.is_empty());
    }

    #[test]
    fn what_follows_an_include_wins_over_it() {
        let (home, env) = world();
        std::fs::write(
            home.path().join(".gitconfig"),
            "[user]\nname=Before\n[include]\npath=~/inc\n[user]\nemail=after@x\n[user \"other\"]\nname=No\n",
        )
        .expect("write");
        std::fs::write(home.path().join("inc"), "[USER]\nName=Inc\nemail=inc@x\n").expect("write");
        let read = read(&env);
        assert_eq!(read.identity.name.as_deref(), Some("Inc"));
        assert_eq!(read.identity.email.as_deref(), Some("after@x"));
    }

    #[test]
    fn conditional_includes_are_not_followed_and_blank_values_hide_nothing() {
        let (home, env) = world();
        std::fs::create_dir_all(home.path().join(".config/git")).expect("dir");
        std::fs::write(
            home.path().join(".config/git/config"),
            "[user]\nname = Below\n",
        )
        .expect("write");
        std::fs::write(
            home.path().join(".gitconfig"),
            "[includeIf \"gitdir:~/\"]\npath=~/inc\n[user]\nname = \" \"\n",
        )
        .expect("write");
        std::fs::write(home.path().join("inc"), "[user]\nname=Inc\n").expect("write");
        assert_eq!(read(&env).identity.name.as_deref(), Some("Below"));
    }

    #[test]
    fn an_included_file_that_is_missing_is_waited_for_and_one_that_is_a_pipe_is_not_opened() {
        let (home, env) = world();
        let pipe = home.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        std::fs::write(
            home.path().join(".gitconfig"),
            "[include]\npath=pipe\npath=/dev/zero\npath=later\n[user]\nname=A\n",
        )
        .expect("write");
        let read = read(&env);
        assert_eq!(read.identity.name.as_deref(), Some("A"));
        assert!(read.files.contains(&home.path().join("later")));
    }

    #[test]
    fn the_file_that_the_environment_names_is_the_only_one() {
        let (home, _) = world();
        std::fs::write(home.path().join(".gitconfig"), "[user]\nname=No\n").expect("write");
        std::fs::write(home.path().join("only"), "[user]\nname=Only\n").expect("write");
        let named = |file: &str| Environment::new([("GIT_CONFIG_GLOBAL", file)], home.path());
        assert_eq!(
            read(&named("~/only")).identity.name.as_deref(),
            Some("Only")
        );
        let none = read(&named("/dev/null"));
        assert_eq!(none.identity, GitIdentity::default());
        assert_eq!(none.warnings, Vec::<String>::new());
    }
}
