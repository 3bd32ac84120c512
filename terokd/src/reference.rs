//! The generated configuration reference.

use terok_config::schema;
use terok_proto::config::Scope;

/// All three files, from the tables that validate them.
pub fn config() -> String {
    let mut out = String::from(
        "<!-- Generated from the configuration tables by `make reference`; do not edit. -->\n\n# Configuration\n",
    );
    for scope in [Scope::Global, Scope::Project, Scope::Terokd] {
        out.push('\n');
        // Each page is a chapter of this one.
        for line in schema::markdown(scope).lines() {
            let deeper = if line.starts_with('#') { "#" } else { "" };
            out.push_str(&format!("{deeper}{line}\n"));
        }
    }
    out
}
