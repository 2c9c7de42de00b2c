// SPDX-License-Identifier: GPL-2.0
/*
 * The SCRIPTS processor of the LSI 53C895A SCSI controller as a DMA_MEMCPY
 * provider for tests.
 *
 * The controller runs little programs from memory, and one instruction of
 * these copies up to 16 MiB from any bus address to any other. QEMU emulates
 * that, which makes lsi53c895a a device that does real DMA to other devices'
 * BARs. No SCSI is involved; the controller needs no disks.
 *
 * There is one SCRIPTS processor. Several channels feed it, so that several
 * clients can have one each; what they issue is run in the order of issue:
 *
 *	submitted (of a channel) -> issued -> running -> done -> free
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#define LSI_COPY_BAR		1

/* Registers */
#define LSI_DSTAT		0x0c
#define LSI_ISTAT		0x14
#define LSI_DSP			0x2c
#define LSI_DSPS		0x30
#define LSI_DIEN		0x39
#define LSI_SIEN0		0x40
#define LSI_SIEN1		0x41
#define LSI_SIST0		0x42
#define LSI_SIST1		0x43

#define LSI_ISTAT_DIP		BIT(0)
#define LSI_ISTAT_SIP		BIT(1)
#define LSI_ISTAT_SRST		BIT(6)

/* DSTAT and DIEN */
#define LSI_DSTAT_IID		BIT(0)	/* illegal instruction */
#define LSI_DSTAT_SIR		BIT(2)	/* interrupt instruction */
#define LSI_DSTAT_ABRT		BIT(4)
#define LSI_DSTAT_BF		BIT(5)	/* bus fault */
#define LSI_DSTAT_MDPE		BIT(6)	/* parity error */
#define LSI_DSTAT_DFE		BIT(7)	/* FIFO empty, not an event */

/* SIST0 and SIEN0 */
#define LSI_SIST0_UDC		BIT(2)	/* QEMU: endless script */
#define LSI_SIST0_SGE		BIT(3)

/* Instructions */
#define LSI_INSN_MOVE		0xc0000000
#define LSI_INSN_INT		0x98080000

/* The length has 24 bits; a round number keeps the moves page aligned. */
#define LSI_COPY_MOVE_MAX	(SZ_16M - SZ_4K)
/*
 * Moves of a script: together with the interrupt instruction they fill 128
 * bytes. QEMU would pause for half a millisecond after 100 instructions.
 */
#define LSI_COPY_MOVES		10
#define LSI_COPY_SCRIPT_WORDS	(LSI_COPY_MOVES * 3 + 2)

/* Arbitrary: a few clients, with some hundred copies in flight for each. */
#define LSI_COPY_CHANS		4
#define LSI_COPY_DESCS		256

/* Well below dmatest's three seconds, well above a host that is busy. */
#define LSI_COPY_TIMEOUT	HZ

static unsigned int move_max = LSI_COPY_MOVE_MAX;

static int lsi_copy_set_move_max(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, LSI_COPY_MOVE_MAX);
}

static const struct kernel_param_ops lsi_copy_move_max_ops = {
	.set = lsi_copy_set_move_max,
	.get = param_get_uint,
};
module_param_cb(move_max, &lsi_copy_move_max_ops, &move_max, 0444);
MODULE_PARM_DESC(move_max, "bytes of a copy that one instruction moves");

/**
 * struct lsi_copy_desc - one copy
 * @txd: what the client sees
 * @node: in one of the lists, if the client does not have it
 * @script: its SCRIPTS program
 * @script_dma: where the controller finds the program; also the token with
 *	which the program ends, for it is unique
 * @len: bytes to copy
 * @result: how it ended
 */
struct lsi_copy_desc {
	struct dma_async_tx_descriptor	txd;
	struct list_head		node;
	__le32				*script;
	dma_addr_t			script_dma;
	u32				len;
	enum dmaengine_tx_result	result;
};

/**
 * struct lsi_copy_chan - a queue in front of the SCRIPTS processor
 * @chan: what the client sees
 * @descs: all descriptors, as long as there is a client
 * @free: those to be had
 * @submitted: those submitted and not issued
 * @left: the bytes that were not copied, for each of the last cookies; of a
 *	complete cookie, anything but 0 means that it failed
 */
