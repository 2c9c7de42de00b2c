// SPDX-License-Identifier: GPL-2.0
/*
 * Bios that describe their data by DMA addresses instead of pages.
 *
 * See Documentation/block/dma-address.rst for the rules.
 */
#define pr_fmt(fmt) "block: " fmt
#include <linux/bio.h>
#include <linux/blk-crypto.h>
#include <linux/blk-integrity.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include "blk.h"

static bool bio_can_add_dma_addr(struct bio *bio, struct dma_premap *map)
{
	if (bio_flagged(bio, BIO_CLONED) || bio_has_crypt_ctx(bio))
		return false;
	if (bio_is_dma_addr(bio))
		return bio_dma_map(bio) == map;
	return !bio->bi_vcnt;
}

/*
 * Iterators compute offsets in a vector in 32 bits, starting from the page sized
 * frame that it begins in: its end must not be further away than that.
 */
static bool bvec_can_reach(unsigned int offset, u64 len)
{
	return offset + len <= U32_MAX;
}

static bool bio_try_merge_dma_addr(struct bio *bio, dma_addr_t addr,
		unsigned int len)
{
	struct bio_vec *bv;

	if (!bio->bi_vcnt)
		return false;

	bv = &bio->bi_io_vec[bio->bi_vcnt - 1];
	if (bvec_dma_addr(bv) + bv->bv_len != addr)
		return false;
	if (!bvec_can_reach(bv->bv_offset, (u64)bv->bv_len + len))
		return false;
	bv->bv_len += len;
	return true;
}

/**
 * bio_add_dma_addr - add a range of DMA addresses to a bio
 * @bio: destination bio
 * @map: the mapping that the range is part of
 * @addr: DMA address of the first byte
 * @len: length of the range in bytes
 *
 * The first call makes @bio one that has DMA addresses (%REQ_DMA_ADDR) of @map.
 * From then on nothing else can be added to it, neither pages nor ranges of
 * another mapping.  Do not set the flag yourself, nor overwrite &bio.bi_opf
 * afterwards: without the flag the addresses are taken for pages.
 *
 * The caller keeps its hold on @map, and on the memory, until @bio has ended.
 *
 * Whether the device takes such a bio, and whether @map is alive and made for
 * that device, is found out when the bio is submitted.
 *
 * Context: Any.
 * Return: %true if the range was added.  %false if @bio is full, is a clone, has
 *	pages, another mapping or an encryption context, or if the range is empty,
 *	not inside @map, or ends 4 GiB or more after the start of the page sized
 *	frame that it begins in; @bio is unchanged then.
 */
bool bio_add_dma_addr(struct bio *bio, struct dma_premap *map, dma_addr_t addr,
		unsigned int len)
{
	if (!len || !dma_premap_contains(map, addr, len))
		return false;
	if (!bio_can_add_dma_addr(bio, map))
		return false;
	if (bio->bi_iter.bi_size > BIO_MAX_SIZE - len)
		return false;

	if (!bio_try_merge_dma_addr(bio, addr, len)) {
		if (bio->bi_vcnt >= bio->bi_max_vecs ||
		    !bvec_can_reach(offset_in_page(addr), len))
			return false;
		bvec_set_dma_addr(&bio->bi_io_vec[bio->bi_vcnt++], addr, len);
	}
	bio_set_dma_map(bio, map);
	bio->bi_iter.bi_size += len;
	return true;
}
EXPORT_SYMBOL_GPL(bio_add_dma_addr);

/*
 * Not O(1), but the vectors are about to be walked anyway to split the bio, and
 * nothing else would catch one that was put there without bio_add_dma_addr().
 */
static bool bio_inside_dma_map(struct bio *bio, const struct dma_premap *map)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_bvec(bv, bio, iter) {
		if (!IS_ALIGNED(bv.bv_dma_addr, PAGE_SIZE) ||
		    !dma_premap_contains(map, bvec_dma_addr(&bv), bv.bv_len))
			return false;
	}
	return true;
}

static bool bio_op_takes_dma_addr(struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
	case REQ_OP_ZONE_APPEND:
		return true;
	default:
		return false;
	}
}

