/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /dev/dma_bio: what its source files share.
 */
#ifndef _DMA_BIO_CTL_PRIV_H
#define _DMA_BIO_CTL_PRIV_H

#include <linux/completion.h>
#include <linux/dma-premap.h>
#include <linux/pci-p2pdma.h>
#include <linux/printk.h>
#include <linux/rwsem.h>
#include "dma_bio_ctl.h"

struct bio;
struct file;
struct pci_dev;

struct ctl_buffer {
	void *addr;
	size_t size;
};

/**
 * struct ctl_file - what belongs to an open file
 * @lock:     held for writing to set up, for reading to use what is set up
 * @provider: device that has the p2pmem
 * @p2p:      buffer of p2pmem
 * @pages:    buffer of system memory
 * @nr_maps:  number of mappings
 * @maps:     of all p2pmem of @provider, see ctl_find_map()
 */
struct ctl_file {
	struct rw_semaphore lock;
	struct pci_dev *provider;
	struct ctl_buffer p2p;
	struct ctl_buffer pages;
	unsigned int nr_maps;
	struct dma_premap *maps[DMA_BIO_MAX_MAPS];
};

/**
 * struct ctl_bio - one bio of a batch
 * @desc:   how user space describes it, and the result
 * @batch:  that it is part of
 * @bio:    the bio, unless it could not be made or belongs to its chain
 * @file:   the block device, open until the bio has ended
 * @meta:   the metadata
 * @ended:  how often the bio has ended
 */
struct ctl_bio {
	struct dma_bio desc;
	struct ctl_batch *batch;
	struct bio *bio;
	struct file *file;
	void *meta;
	atomic_t ended;
};

/**
 * struct ctl_batch - bios that are submitted together
 * @ctl:     the open file
 * @done:    all have ended
 * @pending: bios that have not ended, and one for who submits them
 * @nr:      number of bios
 * @bios:    in the order of submission
 */
struct ctl_batch {
	struct ctl_file *ctl;
	struct completion done;
	atomic_t pending;
	unsigned int nr;
	struct ctl_bio bios[] __counted_by(nr);
};

static inline struct dma_premap *ctl_find_map(const struct ctl_file *ctl,
					      unsigned int nr, void *addr)
{
	return pci_p2pmem_find_map(ctl->maps[nr], addr);
}

static inline int ctl_invalid(const char *reason)
{
	pr_debug("invalid: %s\n", reason);
	return -EINVAL;
}

static inline bool ctl_is_complete(const struct ctl_bio *cb)
{
	return cb->desc.added == cb->desc.nr_vecs;
}

/* dma_bio_ctl_bio.c */
struct file *ctl_get_bdev(int fd, fmode_t mode);
int ctl_prepare(struct ctl_batch *batch, struct ctl_bio *cb);
int ctl_report(struct ctl_bio *cb, struct dma_bio __user *to);
void ctl_free_bio(struct ctl_bio *cb);

/* dma_bio_ctl_batch.c */
int ctl_submit(struct ctl_file *ctl, const struct dma_bio_submit *arg);
void ctl_end_io(struct bio *bio);

#endif /* _DMA_BIO_CTL_PRIV_H */
