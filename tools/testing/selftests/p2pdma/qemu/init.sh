#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's first process: run the tests, send their results, power off. Whatever it
# cannot do is reported as an error, never left out.

export PATH=/usr/sbin:/usr/bin HOME=/root TERM=linux

mount_all()
{
	mount -t proc none /proc
	mount -t sysfs none /sys
	mount -t devtmpfs none /dev
	mkdir -p /dev/virtio-ports /dev/shm
	mount -t tmpfs none /tmp
	mount -t tmpfs none /run
	mount -t tmpfs none /dev/shm
	mount -t debugfs none /sys/kernel/debug
	mount -t tracefs none /sys/kernel/tracing
	mount -t configfs none /sys/kernel/config
	ln -s /proc/self/fd /dev/fd
} 2> /dev/null

# There is no udev to make the names of the ports.
name_ports()
{
	local port name

	for port in /sys/class/virtio-ports/*; do
		read -r name < "$port/name" &&
			ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$name"
	done
}

mark()
{
	echo "$*" >&8
	echo "p2pdma-run: $*" > /dev/kmsg
}

finish()
{
	mark end
	poweroff -f
	sleep infinity
}

fail()
{
	mark "error $*"
	finish
}

# find_device PATH: print the address of the device at the end of the path
find_device()
{
	local slot device=/sys/devices/pci0000:00

	for slot in ${1//\// }; do
		device=$(echo "$device"/0000:??:"$slot")
		[[ -d $device ]] || return 1
	done
	echo "${device##*/}"
}

# The copy engine has 32 address bits; a huge BAR is above them by intention.
check_bar()
{
	local name=$1 address=$2 start end flags

	{ read -r && read -r && read -r start end flags; } \
		< "/sys/bus/pci/devices/$address/resource"
	echo "# $name $address BAR 2 $start-$end $flags"
	if ((start == 0)) || { [[ $name != huge ]] && ((end >> 32)); }; then
		fail "BAR 2 of $name ($start-$end) is not below 4 GiB"
	fi
}

find_all()
{
	local entry address

	P2PDMA_BARS='' P2PDMA_DEVS=''
	for entry in $run_bars; do
		address=$(find_device "${entry#*=}") || fail "no device ${entry%=*}"
		check_bar "${entry%=*}" "$address"
		P2PDMA_BARS+="${P2PDMA_BARS:+ }${entry%=*}=$address"
	done
	for entry in $run_devs; do
		address=$(find_device "${entry#*=}") || fail "no device ${entry%=*}"
		echo "# ${entry%=*} $address"
		P2PDMA_DEVS+="${P2PDMA_DEVS:+ }${entry%=*}=$address"
	done
	export P2PDMA_BARS P2PDMA_DEVS
}

run_test()
{
	local status start=$SECONDS

	mark "start $1"
	echo "# p2pdma-run: start $1"
	(cd /tests/p2pdma && "./$1" < /dev/null 8>&-)
	status=$?
	echo "# p2pdma-run: end $1"
	mark "result $1 $status $((SECONDS - start))"
}

# A leak shows only after its last pointers are gone from the stacks.
check_leaks()
{
	local file=/sys/kernel/debug/kmemleak count

	[[ -e $file ]] || return 0
	echo scan > "$file"
	sleep 6
	echo scan > "$file"
	count=$(grep -c '^unreferenced object' "$file")
	((count == 0)) || sed 's/^/# kmemleak: /' "$file"
	mark "kmemleak $count"
}

# DMA API debugging reports only the first error, unless told to report all.
show_all_dma_errors()
{
	grep -q ' debug_dma_map_phys$' /proc/kallsyms || return 0
	{ echo 1 > /sys/kernel/debug/dma-api/all_errors; } 2> /dev/null ||
		fail "DMA_API_DEBUG cannot be told to show all errors"
}

# Not at boot: KCSAN's delays let the timer interrupt hit its IOAPIC pin half set up.
start_kcsan()
{
	local file=/sys/kernel/debug/kcsan

	grep -q ' __tsan_init$' /proc/kallsyms || return 0
	{ echo on > $file && grep -q "^enabled: 1" $file; } 2> /dev/null ||
		fail "KCSAN cannot be turned on"
}

# How often each line was executed, if the kernel was built to count it.  The files have
# no size until they are read.
send_coverage()
{
	local file

	[[ -e /dev/virtio-ports/p2pdma.coverage ]] || return 0
	mkdir /tmp/coverage
	cd /sys/kernel/debug/gcov || fail "the kernel counts no lines"
	find . -name '*.gcda' | while read -r file; do
		mkdir -p "/tmp/coverage/${file%/*}" && cat "$file" > "/tmp/coverage/$file"
	done
	tar -C /tmp/coverage -cf /dev/virtio-ports/p2pdma.coverage . ||
		fail "cannot send what was counted"
}

mount_all
name_ports
exec 8> /dev/virtio-ports/p2pdma.result
mark up
run_tests='' run_shell='' run_bars='' run_devs=''
# shellcheck source=/dev/null
. /run.conf || fail "no configuration"
export P2PDMA_CTL=/dev/virtio-ports/p2pdma.ctl
ip link set lo up
show_all_dma_errors
start_kcsan
[[ ! -e /proc/sys/kernel/hung_task_timeout_secs ]] ||
	echo 60 > /proc/sys/kernel/hung_task_timeout_secs

if [[ $run_shell ]]; then
	find_all > /dev/ttyS0
	cd /tests/p2pdma || fail "no tests"
	setsid -c bash < /dev/ttyS0 &> /dev/ttyS0
else
	exec > /dev/virtio-ports/p2pdma.out 2>&1
	find_all
	for test in $run_tests; do
		run_test "$test"
	done
	mark "tests done"
	check_leaks
	send_coverage
fi
finish
