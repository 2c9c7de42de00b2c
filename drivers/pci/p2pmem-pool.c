// SPDX-License-Identifier: GPL-2.0
/*
 * Allocator of peer-to-peer memory
 *
 *    p2pmem_pool_alloc()        p2pmem_pool_alloc_exact()
 *            |                              |
 *   magazines of this CPU, one for          |
 *   each class: 1, 2, 4, ... pages          |
 *            |                              |
 *            | half a magazine at a time    |
 *            v                              v
 *      a bitmap of all pages, in groups of 1 MiB
 *
 * Buffers are aligned to their size, so that two free neighbours can become one
 * buffer of the next class.  For each class there is a bitmap of the groups
 * whose largest free buffer is of that class.  An allocation takes the first
 * group of the smallest class that is large enough.  So the search walks
 * groups, 64 at a time and from a lower bound, not pages, and entirely free
 * groups are used last.
 *
 * Cached buffers count as free.  They hold no reference to their memory, and an
 * allocation fails only after the magazines of all CPUs have been emptied.  From
 * then on, nothing is cached for a while and until an eighth of the memory is
 * free.  Meanwhile an allocation of more than is free fails without searching or
 * flushing.
 */
#include <linux/bitmap.h>
#include <linux/find.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/pci-p2pdma.h>
#include <linux/percpu.h>
#include <linux/rculist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include "p2pmem-pool.h"

#define P2PMEM_MAX_BUF		PCI_P2PMEM_MAX_BUF
#define P2PMEM_CLASSES		(ilog2(P2PMEM_MAX_BUF) - PAGE_SHIFT + 1)

#define P2PMEM_GROUP_PAGES	BIT(P2PMEM_CLASSES - 1)

/*
 * Limits of a magazine.  With 32 buffers, only every 16th allocation searches
 * the bitmaps; from 128 KiB on, the number of bytes is the tighter limit.
 */
#define P2PMEM_MAX_CACHED_BUFS	32
#define P2PMEM_MAX_CACHED	(2 * P2PMEM_MAX_BUF)

#define P2PMEM_EXACT_TRIES	64

/*
 * If the memory is fragmented, allocations fail while much is free.  Do not
 * empty the magazines of all CPUs for each of them.
 */
#define P2PMEM_FLUSH_INTERVAL	(HZ / 10)

/* Flag in nr_free: buffers may be cached.  If clear, all magazines are empty. */
#define P2PMEM_CACHING		BIT(BITS_PER_LONG - 1)

/* Magazines are stacks.  Only p2pmem_flush_all() takes another CPU's lock. */
struct p2pmem_cache {
	raw_spinlock_t lock;
	unsigned int nr[P2PMEM_CLASSES];
	unsigned long bufs[P2PMEM_CLASSES][P2PMEM_MAX_CACHED_BUFS];
};

struct p2pmem_chunk {
	/* Constant */
	struct list_head node;
	unsigned long addr;
	size_t size;
	phys_addr_t bus_addr;
	struct percpu_ref *ref;
	unsigned long nr_groups;

	/*
	 * Protected by the lock of the pool: the pages in use; and for each
	 * class the groups whose largest free buffer is of that class, their
	 * number, and a lower bound of the first one.
	 */
	unsigned long *used ____cacheline_aligned_in_smp;
	unsigned long *groups[P2PMEM_CLASSES];
	unsigned long nr[P2PMEM_CLASSES];
	unsigned long lowest[P2PMEM_CLASSES];
};

struct p2pmem_pool {
	/*
	 * Changed by p2pmem_pool_add() only, except @max_cached, which is 0
	 * while memory is short
	 */
	struct p2pmem_cache __percpu *caches;
	struct list_head chunks;
	size_t size;
	size_t max_cached;
	int numa_node;

	/* One CPU at a time empties the magazines. */
	raw_spinlock_t flush_lock;

	/*
	 * @nr_free: free pages in the bitmaps, ORed with P2PMEM_CACHING;
	 * @flushed_at: when the magazines were last emptied, in jiffies
	 */
	raw_spinlock_t lock ____cacheline_aligned_in_smp;
	unsigned long nr_free;
	unsigned long flushed_at;
};

