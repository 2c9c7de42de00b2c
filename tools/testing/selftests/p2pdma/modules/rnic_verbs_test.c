// SPDX-License-Identifier: GPL-2.0
/*
 * Verbs tests of an RDMA device that loops back, and of what it must refuse.
 *
 * The tests run when this module is loaded, on the device that the parameter
 * names; the results are in the debugfs file rnic_verbs_test, in KTAP.
 *
 * Each test has two fresh queue pairs connected to each other. Everything is
 * sent from one buffer into another one. A model of the latter is written by
 * the CPU, and after each test all bytes of both are compared: those that had
 * to arrive, and those that had to stay as they were.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <rdma/ib_cache.h>
#include <rdma/ib_verbs.h>
#include <rdma/rw.h>

static char *device = "rnic0";
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "RDMA device to test (default: rnic0)");

#define VT_BUF_SIZE	SZ_2M
/* So many that a copy to all of them takes a while */
#define VT_MR_PAGES	256
#define VT_MAX_MR_PAGES	512
#define VT_MR_OFFSET	1357
#define VT_MR_LEN	(VT_MR_PAGES * SZ_4K - VT_MR_OFFSET - 77)
#define VT_QUEUE	64
#define VT_RW_CTXS	64
#define VT_CHUNKS	5
#define VT_CHUNK_PAGES	40
#define VT_CHUNK_LEN	(VT_CHUNK_PAGES * PAGE_SIZE)
#define VT_SGES		4
#define VT_LOG_SIZE	SZ_64K
#define VT_TIMEOUT_MS	20000
#define VT_POISON	0x5a
#define VT_ALL_ACCESS	(IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE | \
			 IB_ACCESS_REMOTE_READ)

struct vt_end {
	struct ib_qp	*qp;
	struct ib_cq	*scq;
	struct ib_cq	*rcq;
};

struct vt_buf {
	u8		*mem;
	dma_addr_t	dma;
	/* What has to be in it */
	u8		*model;
};

/* @a sends, @b has the memory region, which consists of pages of @dst */
struct vt {
	struct ib_device		*dev;
	const struct ib_gid_attr	*gid;
	struct ib_pd			*pd;
	struct ib_pd			*other_pd;
	struct vt_buf			src;
	struct vt_buf			dst;
	struct vt_end			a;
	struct vt_end			b;
	struct ib_mr			*mr;
	struct ib_srq			*srq;
	struct completion		last_wqe;
	bool				rw_mrs;
	u8				rnr_retry;
	int				qp_access;
};

static char *vt_log;
static size_t vt_log_len;
static struct debugfs_blob_wrapper vt_blob;
static struct dentry *vt_file;

static __printf(1, 2) void vt_print(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vt_log_len += vscnprintf(vt_log + vt_log_len, VT_LOG_SIZE - vt_log_len,
				 fmt, args);
	va_end(args);
}

/* Say what went wrong, and return the error. */
static __printf(1, 2) int vt_fail(const char *fmt, ...)
{
	struct va_format vaf = { .fmt = fmt };
	va_list args;

	va_start(args, fmt);
	vaf.va = &args;
	vt_print("# %pV\n", &vaf);
	va_end(args);
	return -EINVAL;
}

static int vt_expect_ret(const char *what, int ret, int expected)
{
	if (ret == expected)
		return 0;
	return vt_fail("%s returned %d, expected %d", what, ret, expected);
}

static int vt_poll(struct ib_cq *cq, struct ib_wc *wc)
{
	ktime_t end = ktime_add_ms(ktime_get(), VT_TIMEOUT_MS);
	int ret;

	do {
		ret = ib_poll_cq(cq, 1, wc);
		if (ret)
			return ret == 1 ? 0 : vt_fail("ib_poll_cq: %d", ret);
		usleep_range(100, 200);
	} while (ktime_before(ktime_get(), end));

	return vt_fail("no completion");
}

static int vt_expect_wc(struct ib_cq *cq, u64 id, enum ib_wc_status status,
			struct ib_wc *wc)
{
	int ret = vt_poll(cq, wc);

	if (ret)
		return ret;
	if (wc->wr_id != id)
		return vt_fail("completion of %llu, expected %llu", wc->wr_id,
			       id);
	if (wc->status != status)
		return vt_fail("%llu: %s, expected %s", id,
			       ib_wc_status_msg(wc->status),
			       ib_wc_status_msg(status));
	return 0;
}

static int vt_expect(struct ib_cq *cq, u64 id, enum ib_wc_status status)
{
	struct ib_wc wc;

	return vt_expect_wc(cq, id, status, &wc);
}

static int vt_expect_none(struct ib_cq *cq)
{
	struct ib_wc wc;

	if (!ib_poll_cq(cq, 1, &wc))
		return 0;
	return vt_fail("unexpected completion of %llu: %s", wc.wr_id,
		       ib_wc_status_msg(wc.status));
}

static int vt_expect_state(struct vt_end *end, enum ib_qp_state state)
{
	struct ib_qp_init_attr init;
	struct ib_qp_attr attr;
	int ret;

	ret = ib_query_qp(end->qp, &attr, IB_QP_STATE, &init);
	if (ret)
		return vt_fail("ib_query_qp: %d", ret);
	if (attr.qp_state != state)
		return vt_fail("state %d, expected %d", attr.qp_state, state);
	return 0;
}

/* The memory region has the pages of the buffer in reverse order. */
static size_t vt_mr_to_dst(size_t off)
{
	size_t pos = off + VT_MR_OFFSET;

	return (VT_MR_PAGES - 1 - pos / SZ_4K) * SZ_4K + pos % SZ_4K;
}

static void vt_model_dst(struct vt *t, size_t dst, size_t src, size_t len)
{
	memcpy(t->dst.model + dst, t->src.model + src, len);
}

static void vt_model_mr(struct vt *t, size_t off, size_t src, size_t len)
{
	for (; len; len--, off++, src++)
		t->dst.model[vt_mr_to_dst(off)] = t->src.model[src];
}

static void vt_model_read(struct vt *t, size_t src, size_t off, size_t len)
{
	for (; len; len--, off++, src++)
		t->src.model[src] = t->dst.model[vt_mr_to_dst(off)];
}

static int vt_compare_buf(const char *name, const struct vt_buf *buf)
{
	size_t i;

	if (!memcmp(buf->mem, buf->model, VT_BUF_SIZE))
		return 0;

	for (i = 0; i < VT_BUF_SIZE; i++)
		if (buf->mem[i] != buf->model[i])
			break;
	return vt_fail("%s: byte %zu is %#x, expected %#x", name, i,
		       buf->mem[i], buf->model[i]);
}

static int vt_compare(struct vt *t)
{
	return vt_compare_buf("source", &t->src) ?:
	       vt_compare_buf("destination", &t->dst);
}

static struct ib_sge vt_sge(struct vt *t, struct vt_buf *buf, size_t off,
			    u32 len)
{
	return (struct ib_sge) {
		.addr	= buf->dma + off,
		.length	= len,
		.lkey	= t->pd->local_dma_lkey,
	};
}

static struct ib_rdma_wr vt_wr(u64 id, enum ib_wr_opcode opcode,
			       struct ib_sge *sge, int num_sge)
{
	return (struct ib_rdma_wr) {
		.wr.wr_id	= id,
		.wr.opcode	= opcode,
		.wr.send_flags	= IB_SEND_SIGNALED,
		.wr.sg_list	= sge,
		.wr.num_sge	= num_sge,
	};
}

/* An RDMA READ or WRITE at an offset in the memory region */
static struct ib_rdma_wr vt_rdma(struct vt *t, u64 id, enum ib_wr_opcode opcode,
				 struct ib_sge *sge, int num_sge, s64 off)
{
	struct ib_rdma_wr wr = vt_wr(id, opcode, sge, num_sge);

