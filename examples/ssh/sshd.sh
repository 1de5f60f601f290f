#!/bin/sh
# Starts an SSH server for the example, in the foreground: sshd.sh NAME PORT
# It takes this directory's keys alone and tells its name in $NODE.
set -eu
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
exec "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f /dev/null \
    -o "ListenAddress 127.0.0.1:$2" \
    -o "HostKey $PWD/host_key" -o "AuthorizedKeysFile $PWD/client_key.pub" \
    -o 'PidFile none' -o 'StrictModes no' -o 'UsePAM no' -o 'PasswordAuthentication no' \
    -o "VersionAddendum $1" -o "SetEnv NODE=$1"
