// SPDX-License-Identifier: GPL-2.0
/*
 * What a DMA-address bio may be made of, what is refused at submission, and
 * what can be mapped for which device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-premap.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>
#include "dma_bio_test.h"

static struct {
	struct completion done;
	atomic_t ended;
} submission;

struct bad_range {
	s64 offset;
	u32 len;
	bool from_end;
};

static const struct bad_range bad_ranges[] = {
	{ 0, 0 },
	{ -1, SECTOR_SIZE },
	{ -SECTOR_SIZE, SECTOR_SIZE },
	{ 0, SECTOR_SIZE, .from_end = true },
	{ 4 - SECTOR_SIZE, SECTOR_SIZE, .from_end = true },
	{ -SECTOR_SIZE, U32_MAX, .from_end = true },
	{ SZ_1G, SECTOR_SIZE, .from_end = true },
};

bool dbt_test_ranges(void)
{
	struct bio *bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	const struct bad_range *range;
	bool ok = true;
	u64 addr;
	int i;

	for (i = 0; i < ARRAY_SIZE(bad_ranges); i++) {
		range = &bad_ranges[i];
		addr = dbt.map->addr + range->offset;
		if (range->from_end)
			addr += dbt.map->len;
		if (!check(!bio_add_dma_addr(bio, dbt.map, addr, range->len))) {
			pr_info("# range %d\n", i);
			ok = false;
		}
	}
	ok = ok && check(!bio->bi_vcnt && !bio_is_dma_addr(bio)) &&
	     check(bio_add_dma_addr(bio, dbt.map, dbt.map->addr, UNIT)) &&
	     check(bio_is_dma_addr(bio) && bio_dma_map(bio) == dbt.map);
	bio_put(bio);
	return ok;
}

bool dbt_test_adjacent(void)
{
	struct bio *bio = bio_alloc(dbt.bdev, 2, REQ_OP_READ, GFP_KERNEL);
	dma_addr_t dma = dbt.dma;
	bool ok;

	ok = check(bio_add_dma_addr(bio, dbt.map, dma + 4, 100)) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma + 104, SZ_64K)) &&
	     check(bio->bi_vcnt == 1) &&
	     check(bio->bi_io_vec[0].bv_len == 100 + SZ_64K) &&
	     check(bvec_dma_addr(&bio->bi_io_vec[0]) == dma + 4) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma, 4)) &&
	     check(bio->bi_vcnt == 2) &&
	     check(bio->bi_iter.bi_size == 104 + SZ_64K) &&
	     check(!bio_add_dma_addr(bio, dbt.map, dma + SZ_256K, 4)) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma + 4, 4)) &&
	     check(bio->bi_vcnt == 2 && bio->bi_iter.bi_size == 108 + SZ_64K);
	bio_put(bio);
	return ok;
}

bool dbt_test_unmixed(void)
{
	struct bio *bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	struct dma_premap second = *dbt.map;
	dma_addr_t next = dbt.dma + SZ_64K;
	struct bio *clone;
	bool ok;

	ok = check(bio_add_dma_addr(bio, dbt.map, dbt.dma, SECTOR_SIZE)) &&
	     check(!bio_add_dma_addr(bio, &second, next, SECTOR_SIZE));
	clone = bio_alloc_clone(dbt.bdev, bio, GFP_KERNEL, &dbt.bios);
	ok = ok && check(!bio_add_dma_addr(clone, dbt.map, next, SECTOR_SIZE));
	bio_put(clone);
	bio_put(bio);

	bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	bio_add_virt_nofail(bio, dbt.data, SECTOR_SIZE);
	ok = ok && check(!bio_add_dma_addr(bio, dbt.map, next, SECTOR_SIZE)) &&
	     check(!bio_is_dma_addr(bio) && bio->bi_vcnt == 1);
	bio_put(bio);
	return ok;
}

static void refused_end_io(struct bio *bio)
{
	atomic_inc(&submission.ended);
	complete(&submission.done);
}

/* Submits and frees a bio that must end once, with this status. */
static bool refused(struct bio *bio, blk_status_t status)
{
	blk_status_t got;

	atomic_set(&submission.ended, 0);
	init_completion(&submission.done);
	bio->bi_end_io = refused_end_io;
	submit_bio(bio);
	wait_for_completion(&submission.done);
	msleep(20);

	got = bio->bi_status;
	bio_put(bio);
	if (got != status)
		pr_info("# status %u instead of %u\n", (__force u8)got,
			(__force u8)status);
	return check(atomic_read(&submission.ended) == 1) && got == status;
}

