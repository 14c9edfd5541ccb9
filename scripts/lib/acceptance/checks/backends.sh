# Storages on filesystems that can do less than ext4, which the world has mounted under /mnt/on.

# storage DIRECTORY [PROGRAM] : podman works with an empty storage there, until the check ends.
storage() {
    elsewhere=$1 program=${2:-$PROGRAM}
    mkdir "$elsewhere"
    podman() {
        local given=(--storage-opt "overlay.mount_program=$program")
        [ "$NAME" != kernel ] || given=()
        command podman --root "$elsewhere" --runroot "$XDG_RUNTIME_DIR/elsewhere" "${given[@]}" "$@"
    }
}

# podman keeps a mount upon its storage, which a cleanup that is under way makes again.
finished() { eventually podman unshare sh -c 'umount -l "$0/overlay" 2>/dev/null; rm -rf "$0"' "$elsewhere"; }

# A container's changes of every kind are there after a new start, in a commit, and in an image that is built upon it.
# Its FIFO is named where there can be none.
keeps_everything() {
    local fifo=${1-mkfifo /dir/fifo}
    podman import -q -c CMD=sh "$GROUND/busybox.tar" box
    start c box
    podman exec c sh -ec '
        echo new > /new; mkdir -p /dir/sub; echo x > /dir/sub/file; ln /dir/sub/file /dir/hard; ln -s file /dir/sub/link
        chmod 4755 /dir/hard; chown 5:6 /dir/sub/link /dir; '"$fifo"'
        rm /bin/yes; rm -r /usr; mkdir /usr; echo again > /usr/file; mkdir /tmp/d; mv /tmp/d /tmp/e
        mv /var /moved; echo "# more" >> /etc/passwd; chmod 700 /root; rm /moved/* 2>/dev/null || true'
    podman exec c sh -c "$LISTING" >before
    podman stop -t 0 c >/dev/null
    podman start c >/dev/null
    podman exec c sh -c "$LISTING" | diff before -
    has "$(podman diff c)" '^D /bin/yes'
    podman commit -q c committed
    in_image committed "$LISTING" | diff before -
    printf 'FROM committed\nRUN rm /new; rm -r /dir; mkdir /dir; mv /usr /again\n' >Containerfile
    podman build -q --network=none --layers -t built .
    is "built upon it" "again" "$(in_image built 'echo $(ls /dir; ls -d /new /usr /again 2>/dev/null | tr -d /)')"
}

check_storage_on_tmpfs() {
    storage "/mnt/on/tmpfs/$NAME"
    keeps_everything
}

check_storage_on_the_kernels_overlay() {
    # It has no overlays of its own in a user namespace.
    [ "$NAME" != kernel ] || return 0
    storage "/mnt/on/overlay/$NAME"
    keeps_everything
}

# As on NFS.
check_storage_without_extended_attributes() {
    [ "$NAME" != kernel ] || return 0
    refused setfattr -n user.a -v b /mnt/on/ramfs >/dev/null
    storage "/mnt/on/ramfs/$NAME"
    keeps_everything
}

# refuses ERROR CALL... : a mount program to which these system calls are refused.
refuses() {
    printf '#!/bin/sh\nexec /mnt/lib/refusing %s -- %s "$@"\n' "$*" "$PROGRAM" >limited
    chmod +x limited
}

check_storage_without_device_nodes() {
    [ "$NAME" != kernel ] || return 0
    refuses EPERM mknod mknodat
    storage "$PWD/storage" "$PWD/limited"
    keeps_everything ''
}

check_storage_without_device_nodes_and_extended_attributes() {
    [ "$NAME" != kernel ] || return 0
    refuses EOPNOTSUPP mknod mknodat setxattr lsetxattr fsetxattr setxattrat
    storage "$PWD/storage" "$PWD/limited"
    keeps_everything ''
}
