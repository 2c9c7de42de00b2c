// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-address bios that fail on purpose: by what the block layer and the NVMe
 * driver have for injecting errors, and because the controller does not answer.
 * The content of the drive is destroyed.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "../kselftest_harness.h"

#define FIRST		2048		/* sector */
#define SIZE		(64 << 10)
#define GUARD		4096		/* of p2pmem around it, must not be touched */
#define MEMORY		(GUARD + SIZE + GUARD)
#define SECONDS		180		/* for one test, on a slow machine */

#define BLK_STS_MEDIUM	7

static const struct dma_bio_vec all = { GUARD, SIZE };

/**
 * struct bench - what a test works with
 * @env:  the drive and the p2pmem
 * @disk: name of the disk
 * @old:  data that is to be replaced
 * @new:  data that replaces it
 * @seen: data that came back, %MEMORY bytes
 */
struct bench {
	struct dma_bio_env env;
	const char *disk;
	unsigned char *old;
	unsigned char *new;
	unsigned char *seen;
};

FIXTURE(fault) {
	struct bench b;
};

FIXTURE_VARIANT(fault) {
	uint32_t op;
};

FIXTURE_VARIANT_ADD(fault, read) { .op = DMA_BIO_READ };
FIXTURE_VARIANT_ADD(fault, write) { .op = DMA_BIO_WRITE };

/* New data is to replace the old, on the disk or in the p2pmem. */
static bool prepare(struct bench *b, uint32_t op)
{
	const void *disk = op == DMA_BIO_READ ? b->new : b->old;
	const void *memory = op == DMA_BIO_READ ? b->old : b->new;

	return dma_bio_disk_write(&b->env, FIRST, disk, SIZE) &&
	       dma_bio_poison(&b->env) &&
	       dma_bio_put(&b->env, GUARD, memory, SIZE);
}

static bool is_poison(const unsigned char *guard)
{
	size_t i;

	for (i = 0; i < GUARD; i++)
		if (guard[i] != POISON)
			return false;
	return true;
}

static bool memory_has(struct bench *b, const void *data)
{
	return dma_bio_get(&b->env, 0, b->seen, MEMORY) &&
	       is_poison(b->seen) && is_poison(b->seen + GUARD + SIZE) &&
	       !memcmp(b->seen + GUARD, data, SIZE);
}

static bool destination_has(struct bench *b, uint32_t op,
			    const void *data)
{
	if (op == DMA_BIO_READ)
		return memory_has(b, data);
	return dma_bio_disk_read(&b->env, FIRST, b->seen, SIZE) &&
	       !memcmp(b->seen, data, SIZE);
}

static int run(struct bench *b, uint32_t op)
{
	struct dma_bio bio = dma_bio_make(&b->env, op, FIRST, &all, 1);

	return dma_bio_run(&b->env, &bio);
}

FIXTURE_SETUP(fault)
{
	const char *missing = dma_bio_missing();
	/* Not the same data for both directions, which use the same memory. */
	uint64_t random = 1 + variant->op;
	char path[64];

	if (missing)
		SKIP(return, "%s", missing);
	self->b.old = dma_bio_memory(SIZE);
	self->b.new = dma_bio_memory(SIZE);
	self->b.seen = dma_bio_memory(MEMORY);
	ASSERT_TRUE(self->b.old && self->b.new && self->b.seen);
	dma_bio_random_bytes(&random, self->b.old, SIZE);
	dma_bio_random_bytes(&random, self->b.new, SIZE);
	ASSERT_TRUE(dma_bio_load());
	ASSERT_TRUE(dma_bio_find_disk("drive0", path, sizeof(path)));
	ASSERT_TRUE(dma_bio_open(&self->b.env, path, NULL, MEMORY, 0));
	self->b.disk = strrchr(self->b.env.path, '/') + 1;
	ASSERT_TRUE(prepare(&self->b, variant->op));
}

FIXTURE_TEARDOWN(fault)
{
	dma_bio_close(&self->b.env);
	free(self->b.old);
	free(self->b.new);
	free(self->b.seen);
}

/**
 * struct knob - a file that is set for the test, and set back after it
 * @path:  a format, %s is the name of the disk
 * @on:    what is written before
 * @off:   what is written after
 */
struct knob {
	const char *path;
	const char *on;
	const char *off;
};

static bool turn(struct bench *b, const struct knob *knobs, bool on)
{
	const struct knob *knob;
	char path[128];

	for (knob = knobs; knob->path; knob++) {
		snprintf(path, sizeof(path), knob->path, b->disk);
		if (!dma_bio_write_file(path, on ? knob->on : knob->off))
			return false;
	}
	return true;
}

static bool has(struct bench *b, const struct knob *knobs)
{
	char path[128];

	snprintf(path, sizeof(path), knobs->path, b->disk);
	return !access(path, F_OK);
}

/* Were all errors injected? Turning the knobs off resets the counter that tells. */
static bool all_injected(struct bench *b, const char *times)
{
	char path[128], left[16];

	snprintf(path, sizeof(path), times, b->disk);
	return dma_bio_read_file(path, left, sizeof(left)) &&
	       !strcmp(left, "0");
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

#define BLOCK_DEBUGFS	"/sys/kernel/debug/block/%s/"

TEST_F_TIMEOUT(fault, injected_by_rule, SECONDS)
{
	const struct knob knobs[] = {
		{ BLOCK_DEBUGFS "error_injection",
		  variant->op == DMA_BIO_READ ?
		  "add,op=READ,start=2048,nr_sectors=1,status=MEDIUM" :
		  "add,op=WRITE,start=2048,nr_sectors=1,status=MEDIUM",
		  "removeall" },
		{ },
	};

	if (!has(&self->b, knobs))
		SKIP(return, "CONFIG_BLK_ERROR_INJECTION is not set");
	ASSERT_TRUE(turn(&self->b, knobs, true));
	EXPECT_EQ(BLK_STS_MEDIUM, run(&self->b, variant->op));
	ASSERT_TRUE(turn(&self->b, knobs, false));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.old));
	EXPECT_EQ(BLK_STS_OK, run(&self->b, variant->op));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.new));
}