	wr.remote_addr = t->mr->iova + off;
	wr.rkey = t->mr->rkey;
	return wr;
}

static int vt_send(struct vt_end *end, struct ib_rdma_wr *wr)
{
	return vt_expect_ret("ib_post_send", ib_post_send(end->qp, &wr->wr,
							   NULL), 0);
}

static int vt_recv(struct vt_end *end, u64 id, struct ib_sge *sge, int num_sge)
{
	struct ib_recv_wr wr = {
		.wr_id		= id,
		.sg_list	= sge,
		.num_sge	= num_sge,
	};

	return vt_expect_ret("ib_post_recv", ib_post_recv(end->qp, &wr, NULL),
			     0);
}

static int vt_local_inv(struct vt_end *end, u64 id, u32 key,
			enum ib_wc_status status)
{
	struct ib_rdma_wr wr = vt_wr(id, IB_WR_LOCAL_INV, NULL, 0);

	wr.wr.ex.invalidate_rkey = key;
	return vt_send(end, &wr) ?: vt_expect(end->scq, id, status);
}

static int vt_reg(struct vt_end *end, struct ib_mr *mr, u64 id, int access,
		  enum ib_wc_status status)
{
	struct ib_reg_wr wr = {
		.wr.wr_id	= id,
		.wr.opcode	= IB_WR_REG_MR,
		.wr.send_flags	= IB_SEND_SIGNALED,
		.mr		= mr,
		.key		= mr->rkey,
		.access		= access,
	};
	int ret = ib_post_send(end->qp, &wr.wr, NULL);

	if (ret)
		return vt_fail("IB_WR_REG_MR: %d", ret);
	return vt_expect(end->scq, id, status);
}

static int vt_map_mr(struct vt *t, struct ib_mr *mr)
{
	unsigned int offset = VT_MR_OFFSET;
	struct scatterlist *sg;
	int i, ret;

	sg = kmalloc_objs(*sg, VT_MR_PAGES);
	if (!sg)
		return vt_fail("no memory");

	sg_init_table(sg, VT_MR_PAGES);
	for (i = 0; i < VT_MR_PAGES; i++) {
		sg_dma_address(&sg[i]) = t->dst.dma +
					 (VT_MR_PAGES - 1 - i) * SZ_4K;
		sg_dma_len(&sg[i]) = SZ_4K;
	}
	sg_dma_len(&sg[VT_MR_PAGES - 1]) -= 77;

	ret = ib_map_mr_sg(mr, sg, VT_MR_PAGES, &offset, SZ_4K);
	kfree(sg);
	if (ret != VT_MR_PAGES || mr->length != VT_MR_LEN)
		return vt_fail("ib_map_mr_sg: %d", ret);

	ib_update_fast_reg_key(mr, ib_inc_rkey(mr->rkey));
	return 0;
}

static int vt_reg_mr(struct vt *t, int access)
{
	return vt_map_mr(t, t->mr) ?:
	       vt_reg(&t->b, t->mr, 1000, access, IB_WC_SUCCESS);
}

static int vt_to_init(struct vt *t, struct vt_end *end)
{
	struct ib_qp_attr attr = {
		.qp_state	 = IB_QPS_INIT,
		.port_num	 = 1,
		.qp_access_flags = t->qp_access,
	};

	return vt_expect_ret("INIT", ib_modify_qp(end->qp, &attr, IB_QP_STATE |
			     IB_QP_PKEY_INDEX | IB_QP_PORT |
			     IB_QP_ACCESS_FLAGS), 0);
}

static int vt_to_rtr(struct vt *t, struct vt_end *end, struct vt_end *peer)
{
	struct ib_qp_attr attr = {
		.qp_state		= IB_QPS_RTR,
		.path_mtu		= IB_MTU_1024,
		.dest_qp_num		= peer->qp->qp_num,
		.max_dest_rd_atomic	= 1,
		/* 1.28 ms */
		.min_rnr_timer		= 14,
		.ah_attr.type		= RDMA_AH_ATTR_TYPE_ROCE,
	};

	rdma_ah_set_grh(&attr.ah_attr, NULL, 0, t->gid->index, 64, 0);
	rdma_ah_set_dgid_raw(&attr.ah_attr, (void *)&t->gid->gid);
	rdma_ah_set_port_num(&attr.ah_attr, 1);
	return vt_expect_ret("RTR", ib_modify_qp(end->qp, &attr, IB_QP_STATE |
			     IB_QP_AV | IB_QP_PATH_MTU | IB_QP_DEST_QPN |
			     IB_QP_RQ_PSN | IB_QP_MAX_DEST_RD_ATOMIC |
			     IB_QP_MIN_RNR_TIMER), 0);
}

static int vt_to_rts(struct vt *t, struct vt_end *end)
{
	struct ib_qp_attr attr = {
		.qp_state	= IB_QPS_RTS,
		/* 16.8 ms */
		.timeout	= 12,
		.retry_cnt	= 3,
		.rnr_retry	= t->rnr_retry,
		.max_rd_atomic	= 1,
	};

	return vt_expect_ret("RTS", ib_modify_qp(end->qp, &attr, IB_QP_STATE |
			     IB_QP_SQ_PSN | IB_QP_TIMEOUT | IB_QP_RETRY_CNT |
			     IB_QP_RNR_RETRY | IB_QP_MAX_QP_RD_ATOMIC), 0);
}

static int vt_to_err(struct vt_end *end)
{
	struct ib_qp_attr attr = { .qp_state = IB_QPS_ERR };

	return vt_expect_ret("ERR", ib_modify_qp(end->qp, &attr, IB_QP_STATE),
			     0);
}

static int vt_connect(struct vt *t)
{
	return vt_to_init(t, &t->a) ?: vt_to_init(t, &t->b) ?:
	       vt_to_rtr(t, &t->a, &t->b) ?: vt_to_rtr(t, &t->b, &t->a) ?:
	       vt_to_rts(t, &t->a) ?: vt_to_rts(t, &t->b);
}

/* The tests of what has to work */

static int vt_test_send(struct vt *t)
{
	struct ib_sge from[] = {
		vt_sge(t, &t->src, 1, 7),
		vt_sge(t, &t->src, 4093, 5001),
		vt_sge(t, &t->src, 20003, 1),
	};
	struct ib_sge to[] = {
		vt_sge(t, &t->dst, 3, 2),
		vt_sge(t, &t->dst, 8191, 4999),
		vt_sge(t, &t->dst, 30001, 7),
		vt_sge(t, &t->dst, 40001, 999),
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, from, ARRAY_SIZE(from));
	struct ib_wc wc;
	int ret;

	vt_model_dst(t, 3, 1, 2);
	vt_model_dst(t, 8191, 3, 5);
	vt_model_dst(t, 8196, 4093, 4994);
	vt_model_dst(t, 30001, 4093 + 4994, 7);
	vt_model_dst(t, 40001, 20003, 1);

	ret = vt_recv(&t->b, 2, to, ARRAY_SIZE(to)) ?:
	      vt_send(&t->a, &wr) ?:
	      vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	      vt_expect_wc(t->b.rcq, 2, IB_WC_SUCCESS, &wc);
	if (ret)
		return ret;
	if (wc.byte_len != 5009 || wc.opcode != IB_WC_RECV || wc.wc_flags ||
	    wc.qp != t->b.qp || wc.src_qp != t->a.qp->qp_num)
		return vt_fail("bad receive completion: %u bytes",
			       wc.byte_len);
	return 0;
}

