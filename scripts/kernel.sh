#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build kernels and the selftests that run on them.
#
#   kernel.sh build TREE CONFIG         -> build/kernel-TREE-CONFIG
#   kernel.sh tests TREE CONFIG         -> build/tests-TREE-CONFIG
#   kernel.sh make TREE CONFIG ARG...   kbuild of single objects
#   kernel.sh each series CONFIG        does it build after each patch?
#   kernel.sh postings series CONFIG    does each posting build on what it needs?
#   kernel.sh commit series CONFIG COPY COMMIT  that commit, and build/linux's tests for it
#                                       -> build/{kernel,tests}-COPY-CONFIG
#   kernel.sh mutant series CONFIG COMMIT PATCH  that commit and one more patch
#                                       -> build/mutant-NAME
#   kernel.sh source series CONFIG COMMIT [PATCH]  only its source: build/mutants
#   kernel.sh package series deb        Debian packages for a real machine -> build/deb
#                                       KCONFIG=<file>: its configuration
#                                       LOCALMOD=1: only the modules that are loaded here,
#                                       or that LSMOD=<output of lsmod> names
#
# TREE is "series" (build/linux as it is, committed or not) or "base"; CONFIG
# is one of base/*.config, or several of them: "a+b" is built where "a" is, so
# that what both need is built once.  Results are kept in the cache by what they
# were built from, so that a second clone builds nothing.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# fragment FILE: of base/, with what its "#include" lines name in their place
fragment() {
	local line word file
	while IFS= read -r line || [ -n "$line" ]; do
		read -r word file <<<"$line"
		if [ "$word" = '#include' ]; then
			fragment "$file"
		else
			printf '%s\n' "$line"
		fi
	done <"$TOP/base/$1"
}

# Later ones override earlier ones.
fragments() {
	local part
	fragment test.config
	for part in ${config//+/ }; do
		[ "$part" = test ] || fragment "$part.config"
	done
}

# The object directory lies in the source tree, hidden from git by the kernel's
# own rules: kbuild then uses relative paths, and ccache finds the objects of
# other clones and of the other tree.
kmake() {
	kbuild_env make -C "$src" O="$obj" -j$(($(nproc) + 1)) "${MAKE_ARGS[@]}" "$@"
}

# Print what a list of options asks for and does not get.  No file is no option.
missing_options() {
	awk -F= '
	/^CONFIG_/ && FILENAME == ARGV[1] { want[$1] = $2 }
	/^CONFIG_/ && FILENAME == ARGV[2] { have[$1] = $2 }
	/^# CONFIG_.* is not set$/ && FILENAME == ARGV[1] {
		split($0, word, " ")
		want[word[2]] = "n"
	}
	END {
		for (option in want) {
			none = want[option] == "\"\"" ? "\"\"" : "n"
			got = option in have ? have[option] : none
			if (got != want[option])
				print option "=" want[option] " became " got
		}
	}' "$1" "$2"
}

configure() {
	local missing
	mkdir -p "$obj"
	fragments >"$obj/fragments"
	kmake KCONFIG_ALLCONFIG="$obj/fragments" allnoconfig
	# Or compile() would do it, and find other features of the compiler.
	kmake syncconfig
	missing=$(missing_options "$obj/fragments" "$obj/.config")
	[ -z "$missing" ] || die "base/*.config: no effect:" "$missing"
}

# Compiling the output of ccache's preprocessor run saves a third of the time when the
# cache is empty. The price: spurious warnings about expanded macros, and no -Werror for
# what the preprocessor complains about.  The kernel's own tools have -Werror.
compile() {
	kmake prepare
	CCACHE_NOCPP2=1 kmake bzImage modules
}

