// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of DMA-address bios: building, splitting, counting, mapping,
 * merging and cloning them.
 *
 * Random bios meet random queue limits.  What becomes of each is compared with
 * what becomes of its twin, a bio with pages at the same addresses, and with a
 * reference (ref_*) that goes by the definition of the limits and shares no
 * code with the block layer.
 *
 * Nothing is transferred, so neither mappings nor pages have to exist, and any
 * address will do.
 */
#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/blk-integrity.h>
#include <linux/blk-mq-dma.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/hash.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/sizes.h>
#include "blk.h"
#include "elevator.h"

#define MAX_BIOS	8
/* A bio can be cut into many more pieces, but those are all alike. */
#define MAX_PIECES	32

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "repeat a run, 0 for a new one");

static unsigned int rounds = 3000;
module_param(rounds, uint, 0444);
MODULE_PARM_DESC(rounds, "how often to try something random");

struct extent {
	u64 addr;
	u32 len;
};

struct extents {
	unsigned int nr;
	struct extent e[BIO_MAX_VECS];
};

struct test_bio {
	struct bio bio;
	struct bio_vec table[BIO_MAX_VECS];
	unsigned int ended;
};

/*
 * @dma and @pages: bios and the request made of them; @vecs has the vectors of
 *	each bio as the reference sees them.
 * @has_twins: there can be page bios with the addresses of this round.
 * @unit, @align, @max_len: what the vectors of this round are like.
 * @end: where the last one ends, relative to the mapping.
 */
struct fixture {
	struct rnd_state rnd;
	unsigned int round;
	struct gendisk *disk;
	struct request_queue *q;
	const struct queue_limits *lim;
	struct elevator_queue elevator;
	struct dma_premap map;
	struct dma_premap other_map;
	struct test_side {
		struct test_bio bios[MAX_BIOS];
		struct request rq;
		struct list_head list;
	} dma, pages;
	struct extents vecs[MAX_BIOS];
	struct extents chain;
	bool has_twins;
	unsigned int twins;
	unsigned int refused;
	enum req_op op;
	u32 unit;
	u32 align;
	u32 max_len;
	u64 end;
	struct extents raw;
	struct extents part;
	struct extents want;
	struct extents got;
	struct scatterlist sgl[BIO_MAX_VECS];
};

/* So that a test that fails leaves nothing behind. */
KUNIT_DEFINE_ACTION_WRAPPER(end_bio, bio_endio, struct bio *);
KUNIT_DEFINE_ACTION_WRAPPER(free_bio, bio_put, struct bio *);
KUNIT_DEFINE_ACTION_WRAPPER(free_disk, put_disk, struct gendisk *);

static void push(struct kunit *test, struct extents *list, u64 addr, u32 len)
{
	KUNIT_ASSERT_LE(test, list->nr + 1, ARRAY_SIZE(list->e));
	list->e[list->nr++] = (struct extent) { addr, len };
}

static u32 total(const struct extents *list)
{
	unsigned int i;
	u32 bytes = 0;

	for (i = 0; i < list->nr; i++)
		bytes += list->e[i].len;
	return bytes;
}

static void check_same(struct kunit *test, const struct extents *left,
		const struct extents *right)
{
	unsigned int i;

	KUNIT_ASSERT_EQ(test, left->nr, right->nr);
	for (i = 0; i < left->nr; i++) {
		KUNIT_ASSERT_EQ(test, left->e[i].addr, right->e[i].addr);
		KUNIT_ASSERT_EQ(test, left->e[i].len, right->e[i].len);
	}
}

/*
 * The reference
 */

/* How many of the bytes at @addr can be in one segment. */
static u64 ref_room(const struct queue_limits *lim, u64 addr)
{
	u64 room = lim->max_segment_size;
	u64 window = (u64)lim->seg_boundary_mask + 1;

	/* The mask of all ones is no boundary. */
	if (window)
		room = min(room, window - addr % window);
	return room;
}

/* Would the device have to cope with a gap between two segments? */
static bool ref_gap(const struct queue_limits *lim, u64 end, u64 start)
{
	u64 window = (u64)lim->virt_boundary_mask + 1;

	return end % window || start % window;
}

/* What bio_add_dma_addr() makes of @raw. */
static void ref_pack(struct kunit *test, const struct extents *raw,
		struct extents *out)
{
	struct extent *last = NULL;
	unsigned int i;

	out->nr = 0;
	for (i = 0; i < raw->nr; i++) {
		u64 addr = raw->e[i].addr, len = raw->e[i].len;

		if (last && last->addr + last->len == addr &&
		    last->addr % PAGE_SIZE + last->len + len <= U32_MAX) {
			last->len += len;
		} else {
			push(test, out, addr, len);
			last = &out->e[out->nr - 1];
		}
	}
}

/* The part of @vecs that a bio with this position and size refers to. */
static void ref_part(struct kunit *test, const struct extents *vecs,
		u32 from, u32 len, struct extents *out)
{
	unsigned int i;

	out->nr = 0;
	for (i = 0; i < vecs->nr && len; i++) {
		const struct extent *v = &vecs->e[i];
		u32 skip = min(from, v->len), take = min(v->len - skip, len);

		if (take)
			push(test, out, v->addr + skip, take);
		from -= skip;
		len -= take;
	}
}

/* Segments before mapping: each is in one vector. */
static unsigned int ref_count(const struct queue_limits *lim,
		const struct extents *vecs)
{
	unsigned int i, segs = 0;
	u64 addr, end;

	for (i = 0; i < vecs->nr; i++) {
		addr = vecs->e[i].addr;
		end = addr + vecs->e[i].len;
		while (addr != end) {
			addr += min(end - addr, ref_room(lim, addr));
			segs++;
		}
	}
	return segs;
}

/*
 * Mapping adds a vector that follows on the last segment to that, if it fits as
 * a whole.  Returns how often.
 */
static unsigned int ref_map(struct kunit *test, const struct queue_limits *lim,
		const struct extents *vecs, struct extents *out)
{
	struct extent *last = NULL;
	unsigned int i, joined = 0;

	out->nr = 0;
	for (i = 0; i < vecs->nr; i++) {
		u64 addr = vecs->e[i].addr, end = addr + vecs->e[i].len, len;

		if (last && last->addr + last->len == addr &&
		    last->len + (end - addr) <= ref_room(lim, last->addr)) {
			last->len += end - addr;
			joined++;
			continue;
		}
		for (; addr != end; addr += len) {
			len = min(end - addr, ref_room(lim, addr));
			push(test, out, addr, len);
		}
		last = &out->e[out->nr - 1];
	}
	return joined;
}

static bool ref_misaligned(const struct queue_limits *lim,
		const struct extent *vec)
{
	u32 unit = lim->dma_alignment + 1;

	return vec->addr % unit || vec->len % unit;
}

/*
 * Take segments until there is one that the device can't have in the same
 * request.  The result is that of bio_split_io_at().
 */
