# The same programs as root, with the configuration for root.

given_an_image_of_busybox_for_root() {
    podman import -q -c CMD=sh "$GROUND/busybox.tar" box
}

check_root_run() {
    has "$(box "grep ' / / ' /proc/self/mountinfo")" "$([ "$NAME" = kernel ] && echo overlay || echo "fuse.${PROGRAM##*/}")"
}

check_root_commit_keeps_everything() {
    start c box
    podman exec c sh -ec 'rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g; mkfifo /p; mknod /null c 1 3; mknod /disk b 7 200'
    podman exec c sh -c "$LISTING" >before
    podman commit -q c committed
    in_image committed "$LISTING" >after
    diff before after
    has "$(cat after)" '/null character special file'
    has "$(podman diff c)" '^D /bin/yes'
    podman rm -f -t 0 c >/dev/null
    podman rmi -f committed >/dev/null
}

check_root_build() {
    printf 'FROM box\nRUN echo 1 > /1; rm /bin/yes\nRUN rm /1; rm -r /usr; mkdir /usr; echo new > /usr/new\n' >Containerfile
    podman build -q --isolation chroot --layers -t built .
    is "built" "new" "$(in_image built 'echo $(ls -d /1 /bin/yes 2>/dev/null) $(ls /usr)')"
    podman rmi -f built >/dev/null
}

check_root_buildah() {
    local container
    container=$(buildah from box)
    echo text >"$(buildah mount "$container")/file"
    buildah run --isolation chroot "$container" sh -c 'cat /file; rm /bin/yes'
    buildah umount "$container"
    buildah commit -q "$container" frommount
    buildah rm "$container" >/dev/null
    is "the file" text "$(in_image frommount '[ ! -e /bin/yes ]; cat /file')"
    podman rmi -f frommount >/dev/null
}
