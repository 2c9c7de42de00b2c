// SPDX-License-Identifier: GPL-2.0
/*
 * Queue pairs of the loopback RoCE NIC: their life, and posting to them.
 */
#include <linux/dma-mapping.h>
#include <linux/slab.h>
#include <rdma/ib_cache.h>

#include "rnic_loop.h"

/* Have the send queue looked at. The caller makes sure that @qp stays. */
void rnic_qp_kick(struct rnic_qp *qp)
{
	queue_work(rnic_qp_dev(qp)->wq, &qp->work);
}

void rnic_qp_put(struct rnic_qp *qp)
{
	if (refcount_dec_and_test(&qp->refs))
		complete(&qp->unused);
}

static void rnic_qp_timeout(struct timer_list *timer)
{
	struct rnic_qp *qp = timer_container_of(qp, timer, timer);

	rnic_qp_kick(qp);
}

static int rnic_check_init(const struct ib_qp_init_attr *init)
{
	const struct ib_qp_cap *cap = &init->cap;

	if (init->qp_type != IB_QPT_RC && init->qp_type != IB_QPT_GSI)
		return -EOPNOTSUPP;
	if (init->create_flags & ~IB_QP_CREATE_INTEGRITY_EN)
		return -EOPNOTSUPP;
	if (init->srq && init->qp_type != IB_QPT_RC)
		return -EOPNOTSUPP;
	if (cap->max_inline_data)
		return -EINVAL;
	if (cap->max_send_wr > RNIC_MAX_WR || cap->max_recv_wr > RNIC_MAX_WR)
		return -EINVAL;
	if (cap->max_send_sge > RNIC_MAX_SGE ||
	    cap->max_recv_sge > RNIC_MAX_SGE)
		return -EINVAL;
	return 0;
}

static void rnic_free_queues(struct rnic_qp *qp)
{
	kvfree(qp->rq_sges);
	kvfree(qp->rq);
	kvfree(qp->sq_sges);
	kvfree(qp->sq);
}

static int rnic_alloc_queues(struct rnic_qp *qp, struct ib_qp_cap *cap)
{
	u32 i;

	cap->max_send_wr = roundup_pow_of_two(max(cap->max_send_wr, 1U));
	cap->max_recv_wr = roundup_pow_of_two(max(cap->max_recv_wr, 1U));
	cap->max_send_sge = max(cap->max_send_sge, 1U);
	cap->max_recv_sge = max(cap->max_recv_sge, 1U);
	qp->cap = *cap;

	qp->sq = kvzalloc_objs(*qp->sq, cap->max_send_wr);
	qp->sq_sges = kvzalloc_objs(*qp->sq_sges,
				    cap->max_send_wr * cap->max_send_sge);
	qp->rq = kvzalloc_objs(*qp->rq, cap->max_recv_wr);
	qp->rq_sges = kvzalloc_objs(*qp->rq_sges,
				    cap->max_recv_wr * cap->max_recv_sge);
	if (!qp->sq || !qp->sq_sges || !qp->rq || !qp->rq_sges) {
		rnic_free_queues(qp);
		return -ENOMEM;
	}

	for (i = 0; i < cap->max_send_wr; i++)
		qp->sq[i].sge = &qp->sq_sges[i * cap->max_send_sge];
	for (i = 0; i < cap->max_recv_wr; i++)
		qp->rq[i].sge = &qp->rq_sges[i * cap->max_recv_sge];
	return 0;
}

static int rnic_alloc_grh(struct rnic_qp *qp)
{
	if (qp->ibqp.qp_type != IB_QPT_GSI)
		return 0;

	qp->grh = dma_alloc_coherent(qp->ibqp.device->dma_device,
				     sizeof(*qp->grh), &qp->grh_dma,
				     GFP_KERNEL);
	return qp->grh ? 0 : -ENOMEM;
}

