#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What happens to bios on their way through the block layer, with bios that
# describe their data by DMA addresses: schedulers, throttling, accounting,
# tracing, partitions, and resets of the controller. Where the data goes is
# verified by dma_bio_fuzz and dma_bio_try. Nothing of the drive's content survives.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

GROUP=/sys/fs/cgroup/p2pdma
RESETS=/tmp/resets	# a line for each
COST=/sys/fs/cgroup/io.cost.qos
SIZE=65536		# bytes that dma_bio_try reads and writes at once
READS=2			# of them it makes, one by DMA address and one with pages
WRITES=3		# of them, one by DMA address
SECONDS_EACH=${P2P_FEATURE_SECONDS:-3}
LATE='write: status 0, ended 1, disk written
read: status 1, ended 1, memory untouched'

# try DISK: $READS reads and $WRITES writes, one of each by DMA address
try()
{
	local verdict

	verdict=$("$DIR"/dma_bio_try "$1")
	[[ $verdict == "$P2P_TAKEN" ]] && return
	ktap_print_msg "${verdict//$'\n'/, }"
	return 1
}

# Random bios of all kinds in several threads, every byte of them verified
fuzz()
{
	local log=/tmp/fuzz.log

	P2P_FUZZ_THREADS=4 P2P_FUZZ_SECONDS=${1:-$SECONDS_EACH} \
		"$DIR"/dma_bio_fuzz > $log 2>&1
	# In so short a time there need not be a bio of each kind.
	(($(grep -cE '^ok [0-9]+ thread' $log) == 4)) && return
	grep -v '^ok' $log | sed 's/^/# /'
	return 1
}

# --- schedulers ---

scheduler_is()
{
	[[ $(< "$queue"/scheduler) == *"[$1]"* ]]
}

# What merges in it without a plug, and what must not
merges()
{
	p2p_passes dma_bio -f merge -v unplugged_back -v unplugged_front \
		> /tmp/merge.log 2>&1 && return
	grep -v '^ok' /tmp/merge.log | sed 's/^/# /'
	return 1
}

# While the drive is slow, all but four bios wait in the scheduler. A drive that cannot
# be slowed down may be too fast for any to merge.
merges_while_slow()
{
	local result=0

	if [[ ! -e $P2PDMA_CTL ]]; then
		merges
		return
	fi
	[[ $(p2p_ask slow drive0) == ok ]] || return
	P2P_MUST_MERGE=1 merges || result=1
	[[ $(p2p_ask resume drive0) == ok ]] && return $result
}

# merges_in_scheduler NAME: nr_requests is that of the scheduler while there is one, and
# writing the same value again has no effect
merges_in_scheduler()
{
	local depth result=0

	echo none > "$queue"/scheduler
	depth=$(< "$queue"/nr_requests)
	echo 4 > "$queue"/nr_requests && echo "$1" > "$queue"/scheduler &&
		merges_while_slow || result=1
	echo none > "$queue"/scheduler
	echo 4 > "$queue"/nr_requests
	echo "$depth" > "$queue"/nr_requests && return $result
}

works_with_scheduler() # NAME
{
	echo "$1" > "$queue"/scheduler && scheduler_is "$1" && fuzz || return
	[[ $1 == none ]] || merges_in_scheduler "$1"
}

# In the emulated machine all of them are there.
has_scheduler() # NAME
{
	modprobe -q "$1-iosched" || modprobe -q "$1"
	[[ $P2PDMA_TOPOLOGY ]] || grep -qw -e "$1" "$queue"/scheduler
}

scheduler_result() # NAME
{
	if has_scheduler "$1"; then
		ktap_test_result "$1, and merges in it" works_with_scheduler "$1"
	else
		ktap_test_skip "$1: the kernel does not have it"
	fi
}

# --- control groups ---

# in_group COMMAND...: run it as a member of the group
in_group()
{
	(echo $BASHPID > $GROUP/cgroup.procs && "$@")
}

make_group()
{
	[[ -e /sys/fs/cgroup/cgroup.procs ]] ||
		mount -t cgroup2 none /sys/fs/cgroup || return
	echo +io > /sys/fs/cgroup/cgroup.subtree_control &&
		mkdir -p $GROUP
}

# accounted FIELD: of the drive, in the group's statistics
accounted()
{
	awk -v dev="$number" -v field="$1" '$1 == dev {
		for (i = 2; i <= NF; i++)
			if (split($i, part, "=") && part[1] == field)
				print part[2]
	}' $GROUP/io.stat
}

