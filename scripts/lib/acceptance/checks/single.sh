# A user who has one id only, and ignore_chown_errors.

given_an_image_with_other_owners() {
    podman load -q -i "$GROUND/layers.tar" >/dev/null
    podman import -q "$GROUND/busybox.tar" box
}

check_single_id_run_and_chown() {
    is "owners" "0:0" "$(box 'echo x > /f; chown 0:0 /f; stat -c %u:%g /f')"
}

check_single_id_build() {
    printf 'FROM box\nRUN echo x > /f; rm /bin/yes; rm -r /usr; mkdir /usr\nCOPY Containerfile /copied\n' >Containerfile
    podman build -q --network=none --layers -t single .
    is "built" "x 0" "$(in_image single 'echo $(cat /f) $(ls /usr; ls /bin/yes 2>/dev/null) $(stat -c %u /copied)')"
}

check_single_id_image_with_foreign_owners() {
    has "$(podman info)" 'ignore_chown_errors: "true"'
    mkdir tree && tar -C tree -xf "$GROUND/busybox.tar"
    tar -C tree --owner=33 --group=44 -cf foreign.tar .
    podman import -q foreign.tar foreign
    is "written" y "$(in_image foreign 'echo y > /etc/passwd; cat /etc/passwd')"
}
