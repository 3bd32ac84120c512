# shellcheck shell=sh
# Environment of every shell in a terok container: login, interactive and, by BASH_ENV, the others.
# Sourced many times, by different shells; the functions tell whether it was done in this one.

for _terok_dir in "$HOME/.opencode/bin" "$HOME/.local/bin" "$HOME/.npm-packages/bin"; do
  case ":$PATH:" in
    *":$_terok_dir:"*) ;;
    *) PATH=$_terok_dir:$PATH ;;
  esac
done
export PATH
unset _terok_dir

if ! command -v _terok_git_identity >/dev/null 2>&1; then
  # Author and committer of an agent, by the project's policy. Call it in a subshell.
  _terok_git_identity() {
    _terok_human_name=${HUMAN_GIT_NAME:-Nobody}
    _terok_human_email=${HUMAN_GIT_EMAIL:-nobody@localhost}
    case ${TEROK_GIT_AUTHORSHIP:-agent-human} in
      human-agent) set -- "$_terok_human_name" "$_terok_human_email" "$1" "$2" ;;
      agent) set -- "$1" "$2" "$1" "$2" ;;
      human) set -- "$_terok_human_name" "$_terok_human_email" "$_terok_human_name" "$_terok_human_email" ;;
      *) set -- "$1" "$2" "$_terok_human_name" "$_terok_human_email" ;;
    esac
    export GIT_AUTHOR_NAME="$1" GIT_AUTHOR_EMAIL="$2" GIT_COMMITTER_NAME="$3" GIT_COMMITTER_EMAIL="$4"
  }

  _terok_as_human() {
    TEROK_GIT_AUTHORSHIP=human
    _terok_git_identity '' ''
  }

  # What these do on a forge is the human's doing.
  gh() {
    (_terok_as_human && command gh "$@")
  }
  glab() {
    (_terok_as_human && command glab "$@")
  }

  # Bridges to the host do not survive everything; a new shell brings them back.
  if [ -n "${TEROK_SSH_SIGNER_TOKEN:-}${TEROK_VAULT_LOOPBACK_PORT:-}${TEROK_GATE_SOCKET:-}${TEROK_GATE_PORT:-}" ] \
    && [ "$(id -u)" -ne 0 ] && command -v ensure-bridges.sh >/dev/null 2>&1; then
    BASH_ENV='' ensure-bridges.sh >/dev/null 2>&1 || true
  fi
fi

if [ -S /tmp/ssh-agent.sock ]; then
  export SSH_AUTH_SOCK=/tmp/ssh-agent.sock
else
  unset SSH_AUTH_SOCK
fi

if [ -r /usr/local/share/terok/terok-env-wrappers.sh ]; then
  . /usr/local/share/terok/terok-env-wrappers.sh
fi
