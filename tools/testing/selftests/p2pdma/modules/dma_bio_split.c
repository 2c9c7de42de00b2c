// SPDX-License-Identifier: GPL-2.0
/*
 * How DMA-address bios are split into segments, and merged into requests.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blk-mq-dma.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/part_stat.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>
#include "dma_bio_test.h"

/* What bio_split_io_at() is to find out, one segment after the other. */
static int count_slowly(struct bio *bio, const struct queue_limits *lim,
			unsigned int *segs, u32 max_bytes)
{
	u64 addr = 0, boundary = lim->seg_boundary_mask + 1;
	u32 bytes = 0, left, len;
	int i;

	*segs = 0;
	for (i = 0; i < bio->bi_vcnt; i++) {
		if (i && ((addr | bvec_dma_addr(&bio->bi_io_vec[i])) &
			  lim->virt_boundary_mask))
			goto split;
		addr = bvec_dma_addr(&bio->bi_io_vec[i]);
		for (left = bio->bi_io_vec[i].bv_len; left; left -= len) {
			if (*segs == lim->max_segments || bytes == max_bytes)
				goto split;
			len = min_t(u64, left, boundary - addr % boundary);
			len = min3(len, lim->max_segment_size,
				   max_bytes - bytes);
			addr += len;
			bytes += len;
			++*segs;
		}
	}
	return 0;
split:
	bytes = ALIGN_DOWN(bytes, SECTOR_SIZE);
	return bytes ? bytes >> SECTOR_SHIFT : -EINVAL;
}

static void random_limits(struct queue_limits *lim)
{
	*lim = bdev_get_queue(dbt.bdev)->limits;
	lim->max_segments = 1 + dbt_rnd(BIO_MAX_VECS);
	lim->max_segment_size = SZ_4K << dbt_rnd(6);
	lim->seg_boundary_mask = (SZ_4K << dbt_rnd(6)) - 1;
	lim->max_fast_segment_size = SZ_4K;
	lim->virt_boundary_mask = 0;
	/* No queue has these two limits together. */
	if (dbt_rnd(2)) {
		lim->virt_boundary_mask = SZ_4K - 1;
		lim->max_segment_size = UINT_MAX;
	}
}

bool dbt_test_counting(void)
{
	unsigned int slow_segs, segs;
	struct queue_limits lim;
	struct bio *bio;
	u32 max_bytes;
	bool ok = true;
	int slow, i;

	for (i = 0; i < 50 * RANDOM_ROUNDS && ok; i++) {
		dbt_layout_random(&dbt.layout);
		random_limits(&lim);
		max_bytes = SECTOR_SIZE * (1 + dbt_rnd(2048));
		bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
		slow = count_slowly(bio, &lim, &slow_segs, max_bytes);
		ok = check(bio_split_io_at(bio, &lim, &segs, max_bytes,
					   UNIT - 1) == slow) &&
		     check(slow < 0 || segs == slow_segs);
		bio_put(bio);
	}
	return ok;
}

/* The request is only there to be walked, it is never started. */
static bool iterate(struct bio *bio, unsigned int segs)
{
	struct dma_iova_state state;
	struct blk_dma_iter iter;
	struct request *rq;
	bool more, ok = true;
	u32 bytes = 0;

	rq = blk_mq_alloc_request(bdev_get_queue(dbt.bdev), bio->bi_opf, 0);
	if (!check(!IS_ERR(rq)))
		return false;
	rq->bio = bio;
	rq->__data_len = bio->bi_iter.bi_size;
	more = blk_rq_dma_map_iter_start(rq, dbt.client, &state, &iter);
	while (more && ok) {
		ok = check(dma_premap_contains(dbt.map, iter.addr, iter.len)) &&
		     check(iter.p2pdma.map == PCI_P2PDMA_MAP_PREMAPPED);
		bytes += iter.len;
		segs--;
		more = blk_rq_dma_map_iter_next(rq, dbt.client, &iter);
	}
	ok = ok && check(!iter.status) && check(!segs) &&
	     check(bytes == rq->__data_len);
	rq->bio = NULL;
	blk_mq_free_request(rq);
	return ok;
}

bool dbt_test_iterating(void)
{
	struct queue_limits lim = bdev_get_queue(dbt.bdev)->limits;
	struct bio *bio;
	unsigned int segs;
	bool ok = true;
	int i;

	for (i = 0; i < 5 * RANDOM_ROUNDS && ok; i++) {
		dbt_layout_random(&dbt.layout);
		bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
		if (!bio_split_io_at(bio, &lim, &segs, AREA_SIZE, UNIT - 1))
			ok = iterate(bio, segs);
		bio_put(bio);
	}
	return ok;
}

