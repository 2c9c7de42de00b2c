// SPDX-License-Identifier: GPL-2.0
/*
 * The send queues of the loopback RoCE NIC.
 *
 *   post_send() --> ring --> work: check both sides --> copies --> callback
 *                             ^                                      |
 *                             '--------------------------------------'
 *
 * A queue pair executes one WR at a time, and starts the next one only when all
 * bytes of the previous one have arrived. This is a stricter order than the
 * specification requires; it makes a SEND arrive after the data of an RDMA
 * WRITE. Different queue pairs run concurrently.
 *
 * A connection has both of its ends in this device. The requester's work does
 * the responder's part as well: it looks for the receive WR or the memory
 * region, checks the responder's rights, and completes the receive WR before
 * its own. It never holds the locks of both.
 */
#include <linux/jiffies.h>

#include "rnic_loop.h"

/* How soon to look again for something that is only held for a short time */
#define RNIC_SOON	1
/* How long the copy engine may refuse a copy before that is an error */
#define RNIC_STARVED	(5 * HZ)

static struct rnic_qp *rnic_qp_get(struct rnic_dev *dev, u32 qpn)
{
	struct rnic_qp *qp;

	xa_lock(&dev->qps);
	qp = xa_load(&dev->qps, qpn);
	if (qp)
		refcount_inc(&qp->refs);
	xa_unlock(&dev->qps);

	return qp;
}

static bool rnic_may_respond(const struct rnic_qp *peer,
			     const struct rnic_qp *qp)
{
	if (qp->ibqp.qp_type == IB_QPT_GSI)
		return rnic_ud_may_respond(peer, qp);

	return peer->ibqp.qp_type == IB_QPT_RC &&
	       peer->attr.dest_qp_num == qp->ibqp.qp_num &&
	       (peer->state == IB_QPS_RTR || peer->state == IB_QPS_RTS);
}

/**
 * rnic_engage - find the responder and make it take part in the operation
 * @qp:		the requester
 * @qpn:	number of the responder
 *
 * Until it is released, the responder flushes no receive WRs, and waits before
 * it enters the error state, after which the consumer relies on nothing
 * touching its memory any more.
 *
 * Return: true if there is a responder.
 */
bool rnic_engage(struct rnic_qp *qp, u32 qpn)
{
	struct rnic_qp *peer = rnic_qp_get(rnic_qp_dev(qp), qpn);
	bool engaged;

	if (!peer)
		return false;

	spin_lock_irq(&peer->lock);
	engaged = !peer->responding && rnic_may_respond(peer, qp);
	if (engaged)
		peer->responding = true;
	spin_unlock_irq(&peer->lock);

	if (engaged)
		qp->op.peer = peer;
	else
		rnic_qp_put(peer);
	return engaged;
}

static void rnic_disengage(struct rnic_op *op)
{
	struct rnic_qp *peer = op->peer;

	spin_lock_irq(&peer->lock);
	peer->responding = false;
	/* It may have receive WRs to flush. */
	if (peer->state == IB_QPS_ERR)
		rnic_qp_kick(peer);
	spin_unlock_irq(&peer->lock);

	wake_up_all(&rnic_qp_dev(peer)->wait);
	rnic_qp_put(peer);
	op->peer = NULL;
	op->recv = NULL;
}

/*
 * The WR stays in its queue until rnic_complete_recv(). One of a shared queue is
 * taken off it, but stays with the queue pair.
 */
bool rnic_take_recv(struct rnic_op *op)
{
	struct rnic_qp *peer = op->peer;
	struct ib_srq *srq = peer->ibqp.srq;

	spin_lock_irq(&peer->lock);
	if (srq) {
		if (!peer->srq_taken)
			peer->srq_taken = rnic_srq_take(to_rnic_srq(srq),
							&peer->srq_wqe);
		if (peer->srq_taken)
			op->recv = &peer->srq_wqe;
	} else if (peer->rq_tail != peer->rq_head) {
		op->recv = rnic_rq_tail(peer);
	}
	spin_unlock_irq(&peer->lock);

	return op->recv;
}

