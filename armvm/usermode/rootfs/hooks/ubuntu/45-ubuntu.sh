# What Ubuntu's packages do otherwise than Debian's, after 40-settings.sh.
write /etc/hostname <<'END'
ubuntu
END
# The file that vouched for the archive may have been the host's alone.
for file in "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*; do
    [ ! -f "$file" ] ||
        sed -i 's|signed-by=[^] ]*|signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg|' "$file"
done
# Ubuntu keeps its two links on the newest kernel in /boot.
for name in vmlinuz initrd.img; do
    [ -L "$root/$name" ] || ln -s "boot/$name" "$root/$name"
done
sed -i 's|^menuentry .*|menuentry "Ubuntu" {|' "$root/boot/grub/grub.cfg"
