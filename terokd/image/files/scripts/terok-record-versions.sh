#!/bin/bash
# Writes the versions of the named programs as a JSON object: NAME=PROGRAM ...
# A program that does not answer is left out. The same line goes to the build log.
set -uo pipefail

out=${TEROK_VERSIONS_FILE:-/etc/terok/versions.json}
json=''
for pair in "$@"; do
  name=${pair%%=*} program=${pair#*=}
  command -v "$program" >/dev/null || continue
  version=$(timeout 30 "$program" --version </dev/null 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+([0-9A-Za-z.+-]*[0-9A-Za-z])?' | head -n 1) || continue
  [ -n "$version" ] || continue
  json+="${json:+, }\"$name\": \"$version\""
done
printf '{%s}\n' "$json" >"$out"
printf 'terok-versions: {%s}\n' "$json"
