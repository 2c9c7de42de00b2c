// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest servers that block devices with one in user space need:
 *
 *   block_server nbd DEVICE FILE     serve FILE as the NBD device
 *   block_server ublk FILE           serve FILE as a new ublk device
 *
 * until SIGTERM. One request at a time.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/nbd.h>
#include <linux/ublk_cmd.h>
#include <io_uring/mini_liburing.h>

#define MAX_IO		(128 << 10)
#define DEPTH		4
#define UBLK_CTRL(nr)	_IOWR('u', nr, struct ublksrv_ctrl_cmd)
#define UBLK_IO(nr)	_IOWR('u', nr, struct ublksrv_io_cmd)

static int file;
static off_t file_size;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void ignore(int signal)
{
}

/* So that whoever waits for it is interrupted, and only that thread. */
static void catch_sigterm(void)
{
	struct sigaction action = { .sa_handler = ignore };

	sigaction(SIGTERM, &action, NULL);
}

static void start_thread(void *(*run)(void *arg), void *arg)
{
	pthread_t thread;
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, run, arg))
		die("pthread_create");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* --- nbd --- */

static bool transfer(ssize_t (*move)(int fd, void *data, size_t len), int fd,
		     void *data, size_t len)
{
	ssize_t done;

	while (len) {
		done = move(fd, data, len);
		if (done <= 0)
			return false;
		data += done;
		len -= done;
	}
	return true;
}

static ssize_t write_data(int fd, void *data, size_t len)
{
	return write(fd, data, len);
}

static void serve_nbd_request(int sock, struct nbd_request *request, void *data)
{
	struct nbd_reply reply = { .magic = htobe32(NBD_REPLY_MAGIC) };
	uint32_t len = be32toh(request->len), type = be32toh(request->type);
	off_t from = be64toh(request->from);

	memcpy(reply.handle, request->handle, sizeof(reply.handle));
	if (type == NBD_CMD_WRITE && (!transfer(read, sock, data, len) ||
				      pwrite(file, data, len, from) != len))
		reply.error = htobe32(EIO);
	if (type == NBD_CMD_READ && pread(file, data, len, from) != len)
		reply.error = htobe32(EIO);
	transfer(write_data, sock, &reply, sizeof(reply));
	if (type == NBD_CMD_READ && !reply.error)
		transfer(write_data, sock, data, len);
}

static void *serve_nbd(void *arg)
{
	struct nbd_request request;
	int sock = *(int *)arg;
	void *data = malloc(32 << 20);	/* what nbd sends at most */

	if (!data)
		die("malloc");
	while (transfer(read, sock, &request, sizeof(request)) &&
	       be32toh(request.type) != NBD_CMD_DISC)
		serve_nbd_request(sock, &request, data);
	free(data);
	return NULL;
}

static void run_nbd(const char *device)
{
	int nbd = open(device, O_RDWR), socks[2];

	if (nbd < 0)
		die(device);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks))
		die("socketpair");
	if (ioctl(nbd, NBD_SET_BLKSIZE, 512UL) ||
	    ioctl(nbd, NBD_SET_SIZE_BLOCKS, (unsigned long)file_size / 512) ||
	    ioctl(nbd, NBD_SET_SOCK, socks[0]))
		die("NBD_SET_SOCK");
	start_thread(serve_nbd, &socks[1]);
	ioctl(nbd, NBD_DO_IT);
	ioctl(nbd, NBD_CLEAR_SOCK);
}

/* --- ublk --- */

static struct io_uring ctrl_ring, io_ring;
static int ctrl;

static struct io_uring_sqe *get_command(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		die("io_uring_get_sqe");
	sqe->opcode = IORING_OP_URING_CMD;
	return sqe;
}

/*
 * The ring has one entry: the position of another would be wrong, because the
 * entries are larger than the header thinks.
 */
static int ublk_control(unsigned int op, struct ublksrv_ctrl_cmd *cmd)
{
	struct io_uring_sqe *sqe = get_command(&ctrl_ring);
	struct io_uring_cqe *cqe;
	int ret;

	sqe->fd = ctrl;
	sqe->cmd_op = UBLK_CTRL(op);
	memcpy(sqe->cmd, cmd, sizeof(*cmd));
	io_uring_submit(&ctrl_ring);
	while (io_uring_wait_cqe(&ctrl_ring, &cqe) == -EINTR)
		;
	ret = cqe->res;
	io_uring_cqe_seen(&ctrl_ring);
	return ret;
}

static void ublk_must(const char *name, unsigned int op,
		      struct ublksrv_ctrl_cmd *cmd)
{
	errno = -ublk_control(op, cmd);
	if (errno)
		die(name);
}

static uint32_t ublk_add(void)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = DEPTH,
		.max_io_buf_bytes = MAX_IO,
		.dev_id = -1,
	};
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = -1,
		.queue_id = -1,
		.addr = (uintptr_t)&info,
		.len = sizeof(info),
	};

	ublk_must("UBLK_CMD_ADD_DEV", UBLK_CMD_ADD_DEV, &cmd);
	return info.dev_id;
}

