// SPDX-License-Identifier: GPL-2.0
/*
 * Random DMA-address bios, good and bad ones, in several threads, checked
 * against a model. Each thread has its own part of the disk and of the p2pmem
 * and a copy of both, and knows the status with which every bio must end. After
 * each batch it compares what the bios could have touched, the disk by ordinary
 * reads. The content of the drive is destroyed.
 *
 * P2P_SEED repeats a run, as far as the order of threads allows;
 * P2P_FUZZ_SECONDS and P2P_FUZZ_THREADS make it longer and wider.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "../kselftest.h"

#define FIRST		2048		/* sector of the first thread's part */
#define DISK_SIZE	(2 << 20)	/* of a thread's part */
#define P2P_SIZE	(2 << 20)
#define PAGES_SIZE	(512 << 10)
#define MEMORY_SIZE	(P2P_SIZE + PAGES_SIZE)
#define MARGIN		4096		/* is compared as well */
#define MAX_BIOS	8
#define MAX_THREADS	16

enum map_kind {
	MAP_DRIVE,
	MAP_SIBLING,		/* of another device, if there is one */
	MAP_PAGES,
	NR_MAPS,
};

enum outcome {
	READ_OK,
	WRITE_OK,
	NOTSUPP,
	INVAL,
	IOERR,
	AGAIN,
	MISDESCRIBED,
	NR_OUTCOMES,
};

static const char * const outcome_names[] = {
	[READ_OK] = "reads", [WRITE_OK] = "writes", [NOTSUPP] = "not supported",
	[INVAL] = "invalid", [IOERR] = "errors", [AGAIN] = "again",
	[MISDESCRIBED] = "misdescribed",
};

/**
 * struct plan - a bio, and what must become of it
 * @bio:        as it is submitted
 * @vecs:       its vectors
 * @map:        which mapping it names
 * @size:       bytes in all vectors
 * @beyond:     it ends after the end of the disk
 * @partial:    its size is not a number of sectors
 * @misaligned: its first vector starts at an odd address
 */
struct plan {
	struct dma_bio bio;
	struct dma_bio_vec vecs[DMA_BIO_MAX_VECS];
	enum map_kind map;
	uint32_t size;
	bool beyond;
	bool partial;
	bool misaligned;
};

/* Bytes of one of the three things that a batch works with */
struct span {
	uint32_t start;
	uint32_t end;
	uint32_t limit;
};

/**
 * struct worker - a thread and its part of everything
 * @env:      the disk and the p2pmem
 * @random:   state of the source of everything random
 * @first:    first sector of its part of the disk
 * @maps:     numbers of the mappings
 * @unmapped: a disk that the p2pmem is not mapped for, if there is one
 * @disk:     what its part of the disk must look like
 * @memory:   what the p2pmem and, after it, the system memory must look like
 * @seen:     what they look like
 * @plans:    the present batch
 * @nr:       number of @plans
 * @sectors:  bytes of @disk that the batch uses
 * @p2p:      bytes of the p2pmem that it uses
 * @pages:    bytes of @memory behind it that it uses
 * @outcomes: how often what happened
 * @thread:   that does it
 * @ok:       nothing was wrong so far
 */
struct worker {
	struct dma_bio_env env;
	uint64_t random;
	uint64_t first;
	int maps[NR_MAPS];
	int unmapped;
	unsigned char *disk;
	unsigned char *memory;
	unsigned char *seen;
	struct plan plans[MAX_BIOS];
	uint32_t nr;
	struct span sectors;
	struct span p2p;
	struct span pages;
	unsigned long outcomes[NR_OUTCOMES];
	pthread_t thread;
	bool ok;
};

static struct worker workers[MAX_THREADS];
static bool can_poll;
static uint64_t disk_sectors;
static time_t end_time;

static uint32_t rnd(struct worker *w, uint32_t max)
{
	return dma_bio_random(&w->random) % max;
}

static bool one_in(struct worker *w, uint32_t n)
{
	return !rnd(w, n);
}