# Without the limit it takes no time; if only the bio with pages obeyed it, then
# half of this.
is_throttled()
{
	local start rate=$((SIZE / 2)) took

	echo "$number rbps=$rate" > $GROUP/io.max || return
	start=${EPOCHREALTIME/./}
	in_group try "$drive" || return
	took=$(((${EPOCHREALTIME/./} - start) / 1000))
	echo "$number rbps=max" > $GROUP/io.max
	((took > 3000)) && return
	ktap_print_msg "$((READS * SIZE)) bytes took $took ms at $rate bytes a second"
	return 1
}

# group_has_done READ WRITTEN: so many bytes, by statistics that may be late
group_has_done()
{
	(($(accounted rbytes) == $1 && $(accounted wbytes) == $2))
}

is_charged()
{
	local read written

	read=$(accounted rbytes) written=$(accounted wbytes)
	in_group try "$drive" && p2p_wait 10 group_has_done \
		$((read + READS * SIZE)) $((written + WRITES * SIZE))
}

# with_setting FILE ON OFF: does everything work with it?
with_setting()
{
	local result=0

	echo "$2" > "$1" || return
	in_group fuzz || result=1
	echo "$3" > "$1"
	return $result
}

with_latency_control()
{
	with_setting $GROUP/io.latency "$number target=1000" "$number target=max"
}

with_cost_control()
{
	with_setting $COST "$number enable=1" "$number enable=0"
}

# --- protection that is switched on while a bio waits ---

# protect 0|1: must the CPU verify what it reads and protect what it writes?
protect()
{
	echo "$1" > "$late"/integrity/read_verify &&
		echo "$1" > "$late"/integrity/write_generate
}

# late_has_written NUMBER: since it had written $writes times
late_has_written()
{
	(($(awk '{ print $5 }' "$late"/stat) - writes >= $1))
}

# After its last write, dma_bio_try reads by DMA address. Sets took: for how many ms
# that read was still in the group's queue.
switch_on_late()
{
	local start try writes

	writes=$(awk '{ print $5 }' "$late"/stat)
	in_group "$DIR"/dma_bio_try "/dev/${late##*/}" > /tmp/late.log &
	try=$!
	p2p_wait "$P2P_LIMIT" late_has_written $WRITES
	sleep 1
	protect 1
	start=${EPOCHREALTIME/./}
	wait $try
	took=$(((${EPOCHREALTIME/./} - start) / 1000))
}

# The bio must also end late; otherwise it was refused on submission.
is_refused_late()
{
	local dev took='' lines why="the CPU cannot protect the data (PI)"

	dev=$(< "$late"/dev)
	p2p_mark_log
	echo "$dev rbps=$((SIZE / 4))" > $GROUP/io.max && protect 0 || return
	switch_on_late
	echo "$dev rbps=max" > $GROUP/io.max
	lines=$(p2p_log_since_mark | grep -cF "DMA-address bio refused: ")
	[[ $(< /tmp/late.log) == "$LATE" ]] && ((took > 1000 && lines == 1)) &&
		p2p_logged "block: ${late##*/}: DMA-address bio refused: $why" &&
		return
	ktap_print_msg "$(tr '\n' ',' < /tmp/late.log) $took ms, $lines lines"
	return 1
}

# --- accounting, tracing ---

sectors()
{
	awk '{ print $3, $7 }' "$block"/stat
}

# The lock keeps udev from reading a drive that was just written.
is_accounted()
{
	local before after

	# shellcheck disable=SC2094 # the redirection is there for the lock
	{
		flock 9
		read -ra before <<< "$(sectors)"
		try "$drive" || return
		read -ra after <<< "$(sectors)"
	} 9< "$drive"
	((after[0] - before[0] == READS * SIZE / 512 &&
	  after[1] - before[1] == WRITES * SIZE / 512))
}

# traced NUMBER PATTERN: as often as it must be
traced()
{
	local found

	found=$(grep -cE "$2" "$P2P_TRACE"/trace)
	((found == $1)) && return
	ktap_print_msg "$found times '$2' in the trace"
	return 1
}

# traced_events OPERATION NUMBER
traced_events()
{
	traced "$2" "block_bio_queue: .* $1[SIF]* 0 \\+ 128 " &&
		traced "$2" "block_rq_issue: .* $1[SIF]* $SIZE \\(\\) 0 \\+ 128 " &&
		traced "$2" "block_rq_complete: .* $1[SIF]* \\(\\) 0 \\+ 128 "
}

