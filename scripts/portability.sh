#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Compile the directories that the series touches for other architectures, with clang,
# and without each of the options that its code asks for.  A warning is an error.
#
#   portability.sh [NAME]...

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TREE=$BUILD/linux
DIRS=(block/ fs/sysfs/ drivers/accel/ drivers/infiniband/core/ drivers/iommu/ drivers/md/
	drivers/nvme/ drivers/pci/)

# variants: each has a name, make variables, and options to override
variants() {
	cat <<-END
	x86 ARCH=x86_64
	arm64 ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
	s390 ARCH=s390 CROSS_COMPILE=s390x-linux-gnu-
	i386 ARCH=i386 CONFIG_64BIT=n
	clang ARCH=x86_64 LLVM=-19
	modules ARCH=x86_64 CONFIG_NVME_CORE=m CONFIG_BLK_DEV_NVME=m CONFIG_NVME_TARGET=m CONFIG_INFINIBAND=m
	no-pci ARCH=x86_64 CONFIG_PCI=n
	no-p2pdma ARCH=x86_64 CONFIG_PCI_P2PDMA=n
	no-iommu ARCH=x86_64 CONFIG_IOMMU_SUPPORT=n
	no-integrity ARCH=x86_64 CONFIG_BLK_DEV_INTEGRITY=n
	no-zoned ARCH=x86_64 CONFIG_BLK_DEV_ZONED=n
	no-encryption ARCH=x86_64 CONFIG_FS_ENCRYPTION=n
	no-multipath ARCH=x86_64 CONFIG_NVME_MULTIPATH=n
	no-nvme-pci ARCH=x86_64 CONFIG_BLK_DEV_NVME=n
	no-rdma ARCH=x86_64 CONFIG_INFINIBAND=n
	no-debugfs ARCH=x86_64 CONFIG_DEBUG_FS=n
	no-tracing ARCH=x86_64 CONFIG_FTRACE=n
	no-sysfs ARCH=x86_64 CONFIG_SYSFS=n
	no-kunit ARCH=x86_64 CONFIG_KUNIT=n
	END
}

# kmake VARIABLE=VALUE... TARGET...
kmake() {
	kbuild_env make -C "$TREE" O="$obj" -j$(($(nproc) + 1)) LOCALVERSION= "$@"
}

# Nothing is tested by an option that does not take effect.
check_option() {
	local name=${1%=*} value=${1#*=}
	case $value in
	n) ! grep -q "^$name=" "$obj/.config" ;;
	*) grep -qx "$1" "$obj/.config" ;;
	esac || die "$1: no effect"
}

# compile WORD...: of a variant
compile() {
	local word options=() variables=() cc=gcc
	for word; do
		case $word in
		CROSS_COMPILE=*) cc=${word#*=}gcc ;;
		LLVM=*) cc=clang${word#*=} ;;
		esac
		case $word in
		CONFIG_*) options+=("$word") ;;
		*) variables+=("$word") ;;
		esac
	done
	variables+=(CC="ccache $cc")
	mkdir -p "$obj"
	{
		cat "$TOP/base/portability.config"
		[[ $* != *ARCH=x86_64* ]] || echo CONFIG_64BIT=y
		printf '%s\n' "${options[@]}"
	} >"$obj/fragments"
	kmake "${variables[@]}" KCONFIG_ALLCONFIG="$obj/fragments" allnoconfig &&
		for word in "${options[@]}"; do check_option "$word"; done &&
		kmake "${variables[@]}" prepare &&
		kmake "${variables[@]}" "${DIRS[@]}"
}

# Which of the touched files were not compiled, for want of an option
left_out() {
	local file
	for file in "${files[@]}"; do
		[ -e "$obj/${file%.c}.o" ] || printf ' %s' "${file##*/}"
	done
}

# try NAME WORD...
try() {
	local name=$1 log=$LOGS/portability-$1.log start=$SECONDS missing
	obj=$TREE/.obj-portability-$name
	rm -rf "$obj"
	if ! (compile "${@:2}") >"$log" 2>&1; then
		echo "not ok $name"
		show_errors "$log"
		failed=1
	elif missing=$(left_out) && [ "$name" = x86 ] && [ -n "$missing" ]; then
		echo "not ok $name, which has all options: not compiled:$missing"
		failed=1
	else
		echo "ok $name ($((SECONDS - start)) s)${missing:+; not compiled:$missing}"
	fi
	rm -rf "$obj"
}

make_tmp
base=$(head -n 1 "$TREE/.git/p2pmem-inputs") ||
	die "build/linux is not there" "run \"make tree\""
mapfile -t files < <(git_plain -C "$TREE" diff --name-only --diff-filter=AM "$base" HEAD -- \
	"${DIRS[@]/%/*.c}")
failed=0
while read -r -a words; do
	[[ $# = 0 || " $* " = *" ${words[0]} "* ]] || continue
	try "${words[@]}" </dev/null
done < <(variants)
exit "$failed"
