// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/dma_bio lets tests in user space describe any bio that has DMA addresses,
 * also one that must be refused, and tells what became of it. See dma_bio_ctl.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "dma_bio_ctl_priv.h"

static struct pci_dev *ctl_find_pci(const char *name)
{
	unsigned int domain, bus, slot, func;

	if (strnlen(name, DMA_BIO_NAME_LEN) == DMA_BIO_NAME_LEN ||
	    sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
}

static int ctl_alloc_p2pmem(struct ctl_file *ctl,
			    const struct dma_bio_alloc *arg)
{
	struct pci_dev *provider = ctl_find_pci(arg->provider);

	if (!provider)
		return -ENODEV;
	ctl->p2p.addr = pci_alloc_p2pmem(provider, arg->size);
	if (!ctl->p2p.addr) {
		pci_dev_put(provider);
		return -ENOMEM;
	}
	ctl->p2p.size = arg->size;
	ctl->provider = provider;
	return 0;
}

/* On failure the rest is left to who closes the file. */
static int ctl_alloc(struct ctl_file *ctl, const struct dma_bio_alloc *arg)
{
	int ret;

	if (ctl->provider)
		return -EBUSY;
	if (!arg->size || arg->pages > KMALLOC_MAX_SIZE)
		return ctl_invalid("size of a buffer");
	ret = ctl_alloc_p2pmem(ctl, arg);
	if (ret || !arg->pages)
		return ret;
	ctl->pages.addr = alloc_pages_exact(arg->pages,
					    GFP_KERNEL | __GFP_ZERO |
					    __GFP_NOWARN);
	if (!ctl->pages.addr)
		return -ENOMEM;
	ctl->pages.size = arg->pages;
	return 0;
}

static int ctl_add_map(struct ctl_file *ctl, struct device *client,
		       struct dma_bio_map *arg)
{
	struct dma_premap *map;

	map = pci_p2pmem_map_resource(ctl->provider, client);
	if (IS_ERR(map))
		return PTR_ERR(map);
	ctl->maps[ctl->nr_maps] = map;
	map = ctl_find_map(ctl, ctl->nr_maps, ctl->p2p.addr);
	if (map)
		arg->offset = pci_p2pmem_dma_addr(map, ctl->p2p.addr) - map->addr;
	return ctl->nr_maps++;
}

static int ctl_map_pci(struct ctl_file *ctl, struct dma_bio_map *arg)
{
	struct pci_dev *client = ctl_find_pci(arg->client);
	int ret;

	if (!client)
		return -ENODEV;
	ret = ctl_add_map(ctl, &client->dev, arg);
	pci_dev_put(client);
	return ret;
}

static int ctl_map_bdev(struct ctl_file *ctl, struct dma_bio_map *arg)
{
	struct file *file = ctl_get_bdev(arg->bdev, 0);
	struct device *clients[DMA_BIO_MAX_MAPS];
	int nr, ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	nr = bdev_get_dma_devs(file_bdev(file), clients,
			       DMA_BIO_MAX_MAPS - ctl->nr_maps);
	fput(file);
	for (ret = nr ?: -ENODEV; nr > 0; put_device(clients[nr])) {
		nr--;
		if (ret >= 0)
			ret = ctl_add_map(ctl, clients[nr], arg);
	}
	return ret;
}

static int ctl_map(struct ctl_file *ctl, struct dma_bio_map *arg)
{
	if (!ctl->provider)
		return ctl_invalid("nothing is allocated");
	if (ctl->nr_maps == DMA_BIO_MAX_MAPS)
		return -ENOSPC;
	return arg->client[0] ? ctl_map_pci(ctl, arg) : ctl_map_bdev(ctl, arg);
}

static long ctl_ioctl_alloc(struct ctl_file *ctl, const void __user *from)
{
	struct dma_bio_alloc arg;
	long ret;

	if (copy_from_user(&arg, from, sizeof(arg)))
		return -EFAULT;
	down_write(&ctl->lock);
	ret = ctl_alloc(ctl, &arg);
	up_write(&ctl->lock);
	return ret;
}

static long ctl_ioctl_map(struct ctl_file *ctl, void __user *user)
{
	struct dma_bio_map arg;
	long ret;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	down_write(&ctl->lock);
	ret = ctl_map(ctl, &arg);
	up_write(&ctl->lock);
	if (ret >= 0 && copy_to_user(user, &arg, sizeof(arg)))
		return -EFAULT;
	return ret;
}

static long ctl_ioctl_submit(struct ctl_file *ctl, const void __user *from)
{
	struct dma_bio_submit arg;
	long ret;

	if (copy_from_user(&arg, from, sizeof(arg)))
		return -EFAULT;
	down_read(&ctl->lock);
	ret = ctl_submit(ctl, &arg);
	up_read(&ctl->lock);
	return ret;
}

static long ctl_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct ctl_file *ctl = file->private_data;
	void __user *user = (void __user *)arg;

