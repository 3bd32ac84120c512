#!/bin/sh
set -eu
ln -sf opencode-provider /usr/local/bin/blablador
ln -sf opencode-provider-acp /usr/local/bin/blablador-acp
ln -sf opencode-provider-toad /usr/local/bin/blablatoad
