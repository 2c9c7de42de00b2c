// SPDX-License-Identifier: GPL-2.0
/*
 * What a DMA-address bio may be made of, and what can be mapped for which device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/iommu.h>
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
	     check(dbt_names_map(bio) && bio->bi_vcnt == 2);
	bio_put(bio);
	return ok;
}

bool dbt_test_adjacent(void)
{
	struct bio *bio = bio_alloc(dbt.bdev, 3, REQ_OP_READ, GFP_KERNEL);
	struct bio_vec *bv = &bio->bi_io_vec[1];
	dma_addr_t dma = dbt.dma;
	bool ok;

	ok = check(bio_add_dma_addr(bio, dbt.map, dma + 4, 100)) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma + 104, SZ_64K)) &&
	     check(bio->bi_vcnt == 2) &&
	     check(bv->bv_len == 100 + SZ_64K) &&
	     check(dbt.map->addr + bvec_dma_offset(bv) == dma + 4) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma, 4)) &&
	     check(bio->bi_vcnt == 3) &&
	     check(bio->bi_iter.bi_size == 104 + SZ_64K) &&
	     check(!bio_add_dma_addr(bio, dbt.map, dma + SZ_256K, 4)) &&
	     check(bio_add_dma_addr(bio, dbt.map, dma + 4, 4)) &&
	     check(bio->bi_vcnt == 3 && bio->bi_iter.bi_size == 108 + SZ_64K);
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
	       check(pci_p2pmem_find_map(dbt.map, dbt.p2p) == dbt.map) &&
	       check(!pci_p2pmem_find_map(dbt.map, dbt.data)) &&
	       check(pci_p2pmem_dma_addr(dbt.map, dbt.p2p + 5) == dbt.dma + 5);
}

bool dbt_test_pool_size(void)
{
	return check(dbt.map->len == dbt.pool_size);
}

bool dbt_is_translated(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return domain && (domain->type & __IOMMU_DOMAIN_PAGING) &&
	       iommu_iova_to_phys(domain, addr);
}

static int try_map(struct pci_dev *provider, struct device *client)
{
	struct dma_premap *map = pci_p2pmem_map_resource(provider, client);

	if (!IS_ERR(map))
		pci_p2pmem_unmap_resource(map);
	return PTR_ERR_OR_ZERO(map);
}

bool dbt_test_sharing(void)
{
	struct dma_premap *same;
	bool ok;

	same = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	ok = check(same == dbt.map);
	if (!IS_ERR(same))
		pci_p2pmem_unmap_resource(same);
	return ok && check(!dma_premap_is_dead(dbt.map));
}

/* Its driver has added it already, so it stays one. */
bool dbt_test_clients(void)
{
	struct pci_p2pmem_client client;
	struct dma_premap *map;
	bool ok;

	map = pci_p2pmem_map_resource(dbt.provider, &dbt.other->dev);
	if (!check(!IS_ERR(map)))
		return false;
	pci_p2pmem_add_client(&client, &dbt.other->dev);
	pci_p2pmem_remove_client(&client);
	ok = check(!dma_premap_is_dead(map));
	pci_p2pmem_unmap_resource(map);
	return ok && check(!try_map(dbt.provider, &dbt.other->dev));
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
	struct device *disk = disk_to_dev(dbt.bdev->bd_disk);
	struct pci_dev *driverless = get_driverless();
	bool ok;

	ok = check(try_map(dbt.provider, disk) == -EOPNOTSUPP) &&
	     check(try_map(to_pci_dev(dbt.client), dbt.client) == -ENODEV) &&
	     check(driverless) &&
	     check(try_map(dbt.provider, &driverless->dev) == -ENODEV);
	pci_dev_put(driverless);
	return ok;
}

bool dbt_test_far(void)
{
	return check(try_map(dbt.far, dbt.client) == -EOPNOTSUPP);
}

static int add(u64 offset, size_t size)
{
	return pci_p2pdma_add_resource(dbt.provider, PROVIDER_BAR, size, offset);
}

