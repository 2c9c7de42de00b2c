/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Test of DMA-address bios: what its source files share.
 */
#ifndef _DMA_BIO_KUNIT_H
#define _DMA_BIO_KUNIT_H

#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dma-premap.h>
#include <linux/pci-p2pdma.h>
#include <linux/prandom.h>
#include <linux/sizes.h>

#define AREA_SIZE	SZ_2M		/* more than one command can transfer */
#define GUARD		SZ_4K		/* around it, must not be touched */
#define BUFFER_SIZE	(GUARD + AREA_SIZE + GUARD)
#define FIRST_SECTOR	2048
#define UNIT		4		/* sizes and addresses are multiples */
#define MAX_PIECES	(BIO_MAX_VECS - 1)	/* and one names the mapping */

struct dbt_piece {
	u32 offset;
	u32 len;
};

/**
 * struct dbt_fixture - what all tests use, one after the other
 * @provider:  device that has the p2pmem
 * @far:       provider that the drive does not reach, or %NULL
 * @other:     another client of @provider, or %NULL
 * @file:      the drive, open
 * @bdev:      the drive
 * @client:    device that does the DMA of the drive
 * @map:       memory of @provider, for @client
 * @pool_size: of @provider, as user space sees it
 * @bios:      for clones
 * @rnd:       source of all data and shapes
 * @seed:      of @rnd
 * @p2p:       the memory under test, %BUFFER_SIZE bytes
 * @dma:       DMA address of @p2p
 * @page:      of @p2p if bios are to name pages, else %NULL
 * @data:      what crosses the wire, in the order of the disk's sectors
 * @image:     what memory or the disk must look like afterwards
 * @nr:        number of pieces that the data of a bio consists of
 * @size:      bytes in all pieces
 * @piece:     where in @p2p they are, in the order of the disk's sectors
 */
struct dbt_fixture {
	struct pci_dev *provider;
	struct pci_dev *far;
	struct pci_dev *other;
	struct file *file;
	struct block_device *bdev;
	struct device *client;
	struct dma_premap *map;
	unsigned long pool_size;
	struct bio_set bios;
	struct rnd_state rnd;
	unsigned int seed;
	void *p2p;
	dma_addr_t dma;
	struct page *page;
	void *data;
	void *image;
	unsigned int nr;
	u32 size;
	struct dbt_piece piece[MAX_PIECES];
};

extern struct dbt_fixture dbt;

static inline bool dbt_names_map(const struct bio *bio)
{
	return bio_is_dma_addr(bio) && bio->bi_iter.bi_idx &&
	       bio->bi_io_vec[0].bv_dma_map == dbt.map;
}

static inline void dbt_use(struct dma_premap *map, void *p2p)
{
	dbt.map = map;
	dbt.p2p = p2p;
	dbt.dma = pci_p2pmem_dma_addr(map, p2p);
}

/* dma_bio_kunit_data.c */
void dbt_layout_one(u32 offset, u32 len);
void dbt_layout_random(void);
void dbt_expect_transfers(struct kunit *test);

/* Its test cases */
void dbt_test_write(struct kunit *test);
void dbt_test_read(struct kunit *test);
void dbt_test_random_reads_and_writes(struct kunit *test);
void dbt_test_counting_equals_iterating(struct kunit *test);
void dbt_test_small_segments(struct kunit *test);
void dbt_test_clone(struct kunit *test);
void dbt_test_split_and_chain(struct kunit *test);
void dbt_test_advance(struct kunit *test);
void dbt_test_reuse(struct kunit *test);
void dbt_test_pages(struct kunit *test);

/* Those of dma_bio_kunit_rules.c */
void dbt_test_dma_device(struct kunit *test);
void dbt_test_map_size(struct kunit *test);
void dbt_test_map_sharing(struct kunit *test);
void dbt_test_map_errors(struct kunit *test);
void dbt_test_client_with_map(struct kunit *test);
void dbt_test_provider_out_of_reach(struct kunit *test);
void dbt_test_add_p2pmem_errors(struct kunit *test);
void dbt_test_bad_ranges(struct kunit *test);
void dbt_test_adjacent_ranges(struct kunit *test);
void dbt_test_mixed_data(struct kunit *test);
void dbt_test_map_of_other_client(struct kunit *test);
void dbt_test_second_range(struct kunit *test);
void dbt_test_dma_mask(struct kunit *test);
void dbt_test_provider_unbound(struct kunit *test);

#endif /* _DMA_BIO_KUNIT_H */
