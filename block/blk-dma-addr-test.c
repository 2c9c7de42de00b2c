// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of DMA-address bios: building, splitting, counting, iterating,
 * cloning, reusing, refusing and submitting them.
 *
 * Split random bios by random queue limits, and compare the result with a
 * reference (dma_test_ref_*) that implements the definition of the limits and
 * shares no code with the block layer.
 *
 * Two drives have the same memory mapped, each at an address of its own.
 * Nothing is transferred, so any address will do.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/blk-integrity.h>
#include <linux/blk-mq-dma.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/hash.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/sizes.h>
#include "blk.h"

#define MAX_RANGES	(BIO_MAX_VECS - 1)
/* A bio can be cut into many more pieces, but those are all alike. */
#define MAX_PIECES	32

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "repeat a run, 0 for a new one");

static unsigned int rounds = 3000;
module_param(rounds, uint, 0444);
MODULE_PARM_DESC(rounds, "how often to try something random");

static bool bench;
module_param(bench, bool, 0444);
MODULE_PARM_DESC(bench, "measure how long it takes, which is not checked");

struct extent {
	u64 addr;
	u64 len;
};

struct extents {
	unsigned int nr;
	struct extent r[BIO_MAX_VECS];
};

struct test_bio {
	struct bio bio;
	struct bio_vec table[BIO_MAX_VECS];
	unsigned int ended;
};

struct drive {
	struct blk_mq_tag_set set;
	struct gendisk *disk;
	struct request_queue *q;
	const struct queue_limits *lim;
	struct device *dev;
	struct dma_premap map;
};

/*
 * @drives: two, whose mappings are siblings
 * @stack: disk of a stacking driver above the first of them
 * @named: mapping that the bios of this round name
 * @block, @unit, @align, @max_len: shape of the ranges of this round
 * @end: end of the last range, relative to the mapping
 * @size: total length of the ranges
 * @offsets: the ranges, relative to the mapping
 */
struct dma_test {
	struct kunit *test;
	struct rnd_state rnd;
	unsigned int round;
	struct drive drives[2];
	struct gendisk *stack;
	struct dma_premap *named;
	struct test_bio bios[2];
	struct request rq;
	struct list_head rqs;
	u32 block;
	u32 unit;
	u32 align;
	u32 max_len;
	u64 end;
	u64 size;
	unsigned int refused;
	struct extents offsets;
	struct extents part;
	struct extents want;
	struct extents got;
};

KUNIT_DEFINE_ACTION_WRAPPER(dma_test_put_disk, put_disk, struct gendisk *);
KUNIT_DEFINE_ACTION_WRAPPER(dma_test_free_set, blk_mq_free_tag_set,
			    struct blk_mq_tag_set *);

/* Does not abort the test: the driver must complete the request. */
static void dma_test_push(struct dma_test *f, struct extents *list,
		u64 addr, u32 len)
{
	if (list->nr < ARRAY_SIZE(list->r))
		list->r[list->nr++] = (struct extent) { addr, len };
	else
		KUNIT_FAIL(f->test, "more than %u ranges", list->nr);
}

static void dma_test_check_got(struct dma_test *f, const struct extents *want)
{
	KUNIT_ASSERT_EQ(f->test, f->got.nr, want->nr);
	KUNIT_ASSERT_MEMEQ(f->test, f->got.r, want->r,
			   want->nr * sizeof(want->r[0]));
}

/*
 * The reference
 */

/* Bytes from @addr on that fit in one segment */
static u64 dma_test_ref_room(const struct queue_limits *lim, u64 addr)
{
	u64 room = lim->max_segment_size;
	u64 window = (u64)lim->seg_boundary_mask + 1;

	/* The mask of all ones is no boundary. */
	if (window)
		room = min(room, window - addr % window);
	return room;
}

/* Extend the last range if bio_add_dma_addr() must extend the last bio_vec. */
static void dma_test_ref_add(struct dma_test *f, struct extents *list,
		u64 addr, u32 len)
{
	struct extent *last = &list->r[list->nr - 1];

	if (list->nr && last->addr + last->len == addr &&
	    last->addr % PAGE_SIZE + last->len + len <= U32_MAX)
		last->len += len;
	else
		dma_test_push(f, list, addr, len);
}

/* List the addresses of @len bytes of the bio, from its byte @from on. */
static void dma_test_ref_part(struct dma_test *f, u64 base, u32 from, u32 len,
		struct extents *out)
{
	unsigned int i;

	out->nr = 0;
	for (i = 0; i < f->offsets.nr && len; i++) {
		const struct extent *r = &f->offsets.r[i];
		u32 skip = min(from, r->len), take = min(r->len - skip, len);

		if (take)
			dma_test_push(f, out, base + r->addr + skip, take);
		from -= skip;
		len -= take;
	}
}

/* Cut each range into segments. */
static void dma_test_ref_segments(struct dma_test *f,
		const struct queue_limits *lim,
		const struct extents *ranges, struct extents *out)
{
	unsigned int i;
	u64 addr, end, len;

	out->nr = 0;
	for (i = 0; i < ranges->nr; i++) {
		end = ranges->r[i].addr + ranges->r[i].len;
		for (addr = ranges->r[i].addr; addr != end; addr += len) {
			len = min(end - addr, dma_test_ref_room(lim, addr));
			dma_test_push(f, out, addr, len);
		}
	}
}

/*
 * Take segments until one does not fit in the same request.  Return what
 * bio_split_io_at() has to return.
 */
static int dma_test_ref_split(const struct queue_limits *lim,
		const struct extents *ranges, u32 max_bytes, unsigned int *segs)
{
	u32 bytes = 0, done, len;
	unsigned int i;
	u64 addr, end = 0;

	*segs = 0;
	for (i = 0; i < ranges->nr; i++) {
		if ((ranges->r[i].addr | ranges->r[i].len) & lim->dma_alignment)
			return -EINVAL;
		for (done = 0; done < ranges->r[i].len; done += len) {
			addr = ranges->r[i].addr + done;
			if ((*segs && (end | addr) & lim->virt_boundary_mask) ||
			    *segs == lim->max_segments || bytes == max_bytes)
				goto split;
			len = min3(dma_test_ref_room(lim, addr),
				   ranges->r[i].len - done, max_bytes - bytes);
			end = addr + len;
			bytes += len;
			++*segs;
		}
	}
	return 0;
split:
	bytes -= bytes % lim->logical_block_size;
	return bytes ? bytes / SECTOR_SIZE : -EINVAL;
}

