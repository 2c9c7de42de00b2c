#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Install the Debian packages that base/packages lists and that are missing.
#
#   setup.sh [NAME]...   base/packages-NAME as well

# lib.sh needs git, which may be one of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v dpkg-query >/dev/null; then
	echo "not a Debian system: see base/packages for what is needed" >&2
	exit 0
fi

mapfile -t wanted < <(cat base/packages "${@/#/base/packages-}" | grep -v '^#' | grep .)
# dpkg-query complains about what it does not know: that is what is asked.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' \
	"${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p') || true
mapfile -t missing < <(printf '%s\n' "${wanted[@]}" |
	grep -vxF "${installed:-none}")
[ "${#missing[@]}" = 0 ] && exit 0

if [ "$(id -u)" = 0 ]; then
	as_root=()
elif sudo -n true 2>/dev/null; then
	as_root=(sudo -n)
else
	echo "missing packages, as root: apt-get install ${missing[*]}" >&2
	exit 1
fi

echo "installing ${missing[*]}" >&2
# An unrelated source that fails to update is no reason to stop.
"${as_root[@]}" apt-get -q update || true
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
	apt-get -q -y install --no-install-recommends "${missing[@]}"
