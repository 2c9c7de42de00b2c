#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# The first process of the guest of blktests.sh, in the initramfs as /init and then
# once more in the root file system that this sets up: the host's own, read-only, below
# an overlay.  Reports what happens in /mnt/run, which the host reads.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux

share() {
	mkdir -p "$2"
	mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"
}

make_root() {
	mkdir -p /upper /lower /new
	mount -t devtmpfs none /dev
	share root /lower ro,cache=loose
	mount -t tmpfs none /upper
	mkdir -p /upper/files/usr/lib /upper/work
	cp -a /lib/modules /upper/files/usr/lib/
	mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work none /new
	share blktests /new/mnt/blktests ro,cache=loose
	share run /new/mnt/run rw
}

mount_all() {
	mount -t proc none /proc
	mount -t sysfs none /sys
	mount -t devtmpfs none /dev
	mkdir -p /dev/shm /dev/pts
	for dir in /run /tmp /var/tmp /dev/shm; do mount -t tmpfs none $dir; done
	mount -t debugfs none /sys/kernel/debug
	mount -t tracefs none /sys/kernel/tracing
	mount -t configfs none /sys/kernel/config
	mount -t cgroup2 none /sys/fs/cgroup
	echo +io >/sys/fs/cgroup/cgroup.subtree_control
	ln -s /proc/self/fd /dev/fd
}

# The tests bind siw or rxe to every network interface but lo.
set_up() {
	mount_all
	hostname blktests
	ip link set lo up
	ip link set dummy0 up
	ip address add 192.0.2.1/24 dev dummy0
	echo 'blktests:*:1000:1000::/tmp:/bin/sh' >>/etc/passwd
	/lib/systemd/systemd-udevd --daemon
	udevadm trigger
	# Or each test that needs one of them unloads it at its end.
	modprobe -a loop nvme-loop nvme-tcp nvmet-tcp nvme-rdma nvmet-rdma
	udevadm settle
}

event() {
	: >/run/progress
	echo "$*" >>/mnt/run/events
	echo "blktests: $*" >/dev/kmsg
}

# blktests calls this at the start of each test, as if to log it.  What is there are the
# results of those before.  The find may be that of busybox.
next_test() {
	keep_results
	event "start ${1##* }"
}

keep_results() {
	cp -r /tmp/results/. /mnt/run/results/
	find /tmp/results -type f -exec rm {} +
}

# A test that does not end leaves devices behind that the next one would trip over.
watch() {
	while sleep 5; do
		[ $(($(date +%s) - $(stat -c %Y /run/progress))) -gt "$limit" ] || continue
		ps -eo pid,stat,wchan:30,args
		event late
		poweroff -f
	done
}

case ${1:-} in
'run blktests '*)
	next_test "$1" ;;
tests)
	exec >>/mnt/run/output.log 2>&1 </dev/null
	set_up
	read -r limit </mnt/run/limit
	event ready
	watch &
	# shellcheck disable=SC2046 # many tests
	cd /mnt/blktests && ./check -c /mnt/run/config $(cat /mnt/run/tests)
	keep_results
	event finished
	poweroff -f
	sleep 1000 ;;
*)
	make_root
	exec switch_root /new /bin/sh /mnt/run/guest.sh tests ;;
esac
