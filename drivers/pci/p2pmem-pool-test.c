// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the allocator of peer-to-peer memory.
 *
 * The buffers are checked against a reference: one bit for each page, and a
 * search that knows nothing of magazines.  The memory is never touched, so it
 * does not have to exist.
 */
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/genalloc.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/percpu-refcount.h>
#include <linux/prandom.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include "p2pmem-pool.h"

#define BASE		((void *)SZ_1G)
#define BUS_ADDR	SZ_256M
#define POOL_SIZE	SZ_16M
#define POOL_PAGES	(POOL_SIZE >> PAGE_SHIFT)
#define MAX_ORDER	(ilog2(SZ_1M) - PAGE_SHIFT)
#define MAX_BUFS	1024
#define NR_JOBS		4
/* So few that the memory is not always used up */
#define NR_SWAPPED	64

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "repeat a run, 0 for a new one");

static unsigned int rounds = 30000;
module_param(rounds, uint, 0444);
MODULE_PARM_DESC(rounds, "how often to try something random");

static bool bench;
module_param(bench, bool, 0444);
MODULE_PARM_DESC(bench, "measure how long it takes, which is not checked");

struct buf {
	void *addr;
	size_t size;
	bool is_exact;
};

/*
 * @used: a bit for each page that is allocated
 * @bufs: the buffers that random tests have allocated
 * @slots: buffers that one job has allocated and another will free
 */
struct fixture {
	struct p2pmem_pool *pool;
	struct percpu_ref ref;
	struct rnd_state rnd;
	unsigned long used[BITS_TO_LONGS(POOL_PAGES)];
	unsigned int nr_bufs;
	struct buf bufs[MAX_BUFS];
	unsigned long slots[MAX_BUFS];
	atomic_t overlaps;
	atomic_t owned;
	atomic_t refused;
};

static size_t buf_pages(const struct buf *buf)
{
	return buf->is_exact || buf->size > SZ_1M ?
		PAGE_ALIGN(buf->size) >> PAGE_SHIFT : BIT(get_order(buf->size));
}

static size_t buf_first(const struct buf *buf)
{
	return (buf->addr - BASE) >> PAGE_SHIFT;
}

static bool alloc_buf(struct kunit *test, struct buf *buf, size_t size,
		      bool is_exact)
{
	struct fixture *f = test->priv;
	struct percpu_ref *ref;
	size_t first, nr;

	buf->size = size;
	buf->is_exact = is_exact;
	buf->addr = is_exact ? p2pmem_pool_alloc_exact(f->pool, size, &ref) :
			       p2pmem_pool_alloc(f->pool, size, &ref);
	if (!buf->addr)
		return false;

	first = buf_first(buf);
	nr = buf_pages(buf);
	KUNIT_ASSERT_PTR_EQ(test, ref, &f->ref);
	KUNIT_ASSERT_LE(test, first + nr, POOL_PAGES);
	KUNIT_ASSERT_GE(test, find_next_bit(f->used, first + nr, first),
			first + nr);
	if (!is_exact && size <= SZ_1M)
		KUNIT_ASSERT_EQ(test, first % nr, 0);
	bitmap_set(f->used, first, nr);
	return true;
}

static void free_buf(struct kunit *test, const struct buf *buf)
{
	struct fixture *f = test->priv;

	bitmap_clear(f->used, buf_first(buf), buf_pages(buf));
	if (buf->is_exact)
		p2pmem_pool_free_exact(f->pool, buf->addr, buf->size);
	else
		KUNIT_ASSERT_PTR_EQ(test, p2pmem_pool_free(f->pool, buf->addr,
							   buf->size), &f->ref);
}

static void check_avail(struct kunit *test)
{
	struct fixture *f = test->priv;
	size_t used = bitmap_weight(f->used, POOL_PAGES);

	KUNIT_ASSERT_EQ(test, p2pmem_pool_avail(f->pool),
			POOL_SIZE - used * PAGE_SIZE);
}