bool dbt_test_add_errors(void)
{
	u64 len = pci_resource_len(dbt.provider, PROVIDER_BAR);

	return check(add(SECTOR_SIZE, PAGE_SIZE) == -EINVAL) &&
	       check(add(0, SECTOR_SIZE) == -EINVAL) &&
	       check(add(len, PAGE_SIZE) == -EINVAL) &&
	       check(add(len - PAGE_SIZE, 2 * PAGE_SIZE) == -EINVAL) &&
	       check(add(0, PAGE_SIZE) == -EEXIST) &&
	       check(add(dbt.pool_size, BUFFER_SIZE) == -EBUSY);
}

static bool works(void)
{
	dbt_layout_one(&dbt.layout, 0, SZ_64K);
	return check(dbt_written(&dbt.layout)) &&
	       check(dbt_read_back(&dbt.layout));
}

#define MAX_BUFFERS	64

struct buffers {
	void *addr[MAX_BUFFERS];
	int nr;
};

/* Allocate until it is memory of the second range, which comes last. */
static void *alloc_outside(struct dma_premap *map, struct buffers *bufs)
{
	void *addr;

	while (bufs->nr < MAX_BUFFERS) {
		addr = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
		if (!addr)
			break;
		bufs->addr[bufs->nr++] = addr;
		if (pci_p2pmem_find_map(map, addr) != map)
			return addr;
	}
	return NULL;
}

static bool map_anew(void)
{
	void *p2p;

	dbt.map = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	if (!check(!IS_ERR(dbt.map))) {
		dbt.map = NULL;
		return false;
	}
	p2p = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
	if (!check(p2p))
		return false;
	dbt_use(dbt.map, p2p);
	return true;
}

static bool works_in_second_range(void)
{
	struct dma_premap *map = dbt.map, *second;
	struct buffers bufs = {};
	void *p2p = dbt.p2p, *more;
	bool ok;

	more = alloc_outside(map, &bufs);
	second = more ? pci_p2pmem_find_map(map, more) : NULL;
	ok = check(second && second->len == BUFFER_SIZE);
	if (ok) {
		dbt_use(second, more);
		ok = works();
		dbt_use(map, p2p);
	}
	while (bufs.nr)
		pci_free_p2pmem(dbt.provider, bufs.addr[--bufs.nr], BUFFER_SIZE);
	return ok;
}

/* dbt_test_unbound() removes it again. */
bool dbt_test_second_range(void)
{
	pci_free_p2pmem(dbt.provider, dbt.p2p, BUFFER_SIZE);
	dbt.p2p = NULL;
	pci_p2pmem_unmap_resource(dbt.map);
	dbt.map = NULL;
	return check(!add(dbt.pool_size, BUFFER_SIZE)) && map_anew() &&
	       works_in_second_range();
}

static bool is_refused(struct dma_premap *map, dma_addr_t addr)
{
	struct bio *bio = bio_alloc(dbt.bdev, 2, REQ_OP_READ, GFP_KERNEL);
	bool ok;

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	ok = check(bio_add_dma_addr(bio, map, addr, SECTOR_SIZE)) &&
	     check(submit_bio_wait(bio) == -EOPNOTSUPP);
	bio_put(bio);
	return ok;
}

/*
 * Its memory has to be free for that.  What is in the same place afterwards is other
 * memory, which a dead mapping does not give access to.
 */
bool dbt_test_unbound(void)
{
	struct dma_premap *dead = dbt.map;
	dma_addr_t addr;
	bool ok;

	if (!check(dbt.p2p))
		return false;
	addr = dead->addr;
	pci_free_p2pmem(dbt.provider, dbt.p2p, BUFFER_SIZE);
	dbt.p2p = NULL;
	device_release_driver(&dbt.provider->dev);
	ok = check(dma_premap_is_dead(dead)) &&
	     check(!dbt_is_translated(dbt.client, addr)) &&
	     check(is_refused(dead, addr)) &&
	     check(try_map(dbt.provider, dbt.client) == -ENODEV);
	if (!check(device_attach(&dbt.provider->dev) == 1))
		return false;
	ok = check(add(0, PAGE_SIZE) == -EEXIST) && ok;
	if (!map_anew())
		return false;
	ok = check(is_refused(dead, addr)) && ok;
	pci_p2pmem_unmap_resource(dead);
	return works() && ok;
}
