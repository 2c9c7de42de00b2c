// SPDX-License-Identifier: GPL-2.0
/*
 * Verbs tests of an RDMA device that loops back, and of what it must refuse.
 * KUnit runs them when this module is loaded, on the device that the parameter
 * names.
 *
 * Each test has two fresh queue pairs connected to each other. Everything is
 * sent from one buffer into another one. A model of the latter is written by
 * the CPU, and after each test all bytes of both are compared: those that had
 * to arrive, and those that had to stay as they were.
 */
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
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
	struct kunit			*test;
	struct ib_device		*dev;
	const struct ib_gid_attr	*gid;
	struct ib_pd			*pd;
	struct ib_pd			*other_pd;
	struct vt_buf			src;
	struct vt_buf			dst;
	struct vt_end			a;
	struct vt_end			b;
	struct ib_mr			*mr;
	struct ib_mr			*other_mr;
	struct ib_srq			*srq;
	struct completion		last_wqe;
	struct ib_cqe			rw_cqe;
	u32				rw_ctxs;
	bool				rw_mrs;
	u8				rnr_retry;
	int				qp_access;
};

/* Wait for a completion: 1, 0 if there is none, or an error */
static int vt_wait(struct ib_cq *cq, struct ib_wc *wc)
{
	ktime_t end = ktime_add_ms(ktime_get(), VT_TIMEOUT_MS);
	int ret;

	do {
		ret = ib_poll_cq(cq, 1, wc);
		if (ret)
			return ret;
		usleep_range(100, 200);
	} while (ktime_before(ktime_get(), end));

	return 0;
}

static void vt_check_wc(struct vt *t, int waited, const struct ib_wc *wc,
			u64 id, enum ib_wc_status status)
{
	KUNIT_ASSERT_EQ_MSG(t->test, waited, 1, "no completion of %llu", id);
	KUNIT_ASSERT_EQ(t->test, wc->wr_id, id);
	KUNIT_ASSERT_EQ_MSG(t->test, wc->status, status, "%llu: %s, expected %s",
			    id, ib_wc_status_msg(wc->status),
			    ib_wc_status_msg(status));
}

static struct ib_wc vt_expect(struct vt *t, struct ib_cq *cq, u64 id,
			      enum ib_wc_status status)
{
	struct ib_wc wc;

	vt_check_wc(t, vt_wait(cq, &wc), &wc, id, status);
	return wc;
}

static void vt_expect_none(struct vt *t, struct ib_cq *cq)
{
	struct ib_wc wc = { };

	KUNIT_ASSERT_EQ_MSG(t->test, ib_poll_cq(cq, 1, &wc), 0, "%llu: %s",
			    wc.wr_id, ib_wc_status_msg(wc.status));
}

static void vt_expect_state(struct vt *t, struct vt_end *end,
			    enum ib_qp_state state)
{
	struct ib_qp_init_attr init;
	struct ib_qp_attr attr;

