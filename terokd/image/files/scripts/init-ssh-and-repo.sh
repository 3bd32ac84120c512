#!/bin/bash
# Prepares a task in its container: permissions of the agents, bridges to the host, SSH, the repository.
# Runs at every start of the container. Local work is only touched in a task that is new, or on request.
set -euo pipefail

export GIT_TERMINAL_PROMPT=0

CODE_REPO=${CODE_REPO:-}
CLONE_FROM=${CLONE_FROM:-}
GIT_BRANCH=${GIT_BRANCH:-}
GIT_RESET_MODE=${GIT_RESET_MODE:-none}
EXTERNAL_REMOTE_URL=${EXTERNAL_REMOTE_URL:-}
GATE_REMOTE_URL=${GATE_REMOTE_URL:-}
AGENT_SOCKET=${TEROK_AGENT_SOCKET:-/tmp/ssh-agent.sock}
CLAUDE_POLICY_DIR=${TEROK_CLAUDE_POLICY_DIR:-/etc/claude-code}

# Credentials in URLs must not reach the log.
redact() {
  sed -u -E 's#([A-Za-z][A-Za-z0-9+.-]*://)[^/[:space:]]*@#\1***@#g'
}

say() {
  printf '>> %s\n' "$*" | redact
}

warn() {
  printf '>> warning: %s\n' "$*" | redact >&2
}

# Runs a command with its output redacted; the status is the command's.
logged() {
  "$@" 2>&1 | redact
  return "${PIPESTATUS[0]}"
}

repo() {
  git -C "$REPO_ROOT" "$@"
}

# --- a microVM starts as root: sshd first, the rest as dev

start_in_microvm() {
  mkdir -p /run/sshd
  (
    while :; do
      /usr/sbin/sshd -D -e -o PermitRootLogin=prohibit-password -o AllowUsers='dev root' \
        -o PermitUserEnvironment=yes || true
      sleep 1
    done
  ) &
  install -d -m 0700 -o dev -g dev /home/dev/.ssh
  local file=/home/dev/.ssh/environment name value
  (umask 077 && : >"$file")
  while IFS= read -r -d '' entry; do
    name=${entry%%=*} value=${entry#*=}
    case $name in
      _ | PWD | OLDPWD | SHLVL | HOME | USER | LOGNAME | SHELL | TERM | BASH* | *[!A-Za-z0-9_]*) continue ;;
    esac
    case $value in
      *$'\n'*) continue ;;
    esac
    printf '%s=%s\n' "$name" "$value" >>"$file"
  done </proc/self/environ
  chown dev:dev "$file"
  exec setpriv --reuid=dev --regid=dev --init-groups env HOME=/home/dev USER=dev "$0" "$@"
}

# --- agents

allow_everything() {
  [ "${TEROK_UNRESTRICTED:-}" = 1 ] && [ -d "$CLAUDE_POLICY_DIR" ] || return 0
  printf '{"permissions": {"defaultMode": "bypassPermissions"}}\n' >"$CLAUDE_POLICY_DIR/managed-settings.json"
}

# --- the way to the host

start_bridges() {
  if command -v ensure-bridges.sh >/dev/null; then
    ensure-bridges.sh || warn "a bridge to the host did not start"
  fi
  if [ -S "$AGENT_SOCKET" ]; then
    export SSH_AUTH_SOCK=$AGENT_SOCKET
  fi
}

prepare_ssh() {
  local dir=$HOME/.ssh
  mkdir -p "$dir"
  chmod 0700 "$dir"
  if ! grep -qs '^[[:space:]]*StrictHostKeyChecking accept-new' "$dir/config"; then
    printf 'Host *\n  StrictHostKeyChecking accept-new\n' >>"$dir/config"
    chmod 0600 "$dir/config"
  fi
}

# --- the repository

marker() {
  printf '%s/.new-task-marker' "$REPO_ROOT"
}

origin_url() {
  repo config --get remote.origin.url || true
}

set_origin() {
  if repo remote get-url origin >/dev/null 2>&1; then
    repo remote set-url origin "$CODE_REPO"
  else
    repo remote add origin "$CODE_REPO"
  fi
  repo config --unset-all remote.origin.pushurl || true
}

is_branch_name() {
  git check-ref-format "refs/heads/$1" && [ "${1#-}" = "$1" ]
}

has_commit() {
  repo rev-parse --quiet --verify "$1^{commit}" >/dev/null
}

# Makes the working tree that of origin's branch. Without such a branch: the current one as origin has it.
adopt_branch() {
  local branch=$1 current
  if [ -n "$branch" ] && has_commit "refs/remotes/origin/$branch"; then
    logged repo checkout --quiet --force -B "$branch" "refs/remotes/origin/$branch"
    repo branch --quiet --set-upstream-to="origin/$branch" "$branch"
    return
  fi
  if [ -n "$branch" ]; then
    warn "origin has no branch $branch; staying with what there is"
  fi
  current=$(repo symbolic-ref --quiet --short HEAD || true)
  if [ -n "$current" ] && has_commit "refs/remotes/origin/$current"; then
    logged repo reset --quiet --hard "refs/remotes/origin/$current"
  fi
}

empty_workspace() {
  find "$REPO_ROOT" -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +
}