/* Would a bitmap without magazines have had such a buffer? */
static bool ref_has(struct kunit *test, const struct buf *buf)
{
	struct fixture *f = test->priv;
	size_t nr = buf_pages(buf);
	unsigned long mask = buf->is_exact || nr > BIT(MAX_ORDER) ? 0 : nr - 1;

	return bitmap_find_next_zero_area(f->used, POOL_PAGES, 0, nr, mask) <
		POOL_PAGES;
}

/* Allocate until there is nothing left. */
static unsigned int drain(struct kunit *test, struct buf *bufs, size_t size)
{
	unsigned int nr = 0;

	while (alloc_buf(test, &bufs[nr], size, false))
		nr++;
	return nr;
}

static struct buf *new_bufs(struct kunit *test)
{
	return kunit_kcalloc(test, POOL_PAGES + 1, sizeof(struct buf),
			     GFP_KERNEL);
}

static void free_bufs(struct kunit *test, struct buf *bufs, unsigned int nr)
{
	while (nr)
		free_buf(test, &bufs[--nr]);
}

/* All of the memory can be had in each size, after it was cached in another */
static void test_exhaust(struct kunit *test)
{
	struct buf *bufs = new_bufs(test);
	unsigned int order, nr, round;

	KUNIT_ASSERT_NOT_NULL(test, bufs);
	for (round = 0; round < 3; round++)
		for (order = 0; order <= MAX_ORDER; order++) {
			nr = drain(test, bufs, PAGE_SIZE << order);
			KUNIT_EXPECT_EQ(test, nr, POOL_PAGES >> order);
			check_avail(test);
			free_bufs(test, bufs, nr);
			check_avail(test);
		}
}

static void test_sizes(struct kunit *test)
{
	static const size_t sizes[] = {
		1, PAGE_SIZE - 1, PAGE_SIZE + 1, 3 * PAGE_SIZE, SZ_1M - 1,
		SZ_1M + 1, 3 * SZ_1M, POOL_SIZE,
	};
	struct fixture *f = test->priv;
	struct percpu_ref *ref;
	struct buf buf;
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, sizes[i], false));
		check_avail(test);
		free_buf(test, &buf);
		KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, sizes[i], true));
		check_avail(test);
		free_buf(test, &buf);
	}
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(f->pool, 0, &ref));
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(f->pool, POOL_SIZE + 1, &ref));
	/* As many pages as no unsigned int can hold */
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(f->pool, PAGE_SIZE << 32,
						  &ref));
	KUNIT_EXPECT_EQ(test, p2pmem_pool_size(f->pool), POOL_SIZE);
}

static void test_no_memory(struct kunit *test)
{
	struct p2pmem_pool *pool = p2pmem_pool_create(NUMA_NO_NODE);
	struct percpu_ref *ref;

	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(pool, PAGE_SIZE, &ref));
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc_exact(pool, PAGE_SIZE, &ref));
	KUNIT_EXPECT_EQ(test, p2pmem_pool_avail(pool), 0);
	p2pmem_pool_destroy(pool);
}

