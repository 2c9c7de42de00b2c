// SPDX-License-Identifier: GPL-2.0
/*
 * Bios whose data is in memory that is already mapped for DMA, instead of in
 * pages.
 *
 * See Documentation/block/dma-address.rst for the rules.
 */
#define pr_fmt(fmt) "block: " fmt
#include <linux/bio.h>
#include <linux/blk-integrity.h>
#include <linux/blk-mq.h>
#include <linux/dma-premap.h>
#include "blk.h"

/*
 * The first bio_vec of such a bio is empty and names the mapping.  Clones and
 * splits share it with the table, so struct bio needs no member for it.  As
 * iteration starts at the second bio_vec, an index of 0 means that there is no
 * mapping: only the flag was set.
 */
static struct dma_premap *bio_dma_map(const struct bio *bio)
{
	return bio->bi_iter.bi_idx ? bio->bi_io_vec[0].bv_dma_map : NULL;
}

static bool bio_can_add_dma_addr(struct bio *bio, struct dma_premap *map)
{
	if (bio->bi_vcnt)
		return bio_is_dma_addr(bio) && bio_dma_map(bio) == map;
	return bio->bi_max_vecs > 1;
}

/*
 * Iterators use 32-bit offsets from the start of the page-sized frame in which
 * a bio_vec begins, so its end must not be further away than that.
 */
static bool bvec_can_reach(unsigned int offset, u64 len)
{
	return offset + len <= U32_MAX;
}

static bool bio_try_merge_dma_addr(struct bio *bio, u64 offset,
		unsigned int len)
{
	struct bio_vec *bv;

	if (bio->bi_vcnt < 2)
		return false;

	bv = &bio->bi_io_vec[bio->bi_vcnt - 1];
	if (bvec_dma_offset(bv) + bv->bv_len != offset)
		return false;
	if (!bvec_can_reach(bv->bv_offset, (u64)bv->bv_len + len))
		return false;
	bv->bv_len += len;
	return true;
}

static void bio_start_dma_addr(struct bio *bio, struct dma_premap *map)
{
	bio->bi_opf |= REQ_DMA_ADDR;
	bio->bi_io_vec[0] = (struct bio_vec) { .bv_dma_map = map };
	bio->bi_iter.bi_idx = 1;
	bio->bi_vcnt = 1;
}

/**
 * bio_add_dma_addr - add a range of DMA addresses to a bio
 * @bio: destination bio, with a bio_vec for each range and one for the mapping
 * @map: mapping that contains the range, for any of the devices
 * @addr: DMA address of the first byte, in @map
 * @len: length of the range in bytes
 *
 * The first call sets %REQ_DMA_ADDR in @bio.  From then on only ranges of @map
 * may be added: another mapping is refused here, while adding a page is a bug
 * of the caller that nothing checks for.  The flag must not be cleared: without
 * it, the bio_vecs would be taken for pages.
 *
 * Each device that @bio reaches uses its own mapping of the memory, see &struct
 * dma_premap.  If it has none, or cannot take such a bio, then @bio ends with
 * %BLK_STS_NOTSUPP.
 *
 * The caller keeps its hold on @map, and on the memory, until @bio has ended.
 *
 * Context: Any.
 * Return: %true if the range was added.  %false, with @bio unchanged, if @bio
 *	is full, is a clone, has pages or another mapping, or if the range is
 *	empty, not inside @map, or ends 4 GiB or more after the start of the
 *	page-sized frame in which it begins.
 */
bool bio_add_dma_addr(struct bio *bio, struct dma_premap *map, dma_addr_t addr,
		unsigned int len)
{
	u64 offset = addr - map->addr;

	if (!len || addr < map->addr || len > map->len ||
	    offset > map->len - len)
		return false;
	if (!bio_can_add_dma_addr(bio, map))
		return false;
	if (bio->bi_iter.bi_size > BIO_MAX_SIZE - len)
		return false;

	if (!bio_try_merge_dma_addr(bio, offset, len)) {
		if ((bio->bi_vcnt && bio->bi_vcnt >= bio->bi_max_vecs) ||
		    !bvec_can_reach(offset_in_page(offset), len))
			return false;
		if (!bio->bi_vcnt)
			bio_start_dma_addr(bio, map);
		bio->bi_io_vec[bio->bi_vcnt++] = (struct bio_vec) {
			.bv_dma_frame	= offset >> PAGE_SHIFT,
			.bv_offset	= offset_in_page(offset),
			.bv_len		= len,
		};
	}
	bio->bi_iter.bi_size += len;
	return true;
}
EXPORT_SYMBOL_GPL(bio_add_dma_addr);

static bool dma_premap_is_for(const struct dma_premap *map,
		const struct device *dev)
{
	return map->dev == dev && !dma_premap_is_dead(map);
}

/**
 * dma_premap_find - find the mapping of the same memory for another device
 * @map: mapping for any device
 * @dev: the device that does the DMA
 *
 * Context: Any, in an RCU read-side critical section for as long as the result
 *	is used, unless something else keeps it.
 * Return: The mapping for @dev, or %NULL if there is none that is alive.
 */
const struct dma_premap *dma_premap_find(const struct dma_premap *map,
		const struct device *dev)
{
	const struct dma_premap *sibling;

	if (dma_premap_is_for(map, dev))
		return map;
	guard(rcu)();
	list_for_each_entry_rcu(sibling, &map->siblings, siblings)
		if (dma_premap_is_for(sibling, dev))
			return sibling;
	return NULL;
}
EXPORT_SYMBOL_GPL(dma_premap_find);

