# Makes a booted machine into an image for many: $1 is the user it was tuned by. Runs as root, with
# nobody logged in, and tells on the serial console how it ended. What is switched off can be
# switched on again in a machine (systemctl enable apt-daily-upgrade.timer).
set -eu
trap '[ $? = 0 ] || echo "armvm-tune: failed"' EXIT
exec >/dev/ttyAMA0 2>&1 </dev/null
sleep 2

if [ -d /run/systemd/system ]; then
    for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer \
        dpkg-db-backup.timer motd-news.timer fwupd-refresh.timer ua-timer.timer \
        update-notifier-download.timer update-notifier-motd.timer apport-autoreport.timer \
        unattended-upgrades.service pollinate.service e2scrub_reap.service \
        snapd.service snapd.socket snapd.seeded.service snapd.apparmor.service \
        snapd.autoimport.service snapd.core-fixup.service snapd.system-shutdown.service \
        snapd.snap-repair.timer
    do
        if systemctl is-enabled --quiet "$unit" 2>/dev/null; then
            systemctl disable --quiet --now "$unit"
        fi
    done
fi

# One kind of host key, and one place where cloud-init looks.
cat >/etc/cloud/cloud.cfg.d/95-armvm-tuned.cfg <<'CFG'
ssh_genkeytypes: [ed25519]
datasource_list: [NoCloud, None]
CFG

# Nothing of this machine and of its user may be in another.
pkill -KILL -u "$1" || true
sleep 1
userdel --force --remove "$1" || [ $? = 12 ]    # 12: there is no mail of his to be removed
rm -f /etc/sudoers.d/90-cloud-init-users
cloud-init clean --logs
rm -rf /var/lib/cloud
rm -f /etc/ssh/ssh_host_* /etc/netplan/50-cloud-init.yaml /var/lib/systemd/random-seed
rm -f /etc/network/interfaces.d/50-cloud-init* /etc/NetworkManager/system-connections/cloud-init-*
# journald would write its directory anew while the machine shuts down.
journalctl --relinquish-var 2>/dev/null || true
rm -rf /var/lib/dhcp/* /var/lib/NetworkManager/*.lease /var/log/journal/* /root/.ssh /root/.cache
find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 -exec rm -rf {} + || true
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
: >/etc/machine-id
if command -v apt-get >/dev/null; then apt-get clean; fi
if command -v dnf >/dev/null; then dnf clean packages; fi

fstrim -a || true
sync
echo "armvm-tune: done"
sleep 1
systemctl poweroff 2>/dev/null || poweroff