bool rnic_recv_fits(const struct rnic_rwqe *recv, u32 len)
{
	u64 room = 0;
	unsigned int i;

	for (i = 0; i < recv->num_sge; i++)
		room += recv->sge[i].length;
	return len <= room;
}

/* Let @len bytes arrive at the memory of the receive WR, where there is room */
int rnic_scatter(struct rnic_op *op, u32 len)
{
	struct rnic_dev *dev = rnic_qp_dev(op->peer);
	struct ib_sge sge;
	unsigned int i;
	int ret;

	for (i = 0; len; i++) {
		sge = op->recv->sge[i];
		sge.length = min(sge.length, len);
		len -= sge.length;
		ret = rnic_iter_add(dev, &op->dst, op->peer->ibqp.pd, &sge,
				    IB_ACCESS_LOCAL_WRITE);
		if (ret)
			return ret;
	}
	return 0;
}

static bool rnic_cut(const struct rnic_swqe *wqe)
{
	return wqe->opcode == IB_WR_SEND && wqe->num_sge > 1 &&
	       READ_ONCE(rnic_cut_send) && xchg(&rnic_cut_send, false);
}

/* Add up the requester's side of a message; an error is in the status */
int rnic_gather(struct rnic_qp *qp, struct rnic_iter *iter, int access)
{
	const struct rnic_swqe *wqe = qp->op.wqe;
	unsigned int num_sge = rnic_cut(wqe) ? 1 : wqe->num_sge;
	struct rnic_dev *dev = rnic_qp_dev(qp);
	unsigned int i;
	u64 len = 0;

	for (i = 0; i < num_sge; i++) {
		if (rnic_iter_add(dev, iter, qp->ibqp.pd, &wqe->sge[i],
				  access)) {
			qp->op.status = IB_WC_LOC_PROT_ERR;
			return -EACCES;
		}
		len += wqe->sge[i].length;
	}

	if (len > RNIC_MAX_MSG) {
		qp->op.status = IB_WC_LOC_LEN_ERR;
		return -EMSGSIZE;
	}

	qp->op.len = len;
	return 0;
}

/* The responder refuses: both sides get an error. */
static enum rnic_verdict rnic_nak(struct rnic_op *op, enum ib_wc_status status,
				  enum ib_wc_status recv_status)
{
	op->status = status;
	op->recv_status = recv_status;
	op->fail_peer = true;
	return RNIC_END;
}

static enum rnic_verdict rnic_start_send(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	int ret;

	if (!rnic_take_recv(op))
		return RNIC_NOT_READY;

	if (!rnic_recv_fits(op->recv, op->len))
		return rnic_nak(op, IB_WC_REM_INV_REQ_ERR, IB_WC_LOC_LEN_ERR);
	if (rnic_scatter(op, op->len))
		return rnic_nak(op, IB_WC_REM_OP_ERR, IB_WC_LOC_PROT_ERR);
	if (op->wqe->opcode != IB_WR_SEND_WITH_INV)
		return RNIC_COPY;

	ret = rnic_mr_invalidate(rnic_qp_dev(qp), op->peer->ibqp.pd,
				 op->wqe->invalidate_rkey);
	if (ret == -EBUSY)
		return RNIC_BUSY;
	if (ret)
		return rnic_nak(op, IB_WC_REM_ACCESS_ERR, IB_WC_LOC_ACCESS_ERR);
	return RNIC_COPY;
}

/* An RDMA READ or WRITE, with the responder's memory in @iter */
static enum rnic_verdict rnic_start_rdma(struct rnic_qp *qp,
					 struct rnic_iter *iter, int access)
{
	struct rnic_op *op = &qp->op;
	struct rnic_qp *peer = op->peer;
	struct ib_sge sge = {
		.addr	= op->wqe->remote_addr,
		.length	= op->len,
		.lkey	= op->wqe->rkey,
	};

