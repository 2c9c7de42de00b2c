#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the commands in Documentation/nvme/nvmet-p2pmem.rst as written, block by block. Only
# the devices, which the first block names, are those of this machine.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

GUIDE=$DIR/nvmet-p2pmem.rst

# What the guide sets up
P2P_NQN=testnqn
P2P_SUBSYS=$P2P_NVMET/subsystems/$P2P_NQN
P2P_NS=$P2P_SUBSYS/namespaces/1

# write_blocks DIRECTORY: a script for each literal block, 1, 2, ...
write_blocks()
{
	rm -rf "$1" && mkdir "$1" && awk -v dir="$1" '
		/^  [^ ]/ && literal { print substr($0, 3) > (dir "/" n); next }
		/^[^ ]/ { literal = 0 }
		/::$/ && !/^\.\./ { literal = 1; n++ }' "$GUIDE"
}

# The variables of the first block, for this machine
# shellcheck disable=SC2034 # the guide uses them
devices()
{
	PROVIDER=$(p2p_device p2pmem0)
	NIC=rnic0
	ADDRESS=$P2P_ADDR
	DRIVE=$(p2p_disk drive0)
	SELFTESTS=$DIR
}

# run_block NUMBER: in this shell, because blocks change the directory and set variables
run_block()
{
	local line

	while read -r line; do
		[[ $line != DISK=* ]] || line="DISK=$remote"
		eval "$line" < /dev/null > /tmp/line.log 2>&1 && continue
		ktap_print_msg "failed: $line"
		p2p_log output /tmp/line.log
		return 1
	done < "/tmp/guide/$1"
	! grep -q "^nvme connect" "/tmp/guide/$1" || p2p_wait "$P2P_LIMIT" p2p_find_remote
}

# run_traced NUMBER TOOL: under load, of which the report must tell
run_traced()
{
	p2p_start_load && run_block "$1"
	local status=$?

	p2p_end_load
	((!status)) && grep -q "${traced[$2]}" /tmp/line.log
}

# The target serves a host from p2pmem, and the log says so.
serves()
{
	p2p_verify && (($(p2p_stat requests) >= 128)) && p2p_logged "using p2pmem on"
}

# measured FILE LINES: measure.sh has measured I/O, and all of it was served from p2pmem.
measured()
{
	p2p_log measured "$1"
	awk -F , -v lines="$2" '
		NR == 1 { n = NF; next }
		NF != n || $7 <= 0 || $9 <= 0 || $10 <= 0 || $12 <= 0 || $13 != 100 { bad = 1 }
		END { exit bad || NR != lines }' "$1"
}

measured_writes()
{
	P2P_SIZES=65536 "$DIR"/measure.sh -w "$remote" > /tmp/written.csv &&
		measured /tmp/written.csv 5
}

keeps_local_drive()
{
	! "$DIR"/measure.sh -w "$DRIVE" 2> /tmp/refused.log &&
		grep -q "not written to" /tmp/refused.log
}

# Where nvme-cli is a package, its installation does this.
name_host()
{
	mkdir -p /etc/nvme
	[[ -e /etc/nvme/hostnqn ]] || nvme gen-hostnqn > /etc/nvme/hostnqn
	[[ -e /etc/nvme/hostid ]] ||
		cat /proc/sys/kernel/random/uuid > /etc/nvme/hostid
}

ktap_print_header
p2p_require p2pmem0 drive0 engine
p2p_require_tools fio nvme ip trace-cmd
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
if ! { p2p_insmod p2pmem_provider && p2p_load_rnic; }; then
	ktap_exit_fail_msg "cannot load the modules"
fi
name_host
export P2P_SECONDS=1 P2P_SIZES=4096	# to measure.sh
declare -A traced=([trace-cmd]="nvmet_p2pmem: .*data=p2pmem" [bpftrace]="^@\[p2pmem\]: [1-9]")
write_blocks /tmp/guide
last=$(find /tmp/guide -type f | wc -l)
ktap_set_plan $((last + 4))
p2p_mark_log
ktap_test_result "block 1: $(head -n 1 /tmp/guide/1), and others" devices
for ((block = 2; block <= last; block++)); do
	name="block $block: $(head -n 1 /tmp/guide/$block)"
	tool=$(sed -n '/^\(trace-cmd\|bpftrace\) /s/ .*//p' /tmp/guide/$block | uniq)
	[[ $tool != trace-cmd ]] || ktap_test_result "what is set up serves a host" serves
	if [[ $tool ]] && ! type -P "$tool" > /dev/null; then
		ktap_test_skip "$name: there is no $tool"
	elif [[ $tool ]]; then
		ktap_test_result "$name" run_traced $block "$tool"
	else
		ktap_test_result "$name" run_block $block
	fi
	if grep -q measure.sh /tmp/guide/$block; then
		ktap_test_result "what was measured was served from p2pmem" \
			measured /tmp/p2pmem.csv 3
		ktap_test_result "measured writes" measured_writes
		ktap_test_result "a local drive is not written to" keeps_local_drive
	fi
done
ktap_finished
