// SPDX-License-Identifier: GPL-2.0
/*
 * A provider of peer-to-peer memory for tests: BAR 2 of QEMU's ivshmem-plain
 * device, which is nothing but memory. DMA to it is as fast as DMA to RAM, and
 * with a file as its backend the host can see what crossed the BAR.
 */
#include <linux/ktime.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>

#define PROVIDER_BAR		2
#define PROVIDER_DEVICE_ID	0x1110

static bool publish = true;
module_param(publish, bool, 0444);
MODULE_PARM_DESC(publish, "Let pci_p2pmem_find_many() find it (default: Y)");

static ulong max_size = ULONG_MAX;
module_param_named(size, max_size, ulong, 0444);
MODULE_PARM_DESC(size, "Bytes of a BAR to add at most (default: all)");

static uint pieces = 1;
module_param(pieces, uint, 0444);
MODULE_PARM_DESC(pieces, "Add it in so many pieces, a power of two (default: 1)");

static int provider_add(struct pci_dev *pdev, resource_size_t size)
{
	resource_size_t piece = size / max(pieces, 1u), offset;
	ktime_t start = ktime_get();
	int ret = 0;

	for (offset = 0; offset < size && !ret; offset += piece)
		ret = pci_p2pdma_add_resource(pdev, PROVIDER_BAR, piece, offset);
	pci_info(pdev, "adding %llu MiB of p2pmem took %lld us\n",
		 (u64)size >> 20, ktime_us_delta(ktime_get(), start));
	if (ret)
		pci_err(pdev, "cannot add BAR %d as p2pmem: %d\n",
			PROVIDER_BAR, ret);
	return ret;
}

static int provider_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	resource_size_t size = pci_resource_len(pdev, PROVIDER_BAR);
	int ret;

	/* Kernels that make its pages at once warn of less. */
	if (size < SUBSECTION_SIZE) {
		pci_err(pdev, "BAR %d has %pap bytes: make it at least %#lx\n",
			PROVIDER_BAR, &size, SUBSECTION_SIZE);
		return -EINVAL;
	}

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;

	ret = provider_add(pdev, min(size, max_size));
	if (ret)
		return ret;

	if (publish)
		pci_p2pmem_publish(pdev, true);

	return 0;
}

static const struct pci_device_id provider_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, PROVIDER_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, provider_ids);

static struct pci_driver provider_driver = {
	.name		= KBUILD_MODNAME,
	.id_table	= provider_ids,
	.probe		= provider_probe,
};
module_pci_driver(provider_driver);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("p2pmem from an ivshmem BAR (for testing only)");
MODULE_LICENSE("GPL");
