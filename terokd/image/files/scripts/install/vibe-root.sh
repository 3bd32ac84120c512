#!/bin/sh
set -eu
# Newer than what some bases have; uv brings its own where needed.
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
  pipx install mistral-vibe
else
  UV_PYTHON_INSTALL_DIR=/opt/uv-python uv python install 3.12
  pipx install --python "$(UV_PYTHON_INSTALL_DIR=/opt/uv-python uv python find 3.12)" mistral-vibe
fi
pipx inject mistral-vibe mistralai
vibe --version
rm -rf /root/.cache