static enum dma_data_direction bio_dma_dir(struct bio *bio)
{
	return op_is_write(bio_op(bio)) ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
}

static blk_status_t bio_refuse_dma_addr(struct bio *bio, blk_status_t status,
		const char *reason)
{
	pr_warn_ratelimited("%pg: DMA-address bio refused: %s\n", bio->bi_bdev,
			    reason);
	return status;
}

/**
 * bio_needs_cpu_pi - would the CPU have to look at the data of this bio?
 * @bio: bio with %REQ_DMA_ADDR
 * @action: what bio_integrity_action() says is to be done for it
 *
 * Metadata that has no checksum of the data does not count: the block layer only
 * makes room for it.
 *
 * Return: %true if protection information would have to be generated or verified.
 */
bool bio_needs_cpu_pi(struct bio *bio, unsigned int action)
{
	/* blk_get_integrity() is NULL if a reformat has just removed it. */
	return (action & BI_ACT_CHECK) &&
	       bdev_limits(bio->bi_bdev)->integrity.csum_type;
}

/**
 * blk_check_dma_addr_pi - may this bio go on without the CPU's protection?
 * @bio: bio with %REQ_DMA_ADDR
 * @action: what bio_integrity_action() says is to be done for it
 *
 * The profile can change while a bio waits for the queue, so this is asked when it
 * has entered it.
 *
 * Return: %BLK_STS_OK, or %BLK_STS_NOTSUPP with a line in the log.
 */
blk_status_t blk_check_dma_addr_pi(struct bio *bio, unsigned int action)
{
	if (bio_needs_cpu_pi(bio, action))
		return bio_refuse_dma_addr(bio, BLK_STS_NOTSUPP,
				"the CPU can't protect the data (PI)");
	return BLK_STS_OK;
}

/**
 * blk_check_dma_addr - may the device of this bio use its DMA addresses?
 * @bio: bio that is being submitted, with %REQ_DMA_ADDR
 *
 * This is the only place that lets such a bio pass, and everything below relies
 * on it: a driver never sees a DMA address that was not made for its device.
 * What remains to be asked is blk_check_dma_addr_pi().
 *
 * Return: %BLK_STS_OK; %BLK_STS_NOTSUPP if the device does not take this kind of
 *	bio or operation, or if the CPU would have to encrypt the data;
 *	%BLK_STS_INVAL if the bio is malformed: no mapping, one that was made for
 *	another device or the other direction, or an address that is not in it;
 *	%BLK_STS_OFFLINE if the mapping is dead.
 */
blk_status_t blk_check_dma_addr(struct bio *bio)
{
	struct device *dma_dev = bdev_dma_dev(bio->bi_bdev);
	const struct dma_premap *map = bio_dma_map(bio);

	if (!dma_dev)
		return bio_refuse_dma_addr(bio, BLK_STS_NOTSUPP,
				"the driver takes no DMA addresses");
	if (!bio_op_takes_dma_addr(bio))
		return bio_refuse_dma_addr(bio, BLK_STS_NOTSUPP,
				"the operation has no data to transfer");
	if (IS_ERR(map))
		return bio_refuse_dma_addr(bio, BLK_STS_NOTSUPP,
				"the CPU can't encrypt the data");
	if (!map)
		return bio_refuse_dma_addr(bio, BLK_STS_INVAL,
				"it has no mapping");
	if (map->dev != dma_dev)
		return bio_refuse_dma_addr(bio, BLK_STS_INVAL,
				"mapped for another device");
	if (dma_premap_is_dead(map))
		return bio_refuse_dma_addr(bio, BLK_STS_OFFLINE,
				"the mapping is gone");
	if (!dma_premap_allows(map, bio_dma_dir(bio)))
		return bio_refuse_dma_addr(bio, BLK_STS_INVAL,
				"mapped for the other direction");
	if (!bio_inside_dma_map(bio, map))
		return bio_refuse_dma_addr(bio, BLK_STS_INVAL,
				"address outside the mapping");
	return BLK_STS_OK;
}