static void rnic_free_grh(struct rnic_qp *qp)
{
	if (qp->grh)
		dma_free_coherent(qp->ibqp.device->dma_device,
				  sizeof(*qp->grh), qp->grh, qp->grh_dma);
}

static int rnic_publish_qp(struct rnic_qp *qp)
{
	struct rnic_dev *dev = rnic_qp_dev(qp);
	static u32 next_qpn;
	int ret;

	/* Whoever finds the queue pair needs its number. */
	if (qp->ibqp.qp_type == IB_QPT_GSI) {
		qp->ibqp.qp_num = RNIC_GSI_QPN;
		return xa_insert(&dev->qps, RNIC_GSI_QPN, qp, GFP_KERNEL);
	}

	/* Cyclic, so that nobody talks to a successor by mistake. */
	ret = xa_alloc_cyclic(&dev->qps, &qp->ibqp.qp_num, qp,
			      XA_LIMIT(RNIC_FIRST_QPN, RNIC_LAST_QPN),
			      &next_qpn, GFP_KERNEL);
	return ret < 0 ? ret : 0;
}

int rnic_create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *init,
		   struct ib_udata *udata)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);
	int ret;

	ret = rnic_check_init(init);
	if (ret)
		return ret;

	spin_lock_init(&qp->lock);
	refcount_set(&qp->refs, 1);
	init_completion(&qp->unused);
	INIT_WORK(&qp->work, rnic_qp_work);
	timer_setup(&qp->timer, rnic_qp_timeout, 0);
	qp->sq_sig_all = init->sq_sig_type == IB_SIGNAL_ALL_WR;
	qp->srq_wqe.sge = qp->srq_sges;
	qp->state = IB_QPS_RESET;

	ret = rnic_alloc_queues(qp, &init->cap);
	if (ret)
		return ret;

	ret = rnic_alloc_grh(qp);
	if (ret)
		goto free_queues;

	ret = rnic_publish_qp(qp);
	if (ret)
		goto free_grh;

	return 0;

free_grh:
	rnic_free_grh(qp);
free_queues:
	rnic_free_queues(qp);
	return ret;
}

static bool rnic_qp_idle(struct rnic_qp *qp)
{
	bool idle;

	spin_lock_irq(&qp->lock);
	idle = !qp->op.active && !qp->responding;
	spin_unlock_irq(&qp->lock);

	return idle;
}

/*
 * Stop all that is under way for the queue pair, and forget what was posted.
 * Copies are waited for: they end because the copy engine limits their time.
 */
static void rnic_qp_reset(struct rnic_qp *qp)
{
	struct rnic_dev *dev = rnic_qp_dev(qp);

	spin_lock_irq(&qp->lock);
	qp->state = IB_QPS_RESET;
	spin_unlock_irq(&qp->lock);

	rnic_qp_kick(qp);
	wait_event(dev->wait, rnic_qp_idle(qp));
	timer_delete_sync(&qp->timer);
	cancel_work_sync(&qp->work);

	spin_lock_irq(&qp->lock);
	qp->sq_tail = qp->sq_head;
	qp->rq_tail = qp->rq_head;
	qp->srq_taken = false;
	qp->srq_last = false;
	spin_unlock_irq(&qp->lock);
}

int rnic_destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);
	struct rnic_dev *dev = rnic_qp_dev(qp);

	rnic_qp_reset(qp);
	xa_erase(&dev->qps, ibqp->qp_num);
	rnic_qp_put(qp);
	wait_for_completion(&qp->unused);
	/* The last user may have kicked it. */
	cancel_work_sync(&qp->work);
	timer_shutdown_sync(&qp->timer);

	rnic_free_grh(qp);
	rnic_free_queues(qp);
	return 0;
}

/* Only packets to an address of this device come back. */
bool rnic_is_own_gid(struct ib_device *ibdev, const union ib_gid *gid)
{
	const struct ib_gid_attr *attr;

	attr = rdma_find_gid_by_port(ibdev, gid, IB_GID_TYPE_ROCE_UDP_ENCAP, 1,
				     NULL);
	if (IS_ERR(attr))
		return false;

	rdma_put_gid_attr(attr);
	return true;
}

