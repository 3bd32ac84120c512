//! The selection grammar: which roster entries a project's image holds.
//!
//! Owns parsing and resolution of `image.agents`. The user's text is what is stored; this only reads it.

use crate::edit::is_no_string;
use crate::roster::Roster;
use std::collections::BTreeSet;
use terok_proto::{Fault, Kind};

/// Names that an error quotes at most.
const MAX_NAMED: usize = 20;

/// A parsed selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything installable.
    All,
    /// Tokens in the user's order, `-name` excludes.
    Tokens(Vec<String>),
}

/// What a selection comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Names, sorted; possibly none.
    pub names: Vec<String>,
    /// What is doubtful about the selection.
    pub warnings: Vec<String>,
}

/// Reads a selection; blank or only commas means everything.
pub fn parse(raw: &str) -> Selection {
    let text = raw.trim_matches(is_blank).to_lowercase();
    if text.is_empty() || text == "all" {
        return Selection::All;
    }
    let tokens: Vec<String> = text
        .split(',')
        .map(|token| token.trim_matches(is_blank))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        Selection::All
    } else {
        Selection::Tokens(tokens)
    }
}

/// Parses and resolves a selection against a roster.
pub fn resolve_text(raw: &str, roster: &Roster) -> Result<Resolved, Fault> {
    resolve(&parse(raw), roster)
}

/// Fails if a selection cannot be resolved, unless it is text that YAML would not read as a string, such as `true`:
/// that names nobody and is kept as text.
pub fn check_text(raw: &str, roster: &Roster) -> Result<(), Fault> {
    if is_no_string(raw.trim_matches(is_blank)) {
        return Ok(());
    }
    resolve_text(raw, roster).map(drop)
}

/// The names that a selection stands for. Unknown names are `unknown_agent`, with all available ones.
pub fn resolve(selection: &Selection, roster: &Roster) -> Result<Resolved, Fault> {
    let available = roster.installable();
    let tokens = match selection {
        Selection::All => {
            return Ok(Resolved {
                names: available.into_iter().map(str::to_owned).collect(),
                warnings: Vec::new(),
            });
        }
        Selection::Tokens(tokens) => tokens,
    };
    let excludes: BTreeSet<&str> = tokens.iter().filter_map(|t| t.strip_prefix('-')).collect();
    let includes: BTreeSet<&str> = tokens
        .iter()
        .map(String::as_str)
        .filter(|t| !t.starts_with('-'))
        .collect();
    let unknown: BTreeSet<&str> = includes
        .union(&excludes)
        .copied()
        .filter(|name| *name != "all" && !available.contains(name))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown_agents(&unknown, &available));
    }
    let everything = includes.contains("all") || includes.is_empty();
    let mut chosen = if everything {
        available.clone()
    } else {
        close(&includes, roster, &available)?
    };
    chosen.retain(|name| !excludes.contains(name));
    let warnings = warnings(&chosen, &excludes, roster);
    Ok(Resolved {
        names: chosen.into_iter().map(str::to_owned).collect(),
        warnings,
    })
}

/// Unicode white space, and the four separators that count as such in selections.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn close<'a>(
    seed: &BTreeSet<&'a str>,
    roster: &'a Roster,
    available: &BTreeSet<&'a str>,
) -> Result<BTreeSet<&'a str>, Fault> {
    let mut chosen = seed.clone();
    let mut open: Vec<&str> = seed.iter().copied().collect();
    while let Some(name) = open.pop() {
        for needed in roster.definition(name).map_or(&[][..], |d| d.depends_on()) {
            if !available.contains(needed.as_str()) {
                return Err(Fault::new(
                    Kind::UnknownAgent,
                    format!("`{name}` depends on `{needed}`, which cannot be installed"),
                )
                .with("unknown", vec![needed.as_str()])
                .with("available", available.iter().copied().collect::<Vec<_>>()));
            }
            if chosen.insert(needed) {
                open.push(needed);
            }
        }
    }
    Ok(chosen)
}