	KUNIT_ASSERT_EQ(t->test,
			ib_query_qp(end->qp, &attr, IB_QP_STATE, &init), 0);
	KUNIT_ASSERT_EQ(t->test, attr.qp_state, state);
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

static void vt_compare_buf(struct vt *t, const char *name,
			   const struct vt_buf *buf)
{
	size_t i = 0;

	if (!memcmp(buf->mem, buf->model, VT_BUF_SIZE))
		return;

	while (i < VT_BUF_SIZE - 1 && buf->mem[i] == buf->model[i])
		i++;
	KUNIT_FAIL(t->test, "%s: byte %zu is %#x, expected %#x", name, i,
		   buf->mem[i], buf->model[i]);
}

/* Without assertions, because vt_exit() has to go on after it. */
static void vt_compare(struct vt *t)
{
	vt_compare_buf(t, "source", &t->src);
	vt_compare_buf(t, "destination", &t->dst);
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

static void vt_send(struct vt *t, struct vt_end *end, struct ib_rdma_wr *wr)
{
	KUNIT_ASSERT_EQ(t->test, ib_post_send(end->qp, &wr->wr, NULL), 0);
}

/* Send from @a, and expect the request to complete with this status. */
static void vt_run(struct vt *t, struct ib_rdma_wr *wr,
		   enum ib_wc_status status)
{
	vt_send(t, &t->a, wr);
	vt_expect(t, t->a.scq, wr->wr.wr_id, status);
}

/* @b may have a shared receive queue. */
static void vt_recv(struct vt *t, struct vt_end *end, u64 id,
		    struct ib_sge *sge, int num_sge)
{
	struct ib_recv_wr wr = {
		.wr_id		= id,
		.sg_list	= sge,
		.num_sge	= num_sge,
	};

	if (end->qp->srq)
		KUNIT_ASSERT_EQ(t->test,
				ib_post_srq_recv(t->srq, &wr, NULL), 0);
	else
		KUNIT_ASSERT_EQ(t->test, ib_post_recv(end->qp, &wr, NULL), 0);
}

static void vt_local_inv(struct vt *t, u64 id, u32 key,
			 enum ib_wc_status status)
{
	struct ib_rdma_wr wr = vt_wr(id, IB_WR_LOCAL_INV, NULL, 0);

	wr.wr.ex.invalidate_rkey = key;
	vt_send(t, &t->b, &wr);
	vt_expect(t, t->b.scq, id, status);
}

static void vt_reg(struct vt *t, struct ib_mr *mr, u64 id, int access,
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

	KUNIT_ASSERT_EQ(t->test, ib_post_send(t->b.qp, &wr.wr, NULL), 0);
	vt_expect(t, t->b.scq, id, status);
}

static void vt_map_mr(struct vt *t, struct ib_mr *mr)
{
	unsigned int offset = VT_MR_OFFSET;
	struct scatterlist *sg;
	int i;

	sg = kunit_kmalloc_array(t->test, VT_MR_PAGES, sizeof(*sg), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(t->test, sg);

	sg_init_table(sg, VT_MR_PAGES);
	for (i = 0; i < VT_MR_PAGES; i++) {
		sg_dma_address(&sg[i]) = t->dst.dma +
					 (VT_MR_PAGES - 1 - i) * SZ_4K;
		sg_dma_len(&sg[i]) = SZ_4K;
	}
	sg_dma_len(&sg[VT_MR_PAGES - 1]) -= 77;

	KUNIT_ASSERT_EQ(t->test,
			ib_map_mr_sg(mr, sg, VT_MR_PAGES, &offset, SZ_4K),
			VT_MR_PAGES);
	KUNIT_ASSERT_EQ(t->test, mr->length, VT_MR_LEN);
	ib_update_fast_reg_key(mr, ib_inc_rkey(mr->rkey));
}

static void vt_reg_mr(struct vt *t, int access)
{
	vt_map_mr(t, t->mr);
	vt_reg(t, t->mr, 1000, access, IB_WC_SUCCESS);
}

/* --- set-up and tear-down --- */

static void vt_to(struct vt *t, struct vt_end *end, enum ib_qp_state state)
{
	static const int masks[] = {
		[IB_QPS_INIT]	= IB_QP_STATE | IB_QP_PKEY_INDEX | IB_QP_PORT |
				  IB_QP_ACCESS_FLAGS,
		[IB_QPS_RTR]	= IB_QP_STATE | IB_QP_AV | IB_QP_PATH_MTU |
				  IB_QP_DEST_QPN | IB_QP_RQ_PSN |
				  IB_QP_MAX_DEST_RD_ATOMIC |
				  IB_QP_MIN_RNR_TIMER,
		[IB_QPS_RTS]	= IB_QP_STATE | IB_QP_SQ_PSN | IB_QP_TIMEOUT |
				  IB_QP_RETRY_CNT | IB_QP_RNR_RETRY |
				  IB_QP_MAX_QP_RD_ATOMIC,
		[IB_QPS_ERR]	= IB_QP_STATE,
	};
	struct vt_end *peer = end == &t->a ? &t->b : &t->a;
	struct ib_qp_attr attr = {
		.qp_state		= state,
		.port_num		= 1,
		.qp_access_flags	= t->qp_access,
		.path_mtu		= IB_MTU_1024,
		.dest_qp_num		= peer->qp->qp_num,
		.max_dest_rd_atomic	= 1,
		/* 1.28 ms */
		.min_rnr_timer		= 14,
		.ah_attr.type		= RDMA_AH_ATTR_TYPE_ROCE,
		/* 16.8 ms */
		.timeout		= 12,
		.retry_cnt		= 3,
		.rnr_retry		= t->rnr_retry,
		.max_rd_atomic		= 1,
	};

	rdma_ah_set_grh(&attr.ah_attr, NULL, 0, t->gid->index, 64, 0);
	rdma_ah_set_dgid_raw(&attr.ah_attr, (void *)&t->gid->gid);
	rdma_ah_set_port_num(&attr.ah_attr, 1);
	KUNIT_ASSERT_EQ_MSG(t->test,
			    ib_modify_qp(end->qp, &attr, masks[state]), 0,
			    "to state %d", state);
}

static void vt_qp_event(struct ib_event *event, void *context)
{
	struct vt *t = context;

	if (event->event == IB_EVENT_QP_LAST_WQE_REACHED)
		complete(&t->last_wqe);
}

static void vt_alloc_end(struct vt *t, struct vt_end *end, struct ib_srq *srq,
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

	end->scq = ib_alloc_cq(t->dev, NULL, VT_QUEUE, 0, IB_POLL_DIRECT);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(t->test, end->scq);
	end->rcq = ib_alloc_cq(t->dev, NULL, VT_QUEUE, 0, IB_POLL_DIRECT);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(t->test, end->rcq);

	init.send_cq = end->scq;
	init.recv_cq = end->rcq;
	end->qp = ib_create_qp(t->pd, &init);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(t->test, end->qp);
}

static void vt_free_end(struct vt_end *end)
{
	if (!IS_ERR_OR_NULL(end->qp))
		ib_destroy_qp(end->qp);
	if (!IS_ERR_OR_NULL(end->rcq))
		ib_free_cq(end->rcq);
	if (!IS_ERR_OR_NULL(end->scq))
		ib_free_cq(end->scq);
}

/* The queue pairs, not connected */
static struct vt *vt_create(struct kunit *test)
{
	struct vt *t = test->priv;

	vt_alloc_end(t, &t->a, NULL, t->rw_ctxs);
	vt_alloc_end(t, &t->b, t->srq, 0);
	t->rw_mrs = !list_empty(&t->a.qp->rdma_mrs);
	return t;
}

/* Most tests begin with this, or with one of the functions below. */
static struct vt *vt_connect(struct kunit *test, u8 rnr_retry)
{
	struct vt *t = vt_create(test);
	int state;

	t->rnr_retry = rnr_retry;
	for (state = IB_QPS_INIT; state <= IB_QPS_RTS; state++) {
		vt_to(t, &t->a, state);
		vt_to(t, &t->b, state);
	}
	return t;
}

/* The memory region is registered as well. */
static struct vt *vt_connect_mr(struct kunit *test, int access)
{
	struct vt *t = vt_connect(test, 0);

	vt_reg_mr(t, access);
	return t;
}

/* @b receives from a shared queue. */
static struct vt *vt_connect_srq(struct kunit *test, u8 rnr_retry)
{
	struct ib_srq_init_attr init = {
		.attr.max_wr	= VT_QUEUE,
		.attr.max_sge	= VT_SGES,
		.srq_type	= IB_SRQT_BASIC,
	};
	struct vt *t = test->priv;

	t->srq = ib_create_srq(t->pd, &init);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->srq);
	return vt_connect(test, rnr_retry);
}

/* @a is for the RDMA core's API for transfers. */
static struct vt *vt_connect_rw(struct kunit *test)
{
	struct vt *t = test->priv;

	t->rw_ctxs = VT_RW_CTXS;
	return vt_connect_mr(test, VT_ALL_ACCESS);
}

static struct ib_device *vt_found;

static int vt_add(struct ib_device *dev)
{
	if (!vt_found && !strcmp(dev_name(&dev->dev), device) &&
	    ib_device_try_get(dev))
		vt_found = dev;
	return 0;
}

static struct ib_client vt_client = {
	.name	= KBUILD_MODNAME,
	.add	= vt_add,
};

/* Being a client for a moment is the way to find a device by its name. */
static void vt_find_dev(struct vt *t)
{
	int ret;

	vt_found = NULL;
	ret = ib_register_client(&vt_client);
	if (!ret)
		ib_unregister_client(&vt_client);
	t->dev = vt_found;
	KUNIT_ASSERT_EQ(t->test, ret, 0);
	KUNIT_ASSERT_NOT_NULL_MSG(t->test, t->dev, "no device %s", device);
}

static void vt_find_gid(struct vt *t)
{
	const struct ib_gid_attr *attr;
	int i;

	for (i = 0; i < t->dev->port_data[1].immutable.gid_tbl_len; i++) {
		attr = rdma_get_gid_attr(t->dev, 1, i);
		if (IS_ERR(attr))
			continue;
		/* The address of an IPv4 network is there to be resolved. */
		if (attr->gid_type == IB_GID_TYPE_ROCE_UDP_ENCAP &&
		    rdma_gid_attr_network_type(attr) == RDMA_NETWORK_IPV4) {
			t->gid = attr;
			return;
		}
		rdma_put_gid_attr(attr);
	}
	KUNIT_FAIL_AND_ABORT(t->test, "no IPv4 address on its network device");
}

static void vt_alloc_buf(struct vt *t, struct vt_buf *buf)
{
	buf->model = vmalloc(VT_BUF_SIZE);
	KUNIT_ASSERT_NOT_NULL(t->test, buf->model);
	buf->mem = dma_alloc_coherent(t->dev->dma_device, VT_BUF_SIZE,
				      &buf->dma, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(t->test, buf->mem);
}

static void vt_free_buf(struct vt *t, struct vt_buf *buf)
{
	if (buf->mem)
		dma_free_coherent(t->dev->dma_device, VT_BUF_SIZE, buf->mem,
				  buf->dma);
	vfree(buf->model);
}

static void vt_fill_bufs(struct vt *t)
{
	size_t i;

	/* 251 is prime: no page of the source is like another. */
	for (i = 0; i < VT_BUF_SIZE; i++)
		t->src.model[i] = i % 251;
	memcpy(t->src.mem, t->src.model, VT_BUF_SIZE);
	memset(t->dst.model, VT_POISON, VT_BUF_SIZE);
	memcpy(t->dst.mem, t->dst.model, VT_BUF_SIZE);
}

static int vt_init(struct kunit *test)
{
	struct vt *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	t->test = test;
	t->qp_access = IB_ACCESS_REMOTE_WRITE | IB_ACCESS_REMOTE_READ;
	init_completion(&t->last_wqe);

	vt_find_dev(t);
	vt_find_gid(t);
	vt_alloc_buf(t, &t->src);
	vt_alloc_buf(t, &t->dst);
	vt_fill_bufs(t);
	t->pd = ib_alloc_pd(t->dev, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->pd);
	t->mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG, VT_MR_PAGES);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->mr);
	return 0;
}

/* It may be called when vt_init() or the test has failed half-way. */
static void vt_exit(struct kunit *test)
{
	struct vt *t = test->priv;

	if (!t || !t->dev)
		return;

	/* The data of completed requests must be there already. */
	if (t->dst.mem)
		vt_compare(t);
	vt_free_end(&t->a);
	vt_free_end(&t->b);
	if (!IS_ERR_OR_NULL(t->srq))
		ib_destroy_srq(t->srq);
	if (!IS_ERR_OR_NULL(t->other_mr))
		ib_dereg_mr(t->other_mr);
	if (!IS_ERR_OR_NULL(t->mr))
		ib_dereg_mr(t->mr);
	if (!IS_ERR_OR_NULL(t->other_pd))
		ib_dealloc_pd(t->other_pd);
	if (!IS_ERR_OR_NULL(t->pd))
		ib_dealloc_pd(t->pd);
	vt_free_buf(t, &t->dst);
	vt_free_buf(t, &t->src);
	if (t->gid)
		rdma_put_gid_attr(t->gid);
	ib_device_put(t->dev);
}

/* --- what has to work --- */

static void send_odd_sges(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
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

	vt_model_dst(t, 3, 1, 2);
	vt_model_dst(t, 8191, 3, 5);
	vt_model_dst(t, 8196, 4093, 4994);
	vt_model_dst(t, 30001, 4093 + 4994, 7);
	vt_model_dst(t, 40001, 20003, 1);

	vt_recv(t, &t->b, 2, to, ARRAY_SIZE(to));
	vt_run(t, &wr, IB_WC_SUCCESS);
	wc = vt_expect(t, t->b.rcq, 2, IB_WC_SUCCESS);
	KUNIT_EXPECT_EQ(test, wc.byte_len, 5009);
	KUNIT_EXPECT_EQ(test, wc.opcode, IB_WC_RECV);
	KUNIT_EXPECT_EQ(test, wc.wc_flags, 0);
	KUNIT_EXPECT_PTR_EQ(test, wc.qp, t->b.qp);
	KUNIT_EXPECT_EQ(test, wc.src_qp, t->a.qp->qp_num);
}

static void write_odd_sges(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge from[] = {
		vt_sge(t, &t->src, 5, 1),
		vt_sge(t, &t->src, 111, 9999),
		vt_sge(t, &t->src, 70001, 3),
		vt_sge(t, &t->src, 80003, 20001),
	};
	struct ib_rdma_wr wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, from,
				       ARRAY_SIZE(from), 17);

