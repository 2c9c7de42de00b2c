// SPDX-License-Identifier: GPL-2.0
/*
 * From the description of a bio to the bio, and from the bio to its result.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/bio-integrity.h>
#include <linux/blk-crypto.h>
#include <linux/blk-integrity.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/iommu.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include "dma_bio_ctl_priv.h"

/* One names the mapping. */
static_assert(DMA_BIO_MAX_VECS + 1 == BIO_MAX_VECS);

static const enum req_op ctl_ops[] = {
	[DMA_BIO_READ]		= REQ_OP_READ,
	[DMA_BIO_WRITE]		= REQ_OP_WRITE,
	[DMA_BIO_ZONE_APPEND]	= REQ_OP_ZONE_APPEND,
	[DMA_BIO_FLUSH]		= REQ_OP_FLUSH,
	[DMA_BIO_DISCARD]	= REQ_OP_DISCARD,
	[DMA_BIO_SECURE_ERASE]	= REQ_OP_SECURE_ERASE,
	[DMA_BIO_WRITE_ZEROES]	= REQ_OP_WRITE_ZEROES,
	[DMA_BIO_ZONE_RESET]	= REQ_OP_ZONE_RESET,
	[DMA_BIO_DRV_IN]	= REQ_OP_DRV_IN,
	[DMA_BIO_DRV_OUT]	= REQ_OP_DRV_OUT,
};

/* By the number of the DMA_BIO_ flag's bit. */
static const blk_opf_t ctl_flags[] = {
	REQ_SYNC, REQ_META, REQ_PRIO, REQ_NOMERGE, REQ_IDLE, REQ_FUA,
	REQ_PREFLUSH, REQ_RAHEAD, REQ_BACKGROUND, REQ_NOWAIT, REQ_POLLED,
	REQ_ATOMIC,
};

static blk_opf_t ctl_opf(const struct dma_bio *desc)
{
	blk_opf_t opf = ctl_ops[desc->op];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ctl_flags); i++)
		if (desc->flags & BIT(i))
			opf |= ctl_flags[i];
	return opf;
}

static bool ctl_moves_data(const struct dma_bio *desc)
{
	return desc->op == DMA_BIO_READ || desc->op == DMA_BIO_WRITE ||
	       desc->op == DMA_BIO_ZONE_APPEND;
}

/* The block layer warns of flushes that are not part of a write. */
static int ctl_check_flags(const struct dma_bio *desc)
{
	u32 known = GENMASK(ARRAY_SIZE(ctl_flags) - 1, 0) | DMA_BIO_CHAIN;

	if (desc->op >= ARRAY_SIZE(ctl_ops) || desc->flags & ~known)
		return ctl_invalid("no such operation or flag");
	if (desc->flags & (DMA_BIO_FUA | DMA_BIO_PREFLUSH) &&
	    desc->op != DMA_BIO_WRITE && desc->op != DMA_BIO_ZONE_APPEND)
		return ctl_invalid("only writes can flush");
	if (desc->flags & DMA_BIO_ATOMIC && desc->op != DMA_BIO_WRITE)
		return ctl_invalid("only writes can be atomic");
	if (desc->flags & DMA_BIO_CHAIN && desc->flags & DMA_BIO_POLLED)
		return ctl_invalid("nobody would poll for it");
	return 0;
}

static int ctl_check_fault(const struct dma_bio *desc)
{
	if (desc->fault > DMA_BIO_BEHIND)
		return ctl_invalid("no such fault");
	if (desc->fault == DMA_BIO_CRYPT &&
	    !IS_ENABLED(CONFIG_BLK_INLINE_ENCRYPTION))
		return -EOPNOTSUPP;
	return 0;
}

static int ctl_check_memory(const struct ctl_file *ctl,
			    const struct dma_bio *desc)
{
	if (desc->nr_vecs > DMA_BIO_MAX_VECS)
		return ctl_invalid("too many vectors");
	if (!desc->nr_vecs && (desc->op != DMA_BIO_WRITE || desc->fault ||
			       !(desc->flags & DMA_BIO_PREFLUSH)))
		return ctl_invalid("only a flush can be without data");
	if (desc->map == DMA_BIO_PAGES) {
		if (desc->fault || !ctl_moves_data(desc))
			return ctl_invalid("not for pages");
	} else if (desc->map >= ctl->nr_maps) {
		return ctl_invalid("no such mapping");
	}
	return 0;
}

