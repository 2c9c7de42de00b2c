#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Static checks of what the series touches; nothing that the base already had
# is held against it.  Needs build/linux and build/series ("make lint").
# shellcheck disable=SC2317 # the checks are found by their names

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TREE=$BUILD/linux

linux() { git_plain -C "$TREE" "$@"; }
touched() {
	linux diff --name-only --no-renames --diff-filter=AM "$base" HEAD -- "$@"
}
in_base() { linux cat-file -e "$base:$1" 2>/dev/null; }

# new_findings BEFORE AFTER: the lines of AFTER that BEFORE lacks, whatever
# their line numbers; fails if there are any.
new_findings() {
	sort -u "$2" | awk '
	{ key = $0; gsub(/:[0-9]+/, "", key) }
	FILENAME == ARGV[1] { known[key]++; next }
	known[key]-- <= 0 { print; found = 1 }
	END { exit found }' <(sort -u "$1") -
}

# Ignored: only the sender can sign off; the base repository has one commit,
# so no id can be looked up; MAINTAINERS has a patch of its own.  What follows
# its surroundings: block, NVMe and RDMA indent continued lines by tabs, the
# REQ_ flags are all defined in one way, the methods of struct bin_attribute do
# not name their arguments, and md has flags in camel case.
check_checkpatch() {
	local ignore=MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF,UNKNOWN_COMMIT_ID
	ignore+=,PARENTHESIS_ALIGNMENT,COMPLEX_MACRO,FUNCTION_ARGUMENTS,CAMELCASE
	ignore+=,BIT_MACRO	# dma-mapping.h has none
	ignore+=,OPEN_ENDED_LINE	# all trace events have such lines
	[ -z "$(touched MAINTAINERS)" ] || ignore+=,FILE_PATH_CHANGES
	cd "$TREE"
	# It runs Python programs that need Debian's modules, not another Python.
	local -x PATH=/usr/bin:$PATH
	local -x PASSED=$CACHE/checkpatch DICTIONARY
	DICTIONARY=$(dictionary)
	mkdir -p "$PASSED"
	export -f checkpatch
	find "$BUILD/series" -name '*.patch' ! -name '0000-*' | sort |
		xargs -P "$(nproc)" -I '{}' bash -c 'checkpatch "$@"' _ '{}' \
			--strict --codespell --terse --showfile --show-types \
			--no-summary --ignore "$ignore"
}