	vt_model_mr(t, 17, 5, 1);
	vt_model_mr(t, 18, 111, 9999);
	vt_model_mr(t, 10017, 70001, 3);
	vt_model_mr(t, 10020, 80003, 20001);

	vt_run(t, &wr, IB_WC_SUCCESS);
	vt_expect_none(t, t->b.rcq);
}

static void read_odd_sges(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge to[] = {
		vt_sge(t, &t->src, 9, 4097),
		vt_sge(t, &t->src, 50001, 1),
		vt_sge(t, &t->src, 60003, 30001),
	};
	struct ib_rdma_wr wr = vt_rdma(t, 1, IB_WR_RDMA_READ, to,
				       ARRAY_SIZE(to), 5);

	vt_model_read(t, 9, 5, 4097);
	vt_model_read(t, 50001, 4102, 1);
	vt_model_read(t, 60003, 4103, 30001);
	vt_run(t, &wr, IB_WC_SUCCESS);
}

static void vt_write(struct vt *t, u64 id, size_t src, size_t off, u32 len)
{
	struct ib_sge sge = vt_sge(t, &t->src, src, len);
	struct ib_rdma_wr wr = vt_rdma(t, id, IB_WR_RDMA_WRITE, &sge, 1, off);

	vt_model_mr(t, off, src, len);
	vt_run(t, &wr, IB_WC_SUCCESS);
}

/* All of the memory region, and its first and last byte */
static void write_to_bounds(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);

	vt_write(t, 1, 100001, 0, VT_MR_LEN);
	vt_compare(t);
	vt_write(t, 2, 1, 0, 1);
	vt_write(t, 3, 2, VT_MR_LEN - 1, 1);
}

/* A local key with bounds, as source of a SEND */
static void send_from_mr(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, IB_ACCESS_LOCAL_WRITE);
	struct ib_sge to = vt_sge(t, &t->src, 123, 9001);
	struct ib_sge from = {
		.addr	= t->mr->iova + 3,
		.length	= 9001,
		.lkey	= t->mr->lkey,
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_model_read(t, 123, 3, 9001);
	vt_recv(t, &t->a, 2, &to, 1);
	vt_send(t, &t->b, &wr);
	vt_expect(t, t->b.scq, 1, IB_WC_SUCCESS);
	vt_expect(t, t->a.rcq, 2, IB_WC_SUCCESS);
}