	if (!(peer->attr.qp_access_flags & access))
		return rnic_nak(op, IB_WC_REM_INV_REQ_ERR, IB_WC_SUCCESS);
	if (rnic_iter_add(rnic_qp_dev(qp), iter, peer->ibqp.pd, &sge, access))
		return rnic_nak(op, IB_WC_REM_ACCESS_ERR, IB_WC_SUCCESS);

	/* The immediate data needs a receive WR, but not its memory. */
	if (op->wqe->opcode == IB_WR_RDMA_WRITE_WITH_IMM &&
	    !rnic_take_recv(op))
		return RNIC_NOT_READY;
	return RNIC_COPY;
}

static enum ib_wc_status rnic_refuse(const struct rnic_swqe *wqe)
{
	bool read = wqe->opcode == IB_WR_RDMA_READ;
	bool *fail = read ? &rnic_fail_read : &rnic_fail_write;

	if (!read && wqe->opcode != IB_WR_RDMA_WRITE)
		return IB_WC_SUCCESS;
	if (READ_ONCE(*fail) && xchg(fail, false))
		return IB_WC_GENERAL_ERR;
	if (read && rnic_read_needs_mr && wqe->num_sge &&
	    (wqe->num_sge > 1 || wqe->sge->lkey == RNIC_LOCAL_DMA_LKEY))
		return IB_WC_LOC_PROT_ERR;
	return IB_WC_SUCCESS;
}

static enum rnic_verdict rnic_start_message(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	bool read = op->wqe->opcode == IB_WR_RDMA_READ;
	int ret;

	if (READ_ONCE(rnic_hold)) {
		cmpxchg(&rnic_hold, 1, 2);
		return RNIC_BUSY;
	}

	op->status = rnic_refuse(op->wqe);
	if (op->status)
		return RNIC_END;

	if (read)
		ret = rnic_gather(qp, &op->dst, IB_ACCESS_LOCAL_WRITE);
	else
		ret = rnic_gather(qp, &op->src, 0);
	if (ret)
		return RNIC_END;

	if (qp->unreachable || READ_ONCE(rnic_unplugged) ||
	    !rnic_engage(qp, qp->attr.dest_qp_num))
		return RNIC_NO_ANSWER;

	switch (op->wqe->opcode) {
	case IB_WR_RDMA_READ:
		return rnic_start_rdma(qp, &op->src, IB_ACCESS_REMOTE_READ);
	case IB_WR_RDMA_WRITE:
	case IB_WR_RDMA_WRITE_WITH_IMM:
		return rnic_start_rdma(qp, &op->dst, IB_ACCESS_REMOTE_WRITE);
	default:
		return rnic_start_send(qp);
	}
}

static enum rnic_verdict rnic_start(struct rnic_qp *qp)
{
	struct rnic_dev *dev = rnic_qp_dev(qp);
	struct rnic_op *op = &qp->op;
	int ret;

	if (qp->ibqp.qp_type == IB_QPT_GSI)
		return rnic_ud_start(qp);

	switch (op->wqe->opcode) {
	case IB_WR_REG_MR:
	case IB_WR_REG_MR_INTEGRITY:
		ret = rnic_mr_register(dev, qp->ibqp.pd, op->wqe->reg_key,
				       op->wqe->reg_access);
		break;
	case IB_WR_LOCAL_INV:
		ret = rnic_mr_invalidate(dev, qp->ibqp.pd,
					 op->wqe->invalidate_rkey);
		break;
	default:
		return rnic_start_message(qp);
	}

	if (ret == -EBUSY)
		return RNIC_BUSY;
	if (ret)
		op->status = IB_WC_MW_BIND_ERR;
	return RNIC_END;
}

