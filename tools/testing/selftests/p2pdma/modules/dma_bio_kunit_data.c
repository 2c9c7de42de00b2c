// SPDX-License-Identifier: GPL-2.0
/*
 * Data by DMA address, each direction on its own: what is to be overwritten is
 * something else before, and every byte is compared, also those around it.
 * And how the bios are walked, one segment after the other.
 */
#include <linux/blk-mq-dma.h>
#include "dma_bio_kunit.h"

#define POISON		0xa5
#define RANDOM_ROUNDS	200

static u32 rnd(u32 max)
{
	return prandom_u32_state(&dbt.rnd) % max;
}

static void layout_add(u32 offset, u32 len)
{
	dbt.piece[dbt.nr++] = (struct dbt_piece) { offset, len };
	dbt.size += len;
}

static void layout_reset(void)
{
	dbt.nr = 0;
	dbt.size = 0;
}

void dbt_layout_one(u32 offset, u32 len)
{
	layout_reset();
	layout_add(GUARD + offset, len);
}

static void poison(void *memory)
{
	memset(memory, POISON, BUFFER_SIZE);
	/* p2pmem may be mapped write-combining, the doorbell is not. */
	wmb();
}

/* From the data to where the pieces are, in p2pmem or in an image of it. */
static void scatter(void *memory)
{
	const void *data = dbt.data;
	unsigned int i;

	poison(memory);
	for (i = 0; i < dbt.nr; i++) {
		memcpy(memory + dbt.piece[i].offset, data, dbt.piece[i].len);
		data += dbt.piece[i].len;
	}
	/* See poison(). */
	wmb();
}

static bool p2pmem_has_data(void)
{
	scatter(dbt.image);
	return !memcmp(dbt.p2p, dbt.image, BUFFER_SIZE);
}

static bool rw_disk(sector_t sector, void *data, u32 len, enum req_op op)
{
	return !bdev_rw_virt(dbt.bdev, sector, data, len, op);
}

/* New data, and the disk around it poisoned. */
static bool poison_disk(void)
{
	u32 len = dbt.size + 2 * SECTOR_SIZE;

	prandom_bytes_state(&dbt.rnd, dbt.data, dbt.size);
	memset(dbt.image, POISON, len);
	return rw_disk(FIRST_SECTOR - 1, dbt.image, len, REQ_OP_WRITE);
}

static bool disk_has_data(void)
{
	void *data = dbt.image + SECTOR_SIZE, *tail = data + dbt.size;
	u32 len = dbt.size + 2 * SECTOR_SIZE;

	memset(dbt.image, ~POISON & 0xff, len);
	return rw_disk(FIRST_SECTOR - 1, dbt.image, len, REQ_OP_READ) &&
	       !memchr_inv(dbt.image, POISON, SECTOR_SIZE) &&
	       !memcmp(data, dbt.data, dbt.size) &&
	       !memchr_inv(tail, POISON, SECTOR_SIZE);
}

/* New data, on the disk only. */
static bool fill_disk(void)
{
	prandom_bytes_state(&dbt.rnd, dbt.data, dbt.size);
	poison(dbt.p2p);
	return rw_disk(FIRST_SECTOR, dbt.data, dbt.size, REQ_OP_WRITE);
}

static bool add_piece(struct bio *bio, const struct dbt_piece *piece)
{
	if (!dbt.page)
		return bio_add_dma_addr(bio, dbt.map, dbt.dma + piece->offset,
					piece->len);
	return bio_add_page(bio, dbt.page + PFN_DOWN(piece->offset), piece->len,
			    offset_in_page(piece->offset)) == piece->len;
}

static struct bio *make_bio(struct kunit *test, blk_opf_t opf)
{
	struct bio *bio = bio_alloc(dbt.bdev, dbt.nr + 1, opf, GFP_KERNEL);
	unsigned int added = 0;

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	while (added < dbt.nr && add_piece(bio, &dbt.piece[added]))
		added++;
	KUNIT_EXPECT_EQ(test, added, dbt.nr);
	return bio;
}