static int ref_split(const struct queue_limits *lim, const struct extents *vecs,
		u32 max_bytes, unsigned int *segs)
{
	u32 bytes = 0, done, len;
	unsigned int i;
	u64 addr, end = 0;

	*segs = 0;
	for (i = 0; i < vecs->nr; i++) {
		if (ref_misaligned(lim, &vecs->e[i]))
			return -EINVAL;
		for (done = 0; done < vecs->e[i].len; done += len) {
			addr = vecs->e[i].addr + done;
			if ((*segs && ref_gap(lim, end, addr)) ||
			    *segs == lim->max_segments || bytes == max_bytes)
				goto split;
			len = min3(ref_room(lim, addr),
				   vecs->e[i].len - done, max_bytes - bytes);
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

/* The end is best at a physical block, and has to be at a logical one. */
static u32 ref_max_bytes(const struct queue_limits *lim, sector_t sector)
{
	u32 block = lim->physical_block_size / SECTOR_SIZE;
	u32 max = lim->max_sectors, n;

	if (lim->chunk_sectors)
		max = min_t(u64, max, lim->chunk_sectors -
				      sector % lim->chunk_sectors);
	for (n = max; n; n--)
		if ((sector + n) % block == 0)
			break;
	if (!n)
		n = max - max % (lim->logical_block_size / SECTOR_SIZE);
	return n * SECTOR_SIZE;
}

/*
 * Random limits and bios
 */

/* Below @n */
static u64 rnd(struct kunit *test, u64 n)
{
	struct fixture *f = test->priv;
	u64 high = prandom_u32_state(&f->rnd);

	return ((high << 32) | prandom_u32_state(&f->rnd)) % n;
}

static bool one_in(struct kunit *test, u32 n)
{
	return rnd(test, n) == 0;
}

static u64 random_power(struct kunit *test, unsigned int from, unsigned int to)
{
	return 1ULL << (from + rnd(test, to - from + 1));
}

/* Each round can be repeated, whatever the others did. */
static bool next_round(struct kunit *test)
{
	struct fixture *f = test->priv;

	if (++f->round > rounds)
		return false;
	prandom_seed_state(&f->rnd, ((u64)seed << 32 | f->round) *
				    GOLDEN_RATIO_64);
	return true;
}

static unsigned long random_boundary(struct kunit *test)
{
	switch (rnd(test, 4)) {
	case 0:
		return ULONG_MAX;
	case 1:
		return SZ_4G - 1;
	default:
		return random_power(test, 12, 20) - 1;
	}
}

static unsigned int random_segment_size(struct kunit *test)
{
	switch (rnd(test, 4)) {
	case 0:
		return UINT_MAX;
	case 1:
		return SZ_4K + rnd(test, SZ_256K);
	default:
		return random_power(test, 12, 20);
	}
}

static void set_limits(struct kunit *test, struct queue_limits *new)
{
	struct fixture *f = test->priv;

	/* For the lock; nothing of the old limits stays. */
	queue_limits_start_update(f->q);
	KUNIT_ASSERT_EQ(test, queue_limits_commit_update(f->q, new), 0);
}

/*
 * @requests: do not limit both gaps and the size of segments.  Only stacking
 *	drivers do, and merging bios into requests would not keep to both.
 */
static void random_limits(struct kunit *test, bool requests)
{
	u32 block = random_power(test, 9, 12);
	u32 max_segments = random_power(test, 0, 8);
	struct queue_limits lim = {
		.logical_block_size	= block,
		.physical_block_size	= block << rnd(test, 4),
		.dma_alignment		= random_power(test, 1, 9) - 1,
		.max_segments		= 1 + rnd(test, max_segments),
		.max_segment_size	= random_segment_size(test),
		.seg_boundary_mask	= random_boundary(test),
		.max_hw_sectors		= PAGE_SECTORS +
					  rnd(test, random_power(test, 0, 22)),
	};

	lim.max_user_sectors = lim.max_hw_sectors;
	if (one_in(test, 2))
		lim.chunk_sectors = block / SECTOR_SIZE *
				    (8 + rnd(test, random_power(test, 0, 12)));
	if (one_in(test, 3))
		lim.virt_boundary_mask = random_power(test, 9, 12) - 1;
	if (lim.virt_boundary_mask && requests)
		lim.max_segment_size = UINT_MAX;
	set_limits(test, &lim);
}

/* Below, across and above 4 GiB, and at the very end of the address space. */
static void random_map(struct kunit *test)
{
	struct fixture *f = test->priv;

	f->map.len = random_power(test, 20, 34);
	switch (rnd(test, 4)) {
	case 0:
		f->map.addr = PAGE_SIZE * rnd(test, SZ_64K);
		break;
	case 1:
		f->map.addr = SZ_4G * (2 + rnd(test, 6)) - f->map.len / 2;
		break;
	case 2:
		f->map.addr = SZ_1T + PAGE_SIZE * rnd(test, SZ_1G);
		break;
	default:
		f->map.addr = -f->map.len;
	}
}

/* @longest: one vector in many has a length of up to 2 to the power of it. */
static void random_shape(struct kunit *test, unsigned int longest)
{
	struct fixture *f = test->priv;

	random_map(test);
	f->has_twins = true;
	f->end = 0;
	/* Now and then ignore the alignment that the device wants. */
	f->unit = one_in(test, 16) ? 1 : f->lim->dma_alignment + 1;
	f->align = one_in(test, 3) ? f->unit : PAGE_SIZE;
	f->max_len = random_power(test, 9, one_in(test, 32) ? longest : 16);
	f->op = one_in(test, 2) ? REQ_OP_READ : REQ_OP_WRITE;
}

/* Adjacent to the last one, after a small gap, or anywhere, also before it. */
static u64 random_start(struct kunit *test, u32 align)
{
	struct fixture *f = test->priv;
	/* There has to be room for a block. */
	u64 start = f->end, limit = f->map.len - SZ_4K;

	switch (rnd(test, 3)) {
	case 0:
		break;
	case 1:
		start += align * (1 + rnd(test, 8));
		break;
	default:
		start = align * rnd(test, limit / align);
	}
	return start < limit ? start : 0;
}

static void make_whole_blocks(struct kunit *test, u32 rest)
{
	struct fixture *f = test->priv;
	struct extent *last = &f->raw.e[f->raw.nr - 1];

	if (last->len <= rest)
		last->len += f->lim->logical_block_size;
	last->len -= rest;
	f->end = last->addr + last->len - f->map.addr;
}

static void random_vecs(struct kunit *test, unsigned int max_vecs)
{
	struct fixture *f = test->priv;
	unsigned int nr = 1 + rnd(test, random_power(test, 0, ilog2(max_vecs)));
	u64 start, end, size = 0;
	u32 align;

	f->raw.nr = 0;
	while (f->raw.nr < nr) {
		align = one_in(test, 8) ? f->unit : f->align;
		start = random_start(test, align);
		end = start + 1 + rnd(test, f->max_len);
		end = min(round_up(end, align), f->map.len);
		if (size + (end - start) > BIO_MAX_SIZE - SZ_64K)
			break;
		push(test, &f->raw, f->map.addr + start, end - start);
		size += end - start;
		f->end = end;
	}
	make_whole_blocks(test, size % f->lim->logical_block_size);
}

static void count_end(struct bio *bio)
{
	container_of(bio, struct test_bio, bio)->ended++;
}

static struct bio *init_bio(struct kunit *test, struct test_bio *b,
		blk_opf_t opf)
{
	struct fixture *f = test->priv;

	bio_init(&b->bio, f->disk->part0, b->table, BIO_MAX_VECS, opf);
	b->bio.bi_end_io = count_end;
	b->ended = 0;
	return &b->bio;
}

static void add(struct kunit *test, struct bio *bio, u64 addr, u32 len)
{
	struct fixture *f = test->priv;

	KUNIT_ASSERT_TRUE(test, bio_add_dma_addr(bio, &f->map, addr, len));
}

/* With vectors that could be one, as only a bio that was merged has them. */
static void set_raw(struct bio *bio, struct dma_premap *map,
		const struct extents *vecs)
{
	for (; bio->bi_vcnt < vecs->nr; bio->bi_vcnt++)
		bvec_set_dma_addr(&bio->bi_io_vec[bio->bi_vcnt],
				  vecs->e[bio->bi_vcnt].addr,
				  vecs->e[bio->bi_vcnt].len);
	bio->bi_iter.bi_size = total(vecs);
	bio_set_dma_map(bio, map);
}

/* Nobody looks into a struct page unless it could be one of a device. */
static bool page_can_be_used(u64 addr)
{
	bool looked_at = IS_ENABLED(CONFIG_ZONE_DEVICE) ||
			 IS_ENABLED(CONFIG_DEBUG_VIRTUAL);
	bool linear = IS_ENABLED(CONFIG_FLATMEM) ||
		      IS_ENABLED(CONFIG_SPARSEMEM_VMEMMAP);

	return (linear && !looked_at) || pfn_valid(PHYS_PFN(addr));
}

static void make_twin(struct kunit *test, unsigned int i)
{
	struct fixture *f = test->priv;
	struct bio *dma = &f->dma.bios[i].bio, *bio;
	struct bio_vec *bv;

	bio = init_bio(test, &f->pages.bios[i], bio_op(dma));
	bio->bi_iter = dma->bi_iter;
	for (; bio->bi_vcnt < dma->bi_vcnt; bio->bi_vcnt++) {
		bv = &dma->bi_io_vec[bio->bi_vcnt];
		if (!page_can_be_used(bv->bv_dma_addr))
			f->has_twins = false;
		else
			bvec_set_page(&bio->bi_io_vec[bio->bi_vcnt],
				      phys_to_page(bv->bv_dma_addr),
				      bv->bv_len, bv->bv_offset);
	}
}

/* Returns whether it was built by bio_add_dma_addr(). */
static bool random_bio(struct kunit *test, unsigned int i,
		unsigned int max_vecs)
{
	struct fixture *f = test->priv;
	bool packed = one_in(test, 2);
	struct bio *bio;
	unsigned int n;

	random_vecs(test, max_vecs);
	bio = init_bio(test, &f->dma.bios[i], f->op);
	if (packed) {
		ref_pack(test, &f->raw, &f->vecs[i]);
		for (n = 0; n < f->raw.nr; n++)
			add(test, bio, f->raw.e[n].addr, f->raw.e[n].len);
	} else {
		f->vecs[i] = f->raw;
		set_raw(bio, &f->map, &f->raw);
	}
	bio->bi_iter.bi_sector = f->lim->logical_block_size / SECTOR_SIZE *
				 (SZ_1M + rnd(test, SZ_1M));
	make_twin(test, i);
	return packed;
}

/*
 * What is to be tested, and the checks of it
 */

static void check_vecs(struct kunit *test, struct bio *bio,
		const struct extents *want)
{
	struct fixture *f = test->priv;
	struct bvec_iter iter;
	struct bio_vec bv;

	KUNIT_ASSERT_TRUE(test, bio_is_dma_addr(bio));
	KUNIT_ASSERT_PTR_EQ(test, bio_dma_map(bio), &f->map);
	f->got.nr = 0;
	bio_for_each_bvec(bv, bio, iter)
		push(test, &f->got, bvec_dma_addr(&bv), bv.bv_len);
	check_same(test, &f->got, want);
}

static void init_request(struct kunit *test, struct test_side *side,
		struct bio *bio, unsigned int segs)
{
	struct fixture *f = test->priv;

	side->rq = (struct request) {
		.q			= f->q,
		.bio			= bio,
		.biotail		= bio,
		.cmd_flags		= bio->bi_opf,
		.__sector		= bio->bi_iter.bi_sector,
		.__data_len		= bio->bi_iter.bi_size,
		.nr_phys_segments	= segs,
		.phys_gap_bit		= bio->bi_bvec_gap_bit,
	};
	INIT_LIST_HEAD(&side->list);
	list_add(&side->rq.queuelist, &side->list);
}

/* There is no device, so nobody can ask it for a mapping. */
static void map_dma(struct kunit *test, struct request *rq, struct extents *out)
{
	struct dma_iova_state state;
	struct blk_dma_iter iter;
	bool more;

	out->nr = 0;
	more = blk_rq_dma_map_iter_start(rq, NULL, &state, &iter);
	while (more) {
		push(test, out, iter.addr, iter.len);
		more = blk_rq_dma_map_iter_next(rq, NULL, &iter);
	}
	KUNIT_ASSERT_TRUE(test, iter.status == BLK_STS_OK);
	KUNIT_ASSERT_EQ(test, iter.p2pdma.map, PCI_P2PDMA_MAP_PREMAPPED);
	KUNIT_ASSERT_TRUE(test, blk_rq_dma_unmap(rq, NULL, &state,
						 blk_rq_bytes(rq),
						 iter.p2pdma.map));
}

static void map_pages(struct kunit *test, struct request *rq,
		struct extents *out)
{
	struct fixture *f = test->priv;
	struct scatterlist *sg, *last = NULL;
	int i, n;

	KUNIT_ASSERT_LE(test, rq->nr_phys_segments, ARRAY_SIZE(f->sgl));
	sg_init_table(f->sgl, ARRAY_SIZE(f->sgl));
	out->nr = 0;
	n = __blk_rq_map_sg(rq, f->sgl, &last);
	for_each_sg(f->sgl, sg, n, i)
		push(test, out, sg_phys(sg), sg->length);
}

/* What the device is promised, by the limits alone. */
static void check_limits(struct kunit *test, struct request *rq,
		const struct extents *segs)
{
	struct fixture *f = test->priv;
	const struct queue_limits *lim = f->lim;
	u64 outside = ~(u64)lim->seg_boundary_mask, end = 0, addr;
	unsigned int i;

	KUNIT_ASSERT_LE(test, segs->nr, lim->max_segments);
	KUNIT_ASSERT_LE(test, blk_rq_sectors(rq), lim->max_sectors);
	if (lim->chunk_sectors)
		KUNIT_ASSERT_LE(test, blk_rq_pos(rq) % lim->chunk_sectors +
				      blk_rq_sectors(rq), lim->chunk_sectors);
	for (i = 0; i < segs->nr; i++) {
		addr = segs->e[i].addr;
		KUNIT_ASSERT_FALSE(test, i && ref_gap(lim, end, addr));
		KUNIT_ASSERT_NE(test, segs->e[i].len, 0);
		KUNIT_ASSERT_LE(test, segs->e[i].len, lim->max_segment_size);
		end = addr + segs->e[i].len;
		KUNIT_ASSERT_EQ(test, addr & outside, (end - 1) & outside);
	}
}

/* Returns how many vectors were joined to the segment before them. */
static unsigned int check_request(struct kunit *test,
		const struct extents *vecs)
{
	struct fixture *f = test->priv;
	struct request *dma = &f->dma.rq, *pages = &f->pages.rq;
	unsigned int counted = ref_count(f->lim, vecs);
	unsigned int joined = ref_map(test, f->lim, vecs, &f->want);

	KUNIT_ASSERT_EQ(test, blk_rq_bytes(dma), total(vecs));
	KUNIT_ASSERT_LE(test, counted, dma->nr_phys_segments);
	KUNIT_ASSERT_EQ(test, blk_recalc_rq_segments(dma), counted);
	map_dma(test, dma, &f->got);
	check_same(test, &f->got, &f->want);
	KUNIT_ASSERT_EQ(test, f->got.nr, counted - joined);
	KUNIT_ASSERT_EQ(test, total(&f->got), total(vecs));
	check_limits(test, dma, &f->got);
	if (!f->has_twins)
		return joined;

	f->twins++;
	KUNIT_ASSERT_EQ(test, dma->nr_phys_segments, pages->nr_phys_segments);
	KUNIT_ASSERT_EQ(test, dma->phys_gap_bit, pages->phys_gap_bit);
	KUNIT_ASSERT_EQ(test, blk_recalc_rq_segments(pages), counted);
	map_pages(test, pages, &f->got);
	check_same(test, &f->got, &f->want);
	return joined;
}

/*
 * Do as if a ->submit_bio() method split the bio, so that the rest of it is not
 * submitted.
 */
static struct bio *split_off(struct kunit *test, struct bio *bio,
		unsigned int *segs)
{
	struct fixture *f = test->priv;
	struct bio_list rest[2] = { };
	struct bio *front;

	current->bio_list = rest;
	front = bio_split_rw(bio, f->lim, segs);
	current->bio_list = NULL;
	if (front)
		kunit_add_action(test, end_bio, front);

	KUNIT_ASSERT_EQ(test, bio_list_size(&rest[0]), front && front != bio);
	if (rest[0].head)
		KUNIT_ASSERT_PTR_EQ(test, rest[0].head, bio);
	KUNIT_ASSERT_TRUE(test, bio_list_empty(&rest[1]));
	return front;
}

/* Split both bios the same way, make a request of what is split off. */
static bool split_both(struct kunit *test, struct bio **dma, struct bio **pages)
{
	struct fixture *f = test->priv;
	unsigned int segs;

	*dma = split_off(test, &f->dma.bios[0].bio, &segs);
	if (*dma)
		init_request(test, &f->dma, *dma, segs);
	*pages = NULL;
	if (f->has_twins) {
		*pages = split_off(test, &f->pages.bios[0].bio, &segs);
		KUNIT_ASSERT_EQ(test, !*pages, !*dma);
	}
	if (*pages)
		init_request(test, &f->pages, *pages, segs);
	return *dma;
}

/* What the front of the rest of the first bio has to be. */
static int ref_front(struct kunit *test, u32 done, unsigned int *segs)
{
	struct fixture *f = test->priv;
	struct bio *bio = &f->dma.bios[0].bio;
	u32 max_bytes = ref_max_bytes(f->lim, bio->bi_iter.bi_sector);
	int sectors;

	ref_part(test, &f->vecs[0], done, bio->bi_iter.bi_size, &f->part);
	sectors = ref_split(f->lim, &f->part, max_bytes, segs);
	/* the shortcut for those that are one segment at first sight */
	if (!bio_may_need_split(bio, f->lim))
		KUNIT_ASSERT_EQ(test, *segs, 1);
	return sectors;
}

/* Returns the size of what was split off, or of everything if that failed. */
static u32 check_front(struct kunit *test, u32 done, bool packed)
{
	struct fixture *f = test->priv;
	struct bio *whole = &f->dma.bios[0].bio, *bio, *pages;
	u32 bytes = whole->bi_iter.bi_size;
	unsigned int segs, joined;
	int sectors = ref_front(test, done, &segs);

	KUNIT_ASSERT_EQ(test, split_both(test, &bio, &pages), sectors >= 0);
	if (!bio) {
		KUNIT_ASSERT_TRUE(test, whole->bi_status == BLK_STS_INVAL);
		f->refused++;
		return bytes;
	}

	if (sectors)
		bytes = sectors * SECTOR_SIZE;
	KUNIT_ASSERT_EQ(test, bio->bi_iter.bi_size, bytes);
	KUNIT_ASSERT_EQ(test, f->dma.rq.nr_phys_segments, segs);
	ref_part(test, &f->vecs[0], done, bytes, &f->part);
	check_vecs(test, bio, &f->part);
	joined = check_request(test, &f->part);
	if (packed)
		KUNIT_ASSERT_EQ(test, joined, 0);

	kunit_release_action(test, end_bio, bio);
	if (pages)
		kunit_release_action(test, end_bio, pages);
	return bytes;
}

/* The parts were ended before; the whole ends once. */
static void check_ended(struct kunit *test, struct test_bio *b)
{
	if (!b->ended)
		bio_endio(&b->bio);
	KUNIT_ASSERT_EQ(test, b->ended, 1);
	bio_uninit(&b->bio);
}

static void test_split(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int pieces = 0;
	u32 size, done;
	bool packed;
	int i;

	while (next_round(test)) {
		random_limits(test, false);
		random_shape(test, 31);
		packed = random_bio(test, 0, BIO_MAX_VECS);
		check_vecs(test, &f->dma.bios[0].bio, &f->vecs[0]);
		size = total(&f->vecs[0]);
		for (i = 0, done = 0; i < MAX_PIECES && done < size; i++)
			done += check_front(test, done, packed);
		pieces += i;
		check_ended(test, &f->dma.bios[0]);
		check_ended(test, &f->pages.bios[0]);
	}
	kunit_info(test, "%u bios, %u requests, %u refused, %u twins\n",
		   rounds, pieces, f->refused, f->twins);
	KUNIT_EXPECT_GT(test, pieces, 2 * rounds);
	KUNIT_EXPECT_GT(test, f->refused, 0);
	KUNIT_EXPECT_GT(test, f->twins, 0);
}

/*
 * Merging
 */

static bool fits(struct kunit *test, struct test_side *side, unsigned int i,
		unsigned int *segs)
{
	struct fixture *f = test->priv;
	struct bio *bio = &side->bios[i].bio;
	u32 max_bytes = ref_max_bytes(f->lim, bio->bi_iter.bi_sector);

	return !bio_split_rw_at(bio, f->lim, segs, max_bytes);
}

/* At the front or at the back of the request if there is one already. */
static void place_bio(struct kunit *test, unsigned int i, bool front)
{
	struct fixture *f = test->priv;
	struct bio *bio = &f->dma.bios[i].bio;

	if (front && f->chain.nr)
		bio->bi_iter.bi_sector = blk_rq_pos(&f->dma.rq) -
					 bio_sectors(bio);
	else if (f->chain.nr)
		bio->bi_iter.bi_sector = blk_rq_pos(&f->dma.rq) +
					 blk_rq_sectors(&f->dma.rq);
	f->pages.bios[i].bio.bi_iter.bi_sector = bio->bi_iter.bi_sector;
}

/* Start a request with the bio, or merge it.  Returns if the request has it. */
static bool merge_bio(struct kunit *test, struct test_side *side,
		unsigned int i)
{
	struct fixture *f = test->priv;
	struct bio *bio = &side->bios[i].bio;
	unsigned int segs;

	if (!fits(test, side, i, &segs))
		return false;
	if (f->chain.nr)
		return blk_bio_list_merge(f->q, &side->list, bio, segs);
	init_request(test, side, bio, segs);
	return true;
}

static void chain_vecs(struct kunit *test, const struct extents *vecs,
		bool front)
{
	struct fixture *f = test->priv;
	unsigned int i, at = front ? 0 : f->chain.nr;

	for (i = 0; i < vecs->nr; i++)
		push(test, &f->chain, 0, 0);
	memmove(&f->chain.e[at + vecs->nr], &f->chain.e[at],
		(f->chain.nr - vecs->nr - at) * sizeof(f->chain.e[0]));
	memcpy(&f->chain.e[at], vecs->e, vecs->nr * sizeof(f->chain.e[0]));
}

/* Returns how many bios are in the request. */
static unsigned int build_request(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i, merged = 0;
	bool front, has_it;

	f->chain.nr = 0;
	for (i = 0; i < MAX_BIOS; i++) {
		random_bio(test, i, 4);
		front = one_in(test, 2);
		place_bio(test, i, front);
		has_it = merge_bio(test, &f->dma, i);
		if (f->has_twins)
			KUNIT_ASSERT_EQ(test, merge_bio(test, &f->pages, i),
					has_it);
		if (has_it) {
			chain_vecs(test, &f->vecs[i], front);
			merged++;
		}
	}
	return merged;
}

static bool complete_bytes(struct kunit *test, u32 bytes)
{
	struct fixture *f = test->priv;
	bool more = blk_update_request(&f->dma.rq, BLK_STS_OK, bytes);

	if (f->has_twins)
		KUNIT_ASSERT_EQ(test, more,
				blk_update_request(&f->pages.rq, BLK_STS_OK,
						   bytes));
	return more;
}

/* What is left after a part was done would be queued again. */
static void check_completion(struct kunit *test)
{
	struct fixture *f = test->priv;
	u32 block = f->lim->logical_block_size;
	u32 bytes = blk_rq_bytes(&f->dma.rq);
	u32 done = block * rnd(test, bytes / block);

	if (done) {
		KUNIT_ASSERT_TRUE(test, complete_bytes(test, done));
		ref_part(test, &f->chain, done, bytes - done, &f->part);
		check_request(test, &f->part);
	}
	KUNIT_ASSERT_FALSE(test, complete_bytes(test, bytes - done));
}

/* Returns how many of the bios have ended. */
static unsigned int put_bios(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i, ended = 0;

	for (i = 0; i < MAX_BIOS; i++) {
		KUNIT_ASSERT_LE(test, f->dma.bios[i].ended, 1);
		ended += f->dma.bios[i].ended;
		bio_uninit(&f->dma.bios[i].bio);
		bio_uninit(&f->pages.bios[i].bio);
	}
	return ended;
}

static void test_merged(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int nr, requests = 0, bios = 0, joined = 0;

	while (next_round(test)) {
		random_limits(test, true);
		random_shape(test, 16);
		nr = build_request(test);
		if (nr) {
			joined += check_request(test, &f->chain);
			check_completion(test);
			requests++;
			bios += nr;
		}
		KUNIT_ASSERT_EQ(test, put_bios(test), nr);
	}
	kunit_info(test, "%u requests, %u bios, %u vectors joined, %u twins\n",
		   requests, bios, joined, f->twins);
	KUNIT_EXPECT_GT(test, bios, 2 * requests);
	KUNIT_EXPECT_GT(test, joined, 0);
	KUNIT_EXPECT_GT(test, f->twins, 0);
}

enum kind {
	PAGES,
	ONE_MAP,
	OTHER_MAP,
	NR_KINDS,
};

/* The mappings differ in nothing but their identity. */
static struct bio *bio_of_kind(struct kunit *test, struct test_bio *b,
		enum kind kind, sector_t sector)
{
	struct fixture *f = test->priv;
	struct dma_premap *map = kind == ONE_MAP ? &f->map : &f->other_map;
	bool added;

	bio_uninit(&b->bio);
	init_bio(test, b, REQ_OP_READ);
	b->bio.bi_iter.bi_sector = sector;
	if (kind == PAGES)
		added = bio_add_page(&b->bio, ZERO_PAGE(0), SZ_4K, 0);
	else
		added = bio_add_dma_addr(&b->bio, map, map->addr, SZ_4K);
	KUNIT_ASSERT_TRUE(test, added);
	return &b->bio;
}

static void check_bio_merge(struct kunit *test, enum kind kind,
		enum kind other_kind, bool front)
{
	struct fixture *f = test->priv;
	bool want = kind == other_kind;
	struct request *rq = &f->dma.rq;
	struct bio *bio, *other;

	bio = bio_of_kind(test, &f->dma.bios[0], kind, 8);
	other = bio_of_kind(test, &f->dma.bios[1], other_kind, front ? 0 : 16);
	init_request(test, &f->dma, bio, 1);
	KUNIT_ASSERT_EQ(test, blk_rq_merge_ok(rq, other), want);
	KUNIT_ASSERT_EQ(test, want,
			blk_bio_list_merge(f->q, &f->dma.list, other, 1));
	KUNIT_ASSERT_PTR_EQ(test, rq->bio, want && front ? other : bio);
	KUNIT_ASSERT_PTR_EQ(test, rq->biotail, want && !front ? other : bio);
}

static void check_request_merge(struct kunit *test, enum kind kind,
		enum kind other_kind)
{
	struct fixture *f = test->priv;
	struct request *rq = &f->dma.rq, *next = &f->pages.rq;
	bool want = kind == other_kind;
	struct bio *bio, *other;

	bio = bio_of_kind(test, &f->dma.bios[0], kind, 8);
	other = bio_of_kind(test, &f->dma.bios[1], other_kind, 16);
	init_request(test, &f->dma, bio, 1);
	init_request(test, &f->pages, other, 1);
	KUNIT_ASSERT_EQ(test, blk_attempt_req_merge(f->q, rq, next), want);
	KUNIT_ASSERT_PTR_EQ(test, rq->biotail, want ? other : bio);
}

static void test_merge_rules(struct kunit *test)
{
	struct fixture *f = test->priv;
	enum kind kind, other_kind;

	/* A scheduler with no methods: merging requests asks for one. */
	f->q->elevator = &f->elevator;
	for (kind = 0; kind < NR_KINDS; kind++) {
		for (other_kind = 0; other_kind < NR_KINDS; other_kind++) {
			f->round = NR_KINDS * kind + other_kind;
			check_bio_merge(test, kind, other_kind, false);
			check_bio_merge(test, kind, other_kind, true);
			check_request_merge(test, kind, other_kind);
		}
	}
	bio_uninit(&f->dma.bios[0].bio);
	bio_uninit(&f->dma.bios[1].bio);
}

/*
 * Clones, and other ways to get from one bio to another
 */

static void check_part(struct kunit *test, struct bio *bio, u32 from, u32 len)
{
	struct fixture *f = test->priv;

	KUNIT_ASSERT_EQ(test, bio->bi_iter.bi_size, len);
	ref_part(test, &f->vecs[0], from, len, &f->part);
	check_vecs(test, bio, &f->part);
}

/* Advance a clone, split it, and shorten what is left of it. */
static void check_clone(struct kunit *test, struct bio *clone)
{
	struct fixture *f = test->priv;
	u32 size = clone->bi_iter.bi_size, skip, first, rest;
	struct bio *split;

	check_part(test, clone, 0, size);
	KUNIT_ASSERT_TRUE(test, bio_flagged(clone, BIO_CLONED));
	KUNIT_ASSERT_FALSE(test, bio_add_dma_addr(clone, &f->map, f->map.addr,
						  SZ_4K));
	skip = SECTOR_SIZE * rnd(test, size / SECTOR_SIZE);
	bio_advance(clone, skip);
	check_part(test, clone, skip, size - skip);
	if (bio_sectors(clone) < 2)
		return;

	first = 1 + rnd(test, bio_sectors(clone) - 1);
	split = bio_split(clone, first, GFP_KERNEL, &f->disk->bio_split);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, split);
	kunit_add_action(test, free_bio, split);
	first *= SECTOR_SIZE;
	check_part(test, split, skip, first);
	kunit_release_action(test, free_bio, split);
	check_part(test, clone, skip + first, size - skip - first);

	rest = 1 + rnd(test, bio_sectors(clone));
	bio_trim(clone, 0, rest);
	check_part(test, clone, skip + first, rest * SECTOR_SIZE);
}

static void test_clone(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = &f->dma.bios[0].bio, *clone, on_stack;
	int err;

	while (next_round(test)) {
		random_limits(test, false);
		random_shape(test, 31);
		random_bio(test, 0, BIO_MAX_VECS);

		clone = bio_alloc_clone(f->disk->part0, bio, GFP_KERNEL,
					&f->disk->bio_split);
		kunit_add_action(test, free_bio, clone);
		check_clone(test, clone);
		kunit_release_action(test, free_bio, clone);
		err = bio_init_clone(NULL, &on_stack, bio, GFP_KERNEL);
		KUNIT_ASSERT_EQ(test, err, 0);
		check_clone(test, &on_stack);
		bio_uninit(&on_stack);

		check_part(test, bio, 0, total(&f->vecs[0]));
		bio_uninit(bio);
		bio_uninit(&f->pages.bios[0].bio);
	}
}

/* After bio_reset() it is like any other bio, after bio_reuse() as it was. */
static void test_reset_and_reuse(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);

	push(test, &f->vecs[0], f->map.addr + SZ_512, SZ_4K);
	push(test, &f->vecs[0], f->map.addr + SZ_8K, SZ_1K);
	add(test, bio, f->map.addr + SZ_512, SZ_4K);
	add(test, bio, f->map.addr + SZ_8K, SZ_1K);

	bio_advance(bio, SZ_512);
	bio_reuse(bio, REQ_OP_WRITE);
	KUNIT_ASSERT_TRUE(test, bio_op(bio) == REQ_OP_WRITE);
	check_part(test, bio, 0, SZ_4K + SZ_1K);

	bio_reset(bio, f->disk->part0, REQ_OP_READ);
	KUNIT_ASSERT_FALSE(test, bio_is_dma_addr(bio));
	KUNIT_ASSERT_FALSE(test, bio_dma_map(bio));
	KUNIT_ASSERT_EQ(test, bio_add_page(bio, ZERO_PAGE(0), SZ_4K, 0), SZ_4K);
	bio_uninit(bio);
}

/*
 * bio_add_dma_addr()
 */

static void check_refused(struct kunit *test, struct bio *bio, u64 addr,
		u32 len)
{
	struct fixture *f = test->priv;
	struct bio before = *bio;
	struct bio_vec *last = bio->bi_io_vec + max(bio->bi_vcnt, 1) - 1;
	struct bio_vec last_before = *last;

	f->round++;
	KUNIT_ASSERT_FALSE(test, bio_add_dma_addr(bio, &f->map, addr, len));
	KUNIT_ASSERT_MEMEQ(test, bio, &before, sizeof(before));
	KUNIT_ASSERT_MEMEQ(test, last, &last_before, sizeof(last_before));
}

static void check_range(struct kunit *test, u64 addr, u64 len)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);

	f->map.addr = addr;
	f->map.len = len;
	check_refused(test, bio, addr, 0);
	check_refused(test, bio, addr - 1, 1);
	check_refused(test, bio, addr - 1, 2);
	check_refused(test, bio, addr + len, 1);
	check_refused(test, bio, addr + len - 1, 2);
	check_refused(test, bio, addr + len - 1, U32_MAX);
	check_refused(test, bio, addr ^ SZ_4G, 1);
	add(test, bio, addr + len - 1, 1);
	add(test, bio, addr, 1);
	bio_uninit(bio);
}

