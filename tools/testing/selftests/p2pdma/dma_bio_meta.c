// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-address bios for namespaces with metadata, and for zoned ones. Whether the
 * controller has made the right protection information is seen by reading it as
 * metadata, whether it checks it by giving it some that is wrong. The content of
 * the namespaces is destroyed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "../kselftest_harness.h"

#define DRIVE		"formats"	/* in the emulated machine */
#define FIRST		128		/* sector */
#define BLOCKS		128		/* sectors in a bio */
#define SIZE		(BLOCKS * SECTOR_SIZE)
#define P2P		1048576		/* bytes */
#define MAX_META	16		/* bytes for a sector */
#define SECONDS		120		/* for one test, on a slow machine */

/* Scattered, so that it takes more than one segment */
#define NR_VECS		16
#define VEC_SIZE	(SIZE / NR_VECS)
#define STRIDE		(2 * VEC_SIZE)

/**
 * struct bench - what a test of a namespace works with
 * @env:    the namespace and the p2pmem
 * @random: state of the source of data
 * @data:   what crosses the wire, in the order of the sectors
 * @seen:   data that came back
 * @image:  what the p2pmem must look like
 * @found:  what it looks like
 * @meta:   metadata that crosses the wire
 * @vecs:   where in the p2pmem the data is
 */
struct bench {
	struct dma_bio_env env;
	uint64_t random;
	unsigned char *data;
	unsigned char *seen;
	unsigned char *image;
	unsigned char *found;
	unsigned char meta[BLOCKS * MAX_META];
	struct dma_bio_vec vecs[NR_VECS];
};

static bool bench_open(struct bench *b, unsigned int nsid)
{
	char path[64];
	int i;

	b->random = 1;
	b->data = dma_bio_memory(SIZE);
	b->seen = dma_bio_memory(SIZE);
	b->image = dma_bio_memory(P2P);
	b->found = dma_bio_memory(P2P);
	for (i = 0; i < NR_VECS; i++)
		b->vecs[i] = (struct dma_bio_vec) { i * STRIDE, VEC_SIZE };
	return b->data && b->seen && b->image && b->found && dma_bio_load() &&
	       dma_bio_find_namespace(DRIVE, nsid, path, sizeof(path)) &&
	       dma_bio_open(&b->env, path, NULL, P2P, SIZE);
}

static void bench_close(struct bench *b)
{
	dma_bio_close(&b->env);
	free(b->data);
	free(b->seen);
	free(b->image);
	free(b->found);
}

static const char *missing(void)
{
	const char *reason = dma_bio_missing();

	if (reason || dma_bio_device(DRIVE))
		return reason;
	return "no device " DRIVE;
}

static void new_data(struct bench *b)
{
	dma_bio_random_bytes(&b->random, b->data, SIZE);
}

/* The data where it belongs, with poison around each piece */
static void make_image(struct bench *b)
{
	int i;

	memset(b->image, POISON, P2P);
	for (i = 0; i < NR_VECS; i++)
		memcpy(b->image + b->vecs[i].offset, b->data + i * VEC_SIZE,
		       VEC_SIZE);
}

static bool put_data(struct bench *b)
{
	make_image(b);
	return dma_bio_put(&b->env, 0, b->image, P2P);
}

static bool memory_has_data(struct bench *b)
{
	make_image(b);
	memset(b->found, ~POISON, P2P);
	return dma_bio_get(&b->env, 0, b->found, P2P) &&
	       !memcmp(b->found, b->image, P2P);
}

static bool poison_disk(struct bench *b, uint64_t sector)
{
	memset(b->seen, POISON, SIZE);
	return dma_bio_disk_write(&b->env, sector, b->seen, SIZE);
}

/* Read with the CPU, which verifies protection information if there is any */
static bool disk_has_data(struct bench *b, uint64_t sector)
{
	memset(b->seen, ~POISON, SIZE);
	return dma_bio_disk_read(&b->env, sector, b->seen, SIZE) &&
	       !memcmp(b->seen, b->data, SIZE);
}

static bool disk_is_poisoned(struct bench *b, uint64_t sector)
{
	memset(b->data, POISON, SIZE);
	return disk_has_data(b, sector);
}

static struct dma_bio make(struct bench *b, uint32_t op, uint64_t sector)
{
	return dma_bio_make(&b->env, op, sector, b->vecs, NR_VECS);
}

static int run(struct bench *b, uint32_t op)
{
	struct dma_bio bio = make(b, op, FIRST);

	return dma_bio_run(&b->env, &bio);
}

