#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the guest's root file system: two cpio archives, one after the other. The
# first has this machine's own tools and is cached, the second has what belongs
# to one run.
#
#   rootfs.sh static CACHE [TOOL]...       print the path of the first
#   rootfs.sh run KERNEL TESTS CONFIG FILE write the second

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
PATH=$PATH:/usr/sbin:/sbin

rootfs_required=(bash busybox fio kmod nvme)
rootfs_optional=(addpart awk cmp dd delpart dmsetup flock getconf ip lspci od rdma setpci
		 stat strace taskset timeout trace-cmd)

# rootfs_tools TOOL...: these, and what every guest has
rootfs_tools()
{
	local tool

	for tool in "${rootfs_required[@]}" "$@"; do
		type -P "$tool" || {
			echo "rootfs.sh: no '$tool' found, please install it" >&2
			return 1
		}
	done
	for tool in "${rootfs_optional[@]}"; do
		type -P "$tool"
	done
	return 0
}

# ld.so.cache stands for all libraries: it is written anew when a package installs one.
rootfs_key()
{
	{ stat -Lc '%n %s %Y' "$@" /etc/ld.so.cache; cat "$here/rootfs.sh"; } |
		sha256sum | cut -c1-16
}

rootfs_libraries()
{
	ldd "$@" 2> /dev/null |
		awk '$2 == "=>" && $3 ~ /^\// { print $3 }
		     $1 ~ /^\/.*ld-/ { print $1 }' | sort -u
}

# fio is linked with engines for storage that the guest does not have, whose libraries
# need fifty others: in an emulated machine, linking them takes most of a short run.
rootfs_engines='/lib(gfapi|ibverbs|nbd|pmem|pmemblk|rados|rbd|rdmacm)[.]so'

# rootfs_unused TOOL...: libraries of those engines that no other tool needs
rootfs_unused()
{
	local tool others=()

	for tool; do
		[[ ${tool##*/} == fio ]] || others+=("$tool")
	done
	comm -23 <(rootfs_libraries "$(type -P fio)") \
		<(rootfs_libraries "${others[@]}") | grep -E "$rootfs_engines"
}

# rootfs_symbols PROGRAM LIBRARY: what the program takes from it, "name version"
rootfs_symbols()
{
	local -x LC_ALL=C	# join wants this order

	join <(nm -D --undefined-only "$1" | awk '{ sub("@", " ", $NF); print $NF }' | sort) \
		<(nm -D --defined-only "$2" | awk '{ sub("@.*", "", $NF); print $NF }' | sort -u)
}

# rootfs_stub PROGRAM LIBRARY FILE: a library that defines the same symbols, each of which
# traps if it is called
rootfs_stub()
{
	rootfs_symbols "$1" "$2" > "$3.names" &&
		awk '{ print ".globl " $1 "\n.type " $1 ", @function\n" $1 ": ud2" }' \
			"$3.names" > "$3.s" &&
		awk '{ names[$2] = names[$2] " " $1 ";" }
		     END { delete names[""]; print "NONE {};"
			   for (version in names) print version " {" names[version] " };" }' \
			"$3.names" > "$3.map" &&
		"${CC:-gcc}" -shared -nostdlib -Wl,-soname,"${2##*/}" \
			-Wl,--version-script="$3.map" -o "$3" "$3.s" &&
		rm "$3".{names,s,map}
}

# rootfs_stubs DIRECTORY LIBRARY...: put them there. Without a compiler fio is slower.
rootfs_stubs()
{
	local directory=$1 library

	shift
	mkdir -p "$directory"
	for library; do
		rootfs_stub "$(type -P fio)" "$library" "$directory/${library##*/}" \
			2> /dev/null || rm -f "$directory/${library##*/}"*
	done
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

# rootfs_put_stubs ROOT DIRECTORY LIBRARY...: each stub where its library would be
rootfs_put_stubs()
{
	local root=$1 stubs=$2 library

	shift 2
	for library; do
		[[ ! -e $stubs/${library##*/} ]] ||
			cp "$stubs/${library##*/}" "$root$(realpath "${library%/*}")/" ||
			return
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

rootfs_static()
{
	local cache=$1 tools libraries unused root archive

	shift
	tools=$(rootfs_tools "$@") || return
	mapfile -t tools <<< "$tools"
	archive=$cache/tools-$(rootfs_key "${tools[@]}").cpio
	if [[ ! -s $archive ]]; then
		# Not those of today: another run may use one of them.
		find "$cache" -name 'tools-*.cpio' -mtime +0 -delete
		root=$(mktemp -d "$cache/root.XXXXXX") || return
		mapfile -t unused < <(rootfs_unused "${tools[@]}")
		rootfs_stubs "$root.stubs" "${unused[@]}"
		mapfile -t libraries < <(LD_LIBRARY_PATH=$root.stubs \
			rootfs_libraries "${tools[@]}" | grep -v "^$root.stubs/")
		rootfs_skeleton "$root" &&
			rootfs_copy "$root" "${tools[@]}" "${libraries[@]}" &&
			rootfs_put_stubs "$root" "$root.stubs" "${unused[@]}" &&
			rootfs_links "$root" &&
			rootfs_pack "$root" > "$root.cpio" &&
			mv "$root.cpio" "$archive" || archive=
		rm -rf "$root" "$root".{cpio,stubs}
	fi
	[[ $archive ]] && echo "$archive"
}

rootfs_run()
{
	local kernel=$1 tests=$2 config=$3 file=$4 root=$4.root

	mkdir -p "$root/usr/lib" "$root/tests"
	cp -a "$tests/." "$root/tests/" || return
	cp "$here/init.sh" "$root/init" && cp "$config" "$root/" || return
	if [[ -d $kernel/lib/modules ]]; then
		(cd "$kernel/lib" && find modules ! -type l -print0 |
			cpio -0 -pd --quiet "$root/usr/lib") || return
	fi
	rootfs_pack "$root" > "$file" && rm -rf "$root"
}

"rootfs_$1" "${@:2}"
