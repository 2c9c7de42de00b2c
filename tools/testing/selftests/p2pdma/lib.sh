# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by the P2PDMA tests: devices, the NVMe target and its host, fio, and counters.
# Sourced, not run.

DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=/dev/null
. "$DIR"/../kselftest/ktap_helpers.sh

P2P_NQN=nqn.2014-08.org.nvmexpress:p2pdma
P2P_ADDR=192.0.2.1
P2P_ADDR2=198.51.100.1	# of the second NIC
P2P_PORT=4420
P2P_HOST=(--hostnqn nqn.2014-08.org.nvmexpress:p2pdma-host
	  --hostid 11111111-2222-3333-4444-555555555555)
P2P_TRANSPORT=rdma	# or tcp, loop
P2P_INLINE=0	# bytes of data in the capsule
P2P_PI=0	# hosts send and get protection information
P2P_LIMIT=${P2P_LIMIT:-60}	# seconds that one step may take

P2P_NVMET=/sys/kernel/config/nvmet
P2P_SUBSYS=$P2P_NVMET/subsystems/$P2P_NQN
P2P_NS=$P2P_SUBSYS/namespaces/1
P2P_TRACE=/sys/kernel/tracing

# What dma_bio_try prints if the data was moved in both directions
# shellcheck disable=SC2034 # for the tests
P2P_TAKEN='write: status 0, ended 1, disk written
read: status 0, ended 1, memory filled'

# The disk that the host sees, see p2p_connect()
# shellcheck disable=SC2034 # for the tests
remote=

# --- start and end of a test ---

p2p_skip_all()
{
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

# p2p_log NAME FILE: print its beginning, where the cause of an error is
p2p_log()
{
	head -n 20 "$2" | sed "s/^/# $1: /"
}

# p2p_find_id VENDOR DEVICE: the first PCI device with these ids
p2p_find_id()
{
	local dev

	for dev in /sys/bus/pci/devices/*; do
		if [[ $(< "$dev/vendor") == "$1" && $(< "$dev/device") == "$2" ]]
		then
			echo "${dev##*/}"
			return
		fi
	done
}

# p2p_device NAME: its PCI address. The emulated machine names its devices. On any
# other, P2PDMA_DEVS and P2PDMA_BARS may name them; drives are never guessed.
p2p_device()
{
	local entry

	for entry in $P2PDMA_DEVS $P2PDMA_BARS; do
		if [[ $entry == "$1="* ]]; then
			echo "${entry#*=}"
			return
		fi
	done
	case $1 in
	p2pmem0) p2p_find_id 0x1af4 0x1110 ;;
	engine) p2p_find_id 0x1000 0x0012 ;;
	esac
}

# p2p_require NAME...: skip the test where one of the devices is missing
p2p_require()
{
	local name

	((EUID == 0)) || p2p_skip_all "needs root"
	for name; do
		[[ $(p2p_device "$name") ]] || p2p_skip_all \
			"no device $name: set P2PDMA_DEVS=\"$name=<PCI address>\""
	done
}

p2p_require_tools()
{
	local tool

	for tool; do
		type -P "$tool" > /dev/null || p2p_skip_all "needs $tool"
	done
}

# p2p_insmod MODULE [PARAMETER]...: one of the test modules
p2p_insmod()
{
	local module=$1

	shift
	[[ ! -d /sys/module/$module ]] || return 0
	insmod "$DIR/modules/$module.ko" "$@"
}

# p2p_passes PROGRAM ARGUMENT...: run some tests of it: is there one, and is none skipped?
p2p_passes()
{
	local log=/tmp/passes.log status=0

	"$DIR/$1" "${@:2}" > $log 2>&1 || status=1
	cat $log
	((!status)) && grep -q "^ok " $log && ! grep -q "# SKIP" $log
}

# p2p_wait SECONDS COMMAND...: until the command is true
p2p_wait()
{
	local limit=$1 end=$((SECONDS + $1))

	shift
	until "$@"; do
		if ((SECONDS >= end)); then
			ktap_print_msg "not within $limit s: $*"
			return 1
		fi
		sleep 0.1
	done
}

