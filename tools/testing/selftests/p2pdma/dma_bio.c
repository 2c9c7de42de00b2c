// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-address bios, submitted to an NVMe drive by /dev/dma_bio. Each direction
 * is tested separately: the destination has other data before, and every byte
 * is compared, including those around it. The content of the drive is
 * destroyed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "../kselftest_harness.h"

#define FIRST		2048		/* sector */
#define AREA		(2 << 20)	/* more than one command can transfer */
#define BUFFER		(4 << 20)
#define PAGES		(256 << 10)
#define THRESHOLD	"/sys/module/nvme/parameters/sgl_threshold"
#define SECONDS		120		/* for one test, on a slow machine */

static uint64_t seed = 1;

struct shape {
	uint32_t nr;
	uint32_t offset;
	uint32_t len;
	uint32_t stride;
};

static const struct shape aligned[] = {
	{ 1, 0, 512 },
	{ 1, 512, 512 },
	{ 1, 0, 4096 },
	{ 1, 3584, 1024 },
	{ 1, 2048, 12288 },
	{ 1, 0, 128 << 10 },
	{ 1, 0, AREA },
	{ 32, 0, 4096, 8192 },
	{ 32, 0, 512, 4096 },
	{ DMA_BIO_MAX_VECS, 0, 4096, 8192 },
	{ DMA_BIO_MAX_VECS, 512, 512, 4096 },
};

static const struct shape unaligned[] = {
	{ 1, 4, 512 },
	{ 1, 4092, 512 },
	{ 1, 1028, 128 << 10 },
	{ 1, 12, AREA },
	{ 64, 8, 128, 1000 },
	{ DMA_BIO_MAX_VECS, 4, 512, 8188 },
	{ DMA_BIO_MAX_VECS, 100, 1536, 1540 },
};

enum counter {
	COMMANDS,
	MERGES,
};

/* Reads or writes that were completed, or merged with others, so far. */
static unsigned int count(const struct dma_bio_env *env, uint32_t op,
			  enum counter counter)
{
	unsigned int reads[2] = {}, writes[2] = {};
	char path[128];
	FILE *stat;

	snprintf(path, sizeof(path), "/sys/block/%s/stat",
		 strrchr(env->path, '/') + 1);
	stat = fopen(path, "r");
	if (!stat)
		return 0;
	if (fscanf(stat, "%u %u %*u %*u %u %u", &reads[COMMANDS],
		   &reads[MERGES], &writes[COMMANDS], &writes[MERGES]) != 4)
		fprintf(stderr, "# can't parse %s\n", path);
	fclose(stat);
	return op == DMA_BIO_READ ? reads[counter] : writes[counter];
}

/**
 * struct bench - what a test of the drive works with
 * @env:    the drive and the p2pmem
 * @random: state of the source of data
 * @data:   what crosses the wire, in the order of the disk's sectors
 * @image:  what memory or the disk must look like afterwards
 * @seen:   what it looks like
 * @vecs:   where in the p2pmem the data is
 * @nr:     how many of @vecs
 * @size:   bytes in all of them
 */
struct bench {
	struct dma_bio_env env;
	uint64_t random;
	unsigned char *data;
	unsigned char *image;
	unsigned char *seen;
	struct dma_bio_vec vecs[DMA_BIO_MAX_BIOS];
	uint32_t nr;
	uint32_t size;
};

/* With the p2pmem mapped for another client, if there is one */
static bool bench_open(struct bench *b, const char *drive, const char *client)
{
	char path[64];

	b->random = seed;
	b->data = dma_bio_memory(BUFFER);
	b->image = dma_bio_memory(BUFFER);
	b->seen = dma_bio_memory(BUFFER);
	return b->data && b->image && b->seen && dma_bio_load() &&
	       dma_bio_find_disk(drive, path, sizeof(path)) &&
	       dma_bio_open(&b->env, path, client, BUFFER, PAGES);
}

static void bench_close(struct bench *b)
{
	dma_bio_close(&b->env);
	free(b->data);
	free(b->image);
	free(b->seen);
}

static void lay_out(struct bench *b, const struct shape *shape)
{
	uint32_t i;

	b->nr = shape->nr;
	b->size = shape->nr * shape->len;
	for (i = 0; i < b->nr; i++) {
		b->vecs[i].offset = 4096 + shape->offset + i * shape->stride;
		b->vecs[i].len = shape->len;
	}
}