/* Each has its own reference and bus addresses, and both can be used up. */
static void test_two_chunks(struct kunit *test)
{
	static struct percpu_ref refs[2];
	struct p2pmem_pool *pool = p2pmem_pool_create(NUMA_NO_NODE);
	struct percpu_ref *ref;
	void *addr[2];
	int i, own;

	KUNIT_ASSERT_NOT_NULL(test, pool);
	for (i = 0; i < 2; i++)
		KUNIT_ASSERT_EQ(test, p2pmem_pool_add(pool, BASE + i * SZ_4M,
						      BUS_ADDR - i * SZ_4M,
						      SZ_1M, &refs[i]), 0);
	KUNIT_EXPECT_EQ(test, p2pmem_pool_size(pool), 2 * SZ_1M);

	for (i = 0; i < 2; i++) {
		addr[i] = p2pmem_pool_alloc(pool, SZ_1M, &ref);
		KUNIT_ASSERT_NOT_NULL(test, addr[i]);
		own = addr[i] != BASE;
		KUNIT_EXPECT_PTR_EQ(test, addr[i], BASE + own * SZ_4M);
		KUNIT_EXPECT_PTR_EQ(test, ref, &refs[own]);
		KUNIT_EXPECT_EQ(test, p2pmem_pool_bus_addr(pool, addr[i] + 1),
				BUS_ADDR - own * SZ_4M + 1);
	}
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(pool, PAGE_SIZE, &ref));
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_PTR_EQ(test, p2pmem_pool_free(pool, addr[i], SZ_1M),
				    &refs[addr[i] != BASE]);
	KUNIT_EXPECT_EQ(test, p2pmem_pool_avail(pool), 2 * SZ_1M);
	p2pmem_pool_destroy(pool);
}

/* Magazines are stacks, while the bitmap would give the first page. */
static void test_cached(struct kunit *test)
{
	struct buf first, second, third;

	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &first, PAGE_SIZE, false));
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &second, PAGE_SIZE, false));
	free_buf(test, &first);
	free_buf(test, &second);
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &third, PAGE_SIZE, false));
	KUNIT_EXPECT_PTR_EQ(test, third.addr, second.addr);
	free_buf(test, &third);
}

/* When memory is short, what one CPU frees is not kept from the others. */
static void test_short_of_memory(struct kunit *test)
{
	struct buf *bufs = new_bufs(test), buf;
	unsigned int nr;

	KUNIT_ASSERT_NOT_NULL(test, bufs);
	nr = drain(test, bufs, PAGE_SIZE);
	free_buf(test, &bufs[0]);
	free_buf(test, &bufs[1]);
	/* A magazine would give the second one. */
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, PAGE_SIZE, false));
	KUNIT_EXPECT_PTR_EQ(test, buf.addr, min(bufs[0].addr, bufs[1].addr));

	free_buf(test, &buf);
	free_bufs(test, bufs + 2, nr - 2);
	/* After a tenth of a second it has one again. */
	msleep(200);
	test_cached(test);
}

/* Less than a MiB, of which there is not the rest */
static void test_three_pages(struct kunit *test)
{
	struct p2pmem_pool *pool = p2pmem_pool_create(NUMA_NO_NODE);
	struct percpu_ref refs, *ref;
	void *addr[3];
	int i;

	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_ASSERT_EQ(test, p2pmem_pool_add(pool, BASE, 0, 3 * PAGE_SIZE,
					      &refs), 0);
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(pool, 4 * PAGE_SIZE, &ref));
	for (i = 0; i < 3; i++) {
		addr[i] = p2pmem_pool_alloc(pool, PAGE_SIZE, &ref);
		KUNIT_EXPECT_NOT_NULL(test, addr[i]);
	}
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc(pool, PAGE_SIZE, &ref));
	KUNIT_EXPECT_NULL(test, p2pmem_pool_alloc_exact(pool, PAGE_SIZE, &ref));
	for (i = 0; i < 3; i++)
		p2pmem_pool_free(pool, addr[i], PAGE_SIZE);
	p2pmem_pool_destroy(pool);
}

/* User space allocates a lot at once and frees it page by page. */
static void test_coalesce(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct buf buf;
	size_t page;

	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, POOL_SIZE, true));
	bitmap_zero(f->used, POOL_PAGES);
	for (page = 0; page < POOL_PAGES; page++)
		p2pmem_pool_free_exact(f->pool, BASE + (page ^ 5) * PAGE_SIZE,
				       PAGE_SIZE);
	check_avail(test);
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, POOL_SIZE, true));
	free_buf(test, &buf);
}

/* An allocation that cannot succeed empties all magazines. */
static void flush(struct kunit *test)
{
	struct buf buf;

	KUNIT_ASSERT_FALSE(test, alloc_buf(test, &buf, POOL_SIZE, true));
}