# Kernel messages from here on are those of the test that runs.
p2p_mark_log()
{
	p2p_mark="p2pdma-mark $RANDOM$RANDOM"
	echo "$p2p_mark" > /dev/kmsg
}

# A log that has lost the mark has lost evidence: that must not look like silence.
p2p_log_since_mark()
{
	dmesg | awk -v mark="$p2p_mark" '
		found { print }
		index($0, mark) { found = 1 }
		END { exit !found }' && return
	ktap_print_msg "too many messages, see the kernel log" >&2
	return 1
}

# p2p_logged STRING: has it been logged since the last mark?
p2p_logged()
{
	if p2p_log_since_mark | grep -qF -e "$1"; then
		return 0
	fi
	ktap_print_msg "the kernel did not say: $1"
	return 1
}

# p2p_has_dma_bios: does this kernel have I/O by DMA address?
p2p_has_dma_bios()
{
	grep -q ' pci_p2pmem_map_resource$' /proc/kallsyms
}

# --- the host of the emulated machine ---

# p2p_ask COMMAND BAR [STRING]: ask the host, print the answer. An answer repeats the
# number of its question, so a late one is not taken for that of the next question.
p2p_ask()
{
	local number=${EPOCHREALTIME//[^0-9]/} answered answer

	[[ -e $P2PDMA_CTL ]] || return
	exec 9<> "$P2PDMA_CTL"
	echo "$number $*" >&9
	while read -r -t "$P2P_LIMIT" answered answer <&9; do
		if [[ $answered == "$number" ]]; then
			echo "$answer"
			break
		fi
	done
	exec 9>&-
}

# p2p_witness BAR STRING: is it in the file behind the BAR?
p2p_witness()
{
	[[ $(p2p_ask witness "$@") == found* ]]
}

p2p_scrub()
{
	[[ $(p2p_ask scrub "$1") == ok ]]
}

# p2p_is_there NAME
p2p_is_there()
{
	[[ -e /sys/bus/pci/devices/$(p2p_device "$1") ]]
}

# p2p_port NAME: the one that it is plugged into
p2p_port()
{
	local device

	p2p_is_there "$1" || return
	device=$(readlink -f "/sys/bus/pci/devices/$(p2p_device "$1")")
	basename "${device%/*}"
}

# p2p_slot NAME: of its port, what user space sees of it
p2p_slot()
{
	local slot address

	address=$(p2p_device "$1")
	for slot in /sys/bus/pci/slots/*; do
		if [[ -e $slot/power && $(< "$slot"/address) == "${address%.*}" ]]
		then
			echo "$slot"
			return
		fi
	done
	return 1
}

# p2p_port_is_off PORT: are power and indicator off? That is the last thing that the
# kernel does when a device goes away.
p2p_port_is_off()
{
	(((0x$(setpci -s "$1" CAP_EXP+18.w) >> 8 & 7) == 7))
}

# p2p_unplug NAME: press the attention button, then turn the slot's power off instead of
# waiting the five seconds in which the button can be pressed again. On a slow machine it
# may be off by then, which makes the attempt an error.
p2p_unplug()
{
	local port slot

	port=$(p2p_port "$1") && slot=$(p2p_slot "$1") &&
		[[ $(p2p_ask unplug "$1") == ok ]] || return
	timeout "$P2P_LIMIT" bash -c "echo 0 > $slot/power"
	p2p_wait "$P2P_LIMIT" p2p_port_is_off "$port"
}

# p2p_is_pulled NAME PORT: is the device gone, and has the kernel finished removing it?
p2p_is_pulled()
{
	! p2p_is_there "$1" && p2p_port_is_off "$2"
}

# p2p_pull NAME: surprise removal: turn off the power of the port behind the kernel's
# back (CAP_EXP+18, Slot Control), so that it then finds the device missing.
p2p_pull()
{
	local port

	port=$(p2p_port "$1") && setpci -s "$port" CAP_EXP+18.w=0700:0720 &&
		setpci -s "$port" CAP_EXP+18.w=0120:0720 &&
		p2p_wait "$P2P_LIMIT" p2p_is_pulled "$1" "$port"
}

# p2p_plug NAME: plug it in again; retry while QEMU still holds the old device
p2p_plug()
{
	p2p_wait "$P2P_LIMIT" p2p_plug_now "$1" &&
		p2p_wait "$P2P_LIMIT" p2p_is_there "$1"
}

p2p_plug_now()
{
	[[ $(p2p_ask plug "$1") == ok ]]
}

# --- network card ---

# p2p_make_netdev NAME ADDRESS
p2p_make_netdev()
{
	local name=$1

	# Built in, the dummy driver makes one by itself.
	ip link show "$name" &> /dev/null ||
		ip link add "$name" type dummy || return
	ip link set "$name" up || return
	ip addr replace "$2/24" dev "$name"
}

# p2p_load_rnic [PARAMETER]...
p2p_load_rnic()
{
	p2p_insmod lsi_copy && p2p_make_netdev dummy0 $P2P_ADDR &&
		p2p_insmod rnic_loop "$@" && p2p_wait 5 test -e /sys/class/infiniband/rnic0
}

p2p_load_two_nics()
{
	[[ ! -d /sys/module/rnic_loop ]] || rmmod rnic_loop || return
	p2p_make_netdev dummy1 $P2P_ADDR2 && p2p_load_rnic netdev=dummy0,dummy1 &&
		p2p_wait 5 test -e /sys/class/infiniband/rnic1
}

# --- NVMe target ---

# p2p_disk NAME [NSID]: the block device of a drive, or of one of its namespaces
p2p_disk()
{
	local dir

	# The number in the name is not that of the namespace.
	for dir in "/sys/bus/pci/devices/$(p2p_device "$1")"/nvme/nvme*/nvme*n*; do
		[[ -e $dir/nsid && $(< "$dir"/nsid) == "${2:-1}" ]] &&
			echo "/dev/${dir##*/}"
	done
}

# p2p_subsystem NAME...: the NVMe subsystem of these controllers; one may be away
p2p_subsystem()
{
	local name controller dir

	for name; do
		for controller in "/sys/bus/pci/devices/$(p2p_device "$name")"/nvme/nvme*; do
			for dir in /sys/class/nvme-subsystem/*; do
				[[ -e $dir/${controller##*/} ]] && echo "$dir" && return
			done
		done
	done
	return 1
}