/**
 * __bio_find_dma_map - find the mapping to use for the device of a bio
 * @bio: bio with %REQ_DMA_ADDR
 *
 * The mapping is looked up each time, not stored in @bio: a stored one could be
 * gone by the time @bio is sent to another device because the first one failed.
 *
 * Return: The mapping, or %NULL if there is none.  It stays for as long as @bio
 *	holds the usage counter of its queue, because the driver drains the
 *	queue before its device loses its mappings.  For a stacking driver,
 *	which only needs to know where to split, it is the one that @bio names.
 */
const struct dma_premap *__bio_find_dma_map(struct bio *bio)
{
	struct device *dma_dev = bdev_get_queue(bio->bi_bdev)->dma_dev;
	struct dma_premap *map = bio_dma_map(bio);

	if (!map || !dma_dev)
		return map;
	return dma_premap_find(map, dma_dev);
}

static bool bio_refuse_dma_addr(struct bio *bio, const char *reason)
{
	pr_warn_ratelimited("%pg: DMA-address bio refused: %s\n", bio->bi_bdev,
			    reason);
	return false;
}

static inline bool bio_op_takes_dma_addr(struct bio *bio)
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

/* Metadata without a checksum does not count: it only needs a buffer. */
static bool bio_needs_cpu_pi(struct bio *bio)
{
	return (bio_integrity_action(bio) & BI_ACT_CHECK) &&
	       bdev_limits(bio->bi_bdev)->integrity.csum_type;
}

/* read_verify and write_generate of the stack itself do not matter here. */
static bool bio_stack_needs_cpu_pi(struct bio *bio)
{
	struct blk_integrity *bi = &bdev_limits(bio->bi_bdev)->integrity;

	return bi->csum_type && !bio_integrity(bio) &&
	       !(bi->flags & BLK_INTEGRITY_DEVICE_PROTECTS);
}

/* What a device and a stack have in common */
static inline bool bio_check_dma_addr(struct bio *bio)
{
	if (!bio_op_takes_dma_addr(bio))
		return bio_refuse_dma_addr(bio, "not a read, write or zone append");
	if (!bio_dma_map(bio))
		return bio_refuse_dma_addr(bio, "it has no mapping");
	return true;
}

/**
 * bio_can_use_dma_addr - check whether a bio's device can use its addresses
 * @bio: bio with %REQ_DMA_ADDR that has entered the queue of the device
 *
 * Everything below relies on the result, which holds until @bio has ended: as
 * long as a bio is in the queue and its submitter keeps the memory, neither the
 * limits of the queue nor the mappings of its device change.
 *
 * Return: %true if so; otherwise %false, with the reason in the log.
 */
bool bio_can_use_dma_addr(struct bio *bio)
{
	if (!bdev_get_queue(bio->bi_bdev)->dma_dev)
		return bio_refuse_dma_addr(bio, "the driver takes no DMA addresses");
	if (!bio_check_dma_addr(bio))
		return false;
	if (!__bio_find_dma_map(bio))
		return bio_refuse_dma_addr(bio, "the memory is not mapped for the device");
	if (bio_has_crypt_ctx(bio))
		return bio_refuse_dma_addr(bio, "the CPU cannot encrypt the data");
	if (bio_needs_cpu_pi(bio))
		return bio_refuse_dma_addr(bio, "the CPU cannot protect the data (PI)");
	return true;
}

/**
 * bio_can_pass_dma_addr - check whether a stacking driver can pass on a bio
 * @bio: bio with %REQ_DMA_ADDR that has entered the queue of the driver
 * @features: features of that queue
 *
 * Return: %true if so; otherwise %false, with the reason in the log.
 */
bool bio_can_pass_dma_addr(struct bio *bio, blk_features_t features)
{
	if (!(features & BLK_FEAT_DMA_ADDR))
		return bio_refuse_dma_addr(bio, "the driver passes no DMA addresses on");
	/*
	 * After a split, the rest of a bio without a mapping may have an index
	 * other than 0, and its first bio_vec would be taken for a mapping.
	 * And a stack might take a refusal by a member for its failure.
	 */
	if (!bio_check_dma_addr(bio))
		return false;
	if (bio_stack_needs_cpu_pi(bio))
		return bio_refuse_dma_addr(bio, "the CPU cannot protect the data (PI)");
	return true;
}

/**
 * bdev_get_dma_devs - get the devices that do the DMA for a block device
 * @bdev: block device, or a stack of them
 * @devs: filled with the devices, each with a reference
 * @max: number of entries in @devs
 *
 * Before a bio with %REQ_DMA_ADDR is submitted to @bdev, its memory must be
 * mapped for all of these devices.  For devices that are added to a stack
 * later, it must be mapped before they are added: see pci_p2pmem_map_clients().
 *
 * A device below several parts of a stack is listed several times.
 *
 * Context: Any.
 * Return: The number of devices, zero for a stack that has no paths at the
 *	moment; -EOPNOTSUPP if a driver takes no such bios; -E2BIG if the
 *	devices do not fit.  On error no reference is held.
 */
int bdev_get_dma_devs(struct block_device *bdev, struct device **devs,
		unsigned int max)
{
	struct gendisk *disk = bdev->bd_disk;
	struct request_queue *q = disk->queue;

	if (!blk_queue_dma_addr(q))
		return -EOPNOTSUPP;
	if (disk->fops->get_dma_devs)
		return disk->fops->get_dma_devs(disk, devs, max);
	if (!max)
		return -E2BIG;
	devs[0] = get_device(q->dma_dev);
	return 1;
}
EXPORT_SYMBOL_GPL(bdev_get_dma_devs);
