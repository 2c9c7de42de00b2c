# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Settings and helpers that all scripts share; sourced, not run.

set -euo pipefail
export LC_ALL=C
# depmod and others live where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin
# A git hook that runs the checks points git at the wrong repository.
# shellcheck disable=SC2046
unset $(git rev-parse --local-env-vars)

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPTS=$TOP/scripts
PATCHES=$TOP/patches
BUILD=$TOP/build
LOGS=$BUILD/log
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/p2pmem}
BASE_GIT=$CACHE/base.git
TESTS_DIR=tools/testing/selftests/p2pdma
FORCE=${FORCE:-}

# shellcheck source=../base/kernel
. "$TOP/base/kernel"
BASE_KERNEL=${BASE_VERSION%%-*}
mkdir -p "$BUILD" "$(realpath -m "$LOGS")" "$CACHE"
CACHE=$(cd "$CACHE" && pwd)

say() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]...
die() {
	say "error: $1"
	shift
	for line in "$@"; do say "       $line"; done
	exit 1
}

# A directory in $tmp that goes away with the script.
make_tmp() {
	tmp=$(mktemp -d "$BUILD/tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
}

# git without the user's settings, so that what it writes is always the same.
git_plain() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
		git -c core.quotePath=false "$@"
}

# lock_cache PART: one user at a time; released when the script ends, or takes
# another part.
lock_cache() {
	exec 9>"$CACHE/$1.lock"
	flock -n 9 || { say "waiting for another run to release $CACHE/$1.lock"; flock 9; }
}

# An empty working directory that borrows the base's objects.
init_checkout() {
	[ -e "$1/.git" ] && return
	git_plain init -q --initial-branch=series "$1"
	echo "$BASE_GIT/objects" >"$1/.git/objects/info/alternates"
}

# machine KERNEL TESTS [OPTION]... [TEST]...: an emulated one, with a kernel and tests from
# these directories
machine() {
	P2PDMA_CACHE=$CACHE/qemu "$TOP/$TESTS_DIR/qemu/run.py" \
		--kernel "$(readlink -e "$1")" \
		--tests "$(readlink -e "$2")" "${@:3}"
}

hash_of() { sha256sum | cut -c1-16; }

# kbuild_env COMMAND...: run what builds a kernel so that the result depends on
# the sources alone, and the next one finds its objects.
kbuild_env() {
	CCACHE_DIR=$CACHE/ccache CCACHE_NOHASHDIR=1 \
	KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_VERSION=1 \
	KBUILD_BUILD_USER=p2pmem KBUILD_BUILD_HOST=p2pmem "$@"
}
MAKE_ARGS=(CC='ccache gcc' HOSTCC='ccache gcc' LOCALVERSION=)

# worktree_id DIR: the git tree of a source as it is, committed or not
worktree_id() {
	# Callers take the output, so set -e is off here.
	cp "$1/.git/index" "$tmp/index" &&
		GIT_INDEX_FILE=$tmp/index git_plain -C "$1" add --all &&
		GIT_INDEX_FILE=$tmp/index git_plain -C "$1" write-tree
}

# source_files TREE-ID: what of it a kernel is built from
source_files() {
	GIT_ALTERNATE_OBJECT_DIRECTORIES=$BUILD/linux/.git/objects \
		git_plain --git-dir="$BASE_GIT" ls-tree "$1" |
		grep -vE '	(Documentation|tools|MAINTAINERS)$'
}

# step NAME COMMAND...: keep the output in a log, show progress, say how long
# it took; on failure show the end of the log.
step() {
	local name=$1 log=$LOGS/$1.log start=$SECONDS pid status=0
	local last_progress=0
	shift
	say "  $name ..."
	# A group of its own, so that it ends with all its children: it would not
	# see an interrupt from the keyboard.
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	trap 'kill -- "-$pid"; exit 130' INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		(( (SECONDS - start) % 30 )) || show_progress "$log" $((SECONDS - start))
	done
	wait "$pid" || status=$?
	trap - INT TERM
	if [ "$status" != 0 ]; then
		show_errors "$log"
		die "$name failed after $((SECONDS - start)) s" "log: $log"
	fi
	say "  $name: $((SECONDS - start)) s"
}

show_progress() {
	local objects
	(( $2 != last_progress )) || return 0
	last_progress=$2
	objects=$(grep -cE '^  (CC|AS|LD|AR)  ' "$1") || true
	say "    $2 s, $objects objects"
}

# The lines that say what is wrong, or else the last ones.
show_errors() {
	grep -nE -B2 -A3 'error:|\*\*\*|Error [0-9]|not ok|FAIL|^# task:' "$1" | tail -n 30 >&2 ||
		tail -n 20 "$1" >&2
}
