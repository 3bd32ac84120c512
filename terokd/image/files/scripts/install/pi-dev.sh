#!/bin/sh
set -eu
npm install -g @earendil-works/pi-coding-agent
pi --version
npm cache clean --force >/dev/null 2>&1
