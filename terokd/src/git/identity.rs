//! Who the user is according to git's global configuration, read in-process and with its unconditional includes.

use gix::config::file::{Metadata, includes, init};
use std::path::PathBuf;
use terok_config::GitIdentity;
use terok_config::env::Environment;

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
    let mut read = Read {
        files: files.clone(),
        ..Read::default()
    };
    for file in files {
        if !file.is_file() {
            continue;
        }
        if let Err(error) = read.apply(&file, env) {
            read.warnings
                .push(format!("`{}` is passed over: {error:#}", file.display()));
        }
    }
    read
}

impl Read {
    fn apply(&mut self, path: &std::path::Path, env: &Environment) -> Result<(), gix::Error> {
        let meta = Metadata {
            path: Some(path.to_owned()),
            ..Metadata::from(gix::config::Source::User)
        };
        let options = init::Options {
            includes: includes::Options::follow_without_conditional(Some(&env.home)),
            ..init::Options::default()
        };
        let Some(config) = gix::config::File::from_paths_metadata([meta], options)? else {
            return Ok(());
        };
        let value = |key: &str| {
            config
                .string(key)
                .map(|text| text.to_string().trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let (name, email) = (value("user.name"), value("user.email"));
        if name.is_some() || email.is_some() {
            self.identity.path = Some(path.to_string_lossy().into_owned());
        }
        self.identity.name = name.or(self.identity.name.take());
        self.identity.email = email.or(self.identity.email.take());
        let included = config
            .sections()
            .filter_map(|section| section.meta().path.clone());
        self.files
            .extend(included.filter(|included| included != path));
        self.files.sort();
        self.files.dedup();
        Ok(())
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
        let _ = read(&env);
    }
}