/* --- making a batch --- */

static void restart(struct worker *w, struct span *s, uint32_t base,
		    uint32_t limit, uint32_t unit)
{
	s->start = base + rnd(w, (limit - base) / 2 / unit) * unit;
	s->end = s->start;
	s->limit = limit;
}

/* Up to @len bytes, after a gap if there is room for it; 0 at the end. */
static uint32_t take(struct span *s, uint32_t gap, uint32_t len)
{
	if (s->end + gap < s->limit)
		s->end += gap;
	if (len > s->limit - s->end)
		len = s->limit - s->end;
	s->end += len;
	return len;
}

static void add_vec(struct plan *p, struct span *memory, uint32_t gap,
		    uint32_t len)
{
	len = take(memory, gap, len);
	if (!len)
		return;
	p->vecs[p->bio.nr_vecs++] = (struct dma_bio_vec) {
		memory->end - len, len
	};
	p->size += len;
}

/* One piece of whole sectors, often a large one */
static void add_piece(struct worker *w, struct plan *p, struct span *memory)
{
	uint32_t sectors = one_in(w, 16) ? 3072 : one_in(w, 4) ? 256 : 16;

	add_vec(p, memory, rnd(w, 2) * 4 * rnd(w, 1024),
		SECTOR_SIZE * (1 + rnd(w, sectors)));
}

/* Pages, or parts of them, each in a page of its own */
static void add_pages(struct worker *w, struct plan *p, struct span *memory)
{
	uint32_t nr = 1 + rnd(w, one_in(w, 8) ? DMA_BIO_MAX_VECS : 12);
	uint32_t len = one_in(w, 2) ? 4096 : SECTOR_SIZE;

	while (p->bio.nr_vecs < nr && memory->end + 8192 < memory->limit)
		add_vec(p, memory, -memory->end % 4096 + 4096 * rnd(w, 2), len);
}

/* Pieces of any size, the last one so that the sum is right */
static void add_bits(struct worker *w, struct plan *p, struct span *memory)
{
	uint32_t nr = 1 + rnd(w, one_in(w, 8) ? DMA_BIO_MAX_VECS - 1 : 8);

	while (p->bio.nr_vecs < nr && memory->end + 8192 < memory->limit)
		add_vec(p, memory, 4 * rnd(w, 256), 4 * (1 + rnd(w, 512)));
	if (p->size % SECTOR_SIZE)
		add_vec(p, memory, 4, SECTOR_SIZE - p->size % SECTOR_SIZE);
}

static void choose_vecs(struct worker *w, struct plan *p)
{
	struct span *memory = p->map == MAP_PAGES ? &w->pages : &w->p2p;
	uint32_t i;

	switch (rnd(w, 3)) {
	case 0:
		add_piece(w, p, memory);
		break;
	case 1:
		add_pages(w, p, memory);
		break;
	default:
		add_bits(w, p, memory);
	}
	for (i = 0; p->map == MAP_PAGES && i < p->bio.nr_vecs; i++)
		p->vecs[i].offset -= P2P_SIZE;
}

static void choose_op(struct worker *w, struct plan *p)
{
	uint32_t nr_ops = p->map == MAP_PAGES ? DMA_BIO_ZONE_APPEND + 1 :
						DMA_BIO_DRV_OUT + 1;

	if (one_in(w, 8))
		p->bio.op = rnd(w, nr_ops);
	else
		p->bio.op = rnd(w, 2) ? DMA_BIO_READ : DMA_BIO_WRITE;
}

static void choose_flags(struct worker *w, struct plan *p)
{
	static const uint32_t common[] = {
		DMA_BIO_SYNC, DMA_BIO_META, DMA_BIO_PRIO, DMA_BIO_NOMERGE,
		DMA_BIO_IDLE, DMA_BIO_BACKGROUND, DMA_BIO_RAHEAD,
		DMA_BIO_NOWAIT, DMA_BIO_POLLED,
	};

	while (one_in(w, 3))
		p->bio.flags |= common[rnd(w, ARRAY_SIZE(common))];
	if (p->bio.op != DMA_BIO_WRITE)
		return;
	if (one_in(w, 16))
		p->bio.flags |= DMA_BIO_FUA;
	if (one_in(w, 16))
		p->bio.flags |= DMA_BIO_PREFLUSH;
}

