// SPDX-License-Identifier: GPL-2.0
/*
 * What a DMA-address bio may be made of, and what can be mapped for which
 * device.
 */
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include "dma_bio_kunit.h"

#define PROVIDER_BAR	2		/* of p2pmem_provider.c */

static bool add_data(struct bio *bio, u32 offset, u32 len)
{
	return bio_add_dma_addr(bio, dbt.map, dbt.dma + offset, len);
}

static const struct {
	s64 offset;
	u32 len;
	bool from_end;
} ranges[] = {
	{ 0, 0 },
	{ -1, SECTOR_SIZE },
	{ -SECTOR_SIZE, SECTOR_SIZE },
	{ 0, SECTOR_SIZE, .from_end = true },
	{ 4 - SECTOR_SIZE, SECTOR_SIZE, .from_end = true },
	{ -SECTOR_SIZE, U32_MAX, .from_end = true },
	{ SZ_1G, SECTOR_SIZE, .from_end = true },
};

void dbt_test_bad_ranges(struct kunit *test)
{
	struct dma_premap *map = dbt.map;
	struct bio *bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	bool added;
	u64 addr;
	int i;

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		addr = map->addr + ranges[i].offset;
		if (ranges[i].from_end)
			addr += map->len;
		added = bio_add_dma_addr(bio, map, addr, ranges[i].len);
		KUNIT_EXPECT_FALSE_MSG(test, added, "range %d", i);
	}
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 0);
	KUNIT_EXPECT_FALSE(test, bio_is_dma_addr(bio));
	KUNIT_EXPECT_TRUE(test, bio_add_dma_addr(bio, map, map->addr, UNIT));
	KUNIT_EXPECT_TRUE(test, dbt_names_map(bio));
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 2);
	bio_put(bio);
}

void dbt_test_adjacent_ranges(struct kunit *test)
{
	struct bio *bio = bio_alloc(dbt.bdev, 3, REQ_OP_READ, GFP_KERNEL);
	struct bio_vec *bv = &bio->bi_io_vec[1];

	KUNIT_EXPECT_TRUE(test, add_data(bio, 4, 100));
	KUNIT_EXPECT_TRUE(test, add_data(bio, 104, SZ_64K));
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 2);
	KUNIT_EXPECT_EQ(test, bv->bv_len, 100 + SZ_64K);
	KUNIT_EXPECT_EQ(test, dbt.map->addr + bvec_dma_offset(bv), dbt.dma + 4);
	KUNIT_EXPECT_TRUE(test, add_data(bio, 0, 4));
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 3);
	KUNIT_EXPECT_EQ(test, bio->bi_iter.bi_size, 104 + SZ_64K);
	KUNIT_EXPECT_FALSE(test, add_data(bio, SZ_256K, 4));
	KUNIT_EXPECT_TRUE(test, add_data(bio, 4, 4));
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 3);
	KUNIT_EXPECT_EQ(test, bio->bi_iter.bi_size, 108 + SZ_64K);
	bio_put(bio);
}

void dbt_test_mixed_data(struct kunit *test)
{
	struct dma_premap second = *dbt.map;
	dma_addr_t next = dbt.dma + SZ_64K;
	struct bio *bio, *clone;

	bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	KUNIT_EXPECT_TRUE(test, add_data(bio, 0, SECTOR_SIZE));
	KUNIT_EXPECT_FALSE(test, bio_add_dma_addr(bio, &second, next,
						  SECTOR_SIZE));
	clone = bio_alloc_clone(dbt.bdev, bio, GFP_KERNEL, &dbt.bios);
	KUNIT_EXPECT_FALSE(test, add_data(clone, SZ_64K, SECTOR_SIZE));
	bio_put(clone);
	bio_put(bio);

	bio = bio_alloc(dbt.bdev, 4, REQ_OP_READ, GFP_KERNEL);
	bio_add_virt_nofail(bio, dbt.data, SECTOR_SIZE);
	KUNIT_EXPECT_FALSE(test, add_data(bio, SZ_64K, SECTOR_SIZE));
	KUNIT_EXPECT_FALSE(test, bio_is_dma_addr(bio));
	KUNIT_EXPECT_EQ(test, bio->bi_vcnt, 1);
	bio_put(bio);
}

void dbt_test_dma_device(struct kunit *test)
{
	/* The disk's parent is the NVMe controller, that one's is the drive. */
	struct device *ctrl = disk_to_dev(dbt.bdev->bd_disk)->parent;
	struct dma_premap *map = dbt.map;

	KUNIT_EXPECT_PTR_EQ(test, bdev_dma_dev(dbt.bdev), ctrl->parent);
	KUNIT_EXPECT_TRUE(test, dev_is_pci(dbt.client));
	KUNIT_EXPECT_PTR_EQ(test, map->dev, dbt.client);
	KUNIT_EXPECT_FALSE(test, dma_premap_is_dead(map));
	KUNIT_EXPECT_PTR_EQ(test, pci_p2pmem_find_map(map, dbt.p2p), map);
	KUNIT_EXPECT_NULL(test, pci_p2pmem_find_map(map, dbt.data));
	KUNIT_EXPECT_EQ(test, pci_p2pmem_dma_addr(map, dbt.p2p + 5),
			dbt.dma + 5);
}