static int vt_test_write(struct vt *t)
{
	struct ib_sge from[] = {
		vt_sge(t, &t->src, 5, 1),
		vt_sge(t, &t->src, 111, 9999),
		vt_sge(t, &t->src, 70001, 3),
		vt_sge(t, &t->src, 80003, 20001),
	};
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	vt_model_mr(t, 17, 5, 1);
	vt_model_mr(t, 18, 111, 9999);
	vt_model_mr(t, 10017, 70001, 3);
	vt_model_mr(t, 10020, 80003, 20001);

	wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, from, ARRAY_SIZE(from), 17);
	return vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	       vt_expect_none(t->b.rcq);
}

static int vt_test_read(struct vt *t)
{
	struct ib_sge to[] = {
		vt_sge(t, &t->src, 9, 4097),
		vt_sge(t, &t->src, 50001, 1),
		vt_sge(t, &t->src, 60003, 30001),
	};
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	vt_model_read(t, 9, 5, 4097);
	vt_model_read(t, 50001, 4102, 1);
	vt_model_read(t, 60003, 4103, 30001);
	wr = vt_rdma(t, 1, IB_WR_RDMA_READ, to, ARRAY_SIZE(to), 5);
	return vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS);
}

/* First and last byte of the memory region, and all of it */
static int vt_test_bounds(struct vt *t)
{
	struct ib_sge first = vt_sge(t, &t->src, 1, 1);
	struct ib_sge last = vt_sge(t, &t->src, 2, 1);
	struct ib_sge all = vt_sge(t, &t->src, 100001, VT_MR_LEN);
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	vt_model_mr(t, 0, 100001, VT_MR_LEN);
	wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &all, 1, 0);
	ret = vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	      vt_compare(t);
	if (ret)
		return ret;

	vt_model_mr(t, 0, 1, 1);
	wr = vt_rdma(t, 2, IB_WR_RDMA_WRITE, &first, 1, 0);
	ret = vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 2, IB_WC_SUCCESS);
	if (ret)
		return ret;

	vt_model_mr(t, VT_MR_LEN - 1, 2, 1);
	wr = vt_rdma(t, 3, IB_WR_RDMA_WRITE, &last, 1, VT_MR_LEN - 1);
	return vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 3, IB_WC_SUCCESS);
}

/* A local key with bounds, as source of a SEND */
static int vt_test_local_mr(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 0, 9001);
	struct ib_sge to = vt_sge(t, &t->src, 123, 9001);
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, IB_ACCESS_LOCAL_WRITE);
	if (ret)
		return ret;

	vt_model_read(t, 123, 3, 9001);
	from.addr = t->mr->iova + 3;
	from.lkey = t->mr->lkey;
	wr = vt_wr(1, IB_WR_SEND, &from, 1);
	return vt_recv(&t->a, 2, &to, 1) ?: vt_send(&t->b, &wr) ?:
	       vt_expect(t->b.scq, 1, IB_WC_SUCCESS) ?:
	       vt_expect(t->a.rcq, 2, IB_WC_SUCCESS);
}

static int vt_expect_imm(struct vt *t, u64 id, enum ib_wc_opcode opcode,
			 u32 imm)
{
	struct ib_wc wc;
	int ret;

	ret = vt_expect_wc(t->b.rcq, id, IB_WC_SUCCESS, &wc);
	if (ret)
		return ret;
	if (wc.opcode != opcode || wc.wc_flags != IB_WC_WITH_IMM ||
	    wc.ex.imm_data != cpu_to_be32(imm))
		return vt_fail("bad completion with immediate data");
	return 0;
}

static int vt_test_imm(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 11, 333);
	struct ib_sge to = vt_sge(t, &t->dst, 1500001, 333);
	struct ib_rdma_wr wr;
	int ret;

	vt_model_dst(t, 1500001, 11, 333);
	wr = vt_wr(1, IB_WR_SEND_WITH_IMM, &from, 1);
	wr.wr.ex.imm_data = cpu_to_be32(0x12345678);
	ret = vt_reg_mr(t, VT_ALL_ACCESS) ?:
	      vt_recv(&t->b, 2, &to, 1) ?: vt_recv(&t->b, 4, NULL, 0) ?:
	      vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	      vt_expect_imm(t, 2, IB_WC_RECV, 0x12345678);
	if (ret)
		return ret;

	vt_model_mr(t, 7, 11, 333);
	wr = vt_rdma(t, 3, IB_WR_RDMA_WRITE_WITH_IMM, &from, 1, 7);
	wr.wr.ex.imm_data = cpu_to_be32(42);
	return vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 3, IB_WC_SUCCESS) ?:
	       vt_expect_imm(t, 4, IB_WC_RECV_RDMA_WITH_IMM, 42);
}

/* No byte moves, so no key matters. */
static int vt_test_empty(struct vt *t)
{
	struct ib_sge none = { .lkey = 0xbad };
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &none, 1);

	wr.rkey = 0xbad;
	return vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS);
}

/* When the SEND has arrived, so has what was written before. */
static int vt_test_order(struct vt *t)
{
	struct ib_sge big = vt_sge(t, &t->src, 3, VT_MR_LEN);
	struct ib_sge small = vt_sge(t, &t->src, 1, 1);
	struct ib_sge to = vt_sge(t, &t->dst, 1600001, 1);
	struct ib_rdma_wr write, send;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS) ?: vt_recv(&t->b, 3, &to, 1);
	if (ret)
		return ret;

	vt_model_mr(t, 0, 3, VT_MR_LEN);
	vt_model_dst(t, 1600001, 1, 1);
	write = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &big, 1, 0);
	write.wr.send_flags = 0;
	send = vt_wr(2, IB_WR_SEND, &small, 1);
	write.wr.next = &send.wr;
	return vt_send(&t->a, &write) ?:
	       vt_expect(t->b.rcq, 3, IB_WC_SUCCESS) ?: vt_compare(t) ?:
	       vt_expect(t->a.scq, 2, IB_WC_SUCCESS) ?:
	       vt_expect_none(t->a.scq);
}

static int vt_test_dma_mr(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 77, 12345);
	struct ib_pd *pd = ib_alloc_pd(t->dev, IB_PD_UNSAFE_GLOBAL_RKEY);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &from, 1);
	int ret;

	if (IS_ERR(pd))
		return vt_fail("ib_alloc_pd: %pe", pd);

	/* It is of another protection domain: that is to be found out. */
	wr.remote_addr = t->dst.dma + 99;
	wr.rkey = pd->unsafe_global_rkey;
	ret = vt_send(&t->a, &wr) ?:
	      vt_expect(t->a.scq, 1, IB_WC_REM_ACCESS_ERR);
	ib_dealloc_pd(pd);
	return ret;
}

static int vt_test_send_inv(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1700001, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND_WITH_INV, &from, 1);
	struct ib_wc wc;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS) ?: vt_recv(&t->b, 2, &to, 1);
	if (ret)
		return ret;

	vt_model_dst(t, 1700001, 1, 10);
	wr.wr.ex.invalidate_rkey = t->mr->rkey;
	ret = vt_send(&t->a, &wr) ?: vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	      vt_expect_wc(t->b.rcq, 2, IB_WC_SUCCESS, &wc);
	if (ret)
		return ret;
	if (wc.wc_flags != IB_WC_WITH_INVALIDATE ||
	    wc.ex.invalidate_rkey != t->mr->rkey)
		return vt_fail("completion does not name the key");

	wr = vt_rdma(t, 3, IB_WR_RDMA_WRITE, &from, 1, 0);
	return vt_send(&t->a, &wr) ?:
	       vt_expect(t->a.scq, 3, IB_WC_REM_ACCESS_ERR);
}

