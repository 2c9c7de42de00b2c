/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A loopback RoCE NIC for tests: what its source files share.
 */
#ifndef _RNIC_LOOP_H
#define _RNIC_LOOP_H

#include <linux/completion.h>
#include <linux/dmaengine.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <rdma/ib_verbs.h>

/*
 * Limits of the device. They are those of a small NIC; the number of SGEs is
 * low enough for a 128 KiB transfer of scattered pages to need several WRs.
 */
#define RNIC_MAX_SGE		16
#define RNIC_MAX_WR		16384
#define RNIC_MAX_CQE		65536
#define RNIC_MAX_QP		4096
#define RNIC_MAX_SRQ		256
#define RNIC_MAX_MR_PAGES	512
#define RNIC_MAX_MSG		SZ_1G
#define RNIC_MAX_RD_ATOMIC	16
#define RNIC_GID_TABLE_LEN	32

/* Times are encoded in five bits. */
#define RNIC_MAX_TIME		31

#define RNIC_GSI_QPN		1
#define RNIC_FIRST_QPN		16
#define RNIC_LAST_QPN		0xfffffe

/* A key is an index and a low byte that belongs to the consumer. */
#define RNIC_KEY_SHIFT		8
#define RNIC_LAST_MR		0xfffffe
/* No MR has this index. */
#define RNIC_LOCAL_DMA_LKEY	0xffffff00

/**
 * struct rnic_dev - the device
 * @ibdev:	what the RDMA core sees
 * @chan:	moves every payload byte
 * @max_copy:	longest copy that @chan takes at once
 * @wq:		runs the send queues
 * @qps:	queue pairs by number
 * @mrs:	memory regions by index; its lock protects their state as well
 * @wait:	woken when a queue pair or a memory region becomes idle
 * @srqs_lock:	protects @srqs
 * @srqs:	shared receive queues
 * @debugfs:	directory with what tests want to know
 * @nr_reg:	number of registrations by work requests
 */
struct rnic_dev {
	struct ib_device	ibdev;
	struct dma_chan		*chan;
	size_t			max_copy;
	struct workqueue_struct	*wq;
	struct xarray		qps;
	struct xarray		mrs;
	wait_queue_head_t	wait;
	struct mutex		srqs_lock;	/* @srqs */
	struct list_head	srqs;
	struct dentry		*debugfs;
	atomic_t		nr_reg;
};

struct rnic_pd {
	struct ib_pd		ibpd;
};

/**
 * struct rnic_srq - a shared receive queue
 * @ibsrq:	what the RDMA core sees
 * @entry:	in &rnic_dev.srqs
 * @attr:	sizes of the queue
 * @lock:	protects the members below
 * @rq:		ring of receive WRs
 * @sges:	their SGEs
 * @head:	where the next WR goes
 * @tail:	the next WR to be taken
 */
struct rnic_srq {
	struct ib_srq		ibsrq;
	struct list_head	entry;
	struct ib_srq_attr	attr;

	spinlock_t		lock;	/* the members below */
	struct rnic_rwqe	*rq;
	struct ib_sge		*sges;
	u32			head;
	u32			tail;
};

/* What a datagram needs from an address handle, which may be gone by then */
struct rnic_av {
	union ib_gid		sgid;
	union ib_gid		dgid;
	enum rdma_network_type	net_type;
	u32			flow_label;
	u8			traffic_class;
	u8			hop_limit;
	u8			sl;
};

struct rnic_ah {
	struct ib_ah		ibah;
	struct rnic_av		av;
};

/**
 * struct rnic_cq - a completion queue
 * @ibcq:	what the RDMA core sees
 * @lock:	protects the members below
 * @wc:		ring of completions
 * @size:	number of entries of @wc, a power of two
 * @head:	where the next completion goes
 * @tail:	the next completion to poll
 * @notify:	which completion calls the consumer, %IB_CQ_SOLICITED_MASK
 */
struct rnic_cq {
	struct ib_cq		ibcq;
	spinlock_t		lock;	/* the members below */
	struct ib_wc		*wc;
	u32			size;
	u32			head;
	u32			tail;
	int			notify;
};

struct rnic_pi_seg {
	dma_addr_t		addr;
	u32			len;
};

/**
 * struct rnic_pi - where data and protection information of a region are
 * @block:	bytes of data that belong to one tuple
 * @nr_data:	number of entries of @seg for the data; the rest is for the tuples
 * @nr_segs:	number of all entries
 * @seg:	the memory
 */
struct rnic_pi {
	u32			block;
	unsigned int		nr_data;
	unsigned int		nr_segs;
	struct rnic_pi_seg	seg[] __counted_by(nr_segs);
};