struct lsi_copy_chan {
	struct dma_chan		chan;
	struct lsi_copy_desc	*descs;
	struct list_head	free;
	struct list_head	submitted;
	u32			left[LSI_COPY_DESCS];
};

/**
 * struct lsi_copy - a controller
 * @dma: what dmaengine sees
 * @pdev: the controller
 * @regs: its registers
 * @scripts: memory for the programs of all descriptors of all channels
 * @scripts_dma: its bus address
 * @lock: protects what follows it and the channels
 * @gone: no driver is bound any more; only clients keep this structure
 * @running: what the SCRIPTS processor is at
 * @issued: what it will do next
 * @done: what it has done, for @done_work
 * @done_work: completes descriptors and calls the clients back
 * @idle: woken up whenever a script has ended
 * @watchdog: ends a script that does not end by itself
 * @rcu: for freeing it late
 * @chans: the channels
 */
struct lsi_copy {
	struct dma_device	dma;
	struct pci_dev		*pdev;
	void __iomem		*regs;
	__le32			*scripts;
	dma_addr_t		scripts_dma;

	spinlock_t		lock;	/* everything below and the channels */
	bool			gone;
	struct lsi_copy_desc	*running;
	struct list_head	issued;
	struct list_head	done;
	struct work_struct	done_work;
	wait_queue_head_t	idle;
	struct timer_list	watchdog;
	struct rcu_head		rcu;
	struct lsi_copy_chan	chans[LSI_COPY_CHANS];
};

static size_t lsi_copy_max_len(void)
{
	return (size_t)LSI_COPY_MOVES * move_max;
}

static struct lsi_copy *to_lsi_copy(struct dma_chan *chan)
{
	return container_of(chan->device, struct lsi_copy, dma);
}

static struct lsi_copy_chan *to_lsi_copy_chan(struct dma_chan *chan)
{
	return container_of(chan, struct lsi_copy_chan, chan);
}

static struct lsi_copy_desc *
to_lsi_copy_desc(struct dma_async_tx_descriptor *txd)
{
	return container_of(txd, struct lsi_copy_desc, txd);
}

static u32 *lsi_copy_left(struct dma_chan *chan, dma_cookie_t cookie)
{
	return &to_lsi_copy_chan(chan)->left[cookie % LSI_COPY_DESCS];
}

/*
 * Terminating a channel completes all its cookies at once. So a descriptor
 * whose cookie is complete before it has been completed was terminated.
 */
static bool lsi_copy_is_terminated(struct lsi_copy_desc *desc)
{
	struct dma_chan *chan = desc->txd.chan;

	return dma_async_is_complete(desc->txd.cookie, chan->completed_cookie,
				     chan->cookie) == DMA_COMPLETE;
}

static void lsi_copy_reset(struct lsi_copy *engine)
{
	writeb(LSI_ISTAT_SRST, engine->regs + LSI_ISTAT);
	readb(engine->regs + LSI_ISTAT);
	udelay(1);
	writeb(0, engine->regs + LSI_ISTAT);

	writeb(LSI_SIST0_UDC | LSI_SIST0_SGE, engine->regs + LSI_SIEN0);
	writeb(0, engine->regs + LSI_SIEN1);
	writeb(LSI_DSTAT_IID | LSI_DSTAT_SIR | LSI_DSTAT_ABRT | LSI_DSTAT_BF |
	       LSI_DSTAT_MDPE, engine->regs + LSI_DIEN);
}

static void lsi_copy_start(struct lsi_copy *engine)
{
	lockdep_assert_held(&engine->lock);

	if (engine->running || list_empty(&engine->issued))
		return;

	if (engine->gone) {
		list_splice_tail_init(&engine->issued, &engine->done);
		queue_work(system_bh_wq, &engine->done_work);
		return;
	}

	engine->running = list_first_entry(&engine->issued,
					   struct lsi_copy_desc, node);
	list_del(&engine->running->node);
	mod_timer(&engine->watchdog, jiffies + LSI_COPY_TIMEOUT);
	writel(lower_32_bits(engine->running->script_dma),
	       engine->regs + LSI_DSP);
}

static void lsi_copy_stop(struct lsi_copy *engine)
{
	lockdep_assert_held(&engine->lock);

	list_add_tail(&engine->running->node, &engine->done);
	engine->running = NULL;
	queue_work(system_bh_wq, &engine->done_work);
	wake_up(&engine->idle);
}