static enum map_kind choose_map(struct worker *w)
{
	return one_in(w, 3) ? rnd(w, NR_MAPS) : MAP_DRIVE;
}

/* At most one thing is wrong with the bio itself. */
static void choose_fault(struct worker *w, struct plan *p)
{
	struct dma_bio_vec *last = &p->vecs[p->bio.nr_vecs - 1];

	switch (rnd(w, 24)) {
	case 0:
		p->misaligned = true;
		p->vecs[0].offset++;
		break;
	case 1:
		if (p->bio.op > DMA_BIO_WRITE)
			break;
		p->partial = true;
		last->len -= last->len > 4 ? 4 : 2;
		break;
	case 2:
		p->beyond = true;
		p->bio.sector = disk_sectors - rnd(w, p->size / SECTOR_SIZE);
		break;
	case 3:
		if (p->map != MAP_PAGES)
			p->bio.fault = DMA_BIO_NO_MAP;
		break;
	case 4:
		if (p->map != MAP_PAGES)
			p->bio.bdev = w->unmapped;
	}
}

/* Returns false if there is no room any more. */
static bool make_plan(struct worker *w, struct plan *p)
{
	uint32_t start;

	memset(p, 0, sizeof(*p));
	p->map = choose_map(w);
	choose_vecs(w, p);
	if (!p->size || p->size % SECTOR_SIZE)
		return false;
	start = one_in(w, 3) ? SECTOR_SIZE * rnd(w, 8) : 0;
	if (w->sectors.end + start + p->size > w->sectors.limit)
		return false;
	take(&w->sectors, start, p->size);
	p->bio.sector = w->first + (w->sectors.end - p->size) / SECTOR_SIZE;
	p->bio.bdev = w->env.disk;
	p->bio.map = w->maps[p->map];
	choose_op(w, p);
	choose_flags(w, p);
	choose_fault(w, p);
	return true;
}

static void make_batch(struct worker *w)
{
	uint32_t wanted = 1 + rnd(w, MAX_BIOS);

	restart(w, &w->sectors, 0, DISK_SIZE, SECTOR_SIZE);
	/* Not to the very end, there is to be room for misalignment. */
	restart(w, &w->p2p, 0, P2P_SIZE - 4, 4);
	restart(w, &w->pages, P2P_SIZE, MEMORY_SIZE - 4, 4);
	for (w->nr = 0; w->nr < wanted; w->nr++)
		if (!make_plan(w, &w->plans[w->nr]))
			break;
}

/* --- the model --- */

/* What the block layer must find, in this order. */
static int predict(const struct worker *w, const struct plan *p)
{
	if (p->beyond || p->bio.op == DMA_BIO_ZONE_RESET)
		return BLK_STS_IOERR;
	if (p->bio.op > DMA_BIO_WRITE)
		return BLK_STS_NOTSUPP;
	if (p->partial)
		return BLK_STS_IOERR;
	if (p->bio.flags & DMA_BIO_POLLED && !can_poll)
		return BLK_STS_NOTSUPP;
	if (p->bio.fault || p->bio.bdev != w->env.disk)
		return BLK_STS_NOTSUPP;
	return p->misaligned ? BLK_STS_INVAL : BLK_STS_OK;
}

/* Move in the model what the bio has moved. */
static void apply(struct worker *w, const struct plan *p)
{
	unsigned char *memory = w->memory + (p->map == MAP_PAGES ? P2P_SIZE : 0);
	unsigned char *disk;
	uint32_t i;

	disk = w->disk + (p->bio.sector - w->first) * SECTOR_SIZE;
	for (i = 0; i < p->bio.nr_vecs; i++) {
		if (p->bio.op == DMA_BIO_READ)
			memcpy(memory + p->vecs[i].offset, disk,
			       p->vecs[i].len);
		else
			memcpy(disk, memory + p->vecs[i].offset,
			       p->vecs[i].len);
		disk += p->vecs[i].len;
	}
}

