/* SPDX-License-Identifier: GPL-2.0 */
#ifndef DRIVERS_PCI_P2PMEM_POOL_H
#define DRIVERS_PCI_P2PMEM_POOL_H

#include <linux/types.h>

struct p2pmem_pool;
struct percpu_ref;

struct p2pmem_pool *p2pmem_pool_create(int node);
void p2pmem_pool_destroy(struct p2pmem_pool *pool);
int p2pmem_pool_add(struct p2pmem_pool *pool, void *vaddr, phys_addr_t bus_addr,
		    size_t size, struct percpu_ref *ref);

void *p2pmem_pool_alloc(struct p2pmem_pool *pool, size_t size,
			struct percpu_ref **ref);
struct percpu_ref *p2pmem_pool_free(struct p2pmem_pool *pool, void *addr,
				    size_t size);
void *p2pmem_pool_alloc_exact(struct p2pmem_pool *pool, size_t size,
			      struct percpu_ref **ref);
void p2pmem_pool_free_exact(struct p2pmem_pool *pool, void *addr, size_t size);

phys_addr_t p2pmem_pool_bus_addr(struct p2pmem_pool *pool, void *addr);
size_t p2pmem_pool_avail(struct p2pmem_pool *pool);
size_t p2pmem_pool_size(struct p2pmem_pool *pool);

#endif /* DRIVERS_PCI_P2PMEM_POOL_H */
