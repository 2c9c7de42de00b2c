# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # here and work are run.sh's
#
# The guest's root file system: two cpio archives, one after the other. The
# first has this machine's own tools and is cached, the second has what belongs
# to one run.

rootfs_required=(bash busybox fio kmod nvme)
rootfs_optional=(addpart awk cmp dd delpart dmsetup ip lspci od rdma setpci stat
		 strace taskset timeout)

rootfs_tools()
{
	local tool

	for tool in "${rootfs_required[@]}"; do
		type -P "$tool" || {
			echo "run.sh: no '$tool' found, please install it" >&2
			return 1
		}
	done
	for tool in "${rootfs_optional[@]}"; do
		type -P "$tool"
	done
	return 0
}

# Any library that changes rewrites ld.so.cache.
rootfs_key()
{
	stat -Lc '%n %s %Y' "$@" /etc/ld.so.cache "$here/rootfs.sh" |
		sha256sum | cut -c1-16
}

rootfs_libraries()
{
	ldd "$@" 2> /dev/null |
		awk '$2 == "=>" && $3 ~ /^\// { print $3 }
		     $1 ~ /^\/.*ld-/ { print $1 }' | sort -u
}

# rootfs_copy ROOT FILE...: each file at its path, links in the path resolved
rootfs_copy()
{
	local root=$1 file directory

	shift
	for file in "$@"; do
		directory=$root$(realpath "${file%/*}") || return
		mkdir -p "$directory" && cp -L "$file" "$directory/" || return
	done
}

rootfs_skeleton()
{
	local root=$1 directory

	mkdir -p "$root"/{dev,etc,proc,root,run,sys,tests,tmp,usr/{bin,sbin,lib,lib64}}
	for directory in bin sbin lib lib64; do
		ln -s "usr/$directory" "$root/$directory"
	done
	echo 'root:x:0:0:root:/root:/bin/bash' > "$root/etc/passwd"
	echo 'root:x:0:' > "$root/etc/group"
	cp /etc/ld.so.cache "$root/etc/"
}

# busybox serves every command that has no file of its own.
rootfs_links()
{
	local root=$1 applet

	for applet in $(busybox --list); do
		[[ -e $root/usr/bin/$applet || -e $root/usr/sbin/$applet ]] ||
			ln -s /usr/bin/busybox "$root/usr/bin/$applet"
	done
	for applet in depmod insmod lsmod modinfo modprobe rmmod; do
		ln -sf /usr/bin/kmod "$root/usr/sbin/$applet"
		rm -f "$root/usr/bin/$applet"
	done
}

rootfs_pack()
{
	(cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet)
}

# rootfs_static CACHE: print the path of the archive with the tools
rootfs_static()
{
	local cache=$1 tools libraries root archive

	tools=$(rootfs_tools) || return
	mapfile -t tools <<< "$tools"
	archive=$cache/tools-$(rootfs_key "${tools[@]}").cpio
	if [[ ! -s $archive ]]; then
		rm -f "$cache"/tools-*.cpio
		root=$(mktemp -d "$cache/root.XXXXXX") || return
		mapfile -t libraries < <(rootfs_libraries "${tools[@]}")
		rootfs_skeleton "$root" &&
			rootfs_copy "$root" "${tools[@]}" "${libraries[@]}" &&
			rootfs_links "$root" &&
			rootfs_pack "$root" > "$root.cpio" &&
			mv "$root.cpio" "$archive" || archive=
		rm -rf "$root" "$root.cpio"
	fi
	[[ $archive ]] && echo "$archive"
}

# rootfs_run KERNEL TESTS CONFIG: write the archive of this run
rootfs_run()
{
	local kernel=$1 tests=$2 config=$3 root=$work/root

	mkdir -p "$root/usr/lib" "$root/tests"
	cp -a "$tests/." "$root/tests/" || return
	cp "$here/init.sh" "$root/init" && cp "$config" "$root/" || return
	if [[ -d $kernel/lib/modules ]]; then
		(cd "$kernel/lib" && find modules ! -type l -print0 |
			cpio -0 -pd --quiet "$root/usr/lib") || return
	fi
	rootfs_pack "$root"
	rm -rf "$root"
}