TEST_F_TIMEOUT(fault, fail_make_request, SECONDS)
{
	static const struct knob knobs[] = {
		{ "/sys/block/%s/make-it-fail", "1", "0" },
		{ "/sys/kernel/debug/fail_make_request/verbose", "0", "0" },
		{ "/sys/kernel/debug/fail_make_request/times", "1", "0" },
		{ "/sys/kernel/debug/fail_make_request/probability", "100",
		  "0" },
		{ },
	};

	if (!has(&self->b, knobs))
		SKIP(return, "CONFIG_FAIL_MAKE_REQUEST is not set");
	ASSERT_TRUE(turn(&self->b, knobs, true));
	EXPECT_EQ(BLK_STS_IOERR, run(&self->b, variant->op));
	ASSERT_TRUE(turn(&self->b, knobs, false));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.old));
	EXPECT_EQ(BLK_STS_OK, run(&self->b, variant->op));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.new));
}

#define NVME_DEBUGFS	"/sys/kernel/debug/%s/fault_inject/"

/* The controller asks to try again: the request is sent once more. */
TEST_F_TIMEOUT(fault, controller_retry, SECONDS)
{
	static const struct knob knobs[] = {
		{ NVME_DEBUGFS "status", "0x22", "0" },
		{ NVME_DEBUGFS "dont_retry", "N", "Y" },
		{ NVME_DEBUGFS "verbose", "0", "0" },
		{ NVME_DEBUGFS "times", "2", "0" },
		{ NVME_DEBUGFS "probability", "100", "0" },
		{ },
	};

	if (!has(&self->b, knobs))
		SKIP(return, "CONFIG_FAULT_INJECTION_DEBUG_FS is not set");
	ASSERT_TRUE(turn(&self->b, knobs, true));
	EXPECT_EQ(BLK_STS_OK, run(&self->b, variant->op));
	EXPECT_TRUE(all_injected(&self->b, NVME_DEBUGFS "times"));
	ASSERT_TRUE(turn(&self->b, knobs, false));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.new));
}

/* Unrecovered read error, which is not tried again */
TEST_F_TIMEOUT(fault, controller_error, SECONDS)
{
	static const struct knob knobs[] = {
		{ NVME_DEBUGFS "status", "0x281", "0" },
		{ NVME_DEBUGFS "dont_retry", "Y", "Y" },
		{ NVME_DEBUGFS "verbose", "0", "0" },
		{ NVME_DEBUGFS "times", "1", "0" },
		{ NVME_DEBUGFS "probability", "100", "0" },
		{ },
	};

	if (!has(&self->b, knobs))
		SKIP(return, "CONFIG_FAULT_INJECTION_DEBUG_FS is not set");
	ASSERT_TRUE(turn(&self->b, knobs, true));
	EXPECT_EQ(BLK_STS_MEDIUM, run(&self->b, variant->op));
	ASSERT_TRUE(turn(&self->b, knobs, false));
	EXPECT_EQ(BLK_STS_OK, run(&self->b, variant->op));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.new));
}

#define FAIL_IO_TIMEOUT	"/sys/kernel/debug/fail_io_timeout/"

/* Undo what the first attempt of a read has done, before the second one. */
static void *undo_read(void *arg)
{
	struct bench *b = arg;

	usleep(500000);
	return dma_bio_put(&b->env, GUARD, b->old, SIZE) ? b : NULL;
}

/*
 * An answer gets lost: the command is aborted after a second, and the controller
 * is reset after another one. Then the request is sent again.
 */
TEST_F_TIMEOUT(fault, timeout, SECONDS)
{
	static const struct knob knobs[] = {
		{ "/sys/block/%s/io-timeout-fail", "1", "0" },
		{ "/sys/block/%s/queue/io_timeout", "1000", "30000" },
		{ FAIL_IO_TIMEOUT "verbose", "0", "0" },
		{ FAIL_IO_TIMEOUT "times", "1", "0" },
		{ FAIL_IO_TIMEOUT "probability", "100", "0" },
		{ },
	};
	void *undone = &self->b;
	pthread_t thread;
	int64_t start;

	if (!has(&self->b, knobs))
		SKIP(return, "CONFIG_FAIL_IO_TIMEOUT is not set");
	ASSERT_TRUE(turn(&self->b, knobs, true));
	if (variant->op == DMA_BIO_READ)
		ASSERT_EQ(0, pthread_create(&thread, NULL, undo_read, &self->b));
	start = now_ms();
	EXPECT_EQ(BLK_STS_OK, run(&self->b, variant->op));
	if (variant->op == DMA_BIO_READ)
		ASSERT_EQ(0, pthread_join(thread, &undone));
	EXPECT_NE(NULL, undone);
	/* The answer did get lost, and was waited for. */
	EXPECT_TRUE(all_injected(&self->b, FAIL_IO_TIMEOUT "times"));
	EXPECT_LE(1000, now_ms() - start);
	ASSERT_TRUE(turn(&self->b, knobs, false));
	EXPECT_TRUE(destination_has(&self->b, variant->op, self->b.new));
}

TEST_HARNESS_MAIN
