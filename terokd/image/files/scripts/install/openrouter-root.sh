#!/bin/sh
set -eu
ln -sf opencode-provider /usr/local/bin/openrouter
ln -sf opencode-provider-acp /usr/local/bin/openrouter-acp
ln -sf opencode-provider-toad /usr/local/bin/openroutertoad