/* End at a physical block if possible, else at a logical one. */
static u32 dma_test_ref_max_bytes(const struct queue_limits *lim,
		sector_t sector)
{
	u32 block = lim->physical_block_size / SECTOR_SIZE;
	u32 max = lim->max_dma_addr_sectors ?
		  min_not_zero(lim->max_dma_addr_sectors,
			       lim->max_user_sectors) : lim->max_sectors;
	u32 n;

	if (lim->chunk_sectors)
		max = min_t(u64, max, lim->chunk_sectors -
			    sector % lim->chunk_sectors);
	for (n = max; n && (sector + n) % block; n--)
		;
	if (!n)
		n = max - max % (lim->logical_block_size / SECTOR_SIZE);
	return n * SECTOR_SIZE;
}

/*
 * Random limits and bios
 */

/* Random number below @n */
static u64 dma_test_rnd(struct dma_test *f, u64 n)
{
	u64 high = prandom_u32_state(&f->rnd);

	return ((high << 32) | prandom_u32_state(&f->rnd)) % n;
}

static bool dma_test_one_in(struct dma_test *f, u32 n)
{
	return dma_test_rnd(f, n) == 0;
}

static u64 dma_test_rnd_power(struct dma_test *f, unsigned int from,
		unsigned int to)
{
	return 1ULL << (from + dma_test_rnd(f, to - from + 1));
}

/* All orders of magnitude below 2 to the power of @max are equally likely. */
static u64 dma_test_rnd_below_power(struct dma_test *f, unsigned int max)
{
	return dma_test_rnd(f, dma_test_rnd_power(f, 0, max));
}

/* Seed each round by its number, so that it can be repeated. */
static bool dma_test_next_round(struct dma_test *f)
{
	if (++f->round > rounds)
		return false;
	prandom_seed_state(&f->rnd, ((u64)seed << 32 | f->round) *
			   GOLDEN_RATIO_64);
	return true;
}

static void dma_test_set_limits(struct dma_test *f, struct request_queue *q,
		struct queue_limits *new)
{
	/* Take the lock.  Nothing of the old limits stays. */
	queue_limits_start_update(q);
	KUNIT_ASSERT_EQ(f->test, queue_limits_commit_update(q, new), 0);
}

static void dma_test_rnd_limits(struct dma_test *f, struct drive *d)
{
	struct queue_limits lim = {
		.logical_block_size	= f->block,
		.physical_block_size	= f->block << dma_test_rnd(f, 4),
		.dma_alignment		= dma_test_rnd_power(f, 1, 9) - 1,
		.max_segments		= 1 + dma_test_rnd_below_power(f, 8),
		.max_segment_size	= dma_test_one_in(f, 4) ? UINT_MAX :
				SZ_4K + dma_test_rnd_below_power(f, 20),
		.seg_boundary_mask	= dma_test_one_in(f, 4) ? ULONG_MAX :
				dma_test_rnd_power(f, 12, 32) - 1,
		.max_hw_sectors		= PAGE_SECTORS +
					  dma_test_rnd_below_power(f, 22),
	};

	lim.max_user_sectors = lim.max_hw_sectors;
	if (dma_test_one_in(f, 2))
		lim.max_dma_addr_sectors = PAGE_SECTORS +
					   dma_test_rnd_below_power(f, 22);
	if (dma_test_one_in(f, 4))
		lim.max_user_sectors = PAGE_SECTORS +
				       dma_test_rnd_below_power(f, 22);
	if (dma_test_one_in(f, 2))
		lim.chunk_sectors = f->block / SECTOR_SIZE *
				    (8 + dma_test_rnd_below_power(f, 12));
	if (dma_test_one_in(f, 3))
		lim.virt_boundary_mask = dma_test_rnd_power(f, 9, 12) - 1;
	dma_test_set_limits(f, d->q, &lim);
}

/* Map below, across and above 4 GiB, and at the end of the address space. */
static void dma_test_rnd_drives(struct dma_test *f)
{
	u64 len = dma_test_rnd_power(f, 20, 34);
	struct drive *d;

	f->block = dma_test_rnd_power(f, 9, 12);
	for (d = f->drives; d < f->drives + ARRAY_SIZE(f->drives); d++) {
		dma_test_rnd_limits(f, d);
		d->map.len = len;
		d->map.addr = PAGE_SIZE * dma_test_rnd_below_power(f, 30);
		if (dma_test_one_in(f, 4))
			d->map.addr = -len;
	}
	f->named = &f->drives[dma_test_rnd(f, 2)].map;
}

/* Next to the last range, after a small gap, or anywhere */
static u64 dma_test_rnd_start(struct dma_test *f, u32 align)
{
	/* Leave room for a block. */
	u64 start = f->end, limit = f->named->len - SZ_4K;

	if (dma_test_one_in(f, 3))
		start = align * dma_test_rnd(f, limit / align);
	else if (dma_test_one_in(f, 2))
		start += align * (1 + dma_test_rnd(f, 8));
	return start < limit ? start : 0;
}

static void dma_test_add(struct dma_test *f, struct bio *bio, u64 offset,
		u32 len)
{
	u64 addr = f->named->addr + offset;

	dma_test_ref_add(f, &f->offsets, offset, len);
	f->size += len;
	KUNIT_ASSERT_TRUE(f->test, bio_add_dma_addr(bio, f->named, addr, len));
}

/* Add ranges that add up to whole blocks. */
static void dma_test_rnd_ranges(struct dma_test *f, struct bio *bio)
{
	u64 nr = 1 + min(dma_test_rnd_below_power(f, 8), MAX_RANGES - 2);
	u64 start, end;
	u32 align;

	while (nr--) {
		align = dma_test_one_in(f, 8) ? f->unit : f->align;
		start = dma_test_rnd_start(f, align);
		end = start + 1 + dma_test_rnd(f, f->max_len);
		end = min(round_up(end, align), f->named->len);
		if (f->size + (end - start) > BIO_MAX_SIZE - SZ_64K)
			break;
		dma_test_add(f, bio, start, end - start);
		f->end = end;
	}
	if (f->size % f->block)
		dma_test_add(f, bio, dma_test_rnd(f, SZ_1K) * f->unit,
			     f->block - f->size % f->block);
}

static void dma_test_count_end(struct bio *bio)
{
	container_of(bio, struct test_bio, bio)->ended++;
}

/* Set up a bio on the first drive. */
static struct bio *dma_test_init_bio(struct dma_test *f, struct test_bio *b,
		blk_opf_t opf)
{
	f->offsets.nr = 0;
	f->size = 0;
	bio_init(&b->bio, f->drives[0].disk->part0, b->table,
		 ARRAY_SIZE(b->table), opf);
	b->bio.bi_end_io = dma_test_count_end;
	b->ended = 0;
	return &b->bio;
}

