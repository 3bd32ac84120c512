//! What the layers of an image are made of: the texts of their Dockerfiles and the files that these copy.
//!
//! Whatever comes from a file is checked or escaped before it gets into a text, so that no value can add or hide an
//! instruction. Nothing secret gets into any layer: credentials arrive when a task starts.

mod entry;
mod l0;
mod l1;
mod l2;
mod template;
#[cfg(test)]
mod tests;

pub use entry::{Entry, GitIdentity};
pub use l2::ProjectLayer;

use crate::base;
use crate::embedded::Embedded;
use crate::hash::{self, Hashes};
use crate::network::CaBundle;
use crate::tags;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use terok_config::roster::Roster;
use terok_proto::Fault;
use terok_proto::config::Family;

/// Dockerfile of the base layer.
pub const L0_FILE: &str = "L0.Dockerfile";
/// Dockerfile of the agent layer.
pub const L1_FILE: &str = "L1.cli.Dockerfile";
/// Dockerfile of the project layer.
pub const L2_FILE: &str = "L2.Dockerfile";

/// The cache-bust value that texts are compared and hashed with.
pub const NO_BUST: &str = "0";

/// Build argument that makes agents be installed anew.
pub const BUST_ARGUMENT: &str = "AGENT_CACHE_BUST";
/// Build argument that names the image a layer stands on.
pub const BASE_ARGUMENT: &str = "BASE_IMAGE";

/// A file of a build context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub text: Cow<'static, str>,
    /// Whether it is a program.
    pub executable: bool,
}

impl File {
    fn data(text: String) -> Self {
        Self {
            text: Cow::Owned(text),
            executable: false,
        }
    }
}

/// Files of a build context by relative path.
pub type Files = BTreeMap<String, File>;

fn shipped<'a>(
    files: impl IntoIterator<Item = &'a Embedded>,
) -> impl Iterator<Item = (String, File)> {
    files.into_iter().map(|file| {
        let content = File {
            text: Cow::Borrowed(file.text),
            executable: file.executable,
        };
        (file.path.to_owned(), content)
    })
}

fn tree(files: &Files) -> String {
    hash::tree(
        files
            .iter()
            .map(|(path, file)| (path.as_str(), file.text.as_bytes())),
    )
}

/// What the layers below a project's own are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Foundation {
    base: String,
    family: Family,
    entries: Vec<Entry>,
    ca: Option<CaBundle>,
}

impl Foundation {
    /// The foundation on a base, with these roster entries: names as a selection resolves to.
    ///
    /// # Errors
    /// `invalid_config` for a base that is no image reference or of unknown family, or an entry that cannot be
    /// installed as its file says; `unknown_agent` for a name without an entry.
    pub fn new(
        base: &str,
        family: Option<Family>,
        names: &[String],
        roster: &Roster,
        ca: Option<CaBundle>,
    ) -> Result<Self, Fault> {
        let base = base::check(base)?;
        let family = base::family(base, family)?;
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        names.dedup();
        let entries = names
            .into_iter()
            .map(|name| Entry::of(name, roster, family))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            base: base.to_owned(),
            family,
            entries,
            ca,
        })
    }

    /// The normalised base.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its package family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Installed names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// Value of the label that names what is installed.
    pub fn selection(&self) -> String {
        self.names().join(",")
    }

    /// Full name of the base layer.
    pub fn l0_tag(&self) -> String {
        tags::local(&tags::l0(&self.base))
    }

    /// Full name of the agent layer with exactly this selection.
    pub fn l1_tag(&self) -> String {
        tags::local(&tags::l1(&self.base, &self.names()))
    }

    /// Dockerfile of the base layer.
    pub fn l0_text(&self) -> String {
        l0::text(self)
    }

    /// Dockerfile of the agent layer with this cache-bust value.
    pub fn l1_text(&self, bust: &str) -> String {
        l1::text(self, bust)
    }

    /// Hash of the base layer.
    pub fn l0_hash(&self) -> String {
        hash::parts(&[
            "l0/2",
            &self.base,
            base::family_name(self.family),
            &self.l0_text(),
            &tree(&l0::files(self)),
        ])
    }

    /// Hash of the agent layer.
    pub fn l1_hash(&self) -> String {
        hash::parts(&[
            "l1/2",
            &self.selection(),
            &self.l1_text(NO_BUST),
            &tree(&l1::files(self)),
        ])
    }

    /// Build context of both layers.
    pub fn files(&self, bust: &str) -> Files {
        let mut files = l0::files(self);
        files.extend(l1::files(self));
        files.insert(L0_FILE.to_owned(), File::data(self.l0_text()));
        files.insert(L1_FILE.to_owned(), File::data(self.l1_text(bust)));
        files
    }
}

/// A foundation with its texts and hashes at hand. Many projects share one.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// What it is made of.
    pub foundation: Foundation,
    /// Build context of both layers, without a cache-bust value.
    files: Files,
    /// Hash of the base layer.
    pub l0: String,
    /// Hash of the agent layer.
    pub l1: String,
}

impl Rendered {
    /// Renders a foundation once.
    pub fn new(foundation: Foundation) -> Self {
        Self {
            files: foundation.files(NO_BUST),
            l0: foundation.l0_hash(),
            l1: foundation.l1_hash(),
            foundation,
        }
    }
}

/// Everything that a project's image is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The layers below.
    pub base: Arc<Rendered>,
    l2: File,
    /// Hashes of the layers.
    pub hashes: Hashes,
}

impl Context {
    /// The build context of a project.
    pub fn new(base: Arc<Rendered>, project: &ProjectLayer) -> Self {
        let l2 = project.text();
        let hashes = Hashes::new(
            base.l0.clone(),
            base.l1.clone(),
            hash::parts(&["l2/2", &l2]),
        );
        Self {
            base,
            l2: File::data(l2),
            hashes,
        }
    }

    /// All files by relative path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        let below = self
            .base
            .files
            .iter()
            .map(|(path, file)| (path.as_str(), file));
        below.chain([(L2_FILE, &self.l2)])
    }
}

/// The words as one instruction over several lines.
fn wrapped(words: &[&str]) -> String {
    words
        .chunks(8)
        .map(|chunk| format!("      {}", chunk.join(" ")))
        .collect::<Vec<_>>()
        .join(" \\\n")
}

/// The family's way to install packages and leave nothing behind.
fn install_packages(family: Family, words: &[&str]) -> String {
    let words = wrapped(words);
    match family {
        Family::Deb => format!(
            "RUN apt-get update -q \\\n && apt-get install -y -q --no-install-recommends \\\n{words} \\\n && rm -rf /var/lib/apt/lists/*\n"
        ),
        Family::Rpm => format!(
            "RUN dnf install -y --setopt=install_weak_deps=False \\\n{words} \\\n && dnf clean all\n"
        ),
    }
}

fn copy_program(from: &str, to: &str) -> String {
    format!("COPY --chmod=0755 {from} {to}\n")
}

fn copy_data(from: &str, to: &str) -> String {
    format!("COPY --chmod=0644 {from} {to}\n")
}
