// SPDX-License-Identifier: GPL-2.0
/*
 * A loopback RoCE NIC for tests.
 *
 * Software NICs cannot do peer-to-peer DMA: they have no DMA device. This one
 * has: a PCI device that is a dmaengine DMA_MEMCPY provider. Every payload byte
 * is moved by one of its channels, and it is the parent of the RDMA device, so
 * consumers map memory for it as they do for any NIC, and ask pci-p2pdma what
 * it can reach:
 *
 *     PCI copy engine <-- lsi_copy (or another dmaengine driver)
 *       |-- dma0chan0 <-- held by this module
 *       '-- rnic0     <-- the RDMA device
 *
 * There can be two, with a network device each. Connections have both ends in the
 * same device. They are made by the ordinary RDMA connection manager, with the
 * addresses of the network device, which nothing is ever sent through; a dummy
 * one will do.
 *
 * dmaengine does not tell its clients that a provider is going away. So the
 * PCI bus does: the RDMA device vanishes before the driver of its PCI device is
 * unbound, with all that uses it, and comes back when one is bound again.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <net/addrconf.h>
#include <rdma/ib_mad.h>

#include "rnic_loop.h"

#define RNIC_MAX_DEVS	2

static char *netdevs[RNIC_MAX_DEVS] = { "dummy0" };
static int nr_netdevs = 1;
module_param_array_named(netdev, netdevs, charp, &nr_netdevs, 0444);
MODULE_PARM_DESC(netdev, "Network device whose addresses the NIC has, for each NIC (default: dummy0)");

/*
 * nvme-rdma on the same device must not go by this limit, or it would never send
 * a command that nvmet needs several MRs for. So the device can do integrity
 * handover as well then, for which nvme-rdma goes by another limit.
 */
static unsigned int max_mr_pages = RNIC_MAX_MR_PAGES;
module_param(max_mr_pages, uint, 0444);
MODULE_PARM_DESC(max_mr_pages, "Pages that a consumer of memory registrations is told to use (default: 512)");

static bool integrity;
module_param(integrity, bool, 0444);
MODULE_PARM_DESC(integrity, "Offer integrity handover: pass protection information on (default: 0)");

/*
 * A rule of iWARP. To be an iWARP device takes another connection manager, so
 * it is ib_core.force_mr=1 that makes consumers obey.
 */
bool rnic_read_needs_mr;
module_param_named(read_needs_mr, rnic_read_needs_mr, bool, 0444);
MODULE_PARM_DESC(read_needs_mr, "Refuse RDMA READ to memory that is not registered (default: 0)");

bool rnic_fail_read;
module_param_named(fail_read, rnic_fail_read, bool, 0644);
MODULE_PARM_DESC(fail_read, "Fail the next RDMA READ, then reset this parameter (default: 0)");

bool rnic_fail_write;
module_param_named(fail_write, rnic_fail_write, bool, 0644);
MODULE_PARM_DESC(fail_write, "Fail the next RDMA WRITE, then reset this parameter (default: 0)");

bool rnic_cut_send;
module_param_named(cut_send, rnic_cut_send, bool, 0644);
MODULE_PARM_DESC(cut_send, "Send only the first SGE of the next SEND that has several, then reset this parameter (default: 0)");

bool rnic_unplugged;
module_param_named(unplugged, rnic_unplugged, bool, 0644);
MODULE_PARM_DESC(unplugged, "No message arrives, as if the cable were unplugged (default: 0)");

int rnic_hold;
module_param_named(hold, rnic_hold, int, 0644);
MODULE_PARM_DESC(hold, "1: messages on connections wait until this is 0 again; 2: one does wait (default: 0)");

/* Protects rnic_devs, which has one for each network device that is in use */
static DEFINE_MUTEX(rnic_lock);
static struct rnic_dev *rnic_devs[RNIC_MAX_DEVS];
static bool rnic_exiting;