/* The receiver is not ready, but soon enough. */
static int vt_test_rnr_recovery(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1700001, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);
	int ret;

	vt_model_dst(t, 1700001, 1, 10);
	ret = vt_send(&t->a, &wr);
	if (ret)
		return ret;

	msleep(50);
	return vt_expect_none(t->a.scq) ?: vt_recv(&t->b, 2, &to, 1) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_SUCCESS) ?:
	       vt_expect(t->a.scq, 1, IB_WC_SUCCESS);
}

/* Keep the copy engine busy with RDMA WRITEs to the memory region. */
static int vt_start_writes(struct vt *t, int nr)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, VT_MR_LEN);
	struct ib_rdma_wr wr;
	int i, ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	for (i = 0; !ret && i < nr; i++) {
		wr = vt_rdma(t, i, IB_WR_RDMA_WRITE, &from, 1, 0);
		ret = vt_send(&t->a, &wr);
	}
	return ret;
}

static int vt_end_writes(struct vt *t, int first, int nr)
{
	struct ib_wc wc;
	int i, ret;

	for (i = first; i < nr; i++) {
		ret = vt_poll(t->a.scq, &wc);
		if (ret)
			return ret;
		if (wc.wr_id != i)
			return vt_fail("completion out of order");
	}
	return 0;
}

/* Once invalidated, the memory belongs to the CPU. */
static int vt_test_inv_waits(struct vt *t)
{
	int ret;

	ret = vt_start_writes(t, 16) ?:
	      vt_expect(t->a.scq, 0, IB_WC_SUCCESS) ?:
	      vt_local_inv(&t->b, 100, t->mr->rkey, IB_WC_SUCCESS);
	if (ret)
		return ret;

	memset(t->dst.mem, VT_POISON, VT_MR_PAGES * SZ_4K);
	return vt_end_writes(t, 1, 16);
}

/* The same when the owner's queue pair has entered the error state */
static int vt_test_err_waits(struct vt *t)
{
	int ret;

	ret = vt_start_writes(t, 16) ?:
	      vt_expect(t->a.scq, 0, IB_WC_SUCCESS) ?: vt_to_err(&t->b);
	if (ret)
		return ret;

	memset(t->dst.mem, VT_POISON, VT_MR_PAGES * SZ_4K);
	return vt_end_writes(t, 1, 16);
}

/* The tests of what must be refused */

static int vt_refused(struct vt *t, struct ib_rdma_wr *wr,
		      enum ib_wc_status status, enum ib_qp_state peer_state)
{
	return vt_send(&t->a, wr) ?:
	       vt_expect(t->a.scq, wr->wr.wr_id, status) ?:
	       vt_expect_state(&t->a, IB_QPS_ERR) ?:
	       vt_expect_state(&t->b, peer_state);
}

static int vt_refused_rdma(struct vt *t, enum ib_wr_opcode opcode, int access,
			   s64 off, u32 len, u32 key_change)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, len);
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, access);
	if (ret)
		return ret;

	wr = vt_rdma(t, 1, opcode, &sge, 1, off);
	wr.rkey ^= key_change;
	return vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

static int vt_test_bad_rkey(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_WRITE, VT_ALL_ACCESS, 0, 10,
			       0x100000);
}

static int vt_test_stale_rkey(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_WRITE, VT_ALL_ACCESS, 0, 10, 1);
}

static int vt_test_local_key_as_rkey(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &sge, 1);

	wr.remote_addr = t->dst.dma;
	wr.rkey = t->pd->local_dma_lkey;
	return vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

static int vt_test_after_end(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_WRITE, VT_ALL_ACCESS,
			       VT_MR_LEN - 9, 10, 0);
}

static int vt_test_before_start(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_READ, VT_ALL_ACCESS, -1, 10, 0);
}

static int vt_test_no_remote_write(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_WRITE,
			       VT_ALL_ACCESS & ~IB_ACCESS_REMOTE_WRITE, 0, 10,
			       0);
}

static int vt_test_no_remote_read(struct vt *t)
{
	return vt_refused_rdma(t, IB_WR_RDMA_READ,
			       VT_ALL_ACCESS & ~IB_ACCESS_REMOTE_READ, 0, 10,
			       0);
}

static int vt_test_qp_no_access(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	wr = vt_rdma(t, 1, IB_WR_RDMA_READ, &sge, 1, 0);
	return vt_refused(t, &wr, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR);
}

static int vt_test_invalidated(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS) ?:
	      vt_local_inv(&t->b, 2, t->mr->rkey, IB_WC_SUCCESS);
	if (ret)
		return ret;

	wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &sge, 1, 0);
	return vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

/* A region of a protection domain that is not the queue pairs' */
static int vt_test_wrong_pd(struct vt *t)
{
	struct ib_mr *mr = ib_alloc_mr(t->other_pd, IB_MR_TYPE_MEM_REG,
				       VT_MR_PAGES);
	int ret;

	if (IS_ERR(mr))
		return vt_fail("ib_alloc_mr: %pe", mr);

	ret = vt_map_mr(t, mr) ?:
	      vt_reg(&t->b, mr, 1, VT_ALL_ACCESS, IB_WC_MW_BIND_ERR);
	ib_dereg_mr(mr);
	return ret;
}

static int vt_test_reg_twice(struct vt *t)
{
	return vt_reg_mr(t, VT_ALL_ACCESS) ?:
	       vt_reg(&t->b, t->mr, 1, VT_ALL_ACCESS, IB_WC_MW_BIND_ERR) ?:
	       vt_expect_state(&t->b, IB_QPS_ERR);
}

static int vt_test_bad_inv(struct vt *t)
{
	return vt_reg_mr(t, VT_ALL_ACCESS) ?:
	       vt_local_inv(&t->b, 2, t->mr->rkey ^ 1, IB_WC_MW_BIND_ERR);
}

static int vt_test_bad_send_inv(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND_WITH_INV, &from, 1);

	wr.wr.ex.invalidate_rkey = 0xbad00;
	return vt_recv(&t->b, 2, &to, 1) ?:
	       vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_LOC_ACCESS_ERR);
}

/* The own side is at fault: the peer does not even notice. */
static int vt_test_bad_lkey(struct vt *t)
{
	struct ib_sge sge[] = {
		vt_sge(t, &t->src, 1, 10),
		vt_sge(t, &t->src, 1, 10),
	};
	struct ib_rdma_wr wr;
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	sge[1].lkey = 0x12345600;
	wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, sge, ARRAY_SIZE(sge), 0);
	return vt_refused(t, &wr, IB_WC_LOC_PROT_ERR, IB_QPS_RTS);
}

static int vt_test_local_bounds(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 0, 11);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &sge, 1);
	int ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	if (ret)
		return ret;

	sge.addr = t->mr->iova + t->mr->length - 10;
	sge.lkey = t->mr->lkey;
	return vt_send(&t->b, &wr) ?:
	       vt_expect(t->b.scq, 1, IB_WC_LOC_PROT_ERR) ?:
	       vt_expect_state(&t->b, IB_QPS_ERR);
}

static int vt_test_no_local_write(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = { .length = 10 };
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);
	int ret;

	ret = vt_reg_mr(t, IB_ACCESS_REMOTE_READ);
	if (ret)
		return ret;

	to.addr = t->mr->iova;
	to.lkey = t->mr->lkey;
	return vt_recv(&t->b, 2, &to, 1) ?:
	       vt_refused(t, &wr, IB_WC_REM_OP_ERR, IB_QPS_ERR) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_LOC_PROT_ERR);
}

