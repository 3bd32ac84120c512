# shellcheck shell=sh
# Functions around the agents, written for this task when it was launched. They are bash.
if [ -n "${BASH_VERSION:-}" ] && [ -r /home/dev/.terok/terok-executor.sh ]; then
  # shellcheck source=/dev/null
  . /home/dev/.terok/terok-executor.sh
fi
