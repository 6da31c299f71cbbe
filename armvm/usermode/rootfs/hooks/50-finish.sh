# What was put off, each once; then a look at whether everything is as it should be.
phase generating the initramfs and certificate links
for kernel in "$root"/lib/modules/*; do
    guest update-initramfs -c -k "${kernel##*/}"
done &
initramfs=$!
guest update-ca-certificates &
certificates=$!
dirs=$(cd "$root" && echo usr/lib/python3*)
private=$(tr ' ' '\n' < "$root/.py3compile" 2>/dev/null | grep '^/' | sort -u) || true
# shellcheck disable=SC2046,SC2086  # lists of words
byte_compile $(for dir in $dirs; do echo "/$dir"; done) $private
rm -f "$root/.py3compile"
wait $initramfs
wait $certificates

phase checking the initramfs
check=$root/initrd-check
for file in "$root"/boot/vmlinuz-*; do
    version=${file##*/vmlinuz-}
    guest unmkinitramfs "/boot/initrd.img-$version" /initrd-check
    for name in init virtio_blk.ko ext4.ko; do
        [ -n "$(find "$check" -name "$name*")" ] ||
            grep -q "/$name\$" "$root/lib/modules/$version/modules.builtin" ||
            { echo "no $name in the initramfs"; exit 1; }
    done
    if [ "$ARMVM_EMULATED" = yes ]; then
        # Borrowed programs must not have got in: ELF files for machine 0x3e, x86-64.
        foreign=$(LC_ALL=C grep -rlaP '^\x7fELF\x02\x01\x01[\x00-\xff]{9}[\x02\x03]\x00\x3e\x00' \
            "$check") || true
        [ -z "$foreign" ] || { echo "borrowed programs in the initramfs: $foreign"; exit 1; }
    fi
    rm -rf "$check"
done
give_back
umount "$root/proc"
umount -l "$root/sys"

phase checking the root file system
problems=$(guest dpkg --audit)$(dpkg-query --admindir="$root/var/lib/dpkg" -W \
    -f='${db:Status-Status} ${Package}\n' | grep -v '^installed ') || true
[ -z "$problems" ] || { echo "not installed: $problems"; exit 1; }
for file in /vmlinuz /initrd.img; do
    [ -e "$root$(readlink -f "$root$file" | sed "s|^$root||")" ] || { echo "no $file"; exit 1; }
done
left=$(find "$root" -xdev \( -name '*.guest' -o -name '*.real' -o -name 'ssh_host_*' \) -print)
[ -z "$left" ] || { echo "left over: $left"; exit 1; }
uncompiled=$(find "$root"/usr/lib/python3*/ -xdev -name '*.py' | while read -r source; do
    name=${source##*/}
    set -- "${source%/*}/__pycache__/${name%.py}".cpython-*.pyc
    [ -e "$1" ] || echo "$source"
done | head -5)
[ -z "$uncompiled" ] || { echo "not byte-compiled: $uncompiled"; exit 1; }