static bool run_bio(struct kunit *test, struct bio *bio)
{
	int ret = submit_bio_wait(bio);

	KUNIT_EXPECT_EQ_MSG(test, ret, 0, "%s", blk_op_str(bio_op(bio)));
	bio_put(bio);
	return !ret;
}

static bool written(struct kunit *test)
{
	if (!poison_disk())
		return false;
	scatter(dbt.p2p);
	return run_bio(test, make_bio(test, REQ_OP_WRITE)) && disk_has_data();
}

static bool read_back(struct kunit *test)
{
	return fill_disk() && run_bio(test, make_bio(test, REQ_OP_READ)) &&
	       p2pmem_has_data();
}

void dbt_expect_transfers(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, written(test));
	KUNIT_EXPECT_TRUE(test, read_back(test));
}

/*
 * The page based way, next to which the mapping goes on: the pages are made
 * now, unless user space has asked for them before.
 */
void dbt_test_pages(struct kunit *test)
{
	void *p2p = dbt.p2p;
	struct page *page;

	page = pci_p2pmem_page(dbt.provider, p2p);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, page);
	KUNIT_EXPECT_TRUE(test, is_pci_p2pdma_page(page));
	dbt.page = page;
	dbt.p2p = page_address(page);
	dbt_layout_one(0, SZ_64K);
	dbt_expect_transfers(test);
	dbt.p2p = p2p;
	dbt.page = NULL;
}

struct shape {
	const char *name;
	unsigned int nr;
	u32 first;
	u32 len;
	u32 stride;
};

static const struct shape shapes[] = {
	{ "a sector", 1, 0, SECTOR_SIZE },
	{ "a sector, unaligned", 1, 4, SECTOR_SIZE },
	{ "a sector across pages", 1, SZ_4K - 12, SECTOR_SIZE },
	{ "a page", 1, 0, SZ_4K },
	{ "two pages, unaligned", 1, 516, SZ_8K },
	{ "three pages, unaligned", 1, SZ_2K, SZ_8K + SZ_4K },
	{ "128 KiB", 1, 0, SZ_128K },
	{ "128 KiB, unaligned", 1, 1028, SZ_128K },
	{ "several commands", 1, 0, AREA_SIZE },
	{ "several commands, unaligned", 1, 12, AREA_SIZE - SZ_4K },
	{ "pages with gaps", 64, 0, SZ_4K, SZ_8K },
	{ "sectors with gaps", 32, 0, SECTOR_SIZE, SZ_4K },
	{ "sectors with gaps, unaligned", 32, 100, SECTOR_SIZE, 1540 },
	{ "pieces of sectors", 64, 8, 128, 1000 },
	{ "most vectors", MAX_PIECES, 0, SZ_4K, SZ_8K },
	{ "most vectors, unaligned", MAX_PIECES, 4, SECTOR_SIZE, SZ_8K - 4 },
};

static void layout_shape(const struct shape *shape)
{
	u32 offset = GUARD + shape->first;

	layout_reset();
	for (; dbt.nr < shape->nr; offset += shape->stride)
		layout_add(offset, shape->len);
}

/* The same with the pieces from last to first: adjacent ones must not merge. */
static void layout_reverse(void)
{
	unsigned int i;

	for (i = 0; i < dbt.nr / 2; i++)
		swap(dbt.piece[i], dbt.piece[dbt.nr - 1 - i]);
}

static void expect_shapes(struct kunit *test, bool (*work)(struct kunit *test))
{
	const struct shape *shape;

	for (shape = shapes; shape < shapes + ARRAY_SIZE(shapes); shape++) {
		layout_shape(shape);
		KUNIT_EXPECT_TRUE_MSG(test, work(test), "%s", shape->name);
		layout_reverse();
		KUNIT_EXPECT_TRUE_MSG(test, work(test), "%s, backwards",
				      shape->name);
	}
}

