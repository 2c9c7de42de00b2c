// SPDX-License-Identifier: GPL-2.0
/*
 * Datagrams of the loopback RoCE NIC: what the connection manager's messages
 * need, sent by the GSI queue pair to itself.
 */
#include <linux/ip.h>
#include <net/ip.h>
#include <rdma/ib_mad.h>
#include <rdma/ib_pack.h>

#include "rnic_loop.h"

static __be32 rnic_gid_to_ipv4(const union ib_gid *gid)
{
	return ((const struct in6_addr *)gid)->s6_addr32[3];
}

static void rnic_fill_ipv4(struct iphdr *ip, const struct rnic_av *av, u32 len)
{
	*ip = (struct iphdr) {
		.version	= 4,
		.ihl		= sizeof(*ip) / 4,
		.tos		= av->traffic_class,
		.tot_len	= cpu_to_be16(sizeof(*ip) + len),
		.ttl		= av->hop_limit,
		.protocol	= IPPROTO_UDP,
		.saddr		= rnic_gid_to_ipv4(&av->sgid),
		.daddr		= rnic_gid_to_ipv4(&av->dgid),
	};
	/* The connection manager takes a bad checksum for IPv6. */
	ip->check = ip_fast_csum(ip, ip->ihl);
}

static void rnic_fill_ipv6(struct ib_grh *grh, const struct rnic_av *av,
			   u32 len)
{
	u32 version_tclass_flow = 6U << 28 | av->traffic_class << 20 |
				  av->flow_label;

	*grh = (struct ib_grh) {
		.version_tclass_flow = cpu_to_be32(version_tclass_flow),
		.paylen		= cpu_to_be16(len),
		.next_hdr	= IPPROTO_UDP,
		.hop_limit	= av->hop_limit,
		.sgid		= av->sgid,
		.dgid		= av->dgid,
	};
}

/* Where InfiniBand has its GRH, RoCE has the packet's IP header. */
static void rnic_fill_grh(struct rnic_qp *qp, const struct rnic_av *av)
{
	u32 len = IB_UDP_BYTES + IB_BTH_BYTES + IB_DETH_BYTES + qp->op.len;

	memset(qp->grh, 0, sizeof(*qp->grh));
	if (av->net_type == RDMA_NETWORK_IPV4)
		rnic_fill_ipv4(&qp->grh->roce4grh, av, len);
	else
		rnic_fill_ipv6(&qp->grh->ibgrh, av, len);
}

/**
 * rnic_ud_may_respond - tell whether a queue pair gets a datagram
 * @peer:	the queue pair, locked
 * @qp:		the sending queue pair
 *
 * Return: true if it does.
 */
bool rnic_ud_may_respond(const struct rnic_qp *peer, const struct rnic_qp *qp)
{
	u32 qkey = qp->op.wqe->remote_qkey;

	/* Privileged keys are the sending queue pair's own. */
	if (qkey & IB_QP_SET_QKEY)
		qkey = qp->attr.qkey;

	return peer->ibqp.qp_type == IB_QPT_GSI && peer->attr.qkey == qkey &&
	       (peer->state == IB_QPS_RTR || peer->state == IB_QPS_RTS ||
		peer->state == IB_QPS_SQE);
}

/**
 * rnic_ud_start - find out where a datagram goes
 * @qp:		the sending queue pair
 *
 * Datagrams are not reliable: what cannot be received is lost, and the sender
 * does not know.
 *
 * Return: what becomes of the WR.
 */
enum rnic_verdict rnic_ud_start(struct rnic_qp *qp)
{
	const struct rnic_swqe *wqe = qp->op.wqe;
	struct rnic_op *op = &qp->op;

	rnic_iter_add_dma(&op->src, qp->grh_dma, sizeof(*qp->grh));
	if (rnic_gather(qp, &op->src, 0))
		return RNIC_END;

	if (READ_ONCE(rnic_unplugged) ||
	    !rnic_is_own_gid(qp->ibqp.device, &wqe->av.dgid))
		return RNIC_END;
	if (!rnic_engage(qp, wqe->remote_qpn) || !rnic_take_recv(op))
		return RNIC_END;

	if (!rnic_recv_fits(op->recv, sizeof(*qp->grh) + op->len)) {
		op->recv = NULL;
		return RNIC_END;
	}
	if (rnic_scatter(op, sizeof(*qp->grh) + op->len)) {
		op->recv_status = IB_WC_LOC_PROT_ERR;
		op->fail_peer = true;
		return RNIC_END;
	}

	rnic_fill_grh(qp, &wqe->av);
	return RNIC_COPY;
}

/**
 * rnic_ud_fill_wc - say in a receive completion where a datagram came from
 * @op:		the operation
 * @wc:		the completion
 */
void rnic_ud_fill_wc(const struct rnic_op *op, struct ib_wc *wc)
{
	const struct rnic_av *av = &op->wqe->av;

	wc->byte_len += sizeof(union rdma_network_hdr);
	wc->wc_flags |= IB_WC_GRH | IB_WC_WITH_NETWORK_HDR_TYPE;
	wc->network_hdr_type = av->net_type;
	wc->sl = av->sl;
}