/* From the order of the sectors to where the pieces are, in an image of it. */
static void scatter(struct bench *b)
{
	const unsigned char *data = b->data;
	uint32_t i;

	memset(b->image, POISON, BUFFER);
	for (i = 0; i < b->nr; i++) {
		memcpy(b->image + b->vecs[i].offset, data, b->vecs[i].len);
		data += b->vecs[i].len;
	}
}

static bool prepare_write(struct bench *b)
{
	dma_bio_random_bytes(&b->random, b->data, b->size);
	scatter(b);
	memset(b->seen, POISON, b->size + 2 * SECTOR_SIZE);
	return dma_bio_put(&b->env, 0, b->image, BUFFER) &&
	       dma_bio_disk_write(&b->env, FIRST - 1, b->seen,
				  b->size + 2 * SECTOR_SIZE);
}

/* The disk has the data, and poison around it. */
static bool disk_has(struct bench *b)
{
	memset(b->image, POISON, b->size + 2 * SECTOR_SIZE);
	memcpy(b->image + SECTOR_SIZE, b->data, b->size);
	return dma_bio_disk_read(&b->env, FIRST - 1, b->seen,
				 b->size + 2 * SECTOR_SIZE) &&
	       !memcmp(b->image, b->seen, b->size + 2 * SECTOR_SIZE);
}

static bool prepare_read(struct bench *b)
{
	dma_bio_random_bytes(&b->random, b->data, b->size);
	return dma_bio_disk_write(&b->env, FIRST, b->data, b->size) &&
	       dma_bio_poison(&b->env);
}

static bool memory_has(struct bench *b)
{
	scatter(b);
	return dma_bio_get(&b->env, 0, b->seen, BUFFER) &&
	       !memcmp(b->image, b->seen, BUFFER);
}

static int run(struct bench *b, uint32_t op, uint32_t flags)
{
	struct dma_bio bio = dma_bio_make(&b->env, op, FIRST, b->vecs, b->nr);

	bio.flags = flags;
	return dma_bio_run(&b->env, &bio);
}

static bool written(struct bench *b, uint32_t flags)
{
	return prepare_write(b) && !run(b, DMA_BIO_WRITE, flags) && disk_has(b);
}

static bool read_back(struct bench *b, uint32_t flags)
{
	return prepare_read(b) && !run(b, DMA_BIO_READ, flags) && memory_has(b);
}

/* Another value, and which one it was */
static bool set_threshold(const char *value, char *old, size_t size)
{
	return dma_bio_read_file(THRESHOLD, old, size) &&
	       dma_bio_write_file(THRESHOLD, value);
}

FIXTURE(drive)
{
	struct bench b;
	char threshold[16];
};

FIXTURE_VARIANT(drive)
{
	const char *threshold;
};

/* PRPs wherever they can describe the data, SGLs always, or for large data only */
FIXTURE_VARIANT_ADD(drive, prp)
{
	.threshold = "0",
};

FIXTURE_VARIANT_ADD(drive, sgl)
{
	.threshold = "1",
};

FIXTURE_VARIANT_ADD(drive, mixed)
{
	.threshold = "32768",
};

FIXTURE_SETUP(drive)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(bench_open(&self->b, "drive0", NULL));
	ASSERT_EQ(512, dma_bio_limit(&self->b.env, "logical_block_size"));
	ASSERT_TRUE(set_threshold(variant->threshold, self->threshold,
				  sizeof(self->threshold)));
}

FIXTURE_TEARDOWN(drive)
{
	EXPECT_TRUE(dma_bio_write_file(THRESHOLD, self->threshold));
	bench_close(&self->b);
}

/* Does it work for all of them? Says for which it does not. */
static bool all_work(struct bench *b, bool (*works)(struct bench *b, uint32_t),
		     const struct shape *s, size_t nr)
{
	bool ok = true;

	for (; nr--; s++) {
		lay_out(b, s);
		if (works(b, 0))
			continue;
		fprintf(stderr,
			"# seed %lu: %u vectors of %u bytes at %u, every %u\n",
			seed, s->nr, s->len, s->offset, s->stride);
		ok = false;
	}
	return ok;
}

TEST_F_TIMEOUT(drive, write, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, written, aligned, ARRAY_SIZE(aligned)));
}

TEST_F_TIMEOUT(drive, read, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, read_back, aligned,
			     ARRAY_SIZE(aligned)));
}