clone() {
  local source=${CLONE_FROM:-$CODE_REPO} status
  local options=(--recurse-submodules)
  rm -f -- "$(marker)"
  if [ -n "$(ls -A "$REPO_ROOT")" ]; then
    warn "$REPO_ROOT holds files but no repository; move them away:"
    ls -lA "$REPO_ROOT" >&2
    exit 128
  fi
  if [ -n "$GIT_BRANCH" ]; then
    status=0
    if is_branch_name "$GIT_BRANCH"; then
      git ls-remote --exit-code "$source" "refs/heads/$GIT_BRANCH" "refs/tags/$GIT_BRANCH" >/dev/null 2>&1 || status=$?
    else
      status=2
    fi
    # 2 says that the remote answered and has no such branch; any other failure is the clone's to tell.
    if [ "$status" -eq 2 ]; then
      warn "there is no branch $GIT_BRANCH; taking the default branch"
    else
      options+=("--branch=$GIT_BRANCH")
    fi
  fi
  say "cloning $source"
  logged git clone "${options[@]}" -- "$source" "$REPO_ROOT"
  if [ -n "$CLONE_FROM" ]; then
    set_origin
    logged repo fetch --quiet origin || warn "origin cannot be reached; going on with what was cloned"
    if [ -n "$GIT_BRANCH" ] && has_commit "refs/remotes/origin/$GIT_BRANCH"; then
      adopt_branch "$GIT_BRANCH"
    fi
  fi
}

# The workspace was filled from the clone cache: bring it to where the task begins.
begin_task() {
  set_origin
  logged repo fetch --quiet --prune origin
  logged repo remote set-head origin --auto >/dev/null || true
  adopt_branch "$GIT_BRANCH"
  repo clean --quiet -ffd -e .new-task-marker
  logged repo submodule --quiet update --init --recursive || warn "some submodules could not be fetched"
  # Last: a start that failed before is tried again as a whole.
  rm -f -- "$(marker)"
}

resume_task() {
  if [ "$(origin_url)" != "$CODE_REPO" ]; then
    set_origin
  fi
  logged repo fetch --quiet origin || warn "origin cannot be reached; going on offline"
  case $GIT_RESET_MODE in
    hard | soft)
      if [ -n "$GIT_BRANCH" ] && has_commit "refs/remotes/origin/$GIT_BRANCH"; then
        say "reset ($GIT_RESET_MODE) to origin/$GIT_BRANCH"
        logged repo reset --quiet "--$GIT_RESET_MODE" "refs/remotes/origin/$GIT_BRANCH"
      else
        warn "no reset: origin has no branch ${GIT_BRANCH:-(none is set)}"
      fi
      ;;
    none) ;;
    *) warn "GIT_RESET_MODE is none, soft or hard; nothing was reset" ;;
  esac
}

put_remote() {
  local name=$1 url=$2
  [ -n "$url" ] || return 0
  if repo remote get-url "$name" >/dev/null 2>&1; then
    repo remote set-url "$name" "$url"
  else
    repo remote add "$name" "$url"
  fi
}

# Informational: must neither fail nor hold up the start for long.
tell_if_behind() {
  local head
  [ -n "$EXTERNAL_REMOTE_URL" ] || return 0
  head=$(timeout 10 git ls-remote "$EXTERNAL_REMOTE_URL" "${GIT_BRANCH:+refs/heads/}${GIT_BRANCH:-HEAD}" 2>/dev/null \
    | head -n 1 | cut -f 1) || return 0
  [ -n "$head" ] || return 0
  repo merge-base --is-ancestor "$head" HEAD 2>/dev/null \
    || say "note: upstream has commits that are not in this workspace"
}

prepare_repository() {
  case $REPO_ROOT in
    /?*) ;;
    *)
      warn "REPO_ROOT must be an absolute path below the root"
      exit 1
      ;;
  esac
  mkdir -p "$REPO_ROOT"
  git config --global --get-all safe.directory 2>/dev/null | grep -qxF -- "$REPO_ROOT" \
    || git config --global --add safe.directory "$REPO_ROOT"
  if [ -e "$(marker)" ] && [ -e "$REPO_ROOT/.git" ]; then
    local origin
    origin=$(origin_url)
    if [ "$origin" != "$CODE_REPO" ] && { [ -z "$CLONE_FROM" ] || [ "$origin" != "$CLONE_FROM" ]; }; then
      say "the workspace holds another repository; starting over"
      empty_workspace
    fi
  fi
  if [ ! -e "$REPO_ROOT/.git" ]; then
    clone
  elif [ -e "$(marker)" ]; then
    begin_task
  else
    resume_task
  fi
  put_remote external "$EXTERNAL_REMOTE_URL"
  put_remote gate "$GATE_REMOTE_URL"
  tell_if_behind || true
}

tell_tools() {
  local line='' tool version
  for tool in git node python3; do
    command -v "$tool" >/dev/null || continue
    version=$("$tool" --version 2>/dev/null | head -n 1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1) || continue
    line+="${line:+, }$tool $version"
  done
  say "${line:-no tools}"
}

if [ "${TEROK_CONTAINER_RUNTIME:-}" = krun ] && [ "$(id -u)" -eq 0 ]; then
  start_in_microvm "$@"
fi
allow_everything
start_bridges
prepare_ssh
if [ -n "${REPO_ROOT:-}" ] && [ -n "$CODE_REPO" ]; then
  prepare_repository
fi
tell_tools
printf '>> init complete\n'

# As the container's own command it goes on as a shell; in a command line of others it returns.
if [ -t 0 ] && [ -t 1 ]; then
  case $(cat "/proc/$PPID/comm" 2>/dev/null) in
    bash | sh | terok-toad-entr*) ;;
    *) exec bash -l ;;
  esac
fi
