// SPDX-License-Identifier: GPL-2.0
/*
 * What a DMA-address bio may be made of, and what can be mapped for which device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>
#include "dma_bio_test.h"

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

bool dbt_test_dma_dev(void)
{
	/* The disk's parent is the NVMe controller, that one's is the drive. */
	struct device *ctrl = disk_to_dev(dbt.bdev->bd_disk)->parent;

	return check(bdev_dma_dev(dbt.bdev) == ctrl->parent) &&
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
