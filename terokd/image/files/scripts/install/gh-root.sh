#!/bin/sh
set -eu
if [ "$1" = deb ]; then
  install -d -m 0755 /etc/apt/keyrings
  curl -fsSL --retry 3 -o /etc/apt/keyrings/github-cli.gpg \
    https://cli.github.com/packages/githubcli-archive-keyring.gpg
  echo "deb [arch=$(dpkg --print-architecture) signed-by=/etc/apt/keyrings/github-cli.gpg] https://cli.github.com/packages stable main" \
    >/etc/apt/sources.list.d/github-cli.list
  apt-get update -q
  apt-get install -y -q --no-install-recommends gh
  rm -rf /var/lib/apt/lists/*
else
  curl -fsSL --retry 3 -o /etc/yum.repos.d/gh-cli.repo https://cli.github.com/packages/rpm/gh-cli.repo
  dnf install -y --setopt=install_weak_deps=False gh
  dnf clean all
fi
gh --version
