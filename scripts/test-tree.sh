#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of tree.sh and base.sh: on a tiny kernel with a series of three
# patches, and the round trip of the real series.
# shellcheck disable=SC2317 # the tests are found by their names

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A second sandbox must not look like the work of this one.
unset LINUX TARBALL FORCE SIGNOFF

ident() {
	export GIT_CONFIG_GLOBAL=/dev/null
	export GIT_AUTHOR_NAME='Zoë Test' GIT_AUTHOR_EMAIL=test@localhost
	export GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@localhost
}

# functions NAME...: each calls the next
functions() {
	while [ $# != 0 ]; do
		printf 'static int __init %s(int a,\n\t\tint b)\n' "$1"
		printf '{\n\t/* %s */\n\treturn %s(a, b);\n}\n\n' "$1" "${2:-f}"
		shift
	done
}

# make_kernel SUBLEVEL: the tiny kernel in $LINUX.
make_kernel() {
	export LINUX=$tmp/linux
	mkdir -p "$LINUX/block" "$LINUX/drivers"
	printf '%s\n' 'VERSION = 7' 'PATCHLEVEL = 3' "SUBLEVEL = $1" \
		>"$LINUX/Makefile"
	seq 1 40 | tee "$LINUX/block/a.c" >"$LINUX/drivers/b.c"
	functions one two three four | sed '/ two(int/s/static //' >"$LINUX/block/f.c"
	git -C "$LINUX" init -q
	# As Debian's, which must not hide new files.
	echo '/*' >"$LINUX/.gitignore"
	git -C "$LINUX" add --force .
	git -C "$LINUX" commit -q -m base
}

# add_commit SUBJECT: what is in the work tree, dated by a counter.
add_commit() {
	dates=$((${dates:-1000000000} + 100))
	tree_git add --all
	GIT_AUTHOR_DATE="@$dates +0200" tree_git commit -q -m "$1" -m 'Body: é.'
}

tree_git() { git -C "$repo/build/linux" "$@"; }
tool() { "$repo/scripts/tree.sh" "$@"; }

# A repository with the tools only, and a series exported into it.
sandbox() {
	ident
	repo=$tmp/repo
	export CACHE=$tmp/cache
	make_kernel 4
	mkdir "$repo"
	cp -r "$SCRIPTS" "$TOP/base" "$TOP/.gitignore" "$repo"
	git -C "$repo" init -q
	tool tree
	cd "$repo/build/linux"
	sed -i 's/^3$/three/' block/a.c
	echo new >block/new.c
	add_commit "block: a subject that is long enough for a mail header to fold"
	mkdir Documentation
	echo text >Documentation/new.rst
	add_commit 'Documentation: only new files — this one'
	sed -i 's/^30$/thirty/' drivers/b.c
	printf '#!/bin/sh\n' >drivers/run.sh
	chmod +x drivers/run.sh
	add_commit 'drivers: edit, and add a program'
	tool export
	cd "$repo"
	git add -A .
	git commit -q -m exported
}

unchanged() { [ -z "$(git -C "$repo" status --porcelain)" ]; }

# fails PATTERN COMMAND...: the command fails and says so.
fails() {
	local pattern=$1
	shift
	if "$@" >"$tmp/out" 2>&1; then
		echo "succeeded: $*"
		return 1
	fi
	cat "$tmp/out"
	grep -q -- "$pattern" "$tmp/out"
}

test_round_trip() {
	sandbox
	[ "$(wc -l <patches/series)" = 3 ]
	[ -x drivers/run.sh ]
	[ "$(cat block/new.c)" = new ]
	[ "$(grep -c '^diff' patches/*.patch | cut -d: -f2 | tr '\n' ' ')" = \
		'0 1 1 ' ]
	before=$(tree_git rev-parse 'HEAD^{tree}')
	rm -rf build
	tool tree
	[ "$(tree_git rev-parse 'HEAD^{tree}')" = "$before" ]
	commit=$(tree_git rev-parse HEAD)
	tool export
	unchanged
	rm -rf build "$CACHE"
	tool tree
	[ "$(tree_git rev-parse HEAD)" = "$commit" ]
}

test_mailed_series() {
	sandbox
	printf 'From: a\nSubject: [PATCH] title\n\ntext\n' \
		>patches/0000-cover-letter.patch
	SIGNOFF='Some One <one@localhost>' tool series
	grep -q '^Subject: \[PATCH 0/3\] title' build/series/0000-*
	git -C "$LINUX" am "$repo"/build/series/000[1-9]-*.patch
	[ "$(git -C "$LINUX" rev-parse 'HEAD^{tree}')" = \
		"$(tree_git rev-parse 'HEAD^{tree}')" ]
	git -C "$LINUX" log -3 --format=%b >"$tmp/bodies"
	[ "$(grep -c 'Signed-off-by: Some One <one@local' "$tmp/bodies")" = 3 ]
	export SIGNOFF=one
	fails 'is not "Name <address>"' tool series
}

test_does_not_apply() {
	sandbox
	# The outermost line of context: no fuzz.
	sed -i 's/^ 33$/ 33x/' patches/drivers-*.patch
	before=$(tree_git rev-parse HEAD)
	fails 'drivers-edit.*does not apply' tool tree
	[ "$(tree_git rev-parse HEAD)" = "$before" ]
}

test_edit_of_new_file() {
	sandbox
	cd build/linux
	echo more >>block/new.c
	add_commit 'block: edit the new file'
	fails 'a new file comes whole' tool export
	git format-patch -q -1 --stdout >../../patches/edit.patch
	git reset -q --hard HEAD~
	echo edit.patch >>../../patches/series
	fails 'make the change in block/new.c itself' tool tree
}

test_content_in_patch() {
	sandbox
	git -C build/linux format-patch -q -1 --stdout >patches/drivers-*.patch
	fails 'has the content of new files' tool tree
}

test_unnamed_patch() {
	sandbox
	cp patches/drivers-*.patch patches/forgotten.patch
	touch patches/0000-cover-letter.patch
	before=$(tree_git rev-parse HEAD)
	fails 'not in patches/series' tool tree
	grep -qw forgotten.patch "$tmp/out"
	[ "$(tree_git rev-parse HEAD)" = "$before" ]
	rm patches/forgotten.patch
	tool tree
}

test_missing_new_file() {
	sandbox
	rm block/new.c
	fails 'block/new.c does not exist' tool tree
}

test_unexported_work() {
	sandbox
	echo change >>build/linux/block/a.c
	fails 'were not exported' tool tree
	fails 'not committed' tool export
	tree_git commit -q -a -m 'block: more'
	fails 'were not exported' tool tree
	FORCE=1 tool tree
	[ -z "$(tree_git log --format=%h --grep='block: more')" ]
}

test_edited_meanwhile() {
	sandbox
	echo change >>block/new.c
	fails 'was edited after' tool export
	grep -q block/new.c "$tmp/out"
	tool tree
	[ "$(tail -n 1 build/linux/block/new.c)" = change ]
	tool export
	[ "$(git status --porcelain)" = ' M block/new.c' ]
}

test_groups_and_names() {
	sandbox
	{ echo '# first'; head -n 1 patches/series; echo; echo '# second'
		tail -n 2 patches/series; } >series
	mv series patches/series
	tool tree
	tree_git checkout -q HEAD~2
	tree_git checkout -q -B series
	mkdir build/linux/Documentation
	echo text >build/linux/Documentation/moved.rst
	add_commit 'Documentation: a new subject'
	echo 41 >>build/linux/block/a.c
	add_commit 'block: inserted'
	tool export
	printf '%s\n' '# first' '' '# second' \
		Documentation-a-new-subject.patch block-inserted.patch >"$tmp/want"
	grep -v '^block-a' patches/series | diff "$tmp/want" -
	[ ! -e Documentation/new.rst ]
	[ -e Documentation/moved.rst ]
	[ "$(find patches -name '*.patch' | wc -l)" = 3 ]
}

test_postings() {
	sandbox
	local names
	mapfile -t names <patches/series
	printf '%s\n' '# Posting first:' "${names[0]}" '' '# Posting rest: two of them' \
		"${names[@]:1}" >patches/series
	mkdir patches/covers
	printf '%s\n' 'Subject: all the rest' '' 'Why.' >patches/covers/rest
	printf '%s\n' 'From: Zoë Test <test@localhost>' >patches/0000-cover-letter.patch
	mkdir -p build/linux/scripts
	printf '#!/bin/sh\necho "$@"\n' >build/linux/scripts/get_maintainer.pl
	chmod +x build/linux/scripts/get_maintainer.pl
	tool series rest
	[ "$(find build/series-rest -type f | wc -l)" = 4 ]
	grep -q '^Subject: \[PATCH 0/2\] all the rest$' build/series-rest/0000-*.patch
	grep -q '/0002-.*patch' build/series-rest/recipients
	grep -q '^  "block: a subject .* to fold"$' build/series-rest/0000-*.patch
	tool series first
	[ ! -e build/series-first/0000-cover-letter.patch ]
	fails 'no posting second' tool series second
	tool postings
	[ "$(tree_git rev-list --count refs/postings/rest)" = 3 ]
	# What needs another one has to say so.
	rm -r build/linux/scripts
	sed -i 's/^three$/drei/' build/linux/block/a.c
	add_commit 'block: edit again'
	FORCE=1 tool export
	fails 'does not apply' tool postings
	sed -i '1aNeeds: first' patches/covers/rest
	tool postings
}

# three() changes; of its callers only two() can contain it inlined.
test_functions() {
	sandbox
	cd build/linux
	sed -i '/three \*/d' block/f.c
	functions five six >block/g.c
	cat >block/g.h <<-'END'
		#define macro(x) \
			x
		int declared(int a,
			     int b);
		struct s {
			int (*f)(int);
		};
		static inline int inlined(void) { return 0; }
	END
	mkdir -p "$TESTS_DIR/modules"
	functions module >"$TESTS_DIR/modules/m.c"
	functions program >"$TESTS_DIR/p.c"
	../../scripts/functions.sh
	printf '%s\n' five inlined module six three two >"$tmp/want"
	diff "$tmp/want" ../series-functions
	tree_git reset -q --hard
	tree_git clean -q -f -d
	tree_git checkout -q "$(head -n 1 .git/p2pmem-inputs)"
	fails 'changes no function' ../../scripts/functions.sh
	[ ! -e ../series-functions ]
}

test_other_version() {
	ident
	export CACHE=$tmp/cache
	make_kernel 3
	"$SCRIPTS/base.sh" >"$tmp/git" 2>&1
	rm -rf "$LINUX/.git"
	"$SCRIPTS/base.sh" >"$tmp/directory" 2>&1
	tar -cf "$tmp/linux.tar" -C "$tmp" linux
	unset LINUX
	TARBALL=$tmp/linux.tar "$SCRIPTS/base.sh" >"$tmp/tarball" 2>&1
	cd "$tmp"
	[ "$(grep -lx 'WARNING: the base is Linux 7.3.3, the series is .*' \
		git directory tarball | wc -l)" = 3 ]
	[ "$(grep -hE '^[0-9a-f]{40}$' git directory tarball | uniq -c |
		wc -l)" = 1 ]
}

test_wrong_sha256() {
	export CACHE=$tmp/cache
	mkdir "$CACHE"
	echo junk >"$CACHE/${BASE_PACKAGE}_${BASE_VERSION}_all.deb"
	fails 'does not have the sha256' "$SCRIPTS/base.sh"
}

# The repository as it is, committed or not.
test_real_round_trip() {
	repo=$tmp/repo
	[ -f "$PATCHES/series" ]
	mkdir "$repo"
	cd "$TOP"
	git ls-files -z --cached --others --exclude-standard |
		tar -c --null -T - | tar -x -C "$repo"
	ident
	git -C "$repo" init -q
	git -C "$repo" add -A
	git -C "$repo" commit -q -m all
	# Writing all of the kernel's files would take most of the time.
	init_checkout "$repo/build/linux"
	tree_git sparse-checkout set --no-cone /Makefile .gitattributes
	tool tree
	tool export
	git -C "$repo" diff --exit-code
	unchanged
	tool series
	before=$(tree_git rev-parse 'series^{tree}')
	tree_git checkout -q "$(head -n 1 "$repo/build/linux/.git/p2pmem-inputs")"
	rm -f "$repo/build/series/0000-cover-letter.patch"
	tree_git am -q "$repo"/build/series/*.patch
	[ "$(tree_git rev-parse 'HEAD^{tree}')" = "$before" ]
}

# Each test gets an empty $tmp; not in a condition, which would disarm set -e.
run() {
	local status=0 all=$tmp
	local tmp=$all/$1
	mkdir "$tmp"
	set +e
	(set -ex; "test_$1") >"$LOGS/test-tree-$1.log" 2>&1
	status=$?
	set -e
	number=$((number + 1))
	if [ "$status" = 0 ]; then
		echo "ok $number $1"
	else
		echo "not ok $number $1 # $LOGS/test-tree-$1.log"
		failed=1
	fi
	rm -rf "$tmp"
}

make_tmp
number=0
failed=0
mapfile -t tests < <(compgen -A function test_ | sed 's/^test_//')
[ $# = 0 ] || tests=("$@")
echo "TAP version 13"
echo "1..${#tests[@]}"
for test in "${tests[@]}"; do run "$test"; done
exit "$failed"
