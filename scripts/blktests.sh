#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the block and nvme groups of blktests, the kernel community's own tests, on the
# unpatched and on the patched kernel.  What passes on the first has to pass on the
# second.
#
#   blktests.sh [all] [TEST]...   "all": also those that take long; or only these
#
# BLKTESTS=<directory>, a git repository or a plain tree, provides them instead of the
# public repository.  RUNS="block nvme-tcp" has fewer configurations than all of RUNS
# below.  The last line is "N passed, N failed, N skipped"; the exit status is 1 if one
# failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=../base/blktests
. "$TOP/base/blktests"

# A drive in three formats, and nvme over each transport.
RUNS=${RUNS:-block nvme-loop nvme-siw nvme-tcp nvme-rxe block-pi block-zoned}

# What must not be in the kernel's log.  Not "Call Trace": injected faults print one.
SPLAT='kernel BUG at|BUG:|WARNING:|Oops|KASAN:|UBSAN:|Kernel panic|general protection'
SPLAT+='|possible (circular|irq lock|recursive)|suspicious RCU|blocked for more than'
SPLAT+='|soft lockup|rcu:.*(detected|starved)|sleeping function|scheduling while atomic'
SPLAT+='|list_(add|del) corruption|refcount_t:|page allocation failure'

# unpack DIR: fetch and build the pinned tests, or a tree without them as it is
unpack() {
	mkdir -p "$1"
	if [ "$from" = "$CACHE/blktests.git" ]; then
		git_plain init -q --bare "$from"
		git_plain -C "$from" fetch -q --depth 1 "$BLKTESTS_URL" "$BLKTESTS_COMMIT"
	fi
	if has_pinned; then
		git_plain -C "$from" archive "$BLKTESTS_COMMIT" | tar -x -C "$1"
	else
		cp -r "$from/." "$1"
	fi
	# The only program in C++ is for another group.
	make -C "$1/src" CXX_TARGETS=
}

has_pinned() { git_plain -C "$from" cat-file -e "$BLKTESTS_COMMIT" 2>/dev/null; }

# Sets $blktests, their directory.
get_blktests() {
	local from=${BLKTESTS:-$CACHE/blktests.git}
	blktests=$CACHE/blktests/$BLKTESTS_COMMIT
	if [ -n "${BLKTESTS:-}" ] && ! has_pinned; then
		say "WARNING: $from does not have $BLKTESTS_COMMIT, taking it as it is"
		blktests=$CACHE/blktests/other
		rm -rf "$blktests"
	fi
	[ ! -d "$blktests" ] || return 0
	rm -rf "$blktests.new"
	step blktests-build unpack "$blktests.new"
	mv "$blktests.new" "$blktests"
}

# has TEST PATTERN: in its source
has() { grep -qE "$2" "$blktests/tests/$1"; }