static enum ib_wc_opcode rnic_wc_opcode(enum ib_wr_opcode opcode)
{
	switch (opcode) {
	case IB_WR_RDMA_WRITE:
	case IB_WR_RDMA_WRITE_WITH_IMM:
		return IB_WC_RDMA_WRITE;
	case IB_WR_RDMA_READ:
		return IB_WC_RDMA_READ;
	case IB_WR_LOCAL_INV:
		return IB_WC_LOCAL_INV;
	case IB_WR_REG_MR:
	case IB_WR_REG_MR_INTEGRITY:
		return IB_WC_REG_MR;
	default:
		return IB_WC_SEND;
	}
}

/* Nobody uses the receive WR of the queue pair any more. */
static void rnic_recv_done(struct rnic_qp *qp)
{
	lockdep_assert_held(&qp->lock);

	if (qp->ibqp.srq)
		qp->srq_taken = false;
	else
		qp->rq_tail++;
}

static void rnic_complete_recv(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	struct rnic_qp *peer = op->peer;
	bool solicited = op->wqe->send_flags & IB_SEND_SOLICITED;
	struct ib_wc wc = {
		.wr_id		= op->recv->wr_id,
		.status		= op->recv_status,
		.opcode		= IB_WC_RECV,
		.byte_len	= op->len,
		.qp		= &peer->ibqp,
		.src_qp		= qp->ibqp.qp_num,
		.port_num	= 1,
	};
	bool reset;

	switch (op->wqe->opcode) {
	case IB_WR_RDMA_WRITE_WITH_IMM:
		wc.opcode = IB_WC_RECV_RDMA_WITH_IMM;
		fallthrough;
	case IB_WR_SEND_WITH_IMM:
		wc.wc_flags = IB_WC_WITH_IMM;
		wc.ex.imm_data = op->wqe->imm_data;
		break;
	case IB_WR_SEND_WITH_INV:
		wc.wc_flags = IB_WC_WITH_INVALIDATE;
		wc.ex.invalidate_rkey = op->wqe->invalidate_rkey;
		break;
	default:
		if (qp->ibqp.qp_type == IB_QPT_GSI)
			rnic_ud_fill_wc(op, &wc);
	}

	/* The consumer may post the next one as soon as it knows. */
	spin_lock_irq(&peer->lock);
	reset = peer->state == IB_QPS_RESET;
	rnic_recv_done(peer);
	spin_unlock_irq(&peer->lock);

	if (!reset)
		rnic_cq_push(peer->ibqp.recv_cq, &wc, solicited);
}

static void rnic_fail_peer(struct rnic_op *op)
{
	struct rnic_qp *peer = op->peer;
	struct ib_event event = {
		.device		= peer->ibqp.device,
		.element.qp	= &peer->ibqp,
		.event		= op->status == IB_WC_REM_ACCESS_ERR ?
				  IB_EVENT_QP_ACCESS_ERR : IB_EVENT_QP_REQ_ERR,
	};
	bool alive;

	spin_lock_irq(&peer->lock);
	alive = peer->state != IB_QPS_RESET && peer->state != IB_QPS_ERR;
	if (alive)
		peer->state = IB_QPS_ERR;
	spin_unlock_irq(&peer->lock);

	rnic_qp_kick(peer);
	/* Without a receive WR, this is how the responder's owner knows. */
	if (alive && !op->recv_status)
		peer->ibqp.event_handler(&event, peer->ibqp.qp_context);
}

/* Let go of all that is held for the WR, except for the WR itself */
static void rnic_op_release(struct rnic_qp *qp)
{
	struct rnic_dev *dev = rnic_qp_dev(qp);
	struct rnic_op *op = &qp->op;

	rnic_iter_release(dev, &op->src);
	rnic_iter_release(dev, &op->dst);
	if (op->peer)
		rnic_disengage(op);
}

static void rnic_op_inactive(struct rnic_qp *qp)
{
	spin_lock_irq(&qp->lock);
	qp->op.active = false;
	spin_unlock_irq(&qp->lock);
	wake_up_all(&rnic_qp_dev(qp)->wait);
}

