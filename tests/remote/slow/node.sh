# A node of a Slurm cluster, as PID 1 of new mount, PID, network, UTS and IPC namespaces.
#
#   node.sh NAME WORK SLURMD...    WORK: a directory for /etc, libvirt's files and logs;
#                                  SLURMD: the command that starts slurmd
#
# Its libvirt's configuration, state and sockets are WORK's.
set -eu
name=$1 work=$2
shift 2

mount --make-rprivate /
mount -t proc proc /proc
umount -R -l /sys  # with its cgroups, which libvirt does without
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock
mount --bind "$work/etc" /etc
mount --bind "$work/lib" /var/lib/libvirt
mount --bind "$work/cache" /var/cache/libvirt
mount --bind "$work/log" /var/log/libvirt
hostname "$name"
ip link set lo up
until [ -e "$work/linked" ]; do sleep 0.05; done

virtlogd >>"$work/log/virtlogd.log" 2>&1 &
libvirtd >>"$work/log/libvirtd.log" 2>&1 &
"$@" >>"$work/log/slurmd.log" 2>&1 &
# A machine's QEMU is nobody's child but ours: it is gone for libvirt when it was waited for.
while :; do wait || true; sleep 0.2; done
