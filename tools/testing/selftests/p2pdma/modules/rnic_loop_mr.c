// SPDX-License-Identifier: GPL-2.0
/*
 * Memory regions of the loopback RoCE NIC: who may access what, and where the
 * bytes of an SGE are for the copy engine.
 *
 * All addresses are DMA addresses of the copy engine. A region that was
 * registered cannot be taken away while a copy uses it: invalidating waits, so
 * that its completion means what it means with hardware, that the memory will
 * not be touched any more.
 */
#include <linux/slab.h>

#include "rnic_loop.h"

static int rnic_alloc_pages(struct rnic_mr *mr)
{
	mr->pages = kvzalloc_objs(*mr->pages, mr->max_pages);
	mr->mapped = kvzalloc_objs(*mr->mapped, mr->max_pages);
	return mr->pages && mr->mapped ? 0 : -ENOMEM;
}

static int rnic_alloc_pi(struct rnic_mr *mr)
{
	size_t size = struct_size(mr->pi, seg, mr->max_pages);

	mr->pi = kvzalloc(size, GFP_KERNEL);
	mr->pi_mapped = kvzalloc(size, GFP_KERNEL);
	return mr->pi && mr->pi_mapped ? 0 : -ENOMEM;
}

static void rnic_free_mr(struct rnic_mr *mr)
{
	kvfree(mr->pi_mapped);
	kvfree(mr->pi);
	kvfree(mr->mapped);
	kvfree(mr->pages);
	kfree(mr);
}

static struct ib_mr *rnic_new_mr(struct ib_pd *ibpd, u32 max_pages,
				 int (*alloc)(struct rnic_mr *mr))
{
	struct rnic_dev *dev = to_rnic_dev(ibpd->device);
	static u32 next_index;
	struct rnic_mr *mr;
	u32 index;
	int ret;

	mr = kzalloc_obj(*mr);
	if (!mr)
		return ERR_PTR(-ENOMEM);

	mr->pd = ibpd;
	mr->max_pages = max_pages;
	ret = alloc ? alloc(mr) : 0;
	if (ret)
		goto free_mr;

	/* Cyclic, so that a stale key does not soon become a good one. */
	ret = xa_alloc_cyclic(&dev->mrs, &index, mr,
			      XA_LIMIT(1, RNIC_LAST_MR), &next_index,
			      GFP_KERNEL);
	if (ret < 0)
		goto free_mr;

	mr->key = index << RNIC_KEY_SHIFT;
	mr->ibmr.lkey = mr->key;
	mr->ibmr.rkey = mr->key;
	return &mr->ibmr;

free_mr:
	rnic_free_mr(mr);
	return ERR_PTR(ret);
}

struct ib_mr *rnic_get_dma_mr(struct ib_pd *ibpd, int access)
{
	struct rnic_dev *dev = to_rnic_dev(ibpd->device);
	struct ib_mr *ibmr = rnic_new_mr(ibpd, 0, NULL);
	struct rnic_mr *mr;

	if (IS_ERR(ibmr))
		return ibmr;

	mr = to_rnic_mr(ibmr);
	xa_lock(&dev->mrs);
	mr->everything = true;
	mr->access = access;
	mr->valid = true;
	xa_unlock(&dev->mrs);
	return ibmr;
}

struct ib_mr *rnic_alloc_mr(struct ib_pd *ibpd, enum ib_mr_type mr_type,
			    u32 max_num_sg)
{
	if (mr_type != IB_MR_TYPE_MEM_REG)
		return ERR_PTR(-EOPNOTSUPP);
	if (!max_num_sg || max_num_sg > RNIC_MAX_MR_PAGES)
		return ERR_PTR(-EINVAL);

	return rnic_new_mr(ibpd, max_num_sg, rnic_alloc_pages);
}

struct ib_mr *rnic_alloc_mr_integrity(struct ib_pd *ibpd, u32 max_data_sg,
				      u32 max_meta_sg)
{
	struct ib_mr *ibmr;

	if (max_data_sg > RNIC_MAX_MR_PAGES || max_meta_sg > RNIC_MAX_MR_PAGES)
		return ERR_PTR(-EINVAL);

	ibmr = rnic_new_mr(ibpd, max_data_sg + max_meta_sg, rnic_alloc_pi);
	if (!IS_ERR(ibmr))
		to_rnic_mr(ibmr)->max_data = max_data_sg;
	return ibmr;
}

/* The RDMA core takes a device without this for one without kernel verbs. */
struct ib_mr *rnic_reg_user_mr(struct ib_pd *ibpd, u64 start, u64 length,
			       u64 virt_addr, int access, struct ib_dmah *dmah,
			       struct ib_udata *udata)
{
	return ERR_PTR(-EOPNOTSUPP);
}