static void ublk_set_params(uint32_t id)
{
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.logical_bs_shift = 9,
			.physical_bs_shift = 9,
			.io_opt_shift = 9,
			.io_min_shift = 9,
			.max_sectors = MAX_IO >> 9,
			.dev_sectors = file_size >> 9,
		},
	};
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = id,
		.queue_id = -1,
		.addr = (uintptr_t)&params,
		.len = sizeof(params),
	};

	ublk_must("UBLK_CMD_SET_PARAMS", UBLK_CMD_SET_PARAMS, &cmd);
}

static void ublk_queue(int device, unsigned int op, uint16_t tag, void *data,
		       int result)
{
	struct ublksrv_io_cmd cmd = {
		.tag = tag,
		.result = result,
		.addr = (uintptr_t)data,
	};
	struct io_uring_sqe *sqe = get_command(&io_ring);

	sqe->fd = device;
	sqe->cmd_op = UBLK_IO(op);
	sqe->user_data = tag;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	io_uring_submit(&io_ring);
}

static int ublk_execute(const struct ublksrv_io_desc *desc, void *data)
{
	size_t len = (size_t)desc->nr_sectors << 9;
	off_t from = desc->start_sector << 9;

	switch (ublksrv_get_op(desc)) {
	case UBLK_IO_OP_READ:
		return pread(file, data, len, from);
	case UBLK_IO_OP_WRITE:
		return pwrite(file, data, len, from);
	case UBLK_IO_OP_FLUSH:
		return fdatasync(file);
	default:
		return -EOPNOTSUPP;
	}
}

/* All commands must come from one thread, and end when the device stops. */
static void *serve_ublk(void *arg)
{
	static unsigned char data[DEPTH][MAX_IO];
	const struct ublksrv_io_desc *descs;
	int device = *(int *)arg, tag, ret;
	struct io_uring_cqe *cqe;

	descs = mmap(NULL, DEPTH * sizeof(*descs), PROT_READ,
		     MAP_SHARED | MAP_POPULATE, device, UBLKSRV_CMD_BUF_OFFSET);
	if (descs == MAP_FAILED || io_uring_queue_init(DEPTH, &io_ring, 0))
		die("ublk queue");
	for (tag = 0; tag < DEPTH; tag++)
		ublk_queue(device, UBLK_IO_FETCH_REQ, tag, data[tag], 0);
	while (!io_uring_wait_cqe(&io_ring, &cqe)) {
		tag = cqe->user_data;
		ret = cqe->res;
		io_uring_cqe_seen(&io_ring);
		if (ret != UBLK_IO_RES_OK)
			break;
		ret = ublk_execute(&descs[tag], data[tag]);
		ublk_queue(device, UBLK_IO_COMMIT_AND_FETCH_REQ, tag,
			   data[tag], ret);
	}
	munmap((void *)descs, DEPTH * sizeof(*descs));
	io_uring_queue_exit(&io_ring);
	close(device);
	return NULL;
}

static int ublk_open(uint32_t id)
{
	char path[32];
	int device;

	snprintf(path, sizeof(path), "/dev/ublkc%u", id);
	device = open(path, O_RDWR);
	if (device < 0)
		die(path);
	return device;
}

static void run_ublk(void)
{
	struct ublksrv_ctrl_cmd cmd = { .queue_id = -1 };
	int device;

	ctrl = open("/dev/ublk-control", O_RDWR);
	if (ctrl < 0)
		die("/dev/ublk-control");
	if (io_uring_queue_init(1, &ctrl_ring, IORING_SETUP_SQE128))
		die("ublk control queue");
	cmd.dev_id = ublk_add();
	ublk_set_params(cmd.dev_id);
	device = ublk_open(cmd.dev_id);
	start_thread(serve_ublk, &device);
	cmd.data[0] = getpid();
	ublk_must("UBLK_CMD_START_DEV", UBLK_CMD_START_DEV, &cmd);
	pause();
	cmd.data[0] = 0;
	ublk_control(UBLK_CMD_STOP_DEV, &cmd);
	ublk_control(UBLK_CMD_DEL_DEV, &cmd);
}

int main(int argc, char **argv)
{
	bool nbd = argc == 4 && !strcmp(argv[1], "nbd");

	if (!nbd && (argc != 3 || strcmp(argv[1], "ublk"))) {
		fprintf(stderr, "usage: block_server nbd DEVICE FILE | ublk FILE\n");
		return 2;
	}
	file = open(argv[argc - 1], O_RDWR);
	if (file < 0)
		die(argv[argc - 1]);
	file_size = lseek(file, 0, SEEK_END);
	catch_sigterm();
	if (nbd)
		run_nbd(argv[2]);
	else
		run_ublk();
	return 0;
}