static int vt_test_too_long(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_sge to[] = {
		vt_sge(t, &t->dst, 1, 10),
		vt_sge(t, &t->dst, 101, 10),
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	return vt_recv(&t->b, 2, to, ARRAY_SIZE(to)) ?:
	       vt_refused(t, &wr, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_LOC_LEN_ERR);
}

static int vt_test_rnr(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	return vt_refused(t, &wr, IB_WC_RNR_RETRY_EXC_ERR, IB_QPS_RTS);
}

static int vt_test_peer_in_error(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	return vt_to_err(&t->b) ?:
	       vt_refused(t, &wr, IB_WC_RETRY_EXC_ERR, IB_QPS_ERR);
}

static int vt_test_peer_gone(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	ib_destroy_qp(t->b.qp);
	t->b.qp = NULL;
	return vt_send(&t->a, &wr) ?:
	       vt_expect(t->a.scq, 1, IB_WC_RETRY_EXC_ERR);
}

/* After an error nothing is executed, and all completes in order. */
static int vt_test_flush(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_rdma_wr bad, good;
	int i, ret;

	ret = vt_reg_mr(t, VT_ALL_ACCESS) ?: vt_recv(&t->a, 10, &to, 1) ?:
	      vt_recv(&t->a, 11, &to, 1);
	if (ret)
		return ret;

	bad = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &sge, 1, 0);
	bad.rkey ^= 1;
	bad.wr.send_flags = 0;
	good = vt_rdma(t, 2, IB_WR_RDMA_WRITE, &sge, 1, 0);
	good.wr.send_flags = 0;
	bad.wr.next = &good.wr;
	ret = vt_send(&t->a, &bad) ?:
	      vt_expect(t->a.scq, 1, IB_WC_REM_ACCESS_ERR) ?:
	      vt_expect(t->a.scq, 2, IB_WC_WR_FLUSH_ERR);
	for (i = 3; !ret && i < 6; i++) {
		good.wr.wr_id = i;
		ret = vt_send(&t->a, &good) ?:
		      vt_expect(t->a.scq, i, IB_WC_WR_FLUSH_ERR);
	}
	return ret ?: vt_expect(t->a.rcq, 10, IB_WC_WR_FLUSH_ERR) ?:
	       vt_expect(t->a.rcq, 11, IB_WC_WR_FLUSH_ERR) ?:
	       vt_recv(&t->a, 12, &to, 1) ?:
	       vt_expect(t->a.rcq, 12, IB_WC_WR_FLUSH_ERR);
}

static int vt_test_drain(struct vt *t)
{
	vt_model_mr(t, 0, 1, VT_MR_LEN);
	return vt_start_writes(t, 8) ?:
	       vt_expect(t->a.scq, 0, IB_WC_SUCCESS) ?: vt_to_err(&t->a) ?:
	       vt_end_writes(t, 1, 8);
}

static int vt_test_states(struct vt *t)
{
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, NULL, 0);
	struct ib_qp_attr attr = { .qp_state = IB_QPS_RTS };
	struct ib_recv_wr recv = { };

	/* This test's queue pairs are not connected yet. */
	return vt_expect_ret("RESET to RTS",
			     ib_modify_qp(t->a.qp, &attr, IB_QP_STATE),
			     -EINVAL) ?:
	       vt_expect_ret("receive in RESET",
			     ib_post_recv(t->a.qp, &recv, NULL), -EINVAL) ?:
	       vt_to_init(t, &t->a) ?:
	       vt_expect_ret("receive in INIT",
			     ib_post_recv(t->a.qp, &recv, NULL), 0) ?:
	       vt_expect_ret("send in INIT",
			     ib_post_send(t->a.qp, &wr.wr, NULL), -EINVAL) ?:
	       vt_expect_ret("INIT to RTS",
			     ib_modify_qp(t->a.qp, &attr, IB_QP_STATE),
			     -EINVAL);
}

static int vt_test_queue_full(struct vt *t)
{
	struct ib_sge sge = vt_sge(t, &t->src, 1, 1);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &sge, 1);
	struct ib_recv_wr recv = { };
	int i, ret = 0;

	/* Nothing leaves the queue, because the receiver is not ready. */
	for (i = 0; !ret && i < VT_QUEUE; i++)
		ret = vt_send(&t->a, &wr) ?: vt_recv(&t->a, 2, NULL, 0);
	return ret ?:
	       vt_expect_ret("send", ib_post_send(t->a.qp, &wr.wr, NULL),
			     -ENOMEM) ?:
	       vt_expect_ret("receive", ib_post_recv(t->a.qp, &recv, NULL),
			     -ENOMEM);
}

static int vt_test_bad_wrs(struct vt *t)
{
	struct ib_sge sge[VT_SGES + 1] = { };
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, sge, VT_SGES + 1);
	int ret;

	ret = vt_expect_ret("too many SGEs",
			    ib_post_send(t->a.qp, &wr.wr, NULL), -EINVAL);
	wr = vt_wr(1, IB_WR_SEND, sge, 1);
	wr.wr.send_flags = IB_SEND_INLINE;
	ret = ret ?: vt_expect_ret("inline data",
				   ib_post_send(t->a.qp, &wr.wr, NULL),
				   -EINVAL);
	wr = vt_wr(1, IB_WR_ATOMIC_FETCH_AND_ADD, sge, 1);
	return ret ?: vt_expect_ret("atomic",
				    ib_post_send(t->a.qp, &wr.wr, NULL),
				    -EOPNOTSUPP);
}

/* A region has as many pages as it was allocated with. */
static int vt_test_mr_pages(struct vt *t)
{
	unsigned int offset = 0;
	struct scatterlist sg[3];
	struct ib_mr *mr;
	int i, ret;

	mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG, VT_MAX_MR_PAGES + 1);
	ret = vt_expect_ret("too many pages", PTR_ERR_OR_ZERO(mr), -EINVAL);
	if (ret)
		return ret;

	mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG, 2);
	if (IS_ERR(mr))
		return vt_fail("ib_alloc_mr: %pe", mr);

	sg_init_table(sg, ARRAY_SIZE(sg));
	for (i = 0; i < ARRAY_SIZE(sg); i++) {
		sg_dma_address(&sg[i]) = t->dst.dma + 2 * i * SZ_4K;
		sg_dma_len(&sg[i]) = SZ_4K;
	}
	ret = vt_expect_ret("one page too many",
			    ib_map_mr_sg(mr, sg, 3, NULL, SZ_4K), 2);
	sg_dma_len(&sg[0]) = 3 * SZ_4K;
	ret = ret ?: vt_expect_ret("one segment too long",
				   ib_map_mr_sg(mr, sg, 1, &offset, SZ_4K), 0);
	if (!ret && !offset)
		ret = vt_fail("nothing of the segment is mapped");
	ib_dereg_mr(mr);
	return ret;
}

static int vt_srq_recv(struct vt *t, u64 id, struct ib_sge *sge, int num_sge,
		       int expected)
{
	struct ib_recv_wr wr = {
		.wr_id		= id,
		.sg_list	= sge,
		.num_sge	= num_sge,
	};

	return vt_expect_ret("ib_post_srq_recv",
			     ib_post_srq_recv(t->srq, &wr, NULL), expected);
}

static int vt_test_srq(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 5, 5001);
	struct ib_sge to[] = {
		vt_sge(t, &t->dst, 3, 4999),
		vt_sge(t, &t->dst, 8191, 2),
		vt_sge(t, &t->dst, 20001, 5001),
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_model_dst(t, 3, 5, 4999);
	vt_model_dst(t, 8191, 5004, 2);
	vt_model_dst(t, 20001, 5, 5001);
	return vt_srq_recv(t, 2, to, 2, 0) ?: vt_srq_recv(t, 3, to + 2, 1, 0) ?:
	       vt_srq_recv(t, 4, to, 1, 0) ?:
	       vt_send(&t->a, &wr) ?: vt_expect(t->b.rcq, 2, IB_WC_SUCCESS) ?:
	       vt_send(&t->a, &wr) ?: vt_expect(t->b.rcq, 3, IB_WC_SUCCESS) ?:
	       vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	       vt_expect(t->a.scq, 1, IB_WC_SUCCESS) ?:
	       vt_expect_none(t->b.rcq);
}