int rnic_dereg_mr(struct ib_mr *ibmr, struct ib_udata *udata)
{
	struct rnic_dev *dev = to_rnic_dev(ibmr->device);
	struct rnic_mr *mr = to_rnic_mr(ibmr);

	xa_lock(&dev->mrs);
	mr->valid = false;
	__xa_erase(&dev->mrs, mr->key >> RNIC_KEY_SHIFT);
	xa_unlock(&dev->mrs);

	wait_event(dev->wait, !READ_ONCE(mr->users));
	/* The last user may still hold the lock that it dropped it under. */
	xa_lock(&dev->mrs);
	xa_unlock(&dev->mrs);

	rnic_free_mr(mr);
	return 0;
}

static int rnic_set_page(struct ib_mr *ibmr, u64 addr)
{
	struct rnic_mr *mr = to_rnic_mr(ibmr);

	if (mr->nr_mapped == mr->max_pages)
		return -ENOMEM;

	mr->mapped[mr->nr_mapped++] = addr;
	return 0;
}

int rnic_map_mr_sg(struct ib_mr *ibmr, struct scatterlist *sg, int sg_nents,
		   unsigned int *sg_offset)
{
	struct rnic_mr *mr = to_rnic_mr(ibmr);

	mr->nr_mapped = 0;
	return ib_sg_to_pages(ibmr, sg, sg_nents, sg_offset, rnic_set_page);
}

/* A region that the consumer registers and invalidates by work requests */
static struct rnic_mr *rnic_find_fast_mr(struct rnic_dev *dev, struct ib_pd *pd,
					 u32 key)
{
	struct rnic_mr *mr;

	lockdep_assert_held(&dev->mrs.xa_lock);

	mr = xa_load(&dev->mrs, key >> RNIC_KEY_SHIFT);
	if (!mr || !mr->max_pages || mr->pd != pd)
		return NULL;
	return mr;
}

/**
 * rnic_mr_register - make what ib_map_mr_sg() or ib_map_mr_sg_pi() mapped
 *	accessible by a key
 * @dev:	the device
 * @pd:		protection domain of the queue pair
 * @key:	new key; the low byte is the consumer's choice
 * @access:	IB_ACCESS_* bits
 *
 * The pages are taken now and not when they were mapped, because the old ones
 * are accessible until the region is invalidated.
 *
 * Return: 0, or -EINVAL if the region cannot be registered.
 */
int rnic_mr_register(struct rnic_dev *dev, struct ib_pd *pd, u32 key,
		     int access)
{
	struct rnic_mr *mr;
	int ret = -EINVAL;

	xa_lock(&dev->mrs);
	mr = rnic_find_fast_mr(dev, pd, key);
	if (mr && !mr->valid && !mr->users)
		ret = mr->pi ? rnic_pi_register(mr) : 0;
	if (!ret) {
		swap(mr->pages, mr->mapped);
		mr->page_shift = ilog2(mr->ibmr.page_size);
		mr->iova = mr->ibmr.iova;
		mr->length = mr->ibmr.length;
		mr->access = access;
		mr->key = key;
		mr->valid = true;
		atomic_inc(&dev->nr_reg);
	}
	xa_unlock(&dev->mrs);

	return ret;
}

/**
 * rnic_mr_invalidate - end the access to a registered region
 * @dev:	the device
 * @pd:		protection domain of the queue pair
 * @key:	its key
 *
 * Return: 0; -EINVAL if there is no such region; -EBUSY if nobody can start to
 * access the region any more, but somebody still does: try again.
 */
int rnic_mr_invalidate(struct rnic_dev *dev, struct ib_pd *pd, u32 key)
{
	struct rnic_mr *mr;
	int ret = -EINVAL;

	xa_lock(&dev->mrs);
	mr = rnic_find_fast_mr(dev, pd, key);
	if (mr && mr->key == key) {
		mr->valid = false;
		ret = mr->users ? -EBUSY : 0;
	}
	xa_unlock(&dev->mrs);

	return ret;
}

static bool rnic_mr_allows(const struct rnic_mr *mr, const struct ib_pd *pd,
			   const struct ib_sge *sge, int access)
{
	u64 off = sge->addr - mr->iova;

	if (!mr->valid || mr->key != sge->lkey || mr->pd != pd)
		return false;
	if ((mr->access & access) != access)
		return false;
	if (mr->everything)
		return true;
	return sge->addr >= mr->iova && off <= mr->length &&
	       sge->length <= mr->length - off;
}

