# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # work, count and topo_args are run.sh's
#
# The host's end of the control channel. The guest sends a line: a number, a command
# and its arguments. The answer is a line too: the number again, and then what the
# function control_<command> prints.

control_backing()
{
	[[ $1 =~ ^[a-z0-9]+$ && -f $work/$1.bar ]] && printf '%s' "$work/$1.bar"
}

# witness BAR STRING: is the string in the BAR's backing?
control_witness()
{
	local file offset

	file=$(control_backing "$1") || { echo "error no BAR '$1'"; return; }
	offset=$(LC_ALL=C grep -obUaF -m1 -e "$2" "$file" | head -n1)
	if [[ $offset ]]; then
		echo "found ${offset%%:*}"
	else
		echo absent
	fi
}

# scrub BAR: overwrite the backing in place, QEMU has it mapped
control_scrub()
{
	local file size

	file=$(control_backing "$1") || { echo "error no BAR '$1'"; return; }
	size=$(stat -c %s "$file")
	if head -c "$size" /dev/zero | LC_ALL=C tr '\0' '\245' |
	   dd of="$file" bs=1M conv=notrunc status=none; then
		echo ok
	else
		echo "error cannot write the backing of '$1'"
	fi
}

# same BAR "OFFSET DRIVE": does the drive begin with 64 KiB that are there in the BAR?
control_same()
{
	local file offset drive

	read -r offset drive <<< "$2"
	file=$(control_backing "$1") || { echo "error no BAR '$1'"; return; }
	[[ $offset =~ ^[0-9]+$ && $drive =~ ^[a-z0-9]+$ ]] &&
		cmp -s -n 65536 -i "$offset:0" "$file" "$work/$drive.img" &&
		echo ok || echo different
}

# count: the kernel's instructions in the last run that was counted: how many
# samples, their lower quartile and their mean
control_count()
{
	if [[ ! $count ]]; then
		echo "error instructions are not counted: see run.sh --count"
		return
	fi
	tail -n 1 "$work/insns" | tr -s ' ' '\n' | sort -n |
		awk 'NF { n[++samples] = $1; sum += $1 }
		     END {
			if (!samples) print "error no samples"
			else printf "%d %d %.0f\n", samples,
				n[int((samples + 3) / 4)], sum / samples
		     }'
}

# owners START:END:OWNER,...: for insn_count.c
control_owners()
{
	tr ',:' '\n ' <<< "$1" > "$work/owners" && echo ok
}

# monitor JSON: tell QEMU, print its answer.  Skip its events, and the answers to what
# run.sh asks on the same channel.
monitor()
{
	local id=${EPOCHREALTIME//[^0-9]/} answer

	echo "${1%\}}, \"id\": $id}" >&4
	while read -r answer <&3; do
		if [[ $answer == *"\"id\": $id"[,\}]* ]]; then
			echo "$answer"
			return
		fi
	done
}

# monitor_ok JSON: "ok" or what is wrong
monitor_ok()
{
	local answer

	answer=$(monitor "$1")
	if [[ $answer == *'"return": {}'* || $answer == *'"return": ""'* ]]; then
		echo ok
	else
		echo "error $answer"
	fi
}

# control_made ID: QEMU's argument that made it
control_made()
{
	local argument

	for argument in "${topo_args[@]}"; do
		if [[ $1 =~ ^[a-z0-9-]+$ && $argument == *",id=$1,"* ]]; then
			echo "$argument"
			return
		fi
	done
	return 1
}

# monitor_line COMMAND: of QEMU's monitor for people, which knows -device's syntax
monitor_line()
{
	monitor_ok '{"execute": "human-monitor-command",
		     "arguments": {"command-line": "'"$1"'"}}'
}

# unplug DEVICE: ask the guest for it, as the button at a slot does
control_unplug()
{
	control_made "$1" > /dev/null || { echo "error no device '$1'"; return; }
	monitor_ok '{"execute": "device_del", "arguments": {"id": "'"$1"'"}}'
}

# plug DEVICE: plug it in as it was at the start. Its memory is a new backend of the
# same file, because QEMU 7.2 aborts if a device is given the backend of another.
control_plug()
{
	local argument memory answer=ok

	argument=$(control_made "$1") || { echo "error no device '$1'"; return; }
	if [[ $argument == *,memdev=* ]]; then
		plugged=$((plugged + 1))
		memory=$(control_made "mem-$1")
		answer=$(monitor_line "object_add ${memory/,id=mem-$1/,id=mem-$1-$plugged}")
		argument=${argument/,memdev=mem-$1/,memdev=mem-$1-$plugged}
	fi
	[[ $answer != ok ]] || answer=$(monitor_line "device_add $argument")
	echo "$answer"
}

# control_rate DRIVE NUMBER: I/Os in a second that it does at most, 0 is no limit
control_rate()
{
	control_made "$1" > /dev/null || { echo "error no device '$1'"; return; }
	monitor_line "block_set_io_throttle $1 0 0 0 $2 0 0"
}

# stall DRIVE: a queue of 16 takes more than 5 seconds. Not slower than that: if the
# guest resets the drive meanwhile, QEMU itself hangs until that queue is done.
control_stall()
{
	control_rate "$1" 3
}

# slow DRIVE: a command takes a tenth of a second
control_slow()
{
	control_rate "$1" 10
}

control_resume()
{
	control_rate "$1" 0
}

# link_error DEVICE: a fatal one on the link to it, which its port reports
control_link_error()
{
	local answer

	[[ $(control_made "$1") =~ ,bus=([a-z0-9_.-]+) ]] ||
		{ echo "error no device '$1'"; return; }
	answer=$(monitor_line "pcie_aer_inject_error ${BASH_REMATCH[1]} DLP")
	if [[ $answer == *"OK id:"* ]]; then echo ok; else echo "$answer"; fi
}

control_serve()
{
	local number command name argument plugged=0

	monitor '{"execute": "qmp_capabilities"}' > /dev/null
	while read -r number command name argument; do
		printf '%s ' "$number"
		if [[ $command =~ ^[a-z_]+$ && $command != @(serve|backing|made|rate) ]] &&
		   declare -F "control_$command" > /dev/null; then
			"control_$command" "$name" "$argument"
		else
			echo "error unknown command '$command'"
		fi
	done
}
