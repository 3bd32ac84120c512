#!/bin/sh
set -eu
install -d -m 0755 -o dev -g dev /etc/claude-code
