# A libvirt host of its own, as PID 1 of new mount, PID, network, UTS and IPC namespaces.
#
#   other_host.sh WORK SSHD CLIENT    WORK: a directory for its disks, configuration and logs;
#                                     CLIENT: the address at the other end of the cable
#
# Nothing of it is the machine's own: libvirt's configuration, state and sockets are WORK's.
set -eu
work=$1 sshd=$2 client=$3

mount --make-rprivate /
mount -t proc proc /proc
umount -R -l /sys  # with its cgroups, which libvirt does without
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd /run/lock "$work"/{lib/images,cache,log}
chmod 711 "$work"/lib "$work"/lib/images
# All of /etc: a mount on one of its files goes when somebody else's program replaces that file.
cp -a /etc "$work/etc"
find "$work/etc/libvirt" -mindepth 1 -maxdepth 1 ! -name '*.conf' -exec rm -rf {} +
# sshd gives up its rights to this user; where the package is only unpacked, there is none.
grep -q '^sshd:' /etc/passwd ||
    echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin' >>"$work/etc/passwd"
mount --bind "$work/etc" /etc
mount --bind "$work/lib" /var/lib/libvirt
mount --bind "$work/cache" /var/cache/libvirt
mount --bind "$work/log" /var/log/libvirt

hostname lab
ip link set lo up
# A resolver that never answers, as in many a lab: nothing may wait for a name.
echo nameserver 198.51.100.1 >"$work/etc/resolv.conf"
until [ -e "$work/linked" ]; do sleep 0.05; done

ip route add default via "$client"
virtlogd >>"$work/log/virtlogd.log" 2>&1 &
libvirtd >>"$work/log/libvirtd.log" 2>&1 &
"$sshd" -D -e -f "$work/ssh/sshd_config" >>"$work/log/sshd.log" 2>&1 &
# A machine's QEMU is nobody's child but ours: it is gone for libvirt when it was waited for.
while :; do wait || true; sleep 0.2; done
