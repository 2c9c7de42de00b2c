// SPDX-License-Identifier: GPL-2.0
/*
 * Completion queues of the loopback RoCE NIC.
 */
#include <linux/slab.h>

#include "rnic_loop.h"

int rnic_create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		   struct uverbs_attr_bundle *attrs)
{
	struct rnic_cq *cq = to_rnic_cq(ibcq);

	if (attr->flags)
		return -EOPNOTSUPP;
	if (!attr->cqe || attr->cqe > RNIC_MAX_CQE)
		return -EINVAL;

	cq->size = roundup_pow_of_two(attr->cqe);
	cq->wc = kvzalloc_objs(*cq->wc, cq->size);
	if (!cq->wc)
		return -ENOMEM;

	spin_lock_init(&cq->lock);
	ibcq->cqe = cq->size;
	return 0;
}

int rnic_destroy_cq(struct ib_cq *ibcq, struct ib_udata *udata)
{
	kvfree(to_rnic_cq(ibcq)->wc);
	return 0;
}

int rnic_poll_cq(struct ib_cq *ibcq, int num_entries, struct ib_wc *wc)
{
	struct rnic_cq *cq = to_rnic_cq(ibcq);
	unsigned long flags;
	int n;

	spin_lock_irqsave(&cq->lock, flags);
	for (n = 0; n < num_entries && cq->tail != cq->head; n++)
		wc[n] = cq->wc[cq->tail++ & (cq->size - 1)];
	spin_unlock_irqrestore(&cq->lock, flags);

	return n;
}

int rnic_req_notify_cq(struct ib_cq *ibcq, enum ib_cq_notify_flags flags)
{
	struct rnic_cq *cq = to_rnic_cq(ibcq);
	unsigned long irq_flags;
	bool missed;

	spin_lock_irqsave(&cq->lock, irq_flags);
	cq->notify |= flags & IB_CQ_SOLICITED_MASK;
	missed = cq->head != cq->tail;
	spin_unlock_irqrestore(&cq->lock, irq_flags);

	return (flags & IB_CQ_REPORT_MISSED_EVENTS) && missed;
}

static void rnic_cq_overrun(struct ib_cq *ibcq)
{
	struct ib_event event = {
		.device		= ibcq->device,
		.element.cq	= ibcq,
		.event		= IB_EVENT_CQ_ERR,
	};

	ibdev_err_ratelimited(ibcq->device, "completion queue overrun\n");
	if (ibcq->event_handler)
		ibcq->event_handler(&event, ibcq->cq_context);
}

/**
 * rnic_cq_push - add a completion, and call the consumer if it asked for that
 * @ibcq:	completion queue
 * @wc:		the completion
 * @solicited:	the sender asked to wake up the receiver
 *
 * Context: Process context.
 */
void rnic_cq_push(struct ib_cq *ibcq, const struct ib_wc *wc, bool solicited)
{
	struct rnic_cq *cq = to_rnic_cq(ibcq);
	unsigned long flags;
	bool full, call;

	spin_lock_irqsave(&cq->lock, flags);
	full = cq->head - cq->tail == cq->size;
	if (!full)
		cq->wc[cq->head++ & (cq->size - 1)] = *wc;
	call = (cq->notify & IB_CQ_NEXT_COMP) ||
	       (cq->notify && (solicited || wc->status));
	if (call)
		cq->notify = 0;
	spin_unlock_irqrestore(&cq->lock, flags);

	if (full)
		rnic_cq_overrun(ibcq);
	if (!call)
		return;

	/*
	 * Consumers know this as an interrupt: some only raise a softirq,
	 * which nobody would run here before the next interrupt comes.
	 */
	local_bh_disable();
	ibcq->comp_handler(ibcq, ibcq->cq_context);
	local_bh_enable();
}
