//! Strings as YAML scalars that read back the same in every reader, of version 1.1 and 1.2.

use std::fmt::Write;

/// A string as one line of YAML: bare where no reader can take it for anything else, else double-quoted.
pub fn scalar(value: &str) -> String {
    if is_plain(value) {
        value.to_owned()
    } else {
        double_quoted(value)
    }
}

/// A string in double quotes, everything unprintable escaped.
pub fn double_quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                // Writing to a string cannot fail.
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02X}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    code => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character may stand in a file as it is, for every reader.
pub(crate) fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !matches!(code, 0x2028 | 0x2029 | 0xfeff) && code & 0xfffe != 0xfffe
}

/// Whether bare text is a string in block and flow context, whatever the reader's version.
fn is_plain(value: &str) -> bool {
    let bytes = value.as_bytes();
    let Some((&first, rest)) = bytes.split_first() else {
        return false;
    };
    let starts = first.is_ascii_alphabetic()
        || first == b'/'
        || first == b'_'
        // A dash before a letter is no list item; before a digit or a dot it could be a number.
        || (first == b'-' && rest.first().is_some_and(u8::is_ascii_alphabetic));
    // The last byte may be anything but a colon or blank; blanks and commas are left to quotes altogether, except
    // for the comma of selections, which is special only in flow context.
    let plain = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.' | b'+' | b'@' | b'=')
    };
    starts
        && rest.iter().enumerate().all(|(i, &b)| {
            plain(b) || (b == b':' && rest.get(i + 1).is_some_and(|&next| plain(next)))
        })
        && !is_word(value)
}

/// Bare words that some reader takes for a boolean, null or number.
fn is_word(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let lower = lower.strip_prefix('-').unwrap_or(&lower);
    matches!(
        lower,
        "y" | "n"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "true"
            | "false"
            | "null"
            | "inf"
            | "nan"
            | "infinity"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubtful_words_are_quoted() {
        for bare in ["claude", "-vibe", "/srv/g.git", "a-b_c.d", "ubuntu:24.04"] {
            assert_eq!(scalar(bare), bare);
        }
        for quoted in [
            "",
            " ",
            "yes",
            "NO",
            "on",
            "true",
            "Null",
            "~",
            "12",
            "1_0",
            "0x1F",
            "12:30",
            "2024-01-01",
            "-1",
            "-.5",
            "-inf",
            ".nan",
            "a: b",
            "a #b",
            "a:",
            "-",
            "- a",
            "--a",
            "*a",
            "&a",
            "!a",
            "a,b",
            "é",
            "a\nb",
            "\"",
            "[a]",
            "{a}",
            "%a",
            "@a",
            "`a",
            "<<",
            "=",
            "a b",
        ] {
            assert!(scalar(quoted).starts_with('"'), "{quoted}");
        }
    }

    #[test]
    fn quoted_text_reads_back() {
        for value in [
            "a\"b\\c",
            "\u{0}\u{1b}\u{85}\u{a0}\u{2028}\u{feff}\u{ffff}\u{10ffff}",
            "tab\tnl\ncr\r",
            "žluť 🐎",
        ] {
            let read: String = serde_yaml::from_str(&double_quoted(value)).expect(value);
            assert_eq!(read, value);
        }
    }
}