/* @nr_free is also read without the lock. */
static void p2pmem_set_free(struct p2pmem_pool *pool, unsigned long nr)
{
	lockdep_assert_held(&pool->lock);
	WRITE_ONCE(pool->nr_free, nr);
}

static size_t p2pmem_bytes_free(struct p2pmem_pool *pool)
{
	return (READ_ONCE(pool->nr_free) & ~P2PMEM_CACHING) * PAGE_SIZE;
}

/* Not while buffers may be cached: the flag makes nr_free larger than any @nr. */
static bool p2pmem_has_too_few(struct p2pmem_pool *pool, unsigned long nr)
{
	return READ_ONCE(pool->nr_free) < nr;
}

static unsigned long p2pmem_find_pages(struct p2pmem_chunk *chunk,
				       unsigned long group, unsigned int class)
{
	return bitmap_find_next_zero_area(chunk->used,
					  (group + 1) * P2PMEM_GROUP_PAGES,
					  group * P2PMEM_GROUP_PAGES,
					  BIT(class), BIT(class) - 1);
}

static void p2pmem_set_group(struct p2pmem_chunk *chunk, unsigned long group,
			     int class, bool set)
{
	if (test_bit(group, chunk->groups[class]) == set)
		return;
	__assign_bit(group, chunk->groups[class], set);
	chunk->nr[class] += set ? 1 : -1;
	if (set)
		chunk->lowest[class] = min(chunk->lowest[class], group);
}

/* Update the class of the largest free buffer in a group. */
static void p2pmem_update_group(struct p2pmem_chunk *chunk, unsigned long group)
{
	unsigned long end = (group + 1) * P2PMEM_GROUP_PAGES;
	int largest = P2PMEM_CLASSES - 1, class;

	while (largest >= 0 && p2pmem_find_pages(chunk, group, largest) >= end)
		largest--;
	for (class = 0; class < P2PMEM_CLASSES; class++)
		p2pmem_set_group(chunk, group, class, class == largest);
}

/* All CPUs together cache at most an eighth of the memory in each class. */
static void p2pmem_start_caching(struct p2pmem_pool *pool)
{
	size_t share = pool->size / 8 / num_possible_cpus();

	p2pmem_set_free(pool, pool->nr_free | P2PMEM_CACHING);
	/* Whoever caches a buffer sees the flag when it allocates next. */
	smp_store_release(&pool->max_cached,
			  min(rounddown_pow_of_two(share | 1),
			      P2PMEM_MAX_CACHED));
}

static void p2pmem_mark_free(struct p2pmem_pool *pool,
			     struct p2pmem_chunk *chunk, unsigned long page,
			     unsigned long nr)
{
	guard(raw_spinlock_irqsave)(&pool->lock);
	bitmap_clear(chunk->used, page, nr);
	p2pmem_update_group(chunk, page / P2PMEM_GROUP_PAGES);
	p2pmem_set_free(pool, pool->nr_free + nr);
	if (unlikely(!pool->max_cached) &&
	    p2pmem_bytes_free(pool) >= pool->size / 8 &&
	    time_after(jiffies, pool->flushed_at + P2PMEM_FLUSH_INTERVAL))
		p2pmem_start_caching(pool);
}

static bool p2pmem_try_mark_used(struct p2pmem_pool *pool,
				 struct p2pmem_chunk *chunk, unsigned long page,
				 unsigned long nr)
{
	guard(raw_spinlock_irqsave)(&pool->lock);
	if (find_next_bit(chunk->used, page + nr, page) < page + nr)
		return false;
	bitmap_set(chunk->used, page, nr);
	p2pmem_update_group(chunk, page / P2PMEM_GROUP_PAGES);
	p2pmem_set_free(pool, pool->nr_free - nr);
	return true;
}

