// SPDX-License-Identifier: GPL-2.0
/*
 * Peer-to-peer memory in user space: the file "allocate" in sysfs, mappings of it,
 * and direct I/O of a drive with them. On all kernels that have the file; where
 * struct pages are made only for those who need them, that is tested too.
 *
 * Overwrites the beginning of the drive.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "dma_bio_lib.h"
#include "kselftest_harness.h"

#define DRIVER	"/sys/bus/pci/drivers/p2pmem_provider/"
#define SIZE	0x100000
#define PAGE	4096

static unsigned long read_number(const char *path)
{
	char text[32];

	if (!dma_bio_read_file(path, text, sizeof(text)))
		return 0;
	return strtoul(text, NULL, 0);
}

/* What the kernel has spent on struct pages of memory that was added later. */
static long memmap_pages(void)
{
	FILE *vmstat = fopen("/proc/vmstat", "r");
	long pages = -1;
	char line[64];

	if (!vmstat)
		return -1;
	while (fgets(line, sizeof(line), vmstat))
		sscanf(line, "nr_memmap_pages %ld", &pages);
	fclose(vmstat);
	return pages;
}

FIXTURE(pool)
{
	char address[DMA_BIO_NAME_LEN];
	char allocate[96];
	char available[96];
	unsigned long size;
	int disk;
	unsigned char *data;	/* in system memory */
	unsigned char *seen;
};

#define pool_data FIXTURE_DATA(pool)

static unsigned long allocated(const pool_data *pool)
{
	return pool->size - read_number(pool->available);
}

/* Pages can be freed a little later than they are unmapped. */
static bool all_free(const pool_data *pool)
{
	int tries;

	for (tries = 0; tries < 100 && allocated(pool); tries++)
		usleep(20000);
	return !allocated(pool);
}

/* Bytes of a range that have an attribute, and that have not. */
struct attribute {
	unsigned long start;
	unsigned long end;
	unsigned long with;
	unsigned long without;
};

/* A file of debugfs that has a line for each range of addresses */
static bool find_attribute(struct attribute *found, const char *path,
			   const char *range, const char *name)
{
	FILE *file = fopen(path, "r");
	unsigned long start, end;
	char line[160];

	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, range, &start, &end) != 2 ||
		    end <= found->start || start >= found->end)
			continue;
		if (start < found->start)
			start = found->start;
		if (end > found->end)
			end = found->end;
		*(strstr(line, name) ? &found->with : &found->without) +=
			end - start;
	}
	fclose(file);
	return true;
}

static bool find_bar(const pool_data *pool, struct attribute *bar)
{
	unsigned long last;
	char path[96];
	FILE *file;
	bool found;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource",
		 pool->address);
	file = fopen(path, "r");
	if (!file)
		return false;
	/* The third BAR */
	found = fscanf(file, "%*[^\n]\n%*[^\n]\n%lx %lx", &bar->start,
		       &last) == 2;
	bar->end = last + 1;
	fclose(file);
	return found;
}

static unsigned char *map(const pool_data *pool, size_t size)
{
	int fd = open(pool->allocate, O_RDWR | O_CLOEXEC);
	void *memory;

	if (fd < 0)
		return MAP_FAILED;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return memory;
}

static bool bind_driver(const pool_data *pool, const char *how)
{
	char path[64];

	snprintf(path, sizeof(path), DRIVER "%s", how);
	return dma_bio_write_file(path, pool->address);
}

FIXTURE_SETUP(pool)
{
	const char *address;
	char path[96], disk[64];
	uint64_t random = 1;

	if (geteuid())
		SKIP(return, "needs root");
	address = dma_bio_device("p2pmem0");
	if (address)
		strcpy(self->address, address);
	if (!address || !dma_bio_device("drive0"))
		SKIP(return, "set P2PDMA_DEVS=\"p2pmem0=<PCI address> drive0=<PCI address>\"");
	ASSERT_TRUE(dma_bio_load_module("p2pmem_provider"));
	snprintf(self->allocate, sizeof(self->allocate),
		 "/sys/bus/pci/devices/%s/p2pmem/allocate", self->address);
	snprintf(self->available, sizeof(self->available),
		 "/sys/bus/pci/devices/%s/p2pmem/available", self->address);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/p2pmem/size",
		 self->address);
	self->size = read_number(path);
	ASSERT_GE(self->size, 4 * SIZE);
	ASSERT_TRUE(dma_bio_find_disk("drive0", disk, sizeof(disk)));
	self->disk = open(disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(self->disk, 0);
	self->data = dma_bio_memory(SIZE);
	self->seen = dma_bio_memory(SIZE);
	ASSERT_TRUE(self->data && self->seen);
	dma_bio_random_bytes(&random, self->data, SIZE);
	memset(self->seen, POISON, SIZE);
}

