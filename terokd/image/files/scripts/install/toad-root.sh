#!/bin/sh
set -eu
install -m 0755 /usr/local/share/terok/agents/terok-toad-entry /usr/local/bin/terok-toad-entry
