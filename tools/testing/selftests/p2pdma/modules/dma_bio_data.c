// SPDX-License-Identifier: GPL-2.0
/*
 * Data by DMA address, each direction on its own: what is to be overwritten is
 * something else before, and every byte is compared, also those around it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dma-mapping.h>
#include <linux/sizes.h>
#include "dma_bio_test.h"

u32 dbt_rnd(u32 max)
{
	return prandom_u32_state(&dbt.rnd) % max;
}

static void layout_add(struct dbt_layout *l, u32 offset, u32 len)
{
	l->piece[l->nr++] = (struct dbt_piece) { offset, len };
	l->size += len;
}

void dbt_layout_one(struct dbt_layout *l, u32 offset, u32 len)
{
	l->nr = 0;
	l->size = 0;
	layout_add(l, GUARD + offset, len);
}

/* From the data to where the pieces are, in p2pmem or in an image of it. */
static void scatter(const struct dbt_layout *l, void *memory)
{
	const void *data = dbt.data;
	unsigned int i;

	for (i = 0; i < l->nr; i++) {
		memcpy(memory + l->piece[i].offset, data, l->piece[i].len);
		data += l->piece[i].len;
	}
	/* p2pmem may be mapped write-combining, the doorbell is not. */
	wmb();
}

static void poison_p2pmem(void)
{
	memset(dbt.p2p, POISON, BUFFER_SIZE);
	/* See scatter(). */
	wmb();
}

static bool p2pmem_has(const struct dbt_layout *l)
{
	memset(dbt.image, POISON, BUFFER_SIZE);
	scatter(l, dbt.image);
	return !memcmp(dbt.p2p, dbt.image, BUFFER_SIZE);
}

static bool disk_write(sector_t sector, void *data, u32 len)
{
	return !bdev_rw_virt(dbt.bdev, sector, data, len, REQ_OP_WRITE);
}

static bool disk_read(sector_t sector, void *data, u32 len)
{
	memset(data, ~POISON & 0xff, len);
	return !bdev_rw_virt(dbt.bdev, sector, data, len, REQ_OP_READ);
}

/* New data, and the disk around it poisoned. */
static bool poison_disk(u32 size)
{
	prandom_bytes_state(&dbt.rnd, dbt.data, size);
	memset(dbt.image, POISON, size + 2 * SECTOR_SIZE);
	return disk_write(FIRST_SECTOR - 1, dbt.image, size + 2 * SECTOR_SIZE);
}

static bool disk_has(u32 size)
{
	void *tail = dbt.image + SECTOR_SIZE + size;

	return disk_read(FIRST_SECTOR - 1, dbt.image, size + 2 * SECTOR_SIZE) &&
	       !memchr_inv(dbt.image, POISON, SECTOR_SIZE) &&
	       !memcmp(dbt.image + SECTOR_SIZE, dbt.data, size) &&
	       !memchr_inv(tail, POISON, SECTOR_SIZE);
}

struct bio *dbt_make_bio(const struct dbt_layout *l, struct dma_premap *map,
			 blk_opf_t opf)
{
	struct bio *bio = bio_alloc(dbt.bdev, l->nr + 1, opf, GFP_KERNEL);
	unsigned int i;

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	for (i = 0; i < l->nr; i++)
		if (!bio_add_dma_addr(bio, map, dbt.dma + l->piece[i].offset,
				      l->piece[i].len))
			pr_info("# piece %u was not added\n", i);
	return bio;
}

static bool run_bio(struct bio *bio)
{
	int ret = submit_bio_wait(bio);

	if (ret)
		pr_info("# %s failed: %d\n",
			op_is_write(bio_op(bio)) ? "write" : "read", ret);
	bio_put(bio);
	return !ret;
}

bool dbt_written(const struct dbt_layout *l)
{
	if (!poison_disk(l->size))
		return false;
	poison_p2pmem();
	scatter(l, dbt.p2p);
	return run_bio(dbt_make_bio(l, dbt.map, REQ_OP_WRITE)) &&
	       disk_has(l->size);
}

static bool disk_filled(u32 size)
{
	prandom_bytes_state(&dbt.rnd, dbt.data, size);
	poison_p2pmem();
	return disk_write(FIRST_SECTOR, dbt.data, size);
}

bool dbt_read_back(const struct dbt_layout *l)
{
	return disk_filled(l->size) &&
	       run_bio(dbt_make_bio(l, dbt.map, REQ_OP_READ)) &&
	       p2pmem_has(l);
}

static struct bio *make_page_bio(struct scatterlist *sg, blk_opf_t opf)
{
	struct bio *bio = bio_alloc(dbt.bdev, 1, opf | REQ_NOMERGE, GFP_KERNEL);

	bio->bi_iter.bi_sector = FIRST_SECTOR;
	__bio_add_page(bio, sg_page(sg), sg->length, sg->offset);
	return bio;
}