static int vt_wait_last_wqe(struct vt *t)
{
	if (wait_for_completion_timeout(&t->last_wqe, HZ))
		return 0;
	return vt_fail("no \"last WQE reached\"");
}

/* What no queue pair has taken stays in the shared queue. */
static int vt_test_srq_err(struct vt *t)
{
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_recv_wr recv = { };
	int ret;

	ret = vt_srq_recv(t, 2, &to, 1, 0) ?:
	      vt_expect_ret("receive of a queue pair",
			    ib_post_recv(t->b.qp, &recv, NULL), -EINVAL) ?:
	      vt_to_err(&t->b) ?: vt_wait_last_wqe(t) ?:
	      vt_expect_none(t->b.rcq);
	if (!ret && completion_done(&t->last_wqe))
		ret = vt_fail("another \"last WQE reached\"");
	return ret;
}

static int vt_test_srq_late(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1900001, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);
	int ret = vt_send(&t->a, &wr);

	if (ret)
		return ret;

	vt_model_dst(t, 1900001, 1, 10);
	msleep(50);
	return vt_expect_none(t->a.scq) ?: vt_srq_recv(t, 2, &to, 1, 0) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_SUCCESS) ?:
	       vt_expect(t->a.scq, 1, IB_WC_SUCCESS);
}

static int vt_test_srq_too_long(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 20);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	return vt_srq_recv(t, 2, &to, 1, 0) ?: vt_srq_recv(t, 3, &to, 1, 0) ?:
	       vt_refused(t, &wr, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR) ?:
	       vt_expect(t->b.rcq, 2, IB_WC_LOC_LEN_ERR) ?:
	       vt_wait_last_wqe(t) ?: vt_expect_none(t->b.rcq);
}

static int vt_test_srq_full(struct vt *t)
{
	struct ib_sge sge[VT_SGES + 1] = { };
	int i, ret;

	ret = vt_srq_recv(t, 1, sge, VT_SGES + 1, -EINVAL);
	for (i = 0; !ret && i < VT_QUEUE; i++)
		ret = vt_srq_recv(t, i, NULL, 0, 0);
	return ret ?: vt_srq_recv(t, i, NULL, 0, -ENOMEM);
}

/* --- the RDMA core's API for transfers, on a queue pair with MRs or without --- */

/* MRs that a range takes; without registrations it is one work request. */
static u32 vt_rw_ops(struct vt *t, u64 addr, u64 len)
{
	u32 max = min(t->dev->attrs.max_fast_reg_page_list_len, 256U);

	if (!t->rw_mrs)
		return 1;
	return DIV_ROUND_UP(PFN_UP(offset_in_page(addr) + len), max);
}

static int vt_rw_post(struct vt *t, struct rdma_rw_ctx *ctx, u32 nr_ops)
{
	struct ib_cqe cqe;
	int ret;

	if (ctx->nr_ops != nr_ops)
		return vt_fail("%u operations, expected %u", ctx->nr_ops,
			       nr_ops);

	ret = rdma_rw_ctx_post(ctx, t->a.qp, 1, &cqe, NULL);
	return vt_expect_ret("rdma_rw_ctx_post", ret, 0) ?:
	       vt_expect(t->a.scq, (uintptr_t)&cqe, IB_WC_SUCCESS);
}

static int vt_rw_end(struct vt *t, int ret)
{
	if (!ret && t->a.qp->mrs_used)
		ret = vt_fail("%d MRs are not back", t->a.qp->mrs_used);
	return ret;
}

static int vt_rw_sg(struct vt *t, struct scatterlist *sg, u32 offset,
		    enum dma_data_direction dir)
{
	u64 len = VT_CHUNKS * VT_CHUNK_LEN - offset;
	struct rdma_rw_ctx ctx;
	int ret;

	ret = rdma_rw_ctx_init(&ctx, t->a.qp, 1, sg, VT_CHUNKS, offset,
			       t->mr->iova, t->mr->rkey, dir);
	if (ret < 0)
		return vt_fail("rdma_rw_ctx_init: %d", ret);

	/* Segments are whole pages, so the number of operations is the same. */
	ret = vt_rw_post(t, &ctx, t->rw_mrs ? vt_rw_ops(t, offset, len) :
					      ctx.nr_ops);
	rdma_rw_ctx_destroy(&ctx, t->a.qp, 1, sg, VT_CHUNKS, dir);
	return vt_rw_end(t, ret);
}

static int vt_rw_bvec(struct vt *t, struct scatterlist *sg, u32 offset,
		      enum dma_data_direction dir)
{
	struct bvec_iter iter = { .bi_size = VT_CHUNKS * VT_CHUNK_LEN };
	struct bio_vec bvecs[VT_CHUNKS];
	struct rdma_rw_ctx ctx;
	int i, ret;

	for (i = 0; i < VT_CHUNKS; i++)
		bvec_set_page(&bvecs[i], sg_page(&sg[i]), sg[i].length,
			      sg[i].offset);
	bvec_iter_advance(bvecs, &iter, offset);

	ret = rdma_rw_ctx_init_bvec(&ctx, t->a.qp, 1, bvecs, VT_CHUNKS, iter,
				    t->mr->iova, t->mr->rkey, dir);
	if (ret < 0)
		return vt_fail("rdma_rw_ctx_init_bvec: %d", ret);

	ret = vt_rw_post(t, &ctx, ctx.nr_ops);
	rdma_rw_ctx_destroy_bvec(&ctx, t->a.qp, 1, bvecs, VT_CHUNKS, dir);
	return vt_rw_end(t, ret);
}

typedef int vt_rw_fn(struct vt *t, struct scatterlist *sg, u32 offset,
		     enum dma_data_direction dir);

/* Write from an odd offset in segments of several pages, and read it back. */
static int vt_rw_chunks(struct vt *t, vt_rw_fn *rw, struct scatterlist *sg,
			u8 **chunk)
{
	const u32 offset = 1357;
	int i, ret;

	for (i = 0; i < VT_CHUNKS; i++)
		memcpy(chunk[i], t->src.model + i * VT_CHUNK_LEN, VT_CHUNK_LEN);
	vt_model_mr(t, 0, offset, VT_CHUNKS * VT_CHUNK_LEN - offset);
	ret = rw(t, sg, offset, DMA_TO_DEVICE) ?: vt_compare(t);
	if (ret)
		return ret;

	for (i = 0; i < VT_CHUNKS; i++)
		memset(chunk[i] + (i ? 0 : offset), 0,
		       VT_CHUNK_LEN - (i ? 0 : offset));
	ret = rw(t, sg, offset, DMA_FROM_DEVICE);
	for (i = 0; !ret && i < VT_CHUNKS; i++)
		if (memcmp(chunk[i], t->src.model + i * VT_CHUNK_LEN,
			   VT_CHUNK_LEN))
			ret = vt_fail("segment %d is not what was written", i);
	return ret;
}