static int rnic_query_device(struct ib_device *ibdev,
			     struct ib_device_attr *attr,
			     struct ib_udata *udata)
{
	*attr = (struct ib_device_attr) {
		.sys_image_guid		= ibdev->node_guid,
		.max_mr_size		= U64_MAX,
		.page_size_cap		= PAGE_MASK & U32_MAX,
		.max_qp			= RNIC_MAX_QP,
		.max_qp_wr		= RNIC_MAX_WR,
		.device_cap_flags	= IB_DEVICE_MEM_MGT_EXTENSIONS |
					  IB_DEVICE_RC_RNR_NAK_GEN,
		.kernel_cap_flags	= IBK_LOCAL_DMA_LKEY,
		.max_send_sge		= RNIC_MAX_SGE,
		.max_recv_sge		= RNIC_MAX_SGE,
		.max_sge_rd		= RNIC_MAX_SGE,
		.max_cq			= RNIC_MAX_QP,
		.max_cqe		= RNIC_MAX_CQE,
		.max_mr			= RNIC_LAST_MR,
		.max_pd			= RNIC_MAX_QP,
		.max_ah			= RNIC_MAX_QP,
		.max_qp_rd_atom		= RNIC_MAX_RD_ATOMIC,
		.max_qp_init_rd_atom	= RNIC_MAX_RD_ATOMIC,
		.max_res_rd_atom	= RNIC_MAX_RD_ATOMIC * RNIC_MAX_QP,
		.max_srq		= RNIC_MAX_SRQ,
		.max_srq_wr		= RNIC_MAX_WR,
		.max_srq_sge		= RNIC_MAX_SGE,
		.max_fast_reg_page_list_len = max_mr_pages,
		.max_pkeys		= 1,
	};
	if (integrity || max_mr_pages < RNIC_MAX_MR_PAGES) {
		attr->kernel_cap_flags |= IBK_INTEGRITY_HANDOVER;
		attr->max_pi_fast_reg_page_list_len = RNIC_MAX_MR_PAGES;
	}
	return 0;
}

static int rnic_query_port(struct ib_device *ibdev, u32 port_num,
			   struct ib_port_attr *attr)
{
	struct net_device *ndev = ib_device_get_netdev(ibdev, port_num);

	if (!ndev)
		return -ENODEV;

	attr->state = ib_get_curr_port_state(ndev);
	attr->phys_state = attr->state == IB_PORT_ACTIVE ?
			   IB_PORT_PHYS_STATE_LINK_UP :
			   IB_PORT_PHYS_STATE_DISABLED;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = ib_mtu_int_to_enum(ndev->mtu);
	attr->gid_tbl_len = RNIC_GID_TABLE_LEN;
	attr->ip_gids = true;
	attr->port_cap_flags = IB_PORT_CM_SUP;
	attr->max_msg_sz = RNIC_MAX_MSG;
	attr->pkey_tbl_len = 1;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;

	dev_put(ndev);
	return 0;
}

static int rnic_get_port_immutable(struct ib_device *ibdev, u32 port_num,
				   struct ib_port_immutable *immutable)
{
	immutable->core_cap_flags = RDMA_CORE_PORT_IBA_ROCE_UDP_ENCAP;
	immutable->gid_tbl_len = RNIC_GID_TABLE_LEN;
	immutable->pkey_tbl_len = 1;
	immutable->max_mad_size = IB_MGMT_MAD_SIZE;
	return 0;
}

static enum rdma_link_layer rnic_get_link_layer(struct ib_device *ibdev,
						u32 port_num)
{
	return IB_LINK_LAYER_ETHERNET;
}

static int rnic_query_pkey(struct ib_device *ibdev, u32 port_num, u16 index,
			   u16 *pkey)
{
	if (index)
		return -EINVAL;

	*pkey = IB_DEFAULT_PKEY_FULL;
	return 0;
}

static int rnic_alloc_pd(struct ib_pd *ibpd, struct ib_udata *udata)
{
	return 0;
}