void dbt_test_write(struct kunit *test)
{
	expect_shapes(test, written);
}

void dbt_test_read(struct kunit *test)
{
	expect_shapes(test, read_back);
}

static u32 random_len(void)
{
	switch (rnd(4)) {
	case 0:
		return UNIT * (1 + rnd(SZ_8K / UNIT));
	case 1:
		return SECTOR_SIZE * (1 + rnd(64));
	default:
		return SZ_4K * (1 + rnd(4));
	}
}

static u32 random_gap(u32 end)
{
	switch (rnd(4)) {
	case 0:
		return 0;
	case 1:
		return UNIT * rnd(SZ_4K / UNIT);
	default:
		return ALIGN(end, SZ_4K) - end + SZ_4K * rnd(2);
	}
}

/* Any shape whose size is a number of sectors. */
void dbt_layout_random(void)
{
	unsigned int nr = 1 + rnd(rnd(4) ? 8 : MAX_PIECES - 1);
	u32 end = GUARD, start, len;

	layout_reset();
	while (dbt.nr < nr) {
		start = end + random_gap(end);
		len = random_len();
		if (start + len > AREA_SIZE)
			break;
		layout_add(start, len);
		end = start + len;
	}
	/* A piece of its own, so that the last one can be anything. */
	len = -dbt.size % SECTOR_SIZE;
	if (len)
		layout_add(end + SZ_4K, len);
}

void dbt_test_random_reads_and_writes(struct kunit *test)
{
	bool ok;
	int i;

	for (i = 0; i < RANDOM_ROUNDS; i++) {
		dbt_layout_random();
		ok = i & 1 ? written(test) : read_back(test);
		KUNIT_ASSERT_TRUE_MSG(test, ok,
				      "seed %u, round %d: %u pieces, %u bytes",
				      dbt.seed, i, dbt.nr, dbt.size);
	}
}

/* A read of what is on the disk, for tests that modify the bio first */
static struct bio *make_read(struct kunit *test)
{
	KUNIT_ASSERT_TRUE(test, fill_disk());
	return make_bio(test, REQ_OP_READ);
}

static void expect_read(struct kunit *test, struct bio *bio)
{
	run_bio(test, bio);
	KUNIT_EXPECT_TRUE(test, p2pmem_has_data());
}

void dbt_test_clone(struct kunit *test)
{
	struct bio *bio, *clone;

	layout_shape(&shapes[ARRAY_SIZE(shapes) - 1]);
	bio = make_read(test);
	clone = bio_alloc_clone(dbt.bdev, bio, GFP_KERNEL, &dbt.bios);
	KUNIT_EXPECT_TRUE(test, dbt_names_map(clone));
	expect_read(test, clone);
	bio_put(bio);
}

void dbt_test_split_and_chain(struct kunit *test)
{
	struct bio *bio, *split;

	layout_shape(&shapes[ARRAY_SIZE(shapes) - 1]);
	bio = make_read(test);
	split = bio_split(bio, 5, GFP_KERNEL, &dbt.bios);
	KUNIT_EXPECT_TRUE(test, dbt_names_map(split));
	KUNIT_EXPECT_TRUE(test, dbt_names_map(bio));
	bio_chain(split, bio);
	submit_bio(split);
	expect_read(test, bio);
}

void dbt_test_advance(struct kunit *test)
{
	u32 skip = 3 * SECTOR_SIZE + SZ_4K;
	struct bio *bio;

	dbt_layout_one(12, SZ_64K);
	bio = make_read(test);
	bio_advance(bio, skip);
	memset(dbt.data, POISON, skip);
	expect_read(test, bio);
}