# p2p_head_disk NAME...: the multipath disk that these controllers are the paths of
p2p_head_disk()
{
	local dir disk

	dir=$(p2p_subsystem "$@") || return
	for disk in "$dir"/nvme*n1; do
		[[ -b /dev/${disk##*/} ]] && echo "/dev/${disk##*/}" && return
	done
	return 1
}

# p2p_add_member DISK [SLOT]: to the array $md; without a slot it is a spare
p2p_add_member()
{
	local member=$md/dev-${1##*/}

	echo "$(< "/sys/class/block/${1##*/}"/dev)" > "$md"/new_dev &&
		echo $((sectors / 2)) > "$member"/size || return
	[[ ! $2 ]] || echo "$2" > "$member"/slot
}

# p2p_make_array LEVEL SECTORS DISK...: sets $array, $md and $sectors
p2p_make_array()
{
	local level=$1 slot=0 disk

	sectors=$2
	shift 2
	# A name is not free at once when its array has gone.
	array=md_$level$RANDOM
	modprobe md-mod && modprobe "$level" || return
	echo "$array" > /sys/module/md_mod/parameters/new_array || return
	md=/sys/block/$array/md
	echo "$level" > "$md"/level && echo none > "$md"/metadata_version &&
		echo $# > "$md"/raid_disks || return
	[[ $level == raid1 ]] || echo 65536 > "$md"/chunk_size || return
	[[ $level != raid10 ]] || echo $((1 << 8 | 2)) > "$md"/layout || return
	for disk; do
		p2p_add_member "$disk" $((slot++)) || return
	done
	echo $((sectors / 2)) > "$md"/component_size || return
	[[ $level == raid0 ]] || echo none > "$md"/resync_start || return
	echo active > "$md"/array_state
}

p2p_remove_array()
{
	p2p_wait 10 p2p_clear_array
}

p2p_clear_array()
{
	{ echo clear > "$md"/array_state; } 2> /dev/null
}

# p2p_format DISK METADATA SHIFT [ARGUMENT]...: bytes for each block, and its size
p2p_format()
{
	local index log=/tmp/format.log

	index=$(nvme id-ns "$1" |
		sed -n "s/^lbaf *\([0-9]*\) : ms:$2 *lbads:$3 .*/\1/p") &&
		timeout "$P2P_LIMIT" nvme format "$1" --lbaf="$index" --force "${@:4}" \
			&> $log && return
	p2p_log format $log
	return 1
}

# p2p_partition DISK: its first partition has 16 MiB, and begins after 1 MiB
p2p_partition()
{
	{
		head -c 446 /dev/zero
		printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\200\0\0'
		head -c 48 /dev/zero
		printf '\125\252'
	} | dd of="$1" bs=512 conv=notrunc 2> /dev/null &&
		blockdev --rereadpt "$1" && p2p_wait 10 test -b "$1"p1
}

p2p_unpartition()
{
	dd if=/dev/zero of="$1" bs=512 count=1 2> /dev/null && blockdev --rereadpt "$1"
}

# p2p_disk_is_there NAME
p2p_disk_is_there()
{
	[[ -b $(p2p_disk "$1") ]]
}

# p2p_link_port [NUMBER]
p2p_link_port()
{
	ln -s "$P2P_SUBSYS" "$P2P_NVMET/ports/${1:-1}/subsystems/"
}

p2p_unlink_port()
{
	rm -f "$P2P_NVMET/ports/${1:-1}/subsystems/$P2P_NQN"
}

# p2p_add_port NUMBER: where $P2P_TRANSPORT, $P2P_ADDR and $P2P_PORT say. Data in the
# capsule would bypass p2pmem, hence $P2P_INLINE is 0. TCP connects by it.
p2p_add_port()
{
	local number=$1
	local port=$P2P_NVMET/ports/$number

	mkdir "$port" || return
	echo "$P2P_TRANSPORT" > "$port"/addr_trtype
	echo ipv4 > "$port"/addr_adrfam
	echo "$P2P_ADDR" > "$port"/addr_traddr
	echo "$P2P_PORT" > "$port"/addr_trsvcid
	[[ $P2P_TRANSPORT != rdma ]] || echo "$P2P_INLINE" > "$port"/param_inline_data_size
	((!P2P_PI)) || echo 1 > "$port"/param_pi_enable || return
	p2p_link_port "$number"
}

p2p_remove_port()
{
	p2p_unlink_port "$1"
	rmdir "$P2P_NVMET/ports/$1"
}

# The loop transport is one module for both sides.
p2p_load_transport()
{
	modprobe "nvme-$P2P_TRANSPORT" || return
	[[ $P2P_TRANSPORT == loop ]] || modprobe "nvmet-$P2P_TRANSPORT"
}

# p2p_add_target DISK [PORT]: one subsystem with one namespace, not enabled yet
p2p_add_target()
{
	p2p_load_transport || return
	mkdir "$P2P_SUBSYS" || return
	echo 1 > "$P2P_SUBSYS"/attr_allow_any_host
	((!P2P_PI)) || echo 1 > "$P2P_SUBSYS"/attr_pi_enable || return
	mkdir "$P2P_NS" || return
	echo -n "$1" > "$P2P_NS"/device_path
	p2p_add_port "${2:-1}"
}

p2p_enable()
{
	{ echo 1 > "$P2P_NS"/enable; } 2> /dev/null
}

# p2p_set_provider 0|1|ADDRESS: enable the namespace with this p2pmem attribute
p2p_set_provider()
{
	echo 0 > "$P2P_NS"/enable
	{ echo "$1" > "$P2P_NS"/p2pmem; } 2> /dev/null && p2p_enable
}

# p2p_enable_anew: enabling the namespace looks for the provider again, so this is
# enough to use peer-to-peer memory again, whatever has happened to the provider.
p2p_enable_anew()
{
	timeout "$P2P_LIMIT" bash -c \
		"echo 0 > $P2P_NS/enable && echo 1 > $P2P_NS/enable" &&
		p2p_wait "$P2P_LIMIT" p2p_find_remote
}

# p2p_set_up_disk DISK: all devices, and a target that is not enabled yet
p2p_set_up_disk()
{
	p2p_insmod p2pmem_provider && p2p_load_rnic && p2p_add_target "$1"
}

# p2p_set_up_target DISK PROVIDER: a namespace with p2pmem, and a host connected
p2p_set_up_target()
{
	p2p_set_up_disk "$1" && p2p_set_provider "$2" && p2p_connect
}

# p2p_add_pi_target DISK: the host of this target supplies protection information. There
# must be no other target.
p2p_add_pi_target()
{
	rmmod rnic_loop && p2p_load_rnic integrity=1 && P2P_PI=1 p2p_add_target "$1"
}

# Other tests want an ordinary network card.
p2p_remove_pi_target()
{
	p2p_remove_target && rmmod rnic_loop
}

# p2p_remove_target [PORT]
# shellcheck disable=SC2120 # it is optional
p2p_remove_target()
{
	p2p_remove_port "${1:-1}" && echo 0 > "$P2P_NS"/enable &&
		rmdir "$P2P_NS" "$P2P_SUBSYS"
}

# --- NVMe host ---

# The disk that the host sees has the namespace's UUID, whatever its number is.
p2p_find_remote()
{
	local dir uuid

	uuid=$(< "$P2P_NS"/device_uuid)
	for dir in /sys/block/nvme*; do
		# The paths of a multipath disk have no device of their own.
		if [[ $(cat "$dir"/uuid 2> /dev/null) == "$uuid" &&
		      -b /dev/${dir##*/} ]]; then
			# shellcheck disable=SC2034 # for the tests
			remote=/dev/${dir##*/}
			return 0
		fi
	done
	return 1
}

# Sets $remote to the disk. Arguments are for nvme connect.
# shellcheck disable=SC2120 # they are optional
p2p_connect()
{
	local log=/tmp/connect.$BASHPID.log
	# A slow target may need more than the usual 5 seconds to answer a keep-alive.
	local network=(-a "$P2P_ADDR" -s "$P2P_PORT" -c 1 -l 30 -k $((P2P_LIMIT / 10)))

	[[ $P2P_TRANSPORT != loop ]] || network=()
	if ! timeout "$P2P_LIMIT" nvme connect -t "$P2P_TRANSPORT" \
	     "${network[@]}" -n $P2P_NQN \
	     "${P2P_HOST[@]}" \
	     -i 2 -Q 64 "$@" > $log 2>&1; then
		p2p_log "nvme connect" $log
		return 1
	fi
	p2p_wait "$P2P_LIMIT" p2p_find_remote
}

p2p_controller()
{
	local ctrl

	for ctrl in /sys/class/nvme/nvme*; do
		if grep -qsx "$P2P_NQN" "$ctrl"/subsysnqn; then
			echo "$ctrl"
			return
		fi
	done
	return 1
}

p2p_is_disconnected()
{
	! p2p_controller > /dev/null
}

p2p_disconnect()
{
	timeout "$P2P_LIMIT" nvme disconnect -n $P2P_NQN > /dev/null &&
		p2p_wait 10 p2p_is_disconnected
}

# --- tests in the kernel ---

p2p_require_kunit()
{
	local dir=/sys/kernel/debug

	modprobe -q kunit
	[[ -d $dir/kunit ]] || mount -t debugfs none $dir 2> /dev/null
	[[ -d $dir/kunit ]] ||
		p2p_skip_all "no KUnit: set CONFIG_KUNIT and CONFIG_KUNIT_DEBUGFS"
}

# p2p_kunit_ran FILE: does it have the result of a test?
p2p_kunit_ran()
{
	grep -qE '^    (not )?ok ' "$1"
}

# p2p_kunit FILE SUITE MODULE PARAMETER...: load the module, run this suite of KUnit, and
# keep the results
p2p_kunit()
{
	local suite=/sys/kernel/debug/kunit/$2 status

	insmod "$DIR/modules/$3.ko" "${@:4}" || return
	# Loading it has run it, unless kunit.autorun is off.
	p2p_kunit_ran "$suite"/results || grep -q "^not ok " "$suite"/results ||
		echo 1 > "$suite"/run
	cat "$suite"/results > "$1" && p2p_kunit_ran "$1"
	status=$?
	rmmod "$3" && return $status
}

# p2p_kunit_tests FILE: how many tests the suite has
p2p_kunit_tests()
{
	sed -n 's/^    1\.\.//p' "$1" | grep .
}

# p2p_kunit_report FILE [SUFFIX]: pass the results on, each with the suffix. The last
# line is the result of the suite. Messages of failed checks may not be indented.
p2p_kunit_report()
{
	local line suffix=${2:+ $2}

	while IFS= read -r line; do
		# shellcheck disable=SC2295 # ?* are patterns
		case $line in
		'ok '*'# SKIP'*)
			line=${line#ok * }
			ktap_test_skip "${line/ # SKIP/$suffix:}" ;;
		'ok '*) ktap_test_pass "${line#ok * }$suffix" ;;
		'not ok '*) ktap_test_fail "${line#not ok * }$suffix" ;;
		# What KUnit says about the suite
		'' | 'KTAP '* | '1..'* | '# Subtest: '* | '# Totals: '*) ;;
		'# module: '* | '# '*'.speed: '* | '# '*': pass:'*) ;;
		*) echo "# ${line#\# }" ;;
		esac
	done < <(sed '$d; s/^    //' "$1")
}

# --- load ---

# Bypass the page cache. If the disk is gone, do not create a file of that name, because
# then the disk could not come back.
P2P_FIO=(fio --direct=1 --ioengine=libaio --thread --allow_file_create=0)

# p2p_fio DISK ARGUMENT...: its output only on failure. Killed, it shows by its exit what
# it waits for.
p2p_fio()
{
	local disk=$1 log=/tmp/fio.$BASHPID.log

	shift
	timeout --kill-after=10 "$P2P_LIMIT" "${P2P_FIO[@]}" --name=p2pdma \
		--filename="$disk" --output=$log "$@" 2> $log.err ||
		{ p2p_log fio $log; p2p_log fio $log.err; return 1; }
}

# p2p_pattern TAG: what fio fills each block with: the tag, and the block's offset
p2p_pattern()
{
	echo "--verify=pattern --verify_fatal=1 --verify_pattern=\"$1\"%o"
}

# p2p_fill DISK TAG ARGUMENT...: write, without reading it back
p2p_fill()
{
	local disk=$1 tag=$2

	shift 2
	# shellcheck disable=SC2046 # several arguments
	p2p_fio "$disk" --rw=write --do_verify=0 $(p2p_pattern "$tag") "$@"
}

# p2p_check DISK TAG ARGUMENT...: read, and compare every byte
p2p_check()
{
	local disk=$1 tag=$2

	shift 2
	# shellcheck disable=SC2046 # several arguments
	p2p_fio "$disk" --rw=read $(p2p_pattern "$tag") "$@"
}

# p2p_load_has_done NUMBER: has the load done so many I/Os since $p2p_ios_before, or
# ended?
p2p_load_has_done()
{
	p2p_load_has_ended ||
		(($(p2p_ios "$remote") >= p2p_ios_before + $1))
}

p2p_load_has_ended()
{
	! kill -0 "$p2p_load" 2> /dev/null
}

# p2p_begin_load ARGUMENT...: it runs until it is ended, or for too long
p2p_begin_load()
{
	p2p_ios_before=$(p2p_ios "$remote")
	"${P2P_FIO[@]}" --name=load --filename="$remote" \
		--bs=64k --runtime="$P2P_LIMIT" "$@" --output=/tmp/load.log 2> /tmp/load.err &
	p2p_load=$!
	p2p_wait "$P2P_LIMIT" p2p_load_has_done 100 &&
		! p2p_load_has_ended && return
	p2p_end_load
	p2p_log load /tmp/load.log
	return 1
}

# Load that is meant to be interrupted: errors are expected, hangs are not.
p2p_start_load()
{
	p2p_begin_load --rw=randrw --iodepth=32 --size=64M --numjobs=2 \
		--time_based
}

# Use SIGKILL: fio's SIGTERM handler prints and allocates, and can deadlock if fio is
# just reporting an error.
p2p_end_load()
{
	kill -KILL "$p2p_load" 2> /dev/null
	wait "$p2p_load" 2> /dev/null
	return 0
}

# Data written before an interruption, beyond what the load writes, and its tag
P2P_KEPT=(--offset=64m --size=2m --bs=64k --iodepth=8)
p2p_kept=

p2p_keep_data()
{
	p2p_kept=kept$RANDOM
	p2p_fill "$remote" $p2p_kept "${P2P_KEPT[@]}" --end_fsync=1
}

p2p_data_is_kept()
{
	p2p_check "$remote" "$p2p_kept" "${P2P_KEPT[@]}"
}

# Load that must not be disturbed: 64 blocks are written, read and compared, over and
# over, without any error.
p2p_start_verified_load()
{
	p2p_begin_load --rw=randwrite --iodepth=16 --size=4M --loops=1000000 \
		--verify=crc32c --verify_fatal=1 --serialize_overlap=1
}

# fio's exit status if it was told to end and found no error
P2P_FIO_ENDED=128

# Everything written so far is compared within the next two rounds.
p2p_end_verified_load()
{
	local status=0 late=0

	p2p_ios_before=$(p2p_ios "$remote")
	p2p_wait "$P2P_LIMIT" p2p_load_has_done 256 || late=1
	kill "$p2p_load" 2> /dev/null
	p2p_wait "$P2P_LIMIT" p2p_load_has_ended || kill -KILL "$p2p_load"
	wait "$p2p_load" || status=$?
	((status == P2P_FIO_ENDED)) && return $late
	ktap_print_msg "the verified load ended with status $status"
	p2p_log load /tmp/load.log
	p2p_log load /tmp/load.err
	return 1
}

p2p_verify()
{
	p2p_fio "$remote" --rw=randwrite --bs=64k --size=4m --iodepth=8 \
		--verify=crc32c --verify_fatal=1
}

# Is the host served from peer-to-peer memory? A kernel without DMA-address bios
# does not count that.
p2p_is_served()
{
	local before

	before=$(p2p_stat requests)
	p2p_verify || return
	! p2p_has_dma_bios || (($(p2p_stat requests) > before))
}

# --- counting ---

# p2p_counts [HOSTNQN]: "PLACE REQUESTS BYTES" as nvmet counts them, of all controllers or
# those of a host
p2p_counts()
{
	local ctrl files=()

	for ctrl in /sys/kernel/debug/nvmet/*/ctrl*; do
		[[ ! -e $ctrl/p2pmem ]] ||
			[[ $1 && $(< "$ctrl"/hostnqn) != "$1" ]] ||
			files+=("$ctrl"/p2pmem)
	done
	cat /dev/null "${files[@]}" |
		sed -n 's/.* data=\(.*\) requests=\(.*\) bytes=/\1 \2 /p'
}

# p2p_stat WHAT [HOSTNQN]: "requests" and "bytes" in p2pmem; "fallbacks", of commands that
# could have used it; or requests by the reason for not using it
p2p_stat()
{
	p2p_counts "$2" | awk -v what="$1" '
		$1 == "p2pmem" { n["requests"] += $2; n["bytes"] += $3 }
		$1 !~ /^(p2pmem|command|inline)$/ { n["fallbacks"] += $2 }
		{ n[$1] += $2 }
		END { print n[what] + 0 }'
}

# p2p_count NAME COUNT DISK DIRECTION BYTES [DATA]: print the instructions per I/O of
# count_io as a row
p2p_count()
{
	local name=$1 count=$2 samples quartile mean

	"$DIR"/count_io "$3" "$4" "$5" "$count" "${@:6}" || return
	read -r samples quartile mean <<< "$(p2p_ask count)"
	ktap_print_msg "cost: $name $4 $5 $quartile $mean"
	[[ $samples == "$count" ]] && ((quartile > 0))
}

p2p_require_counter()
{
	[[ $(p2p_ask count) == "error no samples" ]] ||
		p2p_skip_all "nobody counts instructions: needs qemu/run.py --count"
}

# p2p_ios DISK: reads and writes that were sent to it, after splitting and merging
p2p_ios()
{
	awk '{ print $1 + $5 }' "/sys/block/${1##*/}/stat"
}

# p2p_pool_is_free ADDRESS: is all of the pool free?
p2p_pool_is_free()
{
	local dir=/sys/bus/pci/devices/$1/p2pmem size

	# No pool is not a free one.
	size=$(< "$dir/size") && ((size && size == $(< "$dir/available")))
}

# p2p_pool_is_back ADDRESS: is all of it free once the host has gone?
p2p_pool_is_back()
{
	p2p_disconnect && p2p_wait 10 p2p_pool_is_free "$1"
}

p2p_holder=

# p2p_hold_pool ADDRESS LEFT: fio maps the pool as its buffer, all but that many bytes
p2p_hold_pool()
{
	local pool=/sys/bus/pci/devices/$1/p2pmem

	timeout --kill-after=10 "$P2P_LIMIT" fio --name=hold --ioengine=null \
		--rw=read --size=1g --bs=$(($(< "$pool"/size) - $2)) --iodepth=1 \
		--iomem=mmapshared:"$pool"/allocate --thinktime=100ms \
		--time_based --runtime="$P2P_LIMIT" --output=/tmp/hold.log \
		2> /tmp/hold.err &
	p2p_holder=$!
	p2p_wait 10 p2p_pool_has "$1" "$2" || { p2p_log hold /tmp/hold.err; return 1; }
}

# p2p_pool_has ADDRESS BYTES: and at most as much again
p2p_pool_has()
{
	(($(< "/sys/bus/pci/devices/$1/p2pmem/available") <= 2 * $2))
}

p2p_release_pool()
{
	kill "$p2p_holder" 2> /dev/null
	wait "$p2p_holder" 2> /dev/null
	p2p_wait 10 p2p_pool_is_free "$1"
}

# p2p_bar_range NAME: first and last physical address of its memory
p2p_bar_range()
{
	sed -n '3s/\(0x[0-9a-f]*\) \(0x[0-9a-f]*\) .*/\1 \2/p' \
		"/sys/bus/pci/devices/$(p2p_device "$1")/resource"
}

# p2p_trace_events EVENT...: from now on
p2p_trace_events()
{
	local event

	for event; do
		echo 1 > "$P2P_TRACE/events/$event/enable" || return
	done
	echo > $P2P_TRACE/trace
	echo 1 > $P2P_TRACE/tracing_on
}

# What was traced stays.
p2p_trace_no_events()
{
	echo 0 > $P2P_TRACE/events/enable
}

# p2p_trace_iommu 0|1
p2p_trace_iommu()
{
	local event=$P2P_TRACE/events/iommu/map/enable

	[[ ! -e $event ]] || echo "$1" > "$event"
}

# Trace the kernel's events for every DMA mapping and, if it has any, for what an IOMMU
# maps.
p2p_trace_start()
{
	local event

	echo 0 > $P2P_TRACE/tracing_on
	echo "${1:-16384}" > $P2P_TRACE/buffer_size_kb
	for event in dma_map_phys dma_map_sg; do
		echo 1 > "$P2P_TRACE/events/dma/$event/enable" || return
	done
	p2p_trace_iommu 1 || return
	echo > $P2P_TRACE/trace
	echo 1 > $P2P_TRACE/tracing_on
}

# p2p_trace_stop BAR DRIVE: print how many mappings were made for the drive, of the
# BAR's memory for any other device, and of other memory for other devices; then how
# many of the BAR's memory, and of other memory, in an IOMMU. Prints nothing if events
# were lost.
p2p_trace_stop()
{
	local range

	echo 0 > $P2P_TRACE/tracing_on
	echo 0 > $P2P_TRACE/events/dma/enable
	p2p_trace_iommu 0
	grep -q '^overrun: [1-9]' $P2P_TRACE/per_cpu/cpu*/stats && return 1
	read -ra range <<< "$(p2p_bar_range "$1")"
	awk -v drive="$(p2p_device "$2")" -v first="$((range[0]))" \
		-v last="$((range[1]))" -f "$DIR"/mappings.awk $P2P_TRACE/trace
	echo > $P2P_TRACE/trace
}
