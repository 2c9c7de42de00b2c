#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Get the base kernel into $BASE_GIT as one commit and print the commit's id.
#
# The commit depends on the content alone, not on where it came from or when:
# every clone and every machine has the same id.  In order of precedence:
#   LINUX=<tree>    a git repository (its HEAD) or a plain directory
#   TARBALL=<file>  a tar file with the kernel in one directory
#   the Debian package that base/kernel names

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

APT=(-q "-oDir::State::Lists=$CACHE/apt/lists" "-oDir::Cache=$CACHE/apt/cache"
	"-oDir::Etc::SourceList=$CACHE/apt/sources.list"
	-oDir::Etc::SourceParts=/dev/null -oAcquire::Languages=none
	"-oAPT::Sandbox::User=$(id -un)")
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

base_git() { git_plain --git-dir="$BASE_GIT" "$@"; }

# The kernel version that a tree's Makefile states.
kernel_version() {
	base_git cat-file blob "$1:Makefile" | awk -F' = ' '
		/^(VERSION|PATCHLEVEL|SUBLEVEL) = / { v = v (v ? "." : "") $2 }
		END { print v }'
}

# commit_tree NAME TREE: remember the base as branch NAME.
commit_tree() {
	local version commit
	version=$(kernel_version "$2") ||
		die "$1 is not a kernel: it has no Makefile"
	commit=$(echo "Linux $version" |
		GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL='' \
		GIT_AUTHOR_DATE='@0 +0000' GIT_COMMITTER_NAME=base \
		GIT_COMMITTER_EMAIL='' GIT_COMMITTER_DATE='@0 +0000' \
		base_git commit-tree "$2")
	base_git update-ref "refs/heads/$1" "$commit"
}

# import_dir NAME DIR: an index of its own makes the second time quick.
import_dir() {
	local index=$BASE_GIT/index-$1
	# The threshold sends all files to one pack: no 90,000 loose objects.
	GIT_INDEX_FILE=$index base_git -c core.bigFileThreshold=1 \
		-c core.compression=1 --work-tree="$2" add --force --all
	commit_tree "$1" "$(GIT_INDEX_FILE=$index base_git write-tree)"
}

# import_tar NAME: from standard input
import_tar() {
	"$SCRIPTS/import-tar.py" |
		base_git -c core.compression=1 fast-import --quiet --force --depth=0
	commit_tree "$1" "$(base_git rev-parse 'refs/import^{tree}')"
	base_git update-ref -d refs/import
}

import_tarball() { import_tar "$1" <"$2"; }

import_package() {
	dpkg-deb --fsys-tarfile "$2" |
		tar -xO "./usr/src/$BASE_PACKAGE.tar.xz" |
		import_tar "$1"
}

known() { base_git rev-parse --verify -q "refs/heads/$1" >/dev/null; }

# Each from_*() sets $name to the branch that it made.

from_git() {
	local tree
	tree=$(git -C "$LINUX" rev-parse --verify -q 'HEAD^{tree}') ||
		die "LINUX=$LINUX has no commit"
	name=tree-$tree
	known "$name" && return
	git -C "$LINUX" rev-list --objects --no-object-names "$tree" |
		git -C "$LINUX" pack-objects -q --stdout |
		base_git index-pack --stdin >/dev/null
	commit_tree "$name" "$tree"
}

from_directory() {
	[ -f "$LINUX/Makefile" ] || die "LINUX=$LINUX is not a kernel tree"
	name=directory-$(cd "$LINUX" && pwd | sha1sum | cut -c1-16)
	step base-import import_dir "$name" "$LINUX"
}

from_tarball() {
	[ -f "$TARBALL" ] || die "TARBALL=$TARBALL does not exist"
	name=tarball-$(sha256sum <"$TARBALL" | cut -c1-16)
	known "$name" || step base-import import_tarball "$name" "$TARBALL"
}

# The mirrors that this machine uses.
mirrors() {
	# shellcheck disable=SC2016 # apt expands it
	apt-get indextargets --no-release-info --format '$(REPO_URI)' |
		grep -vE -- '-security/?$' | sort -u
}

# Print the pinned version if the suite has it, else its newest one.  What a mirror lacks, or the keyring
# does not verify, is simply not found.
suite_version() {
	local versions
	mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial"
	mirrors | sed "s|.*|deb [signed-by=$KEYRING] & $1 main|" \
		>"$CACHE/apt/sources.list"
	apt-get "${APT[@]}" update >>"$LOGS/apt.log" 2>&1 || true
	versions=$(apt-cache "${APT[@]}" madison "$BASE_PACKAGE" |
		awk -F ' *[|] *' '{ print $2 }')
	grep -xF "$BASE_VERSION" <<<"$versions" ||
		sort -V <<<"$versions" | tail -n 1
}

# Print the version to take, nothing if there is none.
find_version() {
	local suite version
	echo "looking for $BASE_PACKAGE" >"$LOGS/apt.log"
	command -v apt-get >/dev/null || return 0
	say "  looking for $BASE_PACKAGE $BASE_VERSION"
	for suite in $BASE_SUITES; do
		version=$(suite_version "$suite")
		[ -z "$version" ] || break
	done
	echo "$version"
}

fetch() {
	[ -f "$file" ] && return
	say "  fetching $BASE_PACKAGE $1"
	(cd "$CACHE" && apt-get "${APT[@]}" download "$BASE_PACKAGE=$1") \
		>>"$LOGS/apt.log" 2>&1 ||
		die "cannot fetch $BASE_PACKAGE $1" "log: $LOGS/apt.log"
}

check_sha256() {
	[ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$BASE_SHA256" ] ||
		die "$1 does not have the sha256 of base/kernel" \
			"remove it to fetch it again"
}

# A branch name cannot have all the characters that a version can.
set_version() {
	name=package-$(tr '~:' '--' <<<"$1")
	file=$CACHE/${BASE_PACKAGE}_${1}_all.deb
}

from_package() {
	local version=$BASE_VERSION file
	set_version "$version"
	known "$name" && return
	[ -f "$file" ] || version=$(find_version)
	[ -n "$version" ] || die "no mirror of this machine has $BASE_PACKAGE" \
		"if there is no network, see $LOGS/apt.log" \
		"give a Linux $BASE_KERNEL tree with LINUX=<directory>" \
		"or a tar file of it with TARBALL=<file>"
	set_version "$version"
	fetch "$version"
	if [ "$version" = "$BASE_VERSION" ]; then
		check_sha256 "$file"
	else
		say "WARNING: the mirror has no $BASE_PACKAGE $BASE_VERSION any" \
			"more; taking $version, whose sha256 nobody checked"
	fi
	known "$name" || step base-import import_package "$name" "$file"
}

main() {
	local name version
	lock_cache base
	[ -d "$BASE_GIT" ] || git_plain init -q --bare "$BASE_GIT"
	if [ -n "${LINUX:-}" ]; then
		if [ -e "$LINUX/.git" ]; then from_git; else from_directory; fi
	elif [ -n "${TARBALL:-}" ]; then
		from_tarball
	else
		from_package
	fi
	version=$(kernel_version "$name")
	[ "$version" = "$BASE_KERNEL" ] ||
		say "WARNING: the base is Linux $version, the series is made for" \
			"$BASE_KERNEL"
	base_git rev-parse "refs/heads/$name"
}

main