static void test_add_range(struct kunit *test)
{
	check_range(test, SZ_1M, SZ_1M);
	check_range(test, SZ_1M + 512, 1);
	check_range(test, SZ_4G - SZ_4K, SZ_8K);
	check_range(test, SZ_1T, SZ_1G);
	check_range(test, -(u64)SZ_1M, SZ_1M);
	check_range(test, 0, SZ_4K);
}

static void test_add_to_other(struct kunit *test)
{
	struct fixture *f = test->priv;
	u64 addr = f->map.addr;
	struct bio *bio;

	bio = bio_of_kind(test, &f->dma.bios[0], PAGES, 0);
	check_refused(test, bio, addr, SZ_4K);
	bio = bio_of_kind(test, &f->dma.bios[0], OTHER_MAP, 0);
	check_refused(test, bio, addr + SZ_4K, SZ_4K);
	check_refused(test, bio, addr + SZ_1M, SZ_4K);
	bio_uninit(bio);

	if (!IS_ENABLED(CONFIG_BLK_INLINE_ENCRYPTION))
		return;
	/* nobody looks into it */
	bio = init_bio(test, &f->dma.bios[0], REQ_OP_WRITE);
	bio->bi_crypt_context = test->priv;
	check_refused(test, bio, addr, SZ_4K);
	bio->bi_crypt_context = NULL;
	bio_uninit(bio);
}

