#!/bin/sh
set -eu
npm install -g @openai/codex
codex --version
npm cache clean --force >/dev/null 2>&1