static enum outcome outcome_of(const struct plan *p)
{
	switch (p->bio.status) {
	case BLK_STS_OK:
		return p->bio.op == DMA_BIO_READ ? READ_OK : WRITE_OK;
	case BLK_STS_NOTSUPP:
		return NOTSUPP;
	case BLK_STS_INVAL:
		return INVAL;
	case BLK_STS_AGAIN:
		return AGAIN;
	default:
		return IOERR;
	}
}

static bool wrong(struct worker *w, const char *what)
{
	ksft_print_msg("thread %zd: %s\n", w - workers, what);
	w->ok = false;
	return false;
}

static bool judge(struct worker *w, const struct plan *p)
{
	const struct dma_bio *bio = &p->bio;
	int status = predict(w, p);

	w->outcomes[outcome_of(p)]++;
	if (bio->added == bio->nr_vecs && bio->ended == 1 &&
	    (bio->status == status || (bio->status == BLK_STS_AGAIN &&
				       bio->flags & DMA_BIO_NOWAIT))) {
		if (bio->status == BLK_STS_OK)
			apply(w, p);
		return true;
	}
	ksft_print_msg("op %u flags %#x map %d fault %u sector %llu%s%s%s\n",
		       bio->op, bio->flags, p->map, bio->fault, bio->sector,
		       p->beyond ? ", beyond" : "",
		       p->partial ? ", partial" : "",
		       p->misaligned ? ", misaligned" : "");
	ksft_print_msg("%u of %u vectors, %u bytes: status %u instead of %d, ended %u\n",
		       bio->added, bio->nr_vecs, p->size, bio->status, status,
		       bio->ended);
	return wrong(w, "a bio went wrong");
}

/* --- comparing --- */

static bool same(struct worker *w, const unsigned char *want, uint32_t start,
		 uint32_t len, const char *what)
{
	uint32_t i = 0;

	if (!memcmp(w->seen, want + start, len))
		return true;
	while (w->seen[i] == want[start + i])
		i++;
	ksft_print_msg("%s: byte %u is %#x instead of %#x\n", what, start + i,
		       w->seen[i], want[start + i]);
	return wrong(w, what);
}

/* With a margin, and in units that the disk can be read in. */
static void widen(const struct span *s, uint32_t base, uint32_t *start,
		  uint32_t *len)
{
	*start = s->start - base < MARGIN ? base : s->start - MARGIN;
	*start -= *start % 4096;
	*len = s->limit - s->end < MARGIN ? s->limit : s->end + MARGIN;
	*len -= *start;
	*len += -*len % SECTOR_SIZE;
}

static bool same_disk(struct worker *w, uint32_t start, uint32_t len)
{
	return dma_bio_disk_read(&w->env, w->first + start / SECTOR_SIZE,
				 w->seen, len) ?
	       same(w, w->disk, start, len, "disk") : wrong(w, "disk");
}

static bool same_memory(struct worker *w, uint32_t start, uint32_t len)
{
	return dma_bio_get(&w->env, start, w->seen, len) ?
	       same(w, w->memory, start, len, "memory") : wrong(w, "memory");
}

static bool same_spans(struct worker *w)
{
	uint32_t start, len;
	bool ok;

	widen(&w->sectors, 0, &start, &len);
	ok = same_disk(w, start, len);
	widen(&w->p2p, 0, &start, &len);
	ok = ok && same_memory(w, start, len);
	widen(&w->pages, P2P_SIZE, &start, &len);
	return ok && same_memory(w, start, len);
}

static bool same_all(struct worker *w)
{
	return same_disk(w, 0, DISK_SIZE) && same_memory(w, 0, P2P_SIZE) &&
	       same_memory(w, P2P_SIZE, PAGES_SIZE);
}

