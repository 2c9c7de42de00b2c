// SPDX-License-Identifier: GPL-2.0
/*
 * For tests in C of DMA-address bios.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "dma_bio_lib.h"

static bool complain(const char *what, const char *name)
{
	fprintf(stderr, "# %s %s: %s\n", what, name, strerror(errno));
	return false;
}

/* In "name=address name=address", as the emulated machine lists its devices. */
static const char *find_in_list(const char *list, const char *name)
{
	static char address[DMA_BIO_NAME_LEN];
	size_t len = strlen(name);

	for (; list; list = strchr(list, ' ')) {
		list += *list == ' ';
		if (!strncmp(list, name, len) && list[len] == '=' &&
		    sscanf(list + len + 1, "%23s", address) == 1)
			return address;
	}
	return NULL;
}

const char *dma_bio_device(const char *name)
{
	return find_in_list(getenv("P2PDMA_DEVS"), name) ?:
	       find_in_list(getenv("P2PDMA_BARS"), name);
}

/* The number in the name of a disk is not that of its namespace. */
static bool is_namespace(const char *dir, unsigned int nsid)
{
	char path[PATH_MAX], text[16];

	snprintf(path, sizeof(path), "%s/nsid", dir);
	return dma_bio_read_file(path, text, sizeof(text)) &&
	       strtoul(text, NULL, 10) == nsid;
}

bool dma_bio_find_namespace(const char *name, unsigned int nsid, char *path,
			    size_t size)
{
	const char *address = dma_bio_device(name);
	char pattern[PATH_MAX];
	bool found = false;
	glob_t g;
	size_t i;

	if (!address)
		return false;
	snprintf(pattern, sizeof(pattern),
		 "/sys/bus/pci/devices/%s/nvme/nvme*/nvme*n*", address);
	if (glob(pattern, 0, NULL, &g))
		return false;
	for (i = 0; i < g.gl_pathc && !found; i++) {
		found = is_namespace(g.gl_pathv[i], nsid);
		snprintf(path, size, "/dev/%s",
			 strrchr(g.gl_pathv[i], '/') + 1);
	}
	globfree(&g);
	return found;
}

bool dma_bio_find_disk(const char *name, char *path, size_t size)
{
	return dma_bio_find_namespace(name, 1, path, size);
}

static bool has_dma_bios(void)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	char line[512];
	bool found = false;

	if (!symbols)
		return false;
	while (!found && fgets(line, sizeof(line), symbols))
		found = strstr(line, " pci_p2pmem_map_resource\n");
	fclose(symbols);
	return found;
}

const char *dma_bio_missing(void)
{
	if (geteuid())
		return "needs root";
	if (!has_dma_bios())
		return "this kernel has no I/O by DMA address";
	if (!dma_bio_device("p2pmem0") || !dma_bio_device("drive0"))
		return "set P2PDMA_DEVS=\"p2pmem0=<PCI address> drive0=<PCI address>\"";
	return NULL;
}

