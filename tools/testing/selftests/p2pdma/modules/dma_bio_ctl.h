/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/dma_bio: submit any bio that describes its data by DMA addresses. For
 * testing only.
 *
 * An open file has a buffer in a provider's p2pmem, and mappings of the p2pmem
 * for devices. User space never sees a DMA address: it gives an offset in the
 * buffer and the number of the mapping that translates it.
 *
 * read() and write() copy between user space and the buffer. Behind this buffer
 * there is one in system memory, for bios that have pages.
 */
#ifndef _DMA_BIO_CTL_H
#define _DMA_BIO_CTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DMA_BIO_DEVICE		"/dev/dma_bio"
#define DMA_BIO_MAX_MAPS	8
#define DMA_BIO_MAX_BIOS	256
#define DMA_BIO_MAX_VECS	255
#define DMA_BIO_MAX_META	65536
#define DMA_BIO_MAX_LINGER	1000
#define DMA_BIO_NAME_LEN	24

/* In place of the number of a mapping: the bio has pages, of system memory. */
#define DMA_BIO_PAGES		0xffffffffU

/**
 * struct dma_bio_alloc - allocate the buffers, once for each open file
 * @provider: PCI address of the device that has the p2pmem
 * @size:     bytes of p2pmem
 * @pages:    bytes of system memory, may be 0
 */
struct dma_bio_alloc {
	char provider[DMA_BIO_NAME_LEN];
	__u64 size;
	__u64 pages;
};

/**
 * struct dma_bio_map - map the p2pmem for a device, or for all that a stack has
 * @client: PCI address of the device, or empty for those of @bdev
 * @bdev:   file descriptor of a block device
 * @offset: returned: where in the p2pmem the buffer is
 *
 * The ioctl returns the number of the last mapping. It fails as bdev_get_dma_devs()
 * and pci_p2pmem_map_resource() do.
 */
struct dma_bio_map {
	char client[DMA_BIO_NAME_LEN];
	__s32 bdev;
	__u64 offset;
};

/**
 * struct dma_bio_vec - a piece of the buffer that the bio uses
 * @offset: of its first byte in that buffer
 * @len:    in bytes
 */
struct dma_bio_vec {
	__u32 offset;
	__u32 len;
};

enum dma_bio_op {
	DMA_BIO_READ,
	DMA_BIO_WRITE,
	DMA_BIO_ZONE_APPEND,
	DMA_BIO_FLUSH,
	DMA_BIO_DISCARD,
	DMA_BIO_SECURE_ERASE,
	DMA_BIO_WRITE_ZEROES,
	DMA_BIO_ZONE_RESET,
	DMA_BIO_DRV_IN,
	DMA_BIO_DRV_OUT,
};

/**
 * enum dma_bio_flags - the REQ_ flags of these names, and one of our own
 * @DMA_BIO_SYNC:       somebody waits for it
 * @DMA_BIO_META:       metadata of a file system
 * @DMA_BIO_PRIO:       urgent
 * @DMA_BIO_NOMERGE:    is not merged
 * @DMA_BIO_IDLE:       more will follow
 * @DMA_BIO_FUA:        on the medium when it ends
 * @DMA_BIO_PREFLUSH:   flush the cache before it
 * @DMA_BIO_RAHEAD:     may fail any time
 * @DMA_BIO_BACKGROUND: may be throttled
 * @DMA_BIO_NOWAIT:     fails instead of waiting
 * @DMA_BIO_POLLED:     its end is polled for
 * @DMA_BIO_ATOMIC:     all or nothing is written
 * @DMA_BIO_CHAIN:      chained to the next bio of the array, whose result is that
 *			of both
 */
