/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that is mapped for DMA ahead of the I/O that uses it.
 */
#ifndef _LINUX_DMA_PREMAP_H
#define _LINUX_DMA_PREMAP_H

#include <linux/compiler.h>
#include <linux/dma-direction.h>
#include <linux/types.h>

struct device;

/**
 * struct dma_premap - a range of memory mapped for the DMA of one device
 * @dev:  the device that the addresses are for; they mean nothing to any other
 * @addr: DMA address of the first byte
 * @len:  length in bytes
 * @dir:  direction of the transfers that it is good for
 * @dead: the mapping is gone: @dev, the memory, or its last user went away
 *
 * Whoever knows both the memory and the device makes one of these, for example
 * with pci_p2pmem_map_resource().  I/O that carries DMA addresses instead of
 * pages names the mapping that they belong to, so that every layer below can
 * tell whether it may use them: see dma_premap_contains().
 *
 * The descriptor outlives the mapping until its maker has let go of it, so
 * looking at @dead is always safe for a holder.  @dead never goes back to
 * %false.  It is set only after the last transfer has ended: because nobody
 * holds memory in the mapping any more, or uses it, or because the driver of
 * @dev has stopped its DMA.  Testing it is a check, not a synchronisation.
 */
struct dma_premap {
	struct device	*dev;
	dma_addr_t	addr;
	u64		len;
	enum dma_data_direction dir;
	bool		dead;
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
	/* Pairs with the WRITE_ONCE() of whoever tears the mapping down. */
	return READ_ONCE(map->dead);
}

/**
 * dma_premap_contains - check that a range of DMA addresses is mapped
 * @map:  mapping to look at
 * @addr: DMA address of the first byte
 * @len:  length in bytes
 *
 * Context: Any.
 * Return: %true if all of the range lies in @map.
 */
static inline bool dma_premap_contains(const struct dma_premap *map,
				       dma_addr_t addr, u64 len)
{
	return addr >= map->addr && len <= map->len &&
	       addr - map->addr <= map->len - len;
}

/**
 * dma_premap_allows - check the direction of a transfer
 * @map: mapping to look at
 * @dir: direction of the transfer, not %DMA_BIDIRECTIONAL
 *
 * An IOMMU may enforce the direction that the memory was mapped for.
 *
 * Context: Any.
 * Return: %true if @map is good for it.
 */
static inline bool dma_premap_allows(const struct dma_premap *map,
				     enum dma_data_direction dir)
{
	return map->dir == dir || map->dir == DMA_BIDIRECTIONAL;
}

#endif /* _LINUX_DMA_PREMAP_H */
