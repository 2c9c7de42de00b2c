// SPDX-License-Identifier: GPL-2.0
/*
 * dma_bio_try DISK [CLIENT [SKIP]]: what does the disk do with DMA-address bios that
 * are good for the client, a device of the emulated machine (default: all that the
 * disk is made of)?  SKIP bytes of p2pmem are in use already.
 *
 * Prints how long it took to map the memory, how large the IOMMU's page tables
 * are, where in the memory the buffer is, and a line for a write and one for a
 * read: its status, how often it ended, and what happened to the data. Overwrites
 * the first 64 KiB of the disk; if all went well they are what is in the buffer,
 * too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "dma_bio_lib.h"

#define SIZE	(64 << 10)

static struct dma_bio_env env, in_use;
static unsigned char *old, *new, *seen;

/* What is left of the old data? The rest of what the caller looks at is new. */
static const char *compare(const char *replaced)
{
	if (!memcmp(seen, old, SIZE))
		return "untouched";
	return memcmp(seen, new, SIZE) ? "damaged" : replaced;
}

static bool submit(uint32_t op, struct dma_bio *bio)
{
	static const struct dma_bio_vec all = { 0, SIZE };
	int ret;

	*bio = dma_bio_make(&env, op, 0, &all, 1);
	ret = dma_bio_submit(&env, bio, 1, 0, 20);
	if (ret)
		fprintf(stderr, "# not submitted: %s\n", strerror(-ret));
	return !ret;
}

static bool try_write(void)
{
	struct dma_bio bio;

	if (!dma_bio_disk_write(&env, 0, old, SIZE) ||
	    !dma_bio_put(&env, 0, new, SIZE) || !submit(DMA_BIO_WRITE, &bio) ||
	    !dma_bio_disk_read(&env, 0, seen, SIZE))
		return false;
	printf("write: status %u, ended %u, disk %s\n", bio.status, bio.ended,
	       compare("written"));
	return true;
}

static bool try_read(void)
{
	struct dma_bio bio;

	if (!dma_bio_disk_write(&env, 0, new, SIZE) ||
	    !dma_bio_put(&env, 0, old, SIZE) || !submit(DMA_BIO_READ, &bio) ||
	    !dma_bio_get(&env, 0, seen, SIZE))
		return false;
	printf("read: status %u, ended %u, memory %s\n", bio.status, bio.ended,
	       compare("filled"));
	return true;
}

/* What the page tables of IOMMUs take, or 0 if there are none */
static unsigned long page_tables_kib(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "SecPageTables: %lu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

/* Allocates and maps */
static bool open_timed(const char *disk, const char *client)
{
	struct timespec start, end;
	bool ok;

	clock_gettime(CLOCK_MONOTONIC, &start);
	ok = dma_bio_open(&env, disk, client, SIZE, 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	fprintf(stderr, "# mapped in %ld us\n",
		(end.tv_sec - start.tv_sec) * 1000000 +
		(end.tv_nsec - start.tv_nsec) / 1000);
	fprintf(stderr, "# IOMMU page tables: %lu KiB\n", page_tables_kib());
	fprintf(stderr, "# buffer at %llu\n", (unsigned long long)env.place);
	return ok;
}

int main(int argc, char **argv)
{
	const char *client = argc > 2 ? argv[2] : NULL;
	uint64_t random = 1;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: dma_bio_try DISK [CLIENT [SKIP]]\n");
		return 2;
	}
	old = dma_bio_memory(SIZE);
	new = dma_bio_memory(SIZE);
	seen = dma_bio_memory(SIZE);
	if (!old || !new || !seen)
		return 1;
	dma_bio_random_bytes(&random, old, SIZE);
	dma_bio_random_bytes(&random, new, SIZE);
	if (!dma_bio_load())
		return 1;
	if (argc == 4 && !dma_bio_open(&in_use, argv[1], client,
				       strtoull(argv[3], NULL, 0), 0))
		return 1;
	if (!open_timed(argv[1], client))
		return 1;
	return !try_write() || !try_read();
}
