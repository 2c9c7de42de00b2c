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

# variants: each has a name, make variables, options to override, and files of the series
# that it does not compile
variants() {
	cat <<-END
	x86 ARCH=x86_64
	arm64 ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- without=hldio.c
	s390 ARCH=s390 CROSS_COMPILE=s390x-linux-gnu- without=hldio.c
	i386 ARCH=i386 CONFIG_64BIT=n without=blk-dma-addr-test.c,hldio.c,p2pdma.c,p2pmem-pool-test.c,p2pmem-pool.c
	clang ARCH=x86_64 LLVM=-19
	modules ARCH=x86_64 CONFIG_NVME_CORE=m CONFIG_BLK_DEV_NVME=m CONFIG_NVME_TARGET=m CONFIG_INFINIBAND=m
	no-pci ARCH=x86_64 CONFIG_PCI=n without=hldio.c,pci.c,pciehp_pci.c,p2pdma.c,slot.c
	no-p2pdma ARCH=x86_64 CONFIG_PCI_P2PDMA=n without=hldio.c,p2pdma.c
	no-iommu ARCH=x86_64 CONFIG_IOMMU_SUPPORT=n without=dma-iommu.c
	no-integrity ARCH=x86_64 CONFIG_BLK_DEV_INTEGRITY=n without=bio-integrity.c,blk-integrity.c
	no-zoned ARCH=x86_64 CONFIG_BLK_DEV_ZONED=n without=zns.c
	no-encryption ARCH=x86_64 CONFIG_FS_ENCRYPTION=n without=blk-crypto.c
	no-multipath ARCH=x86_64 CONFIG_NVME_MULTIPATH=n without=multipath.c
	no-nvme-pci ARCH=x86_64 CONFIG_BLK_DEV_NVME=n without=pci.c
	no-rdma ARCH=x86_64 CONFIG_INFINIBAND=n without=rw.c,rdma.c,rdma.c
	no-debugfs ARCH=x86_64 CONFIG_DEBUG_FS=n without=blk-mq-debugfs.c
	no-tracing ARCH=x86_64 CONFIG_FTRACE=n
	no-sysfs ARCH=x86_64 CONFIG_SYSFS=n without=pciehp_pci.c,slot.c,file.c
	no-kunit ARCH=x86_64 CONFIG_KUNIT=n without=blk-dma-addr-test.c,p2pmem-pool-test.c
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
		without=*) ;;
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
	local file names=
	for file in "${files[@]}"; do
		[ -e "$obj/${file%.c}.o" ] || names+=,${file##*/}
	done
	echo "${names#,}"
}

# may_leave_out WORD...
may_leave_out() {
	printf '%s\n' "$@" | sed -n 's/^without=//p'
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
	elif missing=$(left_out) && [ "$missing" != "$(may_leave_out "$@")" ]; then
		echo "not ok $name: not compiled: ${missing:-nothing}, see its line in ${0##*/}"
		failed=1
	else
		echo "ok $name ($((SECONDS - start)) s)${missing:+; not compiled: $missing}"
	fi
	rm -rf "$obj"
}

make_tmp
base=$(head -n 1 "$TREE/.git/p2pmem-inputs") ||
	die "build/linux is not there" "run \"make tree\""
touched=$(git_plain -C "$TREE" diff --name-only --diff-filter=AM "$base" HEAD -- \
	"${DIRS[@]/%/*.c}")
mapfile -t files <<<"$touched"
failed=0 tried=0
while read -r -a words; do
	[[ $# = 0 || " $* " = *" ${words[0]} "* ]] || continue
	try "${words[@]}" </dev/null
	tried=$((tried + 1))
done < <(variants)
[ "$tried" != 0 ] || die "no such variant: $*" "there are: $(variants | cut -d' ' -f1 | tr '\n' ' ')"
exit "$failed"
