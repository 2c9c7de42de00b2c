# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # work and count are run.sh's
#
# The host's end of the control channel. The guest sends a line, its first word
# is the command; the function control_<command> answers with one line.

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

control_serve()
{
	local command name argument

	while read -r command name argument; do
		if [[ $command =~ ^[a-z_]+$ && $command != @(serve|backing) ]] &&
		   declare -F "control_$command" > /dev/null; then
			"control_$command" "$name" "$argument"
		else
			echo "error unknown command '$command'"
		fi
	done
}