install_kernel() {
	mkdir -p "$1"
	cp "$obj/arch/x86/boot/bzImage" "$obj/Module.symvers" "$1"
	cp "$obj/.config" "$1/config"
	kmake INSTALL_MOD_PATH="$1" modules_install
	# They name this machine's directories.
	rm -f "$1"/lib/modules/*/{build,source}
	[ "$config" != coverage ] || install_notes "$1/gcno"
	! grep -q ^CONFIG_DEBUG_INFO=y "$obj/.config" || cp "$obj/vmlinux" "$1"
}

# The notes that gcov reads for each object, and the diff of the series
install_notes() {
	mkdir "$1"
	(cd "$obj" && find . -name '*.gcno' -print0 | cpio -0 -pdL --quiet "$1")
	git_plain -C "$src" diff --no-renames -U0 "$base" "$(source_tree)" -- '*.[ch]' >"$1/diff"
}

# Count the lines of each C file that the series touches, by its name without directory.
profile_args() {
	git_plain -C "$src" diff --name-only --diff-filter=d "$base" "$(source_tree)" -- \
		'block/*.c' 'drivers/*.c' 'fs/*.c' |
		sed 's|.*/||; s|\.c$||; s|.*|GCOV_PROFILE_&.o=y|'
}

# The git tree of the source as it is now.
source_tree() {
	if [ "$tree" = base ]; then
		git_plain --git-dir="$BASE_GIT" rev-parse "$base^{tree}"
	else
		worktree_id "$src"
	fi
}

# A hash of all that the kernel depends on.
kernel_key() {
	local source
	source=$(source_tree) || return
	{
		source_files "$source" || exit
		fragments
		gcc --version
		ld --version
		declare -f kmake kbuild_env configure compile install_kernel install_notes
		echo "${MAKE_ARGS[@]}"
	} | hash_of
}

# Sets up $src and $obj for use; the base is checked out when it is needed, by
# one of those that run at a time.
prepare_source() {
	[ "$tree" = base ] || return 0
	exec 7>"$src.lock"
	flock 7
	init_checkout "$src"
	[ "$(git_plain -C "$src" rev-parse -q --verify HEAD)" = "$base" ] ||
		git_plain -C "$src" checkout -q --force --detach "$base"
	exec 7>&-
}

# publish DIR NAME: as build/NAME, which others may be using
publish() {
	ln -sfn "$1" "$tmp/link"
	mv -T "$tmp/link" "$BUILD/$2"
}

# keep NEW OUT: in the cache, where it must not be taken for what it was not built from
keep() {
	local now
	now=$(kernel_key)
	[ "$now" = "$key" ] || die "the source was edited meanwhile, so this is not kept"
	mv "$1" "$2"
}

# In steps, each of which shows its progress.
build_kernel() {
	local out=$CACHE/kernels/$key
	[ -d "$out" ] || lock_cache "kernels/$key"
	if [ ! -d "$out" ]; then
		# What an earlier build left must not pass for this one.
		rm -f "$BUILD/kernel-$flavour"
		prepare_source
		rm -f "$obj/.key"
		step "$flavour-config" configure
		step "$flavour-kernel" compile
		rm -rf "$out.new"
		step "$flavour-install" install_kernel "$out.new"
		keep "$out.new" "$out"
		echo "$key" >"$obj/.key"
	fi
	publish "$out" "kernel-$flavour"
}

prepare_objects() {
	configure
	kmake modules_prepare
	cp "$CACHE/kernels/$key/Module.symvers" "$obj"
}

# Make $obj fit for building modules, also if the kernel was in the cache.
need_objects() {
	prepare_source
	[ "$(cat "$obj/.key" 2>/dev/null)" != "$key" ] || return 0
	build_kernel
	rm -f "$obj/.key"
	step "$flavour-prepare" prepare_objects
	echo "$key" >"$obj/.key"
}

# The selftests get a copy of their own for each flavour: modules are built
# where their sources are.
copy_selftests() {
	rm -rf "$1"
	mkdir -p "$1"
	git_plain -C "$src" archive "$base" -- scripts/subarch.include \
		tools/include tools/arch/x86/include \
		drivers/pci/p2pdma.c include/linux/pci_ids.h \
		tools/testing/selftests/kselftest \
		':(glob)tools/testing/selftests/*' | tar -x -C "$1"
	mkdir -p "$1/$TESTS_DIR"
	test_files | tar -c -C "$tests_from" --null -T - |
		tar -x -C "$1"
}

