#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Between this repository's layout and a kernel tree with commits.
#
#   tree.sh tree     patches/ and the new files -> build/linux
#   tree.sh export   build/linux -> patches/ and the new files
#   tree.sh series   build/linux -> build/series, complete and ready to mail
#   tree.sh series NAME   one posting of it -> build/series-NAME
#   tree.sh postings  check that each posting applies on what it needs alone
#   tree.sh unclaimed  list the new files that belong to no patch
#   tree.sh clean    remove build/, unless that loses work
#   tree.sh distclean  remove the cache as well
#
# A patch in patches/ holds its commit's message, the diff of files that the
# base has, and a "create mode" line for each file that is new; that file's
# content is the one at its path in this repository.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TREE=$BUILD/linux
# What build/linux was last made from or exported to.
STATE=$TREE/.git/p2pmem-inputs
EXPORTED=refs/p2pmem/exported
COVER=0000-cover-letter.patch
COVERS=$PATCHES/covers

linux() { git_plain -C "$TREE" "$@"; }

series_names() {
	[ ! -f "$PATCHES/series" ] || awk '!/^[ \t]*(#|$)/ { print $1 }' \
		"$PATCHES/series"
}

# A line "# Posting NAME: ..." in the series file begins those patches of it that are
# mailed together.  patches/covers/NAME is their cover letter, with the names of the
# postings that they need, unless NAME is a single patch that needs none.
posting_names() { sed -n 's/^# Posting \([a-z0-9-]*\):.*/\1/p' "$PATCHES/series"; }

