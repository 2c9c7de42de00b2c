// SPDX-License-Identifier: GPL-2.0
/*
 * Bios that are submitted together: all are made before the first is submitted,
 * and the ioctl returns when the last has ended.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "dma_bio_ctl_priv.h"

void ctl_end_io(struct bio *bio)
{
	struct ctl_bio *cb = bio->bi_private;

	if (atomic_inc_return(&cb->ended) == 1 &&
	    atomic_dec_and_test(&cb->batch->pending))
		complete(&cb->batch->done);
}

/* The parent frees its children when they end. */
static int ctl_chain(struct ctl_batch *batch)
{
	struct ctl_bio *cb = batch->bios;
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		if (cb[i].desc.flags & DMA_BIO_CHAIN &&
		    (i + 1 == batch->nr || !ctl_is_complete(&cb[i]) ||
		     !ctl_is_complete(&cb[i + 1])))
			return ctl_invalid("nothing to chain the bio to");
	for (i = 0; i < batch->nr; i++)
		if (cb[i].desc.flags & DMA_BIO_CHAIN)
			bio_chain(cb[i].bio, cb[i + 1].bio);
	return 0;
}

static int ctl_prepare_all(struct ctl_batch *batch)
{
	unsigned int i;
	int ret;

	for (i = 0; i < batch->nr; i++) {
		ret = ctl_prepare(batch, &batch->bios[i]);
		if (ret)
			return ret;
	}
	return ctl_chain(batch);
}

static void ctl_submit_one(struct ctl_bio *cb)
{
	struct bio *bio = cb->bio;

	if (!ctl_is_complete(cb))
		return;
	if (cb->desc.flags & DMA_BIO_CHAIN)
		cb->bio = NULL;
	else
		atomic_inc(&cb->batch->pending);
	submit_bio(bio);
}

static void ctl_submit_all(struct ctl_batch *batch, bool plugged)
{
	struct blk_plug plug;
	unsigned int i;

	atomic_set(&batch->pending, 1);
	init_completion(&batch->done);
	if (plugged)
		blk_start_plug(&plug);
	for (i = 0; i < batch->nr; i++)
		ctl_submit_one(&batch->bios[i]);
	if (plugged)
		blk_finish_plug(&plug);
	if (atomic_dec_and_test(&batch->pending))
		complete(&batch->done);
}

/* Nobody else completes polled bios. Those that do not poll are left alone. */
static void ctl_poll(struct ctl_batch *batch)
{
	struct ctl_bio *cb;

	for (cb = batch->bios; cb < batch->bios + batch->nr; cb++)
		if (cb->bio && cb->desc.flags & DMA_BIO_POLLED &&
		    !atomic_read(&cb->ended))
			bio_poll(cb->bio, NULL, 0);
}

static bool ctl_is_polled(const struct ctl_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		if (batch->bios[i].desc.flags & DMA_BIO_POLLED)
			return true;
	return false;
}

static void ctl_wait(struct ctl_batch *batch, unsigned int linger)
{
	if (ctl_is_polled(batch))
		while (!completion_done(&batch->done)) {
			ctl_poll(batch);
			cond_resched();
		}
	wait_for_completion_io(&batch->done);
	if (linger)
		msleep(linger);
}

static int ctl_report_all(struct ctl_batch *batch, struct dma_bio __user *to)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < batch->nr && !ret; i++)
		ret = ctl_report(&batch->bios[i], to + i);
	return ret;
}

static void ctl_free_batch(struct ctl_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		ctl_free_bio(&batch->bios[i]);
	kvfree(batch);
}

static struct ctl_batch *ctl_get_batch(struct ctl_file *ctl,
				       const struct dma_bio __user *from,
				       unsigned int nr)
{
	struct ctl_batch *batch = kvzalloc_flex(*batch, bios, nr);
	unsigned int i;

	if (!batch)
		return ERR_PTR(-ENOMEM);
	batch->ctl = ctl;
	batch->nr = nr;
	for (i = 0; i < nr; i++)
		if (copy_from_user(&batch->bios[i].desc, from + i,
				   sizeof(*from))) {
			kvfree(batch);
			return ERR_PTR(-EFAULT);
		}
	return batch;
}

int ctl_submit(struct ctl_file *ctl, const struct dma_bio_submit *arg)
{
	struct dma_bio __user *bios = u64_to_user_ptr(arg->bios);
	struct ctl_batch *batch;
	int ret;

	if (!arg->nr || arg->nr > DMA_BIO_MAX_BIOS ||
	    arg->flags & ~DMA_BIO_PLUG || arg->linger > DMA_BIO_MAX_LINGER ||
	    arg->reserved)
		return ctl_invalid("number of bios, flags or linger");
	batch = ctl_get_batch(ctl, bios, arg->nr);
	if (IS_ERR(batch))
		return PTR_ERR(batch);
	ret = ctl_prepare_all(batch);
	if (!ret) {
		ctl_submit_all(batch, arg->flags & DMA_BIO_PLUG);
		ctl_wait(batch, arg->linger);
		ret = ctl_report_all(batch, bios);
	}
	ctl_free_batch(batch);
	return ret;
}
