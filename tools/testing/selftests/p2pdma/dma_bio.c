// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-address bios as /dev/dma_bio submits them to an NVMe drive. Each direction
 * is tested on its own: what is to be overwritten is something else before, and
 * every byte is compared, also those around it. The content of the drive is
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
	{ 256, 0, 4096, 8192 },
	{ 256, 512, 512, 4096 },
};

static const struct shape unaligned[] = {
	{ 1, 4, 512 },
	{ 1, 4092, 512 },
	{ 1, 1028, 128 << 10 },
	{ 1, 12, AREA },
	{ 64, 8, 128, 1000 },
	{ 256, 4, 512, 8188 },
	{ 256, 100, 1536, 1540 },
};

enum counter {
	COMMANDS,
	MERGES,
};

/* Reads or writes that were completed, or merged with others, so far. */
static unsigned int count(const struct dma_bio_rig *rig, uint32_t op,
			  enum counter counter)
{
	unsigned int reads[2] = {}, writes[2] = {};
	char path[128];
	FILE *stat;

	snprintf(path, sizeof(path), "/sys/block/%s/stat",
		 strrchr(rig->path, '/') + 1);
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
 * @rig:    the drive and the p2pmem
 * @random: state of the source of data
 * @data:   what crosses the wire, in the order of the disk's sectors
 * @image:  what memory or the disk must look like afterwards
 * @seen:   what it looks like
 * @vecs:   where in the p2pmem the data is
 * @nr:     how many of @vecs
 * @size:   bytes in all of them
 */
struct bench {
	struct dma_bio_rig rig;
	uint64_t random;
	unsigned char *data;
	unsigned char *image;
	unsigned char *seen;
	struct dma_bio_vec vecs[DMA_BIO_MAX_VECS];
	uint32_t nr;
	uint32_t size;
};

static bool bench_open(struct bench *b, const char *drive)
{
	char path[64];

	b->random = seed;
	b->data = dma_bio_memory(BUFFER);
	b->image = dma_bio_memory(BUFFER);
	b->seen = dma_bio_memory(BUFFER);
	return b->data && b->image && b->seen && dma_bio_load() &&
	       dma_bio_find_disk(drive, path, sizeof(path)) &&
	       dma_bio_open(&b->rig, path, NULL, BUFFER, PAGES);
}

static void bench_close(struct bench *b)
{
	dma_bio_close(&b->rig);
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
	return dma_bio_put(&b->rig, 0, b->image, BUFFER) &&
	       dma_bio_disk_write(&b->rig, FIRST - 1, b->seen,
				  b->size + 2 * SECTOR_SIZE);
}

/* The disk has the data, and poison around it. */
static bool disk_has(struct bench *b)
{
	memset(b->image, POISON, b->size + 2 * SECTOR_SIZE);
	memcpy(b->image + SECTOR_SIZE, b->data, b->size);
	return dma_bio_disk_read(&b->rig, FIRST - 1, b->seen,
				 b->size + 2 * SECTOR_SIZE) &&
	       !memcmp(b->image, b->seen, b->size + 2 * SECTOR_SIZE);
}

static bool prepare_read(struct bench *b)
{
	dma_bio_random_bytes(&b->random, b->data, b->size);
	return dma_bio_disk_write(&b->rig, FIRST, b->data, b->size) &&
	       dma_bio_poison(&b->rig);
}

static bool memory_has(struct bench *b)
{
	scatter(b);
	return dma_bio_get(&b->rig, 0, b->seen, BUFFER) &&
	       !memcmp(b->image, b->seen, BUFFER);
}

static int run(struct bench *b, uint32_t op, uint32_t flags)
{
	struct dma_bio bio = dma_bio_make(&b->rig, op, FIRST, b->vecs, b->nr);

	bio.flags = flags;
	return dma_bio_run(&b->rig, &bio);
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
	ASSERT_TRUE(bench_open(&self->b, "drive0"));
	ASSERT_EQ(512, dma_bio_limit(&self->b.rig, "logical_block_size"));
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
	if (!dma_bio_takes_unaligned(&self->b.rig))
		SKIP(return, "the drive has no SGLs");
	EXPECT_TRUE(all_work(&self->b, written, unaligned,
			     ARRAY_SIZE(unaligned)));
}

TEST_F_TIMEOUT(drive, read_unaligned, SECONDS)
{
	if (!dma_bio_takes_unaligned(&self->b.rig))
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

/* Without queues for it, a bio that is polled for is not supported. */
TEST_F_TIMEOUT(drive, polled, SECONDS)
{
	lay_out(&self->b, &pages_apart);
	if (dma_bio_limit(&self->b.rig, "io_poll")) {
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
		bios[i] = dma_bio_make(&b->rig, op, sector, &b->vecs[i], 1);
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
	ASSERT_EQ(0, dma_bio_submit(&b->rig, bios, b->nr, 0, 0));
	EXPECT_EQ(b->nr, count_good(bios, b->nr));
	EXPECT_TRUE(disk_has(b));

	ASSERT_TRUE(prepare_read(b));
	make_bios(b, bios, DMA_BIO_READ, 0);
	ASSERT_EQ(0, dma_bio_submit(&b->rig, bios, b->nr, 0, 0));
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
	ASSERT_EQ(0, dma_bio_submit(&b->rig, bios, b->nr, 0, 0));
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
	bios[1].spoil = DMA_BIO_DEAD;
	ASSERT_EQ(0, dma_bio_submit(&b->rig, bios, b->nr, 0, 0));
	EXPECT_EQ(1, bios[b->nr - 1].ended);
	EXPECT_EQ(BLK_STS_OFFLINE, bios[b->nr - 1].status);
}

/* Not a byte more than a bio can have: 256 times 16 MiB is too much. */
TEST_F_TIMEOUT(drive, too_large, SECONDS)
{
	struct dma_bio_vec vecs[256];
	struct dma_bio_rig rig;
	struct dma_bio bio;
	size_t i;

	ASSERT_TRUE(dma_bio_open(&rig, self->b.rig.path, NULL, 16 << 20,
				 0));
	for (i = 0; i < ARRAY_SIZE(vecs); i++)
		vecs[i] = (struct dma_bio_vec) { 0, 16 << 20 };
	bio = dma_bio_make(&rig, DMA_BIO_READ, 0, vecs, ARRAY_SIZE(vecs));
	EXPECT_EQ(0, dma_bio_submit(&rig, &bio, 1, 0, 0));
	EXPECT_EQ(255, bio.added);
	EXPECT_EQ(0, bio.ended);
	dma_bio_close(&rig);
}

TEST_F_TIMEOUT(drive, beyond_the_end, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	off_t end;

	lay_out(b, &aligned[2]);
	ASSERT_TRUE(prepare_read(b));
	end = lseek(b->rig.disk, 0, SEEK_END) / SECTOR_SIZE;
	bio = dma_bio_make(&b->rig, DMA_BIO_READ, end - 1, b->vecs, b->nr);
	EXPECT_EQ(BLK_STS_IOERR, dma_bio_run(&b->rig, &bio));
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

/* An IOMMU that translates limits commands to what it is fast for. */
static bool may_be_short(void)
{
	const char *topology = getenv("P2PDMA_TOPOLOGY");

	return !topology || !strncmp(topology, "iommu", strlen("iommu"));
}

FIXTURE_SETUP(long_command)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (!dma_bio_device(LONG_DRIVE))
		SKIP(return, "no device " LONG_DRIVE);
	ASSERT_TRUE(bench_open(&self->b, LONG_DRIVE));
	if (dma_bio_limit(&self->b.rig, "max_sectors_kb") < LONG >> 10 &&
	    may_be_short())
		SKIP(return, "the drive takes no commands of 3 MiB");
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
		commands = count(&b->rig, op, COMMANDS) - before;
	} while (!commands && --tries);
	if (commands != 1)
		fprintf(stderr, "# %u commands\n", commands);
	return commands == 1;
}

static bool run_at_once(struct bench *b, uint32_t op, uint32_t flags)
{
	unsigned int before = count(&b->rig, op, COMMANDS);

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

TEST_F_TIMEOUT(long_command, write, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, written_at_once, long_lists,
			     ARRAY_SIZE(long_lists)));
}

TEST_F_TIMEOUT(long_command, read, SECONDS)
{
	EXPECT_TRUE(all_work(&self->b, read_back_at_once, long_lists,
			     ARRAY_SIZE(long_lists)));
}

enum partner {
	SAME,
	OTHER_MAP,
	PAGE_BIO,
};

#define NR_MERGE	16
#define NR_ENDS		3	/* that merge although others have a partner */

FIXTURE(merge)
{
	struct bench b;
};

FIXTURE_VARIANT(merge)
{
	enum partner partner;
	bool backwards;
	bool unplugged;
	uint32_t flags;
	int merges;
};

FIXTURE_VARIANT_ADD(merge, back)
{
	.merges = NR_MERGE - 1,
};

FIXTURE_VARIANT_ADD(merge, front)
{
	.backwards = true,
	.merges = NR_MERGE - 1,
};

FIXTURE_VARIANT_ADD(merge, nomerge)
{
	.flags = DMA_BIO_NOMERGE,
};

FIXTURE_VARIANT_ADD(merge, other_map)
{
	.partner = OTHER_MAP,
	.merges = NR_ENDS,
};

FIXTURE_VARIANT_ADD(merge, other_map_front)
{
	.partner = OTHER_MAP,
	.backwards = true,
	.merges = NR_ENDS,
};

FIXTURE_VARIANT_ADD(merge, pages)
{
	.partner = PAGE_BIO,
	.merges = NR_ENDS,
};

FIXTURE_VARIANT_ADD(merge, pages_front)
{
	.partner = PAGE_BIO,
	.backwards = true,
	.merges = NR_ENDS,
};

/* For a scheduler, which may have merged them; see bio_features.sh. */
#define UNPLUGGED(name, ...) \
	FIXTURE_VARIANT_ADD(merge, unplugged_##name) { \
		.unplugged = true, \
		__VA_ARGS__ \
	}

UNPLUGGED(back, .merges = NR_MERGE - 1);
UNPLUGGED(front, .merges = NR_MERGE - 1, .backwards = true);
UNPLUGGED(other_map, .merges = NR_ENDS, .partner = OTHER_MAP);
UNPLUGGED(other_map_front, .merges = NR_ENDS, .partner = OTHER_MAP,
	  .backwards = true);
UNPLUGGED(pages, .merges = NR_ENDS, .partner = PAGE_BIO);
UNPLUGGED(pages_front, .merges = NR_ENDS, .partner = PAGE_BIO,
	  .backwards = true);

FIXTURE_SETUP(merge)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(bench_open(&self->b, "drive0"));
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
 * Every second bio is the partner's: its mapping, or pages. At the ends are some
 * next to each other that are not: that they merge shows that any could.
 */
static bool is_partners(uint32_t i)
{
	return !(i & 1) && i && i < NR_MERGE - NR_ENDS;
}

static bool use_partner(struct bench *b, struct dma_bio *bios,
			enum partner partner, uint32_t op)
{
	int map = partner == PAGE_BIO ? -1 :
		  dma_bio_map_disk(&b->rig, b->rig.disk, op == DMA_BIO_READ ?
				   DMA_BIO_FROM_DEVICE : DMA_BIO_TO_DEVICE);
	uint32_t i;

