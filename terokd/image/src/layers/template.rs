//! The little that install steps of roster files may depend on: the package family.
//!
//! `{% if family == "deb" %}`, `{% else %}`, `{% endif %}` and `{{ family }}`; anything else in such braces is an error.

use crate::base::family_name;
use terok_proto::config::Family;

/// The text for one family.
///
/// # Errors
/// Line and what is wrong there.
pub(crate) fn render(text: &str, family: Family) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    // Whether text is wanted now, and whether it was in the first half; null outside of a condition.
    let mut branch: Option<(bool, bool)> = None;
    let mut rest = text;
    loop {
        let next = rest
            .match_indices('{')
            .find(|(at, _)| matches!(rest.as_bytes().get(at + 1), Some(b'%' | b'{')));
        let wanted = branch.is_none_or(|(wanted, _)| wanted);
        let Some((at, _)) = next else {
            if branch.is_some() {
                return Err("a condition has no `{% endif %}`".to_owned());
            }
            out.push_str(rest);
            return Ok(out);
        };
        if wanted {
            out.push_str(&rest[..at]);
        }
        rest = &rest[at..];
        let start = text.len() - rest.len();
        // Counted for errors only.
        let line = || 1 + text[..start].matches('\n').count();
        let (open, rest_after) = rest.split_at(2);
        let close = if open == "{%" { "%}" } else { "}}" };
        let Some((inside, after)) = rest_after.split_once(close) else {
            return Err(format!("line {}: `{open}` has no `{close}`", line()));
        };
        let inside = inside.trim();
        rest = after;
        if open == "{{" {
            if inside != "family" {
                return Err(format!(
                    "line {}: only `{{{{ family }}}}` can be inserted",
                    line()
                ));
            }
            if wanted {
                out.push_str(family_name(family));
            }
            continue;
        }
        let words: Vec<&str> = inside.split_whitespace().collect();
        branch = match (words.as_slice(), branch) {
            (["if", "family", "==", word], None) => {
                let word = word.trim_matches(['"', '\'']);
                let holds = match word {
                    "deb" | "rpm" => word == family_name(family),
                    _ => return Err(format!("line {}: family is \"deb\" or \"rpm\"", line())),
                };
                Some((holds, holds))
            }
            (["else"], Some((wanted, first))) if wanted == first => Some((!first, first)),
            (["endif"], Some(_)) => None,
            _ => {
                return Err(format!(
                    "line {}: only `if family == \"deb\"`, `else` and `endif` are known here",
                    line()
                ));
            }
        };
        // A tag on a line of its own leaves no blank line.
        if out.ends_with('\n') || out.is_empty() {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_is_chosen() {
        let text = "A\n{% if family == \"deb\" %}\nRUN apt\n{% else %}\nRUN dnf\n{% endif %}\nRUN echo {{ family }}\n";
        assert_eq!(
            render(text, Family::Deb).expect("deb"),
            "A\nRUN apt\nRUN echo deb\n"
        );
        assert_eq!(
            render(text, Family::Rpm).expect("rpm"),
            "A\nRUN dnf\nRUN echo rpm\n"
        );
        assert_eq!(
            render("RUN a ${b} {c}", Family::Rpm).expect("plain"),
            "RUN a ${b} {c}"
        );
    }

    #[test]
    fn anything_else_in_braces_is_an_error() {
        for (text, told) in [
            ("a\n{{ name }}", "line 2"),
            ("{% if family == \"deb\" %}", "endif"),
            ("{% if family == \"arch\" %}{% endif %}", "deb"),
            ("{% for x %}", "line 1"),
            ("{% else %}", "line 1"),
            ("{% endif %}", "line 1"),
            (
                "{% if family == \"deb\" %}{% else %}{% else %}{% endif %}",
                "line 1",
            ),
            (
                "{% if family == \"deb\" %}{% if family == \"deb\" %}",
                "line 1",
            ),
            ("x {{", "no `}}`"),
        ] {
            let error = render(text, Family::Rpm).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
