#!/bin/bash
set -euo pipefail
uv tool install --python 3.14 batrachian-toad
agents=$(find "$(uv tool dir)/batrachian-toad" -type d -path '*/toad/data/agents' | head -n 1)
if [ -n "$agents" ]; then
  cp /usr/local/share/terok/toad-agents/*.toml "$agents/" 2>/dev/null || true
fi
uv cache clean
toad --version || true