# wanted RUN TEST: each test where its result can differ; unless all are wanted, the
# quick ones, authentication with one transport, and what moves data with the others
wanted() {
	[ -n "$all" ] || has "$2" '^(QUICK|TIMED)=1' || return
	case $1 in
	block) [[ $2 = block/* ]] ;;
	block-pi) has "$2" '^test_device\(' && ! has "$2" nvme_trtype ;;
	block-zoned) has "$2" '^test_device\(' && has "$2" '^CAN_BE_ZONED=1' ;;
	nvme-loop) [[ $2 = nvme/* ]] ;;
	*) [[ $2 = nvme/* ]] && has "$2" nvme_trtype &&
		{ [ -n "$all" ] || ! has "$2" 'NVME_AUTH|_TLS|type_is_loop'; } &&
		{ [ -n "$all" ] || [ "$1" = nvme-siw ] || has "$2" 'fio|nvme (read|write|flush|dsm)'; } ;;
	esac
}

# tests RUN: print them
tests() {
	local test
	for test in "${only[@]}"; do
		if wanted "$1" "$test"; then echo "$test"; fi
	done
}

drive_format() {
	case $1 in
	block-pi) echo ,ms=8,pi=1 ;;
	block-zoned) echo ,zoned=true,zoned.zone_size=4M ;;
	esac
}

# The configuration of blktests itself
config() {
	cat <<-END
		OUTPUT=/tmp/results
		LOGGER_PROG=/mnt/run/guest.sh
		TEST_DEVS=(/dev/nvme0n1)
		NORMAL_USER=blktests
		NVME_IMG_SIZE=350M
		TIMEOUT=$timeout
		NVMET_BLKDEV_TYPES="$types"
	END
	case $1 in
	nvme-siw) echo NVMET_TRTYPES=rdma ;;
	nvme-rxe) printf 'NVMET_TRTYPES=rdma\nUSE_RXE=1\n' ;;
	nvme-*) echo "NVMET_TRTYPES=${1#nvme-}" ;;
	esac
}

initramfs() {
	rm -rf "$tmp/initramfs"
	mkdir -p "$tmp/initramfs/bin" "$tmp/initramfs/dev"
	cp "$(command -v busybox)" "$tmp/initramfs/bin"
	cp "$SCRIPTS/blktests-guest.sh" "$tmp/initramfs/init"
	cp -r "$1/lib" "$tmp/initramfs"
	busybox --list | sed "s|.*|$tmp/initramfs/bin/&|" | grep -v /busybox$ |
		xargs -n 1 ln -s busybox
	(cd "$tmp/initramfs" && find . | cpio -o -H newc -R 0:0 --quiet) >"$tmp/initrd"
}

# share TAG DIRECTORY [OPTION]
share() {
	args+=(-fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap$3"
		-device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}

# What the tests' guests found out about KVM
accelerator() {
	cat "$CACHE/qemu/accel-$(</proc/sys/kernel/random/boot_id)" 2>/dev/null ||
		echo tcg,thread=multi
}

# boot TREE RUN: a guest that does what is in $dir; ends it if it makes no progress
boot() {
	local kernel args pid idle
	kernel=$(readlink -e "$BUILD/kernel-$1-blktests")
	initramfs "$kernel"
	rm -f "$tmp/drive"
	truncate -s 512M "$tmp/drive"
	# nvme-cli fails until the kernel has random numbers, and this CPU has them.
	# shellcheck disable=SC2054 # QEMU wants commas
	args=(-M q35 -accel "$(accelerator)" -cpu qemu64,+rdrand -m 3072 -smp 2
		-no-reboot -nodefaults
		-no-user-config -nic none -vga none -display none
		-kernel "$kernel/bzImage" -initrd "$tmp/initrd" -append
		"console=ttyS0 ignore_loglevel panic=-1 oops=panic no_timer_check tsc=nowatchdog nvme.poll_queues=1"
		-chardev "file,id=console,path=$dir/console.log,append=on"
		-serial chardev:console
		-device pcie-root-port,id=slot1,chassis=1,slot=1
		-blockdev "driver=file,node-name=drive0,filename=$tmp/drive"
		-device nvme,id=nvme0,serial=drive,mdts=8,bus=slot1
		-device "nvme-ns,drive=drive0,bus=nvme0,nsid=1$(drive_format "$2")")
	share root / ,readonly=on
	share blktests "$blktests" ,readonly=on
	share run "$dir" ''
	qemu-system-x86_64 "${args[@]}" </dev/null >>"$dir/qemu.log" 2>&1 &
	pid=$!
	trap 'kill -9 $pid; exit 130' INT TERM
	: >"$dir/events"
	while kill -0 $pid 2>/dev/null; do
		sleep 1
		idle=$(($(date +%s) - $(stat -c %Y "$dir/events")))
		if [ $idle -gt $((limit + 60)) ] || [ $SECONDS -gt "$end" ]; then
			echo late >>"$dir/events"
			kill -9 $pid
		fi
	done
	wait $pid || true
	trap - INT TERM
}

# run TREE RUN TEST...: After a test that a guest died of, the others go on in a new one.
run() {
	local dir=$LOGS/blktests-$1-$2$again todo=("${@:3}") last end
	end=$((SECONDS + minutes * 60))
	say "  $1 $2$again: ${#todo[@]} tests ..."
	rm -rf "$dir"
	mkdir -p "$dir/results"
	cp "$SCRIPTS/blktests-guest.sh" "$dir/guest.sh"
	config "$2" >"$dir/config"
	echo "$limit" >"$dir/limit"
	while [ "${#todo[@]}" != 0 ] && [ $SECONDS -lt "$end" ]; do
		printf '%s\n' "${todo[@]}" >"$dir/tests"
		boot "$1" "$2"
		! grep -qx finished "$dir/events" || break
		last=$(sed -n 's/^start //p' "$dir/events" | tail -n 1)
		[ -n "$last" ] || {
			say "no test starts:" "$(tail -n 3 "$dir/qemu.log" "$dir/console.log")"
			break
		}
		echo "$last" >>"$dir/$(grep -q ^late "$dir/events" && echo late || echo died)"
		mapfile -t todo < <(sed "0,\\|^$last\$|d" "$dir/tests")
	done
	results "$dir" "$2" "${@:3}" >"$dir/list"
}

# splats DIR: print the tests that have left one in the kernel's log, unless blktests
# knows it
splats() {
	local test
	tr -d '\r' <"$1/console.log" | awk -v splat="$SPLAT" '
		/blktests: start / { test = $NF }
		test && $0 ~ splat { print test }' | sort -u |
		while read -r test; do
			has "$test" '^DMESG_FILTER' || echo "$test"
		done
}

# results DIR RUN TEST...: print "name<TAB>result<TAB>time".  The name is the test, the
# run, and what blktests calls that device or condition; the last is missing if the test
# has no result of its own.
results() {
	local dir=$1 test what file
	for test in "${@:3}"; do
		what=lost
		for file in died late; do
			! grep -sqx "$test" "$dir/$file" || what=$file
		done
		for file in "$dir"/results/*/"$test"; do
			[ -e "$file" ] && [ $what = lost ] || continue
			file=${file#"$dir/results/"}
			awk -F '\t' -v OFS='\t' -v name="$test $2 ${file%%/*}" '
				$1 == "status" { status = $2 }
				$1 == "runtime" { time = $2 }
				END { print name, status, time }' "$dir/results/$file"
		done | grep . || echo "$test $2	$what"
	done | awk -F '[\t ]' 'FILENAME == ARGV[1] { splat[$1] = 1; next }
		$1 in splat { sub(/\t(pass|fail|not run)\t/, "\tsplat\t") }
		{ print }' <(splats "$dir") -
}

# compare RUN: print a line for each result of either kernel.  The series must not do
# worse than the base.
compare() {
	awk -F '\t' '
	BEGIN { rank["pass"] = 0; rank["not run"] = 1; rank["fail"] = 2; rank["lost"] = 3
		rank["late"] = 4; rank["splat"] = 5; rank["died"] = 6 }
	function get(tree, name,	bare) {
		bare = name
		sub(/ [^ ]*$/, "", bare)
		if ((tree, name) in result)
			return result[tree, name]
		return (tree, bare) in result ? result[tree, bare] : "-"
	}
	{
		tree = FILENAME == ARGV[1] ? "base" : "series"
		result[tree, $1] = $2
		bare = $1
		if (sub(/ [^ ]*$/, "", bare))
			finer[tree, bare] = 1
		time[tree, $1] = $3
		if (!($1 in seen)) { seen[$1] = 1; names[++n] = $1 }
	}
	END {
		for (i = 1; i <= n; i++) {
			name = names[i]
			base = get("base", name)
			series = get("series", name)
			# see its other lines
			if (base == "-" || (series == "-" && ("series", name) in finer))
				continue
			if (series == "pass") verdict = "PASS"
			# A guest that did not get that far says nothing.
			else if (base == "lost" || series == "lost" || series == "-")
				verdict = "FAIL"
			else if (rank[series] > rank[base]) verdict = "FAIL"
			else verdict = "SKIP"
			why = verdict != "SKIP" ? "" : \
				series == "not run" && base == series ? "runs on neither" : \
				"fails on the base too"
			printf "%s %s: %s, %s %s %s %s\n", verdict, name, base, series,
				time["base", name], time["series", name],
				why == "" ? "" : "(" why ")"
		}
	}' "$LOGS/blktests-"{base,series}"-$1$again/list"
}

# both RUN TEST...: on either kernel
both() {
	run base "$@"
	run series "$@"
	compare "$1"
}

# What differs and is no crash may be chance: it has to differ three times.
pair() {
	local again='' suspects try
	mapfile -t suspects < <(tests "$1")
	[ "${#suspects[@]}" != 0 ] || return 0
	both "$1" "${suspects[@]}" >"$tmp/rows"
	for try in 2 3; do
		mapfile -t suspects < <(grep '^FAIL' "$tmp/rows" |
			grep -vE ', (died|splat)' | awk '{ print $2 }' | sort -u)
		[ "${#suspects[@]}" != 0 ] || break
		again=-$try
		both "$1" "${suspects[@]}" >"$tmp/again"
		awk -v try=$try '{ name = $2 " " $3 " " $4 }
			FILENAME == ARGV[1] { new[name] = $0; next }
			/^FAIL/ && !/, (died|splat)/ && name in new {
				$0 = new[name] " (at try " try ")"
			}
			{ print }' "$tmp/again" "$tmp/rows" >"$tmp/merged"
		mv "$tmp/merged" "$tmp/rows"
	done
	tee -a "$tmp/all" <"$tmp/rows"
}

count() { grep -c "^$1" "$tmp/all" || true; }

all='' timeout=5 limit=180 minutes=30 types=device
if [ "${1:-}" = all ]; then
	all=1 timeout=30 limit=1200 minutes=600 types="file device"
	shift
fi
make_tmp
get_blktests
if [ $# != 0 ]; then
	all=1 only=("$@")
else
	mapfile -t only < <(cd "$blktests/tests" && printf '%s\n' {block,nvme}/[0-9][0-9][0-9])
fi
"$SCRIPTS/kernel.sh" build base blktests
"$SCRIPTS/kernel.sh" build series blktests
: >"$tmp/all"
for name in $RUNS; do pair "$name"; done
failed=$(count FAIL)
echo "$(count PASS) passed, $failed failed, $(count SKIP) skipped"
[ "$failed" = 0 ] && [ "$(count PASS)" != 0 ]
