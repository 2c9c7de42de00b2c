#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The loopback RoCE NIC on which the other tests rely: what arrives where, and
# what it refuses, with which error. See modules/rnic_verbs_kunit.c.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

NETDEV=rnic-verbs
loaded=()

bail_out()
{
	ktap_exit_fail_msg "$*, see the kernel log"
}

unload()
{
	local modules=("${loaded[@]}")

	loaded=()
	[[ ! ${modules[*]} ]] || rmmod "${modules[@]}"
}

clean_up()
{
	unload
	ip link del "$NETDEV" 2> /dev/null
	rm "$results"
}

# load MODULE PARAMETER...
load()
{
	p2p_insmod "$@" || bail_out "cannot load $1"
	loaded=("$1" "${loaded[@]}")
}

make_netdev()
{
	ip link add "$NETDEV" type dummy &&
		ip link set "$NETDEV" up &&
		ip addr add 198.51.100.1/24 dev "$NETDEV"
}

has_gid()
{
	grep -qs c633:6401 /sys/class/infiniband/rnic0/ports/1/gids/*
}

ktap_print_header
p2p_require engine
p2p_require_kunit
[[ ! -d /sys/module/rnic_loop ]] ||
	p2p_skip_all "rnic_loop is in use, unload it"

results=$(mktemp)
trap clean_up EXIT
make_netdev || bail_out "cannot make a dummy network device"
[[ -d /sys/module/lsi_copy ]] || load lsi_copy
# Few pages, so that a transfer takes several registrations, if it takes any
load rnic_loop netdev="$NETDEV" max_mr_pages=16
# The device gets its addresses some time after it is there.
p2p_wait 5 has_gid || bail_out "rnic0 has no address"
p2p_kunit "$results" rnic_verbs rnic_verbs_kunit ||
	bail_out "cannot run rnic_verbs_kunit"

tests=$(p2p_kunit_tests "$results") || bail_out "rnic_verbs_kunit has no results"
ktap_set_plan $((tests + 1))
p2p_kunit_report "$results"
ktap_test_result "unload" unload
ktap_finished