static void vt_expect_imm(struct vt *t, u64 id, enum ib_wc_opcode opcode,
			  u32 imm)
{
	struct ib_wc wc = vt_expect(t, t->b.rcq, id, IB_WC_SUCCESS);

	KUNIT_ASSERT_EQ(t->test, wc.opcode, opcode);
	KUNIT_ASSERT_EQ(t->test, wc.wc_flags, IB_WC_WITH_IMM);
	KUNIT_ASSERT_EQ(t->test, be32_to_cpu(wc.ex.imm_data), imm);
}

static void immediate_data(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge from = vt_sge(t, &t->src, 11, 333);
	struct ib_sge to = vt_sge(t, &t->dst, 1500001, 333);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND_WITH_IMM, &from, 1);

	vt_model_dst(t, 1500001, 11, 333);
	wr.wr.ex.imm_data = cpu_to_be32(0x12345678);
	vt_recv(t, &t->b, 2, &to, 1);
	vt_recv(t, &t->b, 4, NULL, 0);
	vt_run(t, &wr, IB_WC_SUCCESS);
	vt_expect_imm(t, 2, IB_WC_RECV, 0x12345678);

	vt_model_mr(t, 7, 11, 333);
	wr = vt_rdma(t, 3, IB_WR_RDMA_WRITE_WITH_IMM, &from, 1, 7);
	wr.wr.ex.imm_data = cpu_to_be32(42);
	vt_run(t, &wr, IB_WC_SUCCESS);
	vt_expect_imm(t, 4, IB_WC_RECV_RDMA_WITH_IMM, 42);
}

/* No byte moves, so no key matters. */
static void empty_write(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge none = { .lkey = 0xbad };
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &none, 1);

	wr.rkey = 0xbad;
	vt_run(t, &wr, IB_WC_SUCCESS);
}

/* When the SEND has arrived, so has what was written before. */
static void send_after_write(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge big = vt_sge(t, &t->src, 3, VT_MR_LEN);
	struct ib_sge small = vt_sge(t, &t->src, 1, 1);
	struct ib_sge to = vt_sge(t, &t->dst, 1600001, 1);
	struct ib_rdma_wr write = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &big, 1, 0);
	struct ib_rdma_wr send = vt_wr(2, IB_WR_SEND, &small, 1);

	vt_recv(t, &t->b, 3, &to, 1);
	vt_model_mr(t, 0, 3, VT_MR_LEN);
	vt_model_dst(t, 1600001, 1, 1);
	write.wr.send_flags = 0;
	write.wr.next = &send.wr;
	vt_send(t, &t->a, &write);
	vt_expect(t, t->b.rcq, 3, IB_WC_SUCCESS);
	vt_compare(t);
	vt_expect(t, t->a.scq, 2, IB_WC_SUCCESS);
	vt_expect_none(t, t->a.scq);
}

static void send_invalidate(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1700001, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND_WITH_INV, &from, 1);
	struct ib_wc wc;

	vt_recv(t, &t->b, 2, &to, 1);
	vt_model_dst(t, 1700001, 1, 10);
	wr.wr.ex.invalidate_rkey = t->mr->rkey;
	vt_run(t, &wr, IB_WC_SUCCESS);
	wc = vt_expect(t, t->b.rcq, 2, IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ(test, wc.wc_flags, IB_WC_WITH_INVALIDATE);
	KUNIT_ASSERT_EQ(test, wc.ex.invalidate_rkey, t->mr->rkey);

	wr = vt_rdma(t, 3, IB_WR_RDMA_WRITE, &from, 1, 0);
	vt_run(t, &wr, IB_WC_REM_ACCESS_ERR);
}

/* The receiver is not ready, but soon enough. */
static void vt_receiver_late(struct vt *t)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1700001, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_model_dst(t, 1700001, 1, 10);
	vt_send(t, &t->a, &wr);
	msleep(50);
	vt_expect_none(t, t->a.scq);
	vt_recv(t, &t->b, 2, &to, 1);
	vt_expect(t, t->b.rcq, 2, IB_WC_SUCCESS);
	vt_expect(t, t->a.scq, 1, IB_WC_SUCCESS);
}

static void receiver_late(struct kunit *test)
{
	vt_receiver_late(vt_connect(test, 7));
}

/*
 * Keep the copy engine busy with RDMA WRITEs to the memory region. Returns once
 * the first one has completed.
 */
static struct vt *vt_start_writes(struct kunit *test, int nr)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge from = vt_sge(t, &t->src, 1, VT_MR_LEN);
	struct ib_rdma_wr wr;
	int i;

	for (i = 0; i < nr; i++) {
		wr = vt_rdma(t, i, IB_WR_RDMA_WRITE, &from, 1, 0);
		vt_send(t, &t->a, &wr);
	}
	vt_expect(t, t->a.scq, 0, IB_WC_SUCCESS);
	return t;
}

/* The others complete in order, some of them perhaps with an error. */
static void vt_end_writes(struct vt *t, int nr)
{
	struct ib_wc wc;
	int i;

	for (i = 1; i < nr; i++) {
		KUNIT_ASSERT_EQ_MSG(t->test, vt_wait(t->a.scq, &wc), 1,
				    "no completion of %d", i);
		KUNIT_ASSERT_EQ(t->test, wc.wr_id, i);
	}
}

/* Once invalidated, the memory belongs to the CPU. */
static void invalidate_waits(struct kunit *test)
{
	struct vt *t = vt_start_writes(test, 16);

	vt_local_inv(t, 100, t->mr->rkey, IB_WC_SUCCESS);
	memset(t->dst.mem, VT_POISON, VT_MR_PAGES * SZ_4K);
	vt_end_writes(t, 16);
}

/* The same when the owner's queue pair has entered the error state */
static void error_state_waits(struct kunit *test)
{
	struct vt *t = vt_start_writes(test, 16);

	vt_to(t, &t->b, IB_QPS_ERR);
	memset(t->dst.mem, VT_POISON, VT_MR_PAGES * SZ_4K);
	vt_end_writes(t, 16);
}

/* --- what must be refused --- */

static void vt_refused(struct vt *t, struct ib_rdma_wr *wr,
		       enum ib_wc_status status, enum ib_qp_state peer_state)
{
	vt_run(t, wr, status);
	vt_expect_state(t, &t->a, IB_QPS_ERR);
	vt_expect_state(t, &t->b, peer_state);
}