TEST_F_TIMEOUT(drive, write_unaligned, SECONDS)
{
	if (!dma_bio_takes_unaligned(&self->b.env))
		SKIP(return, "the drive has no SGLs");
	EXPECT_TRUE(all_work(&self->b, written, unaligned,
			     ARRAY_SIZE(unaligned)));
}

TEST_F_TIMEOUT(drive, read_unaligned, SECONDS)
{
	if (!dma_bio_takes_unaligned(&self->b.env))
		SKIP(return, "the drive has no SGLs");
	EXPECT_TRUE(all_work(&self->b, read_back, unaligned,
			     ARRAY_SIZE(unaligned)));
}

static const struct shape pages_apart = { 16, 0, 4096, 8192 };

TEST_F_TIMEOUT(drive, write_flags, SECONDS)
{
	static const uint32_t flags[] = {
		DMA_BIO_SYNC, DMA_BIO_FUA, DMA_BIO_PREFLUSH,
		DMA_BIO_PREFLUSH | DMA_BIO_FUA, DMA_BIO_NOWAIT,
		DMA_BIO_META | DMA_BIO_PRIO, DMA_BIO_SYNC | DMA_BIO_IDLE,
		DMA_BIO_BACKGROUND, DMA_BIO_NOMERGE,
	};
	size_t i;

	lay_out(&self->b, &pages_apart);
	for (i = 0; i < ARRAY_SIZE(flags); i++)
		EXPECT_TRUE(written(&self->b, flags[i]))
			TH_LOG("flags %#x", flags[i]);
}

TEST_F_TIMEOUT(drive, read_flags, SECONDS)
{
	static const uint32_t flags[] = {
		DMA_BIO_SYNC, DMA_BIO_NOWAIT, DMA_BIO_META | DMA_BIO_PRIO,
		DMA_BIO_RAHEAD, DMA_BIO_NOMERGE,
	};
	size_t i;

	lay_out(&self->b, &pages_apart);
	for (i = 0; i < ARRAY_SIZE(flags); i++)
		EXPECT_TRUE(read_back(&self->b, flags[i]))
			TH_LOG("flags %#x", flags[i]);
}

TEST_F_TIMEOUT(drive, flush, SECONDS)
{
	self->b.nr = 0;
	EXPECT_EQ(BLK_STS_OK, run(&self->b, DMA_BIO_WRITE, DMA_BIO_PREFLUSH));
}

/* Without poll queues, a polled bio is not supported. */
TEST_F_TIMEOUT(drive, polled, SECONDS)
{
	lay_out(&self->b, &pages_apart);
	if (dma_bio_can_poll()) {
		EXPECT_TRUE(written(&self->b, DMA_BIO_POLLED));
		EXPECT_TRUE(read_back(&self->b, DMA_BIO_POLLED));
		return;
	}
	ASSERT_TRUE(prepare_write(&self->b));
	EXPECT_EQ(BLK_STS_NOTSUPP,
		  run(&self->b, DMA_BIO_WRITE, DMA_BIO_POLLED));
	memset(self->b.data, POISON, self->b.size);
	EXPECT_TRUE(disk_has(&self->b));
}

/* One bio for each vector, at consecutive sectors */
static void make_bios(struct bench *b, struct dma_bio *bios, uint32_t op,
		      uint32_t flags)
{
	uint64_t sector = FIRST;
	uint32_t i;

	for (i = 0; i < b->nr; i++) {
		bios[i] = dma_bio_make(&b->env, op, sector, &b->vecs[i], 1);
		bios[i].flags = flags;
		sector += b->vecs[i].len / SECTOR_SIZE;
	}
}

/* How many of them ended once and well? */
static uint32_t count_good(const struct dma_bio *bios, uint32_t nr)
{
	uint32_t i, good = 0;

	for (i = 0; i < nr; i++)
		good += bios[i].ended == 1 && bios[i].status == BLK_STS_OK;
	return good;
}

/* As many as one call takes, all in flight */
TEST_F_TIMEOUT(drive, many, SECONDS)
{
	static const struct shape pages = { DMA_BIO_MAX_BIOS, 0, 4096, 8192 };
	struct dma_bio bios[DMA_BIO_MAX_BIOS];
	struct bench *b = &self->b;

	lay_out(b, &pages);
	ASSERT_TRUE(prepare_write(b));
	make_bios(b, bios, DMA_BIO_WRITE, 0);
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, b->nr, 0, 0));
	EXPECT_EQ(b->nr, count_good(bios, b->nr));
	EXPECT_TRUE(disk_has(b));

	ASSERT_TRUE(prepare_read(b));
	make_bios(b, bios, DMA_BIO_READ, 0);
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, b->nr, 0, 0));
	EXPECT_EQ(b->nr, count_good(bios, b->nr));
	EXPECT_TRUE(memory_has(b));
}