static void rnic_complete_send(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	bool signaled = qp->sq_sig_all || op->status ||
			(op->wqe->send_flags & IB_SEND_SIGNALED);
	struct ib_wc wc = {
		.wr_id		= op->wqe->wr_id,
		.status		= op->status,
		.opcode		= rnic_wc_opcode(op->wqe->opcode),
		.byte_len	= op->len,
		.qp		= &qp->ibqp,
		.port_num	= 1,
	};
	bool reset;

	spin_lock_irq(&qp->lock);
	reset = qp->state == IB_QPS_RESET;
	qp->sq_tail++;
	if (op->status && qp->state == IB_QPS_RTS)
		qp->state = qp->ibqp.qp_type == IB_QPT_RC ? IB_QPS_ERR :
							    IB_QPS_SQE;
	qp->retries = qp->attr.retry_cnt;
	qp->rnr_retries = qp->attr.rnr_retry;
	spin_unlock_irq(&qp->lock);

	if (signaled && !reset)
		rnic_cq_push(qp->ibqp.send_cq, &wc, false);
}

/* The receiver knows of a message before the sender does, as on a wire. */
static void rnic_op_finish(struct rnic_qp *qp)
{
	struct rnic_dev *dev = rnic_qp_dev(qp);
	struct rnic_op *op = &qp->op;

	/* Nobody may use the memory any more once it is completed. */
	rnic_iter_release(dev, &op->src);
	rnic_iter_release(dev, &op->dst);

	if (op->recv && op->status != IB_WC_WR_FLUSH_ERR)
		rnic_complete_recv(qp);
	if (op->fail_peer)
		rnic_fail_peer(op);
	rnic_op_release(qp);
	rnic_complete_send(qp);
	rnic_op_inactive(qp);
}

static void rnic_copied(void *arg, const struct dmaengine_result *result)
{
	struct rnic_qp *qp = arg;
	unsigned long flags;

	/*
	 * Kick under the lock: the queue pair may be gone as soon as somebody
	 * sees that nothing is pending.
	 */
	spin_lock_irqsave(&qp->lock, flags);
	if (result->result != DMA_TRANS_NOERROR)
		qp->op.copy_failed = true;
	if (!--qp->op.pending)
		rnic_qp_kick(qp);
	spin_unlock_irqrestore(&qp->lock, flags);
}

/* The next piece that is contiguous on both sides */
static u32 rnic_next_piece(struct rnic_qp *qp, dma_addr_t *dst,
			   dma_addr_t *src)
{
	u32 len = rnic_iter_peek(&qp->op.src, src);

	len = min(len, rnic_iter_peek(&qp->op.dst, dst));
	return min_t(size_t, len, rnic_qp_dev(qp)->max_copy);
}

