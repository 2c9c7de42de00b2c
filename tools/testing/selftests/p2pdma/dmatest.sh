#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The copy engine on which the other tests rely, under the kernel's own test of
# DMA engines: sizes, alignments, threads, and what happens when it fails or
# goes away.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

DRIVER=/sys/bus/pci/drivers/lsi_copy

log='' threads=0

# Put into log what dmatest has written since the mark.
read_log()
{
	log=$(p2p_log_since_mark) && log=$(sed -n 's/.* dmatest: //p' <<< "$log")
}

count_log()
{
	grep -c "$1" <<< "$log"
}

start_dmatest()
{
	p2p_mark_log
	modprobe dmatest device="$engine" timeout=10000 "$@" || return
	# Given to modprobe, run= asks for channels twice.
	echo 1 > /sys/module/dmatest/parameters/run
	if read_log; then
		threads=$(awk '/^Added / { n += $2 } END { print n + 0 }' \
			  <<< "$log")
		((threads == 0)) || return 0
		ktap_print_msg "dmatest got no channel of $engine"
	fi
	rmmod dmatest
	return 1
}

# dmatest's own "wait" does not wait for threads that have not started yet.
wait_dmatest()
{
	local end=$((SECONDS + P2P_LIMIT))

	while read_log; do
		(($(count_log ': summary ') < threads)) || return 0
		if ((SECONDS > end)); then
			ktap_print_msg "dmatest takes more than $P2P_LIMIT seconds"
			return 1
		fi
		sleep 0.2
	done
	return 1
}

# run_dmatest FAILURES PARAMETER...: run it, tell whether so many copies failed
run_dmatest()
{
	local expected=$1 failures status

	shift
	start_dmatest "$@" || return
	wait_dmatest
	status=$?
	rmmod dmatest || status=1
	failures=$(awk '/: summary / { sub(/.*: summary /, ""); n += $3 }
			END { print n + 0 }' <<< "$log")
	if ((failures != expected)); then
		ktap_print_msg "$failures copies failed, expected $expected"
		echo "# ${log//$'\n'/$'\n# '}"
		status=1
	fi
	return "$status"
}

# set_master 0|1: without bus mastering the engine cannot even read its program
set_master()
{
	local config=/sys/bus/pci/devices/$engine/config command

	command=0x$(od -An -tx1 -j4 -N1 "$config" | tr -d ' ') || return
	command=$((command & ~4 | $1 << 2))
	# shellcheck disable=SC2059 # the format is the byte
	printf "\\x$(printf %x "$command")" |
		dd of="$config" bs=1 seek=4 conv=notrunc status=none
}

test_failure()
{
	local status=0

	set_master 0 || return
	run_dmatest 2 iterations=2 max_channels=1 || status=1
	set_master 1 || return
	if (($(count_log 'completion error status') != 2)); then
		ktap_print_msg "not completed with DMA_ERROR"
		status=1
	fi
	run_dmatest 0 iterations=100 || status=1
	return "$status"
}

test_unbind()
{
	local status=0

	start_dmatest threads_per_chan=2 || return
	sleep 1
	timeout "$P2P_LIMIT" bash -c "echo $engine > $DRIVER/unbind" || status=1
	sleep 0.5
	rmmod dmatest || status=1
	echo "$engine" > "$DRIVER"/bind || return
	run_dmatest 0 iterations=100 || status=1
	return "$status"
}

# reload [PARAMETER]
reload()
{
	rmmod lsi_copy && p2p_insmod lsi_copy "$@"
}

# A copy is a program of up to ten moves. The data repeats after 32 bytes: moves of an
# odd number of bytes show what comes from the wrong place, too.
test_moves()
{
	local status=0 bytes=4099

	reload move_max=$bytes || return
	run_dmatest 0 iterations=200 test_buf_size=$((10 * bytes)) || status=1
	run_dmatest 1 iterations=1 max_channels=1 norandom=1 \
		test_buf_size=$((10 * bytes + 1)) || status=1
	reload || status=1
	return "$status"
}

refused_moves()
{
	local move_max

	rmmod lsi_copy || return
	for move_max in 0 $((16 << 20)); do
		! p2p_insmod lsi_copy move_max=$move_max || return
	done 2> /dev/null
	p2p_insmod lsi_copy
}

ktap_print_header

p2p_require engine
engine=$(p2p_device engine)
modprobe -n -q dmatest || p2p_skip_all "no dmatest: set CONFIG_DMATEST=m"
p2p_insmod lsi_copy || ktap_exit_fail_msg "cannot load lsi_copy"
[[ -e $DRIVER/$engine ]] ||
	ktap_exit_fail_msg "$engine is not bound to lsi_copy, see the kernel log"
[[ $(< /sys/module/lsi_copy/refcnt) == 0 ]] ||
	p2p_skip_all "lsi_copy is in use"

ktap_set_plan 9

ktap_test_result "bytes at odd addresses" \
	run_dmatest 0 iterations=500 test_buf_size=67
ktap_test_result "several threads on every channel" \
	run_dmatest 0 iterations=200 threads_per_chan=3
ktap_test_result "up to 2 MiB" \
	run_dmatest 0 iterations=10 test_buf_size=$((2 << 20))
ktap_test_result "copies of up to ten moves, and no more" test_moves
ktap_test_result "moves of no bytes, and of too many, are refused" refused_moves
ktap_test_result "polled" \
	run_dmatest 0 iterations=200 max_channels=2 polled=1
ktap_test_result "error and recovery" test_failure
if [[ -d /sys/kernel/debug/dma-api ]]; then
	ktap_test_skip "unbind in use: DMA_API_DEBUG rejects clients' mappings"
else
	ktap_test_result "unbind in use" test_unbind
fi
ktap_test_result "unload" rmmod lsi_copy

ktap_finished
