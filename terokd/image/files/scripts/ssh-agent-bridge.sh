#!/bin/sh
# Serves one connection to the SSH agent of the host: says who this task is, then relays.
# Started by socat for each client; standard input and output are the client.
set -eu

case ${TEROK_SSH_SIGNER_SOCKET:-} in
  '') target=TCP:host.containers.internal:${TEROK_SSH_SIGNER_PORT:?neither socket nor port of the signer is set} ;;
  *) target=UNIX-CONNECT:$TEROK_SSH_SIGNER_SOCKET ;;
esac

greet() {
  LC_ALL=C
  token=${TEROK_SSH_SIGNER_TOKEN:?no token}
  length=${#token}
  # Four bytes, big-endian, then the token. The builtin keeps it off every command line.
  printf '\000\000'
  printf "\\$(printf '%03o' $((length / 256)))\\$(printf '%03o' $((length % 256)))"
  printf '%s' "$token"
}

# When the host hangs up, the reader of the client has to go too, or the client would wait for ever.
{
  greet
  cat
} | {
  socat -t 5 - "$target" || true
  kill 0
}