/**
 * struct rnic_mr - a memory region
 * @ibmr:	what the RDMA core sees
 * @pd:		protection domain; @ibmr has it only after it was published
 * @max_pages:	capacity of @pages and @mapped, or of @pi and @pi_mapped
 * @max_data:	how much of @pi is for data
 * @mapped:	pages of the last ib_map_mr_sg(), not yet registered
 * @nr_mapped:	number of entries used in @mapped
 * @pi_mapped:	what the last ib_map_mr_sg_pi() mapped, not yet registered
 * @valid:	may be accessed
 * @everything:	all memory by its DMA address, without bounds
 * @key:	the key with the consumer's low byte
 * @access:	IB_ACCESS_* bits
 * @iova:	address of the first byte
 * @length:	number of bytes
 * @page_shift:	size of a page
 * @pages:	DMA addresses of the pages
 * @pi:		data and protection information, instead of @pages
 * @users:	number of copies that use @pages or @pi
 *
 * The members from @valid on are protected by the lock of &rnic_dev.mrs.
 * @pages, @pi and what describes them cannot change while there are users.
 */
struct rnic_mr {
	struct ib_mr		ibmr;
	struct ib_pd		*pd;
	u32			max_pages;
	u32			max_data;
	u64			*mapped;
	u32			nr_mapped;
	struct rnic_pi		*pi_mapped;

	bool			valid;
	bool			everything;
	u32			key;
	int			access;
	u64			iova;
	u64			length;
	unsigned int		page_shift;
	u64			*pages;
	struct rnic_pi		*pi;
	unsigned int		users;
};

/* Memory that was checked: @mr is held, or NULL for plain DMA addresses */
struct rnic_seg {
	struct rnic_mr		*mr;
	u64			addr;
	u32			len;
};

/* One more segment than a WR can have: a datagram's network header */
struct rnic_iter {
	struct rnic_seg		seg[RNIC_MAX_SGE + 1];
	unsigned int		nr_segs;
	unsigned int		cur;
	u32			off;
};

/* A send WR, copied by post_send() */
struct rnic_swqe {
	u64			wr_id;
	enum ib_wr_opcode	opcode;
	int			send_flags;
	union {
		__be32		imm_data;
		u32		invalidate_rkey;
	};
	union {
		struct {
			u64		remote_addr;
			u32		rkey;
		};
		struct {
			u32		reg_key;
			int		reg_access;
		};
		struct {
			struct rnic_av	av;
			u32		remote_qpn;
			u32		remote_qkey;
		};
	};
	unsigned int		num_sge;
	struct ib_sge		*sge;
};

/* A receive WR, copied by post_recv() */
struct rnic_rwqe {
	u64			wr_id;
	unsigned int		num_sge;
	struct ib_sge		*sge;
};

/**
 * struct rnic_op - the WR that a queue pair executes
 * @active:	there is one; it holds everything named below
 * @wqe:	the WR, at the tail of the send queue
 * @waiting:	it has begun, and waits for @timer of the queue pair
 * @peer:	the responder; no other operation has it meanwhile
 * @recv:	the receive WR it consumes, at the tail of the responder's queue
 * @status:	how @wqe completes
 * @recv_status: how @recv completes
 * @fail_peer:	the responder found an error, it enters the error state
 * @len:	message length
 * @src:	where the message comes from
 * @dst:	where it goes
 * @pending:	copies that have not completed, protected by &rnic_qp.lock
 * @copy_failed: a copy has failed, protected by &rnic_qp.lock
 * @starving:	the copy engine has taken nothing the last time
 * @starving_since: when that began
 */
struct rnic_op {
	bool			active;
	bool			waiting;
	struct rnic_swqe	*wqe;
	struct rnic_qp		*peer;
	struct rnic_rwqe	*recv;
	enum ib_wc_status	status;
	enum ib_wc_status	recv_status;
	bool			fail_peer;
	u32			len;
	struct rnic_iter	src;
	struct rnic_iter	dst;
	unsigned int		pending;
	bool			copy_failed;
	bool			starving;
	unsigned long		starving_since;
};

