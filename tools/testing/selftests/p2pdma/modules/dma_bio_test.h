/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Test of DMA-address bios: what its source files share.
 */
#ifndef _DMA_BIO_TEST_H
#define _DMA_BIO_TEST_H

#include <linux/bio.h>
#include <linux/dma-premap.h>
#include <linux/pci-p2pdma.h>
#include <linux/prandom.h>
#include <linux/sizes.h>

#define AREA_SIZE	SZ_2M		/* more than one command can transfer */
#define GUARD		SZ_4K		/* around it, must not be touched */
#define BUFFER_SIZE	(GUARD + AREA_SIZE + GUARD)
#define FIRST_SECTOR	2048
#define POISON		0xa5
#define RANDOM_ROUNDS	200
#define MAX_PIECES	(BIO_MAX_VECS - 1)	/* and one that names the mapping */
#define PROVIDER_BAR	2		/* of p2pmem_provider.c */
#define UNIT		4		/* sizes and addresses are multiples */

struct dbt_piece {
	u32 offset;
	u32 len;
};

/**
 * struct dbt_layout - where in the p2pmem the data of a bio is
 * @nr:    number of pieces
 * @size:  bytes in all pieces
 * @piece: in the order of the disk's sectors
 */
struct dbt_layout {
	unsigned int nr;
	u32 size;
	struct dbt_piece piece[MAX_PIECES];
};

/**
 * struct dbt_fixture - what all tests use, one after the other
 * @provider:  device that has the p2pmem
 * @far:       provider that the drive does not reach, or %NULL
 * @other:     another client of @provider, or %NULL
 * @bdev:      the drive
 * @client:    device that does the DMA of the drive
 * @map:       memory of @provider, for @client
 * @pool_size: of @provider, as user space sees it
 * @bios:      for clones
 * @rnd:       source of all data and shapes
 * @seed:      of @rnd
 * @p2p:       the memory under test, %BUFFER_SIZE bytes
 * @dma:       DMA address of @p2p
 * @data:      what crosses the wire, in the order of the disk's sectors
 * @image:     what memory or the disk must look like afterwards
 * @layout:    of the present bio
 */
struct dbt_fixture {
	struct pci_dev *provider;
	struct pci_dev *far;
	struct pci_dev *other;
	struct block_device *bdev;
	struct device *client;
	struct dma_premap *map;
	unsigned long pool_size;
	struct bio_set bios;
	struct rnd_state rnd;
	unsigned int seed;
	void *p2p;
	dma_addr_t dma;
	void *data;
	void *image;
	struct dbt_layout layout;
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

/* Say which one failed: a test has many. */
#define check(cond) ({							\
	bool __ok = (cond);						\
									\
	if (!__ok)							\
		pr_info("# %s:%d: %s\n", __func__, __LINE__, #cond);	\
	__ok; })

/* dma_bio_data.c */
u32 dbt_rnd(u32 max);
void dbt_layout_one(struct dbt_layout *l, u32 offset, u32 len);
void dbt_layout_random(struct dbt_layout *l);
bool dbt_written(const struct dbt_layout *l);
bool dbt_read_back(const struct dbt_layout *l);
struct bio *dbt_make_bio(const struct dbt_layout *l, struct dma_premap *map,
			 blk_opf_t opf);
bool dbt_test_write(void);
bool dbt_test_read(void);
bool dbt_test_random(void);
bool dbt_test_clone(void);
bool dbt_test_split(void);
bool dbt_test_advance(void);
bool dbt_test_reuse(void);
bool dbt_test_siblings(void);
bool dbt_test_pages(void);

/* dma_bio_split.c */
bool dbt_test_iterating(void);
bool dbt_test_small_segments(void);

/* dma_bio_rules.c */
bool dbt_test_ranges(void);
bool dbt_test_adjacent(void);
bool dbt_test_unmixed(void);
bool dbt_test_dma_dev(void);
bool dbt_test_pool_size(void);
bool dbt_test_sharing(void);
bool dbt_test_clients(void);
bool dbt_is_translated(struct device *dev, dma_addr_t addr);
bool dbt_test_map_errors(void);
bool dbt_test_far(void);
bool dbt_test_add_errors(void);
bool dbt_test_second_range(void);
bool dbt_test_unbound(void);

#endif /* _DMA_BIO_TEST_H */