TEST_F_TIMEOUT(drive, chain, SECONDS)
{
	struct dma_bio bios[16];
	struct bench *b = &self->b;

	lay_out(b, &pages_apart);
	ASSERT_TRUE(prepare_read(b));
	make_bios(b, bios, DMA_BIO_READ, DMA_BIO_CHAIN);
	bios[b->nr - 1].flags = 0;
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, b->nr, 0, 0));
	EXPECT_EQ(1, count_good(bios, b->nr));
	EXPECT_EQ(1, bios[b->nr - 1].ended);
	EXPECT_TRUE(memory_has(b));
}

/* A bio of the chain that is refused fails it as a whole. */
TEST_F_TIMEOUT(drive, chain_refused, SECONDS)
{
	struct dma_bio bios[16];
	struct bench *b = &self->b;

	lay_out(b, &pages_apart);
	make_bios(b, bios, DMA_BIO_READ, DMA_BIO_CHAIN);
	bios[b->nr - 1].flags = 0;
	bios[1].fault = DMA_BIO_NO_MAP;
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, b->nr, 0, 0));
	EXPECT_EQ(1, bios[b->nr - 1].ended);
	EXPECT_EQ(BLK_STS_NOTSUPP, bios[b->nr - 1].status);
}

/* The size of a bio is 32 bits wide, and 255 times 17 MiB does not fit. */
TEST_F_TIMEOUT(drive, too_large, SECONDS)
{
	struct dma_bio_vec vecs[DMA_BIO_MAX_VECS];
	struct dma_bio_env env;
	struct dma_bio bio;
	size_t i;

	ASSERT_TRUE(dma_bio_open(&env, self->b.env.path, NULL, 17 << 20,
				 0));
	for (i = 0; i < ARRAY_SIZE(vecs); i++)
		vecs[i] = (struct dma_bio_vec) { 0, 17 << 20 };
	bio = dma_bio_make(&env, DMA_BIO_READ, 0, vecs, ARRAY_SIZE(vecs));
	EXPECT_EQ(0, dma_bio_submit(&env, &bio, 1, 0, 0));
	EXPECT_EQ(240, bio.added);
	EXPECT_EQ(0, bio.ended);
	dma_bio_close(&env);
}

TEST_F_TIMEOUT(drive, beyond_the_end, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	off_t end;

	lay_out(b, &aligned[2]);
	ASSERT_TRUE(prepare_read(b));
	end = lseek(b->env.disk, 0, SEEK_END) / SECTOR_SIZE;
	bio = dma_bio_make(&b->env, DMA_BIO_READ, end - 1, b->vecs, b->nr);
	EXPECT_EQ(BLK_STS_IOERR, dma_bio_run(&b->env, &bio));
	memset(b->data, POISON, b->size);
	EXPECT_TRUE(memory_has(b));
}

/* More than a page can list, and its list must be PRPs. */
#define LONG_DRIVE	"drive1"
#define LONG		(3 << 20)

FIXTURE(long_command)
{
	struct bench b;
	char threshold[16];
};

FIXTURE_SETUP(long_command)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (!dma_bio_device(LONG_DRIVE))
		SKIP(return, "no device " LONG_DRIVE);
	ASSERT_TRUE(bench_open(&self->b, LONG_DRIVE, NULL));
	ASSERT_TRUE(set_threshold("0", self->threshold,
				  sizeof(self->threshold)));
}

FIXTURE_TEARDOWN(long_command)
{
	EXPECT_TRUE(dma_bio_write_file(THRESHOLD, self->threshold));
	bench_close(&self->b);
}

/* A bio ends before its command is counted. */
static bool was_one_command(struct bench *b, uint32_t op, unsigned int before)
{
	unsigned int commands;
	int tries = 50;

	do {
		usleep(20000);
		commands = count(&b->env, op, COMMANDS) - before;
	} while (!commands && --tries);
	if (commands != 1)
		fprintf(stderr, "# %u commands\n", commands);
	return commands == 1;
}

static bool run_at_once(struct bench *b, uint32_t op, uint32_t flags)
{
	unsigned int before = count(&b->env, op, COMMANDS);

	return !run(b, op, flags) && was_one_command(b, op, before);
}