/* The CPU would have to do what it cannot. */
static int run_refused(struct bench *b, uint32_t op)
{
	struct dma_bio bio = make(b, op, FIRST);
	int ret = dma_bio_refuse(&b->env, &bio,
				 "the CPU cannot protect the data (PI)");

	return ret ?: bio.ended == 1 ? (int)bio.status : -1;
}

static void attach_meta(struct bench *b, struct dma_bio *bio, uint32_t size,
			uint16_t checks)
{
	bio->meta = (uintptr_t)b->meta;
	bio->meta_len = BLOCKS * size;
	bio->meta_flags = checks;
	bio->meta_seed = FIRST;
}

static int run_with_meta(struct bench *b, uint32_t op, uint32_t size,
			 uint16_t checks)
{
	struct dma_bio bio = make(b, op, FIRST);

	attach_meta(b, &bio, size, checks);
	return dma_bio_run(&b->env, &bio);
}

/* Of pages, and nobody checks anything: the metadata as it is on the disk. */
static int raw(struct bench *b, uint32_t op, uint32_t size)
{
	static const struct dma_bio_vec all = { 0, SIZE };
	struct dma_bio bio = dma_bio_make(&b->env, op, FIRST, &all, 1);

	bio.map = DMA_BIO_PAGES;
	attach_meta(b, &bio, size, 0);
	return dma_bio_run(&b->env, &bio);
}

static bool raw_write(struct bench *b, uint32_t size)
{
	return dma_bio_put(&b->env, P2P, b->data, SIZE) &&
	       !raw(b, DMA_BIO_WRITE, size);
}

/* --- protection information --- */

#define TUPLE		8
#define ALL_CHECKS	(DMA_BIO_CHECK_GUARD | DMA_BIO_CHECK_REFTAG)

/* CRC of T10 DIF: polynomial 0x8bb7, from the most significant bit */
static uint16_t crc_t10dif(const unsigned char *data, size_t len)
{
	uint16_t crc = 0;
	int bit;

	while (len--) {
		crc ^= *data++ << 8;
		for (bit = 0; bit < 8; bit++)
			crc = crc << 1 ^ (crc & 0x8000 ? 0x8bb7 : 0);
	}
	return crc;
}

/* Guard, application tag, reference tag; all of them big-endian */
static void make_tuple(unsigned char *t, const unsigned char *data, uint32_t ref)
{
	uint16_t guard = crc_t10dif(data, SECTOR_SIZE);

	t[0] = guard >> 8;
	t[1] = guard;
	t[2] = 0;
	t[3] = 0;
	t[4] = ref >> 24;
	t[5] = ref >> 16;
	t[6] = ref >> 8;
	t[7] = ref;
}

static void make_tuples(unsigned char *tuples, const unsigned char *data)
{
	int i;

	for (i = 0; i < BLOCKS; i++)
		make_tuple(tuples + i * TUPLE, data + i * SECTOR_SIZE, FIRST + i);
}

static bool set_integrity(struct bench *b, const char *attribute,
			  const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/block/%s/integrity/%s",
		 strrchr(b->env.path, '/') + 1, attribute);
	return dma_bio_write_file(path, value);
}

/* Does the block layer generate and verify protection information? */
static bool switch_cpu(struct bench *b, const char *value)
{
	return set_integrity(b, "write_generate", value) &&
	       set_integrity(b, "read_verify", value);
}

FIXTURE(pi) {
	struct bench b;
};

FIXTURE_SETUP(pi)
{
	if (missing())
		SKIP(return, "%s", missing());
	ASSERT_TRUE(bench_open(&self->b, 1));
	new_data(&self->b);
}

FIXTURE_TEARDOWN(pi)
{
	EXPECT_TRUE(switch_cpu(&self->b, "1"));
	bench_close(&self->b);
}

static bool stored_tuples_are_right(struct bench *b)
{
	unsigned char tuples[BLOCKS * TUPLE];

	memset(b->meta, POISON, sizeof(b->meta));
	make_tuples(tuples, b->data);
	return !raw(b, DMA_BIO_READ, TUPLE) &&
	       !memcmp(b->meta, tuples, sizeof(tuples));
}

TEST_F_TIMEOUT(pi, write_by_controller, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(put_data(b));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_WRITE));
	EXPECT_TRUE(disk_has_data(b, FIRST));
	EXPECT_TRUE(stored_tuples_are_right(b));
}

