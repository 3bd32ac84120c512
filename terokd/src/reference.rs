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
        out.push_str(&schema::markdown(scope));
    }
    out
}