void dbt_test_map_size(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, dbt.map->len, dbt.pool_size);
}

static bool is_translated(struct device *dev, dma_addr_t addr)
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

void dbt_test_map_sharing(struct kunit *test)
{
	struct dma_premap *same;

	same = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	KUNIT_EXPECT_PTR_EQ(test, same, dbt.map);
	if (!IS_ERR(same))
		pci_p2pmem_unmap_resource(same);
	KUNIT_EXPECT_FALSE(test, dma_premap_is_dead(dbt.map));
}

/* Skip the test if the machine has no such device. */
static void need(struct kunit *test, struct pci_dev *pdev)
{
	if (!pdev)
		kunit_skip(test, "no such device");
}

/* Its driver has added it already, so it stays one. */
void dbt_test_client_with_map(struct kunit *test)
{
	struct pci_p2pmem_client client;
	struct dma_premap *map;

	need(test, dbt.other);
	map = pci_p2pmem_map_resource(dbt.provider, &dbt.other->dev);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, map);
	pci_p2pmem_add_client(&client, &dbt.other->dev);
	pci_p2pmem_remove_client(&client);
	KUNIT_EXPECT_FALSE(test, dma_premap_is_dead(map));
	pci_p2pmem_unmap_resource(map);
	KUNIT_EXPECT_EQ(test, try_map(dbt.provider, &dbt.other->dev), 0);
}

static struct pci_dev *get_driverless(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev)
		if (!pdev->dev.driver)
			break;
	return pdev;
}

void dbt_test_map_errors(struct kunit *test)
{
	struct device *disk = disk_to_dev(dbt.bdev->bd_disk);
	struct pci_dev *pdev;

	KUNIT_EXPECT_EQ(test, try_map(dbt.provider, disk), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, try_map(to_pci_dev(dbt.client), dbt.client),
			-ENODEV);
	pdev = get_driverless();
	KUNIT_ASSERT_NOT_NULL(test, pdev);
	KUNIT_EXPECT_EQ(test, try_map(dbt.provider, &pdev->dev), -ENODEV);
	pci_dev_put(pdev);
}

void dbt_test_provider_out_of_reach(struct kunit *test)
{
	need(test, dbt.far);
	KUNIT_EXPECT_EQ(test, try_map(dbt.far, dbt.client), -EOPNOTSUPP);
}

/*
 * Whichever mapping a bio names, the drive uses its own.  A new one can be made
 * while somebody holds the lock of the device.
 */
void dbt_test_map_of_other_client(struct kunit *test)
{
	struct dma_premap *map = dbt.map, *other;
	struct dma_iova_state taken[4];
	struct device *dev;
	dma_addr_t addr;
	bool iommu;
	int nr = 0;

	need(test, dbt.other);
	dev = &dbt.other->dev;
	/* With an IOMMU it is to get another address: use up those at the top. */
	while (nr < ARRAY_SIZE(taken) &&
	       dma_iova_try_alloc(dev, &taken[nr], 0, map->len) &&
	       taken[nr++].addr > map->addr)
		;
	iommu = nr;
	device_lock(dev);
	other = pci_p2pmem_map_resource(dbt.provider, dev);
	device_unlock(dev);
	while (nr)
		dma_iova_free(dev, &taken[--nr]);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, other);

	addr = other->addr;
	KUNIT_EXPECT_PTR_NE(test, other, map);
	KUNIT_EXPECT_EQ(test, other->len, map->len);
	KUNIT_EXPECT_EQ(test, is_translated(dev, addr), iommu);
	KUNIT_EXPECT_TRUE(test, !iommu || addr != map->addr);
	dbt_use(other, dbt.p2p);
	dbt_layout_random();
	dbt_expect_transfers(test);
	dbt_use(map, dbt.p2p);
	pci_p2pmem_unmap_resource(other);
	KUNIT_EXPECT_FALSE(test, is_translated(dev, addr));
}

static int add_p2pmem(u64 offset, size_t size)
{
	return pci_p2pdma_add_resource(dbt.provider, PROVIDER_BAR, size,
				       offset);
}

/* Not twice, and not in part of a page */
void dbt_test_add_p2pmem_errors(struct kunit *test)
{
	u64 len = pci_resource_len(dbt.provider, PROVIDER_BAR);

	KUNIT_EXPECT_EQ(test, add_p2pmem(SECTOR_SIZE, PAGE_SIZE), -EINVAL);
	KUNIT_EXPECT_EQ(test, add_p2pmem(0, SECTOR_SIZE), -EINVAL);
	KUNIT_EXPECT_EQ(test, add_p2pmem(len, PAGE_SIZE), -EINVAL);
	KUNIT_EXPECT_EQ(test, add_p2pmem(len - PAGE_SIZE, 2 * PAGE_SIZE),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, add_p2pmem(0, PAGE_SIZE), -EEXIST);
	KUNIT_EXPECT_EQ(test, add_p2pmem(dbt.pool_size, BUFFER_SIZE), -EBUSY);
}

