#!/bin/sh
set -eu
uv tool install --python 3.14 batrachian-toad
uv cache clean
