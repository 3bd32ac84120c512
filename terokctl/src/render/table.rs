//! Tables and records: aligned for humans, separated by tabs for programs.

use super::{Style, plain, size};
use serde_json::Value;

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    header: &'static str,
    /// JSON pointer into a row.
    pointer: &'static str,
    show: Show,
}

/// How a cell is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Show {
    /// As any value.
    Plain,
    /// A number of bytes: for humans with a unit.
    Size,
    /// A marker if the value is there and true.
    Mark(&'static str),
    /// What a function makes of the row's value.
    With(fn(&Value) -> String),
}

impl Column {
    /// A column of plain values.
    pub(crate) const fn new(header: &'static str, pointer: &'static str) -> Self {
        Self {
            header,
            pointer,
            show: Show::Plain,
        }
    }

    /// The same with another way to show its cells.
    pub(crate) const fn show(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    fn cell(&self, row: &Value, terminal: bool) -> String {
        let value = row.pointer(self.pointer).unwrap_or(&Value::Null);
        match self.show {
            Show::Size if terminal => value.as_u64().map(size).unwrap_or_default(),
            Show::Plain | Show::Size => plain(value),
            Show::Mark(mark) => match value {
                Value::Bool(true) => mark.to_owned(),
                _ => String::new(),
            },
            Show::With(make) => plain(&Value::String(make(value))),
        }
    }

    const fn is_number(&self) -> bool {
        matches!(self.show, Show::Size)
    }
}

/// Rows under columns.
pub(super) fn table(columns: &[Column], rows: &[Value], terminal: bool, style: Style) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|c| c.cell(row, terminal)).collect())
        .collect();
    let mut out = String::new();
    if !terminal {
        for row in &cells {
            out.push_str(&row.join("\t"));
            out.push('\n');
        }
        return out;
    }
    if cells.is_empty() {
        return out;
    }
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            cells
                .iter()
                .map(|row| row[at].chars().count())
                .chain([column.header.len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let headers: Vec<String> = columns.iter().map(|c| c.header.to_owned()).collect();
    out.push_str(&style.strong(&aligned(columns, &headers, &widths)));
    out.push('\n');
    for row in &cells {
        out.push_str(&aligned(columns, row, &widths));
        out.push('\n');
    }
    out
}

fn aligned(columns: &[Column], row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((column, cell), width) in columns.iter().zip(row).zip(widths) {
        let missing = " ".repeat(width.saturating_sub(cell.chars().count()));
        if column.is_number() {
            line.push_str(&missing);
            line.push_str(cell);
        } else {
            line.push_str(cell);
            line.push_str(&missing);
        }
        line.push_str("  ");
    }
    line.truncate(line.trim_end().len());
    line
}

/// One line per leaf of a value; lists of plain values stay together.
pub(super) fn record(value: &Value, terminal: bool) -> String {
    let mut rows = Vec::new();
    leaves(value, terminal, &mut String::new(), &mut rows);
    let width = rows
        .iter()
        .map(|(path, _)| path.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (path, shown) in rows {
        if terminal {
            let missing = " ".repeat(width - path.chars().count());
            out.push_str(format!("{path}{missing}  {shown}").trim_end());
        } else {
            out.push_str(&format!("{path}\t{shown}"));
        }
        out.push('\n');
    }
    out
}

fn leaves(value: &Value, terminal: bool, path: &mut String, rows: &mut Vec<(String, String)>) {
    let length = path.len();
    let mut below = |step: &str, value: &Value| {
        if length > 0 {
            path.push('.');
        }
        path.push_str(&plain(&Value::from(step)));
        leaves(value, terminal, path, rows);
        path.truncate(length);
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                below(key, value);
            }
        }
        Value::Array(items) if items.iter().any(|v| v.is_object() || v.is_array()) => {
            for (index, value) in items.iter().enumerate() {
                below(&index.to_string(), value);
            }
        }
        Value::Object(_) => rows.push((path.clone(), String::new())),
        leaf => {
            // Bytes are the one unit that humans do not read as it is.
            let last = path.rsplit('.').next().unwrap_or(path);
            let shown = match leaf.as_u64() {
                Some(bytes) if terminal && last.ends_with("_bytes") => {
                    format!("{bytes} ({})", size(bytes))
                }
                _ => plain(leaf),
            };
            rows.push((path.clone(), shown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[
        Column::new("ID", "/id"),
        Column::new("SIZE", "/size").show(Show::Size),
        Column::new("CLASS", "/config/class"),
        Column::new("NOTE", "/note"),
    ];

    fn rows() -> Vec<Value> {
        vec![
            json!({"id": "orion", "size": 12_500_000, "config": {"class": "online"}, "note": null}),
            json!({"id": "é", "size": 7, "config": {"class": "gatekeeping"}, "note": "a\tb\n\u{1b}[31m"}),
            json!({}),
        ]
    }

    #[test]
    fn humans_get_aligned_columns() {
        insta::assert_snapshot!(table(COLUMNS, &rows(), true, Style::PLAIN), @r"
        ID        SIZE  CLASS        NOTE
        orion  12.5 MB  online
        é          7 B  gatekeeping  a b \x1b[31m
        ");
        assert_eq!(table(COLUMNS, &[], true, Style::PLAIN), "");
    }

    #[test]
    fn programs_get_tabs_and_no_header() {
        assert_eq!(
            table(COLUMNS, &rows(), false, Style::PLAIN),
            "orion\t12500000\tonline\t\né\t7\tgatekeeping\ta b \\x1b[31m\n\t\t\t\n"
        );
    }

    #[test]
    fn records_show_every_leaf() {
        let value = json!({"id": "a", "list": ["x", "y"], "deep": {"total_bytes": 1500, "rows": [{"k": true}]}, "none": {}});
        insta::assert_snapshot!(record(&value, true), @r"
        id                a
        list              x, y
        deep.total_bytes  1500 (1.5 kB)
        deep.rows.0.k     yes
        none
        ");
        assert_eq!(record(&json!({"a": {"b": "c\nd"}}), false), "a.b\tc d\n");
    }
}
