//! Any text as the id it suggests.

use crate::selection::is_blank;
use unicode_casefold::UnicodeCaseFold;

/// Folds case, turns white space into dashes and drops what an id cannot hold. Idempotent; possibly empty.
pub fn slugify(raw: &str) -> String {
    let mut dashed = String::with_capacity(raw.len());
    let mut in_blank = false;
    for c in raw.case_fold() {
        let blank = is_blank(c);
        if blank && !in_blank {
            dashed.push('-');
        } else if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_') {
            dashed.push(c);
        }
        in_blank = blank;
    }
    let mut slug = String::with_capacity(dashed.len());
    for c in dashed.chars() {
        if c != '-' || !slug.ends_with('-') {
            slug.push(c);
        }
    }
    slug.trim_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_table() {
        for (raw, want) in [
            ("My Project", "my-project"),
            ("  edgy  ", "edgy"),
            ("foo   ---   bar", "foo-bar"),
            ("-_proj_-", "proj"),
            ("--a--b__", "a-b"),
            ("my__proj", "my__proj"),
            ("x--_--y", "x-_-y"),
            ("a_-b", "a_-b"),
            ("-9-", "9"),
            ("node.js app", "nodejs-app"),
            ("C++ tool", "c-tool"),
            ("a & b", "a-b"),
            ("Don't panic", "dont-panic"),
            ("ÄÖÜ Straße", "strasse"),
            ("über-app", "ber-app"),
            ("İstanbul", "istanbul"),
            ("Ⅷ proj", "proj"),
            ("tab\tsep", "tab-sep"),
            ("Ａpp", "pp"),
            ("\u{fb01}t \u{212a}", "fit-k"),
            ("a\u{1c}\u{85}\u{a0}\u{2003}b", "a-b"),
            ("!!!", ""),
            ("日本語", ""),
        ] {
            assert_eq!(slugify(raw), want, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn is_idempotent_and_yields_ids(raw in any::<String>()) {
            let slug = slugify(&raw);
            prop_assert_eq!(slugify(&slug), slug.clone());
            prop_assert!(slug.is_empty() || crate::id::is_valid(&slug));
        }
    }
}