static bool pages_written(struct scatterlist *sg)
{
	if (!poison_disk(sg->length))
		return false;
	memcpy(sg_virt(sg), dbt.data, sg->length);
	/* See scatter(). */
	wmb();
	return run_bio(make_page_bio(sg, REQ_OP_WRITE)) && disk_has(sg->length);
}

static bool pages_read_back(struct scatterlist *sg)
{
	if (!disk_filled(sg->length))
		return false;
	memset(sg_virt(sg), POISON, sg->length);
	/* See scatter(). */
	wmb();
	return run_bio(make_page_bio(sg, REQ_OP_READ)) &&
	       !memcmp(sg_virt(sg), dbt.data, sg->length);
}

/*
 * The page based way, next to which the mapping goes on: the pages are made now,
 * unless user space has asked for them before.
 */
bool dbt_test_pages(void)
{
	struct scatterlist sg;
	struct page *page;
	void *addr;
	bool ok;

	addr = pci_alloc_p2pmem(dbt.provider, SZ_64K);
	if (!check(addr))
		return false;
	page = pci_p2pmem_page(dbt.provider, addr);
	ok = check(!IS_ERR(page));
	if (ok) {
		sg_init_table(&sg, 1);
		sg_set_page(&sg, page, SZ_64K, 0);
		ok = check(is_pci_p2pdma_page(page)) &&
		     check(pages_written(&sg)) && check(pages_read_back(&sg));
	}
	pci_free_p2pmem(dbt.provider, addr, SZ_64K);
	return ok;
}

struct shape {
	const char *name;
	unsigned int nr;
	u32 first;
	u32 len;
	u32 stride;
};

static const struct shape shapes[] = {
	{ "a sector", 1, 0, SECTOR_SIZE },
	{ "a sector, unaligned", 1, 4, SECTOR_SIZE },
	{ "a sector across pages", 1, SZ_4K - 12, SECTOR_SIZE },
	{ "a page", 1, 0, SZ_4K },
	{ "two pages, unaligned", 1, 516, SZ_8K },
	{ "three pages, unaligned", 1, SZ_2K, SZ_8K + SZ_4K },
	{ "128 KiB", 1, 0, SZ_128K },
	{ "128 KiB, unaligned", 1, 1028, SZ_128K },
	{ "several commands", 1, 0, AREA_SIZE },
	{ "several commands, unaligned", 1, 12, AREA_SIZE - SZ_4K },
	{ "pages with gaps", 64, 0, SZ_4K, SZ_8K },
	{ "sectors with gaps", 32, 0, SECTOR_SIZE, SZ_4K },
	{ "sectors with gaps, unaligned", 32, 100, SECTOR_SIZE, 1540 },
	{ "pieces of sectors", 64, 8, 128, 1000 },
	{ "most vectors", MAX_PIECES, 0, SZ_4K, SZ_8K },
	{ "most vectors, unaligned", MAX_PIECES, 4, SECTOR_SIZE, SZ_8K - 4 },
};

static void layout_shape(struct dbt_layout *l, const struct shape *shape)
{
	unsigned int i;

	dbt_layout_one(l, shape->first, shape->len);
	for (i = 1; i < shape->nr; i++)
		layout_add(l, GUARD + shape->first + i * shape->stride,
			   shape->len);
}

/* The same with the pieces from last to first: adjacent ones must not merge. */
static void layout_reverse(struct dbt_layout *l)
{
	unsigned int i;

	for (i = 0; i < l->nr / 2; i++)
		swap(l->piece[i], l->piece[l->nr - 1 - i]);
}

static bool shapes_work(bool (*works)(const struct dbt_layout *l))
{
	bool ok = true, back;
	int i;

	for (i = 0; i < 2 * ARRAY_SIZE(shapes); i++) {
		back = i & 1;
		layout_shape(&dbt.layout, &shapes[i / 2]);
		if (back)
			layout_reverse(&dbt.layout);
		if (!works(&dbt.layout)) {
			pr_info("# %s%s\n", shapes[i / 2].name,
				back ? ", backwards" : "");
			ok = false;
		}
	}
	return ok;
}

bool dbt_test_write(void)
{
	return shapes_work(dbt_written);
}

bool dbt_test_read(void)
{
	return shapes_work(dbt_read_back);
}

static u32 random_len(void)
{
	switch (dbt_rnd(4)) {
	case 0:
		return UNIT * (1 + dbt_rnd(SZ_8K / UNIT));
	case 1:
		return SECTOR_SIZE * (1 + dbt_rnd(64));
	default:
		return SZ_4K * (1 + dbt_rnd(4));
	}
}

static u32 random_gap(u32 end)
{
	switch (dbt_rnd(4)) {
	case 0:
		return 0;
	case 1:
		return UNIT * dbt_rnd(SZ_4K / UNIT);
	default:
		return ALIGN(end, SZ_4K) - end + SZ_4K * dbt_rnd(2);
	}
}