static void free_p2p(void *p2p)
{
	pci_free_p2pmem(dbt.provider, p2p, BUFFER_SIZE);
}

/* If it fails, dbt_exit() releases what there is. */
static void map_anew(struct kunit *test)
{
	struct dma_premap *map;

	dbt.p2p = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
	KUNIT_ASSERT_NOT_NULL(test, dbt.p2p);
	map = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, map);
	dbt_use(map, dbt.p2p);
}

static void expect_works(struct kunit *test)
{
	dbt_layout_one(0, SZ_64K);
	dbt_expect_transfers(test);
}

/* Allocates until it is memory of the second range, which comes last. */
static void expect_second_works(struct kunit *test)
{
	struct dma_premap *map = dbt.map, *second;
	void *p2p = dbt.p2p, *more;
	int ret;

	do {
		more = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
		KUNIT_ASSERT_NOT_NULL(test, more);
		ret = kunit_add_action_or_reset(test, free_p2p, more);
		KUNIT_ASSERT_EQ(test, ret, 0);
		second = pci_p2pmem_find_map(map, more);
	} while (second == map);
	KUNIT_ASSERT_NOT_NULL(test, second);
	KUNIT_EXPECT_EQ(test, second->len, BUFFER_SIZE);
	dbt_use(second, more);
	expect_works(test);
	dbt_use(map, p2p);
}

/* dbt_test_provider_unbound() removes it again. */
void dbt_test_second_range(struct kunit *test)
{
	free_p2p(dbt.p2p);
	dbt.p2p = NULL;
	pci_p2pmem_unmap_resource(dbt.map);
	dbt.map = NULL;
	KUNIT_ASSERT_EQ(test, add_p2pmem(dbt.pool_size, BUFFER_SIZE), 0);
	map_anew(test);
	expect_second_works(test);
}

/* try_map() of a client that reaches no address above the limit */
static int try_map_below(struct device *client, u64 limit)
{
	u64 mask = *client->dma_mask;
	int ret;

	*client->dma_mask = limit;
	ret = try_map(dbt.provider, client);
	*client->dma_mask = mask;
	return ret;
}

/*
 * Without an IOMMU a client needs the address of every byte of all ranges, of
 * which there are two by now.  A failure leaves nothing behind.
 */
void dbt_test_dma_mask(struct kunit *test)
{
	u64 end = dbt.map->addr + dbt.map->len;
	struct device *dev;
	int expected;

	need(test, dbt.other);
	dev = &dbt.other->dev;
	expected = is_translated(dbt.client, dbt.map->addr) ? 0 : -EOPNOTSUPP;
	KUNIT_EXPECT_EQ(test, try_map_below(dev, end - 2), expected);
	KUNIT_EXPECT_EQ(test, try_map_below(dev, end - 1), expected);
	KUNIT_EXPECT_EQ(test, try_map_below(dev, end + BUFFER_SIZE - 2), expected);
	KUNIT_EXPECT_EQ(test, try_map_below(dev, end + BUFFER_SIZE - 1), 0);
}

/* The status of a read by this address, -EINVAL if there can't be one */
static int try_read(struct dma_premap *map, dma_addr_t addr)
{
	struct bio *bio = bio_alloc(dbt.bdev, 2, REQ_OP_READ, GFP_KERNEL);
	int ret = -EINVAL;

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	if (bio_add_dma_addr(bio, map, addr, SECTOR_SIZE))
		ret = submit_bio_wait(bio);
	bio_put(bio);
	return ret;
}

/*
 * Its memory has to be free for that.  A dead mapping must not give access to
 * what is added in the same place afterwards.
 */
void dbt_test_provider_unbound(struct kunit *test)
{
	struct dma_premap *dead = dbt.map;
	dma_addr_t addr;

	KUNIT_ASSERT_NOT_NULL(test, dead);
	addr = dead->addr;
	free_p2p(dbt.p2p);
	dbt.p2p = NULL;
	device_release_driver(&dbt.provider->dev);
	KUNIT_EXPECT_TRUE(test, dma_premap_is_dead(dead));
	KUNIT_EXPECT_FALSE(test, is_translated(dbt.client, addr));
	KUNIT_EXPECT_EQ(test, try_read(dead, addr), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, try_map(dbt.provider, dbt.client), -ENODEV);
	KUNIT_ASSERT_EQ(test, device_attach(&dbt.provider->dev), 1);
	KUNIT_EXPECT_EQ(test, add_p2pmem(0, PAGE_SIZE), -EEXIST);
	map_anew(test);
	KUNIT_EXPECT_EQ(test, try_read(dead, addr), -EOPNOTSUPP);
	pci_p2pmem_unmap_resource(dead);
	expect_works(test);
}