static bool written_at_once(struct bench *b, uint32_t flags)
{
	return prepare_write(b) && run_at_once(b, DMA_BIO_WRITE, flags) &&
	       disk_has(b);
}

static bool read_back_at_once(struct bench *b, uint32_t flags)
{
	return prepare_read(b) && run_at_once(b, DMA_BIO_READ, flags) &&
	       memory_has(b);
}

static const struct shape long_lists[] = {
	{ 1, 0, LONG },
	{ 1, 512, LONG },
	{ 192, 0, LONG / 192, 20480 },
};

/* An IOMMU that translates limits the segments of a command: not the last list. */
static unsigned int nr_long_lists(struct bench *b)
{
	const char *topology = getenv("P2PDMA_TOPOLOGY");
	const unsigned int last = ARRAY_SIZE(long_lists) - 1;
	bool limited = !topology || !strncmp(topology, "iommu", strlen("iommu"));

	return last + !(limited && dma_bio_limit(&b->env, "max_segments") <
			long_lists[last].nr);
}

TEST_F_TIMEOUT(long_command, write, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, written_at_once, long_lists,
			     nr_long_lists(&self->b)));
}

TEST_F_TIMEOUT(long_command, read, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, read_back_at_once, long_lists,
			     nr_long_lists(&self->b)));
}

#define NR_MERGE	16
#define FIRST_PAGES	6	/* of those next to each other that merge, */
#define NR_PAGES	5	/* which come late enough to wait in a scheduler */

FIXTURE(merge)
{
	struct bench b;
};

FIXTURE_VARIANT(merge)
{
	bool backwards;
	bool unplugged;
};

FIXTURE_VARIANT_ADD(merge, back) { };
FIXTURE_VARIANT_ADD(merge, front) { .backwards = true };
/* For a scheduler, which may have merged them; see bio_features.sh. */
FIXTURE_VARIANT_ADD(merge, unplugged_back) { .unplugged = true };
FIXTURE_VARIANT_ADD(merge, unplugged_front) { .unplugged = true, .backwards = true };

FIXTURE_SETUP(merge)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(bench_open(&self->b, "drive0", NULL));
	lay_out(&self->b, &pages_apart);
}

FIXTURE_TEARDOWN(merge)
{
	bench_close(&self->b);
}

static void turn_around(struct dma_bio *bios, uint32_t nr)
{
	struct dma_bio *last = bios + nr - 1, bio;

	for (; bios < last; bios++, last--) {
		bio = *bios;
		*bios = *last;
		*last = bio;
	}
}

/*
 * Bios with DMA addresses merge with nothing, neither pages nor others like
 * them. Bios with pages do merge, which shows that merging was possible.
 */
static bool has_pages(uint32_t i)
{
	return !(i % 3) || (i >= FIRST_PAGES && i < FIRST_PAGES + NR_PAGES);
}

static void make_mix(struct bench *b, struct dma_bio *bios, uint32_t op,
		     bool backwards)
{
	uint32_t i;

	make_bios(b, bios, op, 0);
	for (i = 0; i < NR_MERGE; i++)
		if (has_pages(i))
			bios[i].map = DMA_BIO_PAGES;
	if (backwards)
		turn_around(bios, NR_MERGE);
}

/* Did as many as can merge, and did all go well? */
static bool merge(struct bench *b, struct dma_bio *bios, uint32_t op,
		  bool unplugged)
{
	unsigned int before = count(&b->env, op, MERGES), merges, least;

	if (dma_bio_submit(&b->env, bios, NR_MERGE,
			   unplugged ? 0 : DMA_BIO_PLUG, 0))
		return false;
	merges = count(&b->env, op, MERGES) - before;
	/* Without a plug only those that have to wait in a scheduler */
	least = unplugged ? !!getenv("P2P_MUST_MERGE") : NR_PAGES - 1;
	if (merges < least || merges > NR_PAGES - 1)
		fprintf(stderr, "# %u were merged\n", merges);
	return merges >= least && merges <= NR_PAGES - 1 &&
	       count_good(bios, NR_MERGE) == NR_MERGE;
}

/* What a page bio reads is not in the p2pmem: bring it there. */
static bool move_pages(struct bench *b)
{
	const struct dma_bio_vec *v = b->vecs;
	uint32_t i;

	for (i = 0; i < b->nr; i++, v++)
		if (has_pages(i) &&
		    (!dma_bio_get(&b->env, BUFFER + v->offset, b->seen, v->len) ||
		     !dma_bio_put(&b->env, v->offset, b->seen, v->len)))
			return false;
	return true;
}