static void vt_refused_rdma(struct kunit *test, enum ib_wr_opcode opcode,
			    int access, s64 off, u32 key_change)
{
	struct vt *t = vt_connect_mr(test, access);
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr = vt_rdma(t, 1, opcode, &sge, 1, off);

	wr.rkey ^= key_change;
	vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

static void bad_rkey(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_WRITE, VT_ALL_ACCESS, 0, 0x100000);
}

static void stale_rkey(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_WRITE, VT_ALL_ACCESS, 0, 1);
}

static void local_dma_lkey_as_rkey(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &sge, 1);

	wr.remote_addr = t->dst.dma;
	wr.rkey = t->pd->local_dma_lkey;
	vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

static void global_rkey_of_other_pd(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge from = vt_sge(t, &t->src, 77, 12345);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, &from, 1);

	t->other_pd = ib_alloc_pd(t->dev, IB_PD_UNSAFE_GLOBAL_RKEY);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->other_pd);
	wr.remote_addr = t->dst.dma + 99;
	wr.rkey = t->other_pd->unsafe_global_rkey;
	vt_run(t, &wr, IB_WC_REM_ACCESS_ERR);
}

static void write_past_end(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_WRITE, VT_ALL_ACCESS, VT_MR_LEN - 9,
			0);
}

static void read_before_start(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_READ, VT_ALL_ACCESS, -1, 0);
}

static void no_remote_write(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_WRITE,
			VT_ALL_ACCESS & ~IB_ACCESS_REMOTE_WRITE, 0, 0);
}

static void no_remote_read(struct kunit *test)
{
	vt_refused_rdma(test, IB_WR_RDMA_READ,
			VT_ALL_ACCESS & ~IB_ACCESS_REMOTE_READ, 0, 0);
}

static void qp_no_remote_read(struct kunit *test)
{
	struct vt *t = test->priv;
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr;

	t->qp_access = IB_ACCESS_REMOTE_WRITE;
	vt_connect_mr(test, VT_ALL_ACCESS);
	wr = vt_rdma(t, 1, IB_WR_RDMA_READ, &sge, 1, 0);
	vt_refused(t, &wr, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR);
}

static void invalidated_mr(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_rdma_wr wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &sge, 1, 0);

	vt_local_inv(t, 2, t->mr->rkey, IB_WC_SUCCESS);
	vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
}

/* A region of a protection domain that is not the queue pairs' */
static void reg_mr_of_other_pd(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);

	t->other_pd = ib_alloc_pd(t->dev, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->other_pd);
	t->other_mr = ib_alloc_mr(t->other_pd, IB_MR_TYPE_MEM_REG, VT_MR_PAGES);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->other_mr);
	vt_map_mr(t, t->other_mr);
	vt_reg(t, t->other_mr, 1, VT_ALL_ACCESS, IB_WC_MW_BIND_ERR);
}

static void reg_mr_twice(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);

	vt_reg(t, t->mr, 1, VT_ALL_ACCESS, IB_WC_MW_BIND_ERR);
	vt_expect_state(t, &t->b, IB_QPS_ERR);
}

static void invalidate_stale_key(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);

	vt_local_inv(t, 2, t->mr->rkey ^ 1, IB_WC_MW_BIND_ERR);
}

static void send_invalidate_bad_key(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND_WITH_INV, &from, 1);

	wr.wr.ex.invalidate_rkey = 0xbad00;
	vt_recv(t, &t->b, 2, &to, 1);
	vt_refused(t, &wr, IB_WC_REM_ACCESS_ERR, IB_QPS_ERR);
	vt_expect(t, t->b.rcq, 2, IB_WC_LOC_ACCESS_ERR);
}

/* The own side is at fault: the peer does not even notice. */
static void bad_lkey(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge sge[] = {
		vt_sge(t, &t->src, 1, 10),
		vt_sge(t, &t->src, 1, 10),
	};
	struct ib_rdma_wr wr = vt_rdma(t, 1, IB_WR_RDMA_WRITE, sge,
				       ARRAY_SIZE(sge), 0);

	sge[1].lkey = 0x12345600;
	vt_refused(t, &wr, IB_WC_LOC_PROT_ERR, IB_QPS_RTS);
}

static void local_bounds(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge sge = {
		.addr	= t->mr->iova + t->mr->length - 10,
		.length	= 11,
		.lkey	= t->mr->lkey,
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &sge, 1);

	vt_send(t, &t->b, &wr);
	vt_expect(t, t->b.scq, 1, IB_WC_LOC_PROT_ERR);
	vt_expect_state(t, &t->b, IB_QPS_ERR);
}

static void receive_no_local_write(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, IB_ACCESS_REMOTE_READ);
	struct ib_sge from = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = {
		.addr	= t->mr->iova,
		.length	= 10,
		.lkey	= t->mr->lkey,
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_recv(t, &t->b, 2, &to, 1);
	vt_refused(t, &wr, IB_WC_REM_OP_ERR, IB_QPS_ERR);
	vt_expect(t, t->b.rcq, 2, IB_WC_LOC_PROT_ERR);
}

static void message_too_long(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_sge to[] = {
		vt_sge(t, &t->dst, 1, 10),
		vt_sge(t, &t->dst, 101, 10),
	};
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_recv(t, &t->b, 2, to, ARRAY_SIZE(to));
	vt_refused(t, &wr, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR);
	vt_expect(t, t->b.rcq, 2, IB_WC_LOC_LEN_ERR);
}

static void vt_refused_send(struct vt *t, enum ib_wc_status status,
			    enum ib_qp_state peer_state)
{
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	vt_refused(t, &wr, status, peer_state);
}

static void receiver_not_ready(struct kunit *test)
{
	vt_refused_send(vt_connect(test, 2), IB_WC_RNR_RETRY_EXC_ERR,
			IB_QPS_RTS);
}

static void peer_in_error_state(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);

	vt_to(t, &t->b, IB_QPS_ERR);
	vt_refused_send(t, IB_WC_RETRY_EXC_ERR, IB_QPS_ERR);
}

static void peer_gone(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge from = vt_sge(t, &t->src, 1, 21);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &from, 1);

	ib_destroy_qp(t->b.qp);
	t->b.qp = NULL;
	vt_run(t, &wr, IB_WC_RETRY_EXC_ERR);
}