/* One bio in 32 may have ranges of up to 2 GiB. */
static struct bio *dma_test_rnd_bio(struct dma_test *f)
{
	struct bio *bio;

	dma_test_rnd_drives(f);
	f->end = 0;
	f->unit = 1 + max(f->drives[0].lim->dma_alignment,
			  f->drives[1].lim->dma_alignment);
	/* Now and then ignore the alignment that the devices want. */
	if (dma_test_one_in(f, 16))
		f->unit = 1;
	f->align = dma_test_one_in(f, 3) ? f->unit : PAGE_SIZE;
	f->max_len = dma_test_rnd_power(f, 9, dma_test_one_in(f, 32) ? 31 : 16);
	bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	dma_test_rnd_ranges(f, bio);
	return bio;
}

/*
 * Splitting, counting, iterating
 */

/* Check the addresses that @bio has for @d. */
static void dma_test_check_part(struct dma_test *f, struct drive *d,
		struct bio *bio, u32 from, u32 len)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	KUNIT_ASSERT_PTR_EQ(f->test, bio_find_dma_map(bio), &d->map);
	KUNIT_ASSERT_EQ(f->test, bio->bi_iter.bi_size, len);
	f->got.nr = 0;
	bio_for_each_bvec(bv, bio, iter)
		dma_test_push(f, &f->got, bvec_limits_addr(&bv, &d->map),
			      bv.bv_len);
	dma_test_ref_part(f, d->map.addr, from, len, &f->part);
	dma_test_check_got(f, &f->part);
}

static void dma_test_init_request(struct dma_test *f, struct bio *bio)
{
	f->rq = (struct request) {
		.q			= bdev_get_queue(bio->bi_bdev),
		.bio			= bio,
		.biotail		= bio,
		.cmd_flags		= bio->bi_opf,
		.__sector		= bio->bi_iter.bi_sector,
		.__data_len		= bio->bi_iter.bi_size,
	};
	INIT_LIST_HEAD(&f->rqs);
	list_add(&f->rq.queuelist, &f->rqs);
}

/* Iterate as a driver does.  Without a device, nothing can be mapped. */
static void dma_test_iterate(struct dma_test *f, struct request *rq)
{
	struct dma_iova_state state;
	struct blk_dma_iter iter;
	bool more;

	more = blk_rq_dma_map_iter_start(rq, NULL, &state, &iter);
	KUNIT_EXPECT_EQ(f->test, blk_rq_dma_addr(rq), iter.addr);
	while (more) {
		dma_test_push(f, &f->got, iter.addr, iter.len);
		more = blk_rq_dma_map_iter_next(rq, NULL, &iter);
	}
	KUNIT_EXPECT_TRUE(f->test, iter.status == BLK_STS_OK);
	KUNIT_EXPECT_EQ(f->test, iter.p2pdma.map, PCI_P2PDMA_MAP_BUS_ADDR);
	KUNIT_EXPECT_TRUE(f->test, blk_rq_dma_unmap(rq, NULL, &state,
						 blk_rq_bytes(rq),
						 iter.p2pdma.map));
}

static void dma_test_check_request(struct dma_test *f, struct bio *bio,
		unsigned int segs, const struct extents *ranges)
{
	struct request *rq = &f->rq;

	dma_test_init_request(f, bio);
	dma_test_ref_segments(f, &rq->q->limits, ranges, &f->want);
	/* Rounding down to a block may have cut segments off. */
	KUNIT_ASSERT_LE(f->test, f->want.nr, segs);
	KUNIT_ASSERT_EQ(f->test, blk_recalc_rq_segments(rq), f->want.nr);
	f->got.nr = 0;
	dma_test_iterate(f, rq);
	dma_test_check_got(f, &f->want);
}

/*
 * Split as inside of a ->submit_bio() method, where the rest is put on a list
 * instead of being submitted.
 */
static struct bio *dma_test_split_off(struct drive *d, struct bio *bio,
		unsigned int *segs)
{
	struct bio_list rest[2] = { };

	current->bio_list = rest;
	bio = bio_split_rw(bio, d->lim, segs);
	current->bio_list = NULL;
	return bio;
}

/* Return what bio_split_io_at() has to return for the rest of a bio. */
static int dma_test_ref_front(struct dma_test *f, struct drive *d,
		struct bio *rest, u32 done, unsigned int *segs)
{
	u32 max = dma_test_ref_max_bytes(d->lim, rest->bi_iter.bi_sector);
	int sectors;

	dma_test_ref_part(f, d->map.addr, done, rest->bi_iter.bi_size,
			  &f->part);
	sectors = dma_test_ref_split(d->lim, &f->part, max, segs);
	/* The shortcut is only for what is one segment. */
	if (!bio_may_need_split(rest, d->lim))
		KUNIT_ASSERT_EQ(f->test, *segs, 1);
	return sectors;
}

/* Return the size of the front, or of all of @whole if it was refused. */
static u32 dma_test_check_front(struct dma_test *f, struct drive *d,
		struct bio *whole, u32 done)
{
	u32 bytes = whole->bi_iter.bi_size;
	unsigned int want_segs, segs;
	int sectors = dma_test_ref_front(f, d, whole, done, &want_segs);
	struct bio *bio = dma_test_split_off(d, whole, &segs);

	KUNIT_ASSERT_EQ(f->test, !bio, sectors < 0);
	if (!bio) {
		KUNIT_ASSERT_TRUE(f->test, whole->bi_status == BLK_STS_INVAL);
		f->refused++;
		return bytes;
	}

	if (sectors)
		bytes = sectors * SECTOR_SIZE;
	KUNIT_ASSERT_EQ(f->test, segs, want_segs);
	dma_test_check_part(f, d, bio, done, bytes);
	dma_test_check_request(f, bio, segs, &f->part);
	bio_endio(bio);
	return bytes;
}

/* Return the number of pieces that @bio is split into for @d. */
static unsigned int dma_test_split_bio(struct dma_test *f,
		struct drive *d, struct bio *bio)
{
	struct test_bio *b = container_of(bio, struct test_bio, bio);
	u32 done = 0;
	unsigned int pieces;

	b->ended = 0;
	bio_set_dev(bio, d->disk->part0);
	bio->bi_iter.bi_sector = f->block / SECTOR_SIZE *
				 (SZ_1M + dma_test_rnd(f, SZ_1M));
	dma_test_check_part(f, d, bio, 0, f->size);
	for (pieces = 0; pieces < MAX_PIECES && done < f->size; pieces++)
		done += dma_test_check_front(f, d, bio, done);
	/* The parts have ended.  The whole ends once. */
	if (!b->ended)
		bio_endio(bio);
	KUNIT_ASSERT_EQ(f->test, b->ended, 1);
	return pieces;
}