/* A MiB in use is used up before another one is cut into pieces. */
static void test_packing(struct kunit *test)
{
	struct buf *bufs = new_bufs(test), *large = bufs + BIT(MAX_ORDER);
	unsigned int nr, i;
	size_t group;

	KUNIT_ASSERT_NOT_NULL(test, bufs);
	nr = drain(test, large, SZ_1M);
	group = buf_first(&large[3]) >> MAX_ORDER;
	free_buf(test, &large[3]);
	flush(test);
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &bufs[0], PAGE_SIZE, false));
	free_buf(test, &large[1]);
	flush(test);

	for (i = 1; i < BIT(MAX_ORDER); i++) {
		KUNIT_ASSERT_TRUE(test, alloc_buf(test, &bufs[i], PAGE_SIZE,
						  false));
		KUNIT_EXPECT_EQ(test, buf_first(&bufs[i]) >> MAX_ORDER, group);
	}
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &large[1], SZ_1M, false));

	free_bufs(test, bufs, i);
	large[3] = large[nr - 1];
	free_bufs(test, large, nr - 1);
	check_avail(test);
}

static void free_random(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i = prandom_u32_state(&f->rnd) % f->nr_bufs;

	free_buf(test, &f->bufs[i]);
	f->bufs[i] = f->bufs[--f->nr_bufs];
}

static bool alloc_random(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct buf *buf = &f->bufs[f->nr_bufs];
	u32 rnd = prandom_u32_state(&f->rnd);
	size_t size = PAGE_SIZE << rnd % (MAX_ORDER + 2);

	if (!(rnd >> 8 & 7))
		size = size / 2 + prandom_u32_state(&f->rnd) % size + 1;
	if (alloc_buf(test, buf, size, !(rnd >> 16 & 7))) {
		f->nr_bufs++;
		return true;
	}
	KUNIT_ASSERT_FALSE(test, ref_has(test, buf));
	return false;
}

/* Fill and empty it, now and then completely. */
static void test_random(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i, refused = 0, balance = 8;

	for (i = 0; i < rounds; i++) {
		if (!(i % 256))
			balance = prandom_u32_state(&f->rnd) % 14 + 2;
		if (prandom_u32_state(&f->rnd) % 16 >= balance) {
			if (f->nr_bufs)
				free_random(test);
		} else if (f->nr_bufs < MAX_BUFS) {
			refused += !alloc_random(test);
		}
		check_avail(test);
	}
	KUNIT_EXPECT_GT(test, refused, rounds / 100);
	free_bufs(test, f->bufs, f->nr_bufs);
	check_avail(test);
}

struct job {
	struct fixture *f;
	void (*fn)(struct job *job);
	unsigned int index;
	struct rnd_state rnd;
	struct completion done;
};

static int run_job(void *data)
{
	struct job *job = data;

	job->fn(job);
	complete(&job->done);
	return 0;
}

/* Run it several times at once: on all CPUs, and preempted on each of them. */
static void run_jobs(struct kunit *test, void (*fn)(struct job *job))
{
	struct fixture *f = test->priv;
	struct job jobs[NR_JOBS];
	struct task_struct *task;
	unsigned int i;
	int cpu = -1;

	for (i = 0; i < NR_JOBS; i++) {
		cpu = cpumask_next_wrap(cpu, cpu_online_mask);
		jobs[i].f = f;
		jobs[i].fn = fn;
		jobs[i].index = i;
		prandom_seed_state(&jobs[i].rnd, prandom_u32_state(&f->rnd));
		init_completion(&jobs[i].done);
		task = kthread_create(run_job, &jobs[i], "p2pmem-pool-test");
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
		kthread_bind(task, cpu);
		wake_up_process(task);
	}
	for (i = 0; i < NR_JOBS; i++)
		wait_for_completion(&jobs[i].done);
}

