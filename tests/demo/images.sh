#!/usr/bin/env bash
# The part of demo.sh that needs Podman, inside of `podman-test-env --base-image`: images.sh DIRECTORY WITH THE PROGRAMS
set -euo pipefail
exec 3>&2 2>&1
export PATH=$1:$PATH NO_COLOR=1
base=$TEROK_TEST_BASE_IMAGE
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME "${!TEROKD_@}" "${!TEROK_@}" 2>/dev/null || true
skipped=
# The daemon has a home of its own; Podman's storage is in the home that it was given.
home=$(mktemp -d)
mkdir -m 700 "$home/run"
terokctl() { HOME=$home XDG_RUNTIME_DIR=$home/run CONTAINER_HOST=unix://$PODMAN_SOCK command terokctl "$@"; }
finish() {
  local status=$?
  terokctl --no-autostart daemon stop >/dev/null 2>&1 || true
  podman rmi -fa >/dev/null 2>&1 || true
  # What belongs to users of containers only they can remove.
  podman unshare rm -rf "$HOME/.local/share/containers" 2>/dev/null || true
  rm -rf "$home"
  # Podman's own failures look like an environment that cannot be set up.
  [ $status != 125 ] || [ -n "$skipped" ] || status=1
  exit $status
}
trap finish EXIT
run() { printf '$ %s\n' "$*"; "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }
stale() { terokctl --json call project.state '{"project_id":"my-image"}' | sed -nE 's/.*"stale_layers":\[([^]]*)\].*/\1/p'; }

if ! why=$(podman run --rm --pull=never --network=none "$base" true 2>&1); then
  echo "Podman runs no container: $(tail -n 1 <<<"$why")" >&3
  skipped=yes
  exit 125
fi
echo "  the project's own layer is real; the two below it, which install a distribution's packages and the agents for some"
echo "  minutes, are stand-ins made of busybox here, of which the daemon does not know what they were made from"
dir=$home/layers
mkdir "$dir"
cat >"$dir/l0" <<DOCKERFILE
FROM $base
RUN mkdir -p /home/dev && mkdir -m 777 /workspace && echo 'dev:x:1000:1000::/home/dev:/bin/sh' >> /etc/passwd
DOCKERFILE
printf 'FROM localhost/terok-l0:ubuntu-24.04\nLABEL ai.terok.agents=codex\n' >"$dir/l1"
podman build -q --pull=never -t localhost/terok-l0:ubuntu-24.04 -f "$dir/l0" "$dir" >/dev/null
podman build -q --pull=never -t localhost/terok-l1-cli:ubuntu-24.04-codex -f "$dir/l1" "$dir" >/dev/null

project=$home/.config/terok/projects/my-image/project.yml
mkdir -p "${project%/*}"
with_snippet() { # COMMAND: it is run when the image is built
  cat >"$project" <<YAML
project: {security_class: online}
image:
  base_image: ubuntu:24.04
  agents: codex
  user_snippet_inline: |
    RUN $1
YAML
}
with_snippet "echo 'hello from the snippet' > /greeting && cat /greeting"
run terokctl daemon start
run terokctl project generate my-image | sed -n '/Dockerfile$/p; $s/.*/… and what they copy/p'
run terokctl project build my-image
run podman run --rm --pull=never --network=none localhost/my-image:l2-cli cat /greeting | tee "$home/greeting"
grep -qx "hello from the snippet" "$home/greeting" || fail "the image is not what was built"
run terokctl image list
run terokctl project state my-image

before=$(stale)
with_snippet "echo 'hello again' > /greeting"
run terokctl call daemon.reload
after=$(stale)
echo "  stale before: $before; after another snippet: $after"
[ "$after" = "$before,\"l2\"" ] || fail "the snippet makes other layers stale than l2"
run terokctl project build my-image
run podman run --rm --pull=never --network=none localhost/my-image:l2-cli cat /greeting
[ "$(stale)" = "$before" ] || fail "the layer is stale after it was built"

echo "  the project goes without telling the daemon, and its image is an orphan"
rm -r "${project%/*}"
run terokctl call daemon.reload
run terokctl image cleanup --dry-run | tee "$home/orphans"
grep -q my-image:l2-cli "$home/orphans" || fail "the orphan is not found"
podman image exists localhost/my-image:l2-cli || fail "a dry run removes"