TEST_F_TIMEOUT(merge, read, SECONDS)
{
	struct dma_bio bios[NR_MERGE];
	struct bench *b = &self->b;

	ASSERT_TRUE(prepare_read(b));
	ASSERT_TRUE(dma_bio_put(&b->env, BUFFER, b->seen, PAGES));
	make_mix(b, bios, DMA_BIO_READ, variant->backwards);
	EXPECT_TRUE(merge(b, bios, DMA_BIO_READ, variant->unplugged));
	ASSERT_TRUE(move_pages(b));
	EXPECT_TRUE(memory_has(b));
}

TEST_F_TIMEOUT(merge, write, SECONDS)
{
	struct dma_bio bios[NR_MERGE];
	struct bench *b = &self->b;

	ASSERT_TRUE(prepare_write(b));
	ASSERT_TRUE(dma_bio_put(&b->env, BUFFER, b->image, PAGES));
	make_mix(b, bios, DMA_BIO_WRITE, variant->backwards);
	EXPECT_TRUE(merge(b, bios, DMA_BIO_WRITE, variant->unplugged));
	EXPECT_TRUE(disk_has(b));
}

/* Without pages beside them, none may merge. */
TEST_F_TIMEOUT(merge, addresses_alone, SECONDS)
{
	unsigned int before = count(&self->b.env, DMA_BIO_WRITE, MERGES);
	struct dma_bio bios[NR_MERGE];
	struct bench *b = &self->b;

	ASSERT_TRUE(prepare_write(b));
	make_bios(b, bios, DMA_BIO_WRITE, 0);
	if (variant->backwards)
		turn_around(bios, NR_MERGE);
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, NR_MERGE,
				    variant->unplugged ? 0 : DMA_BIO_PLUG, 0));
	EXPECT_EQ(NR_MERGE, count_good(bios, NR_MERGE));
	EXPECT_EQ(before, count(&b->env, DMA_BIO_WRITE, MERGES));
	EXPECT_TRUE(disk_has(b));
}

FIXTURE(refused)
{
	struct bench b;
};

FIXTURE_VARIANT(refused)
{
	uint32_t op;
	uint32_t fault;
	uint32_t first;		/* byte in its page */
	uint32_t len;
	const char *client;	/* that the memory is mapped for instead */
	int status;
	const char *reason;	/* that the log gives, NULL: none */
};

#define NOT_MAPPED	"the memory is not mapped for the device"
#define NO_DATA		"not a read, write or zone append"

#define REFUSED(name, ...) \
	FIXTURE_VARIANT_ADD(refused, name) { \
		.op = DMA_BIO_WRITE, \
		.len = 4096, \
		.status = BLK_STS_NOTSUPP, \
		__VA_ARGS__ \
	}

REFUSED(no_map, .fault = DMA_BIO_NO_MAP, .reason = "it has no mapping");
REFUSED(other_device, .client = "drive1", .reason = NOT_MAPPED);
REFUSED(misaligned, .first = 1, .status = BLK_STS_INVAL);
REFUSED(part_of_a_sector, .len = 4092, .status = BLK_STS_IOERR);
REFUSED(flush, .op = DMA_BIO_FLUSH);
REFUSED(discard, .op = DMA_BIO_DISCARD, .reason = NO_DATA);
REFUSED(secure_erase, .op = DMA_BIO_SECURE_ERASE);
REFUSED(write_zeroes, .op = DMA_BIO_WRITE_ZEROES, .reason = NO_DATA);
REFUSED(zone_reset, .op = DMA_BIO_ZONE_RESET, .status = BLK_STS_IOERR);
REFUSED(zone_append, .op = DMA_BIO_ZONE_APPEND);
REFUSED(drv_in, .op = DMA_BIO_DRV_IN);
REFUSED(drv_out, .op = DMA_BIO_DRV_OUT);
REFUSED(encrypted, .fault = DMA_BIO_CRYPT);

FIXTURE_SETUP(refused)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (variant->client && !dma_bio_device(variant->client))
		SKIP(return, "no device %s", variant->client);
	ASSERT_TRUE(bench_open(&self->b, "drive0", variant->client));
}

FIXTURE_TEARDOWN(refused)
{
	bench_close(&self->b);
}