static void rnic_set_path(struct rnic_qp *qp, const struct ib_qp_attr *attr,
			  int mask)
{
	if (mask & IB_QP_AV) {
		qp->attr.ah_attr = attr->ah_attr;
		/* The reference is the caller's. */
		qp->attr.ah_attr.grh.sgid_attr = NULL;
	}
	if (mask & IB_QP_PATH_MTU)
		qp->attr.path_mtu = attr->path_mtu;
	if (mask & IB_QP_DEST_QPN)
		qp->attr.dest_qp_num = attr->dest_qp_num;
	if (mask & IB_QP_RQ_PSN)
		qp->attr.rq_psn = attr->rq_psn;
	if (mask & IB_QP_SQ_PSN)
		qp->attr.sq_psn = attr->sq_psn;
	if (mask & IB_QP_PORT)
		qp->attr.port_num = attr->port_num;
	if (mask & IB_QP_QKEY)
		qp->attr.qkey = attr->qkey;
}

static void rnic_set_limits(struct rnic_qp *qp, const struct ib_qp_attr *attr,
			    int mask)
{
	if (mask & IB_QP_ACCESS_FLAGS)
		qp->attr.qp_access_flags = attr->qp_access_flags;
	if (mask & IB_QP_TIMEOUT)
		qp->attr.timeout = attr->timeout;
	if (mask & IB_QP_RETRY_CNT)
		qp->attr.retry_cnt = attr->retry_cnt;
	if (mask & IB_QP_RNR_RETRY)
		qp->attr.rnr_retry = attr->rnr_retry;
	if (mask & IB_QP_MIN_RNR_TIMER)
		qp->attr.min_rnr_timer = attr->min_rnr_timer;
	if (mask & IB_QP_MAX_QP_RD_ATOMIC)
		qp->attr.max_rd_atomic = attr->max_rd_atomic;
	if (mask & IB_QP_MAX_DEST_RD_ATOMIC)
		qp->attr.max_dest_rd_atomic = attr->max_dest_rd_atomic;
	qp->retries = qp->attr.retry_cnt;
	qp->rnr_retries = qp->attr.rnr_retry;
}

static int rnic_check_attr(const struct ib_qp_attr *attr, int mask)
{
	if ((mask & IB_QP_PORT) && attr->port_num != 1)
		return -EINVAL;
	if ((mask & IB_QP_PKEY_INDEX) && attr->pkey_index)
		return -EINVAL;
	if ((mask & IB_QP_AV) && !(attr->ah_attr.ah_flags & IB_AH_GRH))
		return -EINVAL;
	if ((mask & IB_QP_TIMEOUT) && attr->timeout > RNIC_MAX_TIME)
		return -EINVAL;
	if ((mask & IB_QP_MIN_RNR_TIMER) && attr->min_rnr_timer > RNIC_MAX_TIME)
		return -EINVAL;
	if ((mask & IB_QP_MAX_QP_RD_ATOMIC) &&
	    attr->max_rd_atomic > RNIC_MAX_RD_ATOMIC)
		return -EINVAL;
	if ((mask & IB_QP_MAX_DEST_RD_ATOMIC) &&
	    attr->max_dest_rd_atomic > RNIC_MAX_RD_ATOMIC)
		return -EINVAL;
	return 0;
}