/* Returns false if the copy engine cannot take the piece now. */
static bool rnic_submit(struct rnic_qp *qp, dma_addr_t dst, dma_addr_t src,
			u32 len)
{
	struct dma_async_tx_descriptor *tx;

	tx = dmaengine_prep_dma_memcpy(rnic_qp_dev(qp)->chan, dst, src, len,
				       DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
	if (!tx)
		return false;

	tx->callback_result = rnic_copied;
	tx->callback_param = qp;

	spin_lock_irq(&qp->lock);
	qp->op.pending++;
	spin_unlock_irq(&qp->lock);

	if (dma_submit_error(dmaengine_submit(tx)))
		rnic_copied(qp, &(struct dmaengine_result) {
			.result = DMA_TRANS_ABORTED,
		});
	return true;
}

/* Wait for the copy engine, but not for ever: it may not know the address. */
static bool rnic_starve(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;

	if (!op->starving)
		op->starving_since = jiffies;
	op->starving = true;

	if (time_after(jiffies, op->starving_since + RNIC_STARVED)) {
		op->copy_failed = true;
		return true;
	}

	mod_timer(&qp->timer, jiffies + RNIC_SOON);
	return false;
}

/*
 * Start as many copies as the engine takes. The rest follows when these are
 * done, or soon if others have used up the engine.
 */
static bool rnic_copy(struct rnic_qp *qp)
{
	bool started = false, done;
	dma_addr_t dst, src;
	u32 len;

	/* This one is ours: the last callback must not come too early. */
	spin_lock_irq(&qp->lock);
	qp->op.pending = 1;
	spin_unlock_irq(&qp->lock);

	while ((len = rnic_next_piece(qp, &dst, &src))) {
		if (!rnic_submit(qp, dst, src, len))
			break;
		rnic_iter_advance(&qp->op.src, len);
		rnic_iter_advance(&qp->op.dst, len);
		started = true;
	}
	dma_async_issue_pending(rnic_qp_dev(qp)->chan);

	spin_lock_irq(&qp->lock);
	done = !--qp->op.pending;
	spin_unlock_irq(&qp->lock);

	if (!len || started) {
		qp->op.starving = false;
		return done;
	}
	return rnic_starve(qp);
}

/* Nothing is being copied: copy the rest or finish. */
static bool rnic_op_continue(struct rnic_qp *qp, enum ib_qp_state state)
{
	struct rnic_op *op = &qp->op;
	dma_addr_t dst, src;

	if (op->copy_failed) {
		rnic_nak(op, IB_WC_GENERAL_ERR, IB_WC_GENERAL_ERR);
	} else if (rnic_next_piece(qp, &dst, &src)) {
		if (state == IB_QPS_RTS)
			return rnic_copy(qp);
		op->status = IB_WC_WR_FLUSH_ERR;
	}

	rnic_op_finish(qp);
	return true;
}

/*
 * The encoded time that a receiver asks for when it is not ready: 10 us to
 * 491.52 ms in steps of a factor of 4/3 and 3/2 in turn, and 655.36 ms.
 */
static unsigned long rnic_rnr_delay(u8 code)
{
	unsigned int usecs;

	if (!code)
		code = 32;
	if (code == 1)
		usecs = 10;
	else if (code % 2)
		usecs = 30U << (code / 2 - 1);
	else
		usecs = 10U << (code / 2);
	return usecs_to_jiffies(usecs);
}

/* 4.096 us * 2^code; 0 means for ever, so look now and then */
static unsigned long rnic_ack_delay(u8 code)
{
	return code ? nsecs_to_jiffies(4096ULL << code) + 1 : HZ;
}

/* Returns false if the WR was sent too often. */
static bool rnic_may_retry(struct rnic_qp *qp, enum rnic_verdict verdict,
			   unsigned long *delay)
{
	struct rnic_op *op = &qp->op;

	switch (verdict) {
	case RNIC_NO_ANSWER:
		*delay = rnic_ack_delay(qp->attr.timeout);
		op->status = IB_WC_RETRY_EXC_ERR;
		return !qp->attr.timeout || qp->retries--;
	case RNIC_NOT_READY:
		*delay = rnic_rnr_delay(op->peer->attr.min_rnr_timer);
		op->status = IB_WC_RNR_RETRY_EXC_ERR;
		/* 7 means for ever. */
		return qp->attr.rnr_retry == 7 || qp->rnr_retries--;
	default:
		*delay = RNIC_SOON;
		return true;
	}
}

static bool rnic_op_start(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	enum rnic_verdict verdict;
	unsigned long delay;

	verdict = rnic_start(qp);
	if (verdict == RNIC_COPY)
		return rnic_copy(qp);

	if (verdict == RNIC_END || !rnic_may_retry(qp, verdict, &delay)) {
		rnic_op_finish(qp);
		return true;
	}

	rnic_op_release(qp);
	op->status = IB_WC_SUCCESS;
	op->waiting = verdict == RNIC_BUSY;
	mod_timer(&qp->timer, jiffies + max(delay, 1UL));
	/* An error ends what is to be sent again, but not what has begun. */
	if (!op->waiting)
		rnic_op_inactive(qp);
	return false;
}

static bool rnic_flush_send(struct rnic_qp *qp)
{
	struct ib_wc wc = {
		.status	= IB_WC_WR_FLUSH_ERR,
		.qp	= &qp->ibqp,
	};
	bool found;

	spin_lock_irq(&qp->lock);
	found = (qp->state == IB_QPS_ERR || qp->state == IB_QPS_SQE) &&
		qp->sq_tail != qp->sq_head;
	if (found) {
		wc.wr_id = rnic_sq_tail(qp)->wr_id;
		wc.opcode = rnic_wc_opcode(rnic_sq_tail(qp)->opcode);
		qp->sq_tail++;
	}
	spin_unlock_irq(&qp->lock);

	if (found)
		rnic_cq_push(qp->ibqp.send_cq, &wc, false);
	return found;
}

static bool rnic_flush_recv(struct rnic_qp *qp)
{
	struct ib_wc wc = {
		.status	= IB_WC_WR_FLUSH_ERR,
		.opcode	= IB_WC_RECV,
		.qp	= &qp->ibqp,
	};
	bool found;

	spin_lock_irq(&qp->lock);
	found = qp->state == IB_QPS_ERR && !qp->responding &&
		(qp->srq_taken || qp->rq_tail != qp->rq_head);
	if (found) {
		wc.wr_id = qp->srq_taken ? qp->srq_wqe.wr_id :
					   rnic_rq_tail(qp)->wr_id;
		rnic_recv_done(qp);
	}
	spin_unlock_irq(&qp->lock);

	if (found)
		rnic_cq_push(qp->ibqp.recv_cq, &wc, false);
	return found;
}

/* Tell the consumer once that no WR of the shared receive queue will follow. */
static void rnic_last_wqe(struct rnic_qp *qp)
{
	struct ib_event event = {
		.device		= qp->ibqp.device,
		.element.qp	= &qp->ibqp,
		.event		= IB_EVENT_QP_LAST_WQE_REACHED,
	};
	bool last;

	spin_lock_irq(&qp->lock);
	last = qp->ibqp.srq && qp->state == IB_QPS_ERR && !qp->responding &&
	       !qp->srq_taken && !qp->srq_last;
	if (last)
		qp->srq_last = true;
	spin_unlock_irq(&qp->lock);

	if (last)
		qp->ibqp.event_handler(&event, qp->ibqp.qp_context);
}

/* Take the WR at the tail, unless it waits to be sent again */
static bool rnic_next_wr(struct rnic_qp *qp)
{
	struct rnic_op *op = &qp->op;
	bool found;

	spin_lock_irq(&qp->lock);
	found = qp->state == IB_QPS_RTS && qp->sq_tail != qp->sq_head &&
		!timer_pending(&qp->timer);
	if (found) {
		memset(op, 0, sizeof(*op));
		op->active = true;
		op->wqe = rnic_sq_tail(qp);
	}
	spin_unlock_irq(&qp->lock);

	return found;
}

/* Returns true if there may be more to do at once. */
static bool rnic_qp_step(struct rnic_qp *qp)
{
	enum ib_qp_state state;
	bool active, pending;

	spin_lock_irq(&qp->lock);
	state = qp->state;
	active = qp->op.active;
	pending = qp->op.pending;
	spin_unlock_irq(&qp->lock);

	if (active && qp->op.waiting)
		return !timer_pending(&qp->timer) && rnic_op_start(qp);
	if (active)
		return !pending && rnic_op_continue(qp, state);
	if (rnic_next_wr(qp))
		return rnic_op_start(qp);
	if (rnic_flush_send(qp) || rnic_flush_recv(qp))
		return true;
	rnic_last_wqe(qp);
	return false;
}

/**
 * rnic_qp_work - do what can be done for a queue pair
 * @work:	embedded in it
 *
 * Runs when WRs were posted, when copies are done, when it is time to send
 * again, and when the state has changed.
 */
void rnic_qp_work(struct work_struct *work)
{
	struct rnic_qp *qp = container_of(work, struct rnic_qp, work);

	while (rnic_qp_step(qp))
		cond_resched();
}
