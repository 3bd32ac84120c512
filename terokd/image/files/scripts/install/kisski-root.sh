#!/bin/sh
set -eu
ln -sf opencode-provider /usr/local/bin/kisski
ln -sf opencode-provider-acp /usr/local/bin/kisski-acp
ln -sf opencode-provider-toad /usr/local/bin/kisskitoad