int rnic_modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		   struct ib_udata *udata)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);
	enum ib_qp_state cur, next;
	bool unreachable = false;
	int ret;

	if (mask & ~IB_QP_ATTR_STANDARD_BITS)
		return -EOPNOTSUPP;
	/* Nobody in the kernel drains by this state. */
	if ((mask & IB_QP_STATE) && attr->qp_state == IB_QPS_SQD)
		return -EOPNOTSUPP;

	ret = rnic_check_attr(attr, mask);
	if (ret)
		return ret;

	if (mask & IB_QP_AV)
		unreachable = !rnic_is_own_gid(ibqp->device,
					       &attr->ah_attr.grh.dgid);

	spin_lock_irq(&qp->lock);
	cur = mask & IB_QP_CUR_STATE ? attr->cur_qp_state : qp->state;
	next = mask & IB_QP_STATE ? attr->qp_state : cur;
	if (cur != qp->state ||
	    !ib_modify_qp_is_ok(cur, next, ibqp->qp_type, mask)) {
		spin_unlock_irq(&qp->lock);
		return -EINVAL;
	}
	if (mask & IB_QP_AV)
		qp->unreachable = unreachable;
	rnic_set_path(qp, attr, mask);
	rnic_set_limits(qp, attr, mask);
	if (next != IB_QPS_RESET)
		qp->state = next;
	spin_unlock_irq(&qp->lock);

	rnic_qp_kick(qp);
	if (next == IB_QPS_RESET)
		rnic_qp_reset(qp);
	else if (next == IB_QPS_ERR)
		wait_event(rnic_qp_dev(qp)->wait, !READ_ONCE(qp->responding));
	return 0;
}

int rnic_query_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		  struct ib_qp_init_attr *init)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);

	spin_lock_irq(&qp->lock);
	*attr = qp->attr;
	attr->qp_state = qp->state;
	attr->cur_qp_state = qp->state;
	attr->cap = qp->cap;
	spin_unlock_irq(&qp->lock);

	init->event_handler = ibqp->event_handler;
	init->qp_context = ibqp->qp_context;
	init->send_cq = ibqp->send_cq;
	init->recv_cq = ibqp->recv_cq;
	init->srq = ibqp->srq;
	init->qp_type = ibqp->qp_type;
	init->sq_sig_type = qp->sq_sig_all ? IB_SIGNAL_ALL_WR :
					     IB_SIGNAL_REQ_WR;
	init->cap = attr->cap;
	init->port_num = 1;
	return 0;
}