/* After an error nothing is executed, and all completes in order. */
static void flushed_in_order(struct kunit *test)
{
	struct vt *t = vt_connect_mr(test, VT_ALL_ACCESS);
	struct ib_sge sge = vt_sge(t, &t->src, 1, 10);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_rdma_wr bad = vt_rdma(t, 1, IB_WR_RDMA_WRITE, &sge, 1, 0);
	struct ib_rdma_wr good = vt_rdma(t, 2, IB_WR_RDMA_WRITE, &sge, 1, 0);
	int i;

	vt_recv(t, &t->a, 10, &to, 1);
	vt_recv(t, &t->a, 11, &to, 1);
	bad.rkey ^= 1;
	bad.wr.send_flags = 0;
	good.wr.send_flags = 0;
	bad.wr.next = &good.wr;
	vt_run(t, &bad, IB_WC_REM_ACCESS_ERR);
	vt_expect(t, t->a.scq, 2, IB_WC_WR_FLUSH_ERR);
	for (i = 3; i < 6; i++) {
		good.wr.wr_id = i;
		vt_run(t, &good, IB_WC_WR_FLUSH_ERR);
	}
	vt_expect(t, t->a.rcq, 10, IB_WC_WR_FLUSH_ERR);
	vt_expect(t, t->a.rcq, 11, IB_WC_WR_FLUSH_ERR);
	vt_recv(t, &t->a, 12, &to, 1);
	vt_expect(t, t->a.rcq, 12, IB_WC_WR_FLUSH_ERR);
}

static void error_while_copying(struct kunit *test)
{
	struct vt *t = vt_start_writes(test, 8);

	vt_to(t, &t->a, IB_QPS_ERR);
	vt_end_writes(t, 8);
	vt_model_mr(t, 0, 1, VT_MR_LEN);
}

static void states(struct kunit *test)
{
	struct vt *t = vt_create(test);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_RDMA_WRITE, NULL, 0);
	struct ib_qp_attr rts = { .qp_state = IB_QPS_RTS };
	struct ib_recv_wr recv = { };
	struct ib_qp *qp = t->a.qp;

	/* RESET */
	KUNIT_ASSERT_EQ(test, ib_modify_qp(qp, &rts, IB_QP_STATE), -EINVAL);
	KUNIT_ASSERT_EQ(test, ib_post_recv(qp, &recv, NULL), -EINVAL);
	vt_to(t, &t->a, IB_QPS_INIT);
	KUNIT_ASSERT_EQ(test, ib_post_recv(qp, &recv, NULL), 0);
	KUNIT_ASSERT_EQ(test, ib_post_send(qp, &wr.wr, NULL), -EINVAL);
	KUNIT_ASSERT_EQ(test, ib_modify_qp(qp, &rts, IB_QP_STATE), -EINVAL);
}

static void queues_full(struct kunit *test)
{
	struct vt *t = vt_connect(test, 7);
	struct ib_sge sge = vt_sge(t, &t->src, 1, 1);
	struct ib_rdma_wr wr = vt_wr(1, IB_WR_SEND, &sge, 1);
	struct ib_recv_wr recv = { };
	int i;

	/* Nothing leaves the queue, because the receiver is not ready. */
	for (i = 0; i < VT_QUEUE; i++) {
		vt_send(t, &t->a, &wr);
		vt_recv(t, &t->a, 2, NULL, 0);
	}
	KUNIT_EXPECT_EQ(test, ib_post_send(t->a.qp, &wr.wr, NULL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, ib_post_recv(t->a.qp, &recv, NULL), -ENOMEM);
}

static void malformed_wrs(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	struct ib_sge sge[VT_SGES + 1] = { };
	struct ib_rdma_wr too_many = vt_wr(1, IB_WR_SEND, sge, VT_SGES + 1);
	struct ib_rdma_wr with_inline = vt_wr(1, IB_WR_SEND, sge, 1);
	struct ib_rdma_wr atomic = vt_wr(1, IB_WR_ATOMIC_FETCH_AND_ADD, sge, 1);
	struct ib_qp *qp = t->a.qp;

	with_inline.wr.send_flags = IB_SEND_INLINE;
	KUNIT_EXPECT_EQ(test, ib_post_send(qp, &too_many.wr, NULL), -EINVAL);
	KUNIT_EXPECT_EQ(test, ib_post_send(qp, &with_inline.wr, NULL), -EINVAL);
	KUNIT_EXPECT_EQ(test, ib_post_send(qp, &atomic.wr, NULL), -EOPNOTSUPP);
}

/* A region has as many pages as it was allocated with. */
static void pages_of_mr(struct kunit *test)
{
	struct vt *t = vt_connect(test, 0);
	unsigned int offset = 0;
	struct scatterlist sg[3];
	int i;

	t->other_mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG,
				  VT_MAX_MR_PAGES + 1);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(t->other_mr), -EINVAL);
	t->other_mr = ib_alloc_mr(t->pd, IB_MR_TYPE_MEM_REG, 2);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->other_mr);

	sg_init_table(sg, ARRAY_SIZE(sg));
	for (i = 0; i < ARRAY_SIZE(sg); i++) {
		sg_dma_address(&sg[i]) = t->dst.dma + 2 * i * SZ_4K;
		sg_dma_len(&sg[i]) = SZ_4K;
	}
	KUNIT_EXPECT_EQ_MSG(test, ib_map_mr_sg(t->other_mr, sg, 3, NULL, SZ_4K),
			    2, "one page too many");
	sg_dma_len(&sg[0]) = 3 * SZ_4K;
	KUNIT_EXPECT_EQ_MSG(test, ib_map_mr_sg(t->other_mr, sg, 1, &offset,
					       SZ_4K),
			    0, "one segment too long");
	KUNIT_EXPECT_NE_MSG(test, offset, 0, "nothing of the segment is mapped");
}

/* --- shared receive queue --- */

static void srq_send(struct kunit *test)
{
	struct vt *t = vt_connect_srq(test, 0);
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
	vt_recv(t, &t->b, 2, to, 2);
	vt_recv(t, &t->b, 3, to + 2, 1);
	vt_recv(t, &t->b, 4, to, 1);
	vt_send(t, &t->a, &wr);
	vt_expect(t, t->b.rcq, 2, IB_WC_SUCCESS);
	vt_send(t, &t->a, &wr);
	vt_expect(t, t->b.rcq, 3, IB_WC_SUCCESS);
	vt_expect(t, t->a.scq, 1, IB_WC_SUCCESS);
	vt_expect(t, t->a.scq, 1, IB_WC_SUCCESS);
	vt_expect_none(t, t->b.rcq);
}

static void vt_wait_last_wqe(struct vt *t)
{
	KUNIT_ASSERT_NE_MSG(t->test,
			    wait_for_completion_timeout(&t->last_wqe, HZ), 0,
			    "no \"last WQE reached\"");
}

