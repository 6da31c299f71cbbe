# Configures all packages with the guest's own dpkg.

stubs=
stub() { # stub PROGRAM [COMMAND]: stand in for a program for as long as packages are configured
    [ -e "$root$1" ] || return 0
    mv "$root$1" "$root$1.real"
    printf '#!/bin/sh\n%s\nexit 0\n' "${2:-}" > "$root$1"
    chmod 755 "$root$1"
    stubs="$stubs $1"
}
unstub() {
    for place in $stubs; do mv -f "$root$place.real" "$root$place"; done
    stubs=
}

byte_compile() { # byte_compile DIRECTORY…: paths in the guest
    compiler=
    magic=$(guest python3 -c 'import importlib.util as u; print(u.MAGIC_NUMBER.hex())')
    for candidate in $ARMVM_PYTHONS; do
        found=$("$candidate" -c 'import importlib.util as u; print(u.MAGIC_NUMBER.hex())' \
            2>/dev/null) || continue
        if [ "$found" = "$magic" ]; then compiler=$candidate; break; fi
    done
    # Files compiled by whichever Python has this magic number are the same on every
    # architecture. The time stamps of the sources are in them and have to survive.
    if [ -n "$compiler" ]; then
        for dir in "$@"; do
            [ ! -e "$root$dir" ] || "$compiler" -I -m compileall -q -j 0 \
                --invalidation-mode timestamp -s "$root" -p / "$root$dir"
        done
    else
        echo "no Python here has the guest's magic number $magic: compiling under emulation"
        # Not by compileall's own workers: they hang under qemu-user.
        guest find "$@" -name '*.py' | guest xargs -P "$(nproc)" -n 100 \
            python3 -I -m compileall -q --invalidation-mode timestamp
    fi
}

phase configuring packages
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
stub /usr/sbin/start-stop-daemon
stub /usr/sbin/update-initramfs              # once, at the end
stub /usr/sbin/update-ca-certificates        # once, at the end
# shellcheck disable=SC2016  # expanded by the stub
stub /usr/bin/py3compile 'echo "$@" >> /.py3compile'
stub /usr/bin/py3clean
stub /usr/bin/ssh-keygen                     # each machine makes or gets its own host keys
stub /usr/sbin/grub-install                  # there is no disk yet
stub /usr/sbin/update-grub
for file in "$root"/usr/lib/python3.*/py_compile.py; do
    # Run by the interpreter's own maintainer script, over the whole standard library.
    place=${file#"$root"}
    mv "$file" "$file.real"
    : > "$file"
    stubs="$stubs $place"
done
guest dpkg --force-unsafe-io --configure -a
unstub
rm -f "$root/usr/sbin/policy-rc.d"