/* --- running --- */

/* The data of the next writes, and what the next reads must replace */
static bool refresh(struct worker *w, const struct span *s)
{
	dma_bio_random_bytes(&w->random, w->memory + s->start,
			     s->end - s->start);
	return dma_bio_put(&w->env, s->start, w->memory + s->start,
			   s->end - s->start);
}

static void collect(struct worker *w, struct dma_bio *bios)
{
	bool backwards = one_in(w, 3);
	struct plan *p;
	uint32_t i;

	for (i = 0; i < w->nr; i++) {
		p = &w->plans[backwards ? w->nr - 1 - i : i];
		p->bio.vecs = (uintptr_t)p->vecs;
		bios[i] = p->bio;
	}
}

/* By the vectors, which are those of one plan only */
static struct plan *find_plan(struct worker *w, const struct dma_bio *bio)
{
	struct plan *p = w->plans;

	while ((uintptr_t)p->vecs != bio->vecs)
		p++;
	return p;
}

static bool run_batch(struct worker *w)
{
	struct dma_bio bios[MAX_BIOS];
	struct plan *p;
	bool ok = true;
	uint32_t i;
	int ret;

	collect(w, bios);
	ret = dma_bio_submit(&w->env, bios, w->nr, rnd(w, 2) * DMA_BIO_PLUG, 0);
	if (ret) {
		ksft_print_msg("not submitted: %s\n", strerror(-ret));
		return wrong(w, "a batch was not taken");
	}
	for (i = 0; i < w->nr; i++) {
		p = find_plan(w, &bios[i]);
		p->bio = bios[i];
		ok = judge(w, p) && ok;
	}
	return ok;
}

/* Make a good description one that the module must not take. */
static void misdescribe(struct worker *w, struct dma_bio *bio)
{
	switch (rnd(w, 8)) {
	case 0:
		bio->op = DMA_BIO_DRV_OUT + 1 + rnd(w, 1000);
		break;
	case 1:
		bio->flags |= 1U << (13 + rnd(w, 19));
		break;
	case 2:
		bio->map = DMA_BIO_MAX_MAPS + rnd(w, 1000);
		break;
	case 3:
		bio->fault = DMA_BIO_BEHIND + 1 + rnd(w, 1000);
		break;
	case 4:
		bio->nr_vecs = DMA_BIO_MAX_VECS + 1 + rnd(w, 1 << 30);
		break;
	case 5:
		bio->vecs = rnd(w, 4096);
		break;
	case 6:
		bio->bdev = rnd(w, 2) ? w->env.ctl : -1 - (int)rnd(w, 1000);
		break;
	default:
		bio->reserved = 1 + rnd(w, 1000);
	}
}

static bool run_misdescribed(struct worker *w)
{
	struct dma_bio bios[MAX_BIOS];
	int ret;

	collect(w, bios);
	misdescribe(w, &bios[rnd(w, w->nr)]);
	ret = dma_bio_submit(&w->env, bios, w->nr, rnd(w, 2) * DMA_BIO_PLUG, 0);
	w->outcomes[MISDESCRIBED]++;
	return ret == -EINVAL || ret == -EFAULT || ret == -EBADF ||
	       wrong(w, "a bad description was taken");
}

static bool step(struct worker *w)
{
	make_batch(w);
	if (!w->nr)
		return true;
	if (!refresh(w, &w->p2p) || !refresh(w, &w->pages))
		return wrong(w, "memory");
	if (!(one_in(w, 32) ? run_misdescribed(w) : run_batch(w)))
		return false;
	return one_in(w, 64) ? same_all(w) : same_spans(w);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (time(NULL) < end_time && step(w))
		;
	if (w->ok)
		same_all(w);
	return NULL;
}