/* What no queue pair has taken stays in the shared queue. */
static void srq_error_state(struct kunit *test)
{
	struct vt *t = vt_connect_srq(test, 0);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 10);
	struct ib_recv_wr recv = { };

	vt_recv(t, &t->b, 2, &to, 1);
	KUNIT_ASSERT_EQ(test, ib_post_recv(t->b.qp, &recv, NULL), -EINVAL);
	vt_to(t, &t->b, IB_QPS_ERR);
	vt_wait_last_wqe(t);
	vt_expect_none(t, t->b.rcq);
	KUNIT_EXPECT_FALSE_MSG(test, completion_done(&t->last_wqe),
			       "another \"last WQE reached\"");
}

static void srq_receiver_late(struct kunit *test)
{
	vt_receiver_late(vt_connect_srq(test, 7));
}

static void srq_empty(struct kunit *test)
{
	vt_refused_send(vt_connect_srq(test, 2), IB_WC_RNR_RETRY_EXC_ERR,
			IB_QPS_RTS);
}

static void srq_message_too_long(struct kunit *test)
{
	struct vt *t = vt_connect_srq(test, 0);
	struct ib_sge to = vt_sge(t, &t->dst, 1, 20);

	vt_recv(t, &t->b, 2, &to, 1);
	vt_recv(t, &t->b, 3, &to, 1);
	vt_refused_send(t, IB_WC_REM_INV_REQ_ERR, IB_QPS_ERR);
	vt_expect(t, t->b.rcq, 2, IB_WC_LOC_LEN_ERR);
	vt_wait_last_wqe(t);
	vt_expect_none(t, t->b.rcq);
}

static void srq_full(struct kunit *test)
{
	struct vt *t = vt_connect_srq(test, 0);
	struct ib_sge sge[VT_SGES + 1] = { };
	struct ib_recv_wr recv = { .sg_list = sge, .num_sge = VT_SGES + 1 };
	int i;

	KUNIT_ASSERT_EQ(test, ib_post_srq_recv(t->srq, &recv, NULL), -EINVAL);
	recv.num_sge = 0;
	for (i = 0; i < VT_QUEUE; i++)
		vt_recv(t, &t->b, i, NULL, 0);
	KUNIT_ASSERT_EQ(test, ib_post_srq_recv(t->srq, &recv, NULL), -ENOMEM);
}

/* --- the RDMA core's API for transfers, with MRs or without --- */

/*
 * Between rdma_rw_ctx_init() and rdma_rw_ctx_destroy() nothing must end the
 * test, because vt_exit() could not undo the former.
 */
static int vt_rw_post(struct vt *t, struct rdma_rw_ctx *ctx, struct ib_wc *wc)
{
	struct ib_qp_attr attr = { .qp_state = IB_QPS_ERR };
	int ret = rdma_rw_ctx_post(ctx, t->a.qp, 1, &t->rw_cqe, NULL) ?:
		  vt_wait(t->a.scq, wc);

	/* The transfer may still be running: stop it. */
	if (ret != 1)
		ib_modify_qp(t->b.qp, &attr, IB_QP_STATE);
	return ret;
}

static void vt_rw_end(struct vt *t, int posted, const struct ib_wc *wc)
{
	vt_check_wc(t, posted, wc, (uintptr_t)&t->rw_cqe, IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ_MSG(t->test, t->a.qp->mrs_used, 0, "MRs are not back");
}

/* MRs that a range takes; without registrations it is one work request. */
static u32 vt_rw_ops(struct vt *t, u64 addr, u64 len)
{
	u32 max = min(t->dev->attrs.max_fast_reg_page_list_len, 256U);

	if (!t->rw_mrs)
		return 1;
	return DIV_ROUND_UP(PFN_UP(offset_in_page(addr) + len), max);
}

static void vt_rw_sg(struct vt *t, struct scatterlist *sg, u32 offset,
		     enum dma_data_direction dir)
{
	u64 len = VT_CHUNKS * VT_CHUNK_LEN - offset;
	struct rdma_rw_ctx ctx;
	struct ib_wc wc;
	int ret;

	ret = rdma_rw_ctx_init(&ctx, t->a.qp, 1, sg, VT_CHUNKS, offset,
			       t->mr->iova, t->mr->rkey, dir);
	KUNIT_ASSERT_GE(t->test, ret, 0);

	/* Segments are whole pages, so the number of operations is the same. */
	if (t->rw_mrs)
		KUNIT_EXPECT_EQ(t->test, ctx.nr_ops, vt_rw_ops(t, offset, len));
	ret = vt_rw_post(t, &ctx, &wc);
	rdma_rw_ctx_destroy(&ctx, t->a.qp, 1, sg, VT_CHUNKS, dir);
	vt_rw_end(t, ret, &wc);
}

static void vt_rw_bvec(struct vt *t, struct scatterlist *sg, u32 offset,
		       enum dma_data_direction dir)
{
	struct bvec_iter iter = { .bi_size = VT_CHUNKS * VT_CHUNK_LEN };
	struct bio_vec bvecs[VT_CHUNKS];
	struct rdma_rw_ctx ctx;
	struct ib_wc wc;
	int i, ret;

	for (i = 0; i < VT_CHUNKS; i++)
		bvec_set_page(&bvecs[i], sg_page(&sg[i]), sg[i].length,
			      sg[i].offset);
	bvec_iter_advance(bvecs, &iter, offset);

	ret = rdma_rw_ctx_init_bvec(&ctx, t->a.qp, 1, bvecs, VT_CHUNKS, iter,
				    t->mr->iova, t->mr->rkey, dir);
	KUNIT_ASSERT_GE(t->test, ret, 0);

	ret = vt_rw_post(t, &ctx, &wc);
	rdma_rw_ctx_destroy_bvec(&ctx, t->a.qp, 1, bvecs, VT_CHUNKS, dir);
	vt_rw_end(t, ret, &wc);
}

typedef void vt_rw_fn(struct vt *t, struct scatterlist *sg, u32 offset,
		      enum dma_data_direction dir);

/* Write from an odd offset in segments of several pages, and read it back. */
static void vt_rw_segments(struct kunit *test, vt_rw_fn *rw)
{
	struct vt *t = vt_connect_rw(test);
	struct scatterlist sg[VT_CHUNKS];
	u8 *chunk[VT_CHUNKS];
	u32 offset = 1357;
	int i;

	sg_init_table(sg, VT_CHUNKS);
	for (i = 0; i < VT_CHUNKS; i++) {
		/* Too big for a slab, so these are whole pages. */
		chunk[i] = kunit_kmalloc(test, VT_CHUNK_LEN, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, chunk[i]);
		memcpy(chunk[i], t->src.model + i * VT_CHUNK_LEN, VT_CHUNK_LEN);
		sg_set_buf(&sg[i], chunk[i], VT_CHUNK_LEN);
	}
	vt_model_mr(t, 0, offset, VT_CHUNKS * VT_CHUNK_LEN - offset);
	rw(t, sg, offset, DMA_TO_DEVICE);
	vt_compare(t);

	memset(chunk[0] + offset, 0, VT_CHUNK_LEN - offset);
	for (i = 1; i < VT_CHUNKS; i++)
		memset(chunk[i], 0, VT_CHUNK_LEN);
	rw(t, sg, offset, DMA_FROM_DEVICE);
	for (i = 0; i < VT_CHUNKS; i++)
		KUNIT_EXPECT_EQ_MSG(test, memcmp(chunk[i], t->src.model +
						 i * VT_CHUNK_LEN,
						 VT_CHUNK_LEN),
				    0, "segment %d is not what was written", i);
}

static void rw_segments(struct kunit *test)
{
	vt_rw_segments(test, vt_rw_sg);
}

static void rw_bio_vecs(struct kunit *test)
{
	vt_rw_segments(test, vt_rw_bvec);
}

#ifdef VT_DMA_ADDR	/* see Makefile */
static void vt_rw_addr(struct vt *t, u32 off, u32 len,
		       enum dma_data_direction dir)
{
	dma_addr_t addr = t->src.dma + off;
	struct rdma_rw_ctx ctx;
	struct ib_wc wc;
	int ret;

	ret = rdma_rw_ctx_init_addr(&ctx, t->a.qp, 1, addr, len, t->mr->iova,
				    t->mr->rkey, dir);
	KUNIT_ASSERT_GE(t->test, ret, 0);

	KUNIT_EXPECT_EQ(t->test, ctx.nr_ops, vt_rw_ops(t, addr, len));
	ret = vt_rw_post(t, &ctx, &wc);
	rdma_rw_ctx_destroy(&ctx, t->a.qp, 1, NULL, 0, dir);
	vt_rw_end(t, ret, &wc);
}

static void rw_ranges(struct kunit *test)
{
	static const struct { u32 off, len; } ranges[] = {
		{ 1, 1 }, { SZ_4K - 1, 2 }, { SZ_4K, SZ_64K },
		{ SZ_4K, SZ_64K + 1 }, { SZ_4K - 1, SZ_64K + 1 },
		{ 12345, VT_MR_LEN }, { 0, VT_MR_LEN },
	};
	struct vt *t = vt_connect_rw(test);
	u32 i, off, len;

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		off = ranges[i].off;
		len = ranges[i].len;
		vt_model_mr(t, 0, off, len);
		vt_rw_addr(t, off, len, DMA_TO_DEVICE);
		vt_compare(t);
		/* Elsewhere, or nobody would see whether it was read. */
		vt_model_read(t, off + 7, 0, len);
		vt_rw_addr(t, off + 7, len, DMA_FROM_DEVICE);
		vt_compare(t);
	}
}
#endif