static void free_slots(struct job *job)
{
	struct fixture *f = job->f;
	unsigned int i;

	for (i = job->index; i < MAX_BUFS; i += NR_JOBS)
		if (f->slots[i])
			p2pmem_pool_free(f->pool, (void *)f->slots[i], SZ_16K);
}

/* Memory cached by one CPU is available to the others. */
static void test_other_cpus_cache(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct buf buf;
	unsigned int i;

	for (i = 0; alloc_buf(test, &buf, SZ_16K, false); i++)
		f->slots[i] = (unsigned long)buf.addr;
	KUNIT_ASSERT_EQ(test, i, POOL_SIZE / SZ_16K);

	run_jobs(test, free_slots);
	bitmap_zero(f->used, POOL_PAGES);
	check_avail(test);
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, POOL_SIZE, true));
	free_buf(test, &buf);
}

static void own(struct fixture *f, void *addr, unsigned int nr)
{
	unsigned long first = (addr - BASE) >> PAGE_SHIFT;

	atomic_add(nr, &f->owned);
	while (nr--)
		if (test_and_set_bit(first + nr, f->used))
			atomic_inc(&f->overlaps);
}

static void disown(struct fixture *f, void *addr, unsigned int nr)
{
	unsigned long first = (addr - BASE) >> PAGE_SHIFT;

	atomic_sub(nr, &f->owned);
	while (nr--)
		if (!test_and_clear_bit(first + nr, f->used))
			atomic_inc(&f->overlaps);
}

/* Cycle through the classes, then one page more than the largest of them. */
static size_t slot_pages(unsigned int slot)
{
	unsigned int order = slot % (MAX_ORDER + 2);

	return order > MAX_ORDER ? BIT(MAX_ORDER) + 1 : BIT(order);
}

static void free_slot(struct fixture *f, unsigned int slot, void *addr)
{
	disown(f, addr, slot_pages(slot));
	p2pmem_pool_free(f->pool, addr, slot_pages(slot) * PAGE_SIZE);
}

/* Is there a free page, even if each job is just allocating or freeing the most? */
static bool must_have_page(struct fixture *f)
{
	return atomic_read(&f->owned) + NR_JOBS * (BIT(MAX_ORDER) + 1) < POOL_PAGES;
}

/* Put a buffer into a slot, and free the one that any job had put there. */
static void swap_slots(struct job *job)
{
	struct fixture *f = job->f;
	struct percpu_ref *ref;
	unsigned int i, slot;
	void *addr;

	for (i = 0; i < rounds; i++) {
		slot = prandom_u32_state(&job->rnd) % NR_SWAPPED;
		addr = p2pmem_pool_alloc(f->pool, slot_pages(slot) * PAGE_SIZE,
					 &ref);
		if (addr)
			own(f, addr, slot_pages(slot));
		else if (slot_pages(slot) == 1 && must_have_page(f))
			atomic_inc(&f->refused);
		addr = (void *)xchg(&f->slots[slot], (unsigned long)addr);
		if (addr)
			free_slot(f, slot, addr);
	}
}

static void test_concurrent(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int slot;
	struct buf buf;

	run_jobs(test, swap_slots);
	KUNIT_EXPECT_EQ(test, atomic_read(&f->overlaps), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&f->refused), 0);
	check_avail(test);
	for (slot = 0; slot < NR_SWAPPED; slot++)
		if (f->slots[slot])
			free_slot(f, slot, (void *)f->slots[slot]);
	check_avail(test);
	KUNIT_ASSERT_TRUE(test, alloc_buf(test, &buf, POOL_SIZE, true));
	free_buf(test, &buf);
	kunit_info(test, "%u CPUs", num_online_cpus());
}

/*
 * Benchmarks
 */

