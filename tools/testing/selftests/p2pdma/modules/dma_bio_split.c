// SPDX-License-Identifier: GPL-2.0
/*
 * How DMA-address bios are walked, one segment after the other.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blk-mq-dma.h>
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include "dma_bio_test.h"

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
		ok = check(iter.addr - dbt.map->addr <= dbt.map->len - iter.len) &&
		     check(iter.p2pdma.map == PCI_P2PDMA_MAP_BUS_ADDR);
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