# posting_patches NAME: in order
posting_patches() {
	awk -v name="$1" '/^# Posting / { inside = $3 == name ":" }
		inside && !/^[ \t]*(#|$)/ { print $1 }' "$PATCHES/series"
}

# posting_needs NAME: in the order in which they apply
posting_needs() {
	local needs
	needs=$(sed -n 's/^Needs: //p' "$COVERS/$1" 2>/dev/null) || true
	[ -z "$needs" ] || posting_names | grep -xFf <(tr ' ' '\n' <<<"$needs") || true
}

# The "MODE PATH" of the files that a patch creates.
created_by() {
	awk '/^diff --git / { exit }
		/^---$/ { summary = 1 }
		summary && /^ create mode / { print $3, $4 }' "$1"
}

# Print what assembly reads: the base's id, then the sha1 of each file.
inputs() (
	echo "$base"
	cd "$TOP"
	for name in $(series_names); do
		[ -f "patches/$name" ] || die "patches/$name does not exist" \
			"patches/series lists it"
		while read -r _ path; do
			[ -f "$path" ] || die "$path does not exist" \
				"patches/$name has a \"create mode\" line for it"
			sha1sum "$path"
		done < <(created_by "patches/$name")
		sha1sum "patches/$name"
	done
)

# A patch file that is missing from the series would be dropped silently.
check_names() {
	local extra
	extra=$(cd "$PATCHES" && printf '%s\n' *.patch |
		grep -vxFf <(printf '%s\n' '*.patch' "$COVER"; series_names)) ||
		return 0
	die "not in patches/series:" "$extra" \
		"name it there if it belongs to the series, or remove it"
}

record_state() {
	inputs >"$tmp/inputs"
	cp "$tmp/inputs" "$STATE"
	linux update-ref "$EXPORTED" "$1"
}

#
# tree
#

# Succeeds if build/linux holds work that exists nowhere else.
has_unexported_work() {
	local exported
	exported=$(linux rev-parse -q --verify "$EXPORTED") || return 1
	[ "$(linux rev-parse HEAD refs/heads/series | sort -u)" != "$exported" ] ||
		[ -n "$(linux status --porcelain)" ]
}

refuse_to_lose_work() {
	if has_unexported_work && [ -z "$FORCE" ]; then
		die "build/linux has commits or changes that were not exported" \
			"\"make export\" saves them, FORCE=1 throws them away"
	fi
}

header() { sed -n "s/^$1: //p" "$tmp/info"; }

# commit_index FILE: a commit of the index with the patch's author and message.
commit_index() {
	local author email date subject
	author=$(header Author)
	email=$(header Email)
	date=$(header Date)
	subject=$(header Subject)
	if [ -z "$author" ] || [ -z "$date" ] || [ -z "$subject" ]; then
		die "$1 lacks a From, Date or Subject line"
	fi
	{ echo "$subject"; echo; cat "$tmp/message"; } |
		GIT_AUTHOR_NAME=$author GIT_COMMITTER_NAME=$author \
		GIT_AUTHOR_EMAIL=$email GIT_COMMITTER_EMAIL=$email \
		GIT_AUTHOR_DATE=$date GIT_COMMITTER_DATE=$date \
		linux commit-tree -p "$commit" "$(linux write-tree)"
}

# Refuse content of new files in a patch: such a file comes whole in one commit.
check_edits() {
	local name=$1 path new
	new=$(linux apply --summary "$tmp/diff" | awk '/^ create/ { print $4 }')
	[ -z "$new" ] || die "patches/$name has the content of new files:" \
		"$new" "put them at their paths in this repository, remove" \
		"their diffs from the patch, keep its \"create mode\" lines"
	while read -r _ _ path; do
		[ -z "${creator[$path]:-}" ] || die \
			"patches/$name edits $path," \
			"which patches/${creator[$path]} brings whole:" \
			"make the change in $path itself, without a diff"
	done < <(linux apply --numstat "$tmp/diff")
}

add_new_files() {
	local name=$1 mode path blob
	while read -r mode path; do
		[ -z "$(linux ls-files -- "$path")" ] ||
			die "patches/$name creates $path, which is there already"
		blob=$(linux hash-object -w --no-filters "$TOP/$path")
		linux update-index --add --cacheinfo "$mode,$blob,$path"
		creator[$path]=$name
	done < <(created_by "$PATCHES/$name")
}

# Add a patch to the index and set $commit to its commit.  The working tree is
# not touched, so that an unchanged file is not rebuilt.
apply_patch() {
	local name=$1
	git_plain mailinfo -b --encoding=UTF-8 "$tmp/message" "$tmp/diff" \
		<"$PATCHES/$name" >"$tmp/info"
	if grep -q '^diff --git ' "$tmp/diff"; then
		check_edits "$name"
		linux apply --cached --whitespace=nowarn "$tmp/diff" ||
			die "patches/$name does not apply" \
				"nothing was changed in build/linux"
	fi
	add_new_files "$name"
	commit=$(commit_index "patches/$name")
}

# assemble PATCH...: sets $commit to the tip of the assembled series
assemble() {
	local name
	local -x GIT_INDEX_FILE=$tmp/index
	local -A creator=()
	commit=$base
	linux read-tree "$base"
	for name; do apply_patch "$name"; done
}

# Each posting on what it needs, and nothing else
do_postings() {
	local name patches commit part
	base=$(head -n 1 "$STATE")
	diff <(series_names) <(for name in $(posting_names); do posting_patches "$name"; done) ||
		die "patches/series has patches that are in no posting"
	while read -r name; do
		posting_names | grep -qxF "$name" ||
			die "patches/covers need the posting $name, which patches/series has not"
	done < <(sed -n 's/^Needs: //p' "$COVERS"/* | tr ' ' '\n')
	for name in $(posting_names); do
		mapfile -t patches < <(for part in $(posting_needs "$name") "$name"; do
			posting_patches "$part"
		done)
		assemble "${patches[@]}"
		linux update-ref "refs/postings/$name" "$commit"
		say "  $name: ${#patches[@]} patches"
	done
}

# Print the new files that no patch brings: the series would lack them.
do_unclaimed() {
	local name
	for name in $(series_names); do
		created_by "$PATCHES/$name" | cut -d' ' -f2
	done >"$tmp/claimed"
	git -C "$TOP" ls-files --cached --others --exclude-standard -- \
		':!/base' ':!/scripts' ':!/measurements' ':!/mutants' ':!/patches' ':!/.ci' \
		':(exclude,top,glob)*' | grep -vxFf "$tmp/claimed" || true
}

# Debian's .gitignore hides whatever is not tracked: git would neither show nor
# add a new file.  The index keeps the file as it is.
show_new_files() {
	grep -qx '/\*' "$TREE/.gitignore" 2>/dev/null || return 0
	linux update-index --skip-worktree .gitignore
	sed -i '/^\/\*$/d' "$TREE/.gitignore"
}

do_tree() {
	local commit
	base=$("$SCRIPTS/base.sh")
	init_checkout "$TREE"
	check_names
	inputs >"$tmp/inputs"
	refuse_to_lose_work
	# shellcheck disable=SC2046 # names
	assemble $(series_names)
	[ -f "$TREE/Makefile" ] || say "  checking out build/linux"
	[ -z "$FORCE" ] || linux rebase --quit 2>/dev/null || true
	linux checkout -q ${FORCE:+-f} -B series "$commit"
	show_new_files
	record_state "$commit"
	do_unclaimed | sed 's/^/WARNING: no patch creates /' >&2
}

#
# export
#

check_exportable() {
	[ -f "$STATE" ] || die "build/linux is not there" "run \"make tree\""
	base=$(head -n 1 "$STATE")
	[ "$(linux symbolic-ref -q HEAD)" = refs/heads/series ] ||
		die "build/linux is not on its branch \"series\"" \
			"finish the rebase, or check that branch out"
	[ -z "$(linux status --porcelain)" ] ||
		die "build/linux has changes that are not committed" \
			"commit them (git commit --fixup=...), or stash them"
	if ! linux merge-base --is-ancestor "$base" HEAD ||
	   [ -n "$(linux rev-list --merges "$base..HEAD")" ]; then
		die "build/linux is not a plain row of commits on $base"
	fi
	[ -n "$FORCE" ] || inputs | diff "$STATE" - >"$tmp/changed" ||
		die "this repository was edited after \"make tree\":" \
			"$(sed -n 's/^[<>] [0-9a-f]*  //p' "$tmp/changed" | sort -u |
			tr '\n' ' ')" \
			"\"make tree\" takes that over, FORCE=1 overwrites it"
}

# Refuse a commit that changes what an earlier one created.
check_commit() {
	local path title
	title=$(linux log -1 --format='%h ("%s")' "$1")
	while read -r path; do
		[ -z "${creator[$path]:-}" ] || die \
			"$title changes $path," \
			"which the earlier ${creator[$path]} creates:" \
			"a new file comes whole, so move the change there" \
			"(git commit --fixup, git rebase -i --autosquash)"
	done < <(linux diff-tree -r --no-commit-id --no-renames \
		--diff-filter=a --name-only "$1")
	while read -r path; do
		creator[$path]=$title
	done < <(linux diff-tree -r --no-commit-id --no-renames \
		--diff-filter=A --name-only "$1")
}

# The patch of one commit, with new files as "create mode" lines only.
write_patch() {
	local created
	created=$(linux diff-tree -r --no-commit-id --no-renames --summary \
		--diff-filter=A "$1")
	linux format-patch -1 --stdout --zero-commit --no-signature \
		--no-numbered --full-index --binary --no-renames --always \
		--no-encode-email-headers --diff-filter=a "$1" |
		created=$created awk '
		function summary() {
			if (!done++ && ENVIRON["created"] != "")
				print ENVIRON["created"]
		}
		/^---$/ { stat = 1 }
		stat && /^$/ { summary() }
		{ print }
		END { if (!stat) print "---"; summary() }'
}

# patch_name COMMIT: by subject, without a number that insertions would change.
patch_name() {
	local name
	name=$(linux log -1 --format=%f "$1")
	echo "${name:0:60}.patch"
}

# The old series file with the new names: a block of comments stays before the
# group of patches that follows it.
merge_series() {
	awk '
	{ is_old = FILENAME == ARGV[1] }
	is_old && /^[ \t]*(#|$)/ { text = text $0 "\n"; next }
	is_old {
		old[++n] = $1; at[$1] = n
		if (text != "" || n == 1)
			banner[++groups] = text
		group[n] = groups; text = ""
		next
	}
	{ new[++m] = $1; is_new[$1] = 1 }
	END {
		for (i = 1; i <= m; i++) {
			# An unknown name in the place of one that is gone is a new
			# subject; any other was inserted after its predecessor.
			if (new[i] in at)
				last = at[new[i]]
			else if (last < n && !(old[last + 1] in is_new))
				last++
			g = last ? group[last] : 1
			if (!shown[g]++)
				printf "%s", banner[g]
			print new[i]
		}
		printf "%s", text
	}' "$1" "$2"
}

# put SOURCE DESTINATION: only if that changes something, and say so.
put() {
	cmp -s "$1" "$TOP/$2" && return
	mkdir -p "$(dirname "$TOP/$2")"
	cat "$1" >"$TOP/$2"
	say "  wrote $2"
}

put_new_files() {
	local mode path
	while read -r mode path; do
		linux cat-file blob "HEAD:$path" >"$tmp/blob"
		put "$tmp/blob" "$path"
		case $mode in
		100644) chmod a-x "$TOP/$path" ;;
		100755) chmod a+x "$TOP/$path" ;;
		*) die "$path is neither a file nor a program (mode $mode)" ;;
		esac
	done <"$tmp/created"
}

# Remove the patches and new files that the series has no more.
remove_stale() {
	local path
	{ cut -c43- "$STATE" | grep .; cd "$TOP"; printf '%s\n' patches/*.patch; } |
		sort -u | grep -vxFf <(echo "patches/$COVER"
			sed 's|^|patches/|' "$tmp/names"
			cut -d' ' -f2 "$tmp/created") |
	while read -r path; do
		[ -e "$TOP/$path" ] || continue
		rm "$TOP/$path"
		say "  removed $path"
	done || true
}

do_export() {
	local base commit name
	local -A creator=()
	check_exportable
	mkdir "$tmp/patches"
	touch "$tmp/names" "$tmp/created"
	for commit in $(linux rev-list --reverse "$base..HEAD"); do
		check_commit "$commit"
		name=$(patch_name "$commit")
		[ ! -e "$tmp/patches/$name" ] ||
			die "two commits have the subject of $name"
		write_patch "$commit" >"$tmp/patches/$name"
		echo "$name" >>"$tmp/names"
		created_by "$tmp/patches/$name" >>"$tmp/created"
	done
	mkdir -p "$PATCHES"
	touch "$PATCHES/series"
	merge_series "$PATCHES/series" "$tmp/names" >"$tmp/series"
	while read -r name; do
		put "$tmp/patches/$name" "patches/$name"
	done <"$tmp/names"
	put_new_files
	remove_stale
	put "$tmp/series" patches/series
	record_state HEAD
}

do_clean() {
	[ ! -d "$TREE/.git" ] || refuse_to_lose_work
	rm -rf "$BUILD"
}

# Only what is ours: CACHE may name a directory with other things in it.
do_distclean() {
	do_clean
	rm -rf "$CACHE"/{base.git,kernels,tests,ccache,checkpatch,qemu,apt,blktests,blktests.git} \
		"$CACHE"/*.lock "$CACHE/$BASE_PACKAGE"_*.deb
	rmdir --ignore-fail-on-non-empty "$CACHE"
}

#
# series
#

# write_cover FILE COUNT FROM TO: with its number, and what changes where
write_cover() {
	local count=$2
	sed -E "0,/^Subject: (\[PATCH[^]]*\] )?/s//Subject: [PATCH $(printf \
		"%0${#count}d" 0)\/$count] /" "$1"
	echo
	linux shortlog "$3..$4"
	linux diff --stat=72 --summary --no-renames "$3" "$4"
	echo
	echo "Base: Linux $BASE_KERNEL ($BASE_PACKAGE $BASE_VERSION)"
}

# The subject of a posting's first mail
posting_title() {
	local first=$COVERS/$1
	[ -f "$first" ] || first=$PATCHES/$(posting_patches "$1")
	git_plain mailinfo -b /dev/null /dev/null <"$first" | sed -n 's/^Subject: //p'
}

# How a posting fits in, for whoever gets only that one
posting_context() {
	local name needs mark
	needs=$(posting_needs "$1")
	echo "The whole is these $(posting_names | wc -l) series, in this order:"
	echo
	for name in $(posting_names); do
		mark=
		if [ "$name" = "$1" ]; then
			mark=" (this one)"
		elif grep -qxF "$name" <<<"$needs"; then
			mark=" (needed here)"
		fi
		echo "  \"$(posting_title "$name")\"$mark"
	done
	echo
	echo "The fixes can be applied at once, each by its own maintainer."
}

# What a cover letter of patches/covers lacks to be a mail
mail_header() {
	echo "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"
	sed -n '/^From: /p; /^Date: /p' "$PATCHES/$COVER"
}

# Whom the kernel's own tool names for the patches in a directory
recipients() {
	(cd "$TREE" && scripts/get_maintainer.pl --no-git --no-git-fallback --nofixes \
		--norolestats "$1"/*.patch) >"$1/recipients"
}

# posting_commits NAME: the tree has a commit for each patch of the series
posting_commits() {
	awk 'NR == FNR { wanted[$1]; next } $1 in wanted { print $2 }' \
		<(posting_patches "$1") \
		<(paste <(series_names) <(linux rev-list --reverse "$base..HEAD"))
}

write_posting() {
	local out=$BUILD/series-$1 from to commits
	mapfile -t commits < <(posting_commits "$1")
	[ "${#commits[@]}" != 0 ] || die "no posting $1 in patches/series" \
		"there are:" "$(posting_names)"
	from=${commits[0]}^ to=${commits[-1]}
	write_mails "$out" "$from" "$to"
	recipients "$out"
	if [ -f "$COVERS/$1" ]; then
		{
			mail_header
			sed '/^Needs: /d' "$COVERS/$1"
			echo
			posting_context "$1"
		} >"$tmp/cover"
		write_cover "$tmp/cover" "${#commits[@]}" "$from" "$to" >"$out/$COVER"
	fi
	say "  build/series-$1: ${#commits[@]} patches, and whom to send them to"
}

# write_mails DIRECTORY FROM TO
write_mails() {
	local args=()
	if [ -n "${SIGNOFF:-}" ]; then
		[[ $SIGNOFF =~ ^(.+)\ \<([^\<\>\ ]+@[^\<\>\ ]+)\>$ ]] ||
			die "SIGNOFF=\"$SIGNOFF\" is not \"Name <address>\""
		export GIT_COMMITTER_NAME=${BASH_REMATCH[1]}
		export GIT_COMMITTER_EMAIL=${BASH_REMATCH[2]}
		args=(--signoff)
	fi
	rm -rf "$1"
	mkdir -p "$1"
	linux format-patch -q --no-signature --zero-commit \
		--full-index --binary --no-renames "${args[@]}" -o "$1" "$2..$3"
}

do_series() {
	local out=$BUILD/series count
	base=$(head -n 1 "$STATE")
	if [ -n "${1:-}" ]; then write_posting "$1"; return; fi
	count=$(linux rev-list --count "$base..HEAD")
	write_mails "$out" "$base" HEAD
	if [ -f "$PATCHES/$COVER" ]; then
		write_cover "$PATCHES/$COVER" "$count" "$base" HEAD >"$out/$COVER"
	else
		say "  patches/$COVER is missing: no cover letter"
	fi
	say "  build/series: $count patches"
}

make_tmp
case ${1:-} in
tree|export|series|postings|unclaimed|clean|distclean) "do_$1" "${@:2}" ;;
*) die "usage: ${0##*/} COMMAND, see its beginning" ;;
esac