TEST_F_TIMEOUT(pi, read_by_controller, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(dma_bio_disk_write(&b->env, FIRST, b->data, SIZE));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_READ));
	EXPECT_TRUE(memory_has_data(b));
}

/* Byte 0 is of the guard, byte 7 of the reference tag. */
static bool store_wrong_tuple(struct bench *b, int byte)
{
	make_tuples(b->meta, b->data);
	b->meta[(BLOCKS - 1) * TUPLE + byte] ^= 1;
	return raw_write(b, TUPLE);
}

TEST_F_TIMEOUT(pi, controller_finds_wrong_guard, SECONDS)
{
	ASSERT_TRUE(store_wrong_tuple(&self->b, 0));
	EXPECT_EQ(BLK_STS_PROTECTION, run(&self->b, DMA_BIO_READ));
}

TEST_F_TIMEOUT(pi, controller_finds_wrong_reference, SECONDS)
{
	ASSERT_TRUE(store_wrong_tuple(&self->b, 7));
	EXPECT_EQ(BLK_STS_PROTECTION, run(&self->b, DMA_BIO_READ));
}

/* As for pages, what is switched off is not done. */
TEST_F_TIMEOUT(pi, not_verified_if_switched_off, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(store_wrong_tuple(b, 0));
	ASSERT_TRUE(switch_cpu(b, "0"));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_READ));
	EXPECT_TRUE(memory_has_data(b));
}

TEST_F_TIMEOUT(pi, still_protected_if_switched_off, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(switch_cpu(b, "0"));
	ASSERT_TRUE(put_data(b));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_WRITE));
	EXPECT_TRUE(stored_tuples_are_right(b));
}

TEST_F_TIMEOUT(pi, write_supplied, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(put_data(b));
	make_tuples(b->meta, b->data);
	EXPECT_EQ(BLK_STS_OK,
		  run_with_meta(b, DMA_BIO_WRITE, TUPLE, ALL_CHECKS));
	EXPECT_TRUE(disk_has_data(b, FIRST));
	EXPECT_TRUE(stored_tuples_are_right(b));
}

/* The whole bio is one command, of which nothing must arrive. */
TEST_F_TIMEOUT(pi, write_supplied_wrong, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(put_data(b));
	make_tuples(b->meta, b->data);
	b->meta[0] ^= 1;
	EXPECT_EQ(BLK_STS_PROTECTION,
		  run_with_meta(b, DMA_BIO_WRITE, TUPLE, ALL_CHECKS));
	EXPECT_TRUE(disk_is_poisoned(b, FIRST));
}

TEST_F_TIMEOUT(pi, read_with_metadata, SECONDS)
{
	unsigned char tuples[BLOCKS * TUPLE];
	struct bench *b = &self->b;

	ASSERT_TRUE(dma_bio_disk_write(&b->env, FIRST, b->data, SIZE));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	memset(b->meta, POISON, sizeof(b->meta));
	make_tuples(tuples, b->data);
	EXPECT_EQ(BLK_STS_OK,
		  run_with_meta(b, DMA_BIO_READ, TUPLE, ALL_CHECKS));
	EXPECT_TRUE(memory_has_data(b));
	EXPECT_EQ(0, memcmp(b->meta, tuples, sizeof(tuples)));
}

/* --- metadata that has room for more than protection information --- */

FIXTURE(more) {
	struct bench b;
};

FIXTURE_SETUP(more)
{
	if (missing())
		SKIP(return, "%s", missing());
	ASSERT_TRUE(bench_open(&self->b, 2));
	new_data(&self->b);
}

FIXTURE_TEARDOWN(more)
{
	EXPECT_TRUE(switch_cpu(&self->b, "1"));
	bench_close(&self->b);
}

TEST_F_TIMEOUT(more, write_refused, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(put_data(b));
	EXPECT_EQ(BLK_STS_NOTSUPP, run_refused(b, DMA_BIO_WRITE));
	EXPECT_TRUE(disk_is_poisoned(b, FIRST));
}

TEST_F_TIMEOUT(more, read_refused, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(dma_bio_disk_write(&b->env, FIRST, b->data, SIZE));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_NOTSUPP, run_refused(b, DMA_BIO_READ));
	memset(b->data, POISON, SIZE);
	EXPECT_TRUE(memory_has_data(b));
}

