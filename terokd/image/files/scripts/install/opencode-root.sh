#!/bin/sh
set -eu
share=/usr/local/share/terok/agents
for name in opencode-provider opencode-provider-acp opencode-provider-toad; do
  install -m 0755 "$share/opencode-provider.py" "/usr/local/bin/$name"
done