/* It ends once, the log tells why, and neither disk nor memory changes. */
TEST_F_TIMEOUT(refused, untouched, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	int ret;

	lay_out(b, &(struct shape) { 1, variant->first, 4096 });
	ASSERT_TRUE(prepare_write(b));
	b->vecs[0].len = variant->len;
	bio = dma_bio_make(&b->env, variant->op, FIRST, b->vecs, b->nr);
	bio.fault = variant->fault;
	ret = dma_bio_refuse(&b->env, &bio, variant->reason);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "CONFIG_BLK_INLINE_ENCRYPTION is not set");
	ASSERT_EQ(0, ret);
	EXPECT_EQ(1, bio.ended);
	EXPECT_EQ(variant->status, bio.status);

	b->vecs[0].len = 4096;
	EXPECT_TRUE(memory_has(b));
	memset(b->data, POISON, b->size);
	EXPECT_TRUE(disk_has(b));
}

#define NVME_DRIVER	"/sys/bus/pci/drivers/nvme/"

/* The drive goes, and comes back. */
static bool rebind(const char *drive, char *path, size_t size)
{
	const char *address = dma_bio_device(drive);
	int tries = 600;

	if (!dma_bio_write_file(NVME_DRIVER "unbind", address) ||
	    !dma_bio_write_file(NVME_DRIVER "bind", address))
		return false;
	while (--tries && (!dma_bio_find_disk(drive, path, size) ||
			   access(path, R_OK)))
		usleep(100000);
	return tries;
}

/*
 * With the mapping the drive has lost the memory, also that which the other drive has
 * a mapping of.  Mapped again, it can use it by whichever bios name, dead or not.
 */
TEST_F_TIMEOUT(drive, rebound, SECONDS)
{
	struct bench *b = &self->b;
	int maps[3] = { b->env.map }, disk = b->env.disk;
	const char *drive = "drive1";
	char path[64];
	size_t i;

	if (!dma_bio_device(drive))
		SKIP(return, "no device %s", drive);
	maps[1] = dma_bio_map_device(&b->env, drive);
	ASSERT_GE(maps[1], 0);
	ASSERT_TRUE(rebind(drive, path, sizeof(path)));
	b->env.disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(b->env.disk, 0);

	lay_out(b, &pages_apart);
	for (i = 0; i < 2; i++) {
		b->env.map = maps[i];
		EXPECT_EQ(BLK_STS_NOTSUPP, run(b, DMA_BIO_READ, 0));
	}
	maps[2] = dma_bio_map_disk(&b->env, b->env.disk);
	EXPECT_GE(maps[2], 0);
	for (i = 0; i < 3; i++) {
		b->env.map = maps[i];
		EXPECT_TRUE(written(b, 0));
		EXPECT_TRUE(read_back(b, 0));
	}
	close(b->env.disk);
	b->env.disk = disk;
}

/* Descriptions that the device must reject */
FIXTURE(misdescribed)
{
	struct bench b;
	struct dma_bio bio;
};

FIXTURE_SETUP(misdescribed)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(bench_open(&self->b, "drive0", NULL));
	lay_out(&self->b, &pages_apart);
	self->bio = dma_bio_make(&self->b.env, DMA_BIO_WRITE, FIRST,
				 self->b.vecs, self->b.nr);
}

FIXTURE_TEARDOWN(misdescribed)
{
	bench_close(&self->b);
}

static const struct {
	size_t field;
	uint32_t value;
	int ret;
} bad_fields[] = {
	{ offsetof(struct dma_bio, op), DMA_BIO_DRV_OUT + 1, -EINVAL },
	{ offsetof(struct dma_bio, op), UINT32_MAX, -EINVAL },
	{ offsetof(struct dma_bio, flags), DMA_BIO_CHAIN << 1, -EINVAL },
	{ offsetof(struct dma_bio, flags), DMA_BIO_CHAIN, -EINVAL },
	{ offsetof(struct dma_bio, fault), DMA_BIO_BEHIND + 1, -EINVAL },
	{ offsetof(struct dma_bio, map), 1, -EINVAL },
	{ offsetof(struct dma_bio, map), DMA_BIO_PAGES - 1, -EINVAL },
	{ offsetof(struct dma_bio, nr_vecs), 0, -EINVAL },
	{ offsetof(struct dma_bio, nr_vecs), DMA_BIO_MAX_VECS + 1, -EINVAL },
	{ offsetof(struct dma_bio, bdev), -1, -EBADF },
	{ offsetof(struct dma_bio, bdev), STDIN_FILENO, -EINVAL },
	{ offsetof(struct dma_bio, meta_len), 8, -EINVAL },
	{ offsetof(struct dma_bio, meta_len), 65537, -EINVAL },
	{ offsetof(struct dma_bio, reserved), 1, -EINVAL },
};

