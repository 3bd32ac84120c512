#!/bin/bash
set -euo pipefail
mkdir -p "$HOME/.local/bin"
if curl -fsSL --retry 2 --connect-timeout 10 -o /tmp/claude-install.sh https://claude.ai/install.sh; then
  bash /tmp/claude-install.sh
  rm -f /tmp/claude-install.sh
else
  echo 'the installer cannot be reached: taking Claude from npm' >&2
  npm install -g @anthropic-ai/claude-code
  ln -sf "$HOME/.npm-packages/bin/claude" "$HOME/.local/bin/claude"
fi
claude=$(readlink -f "$HOME/.local/bin/claude")
"$claude" --version

# The adapter's kit looks for its own copy of the program, which is not installed twice.
npm install -g --omit=optional @agentclientprotocol/claude-agent-acp
modules=$NPM_CONFIG_PREFIX/lib/node_modules/@agentclientprotocol/claude-agent-acp/node_modules/@anthropic-ai
case $(uname -m) in
  x86_64) arch=x64 ;;
  aarch64) arch=arm64 ;;
  *) arch= ;;
esac
if [ -n "$arch" ]; then
  platform=$modules/claude-agent-sdk-linux-$arch
  for found in "$modules"/claude-agent-sdk-linux-"$arch"*; do
    [ ! -d "$found" ] || platform=$found
  done
  mkdir -p "$platform"
  ln -sf "$claude" "$platform/claude"
fi
npm cache clean --force >/dev/null 2>&1
rm -rf "$HOME/.cache"
