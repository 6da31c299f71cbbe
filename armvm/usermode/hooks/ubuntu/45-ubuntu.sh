# What Ubuntu's packages do otherwise than Debian's, after 40-settings.sh.
write /etc/hostname <<'END'
ubuntu
END
# Ubuntu keeps its two links on the newest kernel in /boot.
for name in vmlinuz initrd.img; do
    [ -L "$root/$name" ] || ln -s "boot/$name" "$root/$name"
done
sed -i 's|^menuentry .*|menuentry "Ubuntu" {|' "$root/boot/grub/grub.cfg"
