// SPDX-License-Identifier: GPL-2.0
/*
 * Test of bios that describe their data by DMA addresses: what they may be made
 * of, how they are split and cloned, and every byte that they transfer.
 *
 * The content of the drive is destroyed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include "dma_bio_kunit.h"

struct dbt_fixture dbt;

static char *provider;
module_param(provider, charp, 0444);
MODULE_PARM_DESC(provider, "PCI address of the provider of p2pmem");

static char *bdev;
module_param(bdev, charp, 0444);
MODULE_PARM_DESC(bdev, "NVMe disk whose content may be destroyed");

static char *far;
module_param(far, charp, 0444);
MODULE_PARM_DESC(far, "PCI address of a provider that the disk does not reach");

static char *other;
module_param(other, charp, 0444);
MODULE_PARM_DESC(other, "PCI address of another client of the provider");

static unsigned long pool_size;
module_param(pool_size, ulong, 0444);
MODULE_PARM_DESC(pool_size, "bytes of p2pmem that the provider has");

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "seed of the random data and shapes");

static struct pci_dev *find_pci(const char *name)
{
	unsigned int domain, bus, slot, func;

	if (!name ||
	    sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
}

static int find_devices(void)
{
	dbt.provider = find_pci(provider);
	dbt.far = find_pci(far);
	dbt.other = find_pci(other);
	if (dbt.provider && !dbt.far == !far && !dbt.other == !other)
		return 0;
	pr_err("provider=, far= or other= is not the address of a PCI device\n");
	return -ENODEV;
}

static int open_disk(void)
{
	struct file *file;

	file = bdev_file_open_by_path(bdev ?: "",
				      BLK_OPEN_READ | BLK_OPEN_WRITE,
				      &dbt, NULL);
	if (IS_ERR(file)) {
		pr_err("can't open %s: %ld\n", bdev, PTR_ERR(file));
		return PTR_ERR(file);
	}
	dbt.file = file;
	dbt.bdev = file_bdev(file);
	return 0;
}

static int map_provider(void)
{
	struct dma_premap *map;

	dbt.client = bdev_dma_dev(dbt.bdev);
	if (!dbt.client || bdev_dma_alignment(dbt.bdev) >= UNIT ||
	    bdev_logical_block_size(dbt.bdev) != SECTOR_SIZE ||
	    queue_virt_boundary(bdev_get_queue(dbt.bdev))) {
		pr_err("needs an NVMe drive with SGLs and sectors of 512 bytes\n");
		return -EINVAL;
	}
	map = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	if (IS_ERR(map)) {
		pr_err("can't map the provider: %ld\n", PTR_ERR(map));
		return PTR_ERR(map);
	}
	dbt.map = map;
	return 0;
}

static int alloc_buffers(void)
{
	dbt.data = alloc_pages_exact(BUFFER_SIZE, GFP_KERNEL);
	dbt.image = alloc_pages_exact(BUFFER_SIZE, GFP_KERNEL);
	dbt.p2p = pci_alloc_p2pmem(dbt.provider, BUFFER_SIZE);
	if (!dbt.data || !dbt.image || !dbt.p2p) {
		pr_err("no memory for buffers of %u bytes\n", BUFFER_SIZE);
		return -ENOMEM;
	}
	dbt_use(dbt.map, dbt.p2p);
	return 0;
}

/* Undoes any part of dbt_init(), and nothing when called again. */
static void dbt_exit(struct kunit_suite *suite)
{
	if (dbt.p2p)
		pci_free_p2pmem(dbt.provider, dbt.p2p, BUFFER_SIZE);
	if (dbt.image)
		free_pages_exact(dbt.image, BUFFER_SIZE);
	if (dbt.data)
		free_pages_exact(dbt.data, BUFFER_SIZE);
	bioset_exit(&dbt.bios);
	if (dbt.map)
		pci_p2pmem_unmap_resource(dbt.map);
	if (dbt.file)
		bdev_fput(dbt.file);
	pci_dev_put(dbt.other);
	pci_dev_put(dbt.far);
	pci_dev_put(dbt.provider);
	memset(&dbt, 0, sizeof(dbt));
}

static int dbt_init(struct kunit_suite *suite)
{
	int ret;

	dbt.pool_size = pool_size;
	dbt.seed = seed;
	prandom_seed_state(&dbt.rnd, seed);

	ret = find_devices() ?: open_disk() ?: map_provider() ?:
	      bioset_init(&dbt.bios, BIO_POOL_SIZE, 0, BIOSET_NEED_BVECS) ?:
	      alloc_buffers();
	/* Contrary to its documentation, KUnit does not call suite_exit() then. */
	if (ret)
		dbt_exit(suite);
	return ret;
}

static struct kunit_case dbt_cases[] = {
	KUNIT_CASE(dbt_test_dma_device),
	KUNIT_CASE(dbt_test_map_size),
	KUNIT_CASE(dbt_test_map_sharing),
	KUNIT_CASE(dbt_test_map_errors),
	KUNIT_CASE(dbt_test_client_with_map),
	KUNIT_CASE(dbt_test_provider_out_of_reach),
	KUNIT_CASE(dbt_test_add_p2pmem_errors),
	KUNIT_CASE(dbt_test_bad_ranges),
	KUNIT_CASE(dbt_test_adjacent_ranges),
	KUNIT_CASE(dbt_test_mixed_data),
	KUNIT_CASE_SLOW(dbt_test_write),
	KUNIT_CASE_SLOW(dbt_test_read),
	KUNIT_CASE_SLOW(dbt_test_random_reads_and_writes),
	KUNIT_CASE_SLOW(dbt_test_counting_equals_iterating),
	KUNIT_CASE_SLOW(dbt_test_small_segments),
	KUNIT_CASE(dbt_test_clone),
	KUNIT_CASE(dbt_test_split_and_chain),
	KUNIT_CASE(dbt_test_advance),
	KUNIT_CASE(dbt_test_reuse),
	KUNIT_CASE(dbt_test_map_of_other_client),
	KUNIT_CASE(dbt_test_pages),
	KUNIT_CASE(dbt_test_second_range),
	KUNIT_CASE(dbt_test_dma_mask),
	KUNIT_CASE(dbt_test_provider_unbound),
	{}
};

static struct kunit_suite dbt_suite = {
	.name = "dma_bio",
	.suite_init = dbt_init,
	.suite_exit = dbt_exit,
	.test_cases = dbt_cases,
};

kunit_test_suite(dbt_suite);

MODULE_DESCRIPTION("Test of DMA-address bios (for testing only)");
MODULE_LICENSE("GPL");