fn warnings(chosen: &BTreeSet<&str>, excludes: &BTreeSet<&str>, roster: &Roster) -> Vec<String> {
    let mut out = Vec::new();
    if excludes.contains("all") {
        out.push("`-all` has no effect; list what to leave out by name".to_owned());
    }
    if chosen.is_empty() {
        out.push("the selection leaves nothing to install".to_owned());
    }
    for excluded in excludes {
        let dependents: Vec<&str> = chosen
            .iter()
            .copied()
            .filter(|name| {
                roster
                    .definition(name)
                    .is_some_and(|d| d.depends_on().iter().any(|needed| needed == excluded))
            })
            .collect();
        if !dependents.is_empty() {
            out.push(format!(
                "`-{excluded}` leaves out what {} needs to run",
                dependents.join(", ")
            ));
        }
    }
    out
}

fn unknown_agents(unknown: &BTreeSet<&str>, available: &BTreeSet<&str>) -> Fault {
    let named: Vec<String> = unknown
        .iter()
        .take(MAX_NAMED)
        .map(|name| name.chars().take(80).collect())
        .collect();
    let quoted: Vec<String> = named.iter().map(|name| format!("`{name}`")).collect();
    let available: Vec<&str> = available.iter().copied().collect();
    Fault::new(
        Kind::UnknownAgent,
        format!(
            "unknown agents: {}; available: {}",
            quoted.join(", "),
            available.join(", ")
        ),
    )
    .with("unknown", named)
    .with("available", available)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(raw: &str) -> Vec<String> {
        resolve_text(raw, &Roster::bundled()).expect(raw).names
    }

    fn warned(raw: &str) -> Vec<String> {
        resolve_text(raw, &Roster::bundled()).expect(raw).warnings
    }

    #[test]
    fn dependencies_come_along() {
        assert_eq!(names("blablador"), ["blablador", "opencode"]);
        assert_eq!(names("toad"), ["caddy", "toad"]);
        assert_eq!(names("Claude , claude"), ["claude"]);
    }

    #[test]
    fn everything_is_meant_by_nothing() {
        for raw in ["", " ", ",", "all", "ALL", "-all", "all,claude"] {
            assert_eq!(names(raw).len(), 14, "{raw:?}");
        }
    }

    #[test]
    fn doubtful_selections_are_warned_about() {
        assert!(warned("claude,vibe").is_empty());
        assert!(warned("-vibe").is_empty());
        assert!(warned("claude,-claude")[0].contains("nothing"));
        assert!(warned("-all")[0].contains("no effect"));
        assert!(warned("-opencode")[0].contains("blablador, kisski, openrouter"));
    }

    #[test]
    fn text_that_is_no_string_to_yaml_names_nobody() {
        let check = |raw| check_text(raw, &Roster::bundled());
        for raw in ["true", " Off ", "~", "12", "claude,-vibe", ""] {
            assert_eq!(check(raw).map_err(|f| f.message), Ok(()), "{raw:?}");
        }
        for raw in ["truth", "true,claude", "true,false", "-true", "[true]"] {
            assert_eq!(check(raw).expect_err(raw).kind, Kind::UnknownAgent);
        }
    }

    #[test]
    fn unknown_names_are_listed_with_the_known_ones() {
        for raw in ["coderabbit", "claud", "-nosuch", "all,-", "--vibe"] {
            let fault = resolve_text(raw, &Roster::bundled()).expect_err(raw);
            assert_eq!(fault.kind, Kind::UnknownAgent);
            assert!(fault.message.contains("claude, codex"), "{fault}");
        }
        let fault = resolve_text("b,a,claude", &Roster::bundled()).expect_err("unknown");
        assert_eq!(fault.data["unknown"], serde_json::json!(["a", "b"]));
    }
}