bool dma_bio_load_module(const char *name)
{
	char path[PATH_MAX];
	ssize_t len;
	int fd, ret;

	len = readlink("/proc/self/exe", path, sizeof(path) - 64);
	if (len < 0)
		return complain("readlink", "/proc/self/exe");
	path[len] = 0;
	sprintf(strrchr(path, '/'), "/modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return complain("open", path);
	ret = syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return !ret || errno == EEXIST || complain("finit_module", path);
}

bool dma_bio_load(void)
{
	return dma_bio_load_module("p2pmem_provider") &&
	       dma_bio_load_module("dma_bio_ctl");
}

static int map_client(struct dma_bio_env *env, struct dma_bio_map *arg)
{
	int map = ioctl(env->ctl, DMA_BIO_IOC_MAP, arg);

	if (map < 0)
		return -errno;
	env->place = arg->offset;
	return map;
}

int dma_bio_map_disk(struct dma_bio_env *env, int disk)
{
	struct dma_bio_map arg = { .bdev = disk };

	return map_client(env, &arg);
}

int dma_bio_map_device(struct dma_bio_env *env, const char *name)
{
	struct dma_bio_map arg = { .bdev = -1 };

	snprintf(arg.client, sizeof(arg.client), "%s",
		 dma_bio_device(name) ?: name);
	return map_client(env, &arg);
}

static bool alloc_buffers(struct dma_bio_env *env, size_t size, size_t pages)
{
	struct dma_bio_alloc arg = { .size = size, .pages = pages };

	snprintf(arg.provider, sizeof(arg.provider), "%s",
		 dma_bio_device("p2pmem0"));
	env->size = size;
	return !ioctl(env->ctl, DMA_BIO_IOC_ALLOC, &arg) ||
	       complain("no p2pmem of", arg.provider);
}

static bool map_memory(struct dma_bio_env *env, const char *client)
{
	int map = client ? dma_bio_map_device(env, client) :
			   dma_bio_map_disk(env, env->disk);

	env->map = map;
	errno = -map;
	return map >= 0 || complain("no mapping for", client ?: env->path);
}

bool dma_bio_open(struct dma_bio_env *env, const char *path,
		  const char *client, size_t size, size_t pages)
{
	snprintf(env->path, sizeof(env->path), "%s", path);
	env->disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (env->disk < 0)
		return complain("open", path);
	env->ctl = open(DMA_BIO_DEVICE, O_RDWR | O_CLOEXEC);
	if (env->ctl < 0)
		return complain("open", DMA_BIO_DEVICE);
	return alloc_buffers(env, size, pages) && map_memory(env, client);
}

void dma_bio_close(struct dma_bio_env *env)
{
	close(env->ctl);
	close(env->disk);
}

struct dma_bio dma_bio_make(const struct dma_bio_env *env, uint32_t op,
			    uint64_t sector, const struct dma_bio_vec *vecs,
			    uint32_t nr_vecs)
{
	return (struct dma_bio) {
		.sector = sector,
		.vecs = (uintptr_t)vecs,
		.nr_vecs = nr_vecs,
		.bdev = env->disk,
		.map = env->map,
		.op = op,
	};
}

int dma_bio_submit(const struct dma_bio_env *env, struct dma_bio *bios,
		   uint32_t nr, uint32_t flags, uint32_t linger)
{
	struct dma_bio_submit arg = {
		.bios = (uintptr_t)bios,
		.nr = nr,
		.flags = flags,
		.linger = linger,
	};

	return ioctl(env->ctl, DMA_BIO_IOC_SUBMIT, &arg) ? -errno : 0;
}

int dma_bio_run(const struct dma_bio_env *env, struct dma_bio *bio)
{
	int ret = dma_bio_submit(env, bio, 1, 0, 0);

	if (!ret && bio->ended == 1)
		return bio->status;
	fprintf(stderr, "# submission gave %d; took %u of %u vectors, ended %u times\n",
		ret, bio->added, bio->nr_vecs, bio->ended);
	return -1;
}

int dma_bio_open_log(void)
{
	int log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (log < 0)
		complain("open", "/dev/kmsg");
	else
		lseek(log, 0, SEEK_END);
	return log;
}

bool dma_bio_read_log(int log, char *line, size_t size)
{
	ssize_t len;

	do {
		len = read(log, line, size - 1);
	} while (len < 0 && errno == EPIPE); /* some were overwritten */
	if (len > 0)
		line[len] = 0;
	return len > 0;
}

#define REFUSED		"DMA-address bio refused: "

/* New lines about refused bios; as many of them are right. */
static unsigned int count_refusals(const struct dma_bio_env *env, int log,
				   const char *reason, unsigned int *right)
{
	char line[DMA_BIO_LOG_LINE], wanted[256];
	unsigned int nr = 0;

	snprintf(wanted, sizeof(wanted), ";block: %s: " REFUSED "%s\n",
		 strrchr(env->path, '/') + 1, reason ?: "");
	while (dma_bio_read_log(log, line, sizeof(line))) {
		if (!strstr(line, REFUSED))
			continue;
		nr++;
		*right += !!strstr(line, wanted);
	}
	return nr;
}

static int refuse_once(const struct dma_bio_env *env, struct dma_bio *bio,
		       const char *reason)
{
	unsigned int lines, right = 0;
	int log = dma_bio_open_log();
	int ret;

	if (log < 0)
		return -errno;
	ret = dma_bio_submit(env, bio, 1, 0, 20);
	lines = count_refusals(env, log, reason, &right);
	close(log);
	if (ret)
		return ret;
	if (reason && !lines)
		return -EAGAIN;
	if (lines == !!reason && right == lines)
		return 0;
	fprintf(stderr, "# %u lines in the log, %u with the reason\n", lines,
		right);
	return -ENOMSG;
}

/* After ten lines the kernel is silent for the rest of five seconds. */
int dma_bio_refuse(const struct dma_bio_env *env, struct dma_bio *bio,
		   const char *reason)
{
	const struct dma_bio given = *bio;
	int ret, waits = 3;

	while ((ret = refuse_once(env, bio, reason)) == -EAGAIN && waits--) {
		sleep(5);
		*bio = given;
	}
	if (ret != -EAGAIN)
		return ret;
	fprintf(stderr, "# no line in the log\n");
	return -ENOMSG;
}

bool dma_bio_put(const struct dma_bio_env *env, size_t offset,
		 const void *data, size_t len)
{
	return pwrite(env->ctl, data, len, offset) == len ||
	       complain("write", DMA_BIO_DEVICE);
}

bool dma_bio_get(const struct dma_bio_env *env, size_t offset, void *data,
		 size_t len)
{
	return pread(env->ctl, data, len, offset) == len ||
	       complain("read", DMA_BIO_DEVICE);
}

bool dma_bio_poison(const struct dma_bio_env *env)
{
	unsigned char *poison = malloc(env->size);
	bool ok;

	if (!poison)
		return false;
	memset(poison, POISON, env->size);
	ok = dma_bio_put(env, 0, poison, env->size);
	free(poison);
	return ok;
}

void *dma_bio_memory(size_t size)
{
	void *memory;

	if (posix_memalign(&memory, sysconf(_SC_PAGESIZE), size))
		return NULL;
	memset(memory, ~POISON, size);
	return memory;
}

bool dma_bio_disk_write(const struct dma_bio_env *env, uint64_t sector,
			const void *data, size_t len)
{
	return pwrite(env->disk, data, len, sector * SECTOR_SIZE) == len ||
	       complain("write", env->path);
}

bool dma_bio_disk_read(const struct dma_bio_env *env, uint64_t sector,
		       void *data, size_t len)
{
	return pread(env->disk, data, len, sector * SECTOR_SIZE) == len ||
	       complain("read", env->path);
}

bool dma_bio_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return complain("open", path);
	ok = write(fd, text, strlen(text)) == strlen(text) ||
	     complain("write", path);
	close(fd);
	return ok;
}

