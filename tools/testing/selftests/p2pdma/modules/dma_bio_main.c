// SPDX-License-Identifier: GPL-2.0
/*
 * Test of bios that describe their data by DMA addresses: what they may be made
 * of, how they are split and cloned, and every byte that they transfer. The tests
 * run when the module is loaded and report KTAP lines in the kernel log, where
 * bio.sh collects them.
 *
 * The content of the drive is destroyed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/module.h>
#include "dma_bio_test.h"

struct dbt_fixture dbt;

static struct file *drive_file;

static char *provider_name;
module_param_named(provider, provider_name, charp, 0444);
MODULE_PARM_DESC(provider, "PCI address of the provider of p2pmem");

static char *drive_path;
module_param_named(bdev, drive_path, charp, 0444);
MODULE_PARM_DESC(bdev, "NVMe disk whose content may be destroyed");

static char *far_name;
module_param_named(far, far_name, charp, 0444);
MODULE_PARM_DESC(far, "PCI address of a provider that the disk does not reach");

static char *other_name;
module_param_named(other, other_name, charp, 0444);
MODULE_PARM_DESC(other, "PCI address of another client of the provider");

module_param_named(pool_size, dbt.pool_size, ulong, 0444);
MODULE_PARM_DESC(pool_size, "bytes of p2pmem that the provider has");

module_param_named(seed, dbt.seed, uint, 0444);
MODULE_PARM_DESC(seed, "seed of the random data and shapes");

static const struct {
	const char *name;
	bool (*run)(void);
	char **needs;
} tests[] = {
	{ "device that does the DMA", dbt_test_dma_dev },
	{ "mapping has the size of the pool", dbt_test_pool_size },
	{ "mappings are shared", dbt_test_sharing },
	{ "mapping fails with the right error", dbt_test_map_errors },
	{ "client with a mapping", dbt_test_clients, &other_name },
	{ "provider out of reach", dbt_test_far, &far_name },
	{ "memory can't be added twice, or in part of a page", dbt_test_add_errors },
	{ "ranges are checked", dbt_test_ranges },
	{ "adjacent ranges merge", dbt_test_adjacent },
	{ "nothing else can be added", dbt_test_unmixed },
	{ "write", dbt_test_write },
	{ "read", dbt_test_read },
	{ "random reads and writes", dbt_test_random },
	{ "counting equals iterating", dbt_test_iterating },
	{ "segments smaller than vectors", dbt_test_small_segments },
	{ "clone", dbt_test_clone },
	{ "split and chain", dbt_test_split },
	{ "advance", dbt_test_advance },
	{ "reuse", dbt_test_reuse },
	{ "mapping of another client", dbt_test_siblings, &other_name },
	{ "pages of the memory", dbt_test_pages },
	{ "second range of memory", dbt_test_second_range },
	{ "provider unbound", dbt_test_unbound },
};

static void run_tests(void)
{
	int i;

	pr_info("1..%zu\n", ARRAY_SIZE(tests));
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (tests[i].needs && !*tests[i].needs)
			pr_info("ok %d %s # SKIP no such device\n", i + 1,
				tests[i].name);
		else
			pr_info("%s %d %s\n",
				tests[i].run() ? "ok" : "not ok", i + 1,
				tests[i].name);
	}
}

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
	dbt.provider = find_pci(provider_name);
	dbt.far = find_pci(far_name);
	dbt.other = find_pci(other_name);
	if (dbt.provider && !dbt.far == !far_name && !dbt.other == !other_name)
		return 0;
	pr_err("provider=, far= or other= is not the address of a PCI device\n");
	return -ENODEV;
}

static void put_devices(void)
{
	pci_dev_put(dbt.other);
	pci_dev_put(dbt.far);
	pci_dev_put(dbt.provider);
}

static int open_disk(void)
{
	drive_file = bdev_file_open_by_path(drive_path ?: "",
					    BLK_OPEN_READ | BLK_OPEN_WRITE,
					    &dbt, NULL);
	if (IS_ERR(drive_file)) {
		pr_err("can't open %s: %ld\n", drive_path,
		       PTR_ERR(drive_file));
		return PTR_ERR(drive_file);
	}
	dbt.bdev = file_bdev(drive_file);
	return 0;
}

static int map_provider(void)
{
	struct request_queue *q = bdev_get_queue(dbt.bdev);

	dbt.client = bdev_dma_dev(dbt.bdev);
	if (!dbt.client || bdev_dma_alignment(dbt.bdev) >= UNIT ||
	    bdev_logical_block_size(dbt.bdev) != SECTOR_SIZE ||
	    queue_virt_boundary(q)) {
		pr_err("needs an NVMe drive with SGLs and sectors of 512 bytes\n");
		return -EINVAL;
	}
	dbt.map = pci_p2pmem_map_resource(dbt.provider, dbt.client);
	if (IS_ERR(dbt.map)) {
		pr_err("can't map the provider: %ld\n", PTR_ERR(dbt.map));
		return PTR_ERR(dbt.map);
	}
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

static void free_buffers(void)
{
	if (dbt.p2p)
		pci_free_p2pmem(dbt.provider, dbt.p2p, BUFFER_SIZE);
	if (dbt.image)
		free_pages_exact(dbt.image, BUFFER_SIZE);
	if (dbt.data)
		free_pages_exact(dbt.data, BUFFER_SIZE);
}

static int __init dma_bio_test_init(void)
{
	int ret;

	prandom_seed_state(&dbt.rnd, dbt.seed);

	ret = find_devices();
	if (ret)
		goto out_put_devices;
	ret = open_disk();
	if (ret)
		goto out_put_devices;
	ret = map_provider();
	if (ret)
		goto out_close_disk;
	ret = bioset_init(&dbt.bios, BIO_POOL_SIZE, 0, BIOSET_NEED_BVECS);
	if (ret)
		goto out_unmap;
	ret = alloc_buffers();
	if (!ret)
		run_tests();

	free_buffers();
	bioset_exit(&dbt.bios);
out_unmap:
	if (dbt.map)
		pci_p2pmem_unmap_resource(dbt.map);
out_close_disk:
	bdev_fput(drive_file);
out_put_devices:
	put_devices();
	return ret;
}
module_init(dma_bio_test_init);

/* So that it can be unloaded, and run again. */
static void __exit dma_bio_test_exit(void)
{
}
module_exit(dma_bio_test_exit);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("Test of DMA-address bios (for testing only)");
MODULE_LICENSE("GPL");
