#!/bin/sh
# Runs once while the base layer is built: the user dev, sudo, the workspace, an sshd that stays off.
set -eu

# One user with uid 1000, called dev. A base that has one of another name keeps its ranges for containers.
current=$(getent passwd 1000 | cut -d : -f 1 || true)
if [ -z "$current" ]; then
  getent group dev >/dev/null || {
    if getent group 1000 >/dev/null; then
      groupmod --new-name dev "$(getent group 1000 | cut -d : -f 1)"
    else
      groupadd --gid 1000 dev
    fi
  }
  useradd --uid 1000 --gid dev --create-home --home-dir /home/dev --shell /bin/bash dev
elif [ "$current" != dev ]; then
  group=$(id -gn "$current")
  home=$(getent passwd "$current" | cut -d : -f 6)
  usermod --login dev "$current"
  [ "$group" = dev ] || groupmod --new-name dev "$group"
  if [ -d "$home" ] && [ "$home" != /home/dev ]; then
    usermod --home /home/dev --move-home dev
  else
    usermod --home /home/dev dev
  fi
  for ranges in /etc/subuid /etc/subgid; do
    [ ! -f "$ranges" ] || sed -i "s/^$current:/dev:/" "$ranges"
  done
fi
usermod --shell /bin/bash dev
install -d -m 0755 -o dev -g dev /home/dev
install -d -m 0700 -o dev -g dev /home/dev/.ssh

install -d -m 0755 /etc/sudoers.d
echo 'dev ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/dev
chmod 0440 /etc/sudoers.d/dev
visudo -c -f /etc/sudoers.d/dev
# Without a readable shadow file PAM lets nobody pass; dev needs no password in the first place.
if [ "$1" = rpm ] && [ "$(stat -c %a /etc/shadow 2>/dev/null || echo 0)" = 0 ]; then
  {
    echo 'auth sufficient pam_permit.so'
    echo 'account sufficient pam_permit.so'
    echo 'session required pam_permit.so'
  } >/etc/pam.d/sudo
fi

install -d -m 0777 -o dev -g dev /workspace

install -d -m 0755 /etc/ssh/sshd_config.d /etc/ssh/authorized_keys.d
cat >/etc/ssh/sshd_config.d/00-terok.conf <<'CONF'
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
AuthenticationMethods publickey
AllowUsers dev
AllowAgentForwarding no
AllowTcpForwarding no
X11Forwarding no
PermitTunnel no
GatewayPorts no
AuthorizedKeysFile /etc/ssh/authorized_keys.d/terok
CONF
: >/etc/ssh/authorized_keys.d/terok
chmod 0644 /etc/ssh/authorized_keys.d/terok
ssh-keygen -A
