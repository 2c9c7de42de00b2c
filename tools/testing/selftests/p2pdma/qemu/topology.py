# SPDX-License-Identifier: GPL-2.0
"""The emulated machines that a guest can be"""

import os
import re

# The devices behind the switch or bridges, in this order; acs has three of them, none has
# none.
DEVICES = [
    ("p2pmem0", "provider", "64M"),
    ("p2pmem1", "provider", "8M"),
    ("drive0", "drive", "512M"),
    ("drive1", "long_drive", "256M"),
    ("engine", "engine", ""),
    ("path0", "path", "64M"),
    ("path1", "path", "64M"),
    ("formats", "formats", "64M"),
    ("engine1", "engine", ""),
]

# Protection information alone, more metadata than that, zones, zones with protection
# information, metadata without it
ZONES = "zoned=true,zoned.zone_size=4M"
FORMATS = ["ms=8,pi=1", "ms=16,pi=1", ZONES, f"{ZONES},ms=8,pi=1", "ms=8"]

# The vendor is named because KVM would put the host's in its place.
AMD_ZEN = "EPYC,vendor=AuthenticAMD"


def to_bytes(size):
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]


class Machine:
    """What a topology makes:

    args       QEMU's arguments
    cmdline    the kernel's
    bars       "name=path" of each provider; the path is the chain of slot.function
               numbers from the root bus, because bus numbers are the guest's
    devs       the same for the other devices
    """

    def __init__(self, topology, work, more_devices=()):
        self.work = work
        # The kernel's PCIe hotplug driver has to handle the slots, not ACPI.
        self.args = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        self.cmdline = []
        self.bars = []
        self.devs = []
        self.devices = [*DEVICES, *more_devices]
        self.chassis = 0
        TOPOLOGIES[topology](self)

    def device(self, argument):
        self.args += ["-device", argument]

    def file(self, name, size):
        """A block backend, in whose file Control.same() looks"""
        with open(os.path.join(self.work, f"{name}.img"), "wb") as image:
            image.truncate(to_bytes(size))
        return f"driver=file,node-name={name}-file,filename={self.work}/{name}.img"

    def port(self, driver, name, bus, slot):
        """With the unique chassis that it needs"""
        self.chassis += 1
        self.device(f"{driver},id={name},bus={bus},addr={slot:02x},"
                    f"chassis={self.chassis},slot={self.chassis}")

    def add(self, kind, *where):
        getattr(self, kind)(*where)

    def provider(self, name, bus, path, size):
        """The backing is a file so that the host can see what crossed the BAR."""
        self.args += ["-object", f"memory-backend-file,id=mem-{name},size={size},share=on,"
                      f"mem-path={self.work}/{name}.bar"]
        self.device(f"ivshmem-plain,id={name},memdev=mem-{name},bus={bus}")
        self.bars.append(f"{name}={path}")

    def drive(self, name, bus, path, size, more="mdts=8"):
        """MDTS 8, unless another is given, lets one command carry 1 MiB."""
        self.args += ["-blockdev", self.file(name, size)]
        self.device(f"nvme,id={name},serial={name},drive={name}-file,{more},bus={bus}")
        self.devs.append(f"{name}={path}")

    def long_drive(self, *where):
        """With commands of up to 4 MiB, whose PRP list takes more than a page"""
        self.drive(*where, "mdts=10")

    def cmb(self, *where):
        """With a Controller Memory Buffer, in which it has its submission queues"""
        self.drive(*where, "mdts=8,cmb_size_mb=16")

    def path(self, name, bus, path, size):
        """One of two controllers of a subsystem, with one namespace that both have"""
        if not any(argument.startswith("nvme-subsys,") for argument in self.args):
            self.device("nvme-subsys,id=shared,nqn=shared")
            self.args += ["-blockdev", self.file("shared", size)]
        self.device(f"nvme,id={name},serial=shared,subsys=shared,bus={bus}")
        # Add the namespace last: it goes to the controllers that are there.
        if name == "path1":
            self.device(f"nvme-ns,drive=shared-file,nsid=1,shared=on,bus={name}")
        self.devs.append(f"{name}={path}")

    def formats(self, name, bus, path, size):
        self.device(f"nvme,id={name},serial={name},mdts=8,bus={bus}")
        for nsid, options in enumerate(FORMATS, 1):
            self.args += ["-blockdev", self.file(f"{name}{nsid}", size)]
            self.device(f"nvme-ns,drive={name}{nsid}-file,nsid={nsid},bus={name},{options}")
        self.devs.append(f"{name}={path}")

    def late_drive(self, name, bus, path, _size):
        """Its I/Os take so long that the guest's processor is idle before they end, so each
        executes the same instructions.  It stores no data."""
        self.args += ["-blockdev", f"driver=null-co,node-name={name}-null,size={1 << 29},"
                      "latency-ns=500000"]
        self.device(f"nvme,id={name},serial={name},drive={name}-null,mdts=8,bus={bus}")
        self.devs.append(f"{name}={path}")

    def engine(self, name, bus, path, _size):
        self.device(f"lsi53c895a,id={name},bus={bus}")
        self.devs.append(f"{name}={path}")

    def others(self):
        """Disks whose drivers take no DMA addresses; their data is not checked."""
        for name in ("virtio", "scsi"):
            self.args += ["-blockdev", self.file(name, "64M")]
        self.device("virtio-blk-pci,drive=virtio-file,bus=pcie.0,addr=04")
        self.device("virtio-scsi-pci,id=scsi,bus=pcie.0,addr=05")
        self.device("scsi-hd,drive=scsi-file,bus=scsi.0")
        self.devs += ["virtio0=04.0", "scsi0=05.0"]

    def root_ports(self):
        self.others()
        for slot, (name, kind, size) in enumerate([*self.devices, ("far", "provider", "8M")],
                                                  16):
            self.port("pcie-root-port", f"{name}-port", "pcie.0", slot)
            self.add(kind, name, f"{name}-port", f"{slot:02x}.0/00.0", size)

    def argument(self, name):
        """The one that made the device or object of this name"""
        if re.fullmatch(r"[a-z0-9-]+", name):
            return next((a for a in self.args if f",id={name}," in a), None)
        return None


