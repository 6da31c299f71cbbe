# Finishes a board's root file system, after the packages of a machine were installed. The first
# argument is the end of /etc/fstab; the others are the services to mask.
kept=/var/cache/armvm-board
for file in hosts hostname default/locale; do
    [ ! -e "$kept/${file##*/}" ] || cp -a "$kept/${file##*/}" "/etc/$file"
done
rm -rf "$kept"
printf '%s' "$1" >> /etc/fstab
shift
for unit in "$@"; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done

# Boards enable ssh in their first boot, by a file on the boot partition.
systemctl --quiet enable ssh.service
# A board's cloud-init may be off, may have run, or may look for its seed on the boot partition.
rm -rf /etc/cloud/cloud-init.disabled /var/lib/cloud
cat > /etc/cloud/cloud.cfg.d/zz-armvm-board.cfg <<'END'
datasource_list: [ NoCloud, ConfigDrive, OpenStack, None ]
datasource:
  NoCloud:
    seedfrom: null
END