/*
 * @held: bytes that somebody else has, at the beginning of the pool
 * @nr: number of buffers
 * @burst: whether to allocate all of them, free all of them, and so on, instead
 *	of freeing the oldest and allocating another
 * @n: how often to free a buffer and to allocate one
 */
struct bench {
	void *pool;
	void *(*alloc)(void *pool);
	void (*free)(void *pool, void *buf);
	void **bufs;
	size_t size;
	size_t held;
	unsigned int nr;
	bool burst;
	unsigned int n;
};

static void *bench_alloc(void *pool)
{
	struct percpu_ref *ref;

	return p2pmem_pool_alloc(pool, PAGE_SIZE, &ref);
}

static void bench_free(void *pool, void *buf)
{
	p2pmem_pool_free(pool, buf, PAGE_SIZE);
}

/* Without magazines: first fit, as pci_alloc_p2pmem() once was */
static void *bench_gen_alloc(void *pool)
{
	void *ref;

	return (void *)gen_pool_alloc_owner(pool, PAGE_SIZE, &ref);
}

static void bench_gen_free(void *pool, void *buf)
{
	void *ref;

	gen_pool_free_owner(pool, (unsigned long)buf, PAGE_SIZE, &ref);
}

static void bench_replace(const struct bench *b)
{
	unsigned int i;

	for (i = 0; i < b->n; i++) {
		b->free(b->pool, b->bufs[i % b->nr]);
		b->bufs[i % b->nr] = b->alloc(b->pool);
	}
}

/* @n is a multiple of @nr. */
static void bench_burst(const struct bench *b)
{
	unsigned int i, k;

	for (i = 0; i < b->n; i += b->nr) {
		for (k = 0; k < b->nr; k++)
			b->free(b->pool, b->bufs[k]);
		for (k = 0; k < b->nr; k++)
			b->bufs[k] = b->alloc(b->pool);
	}
}

/* The memory is used up. */
static void bench_fail(const struct bench *b)
{
	unsigned int i;

	for (i = 0; i < b->n; i++)
		b->alloc(b->pool);
}

/* Return the picoseconds that it takes each time. */
static u64 bench_time(const struct bench *b)
{
	u64 start = ktime_get_ns();

	if (!b->nr)
		bench_fail(b);
	else if (b->burst)
		bench_burst(b);
	else
		bench_replace(b);
	return (ktime_get_ns() - start) * NSEC_PER_USEC / b->n;
}

static u64 bench_pool(struct kunit *test, struct bench *b)
{
	struct percpu_ref ref, *got;
	unsigned int i;
	u64 time;

	b->pool = p2pmem_pool_create(NUMA_NO_NODE);
	b->alloc = bench_alloc;
	b->free = bench_free;
	KUNIT_ASSERT_NOT_NULL(test, b->pool);
	KUNIT_ASSERT_EQ(test,
			p2pmem_pool_add(b->pool, BASE, 0, b->size, &ref), 0);
	if (b->held)
		p2pmem_pool_alloc_exact(b->pool, b->held, &got);
	for (i = 0; i < b->nr; i++)
		b->bufs[i] = bench_alloc(b->pool);
	time = bench_time(b);
	for (i = 0; i < b->nr; i++)
		bench_free(b->pool, b->bufs[i]);
	if (b->held)
		p2pmem_pool_free_exact(b->pool, BASE, b->held);
	p2pmem_pool_destroy(b->pool);
	return time;
}

static u64 bench_gen_pool(struct kunit *test, struct bench *b)
{
	size_t used = b->held + b->nr * PAGE_SIZE;
	unsigned int i;
	u64 time;

	b->pool = gen_pool_create(PAGE_SHIFT, NUMA_NO_NODE);
	b->alloc = bench_gen_alloc;
	b->free = bench_gen_free;
	KUNIT_ASSERT_NOT_NULL(test, b->pool);
	KUNIT_ASSERT_EQ(test, gen_pool_add(b->pool, (unsigned long)BASE,
					   b->size, NUMA_NO_NODE), 0);
	/* One allocation, as each would search all of it */
	gen_pool_alloc(b->pool, used);
	for (i = 0; i < b->nr; i++)
		b->bufs[i] = BASE + b->held + i * PAGE_SIZE;
	time = bench_time(b);
	gen_pool_free(b->pool, (unsigned long)BASE, used);
	gen_pool_destroy(b->pool);
	return time;
}