/* Send each bio to the second drive as if the first one had failed. */
static void dma_test_split(struct kunit *test)
{
	struct dma_test *f = test->priv;
	unsigned int pieces = 0;
	struct bio *bio;

	while (dma_test_next_round(f)) {
		bio = dma_test_rnd_bio(f);
		pieces += dma_test_split_bio(f, &f->drives[0], bio);
		bio_reuse(bio, bio_op(bio));
		pieces += dma_test_split_bio(f, &f->drives[1], bio);
		bio_uninit(bio);
	}
	kunit_info(test, "%u bios, each on two drives, %u requests, %u refused\n",
		   rounds, pieces, f->refused);
	KUNIT_EXPECT_GT(test, pieces, 4 * rounds);
	KUNIT_EXPECT_GT(test, f->refused, 0);
}

/* For the second drive, the boundary is in the middle of the range. */
static void dma_test_limits_by_base(struct kunit *test)
{
	struct queue_limits lim = { .seg_boundary_mask = SZ_64K - 1 };
	struct dma_test *f = test->priv;
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	unsigned int i, segs;

	f->drives[1].map.addr += SZ_32K;
	dma_test_add(f, bio, SZ_1M, SZ_64K);
	for (i = 0; i < 2; i++) {
		dma_test_set_limits(f, f->drives[i].q, &lim);
		bio_set_dev(bio, f->drives[i].disk->part0);
		KUNIT_EXPECT_EQ(test, 0, bio_split_rw_at(bio, f->drives[i].lim,
							 &segs, SZ_1M));
		KUNIT_EXPECT_EQ(test, segs, 1 + i);
	}
	bio_uninit(bio);
}

/*
 * Cloning, resetting, reusing
 */

/* Advance and split a clone. */
static void dma_test_check_clone(struct dma_test *f, struct drive *d,
		struct bio *clone)
{
	u32 size = clone->bi_iter.bi_size, skip, first;
	struct bio *split;

	dma_test_check_part(f, d, clone, 0, size);
	KUNIT_ASSERT_TRUE(f->test, bio_flagged(clone, BIO_CLONED));
	KUNIT_ASSERT_FALSE(f->test, bio_add_dma_addr(clone, f->named,
						     f->named->addr, SZ_4K));
	skip = SECTOR_SIZE * dma_test_rnd(f, size / SECTOR_SIZE);
	bio_advance(clone, skip);
	dma_test_check_part(f, d, clone, skip, size - skip);
	if (bio_sectors(clone) < 2)
		return;

	first = 1 + dma_test_rnd(f, bio_sectors(clone) - 1);
	split = bio_split(clone, first, GFP_KERNEL, &d->disk->bio_split);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(f->test, split);
	first *= SECTOR_SIZE;
	dma_test_check_part(f, d, split, skip, first);
	bio_put(split);
	dma_test_check_part(f, d, clone, skip + first, size - skip - first);
}

static void dma_test_clone(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct bio *bio, clone;
	struct drive *d;

	while (dma_test_next_round(f)) {
		bio = dma_test_rnd_bio(f);
		d = &f->drives[f->round % 2];
		KUNIT_ASSERT_EQ(test, bio_init_clone(d->disk->part0, &clone,
						     bio, GFP_KERNEL), 0);
		dma_test_check_clone(f, d, &clone);
		bio_uninit(&clone);
		dma_test_check_part(f, &f->drives[0], bio, 0, f->size);
		bio_uninit(bio);
	}
}

static void dma_test_reset_and_reuse(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct drive *d = &f->drives[0];
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);

	dma_test_add(f, bio, SZ_512, SZ_4K);
	dma_test_add(f, bio, SZ_8K, SZ_1K);
	bio_advance(bio, SZ_4K + SZ_512);
	bio_reuse(bio, REQ_OP_WRITE);
	KUNIT_EXPECT_TRUE(test, bio_op(bio) == REQ_OP_WRITE);
	dma_test_check_part(f, d, bio, 0, SZ_4K + SZ_1K);

	/* Start again, with REQ_DMA_ADDR still set. */
	bio_reset(bio, d->disk->part0, bio->bi_opf);
	KUNIT_EXPECT_FALSE(test, bio_can_use_dma_addr(bio));
	f->offsets.nr = 0;
	f->named = &f->drives[1].map;
	dma_test_add(f, bio, SZ_1M, SZ_4K);
	dma_test_check_part(f, d, bio, 0, SZ_4K);

	/* Without the flag, the bio is like any other. */
	bio_reset(bio, d->disk->part0, REQ_OP_READ);
	KUNIT_EXPECT_FALSE(test, bio_is_dma_addr(bio));
	KUNIT_EXPECT_EQ(test, bio_add_page(bio, ZERO_PAGE(0), SZ_4K, 0), SZ_4K);
	bio_reuse(bio, REQ_OP_WRITE);
	KUNIT_EXPECT_EQ(test, bio->bi_iter.bi_idx, 0);
	KUNIT_EXPECT_EQ(test, bio->bi_iter.bi_size, SZ_4K);
	bio_uninit(bio);
}

/*
 * bio_add_dma_addr()
 */

static void dma_test_check_refused(struct dma_test *f, struct bio *bio,
		u64 addr, u32 len)
{
	struct bio before = *bio;
	struct bio_vec *last = bio->bi_io_vec + max(bio->bi_vcnt, 1) - 1;
	struct bio_vec last_before = *last;

	f->round++;
	KUNIT_ASSERT_FALSE(f->test, bio_add_dma_addr(bio, f->named, addr, len));
	KUNIT_ASSERT_MEMEQ(f->test, bio, &before, sizeof(before));
	KUNIT_ASSERT_MEMEQ(f->test, last, &last_before, sizeof(last_before));
}

static void dma_test_check_range(struct dma_test *f, u64 addr, u64 len)
{
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);

	f->named->addr = addr;
	f->named->len = len;
	dma_test_check_refused(f, bio, addr, 0);
	dma_test_check_refused(f, bio, addr - 1, 2);
	dma_test_check_refused(f, bio, addr + len, 1);
	dma_test_check_refused(f, bio, addr + len - 1, 2);
	dma_test_check_refused(f, bio, addr + len - 1, U32_MAX);
	dma_test_check_refused(f, bio, addr ^ SZ_4G, 1);
	dma_test_add(f, bio, len - 1, 1);
	dma_test_add(f, bio, 0, 1);
	dma_test_check_part(f, &f->drives[0], bio, 0, 2);
	bio_uninit(bio);
}

