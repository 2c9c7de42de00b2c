// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU that counts the instructions which the guest's kernel
 * executes between the markers in a program, see insn_marker.h.
 *
 *   qemu-system-x86_64 -accel tcg -smp 1 -plugin insn_count.so,out=FILE ...
 *
 * FILE gets a line for each run, with a number for each sample.  Each iteration
 * of a string instruction counts.
 */
#include <stdio.h>
#include <string.h>

#include "insn_marker.h"
#include "qemu_plugin.h"

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static FILE *out;
static uint64_t kernel_insns;
static uint64_t last;

static void marker_start(unsigned int cpu, void *unused)
{
	last = kernel_insns;
}

static void marker_sample(unsigned int cpu, void *unused)
{
	fprintf(out, "%llu ", (unsigned long long)(kernel_insns - last));
	last = kernel_insns;
}

static void marker_end(unsigned int cpu, void *unused)
{
	fputc('\n', out);
	fflush(out);
}

static void look_for_marker(struct qemu_plugin_insn *insn)
{
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x84, 0x00 };
	const uint8_t *data = qemu_plugin_insn_data(insn);
	void (*cb)(unsigned int cpu, void *unused) = NULL;
	uint32_t marker;

	if (qemu_plugin_insn_size(insn) != INSN_MARKER_SIZE ||
	    memcmp(data, nop, sizeof(nop)))
		return;

	memcpy(&marker, data + sizeof(nop), sizeof(marker));
	switch (marker) {
	case INSN_MARKER_START:
		cb = marker_start;
		break;
	case INSN_MARKER_SAMPLE:
		cb = marker_sample;
		break;
	case INSN_MARKER_END:
		cb = marker_end;
		break;
	}
	if (cb)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, cb,
						       QEMU_PLUGIN_CB_NO_REGS,
						       NULL);
}

/* Kernel addresses are the upper half. */
static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb), i;

	if (qemu_plugin_tb_vaddr(tb) >> 63) {
		qemu_plugin_register_vcpu_tb_exec_inline(tb,
				QEMU_PLUGIN_INLINE_ADD_U64, &kernel_insns, n);
		return;
	}
	for (i = 0; i < n; i++)
		look_for_marker(qemu_plugin_tb_get_insn(tb, i));
}

/* The counter is one for all processors, and not atomic. */
__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const struct qemu_info_t *info, int argc,
			char **argv)
{
	if (!info->system_emulation || info->system.max_vcpus != 1) {
		fprintf(stderr, "insn_count: needs a machine with one processor\n");
		return -1;
	}
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "insn_count: wants out=FILE\n");
		return -1;
	}
	out = fopen(argv[0] + 4, "w");
	if (!out) {
		perror(argv[0] + 4);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
