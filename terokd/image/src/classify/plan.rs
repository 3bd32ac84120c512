//! What to ask Podman for, image by image, so that nothing but orphans goes.

use super::{Image, Listed, NONE, Name, Store};
use serde_json::Value;
use std::collections::BTreeSet;
use terok_proto::Fault;

/// An image that a client names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Hex digits of an id, at least twelve.
    id: Option<String>,
    /// A name.
    name: Option<Name>,
    /// How the result calls it if it is not removed.
    pub shown: String,
}

impl Wanted {
    /// An image id, a full name as lists have it, or an `ImageInfo`.
    ///
    /// # Errors
    /// `invalid_argument` for anything else.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        let invalid = || {
            Fault::invalid_argument(
                "`images` holds image ids, full names or entries of `list_images`",
            )
            .with("key", "images")
        };
        match value {
            Value::String(text) => Self::from_text(text).ok_or_else(invalid),
            Value::Object(map) => {
                let field = |key: &str| map.get(key).and_then(Value::as_str);
                let id = field("image_id").and_then(id_digits).ok_or_else(invalid)?;
                let name = match (field("repository"), field("tag")) {
                    (Some(repository), Some(tag)) if repository != NONE => Some(Name {
                        repository: repository.to_owned(),
                        tag: tag.to_owned(),
                    }),
                    _ => None,
                };
                Ok(Self {
                    shown: super::full_name(&id, name.as_ref()),
                    id: Some(id),
                    name,
                })
            }
            _ => Err(invalid()),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.len() > 512 {
            return None;
        }
        let dangling = text
            .strip_prefix(NONE)
            .and_then(|rest| rest.trim_start().strip_prefix('('))
            .and_then(|rest| rest.strip_suffix(')'));
        let id = id_digits(dangling.unwrap_or(text));
        if id.is_none() && dangling.is_some() {
            return None;
        }
        let name = id.is_none().then(|| Name::parse(text));
        Some(Self {
            id,
            name,
            shown: text.to_owned(),
        })
    }

    fn means(&self, image: &Image) -> bool {
        self.id.as_ref().is_none_or(|id| {
            let hex = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
            hex.starts_with(id.as_str())
        })
    }
}

/// Digits of an id that is long enough to mean one image.
fn id_digits(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let fits = (12..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| hex.to_ascii_lowercase())
}

/// One image to remove, or to take names from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Names for the result.
    pub full_names: Vec<String>,
    /// The image.
    pub id: String,
    /// Names to remove one by one; the image goes with its last one. None: it is removed by id. Never by force.
    pub names: Vec<String>,
}

/// What to remove, in order, and what not to touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order. Once all were tried, a new plan from a new snapshot finds what was hidden below, until one makes
    /// no progress.
    pub removals: Vec<Removal>,
    /// What the rules do not let go, as the client called it.
    pub refused: Vec<String>,
}

impl Store<'_> {
    /// Everything that nobody needs any more.
    pub fn plan_cleanup(&self) -> Plan {
        let orphans = self.orphaned();
        Plan {
            removals: orphans
                .iter()
                .map(|listed| self.removal(listed, None))
                .collect(),
            refused: Vec::new(),
        }
    }

    /// The wanted images as far as they are orphans now, or base layers that nothing needs: see
    /// [`Store::unused_base_images`] for `needed`; without it no base layer goes.
    pub fn plan_removal(&self, wanted: &[Wanted], needed: Option<&BTreeSet<String>>) -> Plan {
        let orphans = self.orphaned();
        let mut unused = needed
            .map(|needed| self.unused_base_images(needed))
            .unwrap_or_default();
        unused.retain(|listed| self.is_ours(listed.image));
        let mut plan = Plan::default();
        for wanted in wanted {
            let matching: Vec<&Listed<'_>> = orphans
                .iter()
                .chain(&unused)
                .filter(|listed| wanted.means(listed.image))
                .collect();
            let removals: Vec<Removal> = matching
                .iter()
                .map(|listed| self.removal(listed, wanted.name.as_ref()))
                .filter(|removal| wanted.name.is_none() || !removal.names.is_empty())
                .collect();
            let distinct: BTreeSet<&str> =
                removals.iter().map(|removal| removal.id.as_str()).collect();
            // Digits that could mean two images mean neither.
            if removals.is_empty() || distinct.len() > 1 {
                plan.refused.push(wanted.shown.clone());
                continue;
            }
            for removal in removals {
                if !plan.removals.contains(&removal) {
                    plan.removals.push(removal);
                }
            }
        }
        plan
    }

    /// What is done about an orphan: every name of it that is one goes, or only the given one.
    fn removal(&self, orphan: &Listed<'_>, only: Option<&Name>) -> Removal {
        let is_base = orphan.name.is_some_and(|name| name.project().is_none());
        let names: Vec<String> = match orphan.name {
            None => Vec::new(),
            Some(listed) => orphan
                .image
                .names
                .iter()
                .filter(|name| match name.project() {
                    _ if is_base => *name == listed,
                    Some(project) => self.is_gone(project),
                    None => false,
                })
                // `localhost/` may be left out, as everywhere.
                .filter(|name| {
                    only.is_none_or(|only| name.key() == only.key() && name.tag == only.tag)
                })
                .map(Name::full)
                .collect(),
        };
        let full_names = if names.is_empty() {
            vec![orphan.full_name()]
        } else {
            names.clone()
        };
        Removal {
            full_names,
            id: orphan.image.id.clone(),
            names,
        }
    }

    fn is_gone(&self, project: &str) -> bool {
        matches!(self.projects, super::Projects::Known(known) if !known.contains(project))
    }
}