static unsigned long p2pmem_first_group(struct p2pmem_chunk *chunk,
					unsigned int class)
{
	unsigned long group = chunk->nr_groups;

	if (chunk->nr[class])
		group = find_next_bit(chunk->groups[class], chunk->nr_groups,
				      chunk->lowest[class]);
	chunk->lowest[class] = group;
	return group;
}

static unsigned long p2pmem_find_group(struct p2pmem_chunk *chunk,
				       unsigned int class)
{
	unsigned long group = chunk->nr_groups;

	while (class < P2PMEM_CLASSES && group == chunk->nr_groups)
		group = p2pmem_first_group(chunk, class++);
	return group;
}

/* The first group that has free memory */
static unsigned long p2pmem_lowest_group(struct p2pmem_pool *pool,
					 struct p2pmem_chunk *chunk)
{
	unsigned long lowest = chunk->nr_groups;
	unsigned int class;

	guard(raw_spinlock_irqsave)(&pool->lock);
	for (class = 0; class < P2PMEM_CLASSES; class++)
		lowest = min(lowest, p2pmem_first_group(chunk, class));
	return lowest;
}

static unsigned int p2pmem_take_from(struct p2pmem_chunk *chunk,
				     unsigned long group, unsigned int class,
				     unsigned long *bufs, unsigned int nr)
{
	unsigned long page;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		page = p2pmem_find_pages(chunk, group, class);
		if (page >= (group + 1) * P2PMEM_GROUP_PAGES)
			break;
		bitmap_set(chunk->used, page, BIT(class));
		bufs[i] = chunk->addr + page * PAGE_SIZE;
	}
	p2pmem_update_group(chunk, group);
	return i;
}

/* Take up to @nr buffers. */
static unsigned int p2pmem_take(struct p2pmem_pool *pool, unsigned int class,
				unsigned long *bufs, unsigned int nr)
{
	struct p2pmem_chunk *chunk;
	unsigned int taken = 0;
	unsigned long group;

	guard(raw_spinlock_irqsave)(&pool->lock);
	list_for_each_entry_lockless(chunk, &pool->chunks, node)
		while (taken < nr) {
			group = p2pmem_find_group(chunk, class);
			if (group == chunk->nr_groups)
				break;
			taken += p2pmem_take_from(chunk, group, class,
						  bufs + taken, nr - taken);
		}
	p2pmem_set_free(pool, pool->nr_free - (taken << class));
	return taken;
}

static struct p2pmem_chunk *p2pmem_find_chunk(struct p2pmem_pool *pool,
					      unsigned long addr)
{
	struct p2pmem_chunk *chunk;

	/* Chunks stay until the pool goes away. */
	list_for_each_entry_lockless(chunk, &pool->chunks, node)
		if (addr - chunk->addr < chunk->size)
			return chunk;
	return NULL;
}

/* Pages from @page to the end of its group, but not more than @nr */
static unsigned long p2pmem_part(unsigned long page, unsigned long nr)
{
	return min(nr, P2PMEM_GROUP_PAGES - page % P2PMEM_GROUP_PAGES);
}

static void p2pmem_return_pages(struct p2pmem_pool *pool,
				struct p2pmem_chunk *chunk, unsigned long page,
				unsigned long nr)
{
	unsigned long part;

	for (; nr; page += part, nr -= part) {
		part = p2pmem_part(page, nr);
		p2pmem_mark_free(pool, chunk, page, part);
	}
}

static void p2pmem_return(struct p2pmem_pool *pool, unsigned long addr,
			  size_t size)
{
	struct p2pmem_chunk *chunk = p2pmem_find_chunk(pool, addr);

	p2pmem_return_pages(pool, chunk, (addr - chunk->addr) >> PAGE_SHIFT,
			    PAGE_ALIGN(size) >> PAGE_SHIFT);
}

/* Take one group at a time, so that the lock is not held for long. */
static bool p2pmem_take_pages(struct p2pmem_pool *pool,
			      struct p2pmem_chunk *chunk, unsigned long page,
			      unsigned long nr)
{
	unsigned long done, part;

	for (done = 0; done < nr; done += part) {
		part = p2pmem_part(page + done, nr - done);
		if (!p2pmem_try_mark_used(pool, chunk, page + done, part)) {
			p2pmem_return_pages(pool, chunk, page, done);
			return false;
		}
	}
	return true;
}