/* From the end to the front: adjacent, but in the wrong order. */
static void test_add_until_full(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);
	u64 addr = f->map.addr + f->map.len;
	int i;

	for (i = 0; i < BIO_MAX_VECS; i++) {
		addr -= SZ_4K;
		push(test, &f->vecs[0], addr, SZ_4K);
		add(test, bio, addr, SZ_4K);
	}
	check_refused(test, bio, addr - SZ_4K, SZ_4K);
	/* still room in the last one */
	add(test, bio, addr + SZ_4K, SZ_1K);
	f->vecs[0].e[BIO_MAX_VECS - 1].len += SZ_1K;
	check_vecs(test, bio, &f->vecs[0]);
	bio_uninit(bio);
}

/*
 * Offsets in a vector have 32 bits and are relative to the page that it starts
 * in.  So if it does not start with that page, it has to be shorter than a bio
 * can be.
 */
static void test_add_huge(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);
	u64 addr = f->map.addr + SZ_4K - SZ_512;
	u32 len = SZ_4G - SZ_4K;

	check_refused(test, bio, addr, len + SZ_512);
	check_refused(test, bio, addr, len + SZ_1K);
	add(test, bio, addr, len);
	add(test, bio, addr + len, SZ_1K);
	push(test, &f->vecs[0], addr, len);
	push(test, &f->vecs[0], addr + len, SZ_1K);
	check_part(test, bio, 0, len + SZ_1K);
	bio_advance(bio, len - SZ_512);
	check_part(test, bio, len - SZ_512, SZ_512 + SZ_1K);
	bio_advance(bio, SZ_1K);
	check_part(test, bio, len + SZ_512, SZ_512);
	bio_uninit(bio);
}