/*
 * Segments smaller than the vectors, which NVMe alone would not ask for. PRPs
 * can't be made of all of them, hence the data is in whole pages.
 */
bool dbt_test_small_segments(void)
{
	struct request_queue *q = bdev_get_queue(dbt.bdev);
	struct queue_limits old, lim;
	bool ok;

	old = queue_limits_start_update(q);
	lim = old;
	lim.max_segment_size = SZ_8K;
	lim.seg_boundary_mask = SZ_16K - 1;
	if (!check(!queue_limits_commit_update_frozen(q, &lim)))
		return false;

	dbt_layout_one(&dbt.layout, SZ_4K, SZ_256K);
	ok = check(dbt_written(&dbt.layout)) &&
	     check(dbt_read_back(&dbt.layout)) && check(dbt_test_iterating());

	lim = queue_limits_start_update(q);
	lim.max_segment_size = old.max_segment_size;
	lim.seg_boundary_mask = old.seg_boundary_mask;
	return check(!queue_limits_commit_update_frozen(q, &lim)) && ok;
}

enum kind {
	PAGES,
	MAP,
	SECOND_MAP,
};

static const struct {
	enum kind first;
	enum kind second;
	bool front;
	bool merges;
} pairs[] = {
	{ PAGES, PAGES, .merges = true },
	{ MAP, MAP, .merges = true },
	{ MAP, MAP, .front = true, .merges = true },
	{ SECOND_MAP, SECOND_MAP, .merges = true },
	{ PAGES, MAP },
	{ MAP, PAGES },
	{ MAP, PAGES, .front = true },
	{ MAP, SECOND_MAP },
	{ SECOND_MAP, MAP, .front = true },
};

/* A page at offset, from the sector that belongs there. */
static struct bio *make_half(enum kind kind, u32 offset,
			     struct dma_premap *second)
{
	struct dma_premap *map = kind == MAP ? dbt.map : second;
	struct bio *bio = bio_alloc(dbt.bdev, 1, REQ_OP_READ, GFP_KERNEL);
	u64 addr = map->addr + (dbt.dma - dbt.map->addr) + offset;

	bio->bi_iter.bi_sector = FIRST_SECTOR + (offset >> SECTOR_SHIFT);
	if (kind == PAGES)
		bio_add_virt_nofail(bio, dbt.image + offset, SZ_4K);
	else if (!bio_add_dma_addr(bio, map, addr, SZ_4K))
		pr_info("# half at %u was not added\n", offset);
	return bio;
}

static bool half_read(enum kind kind, u32 offset)
{
	void *memory = kind == PAGES ? dbt.image : dbt.p2p;

	return !memcmp(memory + offset, dbt.data + offset, SZ_4K);
}

static bool merge_one(int i, struct dma_premap *second)
{
	u32 offset = pairs[i].front ? SZ_4K : 0;
	unsigned long before, after;
	struct blk_plug plug;
	struct bio *a, *b;
	bool ok;

	memset(dbt.image, POISON, SZ_8K);
	dbt_poison_p2pmem();
	a = make_half(pairs[i].first, offset, second);
	b = make_half(pairs[i].second, offset ^ SZ_4K, second);
	bio_chain(a, b);

	before = part_stat_read(dbt.bdev, merges[STAT_READ]);
	blk_start_plug(&plug);
	submit_bio(a);
	/* Flushes the plug, but only after the attempt to merge. */
	ok = check(dbt_run_bio(b));
	blk_finish_plug(&plug);
	after = part_stat_read(dbt.bdev, merges[STAT_READ]);

	return check(after - before == pairs[i].merges) && ok &&
	       check(half_read(pairs[i].first, offset)) &&
	       check(half_read(pairs[i].second, offset ^ SZ_4K));
}

bool dbt_test_merging(void)
{
	struct dma_premap *second;
	bool ok = true;
	int i;

	second = pci_p2pmem_map_resource(dbt.provider, dbt.client,
					 DMA_FROM_DEVICE);
	if (!check(!IS_ERR(second)))
		return false;
	ok = check(dbt_disk_filled(SZ_8K));
	for (i = 0; i < ARRAY_SIZE(pairs) && ok; i++) {
		ok = merge_one(i, second);
		if (!ok)
			pr_info("# pair %d\n", i);
	}
	pci_p2pmem_unmap_resource(second);
	return ok;
}