# traced_actions OPERATION NUMBER
traced_actions()
{
	traced "$2" " D +$1[SIF]* 0 \\+ 128 " &&
		traced "$2" " C +$1[SIF]* 0 \\+ 128 "
}

has_tracepoints()
{
	local result=0

	p2p_trace_events block/block_{bio_queue,rq_issue,rq_complete} || return
	try "$drive" && traced_events R $READS && traced_events W $WRITES ||
		result=1
	p2p_trace_no_events
	return $result
}

has_blktrace()
{
	local result=0

	echo blk > "$P2P_TRACE"/current_tracer &&
		echo 1 > "$block"/trace/enable || return
	echo > "$P2P_TRACE"/trace
	try "$drive" && traced_actions R $READS && traced_actions W $WRITES ||
		result=1
	echo 0 > "$block"/trace/enable
	echo nop > "$P2P_TRACE"/current_tracer
	return $result
}

# --- partitions ---

# zeroes_at MIB: is there nothing else in this MiB of the drive?
zeroes_at()
{
	dd if="$drive" bs=1M skip="$1" count=1 iflag=direct status=none |
		cmp -s - <(head -c $((1 << 20)) /dev/zero)
}

# In the second MiB, whose sectors are all zero before
partition_works()
{
	local result=0

	dd if=/dev/zero of="$drive" bs=1M count=3 oflag=direct status=none &&
		addpart "$drive" 1 2048 2048 || return
	try "${drive}p1" && zeroes_at 0 && ! zeroes_at 1 && zeroes_at 2 ||
		result=1
	delpart "$drive" 1 || return
	return $result
}

# --- resets ---

# One is refused while the last one is under way.
reset_often()
{
	while sleep 0.5; do
		echo 1 > "$controller"/reset_controller && echo >> $RESETS
	done 2> /dev/null
}

# No bio may be lost or fail: they are sent again.
survives_resets()
{
	local resets result=0

	: > $RESETS
	reset_often &
	resets=$!
	fuzz $((2 * SECONDS_EACH)) || result=1
	kill $resets
	wait $resets 2> /dev/null
	ktap_print_msg "$(wc -l < $RESETS) resets"
	p2p_wait 10 grep -qx live "$controller"/state && [[ -s $RESETS ]] &&
		return $result
}

# result NAME FILE COMMAND...: skip it if the kernel does not have the file
result()
{
	local name=$1 file=$2

	shift 2
	if [[ -e $file ]]; then
		ktap_test_result "$name" "$@"
	else
		ktap_test_skip "$name: no $file"
	fi
}

ktap_print_header
p2p_require p2pmem0 drive0
p2p_require_tools addpart delpart cmp flock
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
drive=$(p2p_disk drive0)
block=/sys/block/${drive##*/}
queue=$block/queue
controller=$(echo "/sys/bus/pci/devices/$(p2p_device drive0)"/nvme/nvme*)
number=$(< "$block"/dev)
late=$(p2p_disk formats 2)	# has more metadata than PI
late=/sys/block/${late##*/}
ktap_set_plan 15

ktap_test_result "no scheduler" works_with_scheduler none
for scheduler in mq-deadline kyber bfq; do
	scheduler_result $scheduler
done
echo none > "$queue"/scheduler

make_group
result "throttling" $GROUP/io.max is_throttled
result "accounting of groups" $GROUP/io.stat is_charged
result "writeback throttling" "$queue"/wbt_lat_usec with_setting \
	"$queue"/wbt_lat_usec 1000 0
result "latency control" $GROUP/io.latency with_latency_control
if [[ -e /proc/lockdep ]]; then
	ktap_test_skip "cost control: the kernel breaks its own lock order"
else
	result "cost control" $COST with_cost_control
fi
ktap_test_result "statistics of the disk" is_accounted
result "tracepoints" "$P2P_TRACE"/events/block has_tracepoints
result "blktrace" "$block"/trace/enable has_blktrace
ktap_test_result "partition" partition_works
if [[ $late != /sys/block/ ]]; then
	result "protection that is switched on late" $GROUP/io.max \
		is_refused_late
else
	ktap_test_skip "protection that is switched on late: no device formats"
fi
ktap_test_result "resets of the controller" survives_resets
ktap_finished
