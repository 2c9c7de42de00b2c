#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Does "make deb" make packages that a Debian machine installs, boots from its disk and
# runs the tests with?  The machine is an emulated one, with firmware and Debian 12.
#
# KCONFIG=<file>, such as a distribution's, takes that configuration instead of a small one.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The modules that it boots with
MODULES=(virtio_pci virtio_blk ext4)
PACKAGES=systemd-sysv,udev,kmod,initramfs-tools,zstd,fio,iproute2,nvme-cli,pciutils
FIRMWARE=/usr/share/OVMF/OVMF_CODE_4M.fd
VARIABLES=/usr/share/OVMF/OVMF_VARS_4M.fd
LOADER=/usr/lib/systemd/boot/efi/systemd-bootx64.efi
TIMEOUT=1800
ESP_MB=256 ROOT_MB=2048
# What needs nothing but a provider and a drive.
MUST_PASS=(dma_bio dma_bio_faults dma_bio_fuzz dma_bio_meta iommu p2pmem_user bio.sh
	bio_features.sh user_load.sh)

build_packages() {
	if [ -n "${KCONFIG:-}" ]; then
		cp "$KCONFIG" "$tmp/config"
	else
		"$SCRIPTS/kernel.sh" build series test
		cat "$BUILD/kernel-series-test/config" "$TOP/base/deb-test.config" >"$tmp/config"
	fi
	{
		echo 'Module Size Used by'
		printf '%s 0 0\n' "${MODULES[@]}"
	} >"$tmp/lsmod"
	KCONFIG=$tmp/config LOCALMOD=1 LSMOD=$tmp/lsmod \
		"$SCRIPTS/kernel.sh" package series deb
}

# The mirrors that this machine uses
sources() {
	# shellcheck disable=SC2016 # apt expands it
	apt-get indextargets --no-release-info --format \
		'deb $(REPO_URI) $(RELEASE) main' |
		grep -E ' bookworm main$' | sort -u
}

# A service that runs the tests as the first thing and then turns the machine off
add_service() {
	cat >"$1/etc/systemd/system/selftests.service" <<-END
		[Service]
		Type=oneshot
		Environment="P2PDMA_DEVS=p2pmem0=0000:00:10.0 drive0=0000:00:11.0"
		StandardOutput=file:/dev/ttyS1
		StandardError=file:/dev/ttyS1
		ExecStart=uname -r
		ExecStart=-/usr/lib/p2pdma-selftests/run_kselftest.sh
		ExecStartPost=echo selftests: end
		ExecStopPost=systemctl poweroff --force --force
		[Install]
		WantedBy=multi-user.target
	END
	ln -s ../selftests.service "$1/etc/systemd/system/multi-user.target.wants/"
}

install_debian() {
	sources >"$tmp/sources.list"
	# shellcheck disable=SC2016 # mmdebstrap's argument
	mmdebstrap --variant=minbase --include=$PACKAGES \
		--customize-hook="copy-in $(echo "$BUILD"/deb/*.deb) /opt" \
		--customize-hook='chroot "$1" sh -c "dpkg -i /opt/*.deb"' \
		bookworm "$tmp/debian" "$tmp/sources.list"
	add_service "$tmp/debian"
}

# The loader finds kernel and initrd on the first partition, the kernel the second.
make_image() {
	local image=$1 root_offset=$((ESP_MB + 1))
	printf 'title p2pmem\nlinux /vmlinuz\ninitrd /initrd.img\noptions %s\n' \
		"root=/dev/vda2 rw console=ttyS0 panic=-1 oops=panic" >"$tmp/p2pmem.conf"
	truncate -s $((root_offset + ROOT_MB + 1))M "$image"
	sfdisk -q "$image" <<-END
		label: gpt
		start=1MiB, size=${ESP_MB}MiB, type=U
		start=${root_offset}MiB, size=${ROOT_MB}MiB, type=L
	END
	mkfs.vfat -C "$tmp/esp" $((ESP_MB * 1024)) >/dev/null
	mmd -i "$tmp/esp" ::EFI ::EFI/BOOT ::loader ::loader/entries
	mcopy -i "$tmp/esp" "$LOADER" ::EFI/BOOT/BOOTX64.EFI
	mcopy -i "$tmp/esp" "$tmp/p2pmem.conf" ::loader/entries
	mcopy -i "$tmp/esp" "$tmp/debian/boot/vmlinuz-$release" ::vmlinuz
	mcopy -i "$tmp/esp" "$tmp/debian/boot/initrd.img-$release" ::initrd.img
	dd if="$tmp/esp" of="$image" bs=1M seek=1 conv=notrunc status=none
	mke2fs -q -t ext4 -d "$tmp/debian" -E offset=$((root_offset << 20)) "$image" ${ROOT_MB}M
}

# /dev/kvm may be there and not work.
boot_image() {
	cp "$VARIABLES" "$tmp/variables"
	truncate -s 512M "$tmp/drive"
	timeout $TIMEOUT qemu-system-x86_64 -M q35 -cpu EPYC,vendor=AuthenticAMD \
		-accel tcg,thread=multi -m 2048 -smp 2 -no-reboot -nodefaults \
		-display none -nic none -serial "file:$1" -serial "file:$2" \
		-drive "if=pflash,format=raw,readonly=on,file=$FIRMWARE" \
		-drive "if=pflash,format=raw,file=$tmp/variables" \
		-drive "if=virtio,format=raw,file=$tmp/image" \
		-object "memory-backend-file,id=bar,size=64M,share=on,mem-path=$tmp/bar" \
		-device ivshmem-plain,memdev=bar,addr=0x10 \
		-drive "if=none,id=drive,format=raw,file=$tmp/drive" \
		-device nvme,serial=drive0,drive=drive,mdts=8,addr=0x11 </dev/null
}

# verdict CONSOLE OUTPUT: the kernel is the one of the packages and has no complaints, all
# tests have run, none has failed, and those that must pass have.
verdict() {
	local test failed=0 planned
	tr -d '\r' <"$2" >"$tmp/output"
	grep -E '^(not )?ok ' "$tmp/output" || true
	! grep -aE 'BUG|WARNING:|Oops|Kernel panic' "$1" || failed=1
	! grep '^not ok' "$tmp/output" || failed=1
	planned=$(sed -n 's/^1\.\.//p' "$tmp/output")
	[ "$(grep -cE '^(not )?ok ' "$tmp/output")" = "$planned" ] || {
		echo "FAIL: not all of the $planned tests have run"
		failed=1
	}
	for test in "$release" 'selftests: end' "${MUST_PASS[@]/#/ok [0-9]* selftests: p2pdma: }"; do
		grep -qx "$test" "$tmp/output" || {
			echo "FAIL: there is no \"$test\""
			failed=1
		}
	done
	[ $failed = 0 ] || die "the tests did not pass on $release" "console: $1" "output: $2"
}

main() {
	[ "$(id -u)" = 0 ] || {
		echo "SKIP: needs root to install Debian"
		exit 4
	}
	make_tmp
	logs=$(realpath "$LOGS")
	build_packages
	step deb-debian install_debian
	release=$(ls "$tmp/debian/lib/modules")
	step deb-image make_image "$tmp/image"
	step deb-boot boot_image "$logs"/deb-{console,output}.log
	verdict "$logs"/deb-{console,output}.log
}

main