/* Returns whether there was an event of the controller's. */
static bool lsi_copy_event(struct lsi_copy *engine)
{
	struct lsi_copy_desc *desc = engine->running;
	u8 istat = readb(engine->regs + LSI_ISTAT);
	u8 dstat = 0, sist0 = 0, sist1 = 0;
	u32 dsps;

	lockdep_assert_held(&engine->lock);

	if (!(istat & (LSI_ISTAT_DIP | LSI_ISTAT_SIP)))
		return false;

	/* Reading the status registers withdraws the interrupt. */
	if (istat & LSI_ISTAT_SIP) {
		sist0 = readb(engine->regs + LSI_SIST0);
		sist1 = readb(engine->regs + LSI_SIST1);
	}
	if (istat & LSI_ISTAT_DIP)
		dstat = readb(engine->regs + LSI_DSTAT) & ~LSI_DSTAT_DFE;
	dsps = readl(engine->regs + LSI_DSPS);

	if (!desc)
		return true;

	if (dstat == LSI_DSTAT_SIR && !sist0 && !sist1 &&
	    dsps == lower_32_bits(desc->script_dma)) {
		desc->result = DMA_TRANS_NOERROR;
	} else {
		dev_err_ratelimited(&engine->pdev->dev,
				    "copy failed: DSTAT %#x SIST %#x %#x DSPS %#x\n",
				    dstat, sist0, sist1, dsps);
		lsi_copy_reset(engine);
	}

	lsi_copy_stop(engine);
	lsi_copy_start(engine);
	return true;
}

static irqreturn_t lsi_copy_irq(int irq, void *data)
{
	struct lsi_copy *engine = data;

	guard(spinlock)(&engine->lock);
	return IRQ_RETVAL(lsi_copy_event(engine));
}

static void lsi_copy_watchdog(struct timer_list *t)
{
	struct lsi_copy *engine = timer_container_of(engine, t, watchdog);

	guard(spinlock_irqsave)(&engine->lock);

	/* The next script may have restarted the watchdog meanwhile. */
	if (!engine->running || timer_pending(t))
		return;

	if (lsi_copy_event(engine)) {
		dev_warn_ratelimited(&engine->pdev->dev, "lost interrupt\n");
		return;
	}

	dev_err_ratelimited(&engine->pdev->dev,
			    "copy timed out: DSP %#x\n",
			    readl(engine->regs + LSI_DSP));
	lsi_copy_reset(engine);
	lsi_copy_stop(engine);
	lsi_copy_start(engine);
}

static void lsi_copy_complete(struct lsi_copy *engine,
			      struct lsi_copy_desc *desc)
{
	struct dma_async_tx_descriptor *txd = &desc->txd;
	dma_async_tx_callback_result callback_result = txd->callback_result;
	dma_async_tx_callback callback = txd->callback;
	void *param = txd->callback_param;
	struct dmaengine_result result = { .result = desc->result };
	struct dma_chan *chan = txd->chan;

	/* The client may look at the data as soon as the cookie is complete. */
	dma_descriptor_unmap(txd);

	scoped_guard(spinlock_irq, &engine->lock) {
		list_move_tail(&desc->node, &to_lsi_copy_chan(chan)->free);
		if (lsi_copy_is_terminated(desc))
			return;
		if (desc->result == DMA_TRANS_NOERROR)
			*lsi_copy_left(chan, txd->cookie) = 0;
		result.residue = *lsi_copy_left(chan, txd->cookie);
		chan->completed_cookie = txd->cookie;
	}

	if (callback_result)
		callback_result(param, &result);
	else if (callback)
		callback(param);
}

static void lsi_copy_done_work(struct work_struct *work)
{
	struct lsi_copy *engine = container_of(work, struct lsi_copy,
					       done_work);
	struct lsi_copy_desc *desc, *next;
	LIST_HEAD(done);

	scoped_guard(spinlock_irq, &engine->lock)
		list_splice_init(&engine->done, &done);

	list_for_each_entry_safe(desc, next, &done, node)
		lsi_copy_complete(engine, desc);
}

