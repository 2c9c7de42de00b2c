// SPDX-License-Identifier: GPL-2.0
/*
 * Memory regions with protection information (PI) of the loopback RoCE NIC.
 *
 * On the wire, each block of data is followed by its PI; in memory, data and PI
 * are apart. The device passes PI on: it neither generates nor strips it, nor
 * does it check it, because only the copy engine sees the data.
 */
#include <linux/slab.h>
#include <linux/t10-pi.h>

#include "rnic_loop.h"

static void rnic_pi_set(struct rnic_pi_seg *seg, struct scatterlist *sgl,
			int nents)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		seg[i].addr = sg_dma_address(sg);
		seg[i].len = sg_dma_len(sg);
	}
}

static u64 rnic_pi_bytes(const struct rnic_pi_seg *seg, unsigned int nr)
{
	u64 len = 0;

	while (nr)
		len += seg[--nr].len;
	return len;
}

int rnic_map_mr_sg_pi(struct ib_mr *ibmr, struct scatterlist *data_sg,
		      int data_nents, unsigned int *data_offset,
		      struct scatterlist *meta_sg, int meta_nents,
		      unsigned int *meta_offset)
{
	struct rnic_mr *mr = to_rnic_mr(ibmr);
	struct rnic_pi *pi = mr->pi_mapped;

	if (data_offset || meta_offset)
		return -EOPNOTSUPP;
	if (data_nents > mr->max_data || meta_nents > mr->max_pages - mr->max_data)
		return -ENOMEM;

	pi->nr_data = data_nents;
	pi->nr_segs = data_nents + meta_nents;
	rnic_pi_set(pi->seg, data_sg, data_nents);
	rnic_pi_set(pi->seg + data_nents, meta_sg, meta_nents);
	ibmr->iova = 0;
	ibmr->length = rnic_pi_bytes(pi->seg, pi->nr_segs);
	return 0;
}

/**
 * rnic_pi_register - take what was mapped last, and the size of a block
 * @mr:		region with PI
 *
 * Return: 0, or -EINVAL if PI would have to be generated, stripped or converted,
 * or if data and PI do not belong together.
 */
int rnic_pi_register(struct rnic_mr *mr)
{
	const struct ib_sig_domain *mem = &mr->ibmr.sig_attrs->mem;
	const struct ib_sig_domain *wire = &mr->ibmr.sig_attrs->wire;
	struct rnic_pi *pi = mr->pi_mapped;
	u64 len, blocks;
	u32 rest;

	/* The consumer may set the attributes after it has mapped the memory. */
	if (mem->sig_type != IB_SIG_TYPE_T10_DIF ||
	    wire->sig_type != IB_SIG_TYPE_T10_DIF ||
	    wire->sig.dif.pi_interval != mem->sig.dif.pi_interval ||
	    !mem->sig.dif.pi_interval)
		return -EINVAL;

	pi->block = mem->sig.dif.pi_interval;
	len = rnic_pi_bytes(pi->seg, pi->nr_data);
	blocks = div_u64_rem(len, pi->block, &rest);
	if (rest ||
	    len + blocks * sizeof(struct t10_pi_tuple) != mr->ibmr.length)
		return -EINVAL;

	swap(mr->pi, mr->pi_mapped);
	return 0;
}

static u32 rnic_pi_find(const struct rnic_pi_seg *seg, u64 pos, u32 len,
			dma_addr_t *addr)
{
	for (; pos >= seg->len; seg++)
		pos -= seg->len;
	*addr = seg->addr + pos;
	return min_t(u64, len, seg->len - pos);
}

/**
 * rnic_pi_contig - find how many bytes are contiguous
 * @pi:		data and PI of a region
 * @off:	offset of the first byte, as on the wire
 * @len:	how many of them matter
 * @addr:	set to the DMA address of the first byte
 *
 * Return: number of contiguous bytes, at most @len.
 */
u32 rnic_pi_contig(const struct rnic_pi *pi, u64 off, u32 len,
		   dma_addr_t *addr)
{
	const u32 size = sizeof(struct t10_pi_tuple);
	u32 rest;
	u64 n;

	n = div_u64_rem(off, pi->block + size, &rest);
	if (rest < pi->block)
		return rnic_pi_find(pi->seg, n * pi->block + rest,
				    min(len, pi->block - rest), addr);

	rest -= pi->block;
	return rnic_pi_find(pi->seg + pi->nr_data, n * size + rest,
			    min(len, size - rest), addr);
}

int rnic_check_mr_status(struct ib_mr *ibmr, u32 check_mask,
			 struct ib_mr_status *status)
{
	status->fail_status = 0;
	return 0;
}
