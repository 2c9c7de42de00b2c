// SPDX-License-Identifier: GPL-2.0
/*
 * What a DMA-address bio may be made of, and what can be mapped for which device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/iommu.h>
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

/* The IOMMU's, if it has to translate what the drive reaches the memory by */
static struct iommu_domain *translating_domain(void)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dbt.client);

	return domain && (domain->type & __IOMMU_DOMAIN_PAGING) ? domain : NULL;
}

static bool is_translated(dma_addr_t addr)
{
	struct iommu_domain *domain = translating_domain();

	return domain && iommu_iova_to_phys(domain, addr);
}

bool dbt_test_sharing(void)
{
	struct dma_premap *same, *from;
	dma_addr_t addr;
	bool ok;

	same = pci_p2pmem_map_resource(dbt.provider, dbt.client,
				       DMA_BIDIRECTIONAL);
	from = pci_p2pmem_map_resource(dbt.provider, dbt.client,
				       DMA_FROM_DEVICE);
	ok = check(same == dbt.map) && check(!IS_ERR(from) && from != dbt.map);
	if (!IS_ERR(from)) {
		addr = from->addr;
		ok = ok && check(is_translated(addr) == !!translating_domain());
		pci_p2pmem_unmap_resource(from);
		ok = ok && check(!is_translated(addr));
	}
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

static bool add_fails(u64 offset, size_t size, int err)
{
	return pci_p2pdma_add_resource(dbt.provider, PROVIDER_BAR, size,
				       offset) == err;
}

bool dbt_test_add_errors(void)
{
	u64 len = pci_resource_len(dbt.provider, PROVIDER_BAR);

	return check(add_fails(SECTOR_SIZE, PAGE_SIZE, -EINVAL)) &&
	       check(add_fails(0, SECTOR_SIZE, -EINVAL)) &&
	       check(add_fails(len, PAGE_SIZE, -EINVAL)) &&
	       check(add_fails(len - PAGE_SIZE, 2 * PAGE_SIZE, -EINVAL)) &&
	       /* The mapping that exists would not cover it. */
	       check(add_fails(0, PAGE_SIZE, -EBUSY));
}

/* A mapping that is dead gives access to nothing, and is not taken for another. */
static bool is_dead(struct dma_premap *map, dma_addr_t addr)
{
	struct bio *bio = bio_alloc(dbt.bdev, 1, REQ_OP_READ, GFP_KERNEL);
	bool ok;

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	ok = check(dma_premap_is_dead(map)) && check(!is_translated(addr)) &&
	     check(bio_add_dma_addr(bio, map, addr, SECTOR_SIZE)) &&
	     /* BLK_STS_OFFLINE */
	     check(submit_bio_wait(bio) == -ENODEV);
	bio_put(bio);
	return ok;
}

static bool map_anew(void)
{
	struct dma_premap *map;

	map = pci_p2pmem_map_resource(dbt.provider, dbt.client,
				      DMA_BIDIRECTIONAL);
	if (!check(!IS_ERR(map)))
		return false;
	pci_p2pmem_unmap_resource(dbt.map);
	dbt.map = map;
	dbt.p2p = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
	if (!check(dbt.p2p))
		return false;
	dbt.dma = pci_p2pmem_dma_addr(map, dbt.p2p);
	dbt_layout_one(&dbt.layout, 0, SZ_64K);
	return check(dbt_written(&dbt.layout)) &&
	       check(dbt_read_back(&dbt.layout));
}

/* Its memory has to be free for that, and can be added anew before it is mapped. */
bool dbt_test_unbound(void)
{
	dma_addr_t addr = dbt.map->addr;
	bool ok;

	pci_free_p2pmem(dbt.provider, dbt.p2p, BUFFER_SIZE);
	dbt.p2p = NULL;
	device_release_driver(&dbt.provider->dev);
	ok = is_dead(dbt.map, addr) &&
	     check(map_fails(dbt.provider, dbt.client, -ENODEV));
	return check(device_attach(&dbt.provider->dev) == 1) &&
	       check(add_fails(0, PAGE_SIZE, -EEXIST)) && map_anew() && ok;
}