static int rnic_dealloc_pd(struct ib_pd *ibpd, struct ib_udata *udata)
{
	return 0;
}

/* The connection manager calls this and the next one in atomic context. */
static int rnic_create_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *init,
			  struct ib_udata *udata)
{
	const struct rdma_ah_attr *attr = init->ah_attr;
	const struct ib_global_route *grh = rdma_ah_read_grh(attr);

	if (!(attr->ah_flags & IB_AH_GRH) || !grh->sgid_attr)
		return -EINVAL;

	to_rnic_ah(ibah)->av = (struct rnic_av) {
		.sgid		= grh->sgid_attr->gid,
		.dgid		= grh->dgid,
		.net_type	= rdma_gid_attr_network_type(grh->sgid_attr),
		.flow_label	= grh->flow_label,
		.traffic_class	= grh->traffic_class,
		.hop_limit	= grh->hop_limit,
		.sl		= attr->sl,
	};
	return 0;
}

static int rnic_destroy_ah(struct ib_ah *ibah, u32 flags)
{
	return 0;
}

static const struct ib_device_ops rnic_ops = {
	.owner			= THIS_MODULE,
	.driver_id		= RDMA_DRIVER_UNKNOWN,

	.alloc_mr		= rnic_alloc_mr,
	.alloc_mr_integrity	= rnic_alloc_mr_integrity,
	.alloc_pd		= rnic_alloc_pd,
	.check_mr_status	= rnic_check_mr_status,
	.create_ah		= rnic_create_ah,
	.create_cq		= rnic_create_cq,
	.create_qp		= rnic_create_qp,
	.create_srq		= rnic_create_srq,
	.dealloc_pd		= rnic_dealloc_pd,
	.dereg_mr		= rnic_dereg_mr,
	.destroy_ah		= rnic_destroy_ah,
	.destroy_cq		= rnic_destroy_cq,
	.destroy_qp		= rnic_destroy_qp,
	.destroy_srq		= rnic_destroy_srq,
	.get_dma_mr		= rnic_get_dma_mr,
	.get_link_layer		= rnic_get_link_layer,
	.get_port_immutable	= rnic_get_port_immutable,
	.map_mr_sg		= rnic_map_mr_sg,
	.map_mr_sg_pi		= rnic_map_mr_sg_pi,
	.modify_qp		= rnic_modify_qp,
	.poll_cq		= rnic_poll_cq,
	.post_recv		= rnic_post_recv,
	.post_send		= rnic_post_send,
	.post_srq_recv		= rnic_post_srq_recv,
	.query_device		= rnic_query_device,
	.query_pkey		= rnic_query_pkey,
	.query_port		= rnic_query_port,
	.query_qp		= rnic_query_qp,
	.reg_user_mr		= rnic_reg_user_mr,
	.req_notify_cq		= rnic_req_notify_cq,

	INIT_RDMA_OBJ_SIZE(ib_ah, rnic_ah, ibah),
	INIT_RDMA_OBJ_SIZE(ib_cq, rnic_cq, ibcq),
	INIT_RDMA_OBJ_SIZE(ib_pd, rnic_pd, ibpd),
	INIT_RDMA_OBJ_SIZE(ib_qp, rnic_qp, ibqp),
	INIT_RDMA_OBJ_SIZE(ib_srq, rnic_srq, ibsrq),
};

static int rnic_register(struct rnic_dev *dev, const char *netdev)
{
	struct device *dma_dev = dmaengine_get_dma_device(dev->chan);
	struct ib_device *ibdev = &dev->ibdev;
	struct net_device *ndev;
	int ret;

	ndev = dev_get_by_name(&init_net, netdev);
	if (!ndev) {
		dev_err(dma_dev,
			"no network device %s: create it, or name one with netdev=\n",
			netdev);
		return -ENODEV;
	}

	ibdev->node_type = RDMA_NODE_IB_CA;
	ibdev->phys_port_cnt = 1;
	ibdev->num_comp_vectors = num_online_cpus();
	ibdev->local_dma_lkey = RNIC_LOCAL_DMA_LKEY;
	ibdev->dev.parent = dma_dev;
	addrconf_addr_eui48((u8 *)&ibdev->node_guid, ndev->dev_addr);
	ib_set_device_ops(ibdev, &rnic_ops);

	ret = ib_device_set_netdev(ibdev, ndev, 1);
	dev_put(ndev);
	if (ret)
		return ret;

	return ib_register_device(ibdev, "rnic%d", dma_dev);
}

