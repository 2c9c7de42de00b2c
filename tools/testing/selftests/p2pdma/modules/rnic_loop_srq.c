// SPDX-License-Identifier: GPL-2.0
/*
 * Shared receive queues of the loopback RoCE NIC.
 *
 * A queue pair takes a WR off the shared queue when a message arrives, and holds
 * it until the message is complete. If the queue pair enters the error state
 * in between, the WR is flushed: the consumer gets back every WR that left the
 * queue, unless it destroys the queue pair before it has polled them all.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "rnic_loop.h"

static int rnic_alloc_srq(struct rnic_srq *srq, struct ib_srq_attr *attr)
{
	u32 i;

	attr->max_wr = roundup_pow_of_two(attr->max_wr);
	attr->max_sge = max(attr->max_sge, 1U);
	srq->attr = *attr;

	srq->rq = kvzalloc_objs(*srq->rq, attr->max_wr);
	srq->sges = kvzalloc_objs(*srq->sges, attr->max_wr * attr->max_sge);
	if (!srq->rq || !srq->sges) {
		kvfree(srq->sges);
		kvfree(srq->rq);
		return -ENOMEM;
	}

	for (i = 0; i < attr->max_wr; i++)
		srq->rq[i].sge = &srq->sges[i * attr->max_sge];
	return 0;
}

int rnic_create_srq(struct ib_srq *ibsrq, struct ib_srq_init_attr *init,
		    struct ib_udata *udata)
{
	struct rnic_dev *dev = to_rnic_dev(ibsrq->device);
	struct rnic_srq *srq = to_rnic_srq(ibsrq);
	int ret;

	if (init->srq_type != IB_SRQT_BASIC || init->attr.srq_limit)
		return -EOPNOTSUPP;
	if (!init->attr.max_wr || init->attr.max_wr > RNIC_MAX_WR ||
	    init->attr.max_sge > RNIC_MAX_SGE)
		return -EINVAL;

	spin_lock_init(&srq->lock);
	ret = rnic_alloc_srq(srq, &init->attr);
	if (ret)
		return ret;

	scoped_guard(mutex, &dev->srqs_lock)
		list_add_tail(&srq->entry, &dev->srqs);
	return 0;
}

int rnic_destroy_srq(struct ib_srq *ibsrq, struct ib_udata *udata)
{
	struct rnic_dev *dev = to_rnic_dev(ibsrq->device);
	struct rnic_srq *srq = to_rnic_srq(ibsrq);

	scoped_guard(mutex, &dev->srqs_lock)
		list_del(&srq->entry);
	kvfree(srq->sges);
	kvfree(srq->rq);
	return 0;
}

int rnic_post_srq_recv(struct ib_srq *ibsrq, const struct ib_recv_wr *wr,
		       const struct ib_recv_wr **bad_wr)
{
	struct rnic_srq *srq = to_rnic_srq(ibsrq);
	unsigned long flags;
	int ret = 0;

	spin_lock_irqsave(&srq->lock, flags);
	for (; wr; wr = wr->next) {
		ret = -ENOMEM;
		if (srq->head - srq->tail == srq->attr.max_wr)
			break;
		ret = -EINVAL;
		if (wr->num_sge < 0 || wr->num_sge > srq->attr.max_sge)
			break;
		ret = 0;
		rnic_copy_recv(&srq->rq[srq->head++ & (srq->attr.max_wr - 1)],
			       wr);
	}
	spin_unlock_irqrestore(&srq->lock, flags);

	*bad_wr = wr;
	return ret;
}

/**
 * rnic_srq_take - take the next WR off a shared receive queue
 * @srq:	the queue
 * @wqe:	set to the WR, has room for %RNIC_MAX_SGE SGEs
 *
 * Return: true if there was one.
 */
bool rnic_srq_take(struct rnic_srq *srq, struct rnic_rwqe *wqe)
{
	const struct rnic_rwqe *next;
	unsigned long flags;
	bool found;

	spin_lock_irqsave(&srq->lock, flags);
	found = srq->tail != srq->head;
	if (found) {
		next = &srq->rq[srq->tail++ & (srq->attr.max_wr - 1)];
		wqe->wr_id = next->wr_id;
		wqe->num_sge = next->num_sge;
		memcpy(wqe->sge, next->sge, next->num_sge * sizeof(*wqe->sge));
	}
	spin_unlock_irqrestore(&srq->lock, flags);

	return found;
}

/* A line for each queue: WRs that are posted, and that there is room for */
static int rnic_srqs_show(struct seq_file *m, void *unused)
{
	struct rnic_dev *dev = m->private;
	struct rnic_srq *srq;

	guard(mutex)(&dev->srqs_lock);
	list_for_each_entry(srq, &dev->srqs, entry) {
		spin_lock_irq(&srq->lock);
		seq_printf(m, "%u %u\n", srq->head - srq->tail,
			   srq->attr.max_wr);
		spin_unlock_irq(&srq->lock);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rnic_srqs);

void rnic_srq_create_debugfs(struct rnic_dev *dev)
{
	dev->debugfs = debugfs_create_dir(dev_name(&dev->ibdev.dev), NULL);
	debugfs_create_file("srqs", 0444, dev->debugfs, dev, &rnic_srqs_fops);
}