	switch (cmd) {
	case DMA_BIO_IOC_ALLOC:
		return ctl_ioctl_alloc(ctl, user);
	case DMA_BIO_IOC_MAP:
		return ctl_ioctl_map(ctl, user);
	case DMA_BIO_IOC_SUBMIT:
		return ctl_ioctl_submit(ctl, user);
	default:
		return -ENOTTY;
	}
}

/* The buffer that @pos is in, which becomes the position in it. */
static const struct ctl_buffer *ctl_find_buffer(const struct ctl_file *ctl,
						loff_t *pos)
{
	if (*pos < ctl->p2p.size)
		return &ctl->p2p;
	*pos -= ctl->p2p.size;
	return &ctl->pages;
}

static ssize_t ctl_read(struct file *file, char __user *to, size_t count,
			loff_t *ppos)
{
	struct ctl_file *ctl = file->private_data;
	const struct ctl_buffer *buffer;
	loff_t pos = *ppos;
	ssize_t ret;

	down_read(&ctl->lock);
	buffer = ctl_find_buffer(ctl, &pos);
	ret = simple_read_from_buffer(to, count, &pos, buffer->addr,
				      buffer->size);
	up_read(&ctl->lock);
	if (ret > 0)
		*ppos += ret;
	return ret;
}

static ssize_t ctl_write(struct file *file, const char __user *from,
			 size_t count, loff_t *ppos)
{
	struct ctl_file *ctl = file->private_data;
	const struct ctl_buffer *buffer;
	loff_t pos = *ppos;
	ssize_t ret;

	down_read(&ctl->lock);
	buffer = ctl_find_buffer(ctl, &pos);
	ret = simple_write_to_buffer(buffer->addr, buffer->size, &pos, from,
				     count);
	/* p2pmem may be mapped write-combining, the doorbell is not. */
	wmb();
	up_read(&ctl->lock);
	if (ret > 0)
		*ppos += ret;
	return ret;
}

static int ctl_open(struct inode *inode, struct file *file)
{
	struct ctl_file *ctl;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	ctl = kzalloc_obj(*ctl);
	if (!ctl)
		return -ENOMEM;
	init_rwsem(&ctl->lock);
	file->private_data = ctl;
	return 0;
}

/* No bio is in flight: the ioctl that submits them waits for all. */
static int ctl_release(struct inode *inode, struct file *file)
{
	struct ctl_file *ctl = file->private_data;

	while (ctl->nr_maps)
		pci_p2pmem_unmap_resource(ctl->maps[--ctl->nr_maps]);
	if (ctl->pages.addr)
		free_pages_exact(ctl->pages.addr, ctl->pages.size);
	if (ctl->provider) {
		pci_free_p2pmem(ctl->provider, ctl->p2p.addr, ctl->p2p.size);
		pci_dev_put(ctl->provider);
	}
	kfree(ctl);
	return 0;
}

static const struct file_operations ctl_fops = {
	.owner		= THIS_MODULE,
	.open		= ctl_open,
	.release	= ctl_release,
	.read		= ctl_read,
	.write		= ctl_write,
	.llseek		= default_llseek,
	.unlocked_ioctl	= ctl_ioctl,
};

static struct miscdevice ctl_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dma_bio",
	.fops	= &ctl_fops,
	.mode	= 0600,
};
module_misc_device(ctl_device);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("User space describes DMA-address bios (for testing only)");
MODULE_LICENSE("GPL");
