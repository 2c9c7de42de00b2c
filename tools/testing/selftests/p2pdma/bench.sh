#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Instructions of the kernel for each I/O over nvmet-rdma, from p2pmem and from system
# memory, by size; also through a multipath head or raid0, and of a drive alone. It only
# counts; to judge, compare two kernels. With qemu/run.py --profile, also where they are
# executed, and for whom: the host, the emulated network card, the target, or the system.
#
# P2P_BENCH says what to count, joined by +: transport, deep (32 at a time), controllers (of
# one host of several), exhausted (nothing is left of the pool), head, raid0, drive, ordinary
# (what has nothing to do with p2pmem).

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

BENCH=${P2P_BENCH:-transport}
BENCH=${BENCH//+/ }
SIZES=${P2P_SIZES:-4096 16384 65536 131072 1048576}
COUNT=${P2P_COUNT:-300}	# of 4 KiB, fewer of what takes longer

# ranges OWNER PATTERN: of the kernel's functions whose names match
ranges()
{
	awk -v owner="$1" -v pattern="^($2)$" '
		$2 !~ /[tT]/ || $4 { next }
		$3 ~ pattern { if (!start) start = $1; next }
		start { print start ":" $1 ":" owner; start = 0 }' /tmp/symbols
}

# module OWNER NAME: the range of its code
module()
{
	awk -v owner="$1" -v module="[$2]" '
		$2 ~ /[tT]/ && $4 == module {
			if (!first)
				first = $1
			last = $1
		}
		END { if (first) print first ":" last ":" owner }' /tmp/symbols
}

# Code that only one of them executes. All other code is executed for the one whose own
# code was executed last.
owners()
{
	ranges 1 '__schedule|do_idle|worker_thread|handle_softirqs|sysvec_apic_timer_interrupt'
	ranges 2 'do_syscall_64|irq_poll_softirq'
	ranges 4 'nvmet_.*|ib_cq_poll_work|nvme_irq|nvme_queue_rq|nvme_pci_.*'
	module 2 nvme_rdma
	module 2 dma_bio_ctl
	module 3 rnic_loop
	module 3 lsi_copy
	module 4 nvmet_rdma
}

# Also shows the names of functions to whoever reads the profile.
tell_owners()
{
	sort /proc/kallsyms > /tmp/symbols
	[[ $(p2p_ask owners "$(owners | paste -sd,)") == ok ]] ||
		ktap_exit_fail_msg "cannot tell whose code is whose"
	awk '$2 ~ /[tT]/ { print "# text: " $1, $3, $4 }' /tmp/symbols
}

# rows NAME DISK [DATA]
rows()
{
	local bytes direction

	for bytes in $SIZES; do
		for direction in read write; do
			ktap_test_result "$1 $direction $bytes" p2p_count "$1" \
				$((bytes < 262144 ? COUNT : COUNT / 5)) "$2" $direction \
				"$bytes" "${@:3}"
		done
	done
}

over_transport()
{
	rows p2pmem "$remote"
	p2p_disconnect && p2p_set_provider 0 && p2p_connect && rows system "$remote"
}

set_up()
{
	p2p_set_up_target "$1" "$provider" || ktap_exit_fail_msg "cannot export $1"
}

tear_down()
{
	p2p_disconnect
	p2p_remove_target
}

bench_transport()
{
	set_up "$(p2p_disk drive0)"
	tell_owners
	over_transport
	tear_down
}

bench_deep()
{
	local SIZES="4096 131072"

	set_up "$(p2p_disk drive0)"
	tell_owners
	rows p2pmem-32 "$remote" 32
	tear_down
}

# hosts_have_disks NUMBER: have so many hosts found the namespace?
hosts_have_disks()
{
	(($(cat /sys/block/nvme*/uuid 2> /dev/null |
	    grep -cx "$(< "$P2P_NS"/device_uuid)") >= $1))
}

# connect_host NUMBER: another host, with one queue for reads and one for writes. nvme-cli
# takes one at the same address for the same, even with --duplicate-connect.
connect_host()
{
	local digit

	digit=$(printf %x "$1")
	echo "nqn=$P2P_NQN,transport=rdma,traddr=$P2P_ADDR,trsvcid=$P2P_PORT," \
		"hostnqn=${P2P_HOST[1]}$digit,hostid=${P2P_HOST[3]%?}$digit," \
		"nr_io_queues=1,nr_write_queues=1,queue_size=64,duplicate_connect" |
		tr -d ' ' > /dev/nvme-fabrics &&
		p2p_wait "$P2P_LIMIT" hosts_have_disks $(($1 + 1)) && p2p_find_remote
}

# Count the I/O of one host while 1, 4 and 16 are connected. All their controllers share
# one pool.
bench_controllers()
{
	local SIZES="4096 131072" number connected=0

	if ! { p2p_set_up_disk "$(p2p_disk drive0)" && p2p_set_provider "$provider"; }; then
		ktap_exit_fail_msg "cannot export the drive"
	fi
	modprobe nvme-rdma
	for number in 1 4 16; do
		while ((connected < number)); do
			connect_host $connected ||
				ktap_exit_fail_msg "cannot connect host $connected"
			connected=$((connected + 1))
		done
		tell_owners
		rows "controllers-$number" "$remote"
	done
	tear_down
}

# User space holds the pool, so the target takes system memory each time.
bench_exhausted()
{
	local SIZES="4096 131072"

	set_up "$(p2p_disk drive0)"
	p2p_hold_pool "$provider" 0 || ktap_exit_fail_msg "cannot use up the pool"
	tell_owners
	rows exhausted "$remote"
	p2p_pool_has "$provider" 0 || ktap_exit_fail_msg "the pool was not used up"
	p2p_disconnect
	p2p_release_pool "$provider"
	p2p_remove_target
}

bench_drive()
{
	local SIZES="4096 131072"

	tell_owners
	for data in pages address; do
		rows "drive-$data" "$(p2p_disk drive2)" $data
	done
}

# null_blk completes what is submitted before it returns: no interrupt, no waiting.
bench_ordinary()
{
	local SIZES="4096 131072"

	modprobe null_blk nr_devices=1 submit_queues=1 gb=1 irqmode=0 ||
		ktap_exit_fail_msg "cannot load null_blk"
	tell_owners
	rows null_blk /dev/nullb0
	rows nvme "$(p2p_disk drive2)"
	rmmod null_blk
}

bench_head()
{
	set_up "$(p2p_head_disk path0 path1)"
	tell_owners
	rows head "$remote"
	tear_down
}

# Its chunks have 64 KiB.
bench_raid0()
{
	p2p_make_array raid0 131072 "$(p2p_disk drive0)" "$(p2p_disk drive1)" ||
		ktap_exit_fail_msg "cannot make an array"
	set_up "/dev/$array"
	tell_owners
	rows raid0 "$remote"
	tear_down
	p2p_remove_array
}

ktap_print_header
p2p_require drive0 drive1 drive2 p2pmem0 engine
p2p_require_counter
provider=$(p2p_device p2pmem0)
plan=0
for part in $BENCH; do
	case $part in
	transport) plan=$((plan + 4 * $(wc -w <<< "$SIZES"))) ;;
	deep|exhausted) plan=$((plan + 4)) ;;
	controllers) plan=$((plan + 12)) ;;
	drive|ordinary) plan=$((plan + 8)) ;;
	head|raid0) plan=$((plan + 2 * $(wc -w <<< "$SIZES"))) ;;
	*) ktap_exit_fail_msg "P2P_BENCH: what is $part?" ;;
	esac
done
ktap_set_plan $plan
for part in $BENCH; do
	"bench_$part"
done
ktap_finished
