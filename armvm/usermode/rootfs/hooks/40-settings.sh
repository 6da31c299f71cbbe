# What makes the installed packages a cloud image. $root is the root file system.
write() {
    mkdir -p "$root${1%/*}"
    rm -f "$root$1"
    cat > "$root$1"
}

write /etc/fstab <<'END'
LABEL=cloudimg-rootfs  /          ext4  defaults  0  1
# Mounted when somebody looks, above all grub-install when GRUB is upgraded: booting need not wait.
LABEL=UEFI  /boot/efi  vfat  umask=0077,noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=60  0  0
END
mkdir -p "$root/boot/efi"

write /etc/hostname <<'END'
debian
END
write /etc/hosts <<'END'
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
END
write /etc/default/locale <<'END'
LANG=C.UTF-8
END

# A libvirt host's seed, a cloud's config drive, its metadata service. cloud-init's ds-identify
# leaves only what it finds without the network: with a seed or a config drive, the metadata service,
# which anybody on the network may pretend to be, is not asked.
write /etc/cloud/cloud.cfg.d/95-armvm.cfg <<'END'
datasource_list: [ NoCloud, ConfigDrive, OpenStack, None ]
END

# For update-grub, when the guest upgrades its kernel. The serial console comes last, for that is
# where systemd and cloud-init then tell how far they are; no "quiet", for the same reason.
write /etc/default/grub.d/50-armvm.cfg <<'END'
GRUB_TIMEOUT=0
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_DISABLE_OS_PROBER=true
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyAMA0"
END
# Until update-grub writes one that lists all kernels: Debian keeps these two links on the newest.
write /boot/grub/grub.cfg <<'END'
search --no-floppy --label --set=root cloudimg-rootfs
set timeout=0
menuentry "Debian GNU/Linux" {
    linux /vmlinuz root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyAMA0
    initrd /initrd.img
}
END

# Only what finds the root disk of a virtual machine: a small initramfs is quick to make under
# emulation and quick to load at each boot.
write /etc/initramfs-tools/conf.d/armvm <<'END'
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=3
END
write /etc/initramfs-tools/modules <<'END'
virtio_pci
virtio_mmio
virtio_blk
virtio_scsi
sd_mod
nvme
ext4
END

# e2scrub is for file systems on LVM; looking for one takes seconds of each emulated boot.
ln -sf /dev/null "$root/etc/systemd/system/e2scrub_reap.service"
# cloud-init writes netplan's file after systemd's generators have run, too late for netplan
# itself to enable networkd at the first boot.
chroot "$root" systemctl --quiet enable systemd-networkd.service
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id"
: > "$root/etc/machine-id"
# GRUB's upgrades shall also renew the copy that the firmware finds without an entry in its NVRAM,
# which a clone does not have.
echo 'grub-efi-arm64 grub2/force_efi_extra_removable boolean true' |
    chroot "$root" debconf-set-selections
