//! The rpm family with a real `dnf` and real packages. They are made here and hold no files: what they would bring is
//! Debian's, which has no `apt-get` any more.

use super::super::real::{podman, start};
use super::{build, can_be_reached, layers, run};
use serde_json::json;
use std::fs;
use terok_tests::World;

const BASE: &str = "localhost/fedora:44";

/// What the layers ask `dnf` for, by the names that Fedora has for it.
const PACKAGES: &str = "ca-certificates curl gnupg2 git glibc-langpack-en openssh-clients openssh-server socat sudo \
    ripgrep vim tmux tzdata python3 python3-pip python-unversioned-command pipx fd-find jq unzip wget";

const MAKE: &str = r#"#!/bin/bash
set -euo pipefail
apt-get update -q
apt-get install -y -q --no-install-recommends dnf rpm createrepo-c ca-certificates curl gnupg git openssh-client \
  openssh-server socat sudo ripgrep vim-tiny tmux tzdata python3 python3-pip python3-venv python-is-python3 pipx \
  fd-find jq unzip wget procps
mkdir -p /opt/rpms
for name in PACKAGES; do
  cat >/tmp/package.spec <<SPEC
Name: $name
Version: 1
Release: 1
Summary: stand-in
License: none
BuildArch: noarch
%description
%files
SPEC
  rpmbuild --quiet --define '_rpmdir /opt/rpms' -bb /tmp/package.spec
done
createrepo_c --quiet /opt/rpms
mkdir -p /etc/yum.repos.d
printf '[here]\nname=here\nbaseurl=file:///opt/rpms\ngpgcheck=0\n' >/etc/yum.repos.d/here.repo
printf 'ID=fedora\nVERSION_ID=44\n' >/etc/os-release
ln -s /usr/bin/fdfind /usr/bin/fd
mkdir -p /etc/pki/ca-trust/source/anchors /etc/pki/tls/certs
ln -s /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
printf '#!/bin/sh\ncat /etc/pki/ca-trust/source/anchors/* >>/etc/ssl/certs/ca-certificates.crt\n' >/usr/bin/update-ca-trust
chmod 0755 /usr/bin/update-ca-trust
# As Fedora has it: nobody may read it, and PAM's module for passwords needs to.
chmod 0 /etc/shadow
rm /usr/bin/apt-get /usr/bin/apt
"#;

fn base() {
    let debian = std::env::var("TEROK_TEST_BASE_IMAGE").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("make", &MAKE.replace("PACKAGES", PACKAGES));
    write("yq", "#!/bin/sh\necho yq version v4.52.4\n");
    let place = "/opt/releases/mikefarah/yq/releases/download/v4.52.4";
    write(
        "Dockerfile",
        &format!(
            "FROM {debian}\nCOPY make /root/make\nRUN bash /root/make\nCOPY yq {place}/yq_linux_amd64\n\
             COPY yq {place}/yq_linux_arm64\nENV TEROK_RELEASES=file:///opt/releases\n"
        ),
    );
    let place = dir.path().to_str().unwrap();
    podman(&["build", "-q", "--pull=never", "-t", BASE, place]);
}

#[test]
#[ignore = "needs podman-test-env"]
fn the_rpm_family_is_installed_and_runs() {
    base();
    // The family is told by the name of the base.
    let yml = format!(
        "project: {{security_class: online}}\nimage: {{base_image: '{BASE}', agents: codex}}\n"
    );
    let world = World::new().project("hat", &yml);
    if let Ok(bundle) = std::env::var("SSL_CERT_FILE") {
        let network = format!("network: {{ca_bundle: '{bundle}'}}\n");
        world.write("$CONFIG/terokd.yml", network);
    }
    let daemon = start(&world);
    let built = build(&daemon, json!({"project_id": "hat"}));
    assert_eq!(
        layers(&built),
        [("l0", false), ("l1", false), ("l2-cli", false)]
    );
    let state = daemon.ok("project.state", json!({"project_id": "hat"}));
    assert_eq!(state["stale_layers"], json!([]), "{state}");

    let is = |command: &str, expected: &str| assert_eq!(run("hat", command), expected, "{command}");
    let mut packages: Vec<&str> = PACKAGES.split_whitespace().collect();
    packages.sort_unstable();
    is(
        "sudo -H rpm -qa --queryformat '%{NAME}\\n' | LC_ALL=C sort",
        &packages.join("\n"),
    );
    is("id -un; id -u; pwd; sudo id -u", "dev\n1000\n/workspace\n0");
    is("codex --version | cut -d' ' -f1", "codex-cli");
    is(
        "node --version | cut -d. -f1; yq --version",
        "v22\nyq version v4.52.4",
    );
    is(
        "tail -n 1 /etc/bashrc | grep -c terok-env; find /var/cache/dnf -name '*.solv*'",
        "1",
    );
    can_be_reached("hat");
}