static void test_add_too_much(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);
	u64 addr = f->map.addr;

	add(test, bio, addr, SZ_1G);
	add(test, bio, addr + SZ_4G, 3U * SZ_1G - 1);
	check_refused(test, bio, addr + SZ_2G, 1);
	check_refused(test, bio, addr + SZ_4G + 3UL * SZ_1G - 1, 1);
	bio_uninit(bio);

	bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);
	add(test, bio, addr, BIO_MAX_SIZE);
	check_refused(test, bio, addr + BIO_MAX_SIZE, 1);
	bio_uninit(bio);
}

/*
 * Helpers that look at the pages of a bio, or at its data with the CPU
 */

/* @call uses the variable test, as this does. */
#define EXPECT_ONE_WARNING(call)					\
	kunit_warning_suppress(test) {					\
		call;							\
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);		\
	}

static void check_iterators(struct kunit *test, struct bio *bio)
{
	struct bvec_iter_all all;
	struct folio_iter folios;
	struct bio_vec *bv;

	EXPECT_ONE_WARNING(bio_for_each_segment_all(bv, bio, all)
				 KUNIT_FAIL(test, "%u bytes", bv->bv_len));
	EXPECT_ONE_WARNING(bio_for_each_folio_all(folios, bio)
				 KUNIT_FAIL(test, "a folio"));
}

