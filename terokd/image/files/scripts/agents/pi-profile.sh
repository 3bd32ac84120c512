# Pi asks for nothing at its start, and uses the token of Claude.
export PI_OFFLINE=1
if [ -n "${CLAUDE_CODE_OAUTH_TOKEN:-}" ]; then
  export ANTHROPIC_OAUTH_TOKEN="$CLAUDE_CODE_OAUTH_TOKEN"
fi