enum dma_bio_flags {
	DMA_BIO_SYNC		= 1 << 0,
	DMA_BIO_META		= 1 << 1,
	DMA_BIO_PRIO		= 1 << 2,
	DMA_BIO_NOMERGE		= 1 << 3,
	DMA_BIO_IDLE		= 1 << 4,
	DMA_BIO_FUA		= 1 << 5,
	DMA_BIO_PREFLUSH	= 1 << 6,
	DMA_BIO_RAHEAD		= 1 << 7,
	DMA_BIO_BACKGROUND	= 1 << 8,
	DMA_BIO_NOWAIT		= 1 << 9,
	DMA_BIO_POLLED		= 1 << 10,
	DMA_BIO_ATOMIC		= 1 << 11,
	DMA_BIO_CHAIN		= 1 << 12,
};

/**
 * enum dma_bio_fault - what is wrong with a bio
 * @DMA_BIO_GOOD:   nothing
 * @DMA_BIO_NO_MAP: it names no mapping, as if pages had been added
 * @DMA_BIO_CRYPT:  it has an encryption context
 * @DMA_BIO_BEHIND: its first vector is behind the mapping. Only an IOMMU stops it,
 *                  hence EOPNOTSUPP without one.
 */
enum dma_bio_fault {
	DMA_BIO_GOOD,
	DMA_BIO_NO_MAP,
	DMA_BIO_CRYPT,
	DMA_BIO_BEHIND,
};

enum dma_bio_meta_flags {
	DMA_BIO_CHECK_GUARD	= 1 << 0,
	DMA_BIO_CHECK_REFTAG	= 1 << 1,
	DMA_BIO_CHECK_APPTAG	= 1 << 2,
};

/**
 * struct dma_bio - a bio, and what became of it
 * @sector:     first sector; after a zone append where the data is
 * @vecs:       pointer to an array of &struct dma_bio_vec
 * @meta:       pointer to metadata, which is copied to or from system memory
 * @meta_seed:  initial reference tag
 * @meta_len:   bytes of metadata, 0 if the bio comes without
 * @meta_flags: what the device is to check, of &enum dma_bio_meta_flags
 * @app_tag:    application tag
 * @nr_vecs:    how many of @vecs, 0 for a flush without data
 * @bdev:       file descriptor of the block device
 * @map:        number of the mapping, or %DMA_BIO_PAGES
 * @op:         one of &enum dma_bio_op
 * @flags:      of &enum dma_bio_flags
 * @fault:      one of &enum dma_bio_fault
 * @added:      returned: how many of @vecs the bio took; it was submitted only if
 *		it took all of them
 * @ended:      returned: how many times it ended
 * @status:     returned: its blk_status_t
 * @reserved:   0
 */
struct dma_bio {
	__u64 sector;
	__u64 vecs;
	__u64 meta;
	__u64 meta_seed;
	__u32 meta_len;
	__u16 meta_flags;
	__u16 app_tag;
	__u32 nr_vecs;
	__s32 bdev;
	__u32 map;
	__u32 op;
	__u32 flags;
	__u32 fault;
	__u32 added;
	__u32 ended;
	__u32 status;
	__u32 reserved;
};

enum dma_bio_submit_flags {
	DMA_BIO_PLUG		= 1 << 0,
};

/**
 * struct dma_bio_submit - submit bios and wait for all of them
 * @bios:   pointer to an array of &struct dma_bio
 * @nr:     how many of them
 * @flags:  %DMA_BIO_PLUG: under one plug, where they can merge
 * @linger: milliseconds to wait for a bio to end a second time
 * @reserved: 0
 *
 * EINVAL if a bio can't be described in this way. Nothing was submitted then.
 */
struct dma_bio_submit {
	__u64 bios;
	__u32 nr;
	__u32 flags;
	__u32 linger;
	__u32 reserved;
};

#define DMA_BIO_IOC_ALLOC	_IOW(0xdb, 0, struct dma_bio_alloc)
#define DMA_BIO_IOC_MAP		_IOWR(0xdb, 1, struct dma_bio_map)
#define DMA_BIO_IOC_SUBMIT	_IOW(0xdb, 2, struct dma_bio_submit)

#endif /* _DMA_BIO_CTL_H */
