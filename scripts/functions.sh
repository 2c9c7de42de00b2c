#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# List the kernel functions that build/linux adds or changes, one name a line:
# build/series-functions.  The KCSAN runs use it to tell the series' data races
# from others.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TREE=$BUILD/linux

# The diff, with each file from its first to its last line, committed or not.
# Of the selftests, only the modules are kernel code.
whole_files() {
	local source
	source=$(worktree_id "$TREE") || exit
	git_plain -C "$TREE" diff --no-renames --unified=1000000 \
		"$base" "$source" -- '*.[ch]' ':!Documentation' \
		":(exclude,glob)$TESTS_DIR/*.[ch]" ":!$TESTS_DIR/qemu"
}

# Relies on kernel style: a function begins with its declaration and ends with a
# brace, both in column 0.  A static function may be inlined and then backtraces
# show its caller instead, so callers of a changed static function count as changed.
changed_functions() {
	awk '
	function end() {
		if (name != "" && dirty)
			changed[name] = 1
		name = ""
		dirty = body = 0
	}
	function note_calls(text) {
		while (match(text, /[A-Za-z_][A-Za-z0-9_]*\(/)) {
			calls[name] = calls[name] " " substr(text, RSTART, RLENGTH - 1)
			text = substr(text, RSTART + RLENGTH)
		}
	}
	/^(diff|index|---|\+\+\+|new file|@@)/ { end(); next }
	{ sign = substr($0, 1, 1); line = substr($0, 2) }
	sign == "-" { dirty = 1; next }
	!body && line ~ /^[A-Za-z_].*\(/ {
		end()
		match(line, /[A-Za-z_][A-Za-z0-9_]*\(/)
		name = substr(line, RSTART, RLENGTH - 1)
		if (line ~ /^static /)
			inlined[name] = 1
	}
	sign == "+" { dirty = 1 }
	!body && line ~ /;$/ { name = ""; dirty = 0 }
	line ~ /^{/ { body = name != "" }
	body { note_calls(line) }
	line ~ /^}/ || (!body && line ~ /}$/) { end() }
	END {
		do {
			more = 0
			for (name in calls) {
				if (name in changed)
					continue
				n = split(calls[name], call, " ")
				for (i = 1; i <= n; i++)
					if (call[i] in changed && call[i] in inlined) {
						changed[name] = more = 1
						break
					}
			}
		} while (more)
		for (name in changed)
			print name
	}' | sort
}

[ -f "$TREE/.git/p2pmem-inputs" ] ||
	die "build/linux is not there" "run \"make tree\""
make_tmp
# An old list must not pass for this tree's.
rm -f "$BUILD/series-functions"
base=$(head -n 1 "$TREE/.git/p2pmem-inputs")
whole_files | changed_functions >"$tmp/functions"
[ -s "$tmp/functions" ] || die "the series changes no function"
mv "$tmp/functions" "$BUILD/series-functions"
