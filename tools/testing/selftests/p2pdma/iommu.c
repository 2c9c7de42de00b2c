// SPDX-License-Identifier: GPL-2.0
/*
 * With an IOMMU that translates, a mapping of p2pmem gives a drive access to that
 * memory and to nothing behind it. Overwrites the beginning of the drive.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "kselftest_harness.h"

#define SIZE	4096

FIXTURE(drive)
{
	struct dma_bio_env env;
	int log;
};

#define drive_data FIXTURE_DATA(drive)

/* The runner must know, because it takes a fault for a failure. */
static bool announce(drive_data *self, const char *what)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "p2pdma-run: faults %s\n", what);

	return write(self->log, line, len) == len;
}

/* Has the IOMMU reported one of the drive since? */
static bool seen_fault(drive_data *self, const char *access)
{
	const char *device = dma_bio_device("drive0");
	char line[DMA_BIO_LOG_LINE], wanted[64];
	bool seen = false;

	snprintf(wanted, sizeof(wanted), "DMA %s NO_PASID] Request device [%s]",
		 access, device);
	usleep(500000);
	while (dma_bio_read_log(self->log, line, sizeof(line)))
		seen |= strstr(line, wanted) && strstr(line, "fault addr");
	return seen;
}

FIXTURE_SETUP(drive)
{
	const char *missing = dma_bio_missing();
	char disk[64];

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(dma_bio_load());
	ASSERT_TRUE(dma_bio_find_disk("drive0", disk, sizeof(disk)));
	ASSERT_TRUE(dma_bio_open(&self->env, disk, NULL, SIZE, 0));
	self->log = dma_bio_open_log();
	ASSERT_GE(self->log, 0);
}

FIXTURE_TEARDOWN(drive)
{
	if (self->log > 0)
		close(self->log);
	dma_bio_close(&self->env);
}

static const struct dma_bio_vec all = { 0, SIZE };

static int transfer(drive_data *self, uint32_t op, uint32_t fault)
{
	struct dma_bio bio = dma_bio_make(&self->env, op, 0, &all, 1);

	int ret;

	bio.fault = fault;
	ret = dma_bio_submit(&self->env, &bio, 1, 0, 20);
	if (ret)
		return ret;
	return bio.ended == 1 ? bio.status : -EIO;
}

FIXTURE_VARIANT(drive)
{
	uint32_t op;
	const char *access;
};

FIXTURE_VARIANT_ADD(drive, write)
{
	.op = DMA_BIO_WRITE,
	.access = "Read",
};

FIXTURE_VARIANT_ADD(drive, read)
{
	.op = DMA_BIO_READ,
	.access = "Write",
};

TEST_F(drive, faults_behind_the_mapping)
{
	int ret;

	ASSERT_EQ(transfer(self, variant->op, DMA_BIO_GOOD), BLK_STS_OK);
	EXPECT_FALSE(seen_fault(self, variant->access));

	ASSERT_TRUE(announce(self, "expected"));
	ret = transfer(self, variant->op, DMA_BIO_BEHIND);
	if (ret == -EOPNOTSUPP)
		SKIP(announce(self, "over"); return,
		     "no IOMMU translates for the drive");
	EXPECT_GE(ret, 0);
	EXPECT_TRUE(seen_fault(self, variant->access));
	EXPECT_TRUE(announce(self, "over"));

	EXPECT_EQ(transfer(self, variant->op, DMA_BIO_GOOD), BLK_STS_OK);
	EXPECT_FALSE(seen_fault(self, variant->access));
}

TEST_HARNESS_MAIN
