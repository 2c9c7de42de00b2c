/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that is mapped for DMA ahead of the I/O that uses it.
 */
#ifndef _LINUX_DMA_PREMAP_H
#define _LINUX_DMA_PREMAP_H

#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/types.h>

struct device;

/**
 * struct dma_premap - a range of memory mapped for the DMA of one device
 * @dev:      the only device for which the addresses are valid
 * @addr:     DMA address of the first byte, a multiple of %PAGE_SIZE
 * @len:      length in bytes
 * @dead:     torn down: @dev, the memory or the last user has gone
 * @siblings: RCU list without a head, of mappings for other devices
 *
 * Created by whoever knows both the memory and the device, for example by
 * pci_p2pmem_map_resource().  I/O that names a mapping says where in it the
 * data is, and each device that the I/O reaches uses the sibling created for
 * it.  All siblings have the same length and are bidirectional.
 *
 * A descriptor stays in the list and can be read for as long as somebody holds
 * it, even if it is dead.  @dead is never cleared.  It is set once the last
 * transfer has ended: either nobody holds memory in the mapping any more, or
 * the driver of @dev has stopped its DMA, or the last user has unmapped it.
 */
struct dma_premap {
	struct device		*dev;
	dma_addr_t		addr;
	u64			len;
	bool			dead;
	struct list_head	siblings;
};

/**
 * dma_premap_is_dead - check whether a mapping has been torn down
 * @map: mapping to look at
 *
 * Context: Any.
 * Return: %true if its addresses must not be used any more.
 */
static inline bool dma_premap_is_dead(const struct dma_premap *map)
{
	/* Pairs with the WRITE_ONCE() where the mapping is torn down. */
	return READ_ONCE(map->dead);
}

const struct dma_premap *dma_premap_find(const struct dma_premap *map,
		const struct device *dev);

#endif /* _LINUX_DMA_PREMAP_H */
