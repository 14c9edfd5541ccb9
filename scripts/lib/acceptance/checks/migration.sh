# Storages that fuse-overlayfs has written.

# goes_on FUSE_OVERLAYFS : images and containers made with it continue, and it can have them back.
goes_on() {
    program=$1
    podman() {
        command podman --root "$PWD/storage" --runroot "$XDG_RUNTIME_DIR/migration" --storage-opt "overlay.mount_program=$program" "$@"
    }
    podman import -q "$GROUND/busybox.tar" box
    printf 'FROM box\nRUN rm /bin/yes; rm -r /usr; mkdir /usr; echo image > /usr/new; ln /usr/new /usr/hard\n' >Containerfile
    podman build -q --network=none --layers -t old .
    start c old
    podman exec c sh -ec 'rm /bin/tail /bin/tr; rm -r /var; mkdir /var; echo c > /var/c; ln /var/c /c; chown 5:6 /c; chmod 4711 /c
        mkdir /bin/tr; mv /usr /moved; echo more >> /etc/passwd; mkfifo /p; ln -s c /l; rm /etc/group'
    podman exec c sh -c "$LISTING" >before
    podman stop -t 0 c >/dev/null

    program=$PROGRAM
    podman start c >/dev/null
    podman exec c sh -c "$LISTING" | diff before -
    podman commit -q c new
    in_image new "$LISTING" | diff before -
    podman exec c sh -ec 'rm -r /moved; mkdir /moved; rm /c; echo again > /bin/tail; rmdir /bin/tr; rm /bin/xargs; echo y >> /etc/passwd'
    podman exec c sh -c "$LISTING" >after
    podman stop -t 0 c >/dev/null
    podman build -q --network=none --layers -t old . >again
    is "the image from the cache" "$(podman images -q --no-trunc old)" "sha256:$(cat again)"

    program=$1
    podman start c >/dev/null
    podman exec c sh -c "$LISTING" >back
    # Its link counts are those of the layers.
    diff <(cut -d' ' -f1-5 after) <(cut -d' ' -f1-5 back)
    podman rm -f -a -t 0 >/dev/null
    podman rmi -f -a >/dev/null
}

check_storage_of_fuse_overlayfs_1_10_goes_on() {
    goes_on "$(command -v fuse-overlayfs)"
}

check_storage_of_fuse_overlayfs_2_0_0_goes_on() {
    [ -x /mnt/peer/fuse-overlayfs ] || return 0
    goes_on /mnt/peer/fuse-overlayfs
}