static void check_data_helpers(struct kunit *test, struct bio *bio)
{
	struct fixture *f = test->priv;

	EXPECT_ONE_WARNING(zero_fill_bio(bio));
	EXPECT_ONE_WARNING(bio_copy_data(bio, bio));
	/* of a disk that ends in the middle of the bio */
	set_capacity(f->disk, SZ_4K >> SECTOR_SHIFT);
	EXPECT_ONE_WARNING(guard_bio_eod(bio));
	set_capacity(f->disk, 0);
}

static void check_page_helpers(struct kunit *test, struct bio *bio)
{
	struct fixture *f = test->priv;
	struct page *page = ZERO_PAGE(0);

	/* By the same iterator, whose warning both may share. */
	kunit_warning_suppress(test) {
		bio_set_pages_dirty(bio);
		__bio_release_pages(bio, true);
		KUNIT_EXPECT_GE(test, KUNIT_SUPPRESSED_WARNING_COUNT(), 1);
	}
	EXPECT_ONE_WARNING(bio_free_pages(bio));
	EXPECT_ONE_WARNING(__bio_add_page(bio, page, SZ_4K, 0));
	EXPECT_ONE_WARNING(KUNIT_EXPECT_EQ(test, 0,
				bio_add_page(bio, page, SZ_4K, 0)));
	EXPECT_ONE_WARNING(KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
				blk_rq_append_bio(&f->dma.rq, bio)));
}