/**
 * struct rnic_qp - a queue pair
 * @ibqp:	what the RDMA core sees
 * @refs:	held by operations of other queue pairs on this one
 * @unused:	completed when the last of @refs is gone
 * @work:	executes the send queue, and flushes both queues
 * @timer:	delays @work
 * @op:		what @work does
 * @retries:	how often @op may be sent again without an answer
 * @rnr_retries: the same when the receiver was not ready
 * @grh:	network header of a datagram
 * @grh_dma:	its DMA address
 * @sq_sig_all:	every send WR gets a completion
 * @lock:	protects the members below and a part of @op
 * @state:	a state other than %IB_QPS_RESET can be changed by @work
 * @attr:	attributes as modified; its states are unused
 * @cap:	sizes of the queues
 * @unreachable: the address is not of this device: nobody will answer
 * @responding:	an operation of the peer uses this queue pair, its memory
 *		regions, and maybe the WR at @rq_tail
 * @sq:		ring of send WRs
 * @sq_sges:	their SGEs
 * @sq_head:	where the next send WR goes
 * @sq_tail:	the WR to be executed
 * @rq:		ring of receive WRs
 * @rq_sges:	their SGEs
 * @rq_head:	where the next receive WR goes
 * @rq_tail:	the WR to be consumed
 * @srq_wqe:	the WR that was taken off the shared receive queue, instead of @rq
 * @srq_sges:	its SGEs
 * @srq_taken:	there is one in @srq_wqe
 * @srq_last:	the consumer was told that it gets no more of them
 */
struct rnic_qp {
	struct ib_qp		ibqp;
	refcount_t		refs;
	struct completion	unused;

	struct work_struct	work;
	struct timer_list	timer;
	struct rnic_op		op;
	unsigned int		retries;
	unsigned int		rnr_retries;
	union rdma_network_hdr	*grh;
	dma_addr_t		grh_dma;
	bool			sq_sig_all;

	spinlock_t		lock;	/* the members below */
	enum ib_qp_state	state;
	struct ib_qp_attr	attr;
	struct ib_qp_cap	cap;
	bool			unreachable;
	bool			responding;
	struct rnic_swqe	*sq;
	struct ib_sge		*sq_sges;
	u32			sq_head;
	u32			sq_tail;
	struct rnic_rwqe	*rq;
	struct ib_sge		*rq_sges;
	u32			rq_head;
	u32			rq_tail;
	struct rnic_rwqe	srq_wqe;
	struct ib_sge		srq_sges[RNIC_MAX_SGE];
	bool			srq_taken;
	bool			srq_last;
};

static inline struct rnic_dev *to_rnic_dev(struct ib_device *ibdev)
{
	return container_of(ibdev, struct rnic_dev, ibdev);
}

static inline struct rnic_ah *to_rnic_ah(struct ib_ah *ibah)
{
	return container_of(ibah, struct rnic_ah, ibah);
}

static inline struct rnic_cq *to_rnic_cq(struct ib_cq *ibcq)
{
	return container_of(ibcq, struct rnic_cq, ibcq);
}

static inline struct rnic_mr *to_rnic_mr(struct ib_mr *ibmr)
{
	return container_of(ibmr, struct rnic_mr, ibmr);
}

static inline struct rnic_qp *to_rnic_qp(struct ib_qp *ibqp)
{
	return container_of(ibqp, struct rnic_qp, ibqp);
}

static inline struct rnic_srq *to_rnic_srq(struct ib_srq *ibsrq)
{
	return container_of(ibsrq, struct rnic_srq, ibsrq);
}

static inline struct rnic_dev *rnic_qp_dev(struct rnic_qp *qp)
{
	return to_rnic_dev(qp->ibqp.device);
}

static inline struct rnic_swqe *rnic_sq_tail(struct rnic_qp *qp)
{
	return &qp->sq[qp->sq_tail & (qp->cap.max_send_wr - 1)];
}

static inline struct rnic_rwqe *rnic_rq_tail(struct rnic_qp *qp)
{
	return &qp->rq[qp->rq_tail & (qp->cap.max_recv_wr - 1)];
}

/* rnic_loop_cq.c */
int rnic_create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		   struct uverbs_attr_bundle *attrs);
int rnic_destroy_cq(struct ib_cq *ibcq, struct ib_udata *udata);
int rnic_poll_cq(struct ib_cq *ibcq, int num_entries, struct ib_wc *wc);
int rnic_req_notify_cq(struct ib_cq *ibcq, enum ib_cq_notify_flags flags);
void rnic_cq_push(struct ib_cq *ibcq, const struct ib_wc *wc, bool solicited);

/* rnic_loop_srq.c */
int rnic_create_srq(struct ib_srq *ibsrq, struct ib_srq_init_attr *init,
		    struct ib_udata *udata);
int rnic_destroy_srq(struct ib_srq *ibsrq, struct ib_udata *udata);
int rnic_post_srq_recv(struct ib_srq *ibsrq, const struct ib_recv_wr *wr,
		       const struct ib_recv_wr **bad_wr);
bool rnic_srq_take(struct rnic_srq *srq, struct rnic_rwqe *wqe);
void rnic_srq_create_debugfs(struct rnic_dev *dev);