/* Everything goes away while copies are running, in the wrong order. */
static void destroy_while_copying(struct kunit *test)
{
	struct vt *t = vt_start_writes(test, 32);

	ib_dereg_mr(t->mr);
	t->mr = NULL;
	memcpy(t->dst.mem, t->dst.model, VT_BUF_SIZE);
	ib_destroy_qp(t->b.qp);
	t->b.qp = NULL;
	ib_destroy_qp(t->a.qp);
	t->a.qp = NULL;
	msleep(50);
}

static struct kunit_case vt_cases[] = {
	KUNIT_CASE(send_odd_sges),
	KUNIT_CASE(write_odd_sges),
	KUNIT_CASE(read_odd_sges),
	KUNIT_CASE(write_to_bounds),
	KUNIT_CASE(send_from_mr),
	KUNIT_CASE(immediate_data),
	KUNIT_CASE(empty_write),
	KUNIT_CASE(send_after_write),
	KUNIT_CASE(send_invalidate),
	KUNIT_CASE(receiver_late),
	KUNIT_CASE(invalidate_waits),
	KUNIT_CASE(error_state_waits),
	KUNIT_CASE(bad_rkey),
	KUNIT_CASE(stale_rkey),
	KUNIT_CASE(local_dma_lkey_as_rkey),
	KUNIT_CASE(global_rkey_of_other_pd),
	KUNIT_CASE(write_past_end),
	KUNIT_CASE(read_before_start),
	KUNIT_CASE(no_remote_write),
	KUNIT_CASE(no_remote_read),
	KUNIT_CASE(qp_no_remote_read),
	KUNIT_CASE(invalidated_mr),
	KUNIT_CASE(reg_mr_of_other_pd),
	KUNIT_CASE(reg_mr_twice),
	KUNIT_CASE(invalidate_stale_key),
	KUNIT_CASE(send_invalidate_bad_key),
	KUNIT_CASE(bad_lkey),
	KUNIT_CASE(local_bounds),
	KUNIT_CASE(receive_no_local_write),
	KUNIT_CASE(message_too_long),
	KUNIT_CASE(receiver_not_ready),
	KUNIT_CASE(peer_in_error_state),
	KUNIT_CASE(peer_gone),
	KUNIT_CASE(flushed_in_order),
	KUNIT_CASE(error_while_copying),
	KUNIT_CASE(states),
	KUNIT_CASE(queues_full),
	KUNIT_CASE(malformed_wrs),
	KUNIT_CASE(pages_of_mr),
	KUNIT_CASE(srq_send),
	KUNIT_CASE(srq_error_state),
	KUNIT_CASE(srq_receiver_late),
	KUNIT_CASE(srq_empty),
	KUNIT_CASE(srq_message_too_long),
	KUNIT_CASE(srq_full),
	KUNIT_CASE(rw_segments),
	KUNIT_CASE(rw_bio_vecs),
#ifdef VT_DMA_ADDR
	KUNIT_CASE(rw_ranges),
#endif
	KUNIT_CASE(destroy_while_copying),
	{ }
};

static struct kunit_suite vt_suite = {
	.name		= "rnic_verbs",
	.init		= vt_init,
	.exit		= vt_exit,
	.test_cases	= vt_cases,
};

kunit_test_suite(vt_suite);

MODULE_DESCRIPTION("Tests of a loopback RDMA device's verbs (for testing only)");
MODULE_LICENSE("GPL");