static void check_iov_helpers(struct kunit *test, struct bio *bio)
{
	struct kvec kvec = { .iov_base = test, .iov_len = sizeof(*test) };
	struct iov_iter iter;

	iov_iter_kvec(&iter, ITER_DEST, &kvec, 1, kvec.iov_len);
	EXPECT_ONE_WARNING(KUNIT_EXPECT_LT(test,
				bio_iov_iter_bounce(bio, &iter, SZ_4K, 1), 0));
	EXPECT_ONE_WARNING(KUNIT_EXPECT_LT(test,
				bio_iov_iter_get_pages(bio, &iter, 0, 0), 0));
	EXPECT_ONE_WARNING(bio_iov_iter_unbounce(bio, false, true));
	KUNIT_EXPECT_EQ(test, iov_iter_count(&iter), kvec.iov_len);
}

/* They warn and do nothing: there is no page at that address. */
static void test_page_helpers(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);
	struct bio before;

	add(test, bio, f->map.addr, SZ_8K);
	f->dma.rq.q = f->q;
	before = *bio;
	check_iterators(test, bio);
	check_data_helpers(test, bio);
	check_page_helpers(test, bio);
	check_iov_helpers(test, bio);
	KUNIT_EXPECT_MEMEQ(test, bio, &before, sizeof(before));
	bio_uninit(bio);
}

static bool needs_cpu_pi(struct bio *bio)
{
	return bio_needs_cpu_pi(bio, bio_integrity_action(bio));
}