static void lsi_copy_write_script(struct lsi_copy_desc *desc, dma_addr_t dst,
				  dma_addr_t src, size_t len)
{
	__le32 *pc = desc->script;

	while (len) {
		u32 part = min_t(size_t, len, move_max);

		*pc++ = cpu_to_le32(LSI_INSN_MOVE | part);
		*pc++ = cpu_to_le32(src);
		*pc++ = cpu_to_le32(dst);
		src += part;
		dst += part;
		len -= part;
	}

	*pc++ = cpu_to_le32(LSI_INSN_INT);
	*pc++ = cpu_to_le32(desc->script_dma);
}

static struct lsi_copy_desc *lsi_copy_get_desc(struct lsi_copy_chan *lchan)
{
	struct lsi_copy_desc *desc;

	list_for_each_entry(desc, &lchan->free, node) {
		if (async_tx_test_ack(&desc->txd)) {
			list_del(&desc->node);
			return desc;
		}
	}

	return NULL;
}

static struct dma_async_tx_descriptor *
lsi_copy_prep_memcpy(struct dma_chan *chan, dma_addr_t dst, dma_addr_t src,
		     size_t len, unsigned long flags)
{
	struct lsi_copy *engine = to_lsi_copy(chan);
	struct lsi_copy_desc *desc;

	if (!len || len > lsi_copy_max_len())
		return NULL;

	/* The DMA mask says so for the DMA API, but not for bus addresses. */
	if (upper_32_bits(dst + len - 1) || upper_32_bits(src + len - 1)) {
		dev_err_ratelimited(chan->device->dev,
				    "cannot reach %pad or %pad\n", &dst, &src);
		return NULL;
	}

	guard(spinlock_irqsave)(&engine->lock);

	/* The programs' memory goes when the driver is unbound. */
	if (engine->gone)
		return NULL;

	desc = lsi_copy_get_desc(to_lsi_copy_chan(chan));
	if (!desc)
		return NULL;

	lsi_copy_write_script(desc, dst, src, len);
	desc->len = len;
	desc->result = DMA_TRANS_ABORTED;
	desc->txd.flags = flags;
	desc->txd.callback = NULL;
	desc->txd.callback_result = NULL;
	desc->txd.callback_param = NULL;
	return &desc->txd;
}

static dma_cookie_t lsi_copy_tx_submit(struct dma_async_tx_descriptor *txd)
{
	struct lsi_copy_desc *desc = to_lsi_copy_desc(txd);
	struct dma_chan *chan = txd->chan;

	guard(spinlock_irqsave)(&to_lsi_copy(chan)->lock);

	if (chan->cookie == INT_MAX)
		chan->cookie = DMA_MIN_COOKIE;
	else
		chan->cookie++;
	txd->cookie = chan->cookie;

	*lsi_copy_left(chan, txd->cookie) = desc->len;
	list_add_tail(&desc->node, &to_lsi_copy_chan(chan)->submitted);
	return txd->cookie;
}

static void lsi_copy_issue_pending(struct dma_chan *chan)
{
	struct lsi_copy *engine = to_lsi_copy(chan);

	guard(spinlock_irqsave)(&engine->lock);
	list_splice_tail_init(&to_lsi_copy_chan(chan)->submitted,
			      &engine->issued);
	lsi_copy_start(engine);
}

static enum dma_status lsi_copy_tx_status(struct dma_chan *chan,
					  dma_cookie_t cookie,
					  struct dma_tx_state *state)
{
	enum dma_status status;
	u32 left = 0;

	guard(spinlock_irqsave)(&to_lsi_copy(chan)->lock);

	status = dma_async_is_complete(cookie, chan->completed_cookie,
				       chan->cookie);
	/* What became of an older cookie is forgotten. */
	if ((u32)(chan->cookie - cookie) < LSI_COPY_DESCS)
		left = *lsi_copy_left(chan, cookie);

	if (state) {
		state->last = chan->completed_cookie;
		state->used = chan->cookie;
		state->residue = left;
		state->in_flight_bytes = 0;
	}

	return status == DMA_COMPLETE && left ? DMA_ERROR : status;
}

