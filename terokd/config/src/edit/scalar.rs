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
    is_boolean_or_null(lower) || matches!(lower, "inf" | "nan" | "infinity")
}

fn is_boolean_or_null(lower: &str) -> bool {
    matches!(
        lower,
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "~"
    )
}

/// Whether bare text is a boolean, null or number to some reader, of version 1.1 or 1.2, whatever the case.
pub fn is_no_string(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    is_boolean_or_null(&lower) || is_number(unsigned) || lower == ".nan"
}

/// A number of either version without its sign, in lower case.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let of = |text: &str, radix| {
        text.contains(|c: char| c.is_digit(radix))
            && text.chars().all(|c| c.is_digit(radix) || c == '_')
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return of(rest, radix);
        }
    }
    if text == ".inf" {
        return true;
    }
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Sexagesimal: `1:30`, and `1:30.5`.
    let mut groups = whole.split(':');
    let first = groups.next().unwrap_or_default();
    let is_group =
        |group: &str| matches!(group.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    mantissa.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && mantissa.contains(|c: char| c.is_ascii_digit())
        && digits(first)
        && groups.all(is_group)
        && digits(part)
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
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
    fn what_no_reader_takes_for_anything_else_is_a_string() {
        for other in [
            "true",
            "True",
            "FALSE",
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "N",
            "null",
            "NULL",
            "~",
            "0",
            "12",
            "-1",
            "+1",
            "007",
            "1_000",
            "0x1F",
            "0o17",
            "0b1010",
            "1.5",
            "1.",
            ".5",
            "1e3",
            "1E-3",
            "-1.5e+3",
            "1:30",
            "-190:20:30",
            "190:20:30.15",
            ".inf",
            "-.INF",
            "+.Inf",
            ".NaN",
        ] {
            assert!(is_no_string(other), "{other}");
            assert!(scalar(other).starts_with('"'), "{other}");
        }
        for string in [
            "",
            "claude",
            "-vibe",
            "trueish",
            "not",
            "-true",
            "1password",
            "0xyz",
            "0x",
            "1e",
            "e3",
            ".",
            "-",
            "--1",
            "1.2.3",
            "1:60:x",
            "1,2",
            "[1]",
            "{a: 1}",
            "_1",
            "inf",
            "nan",
            "1:",
            "0x_",
            "-.nan",
            "\u{661}",
        ] {
            assert!(!is_no_string(string), "{string}");
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
