/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tests in C of DMA-address bios: /dev/dma_bio, the disk, and random data.
 */
#ifndef _DMA_BIO_LIB_H
#define _DMA_BIO_LIB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "modules/dma_bio_ctl.h"

#define SECTOR_SIZE	512
#define POISON		0xa5
#define DMA_BIO_LOG_LINE	8192	/* /dev/kmsg wants room for any */

/* The blk_status_t of the kernel. */
enum {
	BLK_STS_OK = 0,
	BLK_STS_NOTSUPP = 1,
	BLK_STS_PROTECTION = 8,
	BLK_STS_IOERR = 10,
	BLK_STS_AGAIN = 12,
	BLK_STS_INVAL = 19,
};

/**
 * struct dma_bio_env - a disk, and p2pmem
 * @ctl:  open /dev/dma_bio
 * @disk: the disk, open for direct I/O
 * @path: of the disk
 * @map:  number of a mapping of the p2pmem
 * @size: bytes of p2pmem, from offset 0
 * @place: where in all p2pmem of the provider the offset 0 is
 */
struct dma_bio_env {
	int ctl;
	int disk;
	char path[64];
	uint32_t map;
	size_t size;
	uint64_t place;
};

/* Returns the reason to skip the test, or NULL if all requirements are met. */
const char *dma_bio_missing(void);
/* The PCI address of a device by its name in the emulated machine, or NULL. */
const char *dma_bio_device(const char *name);
/* A namespace of an NVMe drive, or its first one, by the drive's name. */
bool dma_bio_find_namespace(const char *name, unsigned int nsid, char *path,
			    size_t size);
bool dma_bio_find_disk(const char *name, char *path, size_t size);

/* Loads one or all modules. False with a message on stderr, here and below. */
bool dma_bio_load_module(const char *name);
bool dma_bio_load(void);
/* The p2pmem is mapped for the disk, or for the client if one is named. */
bool dma_bio_open(struct dma_bio_env *env, const char *path,
		  const char *client, size_t size, size_t pages);
void dma_bio_close(struct dma_bio_env *env);
/* Numbers of mappings, or -errno. */
int dma_bio_map_disk(struct dma_bio_env *env, int disk);
int dma_bio_map_device(struct dma_bio_env *env, const char *name);

/* A bio for the env's disk and mapping. */
struct dma_bio dma_bio_make(const struct dma_bio_env *env, uint32_t op,
			    uint64_t sector, const struct dma_bio_vec *vecs,
			    uint32_t nr_vecs);
/* 0, or -errno if they could not be submitted. */
int dma_bio_submit(const struct dma_bio_env *env, struct dma_bio *bios,
		   uint32_t nr, uint32_t flags, uint32_t linger);
/* Submits one, which must end once: its status, or -1 with a message. */
int dma_bio_run(const struct dma_bio_env *env, struct dma_bio *bio);

/*
 * Submits one that must be refused, and repeats that until the log can tell why:
 * nothing if there is no reason, otherwise a line with it. Returns 0, -errno if it
 * could not be submitted, or -ENOMSG with a message on stderr if the log has anything
 * else.
 */
int dma_bio_refuse(const struct dma_bio_env *env, struct dma_bio *bio,
		   const char *reason);

/* The kernel's log from here on, for the next function. */
int dma_bio_open_log(void);
/* The next line, if there is one by now. */
bool dma_bio_read_log(int log, char *line, size_t size);

/* The buffers; offsets from the env's size on are in system memory. */
bool dma_bio_put(const struct dma_bio_env *env, size_t offset,
		 const void *data, size_t len);
bool dma_bio_get(const struct dma_bio_env *env, size_t offset, void *data,
		 size_t len);
bool dma_bio_poison(const struct dma_bio_env *env);

/* Ordinary I/O with the disk; data from dma_bio_memory(). */
void *dma_bio_memory(size_t size);
bool dma_bio_disk_write(const struct dma_bio_env *env, uint64_t sector,
			const void *data, size_t len);
bool dma_bio_disk_read(const struct dma_bio_env *env, uint64_t sector,
		       void *data, size_t len);

/* A limit of the disk's queue, as sysfs has it. */
uint32_t dma_bio_limit(const struct dma_bio_env *env, const char *name);
/* Can the data be anywhere, as for a drive with SGLs? */
/* If the driver was told to make queues for it. */
bool dma_bio_can_poll(void);
bool dma_bio_takes_unaligned(const struct dma_bio_env *env);

/* A file of sysfs, of which the first word is read. */
bool dma_bio_write_file(const char *path, const char *text);
bool dma_bio_read_file(const char *path, char *text, size_t size);

uint32_t dma_bio_random(uint64_t *state);
void dma_bio_random_bytes(uint64_t *state, void *data, size_t len);

#endif /* _DMA_BIO_LIB_H */