/*
 * The search may take long, so it takes no lock: p2pmem_try_mark_used() checks
 * the result.
 */
static unsigned long p2pmem_find_exact(struct p2pmem_pool *pool,
				       struct p2pmem_chunk *chunk,
				       unsigned long nr)
{
	unsigned long start = p2pmem_lowest_group(pool, chunk) *
			      P2PMEM_GROUP_PAGES;

	/* Checked again with the lock held */
	return data_race(bitmap_find_next_zero_area(chunk->used,
						    chunk->size >> PAGE_SHIFT,
						    start, nr, 0));
}

static unsigned long p2pmem_take_exact(struct p2pmem_pool *pool, size_t size)
{
	unsigned long nr = PAGE_ALIGN(size) >> PAGE_SHIFT, page;
	struct p2pmem_chunk *chunk;
	int tries = P2PMEM_EXACT_TRIES;

	/* Concurrent callers can defeat each other, so give up eventually. */
	list_for_each_entry_lockless(chunk, &pool->chunks, node)
		while (size && size <= chunk->size && tries-- > 0) {
			page = p2pmem_find_exact(pool, chunk, nr);
			if (page >= chunk->size >> PAGE_SHIFT)
				break;
			if (p2pmem_take_pages(pool, chunk, page, nr))
				return chunk->addr + page * PAGE_SIZE;
		}
	return 0;
}

/*
 * Hold the lock until the buffers are back in the bitmap: otherwise an
 * allocation that has flushed concurrently could fail while memory is free.
 */
static void p2pmem_flush(struct p2pmem_pool *pool, struct p2pmem_cache *cache,
			 unsigned int class, unsigned int keep)
{
	lockdep_assert_held(&cache->lock);
	while (cache->nr[class] > keep) {
		p2pmem_return(pool, cache->bufs[class][cache->nr[class] - 1],
			      PAGE_SIZE << class);
		cache->nr[class]--;
	}
}

static void p2pmem_flush_cpu(struct p2pmem_pool *pool, int cpu)
{
	struct p2pmem_cache *cache = per_cpu_ptr(pool->caches, cpu);
	unsigned int class;

	/* Lock even empty magazines: a refill may be in progress. */
	guard(raw_spinlock_irqsave)(&cache->lock);
	for (class = 0; class < P2PMEM_CLASSES; class++)
		p2pmem_flush(pool, cache, class, 0);
}

/*
 * Stop caching, and empty all magazines.  Caching may have begun anew
 * meanwhile, because so much memory has become free.
 */
static void p2pmem_flush_all(struct p2pmem_pool *pool)
{
	int cpu;

	guard(raw_spinlock_irqsave)(&pool->flush_lock);
	scoped_guard(raw_spinlock, &pool->lock) {
		if (!(pool->nr_free & P2PMEM_CACHING))
			return;
		WRITE_ONCE(pool->max_cached, 0);
		pool->flushed_at = jiffies;
	}
	for_each_possible_cpu(cpu)
		p2pmem_flush_cpu(pool, cpu);
	scoped_guard(raw_spinlock, &pool->lock)
		if (!pool->max_cached)
			p2pmem_set_free(pool, pool->nr_free & ~P2PMEM_CACHING);
}

/* A power of two, or 0 if buffers of this size are not cached */
static unsigned int p2pmem_capacity(struct p2pmem_pool *pool,
				    unsigned int class)
{
	return min(READ_ONCE(pool->max_cached) >> (PAGE_SHIFT + class),
		   P2PMEM_MAX_CACHED_BUFS);
}

/* Migrating to another CPU is harmless: the lock protects the cache. */
static unsigned long p2pmem_pop(struct p2pmem_pool *pool, unsigned int class)
{
	struct p2pmem_cache *cache = raw_cpu_ptr(pool->caches);

	guard(raw_spinlock_irqsave)(&cache->lock);
	if (!cache->nr[class])
		return 0;
	return cache->bufs[class][--cache->nr[class]];
}