# codespell's dictionary, where checkpatch looks for it
dictionary() {
	local file=/usr/share/codespell/dictionary.txt
	[ -f "$file" ] || file=$(python3 -c 'import codespell_lib, os.path
print(os.path.dirname(codespell_lib.__file__), "data/dictionary.txt", sep="/")')
	[ -f "$file" ] || die "codespell has no dictionary"
	echo "$file"
}

# checkpatch PATCH OPTION...: it takes seconds for a long patch, so it does not
# read again what has passed.
checkpatch() {
	local key
	key=$(cat scripts/checkpatch.pl scripts/spelling.txt scripts/const_structs.checkpatch \
		"$DICTIONARY" "$1" - <<<"$*" | sha256sum)
	[ -e "$PASSED/${key%% *}" ] ||
		{ perl scripts/checkpatch.pl "${@:2}" "$1" && touch "$PASSED/${key%% *}"; }
}

check_new_files() {
	local unclaimed
	unclaimed=$("$SCRIPTS/tree.sh" unclaimed)
	[ -z "$unclaimed" ] || die "no patch creates:" "$unclaimed"
}

# filp: what the kernel calls a struct file
check_codespell() {
	cd "$TOP"
	git ls-files -z --cached --others --exclude-standard -- ':!COPYING' |
		xargs -0 codespell -L filp
}

check_shellcheck() {
	cd "$TOP"
	git ls-files --cached --others --exclude-standard |
		while read -r file; do
			if head -n 2 "$file" | grep -qE '^#!.*sh$|shell='; then
				printf '%s\0' "$file"
			fi
		done | xargs -0 shellcheck -x --source-path=SCRIPTDIR
}

# Debian 12's sparse is too old for the kernel, which then quietly goes without:
# it lacks this keyword.  It also cannot evaluate the static_assert() in
# MODULE_INFO(), and after an error it gives no warnings.
SPARSE="sparse -D__typeof_unqual__=__typeof__ '-D_Static_assert(...)='"

# warnings TREE OBJECT...: of gcc with W=1 and of sparse.  Only an object that
# is compiled has warnings, so none may be left from the last time.
warnings() {
	local dir=linux
	[ "$1" = series ] || dir=base
	(cd "$BUILD/$dir/.obj-lint" 2>/dev/null && rm -f "${@:2}") || true
	"$SCRIPTS/kernel.sh" make "$1" lint W=1 C=1 CHECK="$SPARSE" "${@:2}" \
		>"$tmp/make" 2>&1 || { show_errors "$tmp/make"; return 1; }
	if grep 'sparse is not available' "$tmp/make"; then return 1; fi
	grep -E '(warning|error):' "$tmp/make" || true
}

# base_warnings OBJECT...: the base stays the same, so do not compile it again
base_warnings() {
	local cached
	cached=$CACHE/lint/$({
		echo "$base" "$SPARSE" "$@"
		cat "$TOP"/base/*.config "$SCRIPTS/kernel.sh"
		gcc --version
		sparse --version
		declare -f warnings
	} | hash_of)
	mkdir -p "$CACHE/lint"
	if [ ! -e "$cached" ]; then
		warnings base "$@" >"$tmp/base-warnings"
		mv "$tmp/base-warnings" "$cached"
	fi
	cat "$cached"
}

check_kernel_warnings() {
	local after=() before=() file
	while read -r file; do
		after+=("${file%.c}.o")
		if in_base "$file"; then before+=("${file%.c}.o"); fi
	done < <(touched '*.c' ':!tools' ':!Documentation')
	[ "${#after[@]}" != 0 ] || die "the series has no C file"
	warnings series "${after[@]}" >"$tmp/after"
	: >"$tmp/before"
	[ "${#before[@]}" = 0 ] || base_warnings "${before[@]}" >"$tmp/before"
	new_findings "$tmp/before" "$tmp/after"
}

# The test modules are new: none at all.
check_module_warnings() {
	local dir=$BUILD/lint-modules objects
	rm -rf "$dir"
	cp -r "$TREE/$TESTS_DIR/modules" "$dir"
	mapfile -t objects < <(cd "$dir" && printf '%s\n' *.c | sed 's/c$/o/')
	warnings series "M=$dir" "${objects[@]}" >"$tmp/after"
	new_findings /dev/null "$tmp/after"
}

kernel_doc() {
	python3 "$TREE/tools/docs/kernel-doc" -none -Wall "$@" 2>&1 || true
}

# A tool that does not start finds nothing.
kernel_doc_works() {
	printf '/**\n * f - canary\n */\nint f(int undescribed);\n' >"$tmp/canary.h"
	kernel_doc "$tmp/canary.h" | grep -q "Warning: .*'undescribed' not described"
}

check_pyflakes() { pyflakes3 "$SCRIPTS"/*.py "$TOP/$TESTS_DIR"/qemu/*.py; }

check_kernel_doc() {
	local file files before=()
	mapfile -t files < <(touched '*.[ch]')
	[ "${#files[@]}" != 0 ] || die "the series has no C file"
	kernel_doc_works || die "kernel-doc does not work:" "$(kernel_doc "$tmp/canary.h")"
	(cd "$TREE" && kernel_doc "${files[@]}") >"$tmp/after"
	for file in "${files[@]}"; do
		in_base "$file" || continue
		mkdir -p "$tmp/base/${file%/*}"
		linux cat-file blob "$base:$file" >"$tmp/base/$file"
		before+=("$file")
	done
	: >"$tmp/before"
	[ "${#before[@]}" = 0 ] ||
		(cd "$tmp/base" && kernel_doc "${before[@]}") >"$tmp/before"
	new_findings "$tmp/before" "$tmp/after"
}

# Not in a condition, which would disarm set -e.
run() {
	local status=0 start=$SECONDS
	set +e
	(set -e; "check_$1") >"$tmp/out" 2>&1
	status=$?
	set -e
	if [ "$status" = 0 ]; then
		echo "ok $1 ($((SECONDS - start)) s)"
	else
		echo "not ok $1 ($((SECONDS - start)) s)"
		sed 's/^/  /' "$tmp/out"
		failed=1
	fi
}

make_tmp
base=$(head -n 1 "$TREE/.git/p2pmem-inputs") ||
	die "build/linux is not there" "run \"make lint\""
failed=0
[ $# != 0 ] || set -- new_files checkpatch codespell shellcheck pyflakes kernel_doc \
	kernel_warnings module_warnings
for check; do run "$check"; done
exit "$failed"