/* Any shape whose size is a number of sectors. */
void dbt_layout_random(struct dbt_layout *l)
{
	unsigned int nr = 1 + dbt_rnd(dbt_rnd(4) ? 8 : MAX_PIECES - 1);
	u32 end = GUARD, start, len;

	l->nr = 0;
	l->size = 0;
	while (l->nr < nr) {
		start = end + random_gap(end);
		len = random_len();
		if (start + len > AREA_SIZE)
			break;
		layout_add(l, start, len);
		end = start + len;
	}
	/* A piece of its own, so that the last one can be anything. */
	len = -l->size % SECTOR_SIZE;
	if (len)
		layout_add(l, end + SZ_4K, len);
}

bool dbt_test_random(void)
{
	struct dbt_layout *l = &dbt.layout;
	int i;

	for (i = 0; i < RANDOM_ROUNDS; i++) {
		dbt_layout_random(l);
		if (!(i & 1 ? dbt_written(l) : dbt_read_back(l))) {
			pr_info("# round %d of seed %u: %u pieces, %u bytes\n",
				i, dbt.seed, l->nr, l->size);
			return false;
		}
	}
	return true;
}

bool dbt_test_clone(void)
{
	struct bio *bio, *clone;
	bool ok;

	layout_shape(&dbt.layout, &shapes[ARRAY_SIZE(shapes) - 1]);
	if (!disk_filled(dbt.layout.size))
		return false;
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
	clone = bio_alloc_clone(dbt.bdev, bio, GFP_KERNEL, &dbt.bios);
	ok = check(dbt_names_map(clone));
	ok = check(run_bio(clone)) && ok && check(p2pmem_has(&dbt.layout));
	bio_put(bio);
	return ok;
}

bool dbt_test_split(void)
{
	struct bio *bio, *split;
	bool ok;

	layout_shape(&dbt.layout, &shapes[ARRAY_SIZE(shapes) - 1]);
	if (!disk_filled(dbt.layout.size))
		return false;
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
	split = bio_split(bio, 5, GFP_KERNEL, &dbt.bios);
	ok = check(dbt_names_map(split)) && check(dbt_names_map(bio));
	bio_chain(split, bio);
	submit_bio(split);
	return check(run_bio(bio)) && ok && check(p2pmem_has(&dbt.layout));
}

bool dbt_test_advance(void)
{
	u32 skip = 3 * SECTOR_SIZE + SZ_4K;
	struct bio *bio;
	bool ok;

	dbt_layout_one(&dbt.layout, 12, SZ_64K);
	if (!disk_filled(dbt.layout.size))
		return false;
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_READ);
	bio_advance(bio, skip);
	ok = check(run_bio(bio));
	memset(dbt.data, POISON, skip);
	return ok && check(p2pmem_has(&dbt.layout));
}

bool dbt_test_reuse(void)
{
	struct bio *bio;
	bool ok;

	layout_shape(&dbt.layout, &shapes[ARRAY_SIZE(shapes) - 1]);
	prandom_bytes_state(&dbt.rnd, dbt.data, dbt.layout.size);
	scatter(&dbt.layout, dbt.p2p);
	bio = dbt_make_bio(&dbt.layout, dbt.map, REQ_OP_WRITE);
	ok = check(!submit_bio_wait(bio));
	poison_p2pmem();
	bio_reuse(bio, REQ_OP_READ);
	ok = check(dbt_names_map(bio)) && ok;
	bio->bi_iter.bi_sector = FIRST_SECTOR;
	return check(run_bio(bio)) && ok && check(p2pmem_has(&dbt.layout));
}

/*
 * Whichever mapping a bio names, the drive uses its own.  A new one can be made while
 * somebody holds the lock of the device.
 */
bool dbt_test_siblings(void)
{
	struct device *dev = &dbt.other->dev;
	struct dma_premap *map = dbt.map, *other;
	struct dma_iova_state taken[4];
	dma_addr_t addr;
	bool ok, iommu;
	int nr = 0;

	/* With an IOMMU the address is to be another one: use those up from the top. */
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
	if (!check(!IS_ERR(other)))
		return false;

	addr = other->addr;
	ok = check(other != map && other->len == map->len) &&
	     check(dbt_is_translated(dev, addr) == iommu) &&
	     check(!iommu || addr != map->addr);
	dbt_use(other, dbt.p2p);
	dbt_layout_random(&dbt.layout);
	ok = check(dbt_written(&dbt.layout)) &&
	     check(dbt_read_back(&dbt.layout)) && ok;
	dbt_use(map, dbt.p2p);
	pci_p2pmem_unmap_resource(other);
	return check(!dbt_is_translated(dev, addr)) && ok;
}
