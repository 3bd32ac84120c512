#!/bin/sh
# Runs as root after everything was installed: what depends on the selection as a whole.
# Arguments: the selection, comma-separated.
set -eu

share=/usr/local/share/terok

printf 'TEROK_INSTALLED_AGENTS=%s\n' "$1" >/etc/terok/installed.env
install -m 0644 -o dev -g dev /dev/null /etc/terok/versions.json

# Toad keeps its list of agents with its own files.
agents=$(find /home/dev/.local/share/uv/tools/batrachian-toad -type d -path '*/toad/data/agents' 2>/dev/null | head -n 1)
if [ -n "$agents" ] && [ -d "$share/toad-agents" ]; then
  install -m 0644 -o dev -g dev "$share"/toad-agents/*.toml "$agents/"
fi