static int vt_rw_segments(struct vt *t, vt_rw_fn *rw)
{
	struct scatterlist sg[VT_CHUNKS];
	u8 *chunk[VT_CHUNKS] = { };
	int i, ret;

	sg_init_table(sg, VT_CHUNKS);
	ret = vt_reg_mr(t, VT_ALL_ACCESS);
	for (i = 0; !ret && i < VT_CHUNKS; i++) {
		chunk[i] = alloc_pages_exact(VT_CHUNK_LEN, GFP_KERNEL);
		if (!chunk[i])
			ret = vt_fail("no memory");
		else
			sg_set_buf(&sg[i], chunk[i], VT_CHUNK_LEN);
	}
	ret = ret ?: vt_rw_chunks(t, rw, sg, chunk);
	for (i = 0; i < VT_CHUNKS; i++)
		if (chunk[i])
			free_pages_exact(chunk[i], VT_CHUNK_LEN);
	return ret;
}

static int vt_test_rw_sg(struct vt *t)
{
	return vt_rw_segments(t, vt_rw_sg);
}

static int vt_test_rw_bvec(struct vt *t)
{
	return vt_rw_segments(t, vt_rw_bvec);
}

#ifdef VT_DMA_ADDR	/* see Makefile */
static int vt_rw_addr(struct vt *t, u32 off, u32 len,
		      enum dma_data_direction dir)
{
	dma_addr_t addr = t->src.dma + off;
	struct rdma_rw_ctx ctx;
	int ret;

	ret = rdma_rw_ctx_init_addr(&ctx, t->a.qp, 1, addr, len, t->mr->iova,
				    t->mr->rkey, dir);
	if (ret < 0)
		return vt_fail("rdma_rw_ctx_init_addr: %d", ret);

	ret = vt_rw_post(t, &ctx, vt_rw_ops(t, addr, len));
	rdma_rw_ctx_destroy(&ctx, t->a.qp, 1, NULL, 0, dir);
	return vt_rw_end(t, ret);
}

static int vt_test_rw_addr(struct vt *t)
{
	static const struct { u32 off, len; } ranges[] = {
		{ 1, 1 }, { SZ_4K - 1, 2 }, { SZ_4K, SZ_64K },
		{ SZ_4K, SZ_64K + 1 }, { SZ_4K - 1, SZ_64K + 1 },
		{ 12345, VT_MR_LEN }, { 0, VT_MR_LEN },
	};
	int i, ret = vt_reg_mr(t, VT_ALL_ACCESS);

	for (i = 0; !ret && i < ARRAY_SIZE(ranges); i++) {
		vt_model_mr(t, 0, ranges[i].off, ranges[i].len);
		ret = vt_rw_addr(t, ranges[i].off, ranges[i].len,
				 DMA_TO_DEVICE) ?: vt_compare(t);
		if (ret)
			break;
		/* Elsewhere, or nobody would see whether it was read. */
		vt_model_read(t, ranges[i].off + 7, 0, ranges[i].len);
		ret = vt_rw_addr(t, ranges[i].off + 7, ranges[i].len,
				 DMA_FROM_DEVICE) ?: vt_compare(t);
	}
	return ret;
}
#endif

/* Everything goes away while copies are running, in the wrong order. */
static int vt_test_destroy(struct vt *t)
{
	int ret = vt_start_writes(t, 32) ?:
		  vt_expect(t->a.scq, 0, IB_WC_SUCCESS);

	ib_dereg_mr(t->mr);
	t->mr = NULL;
	memcpy(t->dst.mem, t->dst.model, VT_BUF_SIZE);
	ib_destroy_qp(t->b.qp);
	t->b.qp = NULL;
	ib_destroy_qp(t->a.qp);
	t->a.qp = NULL;
	msleep(50);
	return ret;
}

static const struct vt_case {
	const char	*name;
	int		(*run)(struct vt *t);
	bool		unconnected;
	bool		srq;
	bool		rw;
	int		qp_access;
	u8		rnr_retry;
} vt_cases[] = {
	{ "SEND from and to several odd SGEs", vt_test_send },
	{ "RDMA WRITE from several odd SGEs", vt_test_write },
	{ "RDMA READ to several odd SGEs", vt_test_read },
	{ "RDMA WRITE up to the bounds", vt_test_bounds },
	{ "SEND from a registered region", vt_test_local_mr },
	{ "immediate data", vt_test_imm },
	{ "empty RDMA WRITE", vt_test_empty },
	{ "SEND does not overtake RDMA WRITE", vt_test_order },
	{ "SEND with invalidate", vt_test_send_inv },
	{ "receiver ready late", vt_test_rnr_recovery, .rnr_retry = 7 },
	{ "invalidating waits for RDMA WRITE", vt_test_inv_waits },
	{ "error state waits for RDMA WRITE", vt_test_err_waits },
	{ "bad rkey", vt_test_bad_rkey },
	{ "stale rkey", vt_test_stale_rkey },
	{ "local DMA lkey as rkey", vt_test_local_key_as_rkey },
	{ "global rkey of another PD", vt_test_dma_mr },
	{ "RDMA WRITE past the end", vt_test_after_end },
	{ "RDMA READ before the start", vt_test_before_start },
	{ "no remote write access", vt_test_no_remote_write },
	{ "no remote read access", vt_test_no_remote_read },
	{ "no remote read access of the queue pair", vt_test_qp_no_access,
	  .qp_access = IB_ACCESS_REMOTE_WRITE },
	{ "invalidated region", vt_test_invalidated },
	{ "registering a region of another PD", vt_test_wrong_pd },
	{ "registering a region twice", vt_test_reg_twice },
	{ "invalidating by a stale key", vt_test_bad_inv },
	{ "SEND invalidating a bad key", vt_test_bad_send_inv },
	{ "bad lkey", vt_test_bad_lkey },
	{ "local bounds", vt_test_local_bounds },
	{ "receive without local write access", vt_test_no_local_write },
	{ "message longer than the receive", vt_test_too_long },
	{ "receiver not ready", vt_test_rnr, .rnr_retry = 2 },
	{ "peer in error state", vt_test_peer_in_error },
	{ "peer gone", vt_test_peer_gone },
	{ "flushed in order after an error", vt_test_flush },
	{ "error state while copying", vt_test_drain },
	{ "states", vt_test_states, .unconnected = true },
	{ "queues full", vt_test_queue_full, .rnr_retry = 7 },
	{ "malformed WRs", vt_test_bad_wrs },
	{ "pages of a region", vt_test_mr_pages },
	{ "shared receive queue", vt_test_srq, .srq = true },
	{ "shared receive queue, error state", vt_test_srq_err, .srq = true },
	{ "shared receive queue, receiver ready late", vt_test_srq_late,
	  .srq = true, .rnr_retry = 7 },
	{ "shared receive queue empty", vt_test_rnr, .srq = true,
	  .rnr_retry = 2 },
	{ "shared receive queue, message too long", vt_test_srq_too_long,
	  .srq = true },
	{ "shared receive queue full", vt_test_srq_full, .srq = true },
	{ "transfers of long segments", vt_test_rw_sg, .rw = true },
	{ "transfers of long bio_vecs", vt_test_rw_bvec, .rw = true },
#ifdef VT_DMA_ADDR
	{ "transfers of ranges", vt_test_rw_addr, .rw = true },
#endif
	{ "destroy while copying", vt_test_destroy },
};

static void vt_free_end(struct vt_end *end)
{
	if (end->qp)
		ib_destroy_qp(end->qp);
	if (!IS_ERR_OR_NULL(end->rcq))
		ib_free_cq(end->rcq);
	if (!IS_ERR_OR_NULL(end->scq))
		ib_free_cq(end->scq);
	*end = (struct vt_end) { };
}

static void vt_qp_event(struct ib_event *event, void *context)
{
	struct vt *t = context;

	if (event->event == IB_EVENT_QP_LAST_WQE_REACHED)
		complete(&t->last_wqe);
}

