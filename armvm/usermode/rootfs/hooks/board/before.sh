# Prepares a board's root file system, before the packages of a machine are installed. The
# arguments are the versions of the board's own kernels, which do not boot on a virtual machine.
# They are removed, because GRUB starts the newest kernel there is.
kept=/var/cache/armvm-board
rm -rf "$kept"
mkdir -p "$kept"
for file in hosts hostname default/locale; do
    [ ! -e "/etc/$file" ] || cp -a "/etc/$file" "$kept/${file##*/}"
done

owners() {
    for version in "$@"; do
        dpkg-query -S "/lib/modules/$version" "/usr/lib/modules/$version" \
            "/boot/vmlinuz-$version" 2>/dev/null || true
    done | grep -v '^diversion' | sed 's|: /.*||; s/, /\n/g' | sort -u
}

phase removing the board\'s kernels
packages=$(owners "$@")
if [ -n "$packages" ]; then
    # Their scripts may ask whether to remove the running kernel, which is the host's.
    # shellcheck disable=SC2086  # a list of words
    apt-get -q -y -o Dpkg::Options::=--force-unsafe-io purge $packages
fi
for version in "$@"; do
    rm -rf "/lib/modules/$version" "/boot/vmlinuz-$version" "/boot/initrd.img-$version" \
        "/boot/config-$version" "/boot/System.map-$version"
done