static int ctl_check_meta(const struct dma_bio *desc)
{
	u32 known = DMA_BIO_CHECK_GUARD | DMA_BIO_CHECK_REFTAG |
		    DMA_BIO_CHECK_APPTAG;

	if (!desc->meta_len)
		return 0;
	if (!IS_ENABLED(CONFIG_BLK_DEV_INTEGRITY))
		return -EOPNOTSUPP;
	if (desc->meta_len > DMA_BIO_MAX_META || desc->meta_flags & ~known ||
	    !desc->nr_vecs || !ctl_moves_data(desc) ||
	    desc->fault == DMA_BIO_CRYPT)
		return ctl_invalid("not for metadata");
	return 0;
}

static int ctl_check(const struct ctl_file *ctl, const struct dma_bio *desc)
{
	int ret;

	if (desc->reserved)
		return ctl_invalid("reserved field");
	ret = ctl_check_flags(desc);
	if (!ret)
		ret = ctl_check_fault(desc);
	if (!ret)
		ret = ctl_check_memory(ctl, desc);
	if (!ret)
		ret = ctl_check_meta(desc);
	return ret;
}

/* The file that user space has opened says what may be done to the device. */
struct file *ctl_get_bdev(int fd, fmode_t mode)
{
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EBADF);
	if (S_ISBLK(file_inode(file)->i_mode) && (file->f_mode & mode) == mode)
		return file;
	fput(file);
	return ERR_PTR(ctl_invalid("not a block device, or not opened for it"));
}

static struct dma_bio_vec *ctl_get_vecs(const struct ctl_file *ctl,
					const struct dma_bio *desc)
{
	size_t size = desc->map == DMA_BIO_PAGES ? ctl->pages.size :
						   ctl->p2p.size;
	struct dma_bio_vec *vecs;
	unsigned int i;

	vecs = memdup_array_user(u64_to_user_ptr(desc->vecs), desc->nr_vecs,
				 sizeof(*vecs));
	if (IS_ERR(vecs))
		return vecs;
	for (i = 0; i < desc->nr_vecs; i++) {
		if (vecs[i].len && vecs[i].offset < size &&
		    vecs[i].len <= size - vecs[i].offset)
			continue;
		kfree(vecs);
		return ERR_PTR(ctl_invalid("vector outside the buffer"));
	}
	return vecs;
}

static bool ctl_add_vec(struct ctl_bio *cb, const struct dma_bio_vec *vec)
{
	const struct ctl_file *ctl = cb->batch->ctl;
	struct dma_premap *map;
	void *addr;

	if (cb->desc.map == DMA_BIO_PAGES) {
		addr = ctl->pages.addr + vec->offset;
		return bio_add_page(cb->bio, virt_to_page(addr), vec->len,
				    offset_in_page(addr)) == vec->len;
	}
	addr = ctl->p2p.addr + vec->offset;
	map = ctl_find_map(ctl, cb->desc.map, addr);
	return map && bio_add_dma_addr(cb->bio, map,
				       pci_p2pmem_dma_addr(map, addr), vec->len);
}

static int ctl_add_vecs(struct ctl_bio *cb)
{
	struct dma_bio *desc = &cb->desc;
	struct dma_bio_vec *vecs;

	desc->added = 0;
	if (!desc->nr_vecs)
		return 0;
	vecs = ctl_get_vecs(cb->batch->ctl, desc);
	if (IS_ERR(vecs))
		return PTR_ERR(vecs);
	while (desc->added < desc->nr_vecs &&
	       ctl_add_vec(cb, &vecs[desc->added]))
		desc->added++;
	kfree(vecs);
	return 0;
}

/* Nobody but the block layer sees the key, and it only looks at the pointer. */
static void ctl_encrypt(struct bio *bio)
{
#ifdef CONFIG_BLK_INLINE_ENCRYPTION
	static const struct blk_crypto_key key;
	static const u64 dun[BLK_CRYPTO_DUN_ARRAY_SIZE];

	bio_crypt_set_ctx(bio, &key, dun, GFP_KERNEL);
#endif
}

/* Whatever follows the mapping, DMA must not reach it. */
static int ctl_go_behind(struct ctl_bio *cb)
{
	const struct dma_premap *map = cb->batch->ctl->maps[cb->desc.map];
	struct iommu_domain *domain = iommu_get_domain_for_dev(map->dev);

	if (!domain || !(domain->type & __IOMMU_DOMAIN_PAGING) ||
	    iommu_iova_to_phys(domain, map->addr + map->len))
		return -EOPNOTSUPP;
	cb->bio->bi_io_vec[1].bv_dma_frame = PHYS_PFN(map->len);
	return 0;
}

static int ctl_add_fault(struct ctl_bio *cb)
{
	switch (cb->desc.fault) {
	case DMA_BIO_NO_MAP:
		cb->bio->bi_iter.bi_idx = 0;
		break;
	case DMA_BIO_CRYPT:
		ctl_encrypt(cb->bio);
		break;
	case DMA_BIO_BEHIND:
		return ctl_go_behind(cb);
	}
	return 0;
}

