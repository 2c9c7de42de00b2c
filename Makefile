# SPDX-License-Identifier: GPL-2.0
# Entry points; each is explained by "make help".

.DEFAULT_GOAL := help
.NOTPARALLEL:

help:
	@echo 'make demo            show peer-to-peer I/O in an emulated machine'
	@echo 'make demo BASELINE=1 the same on the unpatched kernel'
	@echo 'make check           all tests but the slow ones; results in build/results'
	@echo 'make test T=nvmet.sh [TOPO=bridge] [KERNEL=test] [SEED=n] [APPEND=...] [VARS=...]'
	@echo '                     one test, or several, and what they print'
	@echo 'make gdb T=nvmet.sh [TOPO=bridge]'
	@echo '                     the same, in a guest that waits for a debugger'
	@echo 'make bisect T=nvmet.sh GOOD=<commit> [BAD=<commit>]'
	@echo '                     which commit of build/linux breaks the test'
	@echo 'make check-all       also the debug kernel in other topologies, failing allocations,'
	@echo '                     data races, coverage, mutants, a build after each patch'
	@echo 'make check-more      only what check-all adds to check'
	@echo '                     (PARTS="failures races": only these parts of it)'
	@echo 'make soak            devices that come and go, for SOAK_MINUTES (60)'
	@echo 'make coverage        which lines of the series the tests execute'
	@echo 'make mutants         break the series in many places: do the tests notice?'
	@echo 'make blktests        the block and nvme groups of blktests, base and series'
	@echo '                     (ALL=1: also those that take long)'
	@echo 'make bench           measure base and series: build/bench/report.html'
	@echo '                     (QUICK=1: in minutes)'
	@echo 'make setup           install the Debian packages that are missing'
	@echo 'make tree            patches/ and the new files -> build/linux'
	@echo 'make export          commits in build/linux -> patches/ and new files'
	@echo 'make series          the complete mails in build/series'
	@echo '                     (SERIES=<posting>: those of one posting, for one list;'
	@echo '                     SIGNOFF="Name <address>" signs them off)'
	@echo 'make kernel          build the patched kernel: build/kernel-series-test'
	@echo 'make deb [KCONFIG=<file>] [LOCALMOD=1]'
	@echo '                     build packages of the patched kernel and the selftests for'
	@echo '                     a real machine, with its configuration: build/deb'
	@echo 'make shell           a shell in the emulated machine'
	@echo 'make lint            static checks of what the series touches'
	@echo 'make clean           remove build/ (FORCE=1: unexported work as well)'
	@echo 'make distclean       also the cache: base, kernels, ccache'
	@echo
	@echo 'LINUX=<tree> or TARBALL=<file> takes the base kernel from there,'
	@echo 'CACHE=<directory> keeps the cache there.'

setup:
	@scripts/setup.sh

tree: setup
	@scripts/tree.sh tree

export:
	@scripts/tree.sh export

series: tree
	@scripts/tree.sh series $(SERIES)

kernel: tree
	@scripts/kernel.sh build series test

demo: tree
	@scripts/demo.sh

shell: tree
	@scripts/demo.sh --shell

lint: series
	@scripts/lint.sh

check: setup
	@scripts/check.py

test: tree
	@scripts/check.py test

gdb: tree
	@scripts/setup.sh gdb
	@scripts/check.py gdb

bisect: tree
	@scripts/bisect.sh

deb: tree
	@scripts/setup.sh deb
	@scripts/kernel.sh package series deb

check-all:
	@scripts/setup.sh more deb
	@scripts/check.py all

check-more:
	@scripts/setup.sh more deb
	@scripts/check.py more

soak: setup
	@scripts/check.py soak

coverage: setup
	@scripts/check.py coverage

mutants: tree
	@scripts/mutants.sh

bench: tree
	@scripts/setup.sh bench
	@scripts/bench.sh

blktests: tree
	@scripts/setup.sh blktests
	@scripts/blktests.sh $(if $(ALL),all)

clean:
	@scripts/tree.sh clean

distclean:
	@scripts/tree.sh distclean

.PHONY: help setup tree export series kernel demo shell lint check test gdb bisect deb \
	check-all check-more soak coverage mutants bench blktests clean distclean