bool dma_bio_read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return complain("open", path);
	len = read(fd, text, size - 1);
	close(fd);
	if (len < 0)
		return complain("read", path);
	text[len] = 0;
	text[strcspn(text, "\n ")] = 0;
	return true;
}

uint32_t dma_bio_limit(const struct dma_bio_env *env, const char *name)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s",
		 strrchr(env->path, '/') + 1, name);
	return dma_bio_read_file(path, text, sizeof(text)) ?
	       strtoul(text, NULL, 10) : UINT32_MAX;
}

bool dma_bio_can_poll(void)
{
	char queues[16];

	return dma_bio_read_file("/sys/module/nvme/parameters/poll_queues", queues,
				 sizeof(queues)) && strcmp(queues, "0");
}

bool dma_bio_takes_unaligned(const struct dma_bio_env *env)
{
	return dma_bio_limit(env, "dma_alignment") <= 3 &&
	       !dma_bio_limit(env, "virt_boundary_mask");
}

/* Marsaglia's xorshift; the state must not be 0. */
uint32_t dma_bio_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 32;
}

void dma_bio_random_bytes(uint64_t *state, void *data, size_t len)
{
	unsigned char *byte = data;
	uint32_t word = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		if (!(i & 3))
			word = dma_bio_random(state);
		byte[i] = word >> (8 * (i & 3));
	}
}
