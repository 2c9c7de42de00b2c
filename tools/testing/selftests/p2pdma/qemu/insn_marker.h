/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The instructions by which a program in the guest talks to insn_count.c: NOPs
 * with a displacement that no compiler comes up with.
 */
#ifndef INSN_MARKER_H
#define INSN_MARKER_H

#define INSN_MARKER_SIZE	8

#define INSN_MARKER_START	0x70327001	/* count from here */
#define INSN_MARKER_SAMPLE	0x70327002	/* one sample ends, another starts */
#define INSN_MARKER_END		0x70327003	/* that was the last one */

#ifdef __x86_64__
/* nopl marker(%rax,%rax,1) */
#define insn_marker(marker)						\
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00; .long %c0"		\
		     : : "i" (marker) : "memory")
#else
/* Nobody counts. */
#define insn_marker(marker)	((void)(marker))
#endif

#endif /* INSN_MARKER_H */
