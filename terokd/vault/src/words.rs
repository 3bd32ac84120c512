//! Splitting a command line by the shell's rules for words and quotes. Nothing is expanded, `#` is an ordinary character.

use zeroize::Zeroizing;

/// The words, or `None` if a quote or a backslash is left open.
pub(crate) fn split(text: &str) -> Option<Vec<Zeroizing<String>>> {
    let mut words = Vec::new();
    let mut word: Option<Zeroizing<String>> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(split(text)?.iter().map(|w| w.to_string()).collect())
    }

    #[test]
    fn splits_as_a_shell_does() {
        for (text, expected) in [
            ("pass show terok", vec!["pass", "show", "terok"]),
            ("  a\t b\n", vec!["a", "b"]),
            ("a 'b c'd \"e \\\" f\" ''", vec!["a", "b cd", "e \" f", ""]),
            (r"a\ b \#c #d", vec!["a b", "#c", "#d"]),
            (r#""\n$x""#, vec![r"\n$x"]),
            ("", vec![]),
        ] {
            assert_eq!(
                words(text),
                Some(expected.into_iter().map(String::from).collect()),
                "{text}"
            );
        }
        for open in ["a 'b", "\"a", "a\\", "\"a\\"] {
            assert_eq!(words(open), None, "{open}");
        }
    }
}