def switch(machine):
    machine.args += ["-cpu", "qemu64"]
    machine.others()
    machine.port("pcie-root-port", "root", "pcie.0", 0x10)
    machine.device("x3130-upstream,id=up,bus=root")
    behind = [d for d in machine.devices if d[0] != "path1"]
    for slot, (name, kind, size) in enumerate(behind):
        machine.port("xio3130-downstream", f"{name}-port", "up", slot)
        machine.add(kind, name, f"{name}-port", f"10.0/00.0/{slot:02x}.0/00.0", size)
    # With qemu64 the host bridge is not on the allow-list: nothing behind the switch can
    # reach these two, nor they each other.
    machine.port("pcie-root-port", "far-port", "pcie.0", 0x18)
    machine.provider("far", "far-port", "18.0/00.0", "8M")
    machine.port("pcie-root-port", "path1-port", "pcie.0", 0x19)
    machine.path("path1", "path1-port", "19.0/00.0", "64M")


def bridge(machine):
    machine.args += ["-cpu", AMD_ZEN]
    machine.root_ports()


def iommu(*options):
    """In QEMU all DMA goes to the root complex: with an IOMMU even a switch would not
    connect two devices, although the kernel thinks so.  Hence root ports."""
    def topology(machine):
        machine.args += ["-cpu", AMD_ZEN, "-machine", "kernel-irqchip=split"]
        machine.device("intel-iommu,intremap=on,aw-bits=48")
        machine.cmdline += ["intel_iommu=on", *options]
        machine.root_ports()
    return topology


def large(machine):
    """A BAR that is larger than all memory, and that the copy engine, which has 32
    address bits, reaches only in parts.  The file behind it is sparse."""
    machine.devices.append(("huge", "provider", "512G"))
    iommu("iommu.strict=1")(machine)


def cmb(machine):
    machine.devices.append(("cmb", "cmb", "64M"))
    bridge(machine)


def refused(machine):
    """No switch, and a host bridge that is not on the allow-list"""
    machine.args += ["-cpu", "SandyBridge,vendor=GenuineIntel"]
    machine.root_ports()


def acs(machine):
    """Three functions of one device below a port with ACS, which decides whether what one
    sends to another is redirected to the root complex"""
    machine.args += ["-cpu", AMD_ZEN]
    machine.port("pcie-root-port", "acs-port", "pcie.0", 0x10)
    for function, name in enumerate(("p2pmem0", "drive0", "engine")):
        kind, size = next(d[1:] for d in DEVICES if d[0] == name)
        machine.add(kind, name, f"acs-port,multifunction=on,addr=00.{function}",
                    f"10.0/00.{function}", size)


def none(machine):
    """A machine without any of it, in which every test is skipped"""
    machine.args += ["-cpu", "qemu64"]


TOPOLOGIES = {
    "switch": switch,
    "bridge": bridge,
    "iommu-lazy": iommu("iommu.strict=0"),
    "iommu-strict": iommu("iommu.strict=1"),
    "iommu-pt": iommu("iommu=pt"),
    "large": large,
    "cmb": cmb,
    "refused": refused,
    "acs": acs,
    "none": none,
}