static void dma_test_add_range(struct kunit *test)
{
	dma_test_check_range(test->priv, SZ_1M, SZ_1M);
	dma_test_check_range(test->priv, SZ_1M, SZ_4K + SZ_512);
	dma_test_check_range(test->priv, SZ_4G - SZ_4K, SZ_8K);
	dma_test_check_range(test->priv, -(u64)SZ_1M, SZ_1M);
	dma_test_check_range(test->priv, 0, SZ_4K);
}

/* Refuse to add to pages, or to a sibling of the mapping. */
static void dma_test_add_to_other(struct kunit *test)
{
	struct dma_test *f = test->priv;
	u64 addr = f->named->addr;
	struct bio *bio;

	bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	KUNIT_ASSERT_EQ(test, bio_add_page(bio, ZERO_PAGE(0), SZ_4K, 0), SZ_4K);
	dma_test_check_refused(f, bio, addr, SZ_4K);

	/* even if REQ_DMA_ADDR is set */
	bio->bi_opf |= REQ_DMA_ADDR;
	dma_test_check_refused(f, bio, addr, SZ_4K);
	KUNIT_EXPECT_FALSE(test, bio_can_use_dma_addr(bio));
	bio_uninit(bio);

	bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	dma_test_add(f, bio, 0, SZ_4K);
	f->named = &f->drives[1].map;
	addr = f->named->addr;
	dma_test_check_refused(f, bio, addr + SZ_4K, SZ_4K);
	bio_uninit(bio);
}

/* Add adjacent ranges, but from the end to the front. */
static void dma_test_add_until_full(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	u64 offset = f->named->len;
	int i;

	for (i = 0; i < MAX_RANGES; i++) {
		offset -= SZ_4K;
		dma_test_add(f, bio, offset, SZ_4K);
	}
	dma_test_check_refused(f, bio, f->named->addr + offset - SZ_4K, SZ_4K);
	/* still room in the last one */
	dma_test_add(f, bio, offset + SZ_4K, SZ_1K);
	dma_test_check_part(f, &f->drives[0], bio, 0, f->size);
	bio_uninit(bio);
}

/* The mapping needs a bio_vec, too. */
static void dma_test_add_to_small(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct block_device *bdev = f->drives[0].disk->part0;
	struct bio_vec table[2] = { };
	struct bio bio;

	bio_init(&bio, bdev, table, 1, REQ_OP_READ);
	dma_test_check_refused(f, &bio, f->named->addr, SZ_4K);
	bio_init(&bio, bdev, table, 2, REQ_OP_READ | REQ_DMA_ADDR);
	KUNIT_EXPECT_FALSE(test, bio_can_use_dma_addr(&bio));
	dma_test_add(f, &bio, SZ_8K, SZ_4K);
	dma_test_check_refused(f, &bio, f->named->addr + SZ_1M, SZ_4K);
	dma_test_check_part(f, &f->drives[0], &bio, 0, SZ_4K);
	bio_uninit(&bio);
}

/*
 * Offsets in a bio_vec have 32 bits and are relative to the page that it starts
 * in.  One that starts in the middle of a page must not reach 4 GiB.
 */
static void dma_test_add_huge(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct drive *d = &f->drives[0];
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	u64 offset = SZ_4K - SZ_512, addr = f->named->addr + offset;
	u32 len = SZ_4G - SZ_4K;

	dma_test_check_refused(f, bio, addr, len + SZ_512);
	dma_test_add(f, bio, offset, len);
	dma_test_add(f, bio, offset + len, SZ_1K);
	dma_test_check_part(f, d, bio, 0, len + SZ_1K);
	bio_advance(bio, len - SZ_512);
	dma_test_check_part(f, d, bio, len - SZ_512, SZ_512 + SZ_1K);
	bio_advance(bio, SZ_1K);
	dma_test_check_part(f, d, bio, len + SZ_512, SZ_512);
	bio_uninit(bio);
}

static void dma_test_add_too_much(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	u64 addr = f->named->addr;

	dma_test_add(f, bio, 0, SZ_1G);
	dma_test_add(f, bio, SZ_4G, 3U * SZ_1G - 1);
	dma_test_check_refused(f, bio, addr + SZ_2G, 1);
	dma_test_check_refused(f, bio, addr + SZ_4G + 3UL * SZ_1G - 1, 1);
	bio_uninit(bio);

	bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
	dma_test_add(f, bio, 0, BIO_MAX_SIZE);
	dma_test_check_refused(f, bio, addr + BIO_MAX_SIZE, 1);
	bio_uninit(bio);
}

/*
 * Which mapping a device uses, and which bios it refuses
 */

/* Set up a bio at @sector, with DMA addresses or with a page. */
static struct bio *dma_test_at_sector(struct dma_test *f, struct test_bio *b,
		bool dma, sector_t sector)
{
	struct bio *bio = dma_test_init_bio(f, b, REQ_OP_READ);

	bio->bi_iter.bi_sector = sector;
	if (dma)
		dma_test_add(f, bio, sector * SECTOR_SIZE, SZ_4K);
	else
		bio_add_virt_nofail(bio, page_address(ZERO_PAGE(0)), SZ_4K);
	return bio;
}

static struct bio *dma_test_one_range(struct dma_test *f, blk_opf_t opf)
{
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], opf);

	dma_test_add(f, bio, SZ_8K, SZ_4K);
	return bio;
}

static void dma_test_check_found(struct dma_test *f, struct bio *bio,
		const struct dma_premap *want)
{
	KUNIT_EXPECT_PTR_EQ(f->test, bio_find_dma_map(bio), want);
	KUNIT_EXPECT_EQ(f->test, bio_can_use_dma_addr(bio), !!want);
}

static void dma_test_find_map(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct dma_premap *a = &f->drives[0].map, *b = &f->drives[1].map;
	struct dma_premap again = { .dev = a->dev, .len = a->len };
	struct bio *bio = dma_test_one_range(f, REQ_OP_READ);

	dma_test_check_found(f, bio, a);
	a->dead = true;
	dma_test_check_found(f, bio, NULL);
	/* The device is back, and has a new mapping. */
	list_add_tail(&again.siblings, &b->siblings);
	dma_test_check_found(f, bio, &again);
	again.dead = true;
	dma_test_check_found(f, bio, NULL);
	list_del_init(&again.siblings);

	/* The named mapping may be dead if another one is used. */
	bio_set_dev(bio, f->drives[1].disk->part0);
	dma_test_check_found(f, bio, b);
	list_del_init(&b->siblings);
	dma_test_check_found(f, bio, NULL);
	list_add(&b->siblings, &a->siblings);
	dma_test_check_found(f, bio, b);

	/* A stacking driver has no DMA device, and uses the named mapping. */
	bio_set_dev(bio, f->stack->part0);
	KUNIT_EXPECT_PTR_EQ(test, bio_find_dma_map(bio), a);
	KUNIT_EXPECT_FALSE(test, bio_can_use_dma_addr(bio));
	bio_uninit(bio);
}

