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
 * @dev:      the device that the addresses are for; they mean nothing to others
 * @addr:     DMA address of the first byte, a multiple of %PAGE_SIZE
 * @len:      length in bytes
 * @dead:     the mapping is gone: @dev or the memory went away
 * @siblings: RCU list without a head: the same memory, mapped for other devices
 *
 * Made by whoever knows both the memory and the device, for example by
 * pci_p2pmem_map_resource().  I/O that names a mapping says where in it the data
 * is, and each device that the I/O reaches uses the sibling that was made for it.
 * All siblings have the same length.  They are mapped for both directions.
 *
 * A descriptor stays in the list, and can be read, for as long as somebody holds
 * it, also when it is dead.  @dead never goes back to %false.  It is set when the
 * last transfer has ended: because nobody holds memory in the mapping any more,
 * or because the driver of @dev has stopped its DMA.
 */
struct dma_premap {
	struct device		*dev;
	dma_addr_t		addr;
	u64			len;
	bool			dead;
	struct list_head	siblings;
};

/**
 * dma_premap_is_dead - has the mapping been torn down?
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

#endif /* _LINUX_DMA_PREMAP_H */
