//! The base layer: distribution tools, the user `dev`, the workspace, the way to the host.

use super::{
    BASE_ARGUMENT, File, Files, Foundation, copy_data, copy_program, install_packages, shipped,
};
use crate::base::family_name;
use crate::embedded;
use std::borrow::Cow;
use terok_proto::config::Family;

const DEB: &[&str] = &[
    "ca-certificates",
    "curl",
    "gnupg",
    "git",
    "locales",
    "openssh-client",
    "openssh-server",
    "socat",
    "sudo",
    "ripgrep",
    "vim",
    "tmux",
    "tzdata",
];
const RPM: &[&str] = &[
    "ca-certificates",
    "curl",
    "gnupg2",
    "git",
    "glibc-langpack-en",
    "openssh-clients",
    "openssh-server",
    "socat",
    "sudo",
    "ripgrep",
    "vim",
    "tmux",
    "tzdata",
];

/// Programs of the base layer in `/usr/local/bin`.
const PROGRAMS: [&str; 3] = [
    "init-ssh-and-repo.sh",
    "ssh-agent-bridge.sh",
    "ensure-bridges.sh",
];

/// Where the family keeps all trusted certificates, and where additional ones go.
pub(super) fn trust(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Deb => (
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/local/share/ca-certificates/terok/",
        ),
        Family::Rpm => (
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/pki/ca-trust/source/anchors/",
        ),
    }
}

pub(super) fn files(foundation: &Foundation) -> Files {
    let mut files: Files = shipped(embedded::L0).collect();
    if let Some(ca) = &foundation.ca {
        files.extend(ca.files().map(|(path, text)| {
            let text = Cow::Owned(text.to_owned());
            (
                path,
                File {
                    text,
                    executable: false,
                },
            )
        }));
    }
    files
}

pub(super) fn text(foundation: &Foundation) -> String {
    let family = foundation.family;
    let (bundle, anchors) = trust(family);
    let mut text = format!(
        "# Base layer, made by terokd. Changes are overwritten.\n\
         ARG {BASE_ARGUMENT}={base}\n\
         FROM ${{{BASE_ARGUMENT}}}\n\
         USER root\n\
         ENV HOME=/root\n\
         ENV REPO_ROOT=/workspace GIT_RESET_MODE=none LANG=en_US.UTF-8 LC_ALL=en_US.UTF-8 LANGUAGE=en_US:en\n",
        base = foundation.base,
    );
    let has_ca = foundation.ca.is_some();
    if family == Family::Deb {
        text.push_str("ENV DEBIAN_FRONTEND=noninteractive\n");
    }
    if has_ca {
        text.push_str(&format!("COPY --chmod=0644 ca/ {anchors}\n"));
        if family == Family::Deb {
            // Until the package with the certificates is there, a mirror is trusted by ours alone.
            text.push_str(&format!(
                "RUN [ -s {bundle} ] || {{ mkdir -p /etc/ssl/certs && cat {anchors}*.crt > {bundle}; }}\n"
            ));
        } else {
            text.push_str("RUN update-ca-trust\n");
        }
    }
    match family {
        Family::Deb => {
            text.push_str(&install_packages(family, DEB));
            text.push_str("RUN localedef -i en_US -f UTF-8 en_US.UTF-8\n");
        }
        Family::Rpm => text.push_str(&install_packages(family, RPM)),
    }
    if has_ca {
        text.push_str(match family {
            Family::Deb => "RUN update-ca-certificates\n",
            Family::Rpm => "RUN update-ca-trust\n",
        });
        text.push_str(&format!(
            "ENV NODE_EXTRA_CA_CERTS={bundle} PIP_CERT={bundle} SSL_CERT_FILE={bundle}\n"
        ));
    }
    let setup = "/usr/local/lib/terok/l0-setup.sh";
    text.push_str(&copy_program("scripts/build/l0-setup.sh", setup));
    text.push_str(&format!("RUN sh {setup} {}\n", family_name(family)));
    for program in PROGRAMS {
        text.push_str(&copy_program(
            &format!("scripts/{program}"),
            &format!("/usr/local/bin/{program}"),
        ));
    }
    text.push_str(&copy_data("tmux/container-tmux.conf", "/etc/tmux.conf"));
    text.push_str(
        "WORKDIR /workspace\n\
         ENV HOME=/home/dev USER=dev\n\
         USER dev\n\
         CMD [\"init-ssh-and-repo.sh\"]\n",
    );
    text
}
