# Prepares the mounts of the services, and becomes their PID 1. Run by ./zed in new namespaces.
set -eu
root=$1 work=$2
hostname zed
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
mount --bind "$work" "$root/mnt"
ip link set lo up
cd "$root"
exec chroot "$root" /usr/bin/tini -s -- bash /mnt/services.sh