static void spoil_no_map(struct bio *bio)
{
	dbt_set_map(bio, NULL);
}

static void spoil_device(struct bio *bio)
{
	static struct dma_premap foreign;

	foreign = *dbt.map;
	foreign.dev = &dbt.provider->dev;
	dbt_set_map(bio, &foreign);
}

static void spoil_direction(struct bio *bio)
{
	static struct dma_premap from_device;

	from_device = *dbt.map;
	from_device.dir = DMA_FROM_DEVICE;
	dbt_set_map(bio, &from_device);
}

static void spoil_dead(struct bio *bio)
{
	static struct dma_premap dead;

	dead = *dbt.map;
	dead.dead = true;
	dbt_set_map(bio, &dead);
}

static void spoil_before(struct bio *bio)
{
	bvec_set_dma_addr(bio->bi_io_vec, dbt.map->addr - SECTOR_SIZE,
			  SECTOR_SIZE);
}

static void spoil_end(struct bio *bio)
{
	bvec_set_dma_addr(bio->bi_io_vec, dbt.map->addr + dbt.map->len - 4,
			  SECTOR_SIZE);
}

static void spoil_page(struct bio *bio)
{
	bvec_set_page(bio->bi_io_vec, virt_to_page(dbt.data), SECTOR_SIZE, 0);
}

static void spoil_frame(struct bio *bio)
{
	bio->bi_io_vec->bv_dma_addr += SECTOR_SIZE;
}

static void spoil_alignment(struct bio *bio)
{
	bvec_set_dma_addr(bio->bi_io_vec, dbt.dma + 1, SECTOR_SIZE);
}

static void spoil_op(struct bio *bio, enum req_op op)
{
	bio->bi_opf = (bio->bi_opf & ~(blk_opf_t)REQ_OP_MASK) | op;
}

static void spoil_discard(struct bio *bio)
{
	spoil_op(bio, REQ_OP_DISCARD);
}

static void spoil_zeroes(struct bio *bio)
{
	spoil_op(bio, REQ_OP_WRITE_ZEROES);
}

static void spoil_passthrough(struct bio *bio)
{
	spoil_op(bio, REQ_OP_DRV_OUT);
}

static const struct {
	const char *name;
	void (*spoil)(struct bio *bio);
	blk_status_t status;
} refusals[] = {
	{ "no mapping", spoil_no_map, BLK_STS_INVAL },
	{ "mapping of another device", spoil_device, BLK_STS_INVAL },
	{ "mapping for the other direction", spoil_direction, BLK_STS_INVAL },
	{ "dead mapping", spoil_dead, BLK_STS_OFFLINE },
	{ "before the mapping", spoil_before, BLK_STS_INVAL },
	{ "across the end of the mapping", spoil_end, BLK_STS_INVAL },
	{ "a page", spoil_page, BLK_STS_INVAL },
	{ "frame without alignment", spoil_frame, BLK_STS_INVAL },
	{ "address without alignment", spoil_alignment, BLK_STS_INVAL },
	{ "discard", spoil_discard, BLK_STS_NOTSUPP },
	{ "write zeroes", spoil_zeroes, BLK_STS_NOTSUPP },
	{ "passthrough", spoil_passthrough, BLK_STS_NOTSUPP },
};

bool dbt_test_refusals(void)
{
	struct bio *bio;
	bool ok = true;
	int i;

	dbt_layout_one(&dbt.layout, 0, SECTOR_SIZE);
	if (!check(dbt_written(&dbt.layout)))
		return false;
	dbt_poison_p2pmem();
	for (i = 0; i < ARRAY_SIZE(refusals); i++) {
		bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_WRITE);
		refusals[i].spoil(bio);
		if (!refused(bio, refusals[i].status)) {
			pr_info("# %s\n", refusals[i].name);
			ok = false;
		}
	}
	return check(dbt_disk_has(SECTOR_SIZE)) && ok;
}

