#!/bin/sh
# Debian packages that pip cannot bring: installed where root may, printed as a command elsewhere.
missing=""
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null && exit 0
    echo "could not install$missing" >&2
else
    echo "please install:  sudo apt-get install$missing" >&2
fi
case "$missing" in
    *git*) exit 1 ;;
    *) echo "training works without; sandboxed studies need bubblewrap" >&2 ;;
esac
