#!/bin/sh
# Lets every shell source the environment.
set -eu
for rc in /etc/bash.bashrc /etc/bashrc; do
  [ "$1" = deb ] && [ "$rc" = /etc/bashrc ] && continue
  [ "$1" = rpm ] && [ "$rc" = /etc/bash.bashrc ] && continue
  line='[ ! -r /etc/profile.d/terok-env.sh ] || . /etc/profile.d/terok-env.sh'
  grep -qsxF -- "$line" "$rc" || printf '%s\n' "$line" >>"$rc"
done
