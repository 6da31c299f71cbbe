# Lends the guest's root the host's shell and small tools while packages are configured.
#
# Starting one emulated program takes 30 ms, and maintainer scripts start thousands. The kernel
# runs the host's programs in the guest's root just as well, once their loader and libraries lie
# there under the same names: names that a root of another architecture does not use itself.
borrowed=        # paths of the guest's programs that have been moved aside
lent=            # files put there
links=           # top-level links made for them

lend() { # lend FILE: put a file of the host under the same name
    case $1 in /usr/*) place=$1 ;; *) place=/usr$1 ;; esac
    [ ! -e "$root$place" ] || return 0
    top=${place#/usr/}
    top=${top%%/*}
    # Debian insists that a top-level directory of libraries is a link into /usr.
    if [ "/usr$1" = "$place" ] && [ ! -e "$root/$top" ]; then
        ln -s "usr/$top" "$root/$top"
        links="$links /$top"
    fi
    mkdir -p "$root${place%/*}"
    cp -L "$1" "$root$place"
    lent="$lent $place"
}

borrow() { # borrow PROGRAM
    own=$(command -v "$1") || return 0
    own=$(readlink -f "$own")
    for dir in /usr/bin /usr/sbin; do
        place=$dir/$1
        if [ ! -f "$root$place" ] || [ -L "$root$place" ]; then continue; fi
        libraries=$(ldd "$own" 2>/dev/null | tr -s ' \t' '\n' | grep '^/') || return 0
        for library in $libraries; do lend "$library"; done
        place=$dir/$1
        mv "$root$place" "$root$place.guest"
        cp "$own" "$root$place"
        borrowed="$borrowed $place"
        return 0
    done
}

give_back() {
    for place in $borrowed; do mv -f "$root$place.guest" "$root$place"; done
    for file in $lent; do
        rm -f "$root$file"
        # Directories made for it go too, as soon as they are empty.
        rmdir -p --ignore-fail-on-non-empty "$root${file%/*}" 2>/dev/null || true
    done
    for link in $links; do rm -f "$root$link"; done
    borrowed=
    lent=
    links=
}

# Nothing here may tell a script which machine it runs on (uname, arch, dpkg), and nothing may
# be a program that an initramfs takes in; 50-finish.sh checks the latter.
if [ "$ARMVM_EMULATED" = yes ]; then
    # This one removes /lib64 where no package of the guest owns it.
    guest dpkg --force-unsafe-io --configure usr-is-merged
    for program in dash bash sed grep mawk find xargs gzip zstd \
        basename cat chgrp chmod chown comm cp cut date dirname env expr head id \
        install join ln ls md5sum mkdir mktemp mv paste readlink realpath rm rmdir \
        sha1sum sha256sum sha512sum sort stat tail tee touch tr uniq wc
    do
        borrow "$program"
    done
    works=$(chroot "$root" /usr/bin/dash -c 'echo yes | sed s/y/Y/ | grep Yes | cut -c 1-3' 2>&1) || true
    if [ "$works" != Yes ]; then
        echo "the host's shell does not run in the guest's root: $works"
        give_back
    fi
fi
