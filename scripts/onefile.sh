#!/bin/sh
# minicontainer @VERSION@: this header finds a Python and hands it the zip archive that follows.
case $0 in /*) file=$0 ;; *) file=$PWD/$0 ;; esac
code='@CODE@'
first=$MINICONTAINER_PYTHON check=:
if [ "$first" = newer ]; then # an interpreter found itself too old: now ask before
    first='' check='import sys; sys.exit(sys.version_info < (3, 9))'
fi
for python in "$first" /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 \
    python3.10 python3.9; do
    command -v "$python" >/dev/null 2>&1 || continue
    [ "$check" = : ] || "$python" -c "$check" >/dev/null 2>&1 || continue
    exec "$python" -I -S -X utf8 -c "$code" "$file" "$@"
done
echo 'Error: Python 3.9 or later is needed: install the package python3' \
    '(RHEL 8: python3.11, SLES 15: python311)' >&2
exit 125