static int lsi_copy_terminate_all(struct dma_chan *chan)
{
	struct lsi_copy_chan *lchan = to_lsi_copy_chan(chan);
	struct lsi_copy *engine = to_lsi_copy(chan);
	struct lsi_copy_desc *desc, *next;

	guard(spinlock_irqsave)(&engine->lock);

	list_splice_tail_init(&lchan->submitted, &engine->done);
	list_for_each_entry_safe(desc, next, &engine->issued, node)
		if (desc->txd.chan == chan)
			list_move_tail(&desc->node, &engine->done);
	chan->completed_cookie = chan->cookie;

	queue_work(system_bh_wq, &engine->done_work);
	return 0;
}

/* A running script is left to end: the watchdog sees to it that it does. */
static void lsi_copy_synchronize(struct dma_chan *chan)
{
	struct lsi_copy *engine = to_lsi_copy(chan);

	scoped_guard(spinlock_irq, &engine->lock)
		wait_event_lock_irq(engine->idle,
				    !engine->running ||
				    engine->running->txd.chan != chan ||
				    !lsi_copy_is_terminated(engine->running),
				    engine->lock);
	flush_work(&engine->done_work);
}

static int lsi_copy_alloc_chan_resources(struct dma_chan *chan)
{
	struct lsi_copy_chan *lchan = to_lsi_copy_chan(chan);
	struct lsi_copy *engine = to_lsi_copy(chan);
	size_t first = (lchan - engine->chans) * LSI_COPY_DESCS;
	int i;

	lchan->descs = kvzalloc_objs(*lchan->descs, LSI_COPY_DESCS);
	if (!lchan->descs)
		return -ENOMEM;

	for (i = 0; i < LSI_COPY_DESCS; i++) {
		size_t word = (first + i) * LSI_COPY_SCRIPT_WORDS;
		struct lsi_copy_desc *desc = &lchan->descs[i];

		dma_async_tx_descriptor_init(&desc->txd, chan);
		desc->txd.tx_submit = lsi_copy_tx_submit;
		async_tx_ack(&desc->txd);
		desc->script = engine->scripts + word;
		desc->script_dma = engine->scripts_dma + word * sizeof(__le32);
		list_add_tail(&desc->node, &lchan->free);
	}

	return LSI_COPY_DESCS;
}

static void lsi_copy_free_chan_resources(struct dma_chan *chan)
{
	struct lsi_copy_chan *lchan = to_lsi_copy_chan(chan);

	lsi_copy_terminate_all(chan);
	lsi_copy_synchronize(chan);

	INIT_LIST_HEAD(&lchan->free);
	kvfree(lchan->descs);
}

static void lsi_copy_release(struct dma_device *dma)
{
	struct lsi_copy *engine = container_of(dma, struct lsi_copy, dma);

	put_device(dma->dev);
	/* dma_release_channel() looks at the channel after the last put. */
	kfree_rcu(engine, rcu);
}

static void lsi_copy_init_chan(struct lsi_copy *engine, int i)
{
	struct lsi_copy_chan *lchan = &engine->chans[i];

	INIT_LIST_HEAD(&lchan->free);
	INIT_LIST_HEAD(&lchan->submitted);
	lchan->chan.device = &engine->dma;
	lchan->chan.cookie = DMA_MIN_COOKIE;
	lchan->chan.completed_cookie = DMA_MIN_COOKIE;
	list_add_tail(&lchan->chan.device_node, &engine->dma.channels);
}

static void lsi_copy_init_dma(struct lsi_copy *engine)
{
	struct dma_device *dma = &engine->dma;
	int i;

	dma->dev = &engine->pdev->dev;
	dma->copy_align = DMAENGINE_ALIGN_1_BYTE;
	dma->device_alloc_chan_resources = lsi_copy_alloc_chan_resources;
	dma->device_free_chan_resources = lsi_copy_free_chan_resources;
	dma->device_prep_dma_memcpy = lsi_copy_prep_memcpy;
	dma->device_issue_pending = lsi_copy_issue_pending;
	dma->device_terminate_all = lsi_copy_terminate_all;
	dma->device_synchronize = lsi_copy_synchronize;
	dma->device_tx_status = lsi_copy_tx_status;
	dma->device_release = lsi_copy_release;

	dma_cap_set(DMA_MEMCPY, dma->cap_mask);
	/* Every client asks for a channel of its own, nobody gets them all. */
	dma_cap_set(DMA_PRIVATE, dma->cap_mask);

	INIT_LIST_HEAD(&dma->channels);
	for (i = 0; i < LSI_COPY_CHANS; i++)
		lsi_copy_init_chan(engine, i);
}

