//! Text about SSH keys.

use terok_proto::error::printable_line;
use terok_proto::project::SshInitResult;

/// A freshly bound SSH key for humans (`projects.md` §12.2).
pub fn ssh_summary(result: &SshInitResult) -> String {
    let rows = [
        ("Key id:", result.key_id.to_string()),
        ("Type:", printable_line(&result.key_type)),
        ("Fingerprint:", printable_line(&result.fingerprint)),
        ("Comment:", printable_line(&result.comment)),
    ];
    let mut lines: Vec<String> = rows
        .iter()
        .map(|(label, value)| format!("{label:<13}{value}").trim_end().to_owned())
        .collect();
    lines.push("Public key, to be registered as deploy key:".to_owned());
    lines.push(format!("  {}", printable_line(&result.public_line)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_aligned() {
        let text = ssh_summary(&SshInitResult {
            key_id: 7,
            key_type: "ed25519".into(),
            fingerprint: "SHA256:x".into(),
            comment: "tk-main:orion\u{1b}[2J".into(),
            public_line: "ssh-ed25519 AAAA tk-main:orion".into(),
            ..SshInitResult::default()
        });
        assert_eq!(
            text,
            "Key id:      7\nType:        ed25519\nFingerprint: SHA256:x\nComment:     tk-main:orion\\x1b[2J\n\
             Public key, to be registered as deploy key:\n  ssh-ed25519 AAAA tk-main:orion"
        );
    }
}
