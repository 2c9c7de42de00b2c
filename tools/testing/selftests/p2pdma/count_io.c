// SPDX-License-Identifier: GPL-2.0
/*
 * Direct I/O to a block device, one at a time, with a marker after each for
 * whoever counts the instructions: see qemu/insn_count.c.
 *
 *   count_io DEVICE read|write BYTES COUNT [address|pages|DEPTH]
 *
 * With "address" or "pages", a module submits the bio (see
 * modules/dma_bio_ctl.h): p2pmem by DMA address, or pages of system memory.
 * With a depth, so many are in flight at a time, and only the mean means
 * something.
 *
 * Writes overwrite the beginning of the device.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dma_bio_lib.h"
#include "qemu/insn_marker.h"

#define WARM_UP		100	/* until all caches on the way are filled */
#define POSITIONS	64
#define MAX_DEPTH	256

struct load {
	int fd;
	bool write;
	size_t bytes;
	char *buffer;
	struct dma_bio_env env;
	struct dma_bio bio;	/* if a module submits it */
	struct dma_bio_vec vec;
};

static uint64_t page_frame(int pagemap, const char *address, size_t page)
{
	uint64_t entry;

	if (pread(pagemap, &entry, sizeof(entry),
		  (uintptr_t)address / page * sizeof(entry)) != sizeof(entry))
		err(1, "pagemap");
	entry &= (1ULL << 55) - 1;
	if (!entry)
		errx(1, "pagemap shows no addresses: needs root");
	return entry;
}

static bool is_scattered(const char *buffer, size_t bytes, size_t page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	uint64_t frame, last = 0;
	bool scattered = true;
	size_t i;

	if (pagemap < 0)
		err(1, "pagemap");
	for (i = 0; i < bytes; i += page) {
		frame = page_frame(pagemap, buffer + i, page);
		if (frame == last + 1)
			scattered = false;
		last = frame;
	}
	close(pagemap);
	return scattered;
}

/* Consecutive faults tend to get neighbours, so let others have the next. */
static char *new_buffer(size_t bytes, size_t page)
{
	char *buffer, *others;
	size_t i;

	buffer = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		err(1, "buffer of %zu bytes", bytes);
	madvise(buffer, 2 * bytes, MADV_NOHUGEPAGE);
	others = buffer + bytes;
	for (i = 0; i < bytes; i += page) {
		buffer[i] = 1;
		others[i] = 1;
	}
	return buffer;
}

/*
 * A buffer in which no page is followed by its neighbour in memory: the kernel
 * has to deal with every one of them, and always with the same number.
 */
static char *scattered_buffer(size_t bytes)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *buffer;
	int tries;

	for (tries = 0; tries < 100; tries++) {
		buffer = new_buffer(bytes, page);
		if (is_scattered(buffer, bytes, page))
			return buffer;
	}
	errx(1, "no scattered memory");
}

static void do_bio(struct load *load, off_t position)
{
	int status;

	load->bio.sector = position / SECTOR_SIZE;
	status = dma_bio_run(&load->env, &load->bio);
	if (status != BLK_STS_OK)
		errx(1, "bio at %jd: status %d", (intmax_t)position, status);
}

static void do_io(struct load *load, unsigned int i)
{
	off_t position = i % POSITIONS * load->bytes;
	ssize_t done;

	if (load->vec.len) {
		do_bio(load, position);
		return;
	}
	if (load->write)
		done = pwrite(load->fd, load->buffer, load->bytes, position);
	else
		done = pread(load->fd, load->buffer, load->bytes, position);
	if (done < 0)
		err(1, "I/O at %jd", (intmax_t)position);
	if ((size_t)done != load->bytes)
		errx(1, "I/O at %jd: %zd bytes", (intmax_t)position, done);
}

static void run(struct load *load, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < WARM_UP; i++)
		do_io(load, i);
	insn_marker(INSN_MARKER_START);
	for (i = 0; i < count; i++) {
		do_io(load, i);
		insn_marker(INSN_MARKER_SAMPLE);
	}
	insn_marker(INSN_MARKER_END);
}

static void submit(struct load *load, aio_context_t context, struct iocb *cb,
		   unsigned int i)
{
	*cb = (struct iocb) {
		.aio_fildes = load->fd,
		.aio_lio_opcode = load->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_buf = (uintptr_t)load->buffer,
		.aio_nbytes = load->bytes,
		.aio_offset = i % POSITIONS * load->bytes,
	};
	if (syscall(SYS_io_submit, context, 1, &cb) != 1)
		err(1, "io_submit");
}

static struct iocb *complete(struct load *load, aio_context_t context)
{
	struct io_event event;

	if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
		err(1, "io_getevents");
	if ((size_t)event.res != load->bytes)
		errx(1, "I/O: result %jd", (intmax_t)event.res);
	return (struct iocb *)(uintptr_t)event.obj;
}

static void run_deep(struct load *load, unsigned int count, unsigned int depth)
{
	struct iocb cbs[MAX_DEPTH], *cb;
	aio_context_t context = 0;
	unsigned int i;

	if (syscall(SYS_io_setup, depth, &context))
		err(1, "io_setup");
	for (i = 0; i < depth; i++)
		submit(load, context, &cbs[i], i);
	for (i = 0; i < WARM_UP + count; i++) {
		if (i == WARM_UP)
			insn_marker(INSN_MARKER_START);
		cb = complete(load, context);
		submit(load, context, cb, i);
		if (i >= WARM_UP)
			insn_marker(INSN_MARKER_SAMPLE);
	}
	insn_marker(INSN_MARKER_END);
	syscall(SYS_io_destroy, context);
}

static void prepare_bio(struct load *load, const char *device, bool pages)
{
	if (!dma_bio_load() ||
	    !dma_bio_open(&load->env, device, NULL, load->bytes, load->bytes))
		exit(1);
	load->vec.len = load->bytes;
	load->bio = dma_bio_make(&load->env,
				 load->write ? DMA_BIO_WRITE : DMA_BIO_READ, 0,
				 &load->vec, 1);
	if (pages)
		load->bio.map = DMA_BIO_PAGES;
}

int main(int argc, char **argv)
{
	struct load load = { };
	unsigned int count, depth;
	bool pages, address;

	if (argc < 5 || argc > 6)
		errx(1, "usage: count_io DEVICE read|write BYTES COUNT [address|pages|DEPTH]");
	pages = argc == 6 && !strcmp(argv[5], "pages");
	address = argc == 6 && !strcmp(argv[5], "address");
	load.write = !strcmp(argv[2], "write");
	load.bytes = strtoul(argv[3], NULL, 0);
	count = strtoul(argv[4], NULL, 0);
	if (pages || address) {
		prepare_bio(&load, argv[1], pages);
		run(&load, count);
		return 0;
	}
	depth = argc == 6 ? strtoul(argv[5], NULL, 0) : 1;
	if (!depth || depth > MAX_DEPTH)
		errx(1, "%s: not \"address\", \"pages\" or a depth of 1 to %u",
		     argv[5], MAX_DEPTH);
	load.fd = open(argv[1], O_RDWR | O_DIRECT);
	if (load.fd < 0)
		err(1, "%s", argv[1]);
	load.buffer = scattered_buffer(load.bytes);
	if (depth > 1)
		run_deep(&load, count, depth);
	else
		run(&load, count);
	return 0;
}