TEST_F(misdescribed, field)
{
	struct dma_bio bio;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad_fields); i++) {
		bio = self->bio;
		memcpy((char *)&bio + bad_fields[i].field, &bad_fields[i].value,
		       sizeof(bad_fields[i].value));
		EXPECT_EQ(bad_fields[i].ret,
			  dma_bio_submit(&self->b.env, &bio, 1, 0, 0))
			TH_LOG("field at %zu is %#x", bad_fields[i].field,
			       bad_fields[i].value);
	}
}

TEST_F(misdescribed, vector)
{
	static const struct dma_bio_vec outside[] = {
		{ BUFFER, 1 }, { BUFFER - 511, 512 }, { 0, BUFFER + 1 },
		{ UINT32_MAX, 512 }, { 512, UINT32_MAX }, { 512, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(outside); i++) {
		self->b.vecs[3] = outside[i];
		EXPECT_EQ(-EINVAL,
			  dma_bio_submit(&self->b.env, &self->bio, 1, 0, 0))
			TH_LOG("vector %zu", i);
	}
	self->bio.vecs = 8;
	EXPECT_EQ(-EFAULT, dma_bio_submit(&self->b.env, &self->bio, 1, 0, 0));
}

static const struct {
	uint32_t op;
	uint32_t flags;
	uint32_t fault;
	uint32_t map;
} bad_combinations[] = {
	{ DMA_BIO_READ, DMA_BIO_FUA },
	{ DMA_BIO_READ, DMA_BIO_PREFLUSH },
	{ DMA_BIO_READ, DMA_BIO_ATOMIC },
	{ DMA_BIO_WRITE, DMA_BIO_CHAIN | DMA_BIO_POLLED },
	{ DMA_BIO_DISCARD, 0, DMA_BIO_GOOD, DMA_BIO_PAGES },
	{ DMA_BIO_WRITE, 0, DMA_BIO_NO_MAP, DMA_BIO_PAGES },
};

TEST_F(misdescribed, combination)
{
	struct dma_bio bio = self->bio;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad_combinations); i++) {
		bio.op = bad_combinations[i].op;
		bio.flags = bad_combinations[i].flags;
		bio.fault = bad_combinations[i].fault;
		bio.map = bad_combinations[i].map;
		EXPECT_EQ(-EINVAL,
			  dma_bio_submit(&self->b.env, &bio, 1, 0, 0))
			TH_LOG("combination %zu", i);
	}
}

TEST_F(misdescribed, batch)
{
	struct dma_bio bios[2] = { self->bio, self->bio };
	const struct dma_bio_env *env = &self->b.env;

	bios[1].op = UINT32_MAX;
	EXPECT_EQ(-EINVAL, dma_bio_submit(env, bios, 2, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(env, bios, 0, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(env, bios, 257, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(env, bios, 1, 2, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(env, bios, 1, 0, 1001));
	EXPECT_EQ(-EFAULT, dma_bio_submit(env, NULL, 1, 0, 0));
	/* Of the first batch nothing was submitted. */
	EXPECT_EQ(0, bios[0].ended);
}

TEST_F(misdescribed, read_only)
{
	int disk = open(self->b.env.path, O_RDONLY | O_CLOEXEC);

	ASSERT_GE(disk, 0);
	self->bio.bdev = disk;
	EXPECT_EQ(-EINVAL, dma_bio_submit(&self->b.env, &self->bio, 1, 0, 0));
	close(disk);
}

TEST_F(misdescribed, set_up)
{
	struct dma_bio_env *env = &self->b.env, fresh;

	EXPECT_EQ(-EINVAL, dma_bio_map_disk(env, env->ctl));
	EXPECT_FALSE(dma_bio_open(&fresh, env->path, NULL, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_map_disk(&fresh, env->disk));
	dma_bio_close(&fresh);
}

TEST_F(misdescribed, unload_while_open)
{
	EXPECT_EQ(-1, syscall(SYS_delete_module, "dma_bio_ctl", O_NONBLOCK));
	EXPECT_EQ(EWOULDBLOCK, errno);
}

int main(int argc, char **argv)
{
	const char *given = getenv("P2P_SEED");

	if (given)
		seed = strtoull(given, NULL, 10) ?: 1;
	return test_harness_run(argc, argv);
}