static int rnic_check_rc_wr(const struct rnic_qp *qp,
			    const struct ib_send_wr *wr)
{
	const int remote = IB_ACCESS_REMOTE_WRITE | IB_ACCESS_REMOTE_ATOMIC;

	switch (wr->opcode) {
	case IB_WR_SEND:
	case IB_WR_SEND_WITH_IMM:
	case IB_WR_SEND_WITH_INV:
	case IB_WR_RDMA_WRITE:
	case IB_WR_RDMA_WRITE_WITH_IMM:
	case IB_WR_RDMA_READ:
	case IB_WR_LOCAL_INV:
		return 0;
	case IB_WR_REG_MR:
	case IB_WR_REG_MR_INTEGRITY:
		/* Remote write access requires local write access. */
		if ((reg_wr(wr)->access & remote) &&
		    !(reg_wr(wr)->access & IB_ACCESS_LOCAL_WRITE))
			return -EINVAL;
		if ((reg_wr(wr)->key ^ reg_wr(wr)->mr->lkey) >> RNIC_KEY_SHIFT)
			return -EINVAL;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int rnic_check_send(const struct rnic_qp *qp,
			   const struct ib_send_wr *wr)
{
	if (qp->state != IB_QPS_RTS && qp->state != IB_QPS_SQE &&
	    qp->state != IB_QPS_ERR)
		return -EINVAL;
	if (qp->sq_head - qp->sq_tail == qp->cap.max_send_wr)
		return -ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > qp->cap.max_send_sge ||
	    (wr->send_flags & IB_SEND_INLINE))
		return -EINVAL;
	if (qp->ibqp.qp_type == IB_QPT_GSI)
		return wr->opcode == IB_WR_SEND ? 0 : -EOPNOTSUPP;
	return rnic_check_rc_wr(qp, wr);
}

static void rnic_copy_opcode(const struct rnic_qp *qp, struct rnic_swqe *wqe,
			     const struct ib_send_wr *wr)
{
	switch (wr->opcode) {
	case IB_WR_RDMA_WRITE:
	case IB_WR_RDMA_WRITE_WITH_IMM:
	case IB_WR_RDMA_READ:
		wqe->remote_addr = rdma_wr(wr)->remote_addr;
		wqe->rkey = rdma_wr(wr)->rkey;
		break;
	case IB_WR_REG_MR:
	case IB_WR_REG_MR_INTEGRITY:
		wqe->reg_key = reg_wr(wr)->key;
		wqe->reg_access = reg_wr(wr)->access;
		break;
	default:
		if (qp->ibqp.qp_type != IB_QPT_GSI)
			break;
		wqe->av = to_rnic_ah(ud_wr(wr)->ah)->av;
		wqe->remote_qpn = ud_wr(wr)->remote_qpn;
		wqe->remote_qkey = ud_wr(wr)->remote_qkey;
	}
}

static void rnic_copy_send(struct rnic_qp *qp, const struct ib_send_wr *wr)
{
	struct rnic_swqe *wqe;

	wqe = &qp->sq[qp->sq_head++ & (qp->cap.max_send_wr - 1)];
	wqe->wr_id = wr->wr_id;
	wqe->opcode = wr->opcode;
	wqe->send_flags = wr->send_flags;
	/* The immediate data has the same place. */
	wqe->invalidate_rkey = wr->ex.invalidate_rkey;
	wqe->num_sge = wr->num_sge;
	memcpy(wqe->sge, wr->sg_list, wr->num_sge * sizeof(*wqe->sge));
	rnic_copy_opcode(qp, wqe, wr);
}

int rnic_post_send(struct ib_qp *ibqp, const struct ib_send_wr *wr,
		   const struct ib_send_wr **bad_wr)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);
	unsigned long flags;
	int ret = 0;

	spin_lock_irqsave(&qp->lock, flags);
	for (; wr; wr = wr->next) {
		ret = rnic_check_send(qp, wr);
		if (ret)
			break;
		rnic_copy_send(qp, wr);
	}
	/* Under the lock, for the queue pair may vanish after its WRs. */
	rnic_qp_kick(qp);
	spin_unlock_irqrestore(&qp->lock, flags);

	*bad_wr = wr;
	return ret;
}

static int rnic_check_recv(const struct rnic_qp *qp,
			   const struct ib_recv_wr *wr)
{
	if (qp->state == IB_QPS_RESET || qp->ibqp.srq)
		return -EINVAL;
	if (qp->rq_head - qp->rq_tail == qp->cap.max_recv_wr)
		return -ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > qp->cap.max_recv_sge)
		return -EINVAL;
	return 0;
}

void rnic_copy_recv(struct rnic_rwqe *wqe, const struct ib_recv_wr *wr)
{
	wqe->wr_id = wr->wr_id;
	wqe->num_sge = wr->num_sge;
	memcpy(wqe->sge, wr->sg_list, wr->num_sge * sizeof(*wqe->sge));
}

int rnic_post_recv(struct ib_qp *ibqp, const struct ib_recv_wr *wr,
		   const struct ib_recv_wr **bad_wr)
{
	struct rnic_qp *qp = to_rnic_qp(ibqp);
	unsigned long flags;
	int ret = 0;

	spin_lock_irqsave(&qp->lock, flags);
	for (; wr; wr = wr->next) {
		ret = rnic_check_recv(qp, wr);
		if (ret)
			break;
		rnic_copy_recv(&qp->rq[qp->rq_head++ &
				       (qp->cap.max_recv_wr - 1)], wr);
	}
	/* To be flushed */
	if (qp->state == IB_QPS_ERR)
		rnic_qp_kick(qp);
	spin_unlock_irqrestore(&qp->lock, flags);

	*bad_wr = wr;
	return ret;
}
