# SPDX-License-Identifier: GPL-2.0
#
# Count DMA mappings in a trace of dma_map_phys and dma_map_sg. Variables: drive
# (its PCI address), first and last (physical addresses of the provider's memory).
# Prints: of the drive, of the provider's memory for others, all the rest.

function hex(s,    i, n)
{
	s = tolower(s)
	for (i = 1; i <= length(s); i++)
		n = n * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
	return n + 0
}

/ dma_map_(phys|sg): / {
	match($0, / dma_map_(phys|sg): [^ ]+/)
	split(substr($0, RSTART, RLENGTH), word, " ")
	# phys_addr=<hex>, or phys_addrs={0x<hex>,...}: the first decides
	match($0, /phys_addrs?=[{]?(0x)?[0-9a-f]+/)
	address = substr($0, RSTART, RLENGTH)
	sub(/^phys_addrs?=[{]?(0x)?/, "", address)
	address = hex(address)
	if (word[2] == drive)
		of_drive++
	else if (address >= first && address <= last)
		of_bar++
	else
		of_rest++
}

END { print of_drive + 0, of_bar + 0, of_rest + 0 }