# What git knows or would know: no objects of somebody's manual build.  A test runs the
# commands of a document.
test_files() {
	git_plain -C "$tests_from" ls-files -z --cached --others \
		--exclude-standard -- "$TESTS_DIR" Documentation/nvme/nvmet-p2pmem.rst
}

install_tests() {
	local copy=$BUILD/selftests-$flavour
	copy_selftests "$copy"
	CCACHE_DIR=$CACHE/ccache make -C "$copy/tools/testing/selftests" \
		TARGETS=p2pdma FORCE_TARGETS=1 O="$obj" KDIR="$obj" \
		CC='ccache gcc' KSFT_INSTALL_PATH="$1" install
	# An empty list would be tests that nobody misses.
	grep -q . "$1/kselftest-list.txt"
}

tests_key() {
	{
		echo "$key $base"
		cd "$tests_from" || exit
		test_files | xargs -0 sha256sum || exit
		declare -f install_tests copy_selftests
	} | hash_of
}

build_tests() {
	local out now
	out=$CACHE/tests/$(tests_key)
	[ -d "$out" ] || lock_cache "tests/${out##*/}"
	if [ ! -d "$out" ]; then
		rm -f "$BUILD/tests-$flavour"
		need_objects
		rm -rf "$out.new"
		step "$flavour-tests" install_tests "$out.new"
		now=$(tests_key)
		[ "$now" = "${out##*/}" ] || die "the tests were edited meanwhile"
		keep "$out.new" "$out"
	fi
	publish "$out" "tests-$flavour"
}

# A tree of its own, so that build/linux stays as it is.
set_copy() {
	flavour=$1 src=$BUILD/$1 obj=$BUILD/$1/.obj-$config
	[ ! -e "$src/.git" ] || return 0
	init_checkout "$src"
	echo "$BUILD/linux/.git/objects" >>"$src/.git/objects/info/alternates"
}

build_each() {
	local commit commits
	mapfile -t commits < <(git_plain -C "$src" rev-list --reverse \
		"$base..HEAD")
	build_commits "${commits[@]}"
}

build_postings() {
	local commits
	"$SCRIPTS/tree.sh" postings
	mapfile -t commits < <(git_plain -C "$src" for-each-ref \
		--format='%(objectname)' refs/postings)
	build_commits "${commits[@]}"
}

