# SPDX-License-Identifier: GPL-2.0
#
# Count DMA mappings in a trace of dma_map_phys and dma_map_sg, and what an IOMMU was
# told to map: all of the former that it translates, and what dma_iova_link() adds
# without them. Variables: drive (its PCI address), first and last (physical addresses
# of the provider's memory). Prints: of the drive, of the provider's memory for others,
# all the rest; in an IOMMU, the provider's memory and all the rest.

function hex(s,    i, n)
{
	s = tolower(s)
	for (i = 1; i <= length(s); i++)
		n = n * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
	return n + 0
}

# phys_addr=<hex>, phys_addrs={0x<hex>,...} or paddr=0x<hex>: the first decides
function is_of_bar(    address)
{
	match($0, /p(hys_)?addrs?=[{]?(0x)?[0-9a-f]+/)
	address = substr($0, RSTART, RLENGTH)
	sub(/^.*=[{]?(0x)?/, "", address)
	address = hex(address)
	return address >= first && address <= last
}

/ dma_map_(phys|sg): / {
	match($0, / dma_map_(phys|sg): [^ ]+/)
	split(substr($0, RSTART, RLENGTH), word, " ")
	if (word[2] == drive)
		of_drive++
	else if (is_of_bar())
		of_bar++
	else
		of_rest++
}

/ map: IOMMU: / {
	if (is_of_bar())
		in_iommu++
	else
		rest_in_iommu++
}

END {
	print of_drive + 0, of_bar + 0, of_rest + 0, in_iommu + 0, \
		rest_in_iommu + 0
}
