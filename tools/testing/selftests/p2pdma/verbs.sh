#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The loopback RoCE NIC on which the other tests rely: what arrives where, and
# what it refuses, with which error.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

RESULTS=/sys/kernel/debug/rnic_verbs_test
NETDEV=rnic-verbs
loaded=()

bail_out()
{
	ktap_exit_fail_msg "$*, see the kernel log"
}

unload()
{
	local i status=0

	for ((i = ${#loaded[@]} - 1; i >= 0; i--)); do
		rmmod "${loaded[i]}" || status=1
	done
	loaded=()
	return "$status"
}

clean_up()
{
	unload
	ip link del "$NETDEV" 2> /dev/null
}

# load MODULE PARAMETER...
load()
{
	insmod "$DIR/modules/$1.ko" "${@:2}" || return
	loaded+=("$1")
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
[[ ! -d /sys/module/rnic_loop ]] ||
	p2p_skip_all "rnic_loop is in use, unload it"
[[ -d /sys/kernel/debug/dmaengine || -d /sys/kernel/debug/block ]] ||
	mount -t debugfs none /sys/kernel/debug || p2p_skip_all "needs debugfs"

trap clean_up EXIT
make_netdev || bail_out "cannot make a dummy network device"
[[ -d /sys/module/lsi_copy ]] || load lsi_copy || bail_out "cannot load lsi_copy"
# Few pages, so that a transfer takes several registrations, if it takes any
load rnic_loop netdev="$NETDEV" max_mr_pages=16 || bail_out "cannot load rnic_loop"
# The device gets its addresses some time after it is there.
p2p_wait 5 has_gid || bail_out "rnic0 has no address"
load rnic_verbs_test || bail_out "cannot load rnic_verbs_test"

tests=$(sed -n 's/^1\.\.//p' "$RESULTS")
((tests)) || bail_out "rnic_verbs_test has no results"
ktap_set_plan $((tests + 1))
while read -r line; do
	case $line in
	'ok '*) ktap_test_pass "${line#ok * }" ;;
	'not ok '*) ktap_test_fail "${line#not ok * }" ;;
	'# '*) ktap_print_msg "${line#\# }" ;;
	'Bail out!'*) bail_out "the tests could not start" ;;
	esac
done < "$RESULTS"
ktap_test_result "unload" unload
ktap_finished