static struct rnic_dev *rnic_create(struct dma_chan *chan, const char *netdev)
{
	struct rnic_dev *dev;
	int ret;

	dev = ib_alloc_device(rnic_dev, ibdev);
	if (!dev)
		return ERR_PTR(-ENOMEM);

	dev->chan = chan;
	dev->max_copy = dma_get_max_seg_size(dmaengine_get_dma_device(chan));
	xa_init_flags(&dev->qps, XA_FLAGS_ALLOC);
	xa_init_flags(&dev->mrs, XA_FLAGS_ALLOC);
	init_waitqueue_head(&dev->wait);
	mutex_init(&dev->srqs_lock);
	INIT_LIST_HEAD(&dev->srqs);

	ret = -ENOMEM;
	dev->wq = alloc_workqueue("rnic_loop",
				  WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
	if (!dev->wq)
		goto dealloc_device;

	ret = rnic_register(dev, netdev);
	if (ret)
		goto destroy_wq;

	rnic_srq_create_debugfs(dev);
	debugfs_create_atomic_t("registrations", 0444, dev->debugfs,
				&dev->nr_reg);
	return dev;

destroy_wq:
	destroy_workqueue(dev->wq);
dealloc_device:
	ib_dealloc_device(&dev->ibdev);
	return ERR_PTR(ret);
}

static void rnic_destroy(struct rnic_dev *dev)
{
	struct dma_chan *chan = dev->chan;

	debugfs_remove(dev->debugfs);
	ib_unregister_device(&dev->ibdev);
	destroy_workqueue(dev->wq);
	xa_destroy(&dev->qps);
	xa_destroy(&dev->mrs);
	ib_dealloc_device(&dev->ibdev);
	dma_release_channel(chan);
}

static int rnic_find(const struct device *dma_dev)
{
	int i;

	lockdep_assert_held(&rnic_lock);

	for (i = 0; i < nr_netdevs; i++)
		if (rnic_devs[i] && rnic_devs[i]->ibdev.dma_device == dma_dev)
			return i;
	return -ENOENT;
}

/*
 * Messages have any length and any alignment. @param is the device that the
 * channel has to belong to, or NULL for any that has no NIC yet.
 */
static bool rnic_filter(struct dma_chan *chan, void *param)
{
	struct device *dma_dev = dmaengine_get_dma_device(chan);

	return dev_is_pci(dma_dev) && (!param || param == dma_dev) &&
	       rnic_find(dma_dev) < 0 &&
	       chan->device->copy_align == DMAENGINE_ALIGN_1_BYTE;
}

static int rnic_attach(int i, struct device *dma_dev)
{
	struct dma_chan *chan;
	struct rnic_dev *dev;
	dma_cap_mask_t mask;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	chan = dma_request_channel(mask, rnic_filter, dma_dev);
	if (!chan) {
		if (!dma_dev)
			pr_err("no free DMA_MEMCPY channel of a PCI device, for any alignment: load lsi_copy\n");
		return -ENODEV;
	}

	dev = rnic_create(chan, netdevs[i]);
	if (IS_ERR(dev)) {
		dma_release_channel(chan);
		return PTR_ERR(dev);
	}

	rnic_devs[i] = dev;
	return 0;
}

static void rnic_detach(int i)
{
	lockdep_assert_held(&rnic_lock);

	if (rnic_devs[i])
		rnic_destroy(rnic_devs[i]);
	rnic_devs[i] = NULL;
}

static void rnic_detach_all(void)
{
	int i;

	guard(mutex)(&rnic_lock);
	rnic_exiting = true;
	for (i = 0; i < nr_netdevs; i++)
		rnic_detach(i);
}

/* All on any device each, or one on the device that has come back */
static int rnic_attach_missing(struct device *dma_dev)
{
	int i, ret;

	lockdep_assert_held(&rnic_lock);

	for (i = 0; i < nr_netdevs; i++) {
		if (rnic_devs[i] || rnic_exiting)
			continue;
		ret = rnic_attach(i, dma_dev);
		/* The network device of this one may be gone. */
		if (ret && dma_dev)
			continue;
		if (ret || dma_dev)
			return ret;
	}
	return 0;
}

static int rnic_bus_event(struct notifier_block *nb, unsigned long event,
			  void *data)
{
	int i;

	guard(mutex)(&rnic_lock);

	switch (event) {
	case BUS_NOTIFY_UNBIND_DRIVER:
		i = rnic_find(data);
		if (i >= 0)
			rnic_detach(i);
		break;
	case BUS_NOTIFY_BOUND_DRIVER:
		rnic_attach_missing(data);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block rnic_bus_nb = {
	.notifier_call = rnic_bus_event,
};

static unsigned long rnic_netdevs_gone;

static void rnic_detach_work(struct work_struct *work)
{
	int i;

	guard(mutex)(&rnic_lock);
	for (i = 0; i < nr_netdevs; i++)
		if (test_and_clear_bit(i, &rnic_netdevs_gone))
			rnic_detach(i);
}

static DECLARE_WORK(rnic_netdev_gone, rnic_detach_work);

/*
 * The RDMA core holds the network device until the RDMA device is gone. That
 * cannot happen here, under the RTNL lock, but whoever removes the network
 * device waits for it afterwards, without.
 */
static int rnic_netdev_event(struct notifier_block *nb, unsigned long event,
			     void *data)
{
	struct net_device *ndev = netdev_notifier_info_to_dev(data);
	int i;

	if (event != NETDEV_UNREGISTER || !net_eq(dev_net(ndev), &init_net))
		return NOTIFY_DONE;
	i = match_string((const char **)netdevs, nr_netdevs, ndev->name);
	if (i >= 0) {
		set_bit(i, &rnic_netdevs_gone);
		queue_work(system_dfl_long_wq, &rnic_netdev_gone);
	}
	return NOTIFY_DONE;
}

static struct notifier_block rnic_netdev_nb = {
	.notifier_call = rnic_netdev_event,
};

static int __init rnic_init(void)
{
	int ret;

	if (!max_mr_pages || max_mr_pages > RNIC_MAX_MR_PAGES)
		return -EINVAL;

	ret = register_netdevice_notifier(&rnic_netdev_nb);
	if (ret)
		return ret;

	ret = bus_register_notifier(&pci_bus_type, &rnic_bus_nb);
	if (ret)
		goto unregister_netdev_nb;

	scoped_guard(mutex, &rnic_lock)
		ret = rnic_attach_missing(NULL);
	if (ret)
		goto detach;
	return 0;

detach:
	rnic_detach_all();
	bus_unregister_notifier(&pci_bus_type, &rnic_bus_nb);
unregister_netdev_nb:
	unregister_netdevice_notifier(&rnic_netdev_nb);
	/* The notifier is told that all network devices are gone. */
	cancel_work_sync(&rnic_netdev_gone);
	return ret;
}
module_init(rnic_init);

static void __exit rnic_exit(void)
{
	rnic_detach_all();
	bus_unregister_notifier(&pci_bus_type, &rnic_bus_nb);
	unregister_netdevice_notifier(&rnic_netdev_nb);
	cancel_work_sync(&rnic_netdev_gone);
}
module_exit(rnic_exit);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("Loopback RoCE NIC on a DMA copy engine (for testing only)");
MODULE_LICENSE("GPL");
