#!/bin/sh
set -eu
share=/usr/local/share/terok/agents
install -m 0644 "$share/pi-profile.sh" /etc/profile.d/terok-pi.sh
install -d -m 0755 /usr/local/share/terok/pi
install -m 0644 "$share/pi-vault.ts" /usr/local/share/terok/pi/terok-vault.ts