FIXTURE_TEARDOWN(pool)
{
	EXPECT_TRUE(all_free(self));
	close(self->disk);
	free(self->data);
	free(self->seen);
}

TEST_F(pool, pages_on_demand)
{
	long none, some;
	void *memory;
	int fd;

	if (dma_bio_missing())
		SKIP(return, "this kernel makes them at once");
	ASSERT_TRUE(bind_driver(self, "unbind"));
	none = memmap_pages();
	ASSERT_GE(none, 0);
	ASSERT_TRUE(bind_driver(self, "bind"));
	EXPECT_EQ(memmap_pages(), none);
	fd = open(self->allocate, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	some = memmap_pages();
	/* 64 bytes each */
	EXPECT_GE((some - none) * PAGE, (long)(self->size / PAGE * 64));
	memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	EXPECT_NE(memory, MAP_FAILED);
	munmap(memory, PAGE);
	close(fd);
	fd = open(self->allocate, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(memmap_pages(), some);
	close(fd);
	ASSERT_TRUE(bind_driver(self, "unbind"));
	EXPECT_EQ(memmap_pages(), none);
	ASSERT_TRUE(bind_driver(self, "bind"));
}

TEST_F(pool, cpu)
{
	unsigned char *memory = map(self, SIZE);

	ASSERT_NE(memory, MAP_FAILED);
	memcpy(memory, self->data, SIZE);
	memcpy(self->seen, memory, SIZE);
	EXPECT_EQ(memcmp(self->seen, self->data, SIZE), 0);
	munmap(memory, SIZE);
}

#define PAT_LIST	"/sys/kernel/debug/x86/pat_memtype_list"
#define PAGE_TABLES	"/sys/kernel/debug/page_tables/current_kernel"

/* Once as memory of the provider, once together with the pages */
TEST_F(pool, uncached_in_kernel)
{
	struct attribute bar = { };
	unsigned char *memory;

	if (access(PAT_LIST, R_OK))
		SKIP(return, "no " PAT_LIST);
	memory = map(self, SIZE);
	ASSERT_NE(memory, MAP_FAILED);
	ASSERT_TRUE(find_bar(self, &bar));
	EXPECT_GE(bar.end - bar.start, self->size);
	ASSERT_TRUE(find_attribute(&bar, PAT_LIST, "PAT: [mem %lx-%lx]",
				   "uncached-minus"));
	EXPECT_GE(bar.with, (dma_bio_missing() ? 1 : 2) * self->size);
	EXPECT_EQ(bar.without, 0);
	munmap(memory, SIZE);
}

/* The list above has no entry for it. PCD without PWT is uncached-minus. */
TEST_F(pool, uncached_in_user_space)
{
	struct attribute mapping = { };
	unsigned char *memory;

	if (dma_bio_missing())
		SKIP(return, "this kernel leaves that to the MTRRs");
	if (access(PAGE_TABLES, R_OK))
		SKIP(return, "no " PAGE_TABLES ": CONFIG_PTDUMP_DEBUGFS");
	memory = map(self, SIZE);
	ASSERT_NE(memory, MAP_FAILED);
	mapping.start = (unsigned long)memory;
	mapping.end = mapping.start + SIZE;
	ASSERT_TRUE(find_attribute(&mapping, PAGE_TABLES, "%lx-%lx",
				   "RW     PCD "));
	EXPECT_EQ(mapping.with, SIZE);
	EXPECT_EQ(mapping.without, 0);
	munmap(memory, SIZE);
}

TEST_F(pool, drive_reads_it)
{
	unsigned char *memory = map(self, SIZE);

	ASSERT_NE(memory, MAP_FAILED);
	ASSERT_EQ(pwrite(self->disk, self->seen, SIZE, 0), SIZE);
	memcpy(memory, self->data, SIZE);
	ASSERT_EQ(pwrite(self->disk, memory, SIZE, 0), SIZE);
	ASSERT_EQ(pread(self->disk, self->seen, SIZE, 0), SIZE);
	EXPECT_EQ(memcmp(self->seen, self->data, SIZE), 0);
	munmap(memory, SIZE);
}

TEST_F(pool, drive_writes_it)
{
	unsigned char *memory = map(self, SIZE);

	ASSERT_NE(memory, MAP_FAILED);
	ASSERT_EQ(pwrite(self->disk, self->data, SIZE, 0), SIZE);
	memset(memory, POISON, SIZE);
	ASSERT_EQ(pread(self->disk, memory, SIZE, 0), SIZE);
	memcpy(self->seen, memory, SIZE);
	EXPECT_EQ(memcmp(self->seen, self->data, SIZE), 0);
	munmap(memory, SIZE);
}

TEST_F(pool, unmap_in_parts)
{
	unsigned char *memory = map(self, SIZE);

	ASSERT_NE(memory, MAP_FAILED);
	EXPECT_EQ(allocated(self), SIZE);
	ASSERT_EQ(munmap(memory + PAGE, SIZE / 2), 0);
	EXPECT_EQ(allocated(self), SIZE / 2);
	memory[0] = 1;
	memory[SIZE - 1] = 1;
	ASSERT_EQ(munmap(memory, SIZE), 0);
}

/* A child has the same memory, and has it for as long as it wants. */
TEST_F(pool, fork)
{
	unsigned char *memory = map(self, SIZE);
	int wake[2], status;
	pid_t child;

	ASSERT_NE(memory, MAP_FAILED);
	memcpy(memory, self->data, SIZE);
	ASSERT_EQ(pipe(wake), 0);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		close(wake[1]);
		if (read(wake[0], self->seen, 1))
			_exit(1);
		memcpy(self->seen, memory, SIZE);
		_exit(memcmp(self->seen, self->data, SIZE) ? 2 : 0);
	}
	munmap(memory, SIZE);
	EXPECT_EQ(allocated(self), SIZE);
	close(wake[1]);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	close(wake[0]);
}

TEST_F(pool, exit)
{
	int status;
	pid_t child = fork();

	ASSERT_GE(child, 0);
	if (!child)
		_exit(map(self, SIZE) == MAP_FAILED);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

TEST_F(pool, refused)
{
	int fd = open(self->allocate, O_RDWR | O_CLOEXEC);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, SIZE), MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(mmap(NULL, 2 * self->size, PROT_READ, MAP_SHARED, fd, 0),
		  MAP_FAILED);
	EXPECT_EQ(errno, ENOMEM);
	close(fd);
}

static sigjmp_buf on_sigbus;

static void handle_sigbus(int signal)
{
	siglongjmp(on_sigbus, 1);
}

static bool is_gone(const unsigned char *memory)
{
	if (sigsetjmp(on_sigbus, 1))
		return true;
	signal(SIGBUS, handle_sigbus);
	__atomic_load_n(memory, __ATOMIC_RELAXED);
	return false;
}

/* The provider does not wait for those who have mapped its memory. */
TEST_F(pool, removed_while_mapped)
{
	unsigned char *memory = map(self, SIZE);
	int fd = open(self->allocate, O_RDWR | O_CLOEXEC);

	ASSERT_NE(memory, MAP_FAILED);
	ASSERT_GE(fd, 0);
	EXPECT_FALSE(is_gone(memory));
	ASSERT_TRUE(bind_driver(self, "unbind"));
	EXPECT_TRUE(is_gone(memory));
	EXPECT_NE(access(self->allocate, F_OK), 0);
	ASSERT_TRUE(bind_driver(self, "bind"));
	EXPECT_TRUE(is_gone(memory));
	EXPECT_EQ(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, ENODEV);
	close(fd);
	munmap(memory, SIZE);

	memory = map(self, SIZE);
	ASSERT_NE(memory, MAP_FAILED);
	EXPECT_FALSE(is_gone(memory));
	munmap(memory, SIZE);
}

/* There is no memory for the pages: large.sh looks at the rest. */
TEST(huge)
{
	const char *address = dma_bio_device("huge");
	char path[96];
	int fd;

	if (!address)
		SKIP(return, "no device huge");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/p2pmem/allocate",
		 address);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
	EXPECT_EQ(errno, ENOMEM);
	close(fd);
}

TEST_HARNESS_MAIN
