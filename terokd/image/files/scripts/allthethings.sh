#!/bin/bash
# Updates what was installed for this user and by the package manager. One that fails does not stop the others.
set -uo pipefail
failed=()

step() {
  local name=$1
  shift
  printf '>> %s\n' "$name"
  "$@" || failed+=("$name")
}

if command -v apt-get >/dev/null; then
  step 'apt lists' sudo apt-get update -q
  step 'apt packages' sudo DEBIAN_FRONTEND=noninteractive apt-get upgrade -q -y
elif command -v dnf >/dev/null; then
  step 'dnf packages' sudo dnf -y -q upgrade
fi
if command -v npm >/dev/null; then
  step 'npm packages' npm update -g --prefix "$HOME/.npm-packages"
fi
if command -v pipx >/dev/null; then
  step 'pipx packages' sudo PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx upgrade-all
fi
if command -v uv >/dev/null; then
  step 'uv tools' uv tool upgrade --all
fi
if command -v claude >/dev/null; then
  step 'claude' claude update
fi
if command -v opencode >/dev/null; then
  step 'opencode' opencode upgrade
fi
if [ "${#failed[@]}" -gt 0 ]; then
  printf '>> not updated: %s\n' "${failed[*]}" >&2
  exit 1
fi