	for (i = 0; i < NR_MERGE; i++)
		if (is_partners(i))
			bios[i].map = map;
	return map >= 0 || partner == PAGE_BIO;
}

/* How many of the bios were merged, if all went well? */
static int merge(struct bench *b, struct dma_bio *bios, uint32_t op,
		 bool unplugged)
{
	unsigned int before = count(&b->rig, op, MERGES);
	int ret;

	ret = dma_bio_submit(&b->rig, bios, NR_MERGE,
			     unplugged ? 0 : DMA_BIO_PLUG, 0);
	if (ret)
		return ret;
	if (count_good(bios, NR_MERGE) != NR_MERGE)
		return -EIO;
	return count(&b->rig, op, MERGES) - before;
}

/* Without a plug only those that have to wait in a scheduler. */
static int least_merges(int merges, bool unplugged)
{
	return unplugged ? !!getenv("P2P_MUST_MERGE") : merges;
}

/* What a page bio reads is not in the p2pmem: bring it there. */
static bool move_pages(struct bench *b)
{
	const struct dma_bio_vec *v = b->vecs;
	uint32_t i;

	for (i = 0; i < b->nr; i++, v++)
		if (is_partners(i) &&
		    (!dma_bio_get(&b->rig, BUFFER + v->offset, b->seen, v->len) ||
		     !dma_bio_put(&b->rig, v->offset, b->seen, v->len)))
			return false;
	return true;
}

TEST_F_TIMEOUT(merge, read, SECONDS)
{
	struct dma_bio bios[NR_MERGE];
	struct bench *b = &self->b;
	int merges;

	ASSERT_TRUE(prepare_read(b));
	ASSERT_TRUE(dma_bio_put(&b->rig, BUFFER, b->seen, PAGES));
	make_bios(b, bios, DMA_BIO_READ, variant->flags);
	if (variant->partner != SAME)
		ASSERT_TRUE(use_partner(b, bios, variant->partner,
					DMA_BIO_READ));
	if (variant->backwards)
		turn_around(bios, NR_MERGE);
	merges = merge(b, bios, DMA_BIO_READ, variant->unplugged);
	EXPECT_LE(least_merges(variant->merges, variant->unplugged), merges);
	EXPECT_GE(variant->merges, merges);
	if (variant->partner == PAGE_BIO)
		ASSERT_TRUE(move_pages(b));
	EXPECT_TRUE(memory_has(b));
}

TEST_F_TIMEOUT(merge, write, SECONDS)
{
	struct dma_bio bios[NR_MERGE];
	struct bench *b = &self->b;
	int merges;

	ASSERT_TRUE(prepare_write(b));
	ASSERT_TRUE(dma_bio_put(&b->rig, BUFFER, b->image, PAGES));
	make_bios(b, bios, DMA_BIO_WRITE, variant->flags);
	if (variant->partner != SAME)
		ASSERT_TRUE(use_partner(b, bios, variant->partner,
					DMA_BIO_WRITE));
	if (variant->backwards)
		turn_around(bios, NR_MERGE);
	merges = merge(b, bios, DMA_BIO_WRITE, variant->unplugged);
	EXPECT_LE(least_merges(variant->merges, variant->unplugged), merges);
	EXPECT_GE(variant->merges, merges);
	EXPECT_TRUE(disk_has(b));
}

FIXTURE(refused)
{
	struct bench b;
};

FIXTURE_VARIANT(refused)
{
	uint32_t op;
	uint32_t spoil;
	uint32_t first;		/* byte in its page */
	uint32_t len;
	int dir;		/* of a mapping for the disk, -1: the rig's */
	const char *client;	/* of a mapping for another device */
	int status;
	const char *reason;	/* that the log gives, NULL: none */
};

#define NO_MAP		"it has no mapping"
#define OTHER_DEVICE	"mapped for another device"
#define OTHER_DIR	"mapped for the other direction"
#define OUTSIDE		"address outside the mapping"
#define NO_DATA		"the operation has no data to transfer"
#define ENCRYPTED	"the CPU can't encrypt the data"

#define REFUSED(name, ...) \
	FIXTURE_VARIANT_ADD(refused, name) { \
		.op = DMA_BIO_WRITE, \
		.len = 4096, \
		.dir = -1, \
		__VA_ARGS__ \
	}

REFUSED(no_map, .spoil = DMA_BIO_NO_MAP,
	.status = BLK_STS_INVAL, .reason = NO_MAP);
REFUSED(dead, .spoil = DMA_BIO_DEAD,
	.status = BLK_STS_OFFLINE, .reason = "the mapping is gone");
REFUSED(forged_device, .spoil = DMA_BIO_OTHER_DEVICE,
	.status = BLK_STS_INVAL, .reason = OTHER_DEVICE);
REFUSED(other_device, .client = "drive1",
	.status = BLK_STS_INVAL, .reason = OTHER_DEVICE);
REFUSED(forged_dir, .spoil = DMA_BIO_OTHER_DIR,
	.status = BLK_STS_INVAL, .reason = OTHER_DIR);
REFUSED(other_dir, .dir = DMA_BIO_FROM_DEVICE,
	.status = BLK_STS_INVAL, .reason = OTHER_DIR);
REFUSED(before, .spoil = DMA_BIO_BEFORE,
	.status = BLK_STS_INVAL, .reason = OUTSIDE);
REFUSED(beyond, .spoil = DMA_BIO_BEYOND,
	.status = BLK_STS_INVAL, .reason = OUTSIDE);
REFUSED(mixed, .spoil = DMA_BIO_MIXED,
	.status = BLK_STS_INVAL, .reason = OUTSIDE);
REFUSED(frame, .spoil = DMA_BIO_FRAME,
	.status = BLK_STS_INVAL, .reason = OUTSIDE);
REFUSED(misaligned, .first = 1, .status = BLK_STS_INVAL);
REFUSED(part_of_a_sector, .len = 4092, .status = BLK_STS_IOERR);
REFUSED(flush, .op = DMA_BIO_FLUSH,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(discard, .op = DMA_BIO_DISCARD,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(secure_erase, .op = DMA_BIO_SECURE_ERASE,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(write_zeroes, .op = DMA_BIO_WRITE_ZEROES,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(zone_reset, .op = DMA_BIO_ZONE_RESET,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(zone_append, .op = DMA_BIO_ZONE_APPEND, .status = BLK_STS_NOTSUPP);
REFUSED(drv_in, .op = DMA_BIO_DRV_IN,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(drv_out, .op = DMA_BIO_DRV_OUT,
	.status = BLK_STS_NOTSUPP, .reason = NO_DATA);
REFUSED(encrypted, .spoil = DMA_BIO_CRYPT_LAST,
	.status = BLK_STS_NOTSUPP, .reason = ENCRYPTED);

FIXTURE_SETUP(refused)
{
	const char *missing = dma_bio_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (variant->client && !dma_bio_device(variant->client))
		SKIP(return, "no device %s", variant->client);
	ASSERT_TRUE(bench_open(&self->b, "drive0"));
}

FIXTURE_TEARDOWN(refused)
{
	bench_close(&self->b);
}

static int make_map(struct bench *b, const char *client, int dir)
{
	if (client)
		return dma_bio_map_device(&b->rig, client,
					  DMA_BIO_BIDIRECTIONAL);
	if (dir < 0)
		return b->rig.map;
	return dma_bio_map_disk(&b->rig, b->rig.disk, dir);
}

/* It ends once, the log tells why, and neither disk nor memory changes. */
TEST_F_TIMEOUT(refused, untouched, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	int map, ret;

	lay_out(b, &(struct shape) { 1, variant->first, 4096 });
	ASSERT_TRUE(prepare_write(b));
	map = make_map(b, variant->client, variant->dir);
	ASSERT_GE(map, 0);
	b->vecs[0].len = variant->len;
	bio = dma_bio_make(&b->rig, variant->op, FIRST, b->vecs, b->nr);
	bio.map = map;
	bio.spoil = variant->spoil;
	ret = dma_bio_refuse(&b->rig, &bio, variant->reason);
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

/* With an encryption context it does not even get addresses. */
TEST_F_TIMEOUT(drive, encrypted_first, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	int ret;

	lay_out(b, &pages_apart);
	bio = dma_bio_make(&b->rig, DMA_BIO_WRITE, FIRST, b->vecs, b->nr);
	bio.spoil = DMA_BIO_CRYPT_FIRST;
	ret = dma_bio_submit(&b->rig, &bio, 1, 0, 0);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "CONFIG_BLK_INLINE_ENCRYPTION is not set");
	ASSERT_EQ(0, ret);
	EXPECT_EQ(0, bio.added);
	EXPECT_EQ(0, bio.ended);
}

/* What cannot be described at all */
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
	ASSERT_TRUE(bench_open(&self->b, "drive0"));
	lay_out(&self->b, &pages_apart);
	self->bio = dma_bio_make(&self->b.rig, DMA_BIO_WRITE, FIRST,
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
	{ offsetof(struct dma_bio, spoil), DMA_BIO_CRYPT_LAST + 1, -EINVAL },
	{ offsetof(struct dma_bio, map), 1, -EINVAL },
	{ offsetof(struct dma_bio, map), DMA_BIO_PAGES - 1, -EINVAL },
	{ offsetof(struct dma_bio, nr_vecs), 0, -EINVAL },
	{ offsetof(struct dma_bio, nr_vecs), 257, -EINVAL },
	{ offsetof(struct dma_bio, vecs), 8, -EFAULT },
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
		/* Half of a pointer is enough to make it a bad one. */
		memcpy((char *)&bio + bad_fields[i].field, &bad_fields[i].value,
		       sizeof(bad_fields[i].value));
		EXPECT_EQ(bad_fields[i].ret,
			  dma_bio_submit(&self->b.rig, &bio, 1, 0, 0))
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
			  dma_bio_submit(&self->b.rig, &self->bio, 1, 0, 0))
			TH_LOG("vector %zu", i);
	}
}

static const struct {
	uint32_t op;
	uint32_t flags;
	uint32_t spoil;
	uint32_t map;
} bad_combinations[] = {
	{ DMA_BIO_READ, DMA_BIO_FUA },
	{ DMA_BIO_READ, DMA_BIO_PREFLUSH },
	{ DMA_BIO_READ, DMA_BIO_ATOMIC },
	{ DMA_BIO_WRITE, DMA_BIO_CHAIN | DMA_BIO_POLLED },
	{ DMA_BIO_DISCARD, 0, DMA_BIO_GOOD, DMA_BIO_PAGES },
	{ DMA_BIO_WRITE, 0, DMA_BIO_DEAD, DMA_BIO_PAGES },
};

TEST_F(misdescribed, combination)
{
	struct dma_bio bio = self->bio;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad_combinations); i++) {
		bio.op = bad_combinations[i].op;
		bio.flags = bad_combinations[i].flags;
		bio.spoil = bad_combinations[i].spoil;
		bio.map = bad_combinations[i].map;
		EXPECT_EQ(-EINVAL,
			  dma_bio_submit(&self->b.rig, &bio, 1, 0, 0))
			TH_LOG("combination %zu", i);
	}
}

TEST_F(misdescribed, batch)
{
	struct dma_bio bios[2] = { self->bio, self->bio };
	const struct dma_bio_rig *rig = &self->b.rig;

	bios[1].op = UINT32_MAX;
	EXPECT_EQ(-EINVAL, dma_bio_submit(rig, bios, 2, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(rig, bios, 0, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(rig, bios, 257, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(rig, bios, 1, 2, 0));
	EXPECT_EQ(-EINVAL, dma_bio_submit(rig, bios, 1, 0, 1001));
	EXPECT_EQ(-EFAULT, dma_bio_submit(rig, NULL, 1, 0, 0));
	/* Of the first batch nothing was submitted. */
	EXPECT_EQ(0, bios[0].ended);
}

TEST_F(misdescribed, read_only)
{
	int disk = open(self->b.rig.path, O_RDONLY | O_CLOEXEC);

	ASSERT_GE(disk, 0);
	self->bio.bdev = disk;
	EXPECT_EQ(-EINVAL, dma_bio_submit(&self->b.rig, &self->bio, 1, 0, 0));
	close(disk);
}

TEST_F(misdescribed, set_up)
{
	struct dma_bio_rig *rig = &self->b.rig, fresh;

	EXPECT_EQ(-EINVAL, dma_bio_map_disk(rig, rig->disk, 3));
	EXPECT_EQ(-EINVAL, dma_bio_map_disk(rig, rig->ctl,
					    DMA_BIO_BIDIRECTIONAL));
	EXPECT_FALSE(dma_bio_open(&fresh, rig->path, NULL, 0, 0));
	EXPECT_EQ(-EINVAL, dma_bio_map_disk(&fresh, rig->disk,
					    DMA_BIO_BIDIRECTIONAL));
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