/* rnic_loop_mr.c */
struct ib_mr *rnic_get_dma_mr(struct ib_pd *ibpd, int access);
struct ib_mr *rnic_alloc_mr(struct ib_pd *ibpd, enum ib_mr_type mr_type,
			    u32 max_num_sg);
struct ib_mr *rnic_alloc_mr_integrity(struct ib_pd *ibpd, u32 max_data_sg,
				      u32 max_meta_sg);
struct ib_mr *rnic_reg_user_mr(struct ib_pd *ibpd, u64 start, u64 length,
			       u64 virt_addr, int access, struct ib_dmah *dmah,
			       struct ib_udata *udata);
int rnic_dereg_mr(struct ib_mr *ibmr, struct ib_udata *udata);
int rnic_map_mr_sg(struct ib_mr *ibmr, struct scatterlist *sg, int sg_nents,
		   unsigned int *sg_offset);
int rnic_mr_register(struct rnic_dev *dev, struct ib_pd *pd, u32 key,
		     int access);
int rnic_mr_invalidate(struct rnic_dev *dev, struct ib_pd *pd, u32 key);
int rnic_iter_add(struct rnic_dev *dev, struct rnic_iter *iter,
		  struct ib_pd *pd, const struct ib_sge *sge, int access);
void rnic_iter_add_dma(struct rnic_iter *iter, dma_addr_t addr, u32 len);
u32 rnic_iter_peek(struct rnic_iter *iter, dma_addr_t *addr);
void rnic_iter_advance(struct rnic_iter *iter, u32 len);
void rnic_iter_release(struct rnic_dev *dev, struct rnic_iter *iter);

/* rnic_loop_pi.c */
int rnic_map_mr_sg_pi(struct ib_mr *ibmr, struct scatterlist *data_sg,
		      int data_nents, unsigned int *data_offset,
		      struct scatterlist *meta_sg, int meta_nents,
		      unsigned int *meta_offset);
int rnic_pi_register(struct rnic_mr *mr);
u32 rnic_pi_contig(const struct rnic_pi *pi, u64 off, u32 len,
		   dma_addr_t *addr);
int rnic_check_mr_status(struct ib_mr *ibmr, u32 check_mask,
			 struct ib_mr_status *status);

/* rnic_loop_qp.c */
int rnic_create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *init,
		   struct ib_udata *udata);
int rnic_modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		   struct ib_udata *udata);
int rnic_query_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		  struct ib_qp_init_attr *init);
int rnic_destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata);
int rnic_post_send(struct ib_qp *ibqp, const struct ib_send_wr *wr,
		   const struct ib_send_wr **bad_wr);
int rnic_post_recv(struct ib_qp *ibqp, const struct ib_recv_wr *wr,
		   const struct ib_recv_wr **bad_wr);
void rnic_copy_recv(struct rnic_rwqe *wqe, const struct ib_recv_wr *wr);
void rnic_qp_kick(struct rnic_qp *qp);
void rnic_qp_put(struct rnic_qp *qp);

extern bool rnic_read_needs_mr;
extern bool rnic_fail_read;
extern bool rnic_fail_write;
extern bool rnic_cut_send;
extern bool rnic_unplugged;
extern int rnic_hold;
bool rnic_is_own_gid(struct ib_device *ibdev, const union ib_gid *gid);

/**
 * enum rnic_verdict - what becomes of a WR
 * @RNIC_COPY:		copy from &rnic_op.src to &rnic_op.dst
 * @RNIC_END:		nothing to copy, &rnic_op.status is final
 * @RNIC_NO_ANSWER:	there is no responder: repeat as after a lost packet
 * @RNIC_NOT_READY:	the responder has no receive WR: repeat later
 * @RNIC_BUSY:		a region to be invalidated is still in use: go on soon
 */
enum rnic_verdict {
	RNIC_COPY,
	RNIC_END,
	RNIC_NO_ANSWER,
	RNIC_NOT_READY,
	RNIC_BUSY,
};

/* rnic_loop_exec.c */
void rnic_qp_work(struct work_struct *work);
bool rnic_engage(struct rnic_qp *qp, u32 qpn);
bool rnic_take_recv(struct rnic_op *op);
int rnic_gather(struct rnic_qp *qp, struct rnic_iter *iter, int access);
int rnic_scatter(struct rnic_op *op, u32 len);
bool rnic_recv_fits(const struct rnic_rwqe *recv, u32 len);

/* rnic_loop_ud.c */
bool rnic_ud_may_respond(const struct rnic_qp *peer, const struct rnic_qp *qp);
enum rnic_verdict rnic_ud_start(struct rnic_qp *qp);
void rnic_ud_fill_wc(const struct rnic_op *op, struct ib_wc *wc);

#endif /* _RNIC_LOOP_H */