/* The device takes what it needs, whatever there is. */
static bool ctl_meta_fits(const struct ctl_bio *cb)
{
	struct blk_integrity *bi = bdev_get_integrity(cb->bio->bi_bdev);

	return bi && bio_integrity_bytes(bi, bio_sectors(cb->bio)) ==
		     cb->desc.meta_len;
}

static int ctl_get_meta(struct ctl_bio *cb)
{
	const struct dma_bio *desc = &cb->desc;

	if (!ctl_meta_fits(cb))
		return ctl_invalid("metadata for other data");
	if (desc->op != DMA_BIO_READ)
		cb->meta = memdup_user(u64_to_user_ptr(desc->meta),
				       desc->meta_len);
	else
		cb->meta = kzalloc(desc->meta_len, GFP_KERNEL) ?:
			   ERR_PTR(-ENOMEM);
	return PTR_ERR_OR_ZERO(cb->meta);
}

static int ctl_add_meta(struct ctl_bio *cb)
{
	const struct dma_bio *desc = &cb->desc;
	struct bio_integrity_payload *bip;

	bip = bio_integrity_alloc(cb->bio, GFP_KERNEL, 1);
	if (IS_ERR(bip))
		return PTR_ERR(bip);
	if (desc->meta_flags & DMA_BIO_CHECK_GUARD)
		bip->bip_flags |= BIP_CHECK_GUARD;
	if (desc->meta_flags & DMA_BIO_CHECK_REFTAG)
		bip->bip_flags |= BIP_CHECK_REFTAG;
	if (desc->meta_flags & DMA_BIO_CHECK_APPTAG)
		bip->bip_flags |= BIP_CHECK_APPTAG;
	bip->app_tag = desc->app_tag;
	bip->bip_iter.bi_sector = desc->meta_seed;
	if (bio_integrity_add_page(cb->bio, virt_to_page(cb->meta),
				   desc->meta_len, offset_in_page(cb->meta)))
		return 0;
	return -EINVAL;
}

/* A whole batch must not exhaust the pool that guarantees progress. */
static int ctl_alloc_bio(struct ctl_bio *cb)
{
	cb->bio = bio_alloc(file_bdev(cb->file), cb->desc.nr_vecs + 1,
			    ctl_opf(&cb->desc), GFP_NOWAIT | __GFP_NOWARN);
	if (!cb->bio)
		return -ENOMEM;
	cb->bio->bi_iter.bi_sector = cb->desc.sector;
	/* The others get these from bio_chain(). */
	if (!(cb->desc.flags & DMA_BIO_CHAIN)) {
		cb->bio->bi_private = cb;
		cb->bio->bi_end_io = ctl_end_io;
	}
	return 0;
}

static int ctl_make_bio(struct ctl_bio *cb)
{
	int ret;

	ret = ctl_alloc_bio(cb);
	if (ret)
		return ret;
	ret = ctl_add_vecs(cb);
	if (ret || !ctl_is_complete(cb))
		return ret;
	ret = ctl_add_fault(cb);
	if (ret || !cb->desc.meta_len)
		return ret;
	ret = ctl_get_meta(cb);
	return ret ?: ctl_add_meta(cb);
}

int ctl_prepare(struct ctl_batch *batch, struct ctl_bio *cb)
{
	fmode_t mode = cb->desc.op == DMA_BIO_READ ? FMODE_READ : FMODE_WRITE;
	struct file *file;
	int ret;

	cb->batch = batch;
	ret = ctl_check(batch->ctl, &cb->desc);
	if (ret)
		return ret;
	file = ctl_get_bdev(cb->desc.bdev, mode);
	if (IS_ERR(file))
		return PTR_ERR(file);
	cb->file = file;
	return ctl_make_bio(cb);
}

int ctl_report(struct ctl_bio *cb, struct dma_bio __user *to)
{
	struct dma_bio *desc = &cb->desc;

	desc->ended = atomic_read(&cb->ended);
	desc->status = 0;
	if (cb->bio && desc->ended) {
		desc->status = (__force u8)cb->bio->bi_status;
		if (desc->op == DMA_BIO_ZONE_APPEND)
			desc->sector = cb->bio->bi_iter.bi_sector;
	}
	if (cb->meta && desc->op == DMA_BIO_READ &&
	    copy_to_user(u64_to_user_ptr(desc->meta), cb->meta, desc->meta_len))
		return -EFAULT;
	return copy_to_user(to, desc, sizeof(*desc)) ? -EFAULT : 0;
}

void ctl_free_bio(struct ctl_bio *cb)
{
	if (cb->bio)
		bio_put(cb->bio);
	if (!IS_ERR(cb->meta))
		kfree(cb->meta);
	if (cb->file)
		fput(cb->file);
}