TEST_F_TIMEOUT(more, supplied, SECONDS)
{
	unsigned char meta[BLOCKS * MAX_META];
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(put_data(b));
	dma_bio_random_bytes(&b->random, meta, sizeof(meta));
	memcpy(b->meta, meta, sizeof(meta));
	EXPECT_EQ(BLK_STS_OK, run_with_meta(b, DMA_BIO_WRITE, MAX_META, 0));

	ASSERT_TRUE(dma_bio_poison(&b->env));
	memset(b->meta, POISON, sizeof(meta));
	EXPECT_EQ(BLK_STS_OK, run_with_meta(b, DMA_BIO_READ, MAX_META, 0));
	EXPECT_TRUE(memory_has_data(b));
	EXPECT_EQ(0, memcmp(b->meta, meta, sizeof(meta)));
}

/* Then the block layer only provides the room for it. */
TEST_F_TIMEOUT(more, taken_if_switched_off, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(poison_disk(b, FIRST));
	ASSERT_TRUE(switch_cpu(b, "0"));
	ASSERT_TRUE(put_data(b));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_WRITE));
	EXPECT_TRUE(disk_has_data(b, FIRST));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_READ));
	EXPECT_TRUE(memory_has_data(b));
}

/* --- metadata without protection information --- */

FIXTURE(bare) {
	struct bench b;
};

FIXTURE_SETUP(bare)
{
	struct bench *b = &self->b;

	if (missing())
		SKIP(return, "%s", missing());
	ASSERT_TRUE(bench_open(b, 5));
	/* What the metadata is before, so that it is seen to be replaced */
	memset(b->data, POISON, SIZE);
	memset(b->meta, POISON, sizeof(b->meta));
	ASSERT_TRUE(raw_write(b, TUPLE));
	new_data(b);
}

FIXTURE_TEARDOWN(bare)
{
	bench_close(&self->b);
}

static bool stored_meta_is_zero(struct bench *b)
{
	static const unsigned char zeroes[BLOCKS * TUPLE];

	memset(b->meta, POISON, sizeof(b->meta));
	return !raw(b, DMA_BIO_READ, TUPLE) &&
	       !memcmp(b->meta, zeroes, sizeof(zeroes));
}

/* There is nothing to protect: the block layer only provides the room. */
TEST_F_TIMEOUT(bare, write, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(put_data(b));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_WRITE));
	EXPECT_TRUE(disk_has_data(b, FIRST));
	EXPECT_TRUE(stored_meta_is_zero(b));
}

TEST_F_TIMEOUT(bare, read, SECONDS)
{
	struct bench *b = &self->b;

	ASSERT_TRUE(dma_bio_disk_write(&b->env, FIRST, b->data, SIZE));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_OK, run(b, DMA_BIO_READ));
	EXPECT_TRUE(memory_has_data(b));
}

TEST_F_TIMEOUT(bare, supplied, SECONDS)
{
	unsigned char meta[BLOCKS * TUPLE];
	struct bench *b = &self->b;

	ASSERT_TRUE(put_data(b));
	dma_bio_random_bytes(&b->random, meta, sizeof(meta));
	memcpy(b->meta, meta, sizeof(meta));
	EXPECT_EQ(BLK_STS_OK, run_with_meta(b, DMA_BIO_WRITE, TUPLE, 0));

	ASSERT_TRUE(dma_bio_poison(&b->env));
	memset(b->meta, POISON, sizeof(b->meta));
	EXPECT_EQ(BLK_STS_OK, run_with_meta(b, DMA_BIO_READ, TUPLE, 0));
	EXPECT_TRUE(memory_has_data(b));
	EXPECT_EQ(0, memcmp(b->meta, meta, sizeof(meta)));
}

/* --- zones --- */

FIXTURE(zone) {
	struct bench b;
	uint64_t start;
};

FIXTURE_VARIANT(zone) {
	unsigned int nsid;
};

FIXTURE_VARIANT_ADD(zone, plain) { .nsid = 3 };
FIXTURE_VARIANT_ADD(zone, pi) { .nsid = 4 };

static bool reset_zone(struct bench *b, uint64_t *start)
{
	struct blk_zone_range range = {};
	uint32_t sectors;

	if (ioctl(b->env.disk, BLKGETZONESZ, &sectors) || !sectors)
		return false;
	/* Not the first, so that its address is not 0 */
	range.sector = sectors;
	range.nr_sectors = sectors;
	*start = range.sector;
	return !ioctl(b->env.disk, BLKRESETZONE, &range);
}

FIXTURE_SETUP(zone)
{
	if (missing())
		SKIP(return, "%s", missing());
	ASSERT_TRUE(bench_open(&self->b, variant->nsid));
	ASSERT_TRUE(reset_zone(&self->b, &self->start));
	new_data(&self->b);
	ASSERT_TRUE(put_data(&self->b));
}

