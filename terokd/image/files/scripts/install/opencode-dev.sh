#!/bin/bash
set -euo pipefail
if curl -fsSL --retry 2 --connect-timeout 10 -o /tmp/opencode-install.sh https://opencode.ai/install; then
  bash /tmp/opencode-install.sh
  rm -f /tmp/opencode-install.sh
else
  echo 'the installer cannot be reached: taking OpenCode from npm' >&2
  npm install -g opencode-ai
  mkdir -p "$HOME/.opencode/bin"
  ln -sf "$HOME/.npm-packages/bin/opencode" "$HOME/.opencode/bin/opencode"
fi
"$HOME/.opencode/bin/opencode" --version
npm cache clean --force >/dev/null 2>&1