build_commits() {
	local commit
	[ $# != 0 ] || die "there are no commits to build"
	set_copy each
	tests_from=$src
	for commit; do
		git_plain -C "$src" checkout -q --force --detach "$commit"
		say "  $(git_plain -C "$src" log -1 --format=%s)"
		step each-config configure
		step each-kernel compile
		# The last patch brings their Makefile.
		[ ! -e "$src/$TESTS_DIR/Makefile" ] ||
			step each-tests install_tests "$tmp/each-tests"
	done
}

# copy_commit COPY COMMIT [PATCH]: sets up $src
copy_commit() {
	set_copy "$1"
	git_plain -C "$src" checkout -q --force --detach "$2"
	[ -z "${3:-}" ] || git_plain -C "$src" apply --recount "$3"
}

build_commit() {
	local kernel=$BUILD/kernel-$1-$config tests=$BUILD/tests-$1-$config
	copy_commit "$@"
	rm -rf "$kernel" "$tests"
	step "$1-config" configure
	step "$1-kernel" compile
	step "$1-install" install_kernel "$kernel"
	step "$1-tests" install_tests "$tests"
}

build_mutant() {
	local out
	out=$BUILD/mutant-$(basename "$2" .patch)
	copy_commit mutants "$@"
	rm -rf "$out"
	step mutants-kernel compile
	step mutants-install install_kernel "$out"
}

# A real machine's configuration with what the selftests need, but what is built in stays
# so.  merge_config.sh works in the current directory.
configure_package() {
	local missing
	cp "$kconfig" "$obj/.config"
	fragment deb.config >"$obj/fragment"
	kmake olddefconfig
	[ -z "${LOCALMOD:-}" ] || kmake ${LSMOD:+"LSMOD=$(realpath "$LSMOD")"} localmodconfig
	(cd "$src" && scripts/kconfig/merge_config.sh -m -y -O "$obj" "$obj/.config" \
		"$TESTS_DIR/config" "$obj/fragment")
	kmake olddefconfig
	missing=$(missing_options "$obj/fragment" "$obj/.config")
	[ -z "$missing" ] || die "base/deb.config: no effect:" "$missing"
}

# bindeb-pkg leaves the packages beside the directory of the objects.  The headers for user
# space are the distribution's business.
build_kernel_package() {
	local status=0
	kmake DPKG_FLAGS=-d DEB_BUILD_PROFILES=pkg.linux-upstream.nokerneldbg bindeb-pkg ||
		status=$?
	mv "$src"/linux-{image,headers}-*.deb "$BUILD/deb" || status=$?
	rm -f "$src"/linux-*.{deb,buildinfo,changes}
	return $status
}

build_tests_package() {
	local root=$tmp/tests-package release
	release=$(cat "$obj/include/config/kernel.release")
	install_tests "$root/usr/lib/p2pdma-selftests"
	mkdir "$root/DEBIAN"
	cat >"$root/DEBIAN/control" <<-END
		Package: p2pdma-selftests
		Version: $release
		Architecture: $(dpkg --print-architecture)
		Maintainer: p2pmem developers <p2pmem@localhost>
		Depends: linux-image-$release
		Recommends: fio, iproute2, nvme-cli, pciutils
		Description: selftests of peer-to-peer DMA
		 For Linux $release, with the test modules.  The tests overwrite the drives
		 that they are told to use, and no others.
	END
	dpkg-deb --root-owner-group --build "$root" "$BUILD/deb"
}

build_package() {
	local kconfig=${KCONFIG:-/boot/config-$(uname -r)}
	[ -f "$kconfig" ] || die "$kconfig is not there" "KCONFIG=<file> names the configuration of a kernel"
	kconfig=$(realpath "$kconfig")
	rm -rf "$BUILD/deb"
	mkdir -p "$obj" "$BUILD/deb"
	step deb-config configure_package
	step deb-kernel build_kernel_package
	step deb-tests build_tests_package
	printf '%s\n' "$BUILD/deb"/*.deb
}

set_tree() {
	case $tree in
	series)
		src=$BUILD/linux tests_from=$BUILD/linux
		[ -f "$src/.git/p2pmem-inputs" ] ||
			die "build/linux is not there" "run \"make tree\""
		base=$(head -n 1 "$src/.git/p2pmem-inputs") ;;
	base)
		src=$BUILD/base tests_from=$TOP
		base=$("$SCRIPTS/base.sh") ;;
	*)
		die "no such tree: $tree" ;;
	esac
	obj=$src/.obj-${config%%+*}
}

main() {
	local part
	[ $# -ge 3 ] || die "usage: ${0##*/} COMMAND TREE CONFIG [ARG]..."
	tree=$2 config=$3 flavour=$2-$3
	for part in ${config//+/ }; do
		[ -f "$TOP/base/$part.config" ] || die "no such config: $part"
	done
	set_tree
	mkdir -p "$CACHE/kernels" "$CACHE/tests"
	make_tmp
	if [ "$config" = coverage ]; then
		profile_args >"$tmp/profile"
		mapfile -t -O ${#MAKE_ARGS[@]} MAKE_ARGS <"$tmp/profile"
	fi
	key=$(kernel_key)
	case $1 in
	build) build_kernel ;;
	tests) build_tests ;;
	make) prepare_source; configure; kmake modules_prepare
		kmake "${@:4}" ;;
	each) build_each ;;
	postings) build_postings ;;
	commit) build_commit "${@:4}" ;;
	mutant) build_mutant "${@:4}" ;;
	source) copy_commit mutants "${@:4}" ;;
	package) build_package ;;
	*) die "no such command: $1" ;;
	esac
}

main "$@"