bool dbt_test_plain(void)
{
	struct bio *bio;

	dbt_layout_one(&dbt.layout, 0, SECTOR_SIZE);
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
	bio_set_dev(bio, dbt.plain);
	return check(!bdev_dma_dev(dbt.plain)) &&
	       check(refused(bio, BLK_STS_NOTSUPP));
}

bool dbt_test_other(void)
{
	struct dma_premap *map;
	struct bio *bio;
	bool ok;

	map = pci_p2pmem_map_resource(dbt.provider, &dbt.other->dev,
				      DMA_BIDIRECTIONAL);
	if (!check(!IS_ERR(map)))
		return false;
	dbt_layout_one(&dbt.layout, 0, SECTOR_SIZE);
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
	dbt_set_map(bio, map);
	ok = check(map != dbt.map) && check(refused(bio, BLK_STS_INVAL));
	pci_p2pmem_unmap_resource(map);
	return ok;
}

bool dbt_test_dma_dev(void)
{
	return check(bdev_dma_dev(dbt.bdev) == dbt.client) &&
	       check(dev_is_pci(dbt.client)) &&
	       check(dbt.map->dev == dbt.client) &&
	       check(!dma_premap_is_dead(dbt.map)) &&
	       check(dma_premap_contains(dbt.map, dbt.dma, BUFFER_SIZE)) &&
	       check(pci_p2pmem_dma_addr(dbt.map, dbt.p2p + 5) == dbt.dma + 5);
}

bool dbt_test_pool_size(void)
{
	return check(dbt.map->len == dbt.pool_size);
}

bool dbt_test_sharing(void)
{
	struct dma_premap *same, *from;
	bool ok;

	same = pci_p2pmem_map_resource(dbt.provider, dbt.client,
				       DMA_BIDIRECTIONAL);
	from = pci_p2pmem_map_resource(dbt.provider, dbt.client,
				       DMA_FROM_DEVICE);
	ok = check(same == dbt.map) && check(!IS_ERR(from) && from != dbt.map);
	if (!IS_ERR(from))
		pci_p2pmem_unmap_resource(from);
	if (!IS_ERR(same))
		pci_p2pmem_unmap_resource(same);
	return ok && check(!dma_premap_is_dead(dbt.map));
}

static bool map_gives(int err, struct pci_dev *provider, struct device *client,
		      enum dma_data_direction dir)
{
	struct dma_premap *map;

	map = pci_p2pmem_map_resource(provider, client, dir);
	if (!IS_ERR(map))
		pci_p2pmem_unmap_resource(map);
	return PTR_ERR_OR_ZERO(map) == err;
}

static bool map_fails(struct pci_dev *provider, struct device *client, int err)
{
	return map_gives(err, provider, client, DMA_BIDIRECTIONAL);
}

static struct pci_dev *get_driverless(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev)
		if (!pdev->dev.driver)
			break;
	return pdev;
}

bool dbt_test_map_errors(void)
{
	struct pci_dev *driverless = get_driverless();
	bool ok;

	ok = check(map_fails(dbt.provider, disk_to_dev(dbt.bdev->bd_disk),
			     -EOPNOTSUPP)) &&
	     check(map_fails(to_pci_dev(dbt.client), dbt.client, -ENODEV)) &&
	     check(driverless) &&
	     check(map_fails(dbt.provider, &driverless->dev, -ENODEV));
	pci_dev_put(driverless);

	/* Only a new mapping needs the client to hold still. */
	device_lock(dbt.client);
	ok = check(map_gives(-EAGAIN, dbt.provider, dbt.client,
			     DMA_TO_DEVICE)) && ok;
	ok = check(map_gives(0, dbt.provider, dbt.client,
			     DMA_BIDIRECTIONAL)) && ok;
	device_unlock(dbt.client);
	return ok;
}

bool dbt_test_far(void)
{
	return check(map_fails(dbt.far, dbt.client, -EOPNOTSUPP));
}
