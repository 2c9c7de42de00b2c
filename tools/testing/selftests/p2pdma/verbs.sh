#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The loopback RoCE NIC on which the other tests rely: what arrives where, and
# what it refuses, with which error.

DIR=$(dirname "$(readlink -f "$0")")
# shellcheck source=/dev/null
. "$DIR"/../kselftest/ktap_helpers.sh

RESULTS=/sys/kernel/debug/rnic_verbs_test
NETDEV=rnic-verbs
loaded=()

skip_all()
{
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

bail_out()
{
	ktap_exit_fail_msg "$*, see the kernel log"
}

clean_up()
{
	local i

	for ((i = ${#loaded[@]} - 1; i >= 0; i--)); do
		rmmod "${loaded[i]}"
	done
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

# The device gets its addresses some time after it is there.
wait_for_gid()
{
	local i gids=/sys/class/infiniband/rnic0/ports/1/gids

	for ((i = 0; i < 50; i++)); do
		grep -qs c633:6401 "$gids"/* && return
		sleep 0.1
	done
	return 1
}

ktap_print_header

((EUID == 0)) || skip_all "needs root"
[[ ! -d /sys/module/rnic_loop ]] || skip_all "rnic_loop is in use, unload it"
[[ -d /sys/kernel/debug/dmaengine || -d /sys/kernel/debug/block ]] ||
	mount -t debugfs none /sys/kernel/debug || skip_all "needs debugfs"
grep -qi 0x1000 /sys/bus/pci/devices/*/vendor ||
	skip_all "no LSI 53C895A (QEMU: -device lsi53c895a)"

trap clean_up EXIT
make_netdev || bail_out "cannot make a dummy network device"
[[ -d /sys/module/lsi_copy ]] || load lsi_copy || bail_out "cannot load lsi_copy"
load rnic_loop netdev="$NETDEV" || bail_out "cannot load rnic_loop"
wait_for_gid || bail_out "rnic0 has no address"
load rnic_verbs_test || bail_out "cannot load rnic_verbs_test"

ktap_set_plan "$(sed -n 's/^1\.\.//p' "$RESULTS")"
while read -r line; do
	case $line in
	'ok '*) ktap_test_pass "${line#ok * }" ;;
	'not ok '*) ktap_test_fail "${line#not ok * }" ;;
	'# '*) ktap_print_msg "${line#\# }" ;;
	'Bail out!'*) bail_out "the tests could not start" ;;
	esac
done < "$RESULTS"
ktap_finished
