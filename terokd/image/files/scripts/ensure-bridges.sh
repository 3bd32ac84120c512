#!/bin/sh
# Starts the bridges to the host that are not running: SSH agent, API proxy, git gate.
# Safe to run at any time and by several shells at once. A bridge is alive if the process of its PID file is; a socket
# that was left behind proves nothing.
set -eu

STATE=${TEROK_BRIDGE_STATE:-/tmp/.terok}
RUN=${TEROK_RUN_DIR:-/run/terok}
AGENT_SOCKET=${TEROK_AGENT_SOCKET:-/tmp/ssh-agent.sock}
VAULT_SOCKET=${TEROK_VAULT_SOCKET:-/tmp/terok-vault.sock}
GATE_LISTEN=${TEROK_GATE_LISTEN_PORT:-9418}
HOST=host.containers.internal

is_port() {
  case $1 in
    '' | *[!0-9]*) return 1 ;;
  esac
}

# Whether the process of a PID file is the bridge with this listener.
is_running() {
  pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
  is_port "$pid" || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$2"
}

is_listening() {
  case $1 in
    UNIX-LISTEN:*)
      path=${1#UNIX-LISTEN:}
      [ -S "${path%%,*}" ]
      ;;
    TCP-LISTEN:*)
      port=${1#TCP-LISTEN:}
      grep -qi " 0100007F:$(printf '%04X' "${port%%,*}") 00000000:0000 0A " /proc/net/tcp
      ;;
  esac
}

bridge() {
  name=$1 listen=$2 target=$3
  ! is_running "$name" "$listen" || return 0
  case $listen in
    UNIX-LISTEN:*)
      path=${listen#UNIX-LISTEN:}
      rm -f -- "${path%%,*}"
      ;;
  esac
  # The lock is closed in the child, which outlives this script.
  setsid socat "$listen" "$target" 9>&- </dev/null >/dev/null 2>"$STATE/$name.log" &
  echo "$!" >"$STATE/$name.pid"
  tries=0
  until is_listening "$listen"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$!" 2>/dev/null; then
      echo "bridge $name does not listen:" >&2
      cat "$STATE/$name.log" >&2
      return 1
    fi
    sleep 0.05
  done
}

umask 077
mkdir -p "$STATE"
exec 9>"$STATE/lock"
flock 9
failed=0

if [ -n "${TEROK_SSH_SIGNER_TOKEN:-}" ]; then
  bridge ssh-agent "UNIX-LISTEN:$AGENT_SOCKET,fork,mode=600" EXEC:ssh-agent-bridge.sh,setsid || failed=1
fi

if is_port "${TEROK_VAULT_LOOPBACK_PORT:-}"; then
  if [ -S "$RUN/vault.sock" ]; then
    vault=UNIX-CONNECT:$RUN/vault.sock
  elif is_port "${TEROK_TOKEN_BROKER_PORT:-}"; then
    vault=TCP:$HOST:$TEROK_TOKEN_BROKER_PORT
    bridge vault-socket "UNIX-LISTEN:$VAULT_SOCKET,fork,mode=600" "$vault" || failed=1
  else
    vault=UNIX-CONNECT:$RUN/vault.sock
  fi
  bridge vault "TCP-LISTEN:$TEROK_VAULT_LOOPBACK_PORT,bind=127.0.0.1,reuseaddr,fork" "$vault" || failed=1
fi

if [ -n "${TEROK_GATE_SOCKET:-}" ]; then
  gate=UNIX-CONNECT:$TEROK_GATE_SOCKET
elif is_port "${TEROK_GATE_PORT:-}"; then
  gate=TCP:$HOST:$TEROK_GATE_PORT
else
  gate=
fi
if [ -n "$gate" ]; then
  bridge gate "TCP-LISTEN:$GATE_LISTEN,bind=127.0.0.1,reuseaddr,fork" "$gate" || failed=1
fi

exit "$failed"
