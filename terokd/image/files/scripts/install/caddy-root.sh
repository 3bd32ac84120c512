#!/bin/sh
set -eu
if [ "$1" = deb ]; then
  apt-get update -q
  apt-get install -y -q --no-install-recommends caddy
  rm -rf /var/lib/apt/lists/*
else
  dnf install -y --setopt=install_weak_deps=False caddy
  dnf clean all
fi
install -d -m 0755 /usr/local/share/terok/caddy
install -m 0644 /usr/local/share/terok/agents/Caddyfile /usr/local/share/terok/caddy/Caddyfile
caddy version