static struct lsi_copy *lsi_copy_alloc(struct pci_dev *pdev)
{
	struct lsi_copy *engine;

	engine = kzalloc_obj(*engine);
	if (!engine)
		return NULL;

	engine->pdev = pdev;
	spin_lock_init(&engine->lock);
	INIT_LIST_HEAD(&engine->issued);
	INIT_LIST_HEAD(&engine->done);
	INIT_WORK(&engine->done_work, lsi_copy_done_work);
	init_waitqueue_head(&engine->idle);
	timer_setup(&engine->watchdog, lsi_copy_watchdog, 0);
	lsi_copy_init_dma(engine);
	return engine;
}

static void lsi_copy_disable(void *pdev)
{
	pci_disable_device(pdev);
}

static int lsi_copy_enable(struct lsi_copy *engine)
{
	size_t size = LSI_COPY_CHANS * LSI_COPY_DESCS * LSI_COPY_SCRIPT_WORDS *
		      sizeof(__le32);
	struct pci_dev *pdev = engine->pdev;
	int ret;

	/* Not for I/O space: after hotplug a bridge may have no window for it. */
	ret = pci_enable_device_mem(pdev);
	if (ret)
		return ret;
	ret = devm_add_action_or_reset(&pdev->dev, lsi_copy_disable, pdev);
	if (ret)
		return ret;

	engine->regs = pcim_iomap_region(pdev, LSI_COPY_BAR, KBUILD_MODNAME);
	if (IS_ERR(engine->regs))
		return PTR_ERR(engine->regs);

	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
	if (ret)
		return ret;
	dma_set_max_seg_size(&pdev->dev, lsi_copy_max_len());

	engine->scripts = dmam_alloc_coherent(&pdev->dev, size,
					      &engine->scripts_dma, GFP_KERNEL);
	if (!engine->scripts)
		return -ENOMEM;

	pci_set_master(pdev);
	lsi_copy_reset(engine);
	return 0;
}

static int lsi_copy_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct lsi_copy *engine;
	int ret;

	engine = lsi_copy_alloc(pdev);
	if (!engine)
		return -ENOMEM;

	ret = lsi_copy_enable(engine);
	if (ret)
		goto free_engine;

	ret = pci_request_irq(pdev, 0, lsi_copy_irq, NULL, engine,
			      KBUILD_MODNAME);
	if (ret)
		goto free_engine;

	get_device(&pdev->dev);
	ret = dma_async_device_register(&engine->dma);
	if (ret)
		goto put_device;

	pci_set_drvdata(pdev, engine);
	return 0;

put_device:
	put_device(&pdev->dev);
	pci_free_irq(pdev, 0, engine);
free_engine:
	kfree(engine);
	return ret;
}

/*
 * Clients may hold channels beyond this: what they have issued and will issue
 * fails, and they can prepare nothing more.
 */
static void lsi_copy_remove(struct pci_dev *pdev)
{
	struct lsi_copy *engine = pci_get_drvdata(pdev);

	scoped_guard(spinlock_irq, &engine->lock) {
		engine->gone = true;
		lsi_copy_reset(engine);
		if (engine->running)
			lsi_copy_stop(engine);
		lsi_copy_start(engine);
	}
	pci_free_irq(pdev, 0, engine);
	timer_shutdown_sync(&engine->watchdog);
	flush_work(&engine->done_work);

	/* Held channels keep the device listed: let nobody find the others. */
	dma_cap_clear(DMA_MEMCPY, engine->dma.cap_mask);
	dma_async_device_unregister(&engine->dma);
}

static const struct pci_device_id lsi_copy_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_LSI_LOGIC, PCI_DEVICE_ID_LSI_53C895A) },
	{ }
};
MODULE_DEVICE_TABLE(pci, lsi_copy_ids);

static struct pci_driver lsi_copy_driver = {
	.name		= KBUILD_MODNAME,
	.id_table	= lsi_copy_ids,
	.probe		= lsi_copy_probe,
	.remove		= lsi_copy_remove,
};
module_pci_driver(lsi_copy_driver);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("LSI 53C895A as a DMA copy engine (for testing only)");
MODULE_LICENSE("GPL");