static bool p2pmem_try_push(struct p2pmem_pool *pool,
			    struct p2pmem_cache *cache, unsigned int class,
			    unsigned long addr)
{
	guard(raw_spinlock_irqsave)(&cache->lock);
	if (cache->nr[class] >= p2pmem_capacity(pool, class))
		return false;
	cache->bufs[class][cache->nr[class]++] = addr;
	return true;
}

static void p2pmem_push(struct p2pmem_pool *pool, unsigned int class,
			unsigned long addr)
{
	struct p2pmem_cache *cache = raw_cpu_ptr(pool->caches);

	if (p2pmem_try_push(pool, cache, class, addr))
		return;

	/* Keep half for the next allocations. */
	scoped_guard(raw_spinlock_irqsave, &cache->lock)
		p2pmem_flush(pool, cache, class,
			     p2pmem_capacity(pool, class) / 2);
	p2pmem_return(pool, addr, PAGE_SIZE << class);
}

/* Refill half a magazine, and take a buffer from it. */
static unsigned long p2pmem_refill(struct p2pmem_pool *pool, unsigned int class)
{
	struct p2pmem_cache *cache = raw_cpu_ptr(pool->caches);
	unsigned long bufs[P2PMEM_MAX_CACHED_BUFS / 2];
	unsigned int nr;

	/* Held throughout, so that a flush does not miss buffers in transit. */
	guard(raw_spinlock_irqsave)(&cache->lock);
	if (cache->nr[class])
		return cache->bufs[class][--cache->nr[class]];

	nr = p2pmem_take(pool, class, bufs,
			 max(p2pmem_capacity(pool, class) / 2, 1));
	if (!nr)
		return 0;
	/* Hand them out in the order found, which packs them well. */
	while (--nr)
		cache->bufs[class][cache->nr[class]++] = bufs[nr];
	return bufs[0];
}

static unsigned long p2pmem_alloc_class(struct p2pmem_pool *pool,
					unsigned int class)
{
	unsigned long addr = p2pmem_pop(pool, class);

	if (addr)
		return addr;
	if (p2pmem_has_too_few(pool, BIT(class)))
		return 0;

	addr = p2pmem_refill(pool, class);
	if (addr)
		return addr;
	p2pmem_flush_all(pool);
	return p2pmem_refill(pool, class);
}

/**
 * p2pmem_pool_alloc - allocate a buffer
 * @pool: the pool
 * @size: number of bytes; up to 1 MiB it is rounded up to a power of two
 * @ref: set to the reference counter of the memory, see p2pmem_pool_add()
 *
 * Takes the buffer from the magazine of this CPU, which is refilled by half
 * when it is empty.
 *
 * Context: Any but NMI.  The caller keeps the pool from being destroyed.
 * Return: the buffer, to be freed by p2pmem_pool_free(), or %NULL.
 */
void *p2pmem_pool_alloc(struct p2pmem_pool *pool, size_t size,
			struct percpu_ref **ref)
{
	unsigned int class = get_order(size);
	unsigned long addr;

	if (class >= P2PMEM_CLASSES)
		return p2pmem_pool_alloc_exact(pool, size, ref);

	addr = p2pmem_alloc_class(pool, class);
	if (addr)
		*ref = p2pmem_find_chunk(pool, addr)->ref;
	return (void *)addr;
}

/**
 * p2pmem_pool_free - free a buffer from p2pmem_pool_alloc()
 * @pool: the pool
 * @addr: the buffer, which must be freed as a whole
 * @size: the size passed to p2pmem_pool_alloc()
 *
 * Context: Any but NMI.  The caller keeps the pool from being destroyed.
 * Return: the reference counter that p2pmem_pool_alloc() has set.
 */
struct percpu_ref *p2pmem_pool_free(struct p2pmem_pool *pool, void *addr,
				    size_t size)
{
	unsigned int class = get_order(size);

	if (class >= P2PMEM_CLASSES)
		p2pmem_pool_free_exact(pool, addr, size);
	else
		p2pmem_push(pool, class, (unsigned long)addr);
	return p2pmem_find_chunk(pool, (unsigned long)addr)->ref;
}

