// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU that counts the instructions which the guest's kernel
 * executes between the markers in a program, see insn_marker.h.
 *
 *   qemu-system-x86_64 -accel tcg -smp 1 \
 *	-plugin insn_count.so,out=FILE[,profile=FILE,owners=FILE] ...
 *
 * The first file gets a line for each run, with a number for each sample.  Each
 * iteration of a string instruction counts.
 *
 * The profile says where they were executed, in the whole of each run: a line
 * for each block of instructions, with its address, its length, and how often
 * it was executed on behalf of each owner.  The file of owners says what code
 * belongs to one: lines "START END OWNER", addresses in hexadecimal, read at the
 * beginning of a run.  What belongs to nobody, because all use it, is executed
 * for the owner of the code that was last.  A run ends with an empty line.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "insn_marker.h"
#include "qemu_plugin.h"

#define MAX_OWNERS	8	/* 0 is nobody */
#define MAX_RANGES	256

struct block {
	uint64_t vaddr;
	size_t n;
	unsigned int owner;
	uint64_t execs[MAX_OWNERS];
	struct block *next;
};

struct range {
	uint64_t start, end;
	unsigned int owner;
};

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static FILE *out, *profile;
static const char *owners_path;
static uint64_t kernel_insns;
static uint64_t last;

static struct block *blocks;
static struct range ranges[MAX_RANGES];
static size_t nr_ranges;
static unsigned int owner;	/* of what is executed now */

static unsigned int owner_of(uint64_t vaddr)
{
	size_t i;

	for (i = 0; i < nr_ranges; i++)
		if (vaddr >= ranges[i].start && vaddr < ranges[i].end)
			return ranges[i].owner;
	return 0;
}

/* There is nobody to return an error to. */
static void give_up(const char *why)
{
	fprintf(stderr, "insn_count: %s: %s\n", owners_path, why);
	exit(1);
}

static void read_owners(void)
{
	FILE *file = fopen(owners_path, "r");
	struct range *r;

	for (nr_ranges = 0; file && nr_ranges < MAX_RANGES; nr_ranges++) {
		r = &ranges[nr_ranges];
		if (fscanf(file, "%" SCNx64 " %" SCNx64 " %u", &r->start,
			   &r->end, &r->owner) != 3)
			break;
		if (r->owner >= MAX_OWNERS)
			give_up("an owner's number is too high");
	}
	if (!nr_ranges || !feof(file))
		give_up("no owners, too many, or not as they should be");
	fclose(file);
}

static void start_profile(void)
{
	struct block *b;

	read_owners();
	owner = 0;
	for (b = blocks; b; b = b->next) {
		b->owner = owner_of(b->vaddr);
		memset(b->execs, 0, sizeof(b->execs));
	}
}

static void write_block(const struct block *b)
{
	unsigned int i;

	for (i = 0; i < MAX_OWNERS && !b->execs[i]; i++)
		;
	if (i == MAX_OWNERS)
		return;
	fprintf(profile, "%" PRIx64 " %zu", b->vaddr, b->n);
	for (i = 0; i < MAX_OWNERS; i++)
		fprintf(profile, " %" PRIu64, b->execs[i]);
	fputc('\n', profile);
}

static void marker_start(unsigned int cpu, void *unused)
{
	if (profile)
		start_profile();
	last = kernel_insns;
}

static void marker_sample(unsigned int cpu, void *unused)
{
	fprintf(out, "%" PRIu64 " ", kernel_insns - last);
	last = kernel_insns;
}

static void marker_end(unsigned int cpu, void *unused)
{
	const struct block *b;

	fputc('\n', out);
	fflush(out);
	if (!profile)
		return;
	for (b = blocks; b; b = b->next)
		write_block(b);
	fputc('\n', profile);
	fflush(profile);
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

static void executed(unsigned int cpu, void *data)
{
	struct block *b = data;

	if (b->owner)
		owner = b->owner;
	b->execs[owner]++;
}

/* A block that is translated again gets another line. */
static void add_block(struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	if (!b)
		abort();
	b->vaddr = qemu_plugin_tb_vaddr(tb);
	b->n = qemu_plugin_tb_n_insns(tb);
	b->owner = owner_of(b->vaddr);
	b->next = blocks;
	blocks = b;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed,
					     QEMU_PLUGIN_CB_NO_REGS, b);
}

/* Kernel addresses are the upper half. */
static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb), i;

	if (qemu_plugin_tb_vaddr(tb) >> 63) {
		qemu_plugin_register_vcpu_tb_exec_inline(tb,
				QEMU_PLUGIN_INLINE_ADD_U64, &kernel_insns, n);
		if (profile)
			add_block(tb);
		return;
	}
	for (i = 0; i < n; i++)
		look_for_marker(qemu_plugin_tb_get_insn(tb, i));
}

static FILE *create(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file)
		perror(path);
	return file;
}

static int parse(int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out = create(argv[i] + 4);
		else if (!strncmp(argv[i], "profile=", 8))
			profile = create(argv[i] + 8);
		else if (!strncmp(argv[i], "owners=", 7))
			owners_path = strdup(argv[i] + 7);
	}
	if (out && !profile == !owners_path)
		return 0;
	fprintf(stderr, "insn_count: wants out=FILE[,profile=FILE,owners=FILE]\n");
	return -1;
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
	if (parse(argc, argv))
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