static void bench_both(struct kunit *test, void **bufs, size_t size,
		       size_t held, unsigned int nr, bool burst)
{
	struct bench b = {
		.bufs = bufs,
		.size = size,
		.held = held,
		.nr = nr,
		.burst = burst,
		.n = 1000000,
	};
	u64 pool = bench_pool(test, &b), gen_pool;

	if (held > SZ_1G)
		b.n = 200;
	gen_pool = bench_gen_pool(test, &b);
	kunit_info(test,
		   "bench: pool of %zu MiB, %zu held, %u buffers%s: gen_pool %llu ps, series %llu ps",
		   size >> 20, held >> 20, nr, burst ? " at once" : "",
		   gen_pool, pool);
}

static void test_bench(struct kunit *test)
{
	static const unsigned int counts[] = { 1, 1000, 100000 };
	static const size_t sizes[] = { SZ_64M, 512UL * SZ_1G };
	unsigned int count, i;
	size_t size, held;
	void **bufs;

	if (!bench)
		kunit_skip(test, "p2pmem_pool_test.bench=1 is not set");
	bufs = kunit_kcalloc(test, 100000, sizeof(*bufs), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bufs);
	for (i = 0; i < 4; i++) {
		size = sizes[i / 2];
		held = i % 2 * (size / 4 * 3);
		for (count = 0; count < ARRAY_SIZE(counts); count++)
			bench_both(test, bufs, size, held,
				   min(counts[count],
				       (size - held) / PAGE_SIZE), false);
		bench_both(test, bufs, size, held, 100, true);
	}
	bench_both(test, bufs, SZ_64M, SZ_64M, 0, false);
}

static int init_fixture(struct kunit *test)
{
	struct fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	if (!f)
		return -ENOMEM;
	f->pool = p2pmem_pool_create(NUMA_NO_NODE);
	if (!f->pool)
		return -ENOMEM;
	test->priv = f;
	prandom_seed_state(&f->rnd, seed);
	return p2pmem_pool_add(f->pool, BASE, BUS_ADDR, POOL_SIZE, &f->ref);
}

/* A pool that a failed test left allocations in cannot be destroyed. */
static void exit_fixture(struct kunit *test)
{
	struct fixture *f = test->priv;

	if (f && p2pmem_pool_avail(f->pool) == p2pmem_pool_size(f->pool))
		p2pmem_pool_destroy(f->pool);
}

static int init_suite(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32();
	kunit_info(suite, "p2pmem_pool_test.seed=%u\n", seed);
	return 0;
}

static struct kunit_case p2pmem_pool_cases[] = {
	KUNIT_CASE(test_sizes),
	KUNIT_CASE(test_no_memory),
	KUNIT_CASE(test_two_chunks),
	KUNIT_CASE(test_exhaust),
	KUNIT_CASE(test_cached),
	KUNIT_CASE(test_short_of_memory),
	KUNIT_CASE(test_three_pages),
	KUNIT_CASE(test_coalesce),
	KUNIT_CASE(test_packing),
	KUNIT_CASE(test_other_cpus_cache),
	KUNIT_CASE(test_random),
	KUNIT_CASE(test_concurrent),
	KUNIT_CASE_SLOW(test_bench),
	{}
};

static struct kunit_suite p2pmem_pool_suite = {
	.name		= "p2pmem-pool",
	.suite_init	= init_suite,
	.init		= init_fixture,
	.exit		= exit_fixture,
	.test_cases	= p2pmem_pool_cases,
};

kunit_test_suite(p2pmem_pool_suite);