static void dma_test_operations(struct kunit *test)
{
	struct dma_test *f = test->priv;
	unsigned int op;
	struct bio *bio;
	bool want;

	for (op = 0; op <= (__force unsigned int)REQ_OP_LAST; op++) {
		bio = dma_test_one_range(f, (__force blk_opf_t)op);
		want = bio_op(bio) == REQ_OP_READ ||
		       bio_op(bio) == REQ_OP_WRITE ||
		       bio_op(bio) == REQ_OP_ZONE_APPEND;
		KUNIT_EXPECT_EQ_MSG(test, bio_can_use_dma_addr(bio), want,
				    "operation %u", op);
		bio_uninit(bio);
	}
}

#ifdef CONFIG_BLK_INLINE_ENCRYPTION
static void dma_test_encryption(struct kunit *test)
{
	struct bio *bio = dma_test_one_range(test->priv, REQ_OP_WRITE);

	/* not looked into */
	bio->bi_crypt_context = test->priv;
	KUNIT_EXPECT_FALSE(test, bio_can_use_dma_addr(bio));
	bio->bi_crypt_context = NULL;
	KUNIT_EXPECT_TRUE(test, bio_can_use_dma_addr(bio));
	bio_uninit(bio);
}
#endif

#ifdef CONFIG_BLK_DEV_INTEGRITY
static const struct pi_rule {
	enum req_op op;
	unsigned int flags;
	bool no_csum;
	bool payload;
	bool want;
} pi_rules[] = {
	{ REQ_OP_READ },
	{ REQ_OP_WRITE },
	{ REQ_OP_ZONE_APPEND },
	{ REQ_OP_READ, .no_csum = true, .want = true },
	{ REQ_OP_WRITE, .payload = true, .want = true },
	{ REQ_OP_READ, BLK_INTEGRITY_DEVICE_CAPABLE },
	{ REQ_OP_READ, BLK_INTEGRITY_NOVERIFY, .want = true },
	{ REQ_OP_WRITE, BLK_INTEGRITY_NOVERIFY },
	{ REQ_OP_READ, BLK_INTEGRITY_NOGENERATE },
	{ REQ_OP_WRITE, BLK_INTEGRITY_NOGENERATE, .want = true },
	{ REQ_OP_READ, BLK_INTEGRITY_DEVICE_PROTECTS, .want = true },
	{ REQ_OP_WRITE, BLK_INTEGRITY_DEVICE_PROTECTS, .want = true },
	{ REQ_OP_ZONE_APPEND, BLK_INTEGRITY_DEVICE_PROTECTS, .want = true },
};

static void dma_test_check_pi(struct dma_test *f, const struct pi_rule *rule,
		unsigned int metadata_size)
{
	struct bio *bio = dma_test_one_range(f, rule->op);
	struct bio_integrity_payload payload;

	f->drives[0].q->limits.integrity = (struct blk_integrity) {
		.flags		= rule->flags,
		.metadata_size	= metadata_size,
		.csum_type	= rule->no_csum ? 0 : BLK_INTEGRITY_CSUM_CRC,
		.pi_tuple_size	= rule->no_csum ? 0 : 8,
	};
	if (rule->payload)
		bio_integrity_init(bio, &payload, NULL, 0);
	KUNIT_EXPECT_EQ_MSG(f->test, bio_can_use_dma_addr(bio), rule->want,
			    "rule %td", rule - pi_rules);
	bio->bi_opf &= ~REQ_INTEGRITY;
	bio_uninit(bio);
}

/* More metadata than the PI makes no difference. */
static void dma_test_integrity(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct bio *bio;
	int i;

	for (i = 0; i < ARRAY_SIZE(pi_rules); i++) {
		dma_test_check_pi(f, &pi_rules[i], 8);
		dma_test_check_pi(f, &pi_rules[i], 16);
	}

	/* DEVICE_PROTECTS, of the last rule, does not apply to pages. */
	bio = dma_test_at_sector(f, &f->bios[0], false, 0);
	KUNIT_EXPECT_TRUE(test, bio_integrity_action(bio) & BI_ACT_CHECK);
	bio_uninit(bio);
}

/* A stack protects data if all of its members do, whatever their order. */
static void dma_test_stack_integrity(struct kunit *test)
{
	struct queue_limits *lim = kunit_kcalloc(test, 3, sizeof(*lim), GFP_KERNEL);
	int i;

	KUNIT_ASSERT_NOT_NULL(test, lim);
	for (i = 0; i < 4; i++) {
		memset(lim, 0, 3 * sizeof(*lim));
		if (i & 1)
			lim[1].integrity.flags = BLK_INTEGRITY_DEVICE_PROTECTS;
		if (i & 2)
			lim[2].integrity.flags = BLK_INTEGRITY_DEVICE_PROTECTS;
		KUNIT_EXPECT_TRUE(test, queue_limits_stack_integrity(&lim[0], &lim[1]));
		KUNIT_EXPECT_TRUE(test, queue_limits_stack_integrity(&lim[0], &lim[2]));
		KUNIT_EXPECT_EQ(test, i == 3, !!(lim[0].integrity.flags &
						 BLK_INTEGRITY_DEVICE_PROTECTS));
	}
}

/* The metadata of a command has to fit in a buffer. */
static void dma_test_limit_by_metadata(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct request_queue *q = f->drives[0].q;
	struct queue_limits lim = queue_limits_start_update(q);

	lim.max_dma_addr_sectors = UINT_MAX;
	lim.max_segment_size = UINT_MAX;
	lim.integrity.metadata_size = 64;
	KUNIT_ASSERT_EQ(test, queue_limits_commit_update(q, &lim), 0);
	KUNIT_EXPECT_EQ(test, q->limits.max_dma_addr_sectors,
			BLK_INTEGRITY_MAX_SIZE / 64);
}
#endif