/**
 * p2pmem_pool_alloc_exact - allocate pages that can be freed in pieces
 * @pool: the pool
 * @size: number of bytes, rounded up to pages and no further
 * @ref: set to the reference counter of the memory
 *
 * Bypasses the magazines, so use it for memory that is held for long.
 *
 * Context: Any but NMI.  The caller keeps the pool from being destroyed.
 * Return: the pages, to be freed by p2pmem_pool_free_exact(), or %NULL.
 */
void *p2pmem_pool_alloc_exact(struct p2pmem_pool *pool, size_t size,
			      struct percpu_ref **ref)
{
	unsigned long addr;

	if (p2pmem_has_too_few(pool, PAGE_ALIGN(size) >> PAGE_SHIFT))
		return NULL;
	addr = p2pmem_take_exact(pool, size);
	if (!addr) {
		p2pmem_flush_all(pool);
		addr = p2pmem_take_exact(pool, size);
	}
	if (addr)
		*ref = p2pmem_find_chunk(pool, addr)->ref;
	return (void *)addr;
}

/**
 * p2pmem_pool_free_exact - free pages from p2pmem_pool_alloc_exact()
 * @pool: the pool
 * @addr: the first page to be freed
 * @size: number of bytes to be freed
 *
 * Context: Any but NMI.  The caller keeps the pool from being destroyed.
 */
void p2pmem_pool_free_exact(struct p2pmem_pool *pool, void *addr, size_t size)
{
	p2pmem_return(pool, (unsigned long)addr, size);
}

/**
 * p2pmem_pool_bus_addr - translate an address in the pool
 * @pool: the pool
 * @addr: an address of allocated memory
 *
 * Return: the bus address, based on the one given to p2pmem_pool_add().
 */
phys_addr_t p2pmem_pool_bus_addr(struct p2pmem_pool *pool, void *addr)
{
	struct p2pmem_chunk *chunk;

	chunk = p2pmem_find_chunk(pool, (unsigned long)addr);
	return chunk->bus_addr + ((unsigned long)addr - chunk->addr);
}

/**
 * p2pmem_pool_avail - how much memory is free
 * @pool: the pool
 *
 * Return: the number of bytes not allocated, cached or not; approximate while
 *	others allocate and free.
 */
size_t p2pmem_pool_avail(struct p2pmem_pool *pool)
{
	size_t avail = p2pmem_bytes_free(pool);
	struct p2pmem_cache *cache;
	unsigned int class;
	int cpu;

	for_each_possible_cpu(cpu) {
		cache = per_cpu_ptr(pool->caches, cpu);
		for (class = 0; class < P2PMEM_CLASSES; class++)
			/* A snapshot */
			avail += data_race(cache->nr[class]) *
				 (PAGE_SIZE << class);
	}
	return avail;
}

/**
 * p2pmem_pool_size - how much memory there is
 * @pool: the pool
 *
 * Return: the number of bytes added by p2pmem_pool_add().
 */
size_t p2pmem_pool_size(struct p2pmem_pool *pool)
{
	return READ_ONCE(pool->size);
}

static void p2pmem_free_chunk(struct p2pmem_chunk *chunk)
{
	kvfree(chunk->used);
	kvfree(chunk->groups[0]);
	kfree(chunk);
}

static struct p2pmem_chunk *p2pmem_alloc_chunk(size_t size, int node)
{
	unsigned long nr_groups = DIV_ROUND_UP(size, P2PMEM_MAX_BUF);
	unsigned long nr_longs = BITS_TO_LONGS(nr_groups);
	struct p2pmem_chunk *chunk;
	unsigned int class;

