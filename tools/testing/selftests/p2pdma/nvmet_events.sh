#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What happens to a target with peer-to-peer memory while it is under load: the
# pool is too small, the host goes away, the namespace is disabled, the provider
# is unbound. No data may be damaged, no memory lost, and nothing may hang.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

DRIVER=/sys/bus/pci/drivers/p2pmem_provider
ROUNDS=${P2PDMA_ROUNDS:-3}

load=

# Load that is meant to be interrupted: errors are expected, hangs are not.
start_load()
{
	timeout "$P2P_LIMIT" fio --name=load --filename="$remote" --direct=1 \
		--ioengine=libaio --thread --rw=randrw --bs=64k --iodepth=32 \
		--size=64M --numjobs=2 --time_based --runtime=30 \
		--output=/tmp/load.log 2> /tmp/load.err &
	load=$!
	sleep 1
	kill -0 $load 2> /dev/null || { p2p_log load /tmp/load.log; return 1; }
}

end_load()
{
	kill $load 2> /dev/null
	wait $load 2> /dev/null
	return 0
}

# Load that must not notice: verified, and no error.
start_verified_load()
{
	timeout "$P2P_LIMIT" fio --name=verified --filename="$remote" --direct=1 \
		--ioengine=libaio --thread --rw=randwrite --bs=64k --iodepth=16 \
		--size=48M --io_size=128M --loops=2 --verify=crc32c \
		--verify_fatal=1 --serialize_overlap=1 \
		--output=/tmp/load.log 2> /tmp/load.err &
	load=$!
	sleep 1
	kill -0 $load 2> /dev/null || { p2p_log load /tmp/load.log; return 1; }
}

end_verified_load()
{
	wait $load || { p2p_log load /tmp/load.log; return 1; }
}

verify()
{
	p2p_fio "$remote" --rw=randwrite --bs=64k --size=16m --iodepth=8 \
		--verify=crc32c --verify_fatal=1
}

# The kernel without DMA-address bios does not count what it serves.
is_served_from() # PROVIDER
{
	local before

	before=$(p2p_stat requests)
	verify || return
	((!has_dma_bios)) || (($(p2p_stat requests) > before))
}

exhausted()
{
	p2p_set_provider "$small" || return
	p2p_wait 10 p2p_find_remote || return
	p2p_fio "$remote" --rw=randwrite --bs=1m --size=64m --iodepth=32 \
		--verify=crc32c --verify_fatal=1 || return
	((has_dma_bios)) || return 0
	ktap_print_msg "$(p2p_stat requests) requests from the pool," \
		"$(p2p_stat fallbacks) from system memory"
	(($(p2p_stat requests) > 0 && $(p2p_stat fallbacks) > 0))
}

disconnected()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		start_load || return
		p2p_disconnect || return
		end_load
		p2p_wait 10 p2p_pool_is_free "$provider" || return
		p2p_connect || return
	done
	is_served_from "$provider"
}

reset()
{
	local i ctrl

	ctrl=$(p2p_controller) || return
	for ((i = 0; i < ROUNDS; i++)); do
		start_verified_load || return
		timeout "$P2P_LIMIT" bash -c "echo 1 > $ctrl/reset_controller" ||
			return
		p2p_wait 20 grep -q live "$ctrl"/state || return
		end_verified_load || return
	done
	is_served_from "$provider"
}

# Until it is enabled again the host gets errors, so the data is written after.
disabled()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		start_load || return
		timeout "$P2P_LIMIT" bash -c "echo 0 > $P2P_NS/enable" || return
		end_load
		p2p_wait 10 p2p_pool_is_free "$provider" || return
		echo 1 > "$P2P_NS"/enable || return
		p2p_wait 10 p2p_find_remote || return
	done
	is_served_from "$provider"
}

# In-flight transfers end, later ones use system memory, no I/O fails. The provider
# serves again when the namespace is enabled anew.
unbound()
{
	local before

	start_verified_load || return
	timeout "$P2P_LIMIT" bash -c "echo $provider > $DRIVER/unbind" || return
	echo "$provider" > $DRIVER/bind || return
	end_verified_load || return
	before=$(p2p_stat requests)
	verify || return
	if (($(p2p_stat requests) != before)); then
		ktap_print_msg "a dead mapping was used"
		return 1
	fi
	p2p_set_provider "$provider" && p2p_wait 10 p2p_find_remote &&
		is_served_from "$provider"
}

pool_free()
{
	p2p_disconnect && p2p_wait 10 p2p_pool_is_free "$provider" &&
		p2p_pool_is_free "$small"
}

use_provider()
{
	p2p_set_provider "$provider" && p2p_wait 10 p2p_find_remote
}

set_up()
{
	p2p_insmod p2pmem_provider && p2p_load_rnic &&
		p2p_add_target "$(p2p_disk drive0)" &&
		p2p_set_provider "$small" && p2p_connect
}

ktap_print_header
p2p_require p2pmem0 p2pmem1 drive0 engine
p2p_require_tools fio nvme ip
provider=$(p2p_device p2pmem0)
small=$(p2p_device p2pmem1)
ktap_set_plan 7
has_dma_bios=0
p2p_has_dma_bios && has_dma_bios=1
set_up || ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "pool exhausted" exhausted
ktap_test_result "another provider" use_provider
ktap_test_result "disconnected and connected again" disconnected
ktap_test_result "controller reset" reset
ktap_test_result "namespace disabled" disabled
if ((has_dma_bios)); then
	ktap_test_result "provider unbound" unbound
else
	ktap_test_skip "provider unbound: the page based path does not survive it"
fi
ktap_test_result "all memory is back in the pools" pool_free
p2p_remove_target
ktap_finished