static bool make_maps(struct worker *w)
{
	const char *other = dma_bio_device("drive1") ? "drive1" : "drive0";
	char path[64];

	w->maps[MAP_DRIVE] = w->env.map;
	w->maps[MAP_SIBLING] = dma_bio_map_device(&w->env, other);
	w->maps[MAP_PAGES] = DMA_BIO_PAGES;
	w->unmapped = dma_bio_find_disk("path0", path, sizeof(path)) ?
		      open(path, O_RDWR | O_CLOEXEC) : w->env.disk;
	return w->maps[MAP_SIBLING] >= 0 && w->unmapped >= 0;
}

static bool set_up(struct worker *w, const char *path, uint64_t seed)
{
	size_t number = w - workers;

	w->random = seed * MAX_THREADS + number + 1;
	w->first = FIRST + number * DISK_SIZE / SECTOR_SIZE;
	w->disk = dma_bio_memory(DISK_SIZE);
	w->memory = dma_bio_memory(MEMORY_SIZE);
	w->seen = dma_bio_memory(MEMORY_SIZE);
	if (!w->disk || !w->memory || !w->seen ||
	    !dma_bio_open(&w->env, path, NULL, P2P_SIZE, PAGES_SIZE) ||
	    !make_maps(w))
		return false;
	dma_bio_random_bytes(&w->random, w->disk, DISK_SIZE);
	w->ok = true;
	return dma_bio_disk_write(&w->env, w->first, w->disk, DISK_SIZE) &&
	       dma_bio_put(&w->env, 0, w->memory, P2P_SIZE) &&
	       dma_bio_put(&w->env, P2P_SIZE, w->memory + P2P_SIZE, PAGES_SIZE);
}

static unsigned long read_variable(const char *name, unsigned long value)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : value;
}

/* If an outcome never occurred, the run has not tested it. */
static bool report(unsigned int threads)
{
	unsigned long sum;
	bool all = true;
	unsigned int i;
	int o;

	for (o = 0; o < NR_OUTCOMES; o++) {
		for (sum = 0, i = 0; i < threads; i++)
			sum += workers[i].outcomes[o];
		ksft_print_msg("%s: %lu\n", outcome_names[o], sum);
		all = all && (sum || o == AGAIN);
	}
	return all;
}

static void prepare(unsigned int threads, uint64_t seed)
{
	struct dma_bio_env *env = &workers[0].env;
	unsigned int i;
	char path[64];

	if (!dma_bio_load() ||
	    !dma_bio_find_disk("drive0", path, sizeof(path)))
		ksft_exit_fail_msg("cannot find the modules or the drive\n");
	for (i = 0; i < threads; i++)
		if (!set_up(&workers[i], path, seed))
			ksft_exit_fail_msg("cannot set up thread %u\n", i);
	if (!dma_bio_takes_unaligned(env) ||
	    dma_bio_limit(env, "logical_block_size") != SECTOR_SIZE)
		ksft_exit_skip("the drive needs SGLs and sectors of 512 bytes\n");
	can_poll = dma_bio_can_poll();
	disk_sectors = lseek(env->disk, 0, SEEK_END) / SECTOR_SIZE;
}

int main(void)
{
	unsigned int threads = read_variable("P2P_FUZZ_THREADS", 4), i;
	unsigned long seconds = read_variable("P2P_FUZZ_SECONDS", 20);
	uint64_t seed = read_variable("P2P_SEED", time(NULL) % 100000);
	const char *missing = dma_bio_missing();

	ksft_print_header();
	if (missing)
		ksft_exit_skip("%s\n", missing);
	if (!threads || threads > MAX_THREADS)
		ksft_exit_fail_msg("P2P_FUZZ_THREADS is not 1 to %d\n",
				   MAX_THREADS);
	ksft_set_plan(threads + 1);
	ksft_print_msg("seed %lu: repeat with P2P_SEED=%lu\n", seed, seed);
	prepare(threads, seed);

	end_time = time(NULL) + seconds;
	for (i = 0; i < threads; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			ksft_exit_fail_msg("cannot start thread %u\n", i);
	for (i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		ksft_test_result(workers[i].ok, "thread %u\n", i);
	}
	ksft_test_result(report(threads), "everything has happened\n");
	ksft_finished();
}