void dbt_test_reuse(struct kunit *test)
{
	struct bio *bio;

	layout_shape(&shapes[ARRAY_SIZE(shapes) - 1]);
	prandom_bytes_state(&dbt.rnd, dbt.data, dbt.size);
	scatter(dbt.p2p);
	bio = make_bio(test, REQ_OP_WRITE);
	KUNIT_EXPECT_EQ(test, submit_bio_wait(bio), 0);
	poison(dbt.p2p);
	bio_reuse(bio, REQ_OP_READ);
	KUNIT_EXPECT_TRUE(test, dbt_names_map(bio));
	bio->bi_iter.bi_sector = FIRST_SECTOR;
	expect_read(test, bio);
}

static bool is_in_map(const struct blk_dma_iter *iter)
{
	return iter->addr - dbt.map->addr <= dbt.map->len - iter->len &&
	       iter->p2pdma.map == PCI_P2PDMA_MAP_BUS_ADDR;
}

/* The request is only there to be walked, it is never started. */
static bool walk(struct kunit *test, struct bio *bio, int segs)
{
	int bytes = bio->bi_iter.bi_size;
	struct dma_iova_state state;
	struct blk_dma_iter iter;
	struct request *rq;
	bool more, ok;

	rq = blk_mq_alloc_request(bdev_get_queue(dbt.bdev), bio->bi_opf, 0);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, rq);
	if (IS_ERR(rq))
		return false;
	rq->bio = bio;
	rq->__data_len = bytes;
	/* The block layer has to initialize it. */
	memset(&iter, POISON, sizeof(iter));
	more = blk_rq_dma_map_iter_start(rq, dbt.client, &state, &iter);
	while (more && is_in_map(&iter)) {
		bytes -= iter.len;
		segs--;
		more = blk_rq_dma_map_iter_next(rq, dbt.client, &iter);
	}
	rq->bio = NULL;
	blk_mq_free_request(rq);

	ok = !more && !iter.status && !segs && !bytes;
	KUNIT_EXPECT_TRUE_MSG(test, ok,
			      "%u bytes at %pad, type %d, status %d; left: %d bytes, %d segments",
			      iter.len, &iter.addr, iter.p2pdma.map,
			      (__force int)iter.status, bytes, segs);
	return ok;
}

void dbt_test_counting_equals_iterating(struct kunit *test)
{
	struct queue_limits lim = bdev_get_queue(dbt.bdev)->limits;
	struct bio *bio;
	unsigned int segs, walks = 0;
	bool ok = true;
	int i, split;

	for (i = 0; i < 5 * RANDOM_ROUNDS && ok; i++) {
		dbt_layout_random();
		bio = make_bio(test, REQ_OP_READ);
		split = bio_split_io_at(bio, &lim, &segs, AREA_SIZE, UNIT - 1);
		KUNIT_EXPECT_GE(test, split, 0);
		if (!split) {
			ok = walk(test, bio, segs);
			walks++;
		}
		bio_put(bio);
	}
	KUNIT_EXPECT_GE(test, walks, RANDOM_ROUNDS);
}

/*
 * Segments smaller than the vectors, which NVMe alone would not ask for. PRPs
 * can't be made of all of them, hence the data is in whole pages.
 */
void dbt_test_small_segments(struct kunit *test)
{
	struct request_queue *q = bdev_get_queue(dbt.bdev);
	struct queue_limits old, lim;

	old = queue_limits_start_update(q);
	lim = old;
	lim.max_segment_size = SZ_8K;
	lim.seg_boundary_mask = SZ_16K - 1;
	KUNIT_ASSERT_EQ(test, queue_limits_commit_update_frozen(q, &lim), 0);

	dbt_layout_one(SZ_4K, SZ_256K);
	dbt_expect_transfers(test);
	dbt_test_counting_equals_iterating(test);

	lim = queue_limits_start_update(q);
	lim.max_segment_size = old.max_segment_size;
	lim.seg_boundary_mask = old.seg_boundary_mask;
	KUNIT_EXPECT_EQ(test, queue_limits_commit_update_frozen(q, &lim), 0);
}