FIXTURE_TEARDOWN(zone)
{
	bench_close(&self->b);
}

/* Each bio has one of the pieces of the data. */
static void make_pieces(struct bench *b, struct dma_bio *bios, uint32_t op,
			uint64_t sector)
{
	int i;

	for (i = 0; i < NR_VECS; i++) {
		bios[i] = dma_bio_make(&b->env, op, sector, &b->vecs[i], 1);
		if (op != DMA_BIO_ZONE_APPEND)
			sector += VEC_SIZE / SECTOR_SIZE;
	}
}

static int count_good(const struct dma_bio *bios)
{
	int i, good = 0;

	for (i = 0; i < NR_VECS; i++)
		good += bios[i].ended == 1 && bios[i].status == BLK_STS_OK;
	return good;
}

TEST_F_TIMEOUT(zone, write, SECONDS)
{
	struct dma_bio bio = make(&self->b, DMA_BIO_WRITE, self->start);

	EXPECT_EQ(BLK_STS_OK, dma_bio_run(&self->b.env, &bio));
	EXPECT_TRUE(disk_has_data(&self->b, self->start));
}

TEST_F_TIMEOUT(zone, read, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio = make(b, DMA_BIO_READ, self->start);

	ASSERT_TRUE(dma_bio_disk_write(&b->env, self->start, b->data, SIZE));
	ASSERT_TRUE(dma_bio_poison(&b->env));
	EXPECT_EQ(BLK_STS_OK, dma_bio_run(&b->env, &bio));
	EXPECT_TRUE(memory_has_data(b));
}

/* All in flight at once: zone write plugging sends them one by one. */
TEST_F_TIMEOUT(zone, writes_in_order, SECONDS)
{
	struct dma_bio bios[NR_VECS];
	struct bench *b = &self->b;

	make_pieces(b, bios, DMA_BIO_WRITE, self->start);
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, NR_VECS, 0, 0));
	EXPECT_EQ(NR_VECS, count_good(bios));
	EXPECT_TRUE(disk_has_data(b, self->start));
}

TEST_F_TIMEOUT(zone, write_not_at_the_pointer, SECONDS)
{
	struct dma_bio bio = make(&self->b, DMA_BIO_WRITE, self->start + 8);

	EXPECT_EQ(BLK_STS_IOERR, dma_bio_run(&self->b.env, &bio));
}

static bool piece_is_where_it_says(struct bench *b, const struct dma_bio *bio,
				   int piece)
{
	return dma_bio_disk_read(&b->env, bio->sector, b->seen, VEC_SIZE) &&
	       !memcmp(b->seen, b->data + piece * VEC_SIZE, VEC_SIZE);
}

TEST_F_TIMEOUT(zone, append, SECONDS)
{
	struct dma_bio bios[NR_VECS];
	struct bench *b = &self->b;
	int i;

	make_pieces(b, bios, DMA_BIO_ZONE_APPEND, self->start);
	ASSERT_EQ(0, dma_bio_submit(&b->env, bios, NR_VECS, 0, 0));
	EXPECT_EQ(NR_VECS, count_good(bios));
	for (i = 0; i < NR_VECS; i++)
		EXPECT_TRUE(piece_is_where_it_says(b, &bios[i], i))
			TH_LOG("piece %d", i);
}

TEST_F_TIMEOUT(zone, reset_refused, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio = make(b, DMA_BIO_ZONE_RESET, self->start);

	ASSERT_TRUE(dma_bio_disk_write(&b->env, self->start, b->data, SIZE));
	EXPECT_EQ(0, dma_bio_refuse(&b->env, &bio,
				    "not a read, write or zone append"));
	EXPECT_EQ(BLK_STS_NOTSUPP, bio.status);
	EXPECT_TRUE(disk_has_data(b, self->start));
}

/* Several vectors, and not at the start of the zone */
TEST_F_TIMEOUT(zone, append_scattered, SECONDS)
{
	struct bench *b = &self->b;
	struct dma_bio bio;
	int i;

	for (i = 1; i <= 2; i++) {
		bio = make(b, DMA_BIO_ZONE_APPEND, self->start);
		EXPECT_EQ(BLK_STS_OK, dma_bio_run(&b->env, &bio));
	}
	EXPECT_EQ(self->start + BLOCKS, bio.sector);
	EXPECT_TRUE(disk_has_data(b, bio.sector));
}

TEST_HARNESS_MAIN
