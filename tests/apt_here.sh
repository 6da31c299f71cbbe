# shellcheck shell=bash
# How this machine's apt gets its packages, for root file systems that tests make: sourced.

# The Debian mirror that this machine uses; Debian's own where it uses none.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
        sed -nE 's/^(URIs: *|deb +(\[[^]]*\] +)?)([a-z]+:[^ ]*\/debian)\/?( .*)?$/\3/p' |
        grep . || echo http://deb.debian.org/debian
}

# How this machine's apt reaches it: proxies, and mirrors whose index has grown old.
apt_settings() {
    apt-config dump Acquire | grep -E '^Acquire::(https?|Check-Valid-Until|Check-Date)\b' || true
    echo 'APT::Install-Recommends "false";'
    echo 'Acquire::Languages "none";'
}