	chunk = kzalloc_node(sizeof(*chunk), GFP_KERNEL, node);
	if (!chunk)
		return NULL;
	chunk->used = kvcalloc_node(nr_groups * P2PMEM_GROUP_PAGES /
				    BITS_PER_BYTE + sizeof(long), 1, GFP_KERNEL,
				    node);
	chunk->groups[0] = kvcalloc_node(nr_longs * P2PMEM_CLASSES, sizeof(long),
					 GFP_KERNEL, node);
	if (!chunk->used || !chunk->groups[0]) {
		p2pmem_free_chunk(chunk);
		return NULL;
	}

	chunk->size = size;
	chunk->nr_groups = nr_groups;
	/* The last group may be smaller than the others. */
	bitmap_set(chunk->used, size >> PAGE_SHIFT,
		   nr_groups * P2PMEM_GROUP_PAGES - (size >> PAGE_SHIFT));
	for (class = 1; class < P2PMEM_CLASSES; class++)
		chunk->groups[class] = chunk->groups[0] + class * nr_longs;
	bitmap_set(chunk->groups[P2PMEM_CLASSES - 1], 0, nr_groups);
	chunk->nr[P2PMEM_CLASSES - 1] = nr_groups;
	p2pmem_update_group(chunk, nr_groups - 1);
	return chunk;
}

/**
 * p2pmem_pool_add - add memory to a pool
 * @pool: the pool
 * @vaddr: address of the memory, at a page boundary
 * @bus_addr: what p2pmem_pool_bus_addr() returns for @vaddr
 * @size: number of bytes, a multiple of PAGE_SIZE
 * @ref: reference counter of the memory, which the pool only passes on
 *
 * The memory stays in the pool until p2pmem_pool_destroy().
 *
 * Context: Process context.  The caller serializes calls for the same pool.
 * Return: 0 or -ENOMEM.
 */
int p2pmem_pool_add(struct p2pmem_pool *pool, void *vaddr, phys_addr_t bus_addr,
		    size_t size, struct percpu_ref *ref)
{
	struct p2pmem_chunk *chunk = p2pmem_alloc_chunk(size, pool->numa_node);

	if (!chunk)
		return -ENOMEM;

	chunk->addr = (unsigned long)vaddr;
	chunk->bus_addr = bus_addr;
	chunk->ref = ref;
	scoped_guard(raw_spinlock_irqsave, &pool->lock) {
		WRITE_ONCE(pool->size, pool->size + size);
		p2pmem_set_free(pool, pool->nr_free + (size >> PAGE_SHIFT));
		p2pmem_start_caching(pool);
	}
	list_add_tail_rcu(&chunk->node, &pool->chunks);
	return 0;
}

/**
 * p2pmem_pool_create - create a pool without memory
 * @node: NUMA node of the memory
 *
 * Return: the pool or %NULL.
 */
struct p2pmem_pool *p2pmem_pool_create(int node)
{
	struct p2pmem_pool *pool = kzalloc_node(sizeof(*pool), GFP_KERNEL, node);
	int cpu;

	if (!pool)
		return NULL;
	INIT_LIST_HEAD(&pool->chunks);
	pool->numa_node = node;
	pool->flushed_at = jiffies - 2 * P2PMEM_FLUSH_INTERVAL;
	raw_spin_lock_init(&pool->lock);
	raw_spin_lock_init(&pool->flush_lock);
	pool->caches = alloc_percpu(struct p2pmem_cache);
	if (!pool->caches) {
		kfree(pool);
		return NULL;
	}
	for_each_possible_cpu(cpu)
		raw_spin_lock_init(&per_cpu_ptr(pool->caches, cpu)->lock);
	return pool;
}

/**
 * p2pmem_pool_destroy - destroy a pool
 * @pool: the pool, which must be unused, with all of its memory freed
 */
void p2pmem_pool_destroy(struct p2pmem_pool *pool)
{
	struct p2pmem_chunk *chunk, *next;

	p2pmem_flush_all(pool);
	WARN_ON(p2pmem_bytes_free(pool) != pool->size);
	list_for_each_entry_safe(chunk, next, &pool->chunks, node)
		p2pmem_free_chunk(chunk);
	free_percpu(pool->caches);
	kfree(pool);
}
