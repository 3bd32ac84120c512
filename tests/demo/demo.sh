#!/usr/bin/env bash
# From nothing to a project and back, as a person would do it with terokctl: demo.sh [DIRECTORY WITH THE PROGRAMS]
# Runs in a home of its own and takes everything away afterwards. Exit status 0 means that everything worked.
set -euo pipefail
tests=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "${1:-$(dirname "$0")/../../target/debug}" && pwd)
export PATH=$bin:$PATH NO_COLOR=1
demo=$(mktemp -d)
export HOME=$demo/home XDG_RUNTIME_DIR=$demo/run
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME TEROKD_SOCKET TEROK_STATE_DIR "${!TEROKD_@}" 2>/dev/null || true
mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR"
# Root's own places are /etc, /run and /var/lib; a demo has no business there.
export TEROK_ROOT=$HOME/.local/share/terok TEROK_CONFIG_DIR=$HOME/.config/terok TEROK_CONFIG_FILE=$HOME/.config/terok/config.yml \
  TEROK_RUNTIME_DIR=$HOME/.cache/terok TEROK_SANDBOX_RUNTIME_DIR=$XDG_RUNTIME_DIR/sandbox
# Nor with root's images, or with a service of Podman's that would stay: that part has a Podman of its own.
export CONTAINER_HOST=unix://$demo/no-podman.sock
watcher= shared=
finish() {
  local status=$?
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
  terokctl --no-autostart daemon stop >/dev/null 2>&1 || true
  local pid
  pid=$(cat "$XDG_RUNTIME_DIR/terok/terokd.sock.lock" 2>/dev/null || true)
  if [ -n "$pid" ]; then
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -rf "$demo" ${shared:+"$shared"}
  [ $status = 0 ] && echo "demo: everything worked" || echo "demo: FAILED (exit status $status)" >&2
  exit $status
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
run() { printf '$ %s\n' "$*"; "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }
# The string member $1 of a JSON object on stdin, as JSON writes it.
member() { sed -nE "s/.*\"$1\":(\"([^\"\\\\]|\\\\.)*\"|null).*/\1/p"; }

say "1. A real git repository to work on"
git init -q -b main "$demo/work"
git -C "$demo/work" -c user.name=Ada -c user.email=ada@example.com commit -q --allow-empty -m "first commit"
git clone -q --bare "$demo/work" "$demo/upstream.git"
git -C "$demo/upstream.git" log --oneline

# The gate server listens on a loopback port, so that git reaches it; an agent's token is there from an earlier tool.
token=terok-g-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
mkdir -p "$HOME/.config/terok"
mkdir -p -m 700 "$TEROK_ROOT/sandbox/gate"
echo "services: {mode: tcp}" >"$TEROK_CONFIG_FILE"
(umask 077 && echo "{\"$token\": {\"scope\": \"my-demo\", \"task\": \"demo\"}}" >"$TEROK_ROOT/sandbox/gate/tokens.json")

say "2. The daemon starts in the background"
run terokctl daemon start
run terokctl daemon status

say "3. The wizard's own questions, answers and text make a project"
run terokctl call questions '{}' >"$demo/questions"
echo "  $(grep -o '"key"' "$demo/questions" | wc -l) questions"
answers=
answer() { # KEY RAW: normalised and judged by the daemon
  local result value error
  result=$(terokctl --json call validate_answer "{\"question\":\"$1\",\"raw\":\"$2\"}")
  value=$(member value <<<"$result")
  error=$(member error <<<"$result")
  [ "$error" = null ] || fail "the daemon refuses $2 for $1: $error"
  printf '  %-16s %s\n' "$1" "$value"
  answers="$answers${answers:+,}\"$1\":$value"
}
answer security_class online
answer base ubuntu
answer project_id "My Demo!"
answer upstream_url "file://$demo/upstream.git"
answer default_branch main
answer user_snippet "RUN echo hello"
text=$(terokctl --json call render_project_yaml "{\"values\":{$answers}}")
run terokctl call write_project_yaml "{\"project_id\":\"my-demo\",\"rendered\":$text}"

say "4. An edit arrives as an event"
file=$HOME/.config/terok/projects/my-demo/project.yml
terokctl --json watch --snapshot --project my-demo >"$demo/events" &
watcher=$!
wait_for() { # TEXT: until the watcher has printed it
  for _ in $(seq 200); do
    if grep -q "$1" "$demo/events"; then return 0; fi
    sleep 0.05
  done
  fail "the watcher has not seen $1"
}
wait_for events.snapshot
run sed -i -E 's/(security_class: *"?)online/\1gatekeeping/' "$file"
wait_for project.changed
grep -m1 'project.changed' "$demo/events"
kill "$watcher" 2>/dev/null || true
wait "$watcher" 2>/dev/null || true
watcher=

say "5. Listed and shown"
run terokctl project list
run terokctl project show my-demo
terokctl project list | grep -q my-demo || fail "the project is not listed"

say "6. Validated: a typo is told with its line, and nothing breaks"
cp "$file" "$demo/good.yml"
echo "projecct: {}" >>"$file"
run terokctl call daemon.reload
run terokctl call config.problems | tee "$demo/problems"
grep -q projecct "$demo/problems" || fail "the typo is not reported"
if run terokctl project show my-demo; then fail "a broken project is shown as if it were fine"; fi
cat "$demo/good.yml" >"$file"
run terokctl call daemon.reload
[ "$(terokctl --json call config.problems)" = "[]" ] || fail "problems stay after the repair"

say "7. A sibling that shares the gate"
run terokctl project derive my-demo my-demo-exp
run terokctl project list

say "8. Deleted, with an archive"
run terokctl project delete my-demo-exp --yes
archive=$(ls "$HOME"/.local/share/terok/archive/*_my-demo-exp.tar.gz)
tar -tzf "$archive" | sed 's/^/  /'
run terokctl project list
if terokctl project list | grep -q my-demo-exp; then fail "the project is still listed"; fi

say "9. The gate: made from upstream, then current by itself"
sed -i -E 's/^gatekeeping:.*$//' "$file"
cat >>"$file" <<YAML
gatekeeping:
  upstream_polling: {interval_minutes: 1}
  auto_sync: {enabled: true}
YAML
run terokctl call daemon.reload
run terokctl call project.gate.sync '{"project_id":"my-demo"}'
terokctl --json watch --project my-demo --kind gate.stale --kind gate.auto_sync_started --kind gate.synced --kind gate.current \
  --kind gate.pushed --snapshot >"$demo/events" &
watcher=$!
wait_for events.snapshot
work() { git -C "$demo/work" -c user.name=Ada -c user.email=ada@example.com "$@"; }
work commit -q --allow-empty -m "second commit"
work push -q "$demo/upstream.git" main
echo "  upstream has moved; the daemon asks within a minute, here it is told to ask now"
run terokctl call polling.poll_now '{"project_id":"my-demo"}'
wait_for gate.stale
wait_for gate.synced
wait_for gate.current
for kind in gate.stale gate.auto_sync_started gate.synced gate.current; do
  grep -m1 "\"kind\":\"$kind\"" "$demo/events" | cut -c1-150
done
run terokctl call project.gate.last_commit '{"project_id":"my-demo"}'

say "10. An agent clones and pushes through the gate server, with a token of its own"
kill "$watcher" 2>/dev/null || true
wait "$watcher" 2>/dev/null || true
before=$(terokctl --json call gate_server.status | member address)
run terokctl daemon stop
run terokctl daemon start
address=$(terokctl --json call gate_server.status | member address)
[ "$address" = "$before" ] || fail "the gate server moved from $before to $address by a restart"
address=$(tr -d '"' <<<"$address")
echo "  the gate server is where it was: $address"
terokctl --json watch --project my-demo --kind gate.pushed --snapshot >"$demo/events" &
watcher=$!
wait_for events.snapshot
agent() { git -C "$demo/agent" -c user.name=Agent -c user.email=agent@example.com "$@"; }
git clone -q "http://$token:x@$address/my-demo.git" "$demo/agent"
echo "hello from the agent" >"$demo/agent/greeting"
agent add greeting
agent commit -q -m "greet"
run agent push -q origin HEAD:agent/greet
wait_for '"gate.pushed"'
if git clone -q "http://terok-g-ffffffffffffffffffffffffffffffff:x@$address/my-demo.git" "$demo/nobody" 2>"$demo/refused"; then
  fail "a token that nobody was given opens the gate"
fi
sed 's/^/  /' "$demo/refused"

say "11. A human reviews, and promotes to upstream"
run terokctl call project.gate.review '{"project_id":"my-demo"}'
commit=$(agent rev-parse HEAD)
run terokctl call project.gate.promote "{\"project_id\":\"my-demo\",\"branch\":\"agent/greet\",\"upstream_branch\":\"main\",\"expect_commit\":\"$commit\"}"
git -C "$demo/upstream.git" log --oneline main
[ "$(git -C "$demo/upstream.git" rev-parse main)" = "$commit" ] || fail "upstream is not where it was promoted to"
kill "$watcher" 2>/dev/null || true
wait "$watcher" 2>/dev/null || true
watcher=

say "12. A deploy key, minted in the vault; its private half never leaves"
run terokctl call project.provision_ssh_key '{"project_id":"my-demo"}'
run terokctl call vault.status

say "13. Images: built on a Podman of their own"
# It may be another user's, who cannot enter this directory or the checkout.
images() {
  command -v podman >/dev/null || { echo "  SKIPPED: Podman is not installed"; return; }
  shared=$(mktemp -d)
  chmod 755 "$shared"
  cp "$bin/terokd" "$bin/terokctl" "$tests/env/podman-test-env" "$tests/demo/images.sh" "$shared"
  local status=0
  (cd / && "$shared/podman-test-env" --base-image -- bash "$shared/images.sh" "$shared") 2>"$shared/said" || status=$?
  case $status in
    0) ;;
    125) echo "  SKIPPED: no Podman can be set up here: $(tail -n 1 "$shared/said")" ;;
    *) cat "$shared/said" >&2; fail "images: exit status $status" ;;
  esac
}
images

say "14. The end"
run terokctl daemon stop
if terokctl --no-autostart daemon status >/dev/null 2>&1; then fail "the daemon still answers"; fi