static void dma_test_stack_limits(struct kunit *test)
{
	static const unsigned int members[][3] = {
		{ 100, 200, 100 }, { 200, 100, 100 }, { 100, 0, 100 }, { 0, 100, 100 },
	};
	struct queue_limits *lim = kunit_kcalloc(test, 3, sizeof(*lim), GFP_KERNEL);
	int i, j;

	KUNIT_ASSERT_NOT_NULL(test, lim);
	for (i = 0; i < ARRAY_SIZE(members); i++) {
		for (j = 0; j < 3; j++)
			blk_set_stacking_limits(&lim[j]);
		for (j = 0; j < 2; j++) {
			lim[j + 1].max_dma_addr_sectors = members[i][j];
			blk_stack_limits(&lim[0], &lim[j + 1], 0);
		}
		KUNIT_EXPECT_EQ(test, lim[0].max_dma_addr_sectors, members[i][2]);
	}
}

/*
 * Submitting
 */

static blk_status_t dma_test_queue_rq(struct blk_mq_hw_ctx *hctx,
		const struct blk_mq_queue_data *bd)
{
	struct dma_test *f = hctx->queue->queuedata;

	blk_mq_start_request(bd->rq);
	dma_test_iterate(f, bd->rq);
	blk_mq_end_request(bd->rq, BLK_STS_OK);
	return BLK_STS_OK;
}

static void dma_test_stack_submit(struct bio *bio)
{
	struct drive *d = bio->bi_bdev->bd_disk->private_data;

	bio_set_dev(bio, d->disk->part0);
	submit_bio_noacct(bio);
}

/* @map: the mapping that must be used, NULL if the bio must be refused */
static void dma_test_submit(struct dma_test *f, struct gendisk *disk,
		const struct dma_premap *map)
{
	struct bio *bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_WRITE);

	bio_set_dev(bio, disk->part0);
	dma_test_add(f, bio, SZ_1M, SZ_64K);
	dma_test_add(f, bio, SZ_8K, SZ_4K);
	f->got.nr = 0;
	submit_bio_noacct(bio);
	KUNIT_EXPECT_EQ(f->test, f->bios[0].ended, 1);
	KUNIT_EXPECT_TRUE(f->test, bio->bi_status ==
			  (map ? BLK_STS_OK : BLK_STS_NOTSUPP));
	dma_test_ref_part(f, map ? map->addr : 0, 0, map ? f->size : 0,
			  &f->want);
	dma_test_check_got(f, &f->want);
	bio_uninit(bio);
}

static void dma_test_submit_to_drive(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct drive *a = &f->drives[0], *b = &f->drives[1];

	dma_test_submit(f, a->disk, &a->map);
	dma_test_submit(f, b->disk, &b->map);
	a->map.dead = true;
	dma_test_submit(f, a->disk, NULL);
	dma_test_submit(f, b->disk, &b->map);
}

static void dma_test_submit_to_stack(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct drive *a = &f->drives[0], *b = &f->drives[1];
	struct queue_limits lim = { .features = BLK_FEAT_DMA_ADDR };

	dma_test_submit(f, f->stack, NULL);
	dma_test_set_limits(f, f->stack->queue, &lim);
	dma_test_submit(f, f->stack, &a->map);
	f->stack->private_data = b;
	dma_test_submit(f, f->stack, &b->map);
	b->map.dead = true;
	dma_test_submit(f, f->stack, NULL);
}

#ifdef CONFIG_BLK_DEV_INTEGRITY
/* What no drive below could protect ends at the top. */
static void dma_test_submit_pi_to_stack(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct queue_limits lim = {
		.features	= BLK_FEAT_DMA_ADDR,
		.integrity	= {
			.csum_type	= BLK_INTEGRITY_CSUM_CRC,
			.metadata_size	= 16,
			.pi_tuple_size	= 8,
			.interval_exp	= SECTOR_SHIFT,
		},
	};

	dma_test_set_limits(f, f->stack->queue, &lim);
	dma_test_submit(f, f->stack, NULL);
	lim.integrity.flags = BLK_INTEGRITY_DEVICE_PROTECTS;
	dma_test_set_limits(f, f->stack->queue, &lim);
	dma_test_submit(f, f->stack, &f->drives[0].map);
}
#endif

static void dma_test_get_dma_devs(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct block_device *bdev = f->drives[0].disk->part0;
	struct device *dev = NULL;

	KUNIT_EXPECT_EQ(test, bdev_get_dma_devs(f->stack->part0, &dev, 1),
			-EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, bdev_get_dma_devs(bdev, &dev, 0), -E2BIG);
	KUNIT_EXPECT_EQ(test, bdev_get_dma_devs(bdev, &dev, 1), 1);
	KUNIT_EXPECT_PTR_EQ(test, dev, f->drives[0].dev);
	put_device(dev);
}

/* Adjacent bios are merged only if both have pages. */
static void dma_test_no_merge(struct kunit *test)
{
	struct dma_test *f = test->priv;
	struct bio *bio, *next;
	int i;

	for (i = 0; i < 4; i++) {
		bio = dma_test_at_sector(f, &f->bios[0], i & 1, 8);
		next = dma_test_at_sector(f, &f->bios[1], i & 2, 16);
		dma_test_init_request(f, bio);
		KUNIT_EXPECT_EQ(test, blk_rq_merge_ok(&f->rq, next), !i);
		KUNIT_EXPECT_EQ(test, !i, blk_bio_list_merge(f->rq.q, &f->rqs,
							     next, 1));
		KUNIT_EXPECT_PTR_EQ(test, f->rq.biotail, i ? bio : next);
		bio_uninit(bio);
		bio_uninit(next);
	}
}

/*
 * Benchmarks
 */

static bool dma_test_bench_addr(struct dma_test *f, struct bio *bio,
		struct page *pages, u32 len)
{
	return bio_add_dma_addr(bio, f->named, f->named->addr, len);
}

/* As peer-to-peer memory has them */
static bool dma_test_bench_range(struct dma_test *f, struct bio *bio,
		struct page *pages, u32 len)
{
	return bio_add_page(bio, pages, len, 0) == len;
}

/* As system memory has them: none is next to another. */
static bool dma_test_bench_pages(struct dma_test *f, struct bio *bio,
		struct page *pages, u32 len)
{
	unsigned int i, left = len;

	for (i = 0; i < len / PAGE_SIZE; i++)
		left -= bio_add_page(bio, pages + 2 * i, PAGE_SIZE, 0);
	return !left;
}

/* Return the picoseconds that it takes to build and check a bio of @len bytes. */
static u64 dma_test_bench_one(struct dma_test *f, struct page *pages, u32 len,
		bool (*add)(struct dma_test *f, struct bio *bio,
			    struct page *pages, u32 len))
{
	unsigned int i, segs, n = 1000000;
	u64 start = ktime_get_ns();
	struct bio *bio;
	bool ok = true;