static int vt_alloc_srq(struct vt *t)
{
	struct ib_srq_init_attr init = {
		.attr.max_wr	= VT_QUEUE,
		.attr.max_sge	= VT_SGES,
		.srq_type	= IB_SRQT_BASIC,
	};
	struct ib_srq *srq = ib_create_srq(t->pd, &init);

	if (IS_ERR(srq))
		return vt_fail("ib_create_srq: %pe", srq);

	init_completion(&t->last_wqe);
	t->srq = srq;
	return 0;
}

static int vt_alloc_end(struct vt *t, struct vt_end *end, struct ib_srq *srq,
			u32 rdma_ctxs)
{
	struct ib_qp_init_attr init = {
		.cap.max_send_wr	= VT_QUEUE,
		.cap.max_recv_wr	= VT_QUEUE,
		.cap.max_send_sge	= VT_SGES,
		.cap.max_rdma_ctxs	= rdma_ctxs,
		.cap.max_recv_sge	= VT_SGES,
		.sq_sig_type		= IB_SIGNAL_REQ_WR,
		.qp_type		= IB_QPT_RC,
		.port_num		= 1,
		.srq			= srq,
		.event_handler		= vt_qp_event,
		.qp_context		= t,
	};
	struct ib_qp *qp;

	end->scq = ib_alloc_cq(t->dev, NULL, VT_QUEUE, 0, IB_POLL_DIRECT);
	end->rcq = ib_alloc_cq(t->dev, NULL, VT_QUEUE, 0, IB_POLL_DIRECT);
	if (IS_ERR(end->scq) || IS_ERR(end->rcq))
		return vt_fail("ib_alloc_cq failed");

	init.send_cq = end->scq;
	init.recv_cq = end->rcq;
	qp = ib_create_qp(t->pd, &init);
	if (IS_ERR(qp))
		return vt_fail("ib_create_qp: %pe", qp);

	end->qp = qp;
	return 0;
}

static int vt_setup_case(struct vt *t, const struct vt_case *c)
{
	size_t i;

	/* 251 is prime: no page of the source is like another. */
	for (i = 0; i < VT_BUF_SIZE; i++)
		t->src.model[i] = i % 251;
	memcpy(t->src.mem, t->src.model, VT_BUF_SIZE);
	memset(t->dst.model, VT_POISON, VT_BUF_SIZE);
	memcpy(t->dst.mem, t->dst.model, VT_BUF_SIZE);

	t->rnr_retry = c->rnr_retry;
	t->qp_access = c->qp_access ?: IB_ACCESS_REMOTE_WRITE |
				       IB_ACCESS_REMOTE_READ;
	t->mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG, VT_MR_PAGES);
	if (IS_ERR(t->mr)) {
		t->mr = NULL;
		return vt_fail("ib_alloc_mr failed");
	}
	return (c->srq ? vt_alloc_srq(t) : 0) ?:
	       vt_alloc_end(t, &t->a, NULL, c->rw ? VT_RW_CTXS : 0) ?:
	       vt_alloc_end(t, &t->b, t->srq, 0) ?:
	       (c->unconnected ? 0 : vt_connect(t));
}

static void vt_run_case(struct vt *t, int nr)
{
	const struct vt_case *c = &vt_cases[nr];
	int ret;

	ret = vt_setup_case(t, c);
	t->rw_mrs = !ret && !list_empty(&t->a.qp->rdma_mrs);
	ret = ret ?: c->run(t) ?: vt_compare(t);
	vt_free_end(&t->a);
	vt_free_end(&t->b);
	if (t->srq)
		ib_destroy_srq(t->srq);
	t->srq = NULL;
	if (t->mr)
		ib_dereg_mr(t->mr);
	vt_print("%sok %d %s\n", ret ? "not " : "", nr + 1, c->name);
}

static int vt_alloc_buf(struct vt *t, struct vt_buf *buf)
{
	buf->model = vmalloc(VT_BUF_SIZE);
	buf->mem = dma_alloc_coherent(t->dev->dma_device, VT_BUF_SIZE,
				      &buf->dma, GFP_KERNEL);
	return buf->model && buf->mem ? 0 : vt_fail("no memory");
}

static void vt_free_buf(struct vt *t, struct vt_buf *buf)
{
	if (buf->mem)
		dma_free_coherent(t->dev->dma_device, VT_BUF_SIZE, buf->mem,
				  buf->dma);
	vfree(buf->model);
}

static const struct ib_gid_attr *vt_find_gid(struct ib_device *dev)
{
	const struct ib_gid_attr *attr;
	int i;

	for (i = 0; i < dev->port_data[1].immutable.gid_tbl_len; i++) {
		attr = rdma_get_gid_attr(dev, 1, i);
		if (IS_ERR(attr))
			continue;
		/* The address of an IPv4 network is there to be resolved. */
		if (attr->gid_type == IB_GID_TYPE_ROCE_UDP_ENCAP &&
		    rdma_gid_attr_network_type(attr) == RDMA_NETWORK_IPV4)
			return attr;
		rdma_put_gid_attr(attr);
	}
	return NULL;
}

static int vt_setup(struct vt *t)
{
	int ret;

	ret = vt_alloc_buf(t, &t->src) ?: vt_alloc_buf(t, &t->dst);
	if (ret)
		return ret;

	t->gid = vt_find_gid(t->dev);
	if (!t->gid)
		return vt_fail("no IPv4 address on its network device");

	t->pd = ib_alloc_pd(t->dev, 0);
	t->other_pd = ib_alloc_pd(t->dev, 0);
	if (IS_ERR(t->pd) || IS_ERR(t->other_pd))
		return vt_fail("ib_alloc_pd failed");
	return 0;
}

static void vt_teardown(struct vt *t)
{
	if (!IS_ERR_OR_NULL(t->other_pd))
		ib_dealloc_pd(t->other_pd);
	if (!IS_ERR_OR_NULL(t->pd))
		ib_dealloc_pd(t->pd);
	if (t->gid)
		rdma_put_gid_attr(t->gid);
	vt_free_buf(t, &t->dst);
	vt_free_buf(t, &t->src);
}

static int vt_add(struct ib_device *dev)
{
	struct vt t = { .dev = dev };
	int i;

	if (strcmp(dev_name(&dev->dev), device))
		return 0;

	vt_log_len = 0;
	vt_print("KTAP version 1\n1..%zu\n", ARRAY_SIZE(vt_cases));
	if (vt_setup(&t))
		vt_print("Bail out!\n");
	else
		for (i = 0; i < ARRAY_SIZE(vt_cases); i++)
			vt_run_case(&t, i);
	vt_teardown(&t);
	return 0;
}

static void vt_remove(struct ib_device *dev, void *data)
{
}

static struct ib_client vt_client = {
	.name	= KBUILD_MODNAME,
	.add	= vt_add,
	.remove	= vt_remove,
};

static int __init vt_init(void)
{
	int ret;

	vt_log = vzalloc(VT_LOG_SIZE);
	if (!vt_log)
		return -ENOMEM;

	ret = ib_register_client(&vt_client);
	if (ret)
		goto free_log;

	/* From here on nothing is to be tested any more. */
	ib_unregister_client(&vt_client);
	vt_blob.data = vt_log;
	vt_blob.size = vt_log_len;
	vt_file = debugfs_create_blob(KBUILD_MODNAME, 0400, NULL, &vt_blob);
	return 0;

free_log:
	vfree(vt_log);
	return ret;
}
module_init(vt_init);

static void __exit vt_exit(void)
{
	debugfs_remove(vt_file);
	vfree(vt_log);
}
module_exit(vt_exit);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("Tests of a loopback RDMA device's verbs (for testing only)");
MODULE_LICENSE("GPL");
