#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run P2PDMA tests in an emulated machine.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 2
PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=topology.sh
. "$here/topology.sh"
# shellcheck source=rootfs.sh
. "$here/rootfs.sh"
# shellcheck source=control.sh
. "$here/control.sh"
# shellcheck source=verdict.sh
. "$here/verdict.sh"

usage()
{
	cat <<-END
	Usage: run.sh --kernel DIR --tests DIR [OPTION]... TEST...
	       run.sh --kernel DIR --tests DIR [OPTION]... --shell

	  --kernel DIR       has bzImage and lib/modules/<release>
	  --tests DIR        installed selftests: p2pdma/*.sh, kselftest/
	  --topology NAME    $(topology_names | paste -sd ' ') (default: switch)
	  --timeout SEC      time limit of the whole run (default: 180)
	  --mem MB           memory of the guest, below 3072 (default: 1024)
	  --smp N            processors (default: 2)
	  --append ARGS      more kernel parameters
	  --var NAME=VALUE   variable for the tests, may be repeated
	  --tool PROGRAM     of this machine, which the tests run, may be repeated
	  --workdir DIR      for backing files and, unless P2PDMA_CACHE names
	                     another directory, for the cache of the root file system
	  --functions FILE   ignore KCSAN reports without one of these functions in
	                     their backtraces (default: every report is a failure)
	  --count            count instructions for the tests that ask for it:
	                     emulation and one processor, whatever there is
	  --profile FILE     also where they were executed, see insn_count.c
	  --log DIR          keep console.log, output.log, result.log, qemu.log,
	                     qemu-command, and coverage.tar if the kernel
	                     directory has gcno
	  --gdb PORT         wait for a debugger at this TCP port of this machine
	  --keep             keep the run's working directory
	  --shell            a shell in the guest instead of tests, without time limit

	The tests' KTAP comes out first, then a line for each test:
	  run: TEST: PASS|FAIL|SKIP (reason) SECONDS
	Exit status: 0 none failed, 1 a test or the run failed, 2 it could not be
	started, 4 all were skipped.
	END
}

die()
{
	echo "run.sh: $*" >&2
	exit 2
}

parse_option()
{
	case $1 in
	--kernel) kernel=$2 ;;
	--tests) tests_dir=$2 ;;
	--topology) topology=$2 ;;
	--timeout) limit=$2 ;;
	--mem) mem=$2 ;;
	--smp) smp=$2 ;;
	--append) append=$2 ;;
	--var) vars+=("$2") ;;
	--tool) tools+=("$2") ;;
	--workdir) base=$2 ;;
	--functions) functions=$2 ;;
	--profile) profile=$2 count=1 ;;
	--log) log=$2 ;;
	--gdb) gdb=$2 ;;
	*) die "unknown option '$1', see --help" ;;
	esac
}

parse()
{
	while (($#)); do
		case $1 in
		--help) usage; exit 0 ;;
		--shell) shell=1; shift ;;
		--keep) keep=1; shift ;;
		--count) count=1; shift ;;
		--*) (($# > 1)) || die "$1 is unknown or needs a value, see --help"
		     parse_option "$1" "$2"; shift 2 ;;
		*) tests+=("$1"); shift ;;
		esac
	done
}

check_numbers()
{
	local number

	for number in "$limit" "$mem" "$smp" "${gdb:-1}"; do
		[[ $number =~ ^[1-9][0-9]{0,5}$ ]] || die "'$number' is not a number"
	done
	((mem < 3072)) || die "--mem must be below 3072: the copy engine has 32-bit addresses"
}

check_vars()
{
	local var

	for var in "${vars[@]}"; do
		[[ $var =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] ||
			die "--var wants NAME=VALUE, not '$var'"
	done
}

check_tests()
{
	local test

	[[ $shell ]] || ((${#tests[@]})) || die "which tests? see --help"
	for test in "${tests[@]}"; do
		[[ $test =~ ^[A-Za-z0-9._-]+$ && -x $tests_dir/p2pdma/$test ]] ||
			die "no executable $tests_dir/p2pdma/$test: is it installed?"
	done
	[[ -z $(printf '%s\n' "${tests[@]}" | sort | uniq -d) ]] ||
		die "a test is named twice"
}

check()
{
	check_numbers
	check_vars
	check_tests
	[[ -f $kernel/bzImage ]] || die "no bzImage in --kernel '$kernel'"
	[[ ! $functions || -s $functions ]] || die "no functions in '$functions'"
	topology_names | grep -qx "$topology" || die "no topology '$topology'"
	type -P qemu-system-x86_64 cpio > /dev/null ||
		die "please install qemu-system-x86 and cpio"
}

prepare()
{
	local name

	mkdir -p "$base"
	[[ -O $base ]] || die "the directory $base is not yours, see --workdir"
	base=$(cd "$base" && pwd)
	cache=${P2PDMA_CACHE:-$base/cache}
	mkdir -p "$cache" || die "cannot make $cache"
	work=$(mktemp -d "$base/run.XXXXXX") || die "cannot write to $base"
	log=${log:-$work}
	mkdir -p "$log" || die "cannot make $log"
	# What an earlier run left must not be taken for this one's.
	for name in console output result control qemu; do
		: > "$log/$name.log"
	done
	mkfifo "$work"/{ctl,out,qmp}.{in,out} "$work/never"
}

# Every child ends with the run.
cleanup()
{
	local pids

	mapfile -t pids < <(jobs -p)
	if ((${#pids[@]})); then
		kill "${pids[@]}" 2> /dev/null
		wait
	fi
	if [[ $work && $keep ]]; then
		echo "run.sh: kept $work" >&2
	elif [[ $work ]]; then
		rm -rf "$work"
	fi
}

# Firmware can run where a kernel cannot, so this boots the kernel until it panics
# for want of a root file system, which ends QEMU.
probe_kvm()
{
	[[ -w /dev/kvm ]] &&
		timeout --kill-after=1 5 qemu-system-x86_64 -M q35 -accel kvm \
			-m 512 -nodefaults -no-reboot -display none \
			-kernel "$kernel/bzImage" -append "console=ttyS0 panic=-1" \
			-serial "file:$work/probe.log" &> /dev/null < /dev/null &&
		[[ -z $(verdict_blind "$work/probe.log") ]]
}

# /dev/kvm can be there and not work. The answer is good until the next boot.
find_accelerator()
{
	accel_file=$cache/accel-$(< /proc/sys/kernel/random/boot_id)
	if [[ -s $accel_file ]]; then
		accel=$(< "$accel_file")
	elif probe_kvm; then
		accel=kvm
	else
		accel=tcg,thread=multi
	fi
}

# The plugin cannot count what KVM executes.
choose_accelerator()
{
	if [[ $count ]]; then
		accel=tcg smp=1
	else
		find_accelerator
	fi
	echo "# accelerator: $accel, topology: $topology"
}

# If the kernel never started, nothing is known about the accelerator.
keep_accelerator()
{
	if [[ ! $count && ! -s $accel_file ]] && grep -qx up "$log/result.log"; then
		echo "$accel" > "$work/accel"
		mv "$work/accel" "$accel_file"
	fi
}

write_config()
{
	printf 'run_tests=%q\nrun_shell=%q\nrun_bars=%q\nrun_devs=%q\n' \
		"${tests[*]}" "$shell" "${topo_bars[*]}" "${topo_devs[*]}"
	printf 'export P2PDMA_TOPOLOGY=%q\n' "$topology"
	((${#vars[@]} == 0)) || printf 'export %q\n' "${vars[@]}"
}

make_initrd()
{
	local static

	static=$(rootfs_static "$cache" "${tools[@]}") ||
		die "cannot make the root file system"
	write_config > "$work/run.conf"
	rootfs_run "$kernel" "$tests_dir" "$work/run.conf" > "$work/run.cpio" ||
		die "cannot pack the modules and tests"
	cat "$static" "$work/run.cpio" > "$work/initrd" ||
		die "cannot write $work/initrd"
}

skip()
{
	local test

	for test in "${tests[@]}"; do
		echo "run: $test: SKIP ($*)"
	done
	exit 4
}

# QEMU can be built without plugins, or want those of another version. It writes
# what control_count() reads.
prepare_count()
{
	count_args=(-plugin "$work/insn_count.so,out=$work/insns")
	[[ ! $profile ]] || count_args[-1]+=",profile=$profile,owners=$work/owners"
	"${CC:-gcc}" -O2 -shared -fPIC -o "$work/insn_count.so" \
		"$here/insn_count.c" || die "cannot build insn_count.c"
	qemu-system-x86_64 -M none -accel tcg -nodefaults -display none \
		-monitor stdio "${count_args[@]}" <<< quit &> "$log/qemu.log" ||
		skip "no instructions counted: $(tail -n 1 "$log/qemu.log")"
	topo_devices+=("drive2 late_drive")
}

make_args()
{
	local port ports=(result out ctl) console=file,path="$log/console.log"

	"topology_$topology"
	[[ -z $shell ]] || console="stdio,signal=off,logfile=$log/console.log"
	args=(
		-M q35 -accel "$accel" -m "$mem" -smp "$smp" -no-reboot
		-nodefaults -no-user-config -nic none -vga none -display none
		-kernel "$kernel/bzImage" -initrd "$work/initrd"
		-append "${cmdline[*]} ${topo_cmdline[*]} $append"
		-chardev "$console,id=console" -serial chardev:console
		-chardev "file,id=result,path=$log/result.log"
		-chardev "pipe,id=out,path=$work/out"
		-chardev "pipe,id=ctl,path=$work/ctl"
		-chardev "pipe,id=qmp,path=$work/qmp"
		-mon "chardev=qmp,mode=control"
		-device "virtio-serial-pci,addr=3"
	)
	if [[ -d $kernel/gcno ]]; then
		args+=(-chardev "file,id=coverage,path=$log/coverage.tar")
		ports+=(coverage)
	fi
	for port in "${ports[@]}"; do
		args+=(-device "virtserialport,chardev=$port,name=p2pdma.$port")
	done
	[[ ! $gdb ]] || args+=(-gdb "tcp:127.0.0.1:$gdb" -S)
	args+=("${topo_args[@]}" "${count_args[@]}")
	printf '%q ' qemu-system-x86_64 "${args[@]}" > "$log/qemu-command"
}

start_qemu()
{
	if [[ $shell ]]; then
		qemu-system-x86_64 "${args[@]}"
	else
		timeout --kill-after=5 $((limit + 30)) \
			qemu-system-x86_64 "${args[@]}" \
			< /dev/null > "$log/qemu.log" 2>&1 &
		wait $!
	fi
}

# A guest once stood still while a drive was removed, until something came to QEMU's
# monitor, as if QEMU (7.2) had slept while timers were due. So it is asked something
# every few seconds.
#
# A guest that does not end in time gets an NMI, so that its kernel panics and shows
# what every task is waiting for. If that does not help, QEMU is at fault and is killed.
watch_guest()
{
	local end=$((SECONDS + limit))

	while ((SECONDS < end)); do
		# A sleep would outlive this process.
		read -r -t 5 <> "$work/never"
		echo '{"execute": "query-status"}' >&9
	done
	: > "$work/late"
	echo '{"execute": "inject-nmi"}' >&9
}

# This process holds the pipes open until QEMU has ended, then their readers end
# too, whether QEMU ever opened them or not.
boot()
{
	exec 5<> "$work/out.out" 6<> "$work/ctl.out" 7<> "$work/ctl.in" \
		8<> "$work/qmp.out" 9<> "$work/qmp.in"
	tee "$log/output.log" < "$work/out.out" 5>&- 6>&- 7>&- 8>&- 9>&- &
	control_serve < "$work/ctl.out" > "$work/ctl.in" 2> "$log/control.log" \
		3< "$work/qmp.out" 4> "$work/qmp.in" 5>&- 6>&- 7>&- 8>&- 9>&- &
	[[ $shell ]] || watch_guest 5>&- 6>&- 7>&- 8>&- &
	watcher=$!
	start_qemu 5>&- 6>&- 7>&- 8>&- 9>&-
	qemu_status=$?
	[[ ! -e $work/late ]] || qemu_status=124
	kill $watcher 2> /dev/null
	exec 5>&- 6>&- 7>&- 8>&- 9>&-
	wait
}

# no_timer_check: on a busy machine the emulated timer can be too late for the kernel's
# check, which then panics.
# multipath=N: the tests use the disk of a single controller, not one that combines
# paths.
cmdline=(console=ttyS0 ignore_loglevel printk.devkmsg=on panic=-1 oops=panic
	 hung_task_panic=1 softlockup_panic=1 no_timer_check
	 unknown_nmi_panic panic_sys_info=tasks
	 nvme_core.multipath=N)
kernel='' tests_dir='' topology=switch limit=180 mem=1024 smp=2 append=''
base=${TMPDIR:-/tmp}/p2pdma-qemu.$UID log='' keep='' shell='' count='' work=''
functions='' profile='' gdb='' vars=() tools=() tests=() count_args=() qemu_status=0

parse "$@"
check
trap cleanup EXIT
trap 'exit 1' INT TERM HUP
prepare
[[ ! $count ]] || prepare_count
choose_accelerator
make_args
make_initrd
boot
keep_accelerator
[[ $shell ]] || verdict "${tests[@]}"
