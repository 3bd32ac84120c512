#!/bin/sh
# Installs yq, ast-grep and uv.
set -eu

YQ=v4.52.4
mirror=${1:-https://github.com}

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *)
    echo "there is no yq for $(uname -m)" >&2
    exit 1
    ;;
esac
curl -fsSL --retry 3 -o /usr/local/bin/yq "$mirror/mikefarah/yq/releases/download/$YQ/yq_linux_$arch"
chmod 0755 /usr/local/bin/yq
yq --version | grep -F "${YQ#v}"

set -- --no-cache-dir
# Distributions that guard their own Python still leave /usr/local to us.
if python3 -m pip install --help | grep -q -e --break-system-packages; then
  set -- "$@" --break-system-packages
fi
python3 -m pip install "$@" ast-grep-cli uv
ast-grep --version
uv --version