	for (i = 0; i < n; i++) {
		bio = dma_test_init_bio(f, &f->bios[0], REQ_OP_READ);
		ok &= add(f, bio, pages, len) &&
		      dma_test_split_off(&f->drives[0], bio, &segs) == bio;
		bio_uninit(bio);
	}
	KUNIT_EXPECT_TRUE(f->test, ok);
	return (ktime_get_ns() - start) * NSEC_PER_USEC / n;
}

static void dma_test_bench(struct kunit *test)
{
	static const u32 sizes[] = { SZ_4K, SZ_128K, SZ_512K };
	struct queue_limits lim = {
		.max_hw_sectors		= SZ_1M / SECTOR_SIZE,
		.max_user_sectors	= SZ_1M / SECTOR_SIZE,
		.max_segments		= BIO_MAX_VECS,
		.max_segment_size	= UINT_MAX,
	};
	struct dma_test *f = test->priv;
	struct page *pages;
	unsigned int i;

	if (!bench)
		kunit_skip(test, "blk_dma_addr_test.bench=1 is not set");
	dma_test_set_limits(f, f->drives[0].q, &lim);
	pages = alloc_pages(GFP_KERNEL, get_order(SZ_1M));
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		u64 addr = dma_test_bench_one(f, pages, sizes[i],
					      dma_test_bench_addr);

		kunit_info(test, "bench: bio of %u KiB: one range of pages %llu ps, series %llu ps",
			   sizes[i] >> 10,
			   dma_test_bench_one(f, pages, sizes[i],
					      dma_test_bench_range), addr);
		kunit_info(test, "bench: bio of %u KiB: separate pages %llu ps, series %llu ps",
			   sizes[i] >> 10,
			   dma_test_bench_one(f, pages, sizes[i],
					      dma_test_bench_pages), addr);
	}
	__free_pages(pages, get_order(SZ_1M));
}

static const struct blk_mq_ops dma_test_mq_ops = {
	.queue_rq	= dma_test_queue_rq,
};

/* Called for the stack only: the drives lack BD_HAS_SUBMIT_BIO. */
static const struct block_device_operations dma_test_ops = {
	.submit_bio	= dma_test_stack_submit,
};

/* The disk is never added, so nothing scans it. */
static void dma_test_init_disk(struct dma_test *f, struct gendisk *disk)
{
	KUNIT_ASSERT_NOT_ERR_OR_NULL(f->test, disk);
	KUNIT_ASSERT_EQ(f->test, 0, kunit_add_action_or_reset(f->test,
						dma_test_put_disk, disk));
	disk->fops = &dma_test_ops;
	set_capacity(disk, SZ_1M);
}

static void dma_test_init_drive(struct dma_test *f, unsigned int i)
{
	struct drive *d = &f->drives[i];

	d->dev = kunit_device_register(f->test, i ? "drive-b" : "drive-a");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(f->test, d->dev);
	d->map.dev = d->dev;
	d->map.addr = SZ_1T + i * SZ_64G;
	d->map.len = 2 * SZ_4G;
	INIT_LIST_HEAD(&d->map.siblings);

	d->set.ops = &dma_test_mq_ops;
	d->set.nr_hw_queues = 1;
	d->set.queue_depth = 1;
	d->set.dma_dev = d->dev;
	KUNIT_ASSERT_EQ(f->test, blk_mq_alloc_tag_set(&d->set), 0);
	KUNIT_ASSERT_EQ(f->test, 0, kunit_add_action_or_reset(f->test,
						dma_test_free_set, &d->set));
	d->disk = blk_mq_alloc_disk(&d->set, NULL, f);
	dma_test_init_disk(f, d->disk);
	d->q = d->disk->queue;
	d->lim = &d->q->limits;
}

static int dma_test_init(struct kunit *test)
{
	struct dma_test *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	test->priv = f;
	f->test = test;
	dma_test_init_drive(f, 0);
	dma_test_init_drive(f, 1);
	list_add(&f->drives[1].map.siblings, &f->drives[0].map.siblings);
	f->named = &f->drives[0].map;
	f->stack = blk_alloc_disk(NULL, NUMA_NO_NODE);
	dma_test_init_disk(f, f->stack);
	f->stack->private_data = &f->drives[0];
	/* add_disk() would do this. */
	bdev_set_flag(f->stack->part0, BD_HAS_SUBMIT_BIO);
	return 0;
}

static void dma_test_exit(struct kunit *test)
{
	struct dma_test *f = test->priv;

	if (f && test->status == KUNIT_FAILURE)
		kunit_info(test, "seed %u, round %u\n", seed, f->round);
}

static int dma_test_init_suite(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32();
	kunit_info(suite, "seed %u\n", seed);
	return 0;
}

static struct kunit_case dma_test_cases[] = {
	KUNIT_CASE(dma_test_add_range),
	KUNIT_CASE(dma_test_add_to_other),
	KUNIT_CASE(dma_test_add_until_full),
	KUNIT_CASE(dma_test_add_to_small),
	KUNIT_CASE(dma_test_add_huge),
	KUNIT_CASE(dma_test_add_too_much),
	KUNIT_CASE(dma_test_split),
	KUNIT_CASE(dma_test_limits_by_base),
	KUNIT_CASE(dma_test_clone),
	KUNIT_CASE(dma_test_reset_and_reuse),
	KUNIT_CASE(dma_test_find_map),
	KUNIT_CASE(dma_test_operations),
#ifdef CONFIG_BLK_INLINE_ENCRYPTION
	KUNIT_CASE(dma_test_encryption),
#endif
#ifdef CONFIG_BLK_DEV_INTEGRITY
	KUNIT_CASE(dma_test_integrity),
	KUNIT_CASE(dma_test_stack_integrity),
	KUNIT_CASE(dma_test_limit_by_metadata),
	KUNIT_CASE(dma_test_submit_pi_to_stack),
#endif
	KUNIT_CASE(dma_test_stack_limits),
	KUNIT_CASE(dma_test_submit_to_drive),
	KUNIT_CASE(dma_test_submit_to_stack),
	KUNIT_CASE(dma_test_get_dma_devs),
	KUNIT_CASE(dma_test_no_merge),
	KUNIT_CASE_SLOW(dma_test_bench),
	{ }
};

static struct kunit_suite dma_test_suite = {
	.name		= "blk-dma-addr",
	.suite_init	= dma_test_init_suite,
	.init		= dma_test_init,
	.exit		= dma_test_exit,
	.test_cases	= dma_test_cases,
};

kunit_test_suites(&dma_test_suite);

MODULE_DESCRIPTION("KUnit tests of DMA-address bios");
MODULE_LICENSE("GPL");
