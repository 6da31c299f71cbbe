# Runs as mmdebstrap's extract hook: $1 is the new root file system, still empty.
#
# What is slow on a host of another architecture is emulation, so little is emulated: packages
# are fetched, unpacked and byte-compiled by the host's own programs, and only the maintainer
# scripts run in the guest's root, with the host's shell where that works (20-borrow.sh). What
# they would do again and again, or in vain (initramfs, byte-compilation, ssh host keys,
# services), is put off or left out (30-configure.sh).
#
# From the environment: ARMVM_PACKAGES, ARMVM_PYTHONS (host interpreters to try), ARMVM_EMULATED
# (yes, or no on a host that runs the guest's programs itself), and what mmdebstrap sets. Lines
# "armvm-phase: …" on standard output tell how far things are.
set -eu
root=$1
debs=$root/var/cache/apt/archives
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# QEMU's default processor has pointer authentication, whose emulation makes programs built for it
# (Debian 13's) three times slower. On this older one the same instructions do nothing.
export QEMU_CPU=cortex-a57
# It would make Python compare hashes of its files at every start.
unset SOURCE_DATE_EPOCH || true

phase() { echo "armvm-phase: $*"; }
guest() { chroot "$root" "$@"; }

phase fetching packages
# shellcheck disable=SC2086  # a list of words
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -y --no-install-recommends \
    -o Acquire::Retries=3 -o APT::Sandbox::User=root -o Debug::NoLocking=1 \
    --download-only install '?essential' $ARMVM_PACKAGES

phase unpacking packages
# Merged /usr from the start: dpkg follows these links, and nothing has to be converted later.
for name in bin sbin lib; do
    mkdir -p "$root/usr/$name"
    [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"
done
essential=
others=
for deb in "$debs"/*.deb; do
    if [ "$(dpkg-deb -f "$deb" Essential)" = yes ]; then essential="$essential $deb"
    else others="$others $deb"; fi
done
# The scripts that run while packages are unpacked need the essential packages and what these
# depend on before anything is configured. Which libraries that are changes from release to
# release, so take them all.
for deb in $essential "$debs"/lib*.deb "$debs"/zlib*.deb "$debs"/gcc-*.deb "$debs"/mawk_*.deb "$debs"/debconf_*.deb; do
    [ ! -e "$deb" ] || echo "$deb"
done | xargs -P "$(nproc)" -I{} sh -c \
    'dpkg-deb --fsys-tarfile "$1" | tar -C "$2" --keep-directory-symlink -xf -' sh {} "$root"
# The host's dpkg takes the guest's packages for foreign and their dependencies for unmet. That
# does no harm here, and the guest's own dpkg settles it when it configures them.
# shellcheck disable=SC2086
dpkg --root="$root" --force-unsafe-io --force-depends --force-architecture \
    --path-exclude='/usr/share/man/*' --unpack $essential $others
rm -f "$debs"/*.deb

# mmdebstrap mounts these only where their directories exist from the beginning, and unpacking
# base-files over them would fail. They vanish with the mount namespace at the latest.
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