static struct rnic_mr *rnic_mr_get(struct rnic_dev *dev, struct ib_pd *pd,
				   const struct ib_sge *sge, int access)
{
	struct rnic_mr *mr;

	xa_lock(&dev->mrs);
	mr = xa_load(&dev->mrs, sge->lkey >> RNIC_KEY_SHIFT);
	if (mr && rnic_mr_allows(mr, pd, sge, access))
		mr->users++;
	else
		mr = NULL;
	xa_unlock(&dev->mrs);

	return mr;
}

static void rnic_mr_put(struct rnic_dev *dev, struct rnic_mr *mr)
{
	xa_lock(&dev->mrs);
	if (!--mr->users)
		wake_up_all(&dev->wait);
	xa_unlock(&dev->mrs);
}

/**
 * rnic_iter_add - check a piece of memory and append it to a message
 * @dev:	the device
 * @iter:	the message
 * @pd:		protection domain of the queue pair that owns the memory
 * @sge:	the memory; @sge->lkey is the remote key if @access is remote
 * @access:	what is needed, 0 for reading on the own side
 *
 * Memory that was added is held until rnic_iter_release(). Keys of empty
 * pieces are not looked at, as the specification has it.
 *
 * Return: 0, or -EACCES if the access is not allowed.
 */
int rnic_iter_add(struct rnic_dev *dev, struct rnic_iter *iter,
		  struct ib_pd *pd, const struct ib_sge *sge, int access)
{
	bool remote = access & (IB_ACCESS_REMOTE_READ | IB_ACCESS_REMOTE_WRITE);
	struct rnic_mr *mr = NULL;

	if (!sge->length)
		return 0;

	if (remote || sge->lkey != RNIC_LOCAL_DMA_LKEY) {
		mr = rnic_mr_get(dev, pd, sge, access);
		if (!mr)
			return -EACCES;
	}

	rnic_iter_add_dma(iter, sge->addr, sge->length);
	iter->seg[iter->nr_segs - 1].mr = mr;
	return 0;
}

/**
 * rnic_iter_add_dma - append memory known by its DMA address to a message
 * @iter:	the message
 * @addr:	DMA address
 * @len:	number of bytes
 */
void rnic_iter_add_dma(struct rnic_iter *iter, dma_addr_t addr, u32 len)
{
	iter->seg[iter->nr_segs++] = (struct rnic_seg) {
		.addr	= addr,
		.len	= len,
	};
}

/* How many bytes from @off on are contiguous, up to @len of them */
static u32 rnic_mr_contig(const struct rnic_mr *mr, u64 off, u32 len,
			  dma_addr_t *addr)
{
	u64 page_size = 1ULL << mr->page_shift;
	u64 pos = off + (mr->iova & (page_size - 1));
	u32 page = pos >> mr->page_shift;
	u64 in_page = pos & (page_size - 1);
	u64 contig = page_size - in_page;

	*addr = mr->pages[page] + in_page;
	for (; contig < len; contig += page_size, page++)
		if (mr->pages[page] + page_size != mr->pages[page + 1])
			break;

	return min_t(u64, contig, len);
}

/**
 * rnic_iter_peek - find the next contiguous piece of a message
 * @iter:	the message
 * @addr:	set to its DMA address
 *
 * Return: number of contiguous bytes, 0 at the end.
 */
u32 rnic_iter_peek(struct rnic_iter *iter, dma_addr_t *addr)
{
	const struct rnic_seg *seg = &iter->seg[iter->cur];
	u32 left;
	u64 off;

	if (iter->cur == iter->nr_segs)
		return 0;

	left = seg->len - iter->off;
	if (!seg->mr || seg->mr->everything) {
		*addr = seg->addr + iter->off;
		return left;
	}
	off = seg->addr + iter->off - seg->mr->iova;
	if (seg->mr->pi)
		return rnic_pi_contig(seg->mr->pi, off, left, addr);
	return rnic_mr_contig(seg->mr, off, left, addr);
}

/**
 * rnic_iter_advance - pass by a part of what rnic_iter_peek() has found
 * @iter:	the message
 * @len:	number of bytes
 */
void rnic_iter_advance(struct rnic_iter *iter, u32 len)
{
	iter->off += len;
	if (iter->off == iter->seg[iter->cur].len) {
		iter->off = 0;
		iter->cur++;
	}
}

/**
 * rnic_iter_release - let go of the memory of a message
 * @dev:	the device
 * @iter:	the message
 */
void rnic_iter_release(struct rnic_dev *dev, struct rnic_iter *iter)
{
	unsigned int i;

	for (i = 0; i < iter->nr_segs; i++)
		if (iter->seg[i].mr)
			rnic_mr_put(dev, iter->seg[i].mr);
	iter->nr_segs = 0;
}