static void test_integrity(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct blk_integrity *bi = &f->q->limits.integrity;
	struct bio *bio = init_bio(test, &f->dma.bios[0], REQ_OP_READ);

	if (!IS_ENABLED(CONFIG_BLK_DEV_INTEGRITY))
		kunit_skip(test, "needs CONFIG_BLK_DEV_INTEGRITY");

	add(test, bio, f->map.addr, SZ_4K);
	bi->csum_type = BLK_INTEGRITY_CSUM_CRC;
	bi->flags = BLK_INTEGRITY_DEVICE_CAPABLE;
	bi->pi_tuple_size = 8;
	bi->metadata_size = 8;
	KUNIT_EXPECT_EQ(test, bio_integrity_action(bio), 0);

	/* More than the device makes, unless nobody has to check it */
	bi->metadata_size = 16;
	KUNIT_EXPECT_TRUE(test, needs_cpu_pi(bio));
	EXPECT_ONE_WARNING(KUNIT_EXPECT_EQ(test, 0,
				fs_bio_integrity_alloc(bio)));
	KUNIT_EXPECT_NULL(test, bio_integrity(bio));
	bi->flags |= BLK_INTEGRITY_NOVERIFY;
	KUNIT_EXPECT_EQ(test, bio_integrity_action(bio), BI_ACT_BUFFER);
	KUNIT_EXPECT_FALSE(test, needs_cpu_pi(bio));

	bi->flags = 0;
	bi->metadata_size = 8;
	KUNIT_EXPECT_TRUE(test, needs_cpu_pi(bio));

	/* Metadata that is no checksum of the data */
	bi->csum_type = BLK_INTEGRITY_CSUM_NONE;
	bi->pi_tuple_size = 0;
	KUNIT_EXPECT_TRUE(test, bio_integrity_action(bio) & BI_ACT_CHECK);
	KUNIT_EXPECT_FALSE(test, needs_cpu_pi(bio));
	bio_uninit(bio);
}

/*
 * The mapping
 */

static void test_map_contains(struct kunit *test)
{
	static const struct {
		u64 start, size;
		u64 addr, len;
		bool want;
	} cases[] = {
		{ SZ_1M, SZ_1M, SZ_1M, SZ_1M, true },
		{ SZ_1M, SZ_1M, SZ_1M, 0, true },
		{ SZ_1M, SZ_1M, SZ_2M, 0, true },
		{ SZ_1M, SZ_1M, SZ_2M + 1, 0, false },
		{ SZ_1M, SZ_1M, SZ_1M, SZ_1M + 1, false },
		{ SZ_1M, SZ_1M, SZ_1M + 1, SZ_1M, false },
		{ SZ_1M, SZ_1M, SZ_1M - 1, SZ_1M, false },
		{ SZ_1M, SZ_1M, SZ_2M - 1, 1, true },
		{ SZ_1M, SZ_1M, SZ_2M - 1, 2, false },
		{ SZ_1M, SZ_1M, SZ_2M - 1, U64_MAX, false },
		{ SZ_1M, SZ_1M, SZ_4G + SZ_1M, 1, false },
		{ SZ_1M, SZ_1M, 0, U64_MAX, false },
		{ SZ_4G - 1, 2, SZ_4G - 1, 2, true },
		{ SZ_4G - 1, 2, SZ_4G, 1, true },
		{ SZ_4G - 1, 2, 0, 1, false },
		{ U64_MAX, 1, U64_MAX, 1, true },
		{ U64_MAX, 1, U64_MAX, 2, false },
		{ U64_MAX, 1, 0, 1, false },
		{ 0, U64_MAX, 1, U64_MAX, false },
		{ 0, U64_MAX, 1, U64_MAX - 1, true },
		{ 0, 0, 0, 1, false },
	};
	struct dma_premap map = { };
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		map.addr = cases[i].start;
		map.len = cases[i].size;
		KUNIT_EXPECT_EQ_MSG(test, dma_premap_contains(&map,
					cases[i].addr, cases[i].len),
				    cases[i].want, "case %d\n", i);
	}
}

static void test_map_allows(struct kunit *test)
{
	struct dma_premap map = { .dir = DMA_TO_DEVICE };

	KUNIT_EXPECT_TRUE(test, dma_premap_allows(&map, DMA_TO_DEVICE));
	KUNIT_EXPECT_FALSE(test, dma_premap_allows(&map, DMA_FROM_DEVICE));
	map.dir = DMA_FROM_DEVICE;
	KUNIT_EXPECT_FALSE(test, dma_premap_allows(&map, DMA_TO_DEVICE));
	KUNIT_EXPECT_TRUE(test, dma_premap_allows(&map, DMA_FROM_DEVICE));
	map.dir = DMA_BIDIRECTIONAL;
	KUNIT_EXPECT_TRUE(test, dma_premap_allows(&map, DMA_TO_DEVICE));
	KUNIT_EXPECT_TRUE(test, dma_premap_allows(&map, DMA_FROM_DEVICE));
	map.dir = DMA_NONE;
	KUNIT_EXPECT_FALSE(test, dma_premap_allows(&map, DMA_TO_DEVICE));
	KUNIT_EXPECT_FALSE(test, dma_premap_allows(&map, DMA_FROM_DEVICE));
}

static int init_suite(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32();
	kunit_info(suite, "seed %u\n", seed);
	return 0;
}

static int init_test(struct kunit *test)
{
	static struct elevator_type no_methods;
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	int err;

	if (!f)
		return -ENOMEM;
	/* Never added: it is there for what hangs on it. */
	f->disk = blk_alloc_disk(NULL, NUMA_NO_NODE);
	if (IS_ERR(f->disk))
		return PTR_ERR(f->disk);
	err = kunit_add_action_or_reset(test, free_disk, f->disk);
	if (err)
		return err;
	f->q = f->disk->queue;
	f->lim = &f->q->limits;
	f->elevator.type = &no_methods;
	f->map.addr = SZ_1T;
	f->map.len = 2 * SZ_4G;
	f->other_map = f->map;
	test->priv = f;
	return 0;
}

static void exit_test(struct kunit *test)
{
	struct fixture *f = test->priv;

	if (!f)
		return;
	if (test->status == KUNIT_FAILURE)
		kunit_info(test, "seed %u, round %u\n", seed, f->round);
	f->q->elevator = NULL;
	f->q->last_merge = NULL;
}

static struct kunit_case dma_addr_cases[] = {
	KUNIT_CASE(test_map_contains),
	KUNIT_CASE(test_map_allows),
	KUNIT_CASE(test_add_range),
	KUNIT_CASE(test_add_to_other),
	KUNIT_CASE(test_add_until_full),
	KUNIT_CASE(test_add_huge),
	KUNIT_CASE(test_add_too_much),
	KUNIT_CASE(test_split),
	KUNIT_CASE(test_merged),
	KUNIT_CASE(test_merge_rules),
	KUNIT_CASE(test_clone),
	KUNIT_CASE(test_reset_and_reuse),
	KUNIT_CASE(test_page_helpers),
	KUNIT_CASE(test_integrity),
	{ }
};

static struct kunit_suite dma_addr_suite = {
	.name		= "blk-dma-addr",
	.suite_init	= init_suite,
	.init		= init_test,
	.exit		= exit_test,
	.test_cases	= dma_addr_cases,
};

kunit_test_suites(&dma_addr_suite);

MODULE_DESCRIPTION("KUnit tests of DMA-address bios");
MODULE_LICENSE("GPL");
