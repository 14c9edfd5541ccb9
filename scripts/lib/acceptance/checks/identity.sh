# Owners: maps of any shape, and owners that are stored in attributes.

# owned OPTION... : what a container with this map shows of an image's owners, and of what it makes itself.
owned() {
    box 'mkdir -p /tmp/d; echo x > /tmp/d/f; mkfifo /tmp/d/p; ln -s f /tmp/d/l
        echo $(id -u) $(stat -c %u:%g /bin/busybox) $(stat -c %u:%g /tmp/d /tmp/d/f /tmp/d/p /tmp/d/l | sort -u)' "$@"
}

# Files of user 1000 in an image called owners.
owners() {
    printf 'FROM box\nRUN mkdir /of; for id in 1 42 1000 2500; do echo $id > /of/$id; chown $id:$id /of/$id; done\n' >Containerfile
    podman build -q --network=none -t owners .
}

check_userns_keep_id() {
    owners
    is "owners" "42424 0:0 42424:42424" "$(owned --userns=keep-id)"
    is "others" "1 42 1000 2500" "$(in_image owners 'echo $(stat -c %u /of/1 /of/42 /of/1000 /of/2500)' --userns=keep-id)"
    has "$(refused in_image owners 'echo x >> /of/1000' --userns=keep-id)" 'Permission denied'
    in_image owners 'echo x >> /of/1000' --userns=keep-id --user 1000
    in_image owners 'echo x >> /of/1000; chown 2500 /of/1; stat -c %u /of/1 | grep -x 2500' --userns=keep-id --user 0
}

check_userns_auto() {
    owners
    is "owners" "0 0:0 0:0" "$(owned --userns=auto)"
    is "others" "1 42 1000 2500" "$(in_image owners 'echo $(stat -c %u /of/1 /of/42 /of/1000 /of/2500)' --userns=auto:size=3000)"
    in_image owners 'chown 42 /of/1; echo x >> /of/1; stat -c %u /of/1 | grep -x 42' --userns=auto:size=3000
}

check_userns_nomap() {
    is "owners" "0 0:0 0:0" "$(owned --userns=nomap)"
}

check_map_of_one_id() {
    owners
    is "owners" "0 0:0 0:0" "$(owned --uidmap 0:0:1 --gidmap 0:0:1)"
    start c box --uidmap 0:0:1 --gidmap 0:0:1
    [ "$NAME" = kernel ] || has "$(tr '\0' ' ' <"/proc/$(daemon c)/cmdline")" 'squash_to_uid=|uidmapping=0:0:1(,| )'
    # Everything belongs to the one there is.
    is "others" "0 0" "$(in_image owners 'echo x >> /of/1000; chown 1:1 /of/1 2>/dev/null || true; echo $(stat -c %u /of/1 /of/1000)' --uidmap 0:0:1 --gidmap 0:0:1)"
}

check_map_with_holes() {
    owners
    local holes=()
    for kind in uid gid; do
        holes+=("--${kind}map" 0:0:1 "--${kind}map" 1:101:40 "--${kind}map" 42:10000:1 "--${kind}map" 1000:5000:500 "--${kind}map" 2500:20000:10)
    done
    is "owners" "0 0:0 0:0" "$(owned "${holes[@]}")"
    is "others" "1 42 1000 2500" "$(in_image owners 'echo $(stat -c %u /of/1 /of/42 /of/1000 /of/2500)' "${holes[@]}")"
    in_image owners 'chown 1001:2505 /of/1; echo $(stat -c %u:%g /of/1) | grep -x 1001:2505' "${holes[@]}"
    refused in_image owners 'chown 2000 /of/1' "${holes[@]}"
}

# unioned COMMANDS OPTION... : in a namespace of all ids, with a union at m over low, which `before` makes.
unioned() {
    local commands=$1
    shift
    unshare -Um --map-auto --map-root-user bash -Eeuc 'trap "echo failed: \$BASH_COMMAND" ERR
        mkdir low up work m; '"$before"'
        again() { ! mountpoint -q m || umount m; "$PROGRAM" -o "lowerdir=low,upperdir=up,workdir=work$OPTIONS" m; }
        OPTIONS=$(printf ",%s" "$@"); again
        '"$commands"'
        umount m; rm -r low up work m' unioned "$@"
}
before='echo f > low/f; chown 50:50 low/f; echo k > low/k; chown 3:4 low/k; mkdir low/d; chown 5:6 low/d'
export -f is refused fail

check_map_hides_ids_that_it_does_not_know() {
    [ "$NAME" != kernel ] || return 0
    unioned 'is shown "65534:65534 1003:2004 1005:2006" "$(echo $(stat -c %u:%g m/f m/k m/d))"
        for id in 50 1010 65534; do refused chown $id m/k; refused chgrp $id m/k; done
        chmod 600 m/f; is kept 50:50:600 "$(stat -c %u:%g:%a up/f)"
        chown 1009:2009 m/f; is stored 9:9 "$(stat -c %u:%g up/f)"
        mkdir m/new; chown 1000:2000 m/new; is stored 0:0 "$(stat -c %u:%g up/new)"
        again; is again "1009:2009 1000:2000" "$(echo $(stat -c %u:%g m/f m/new))"' \
        uidmapping=0:1000:10 gidmapping=0:2000:10
}

check_map_is_that_of_access_lists_too() {
    [ "$NAME" != kernel ] || return 0
    before+='; setfacl -m u:3:r,g:4:rw low/k'
    unioned 'is shown "user:1003:r-- group:2004:rw-" "$(echo $(getfacl -cnp m/k | grep :.*[0-9]:))"
        setfacl -m u:1007:rwx m/f; is stored "user:7:rwx" "$(getfacl -cnp up/f | grep :7:)"
        refused setfacl -m u:50:r m/f' \
        uidmapping=0:1000:10 gidmapping=0:2000:10
}

check_squash_of_owners() {
    [ "$NAME" != kernel ] || return 0
    unioned 'mkdir m/new; is shown 77:88 "$(stat -c %u:%g m/f m/k m/d m/new | sort -u)"
        echo x >> m/k; is kept 3:4 "$(stat -c %u:%g up/k)"' squash_to_uid=77 squash_to_gid=88
    unioned 'is shown 0:0 "$(stat -c %u:%g m/f m/k m/d | sort -u)"' squash_to_root
}

check_map_and_commit() {
    start c box --userns=keep-id --user 0
    podman exec c sh -ec 'echo x > /f; chown 42:1000 /f; rm -r /usr; mkdir /usr; ln /f /g'
    # podman of Debian 12 commits the owners that a mount program shows, if the container has it mounted with its map.
    podman stop -t 0 c >/dev/null
    podman commit -q c mapped
    is "owners" "42:1000 2" "$(in_image mapped 'stat -c "%u:%g %h" /f; ls /usr')"
    podman rmi -f mapped >/dev/null
}

# A storage of its own whose files are all of one mode and owner on disk.
check_force_mask() {
    [ "$NAME" != kernel ] || return 0
    podman() {
        command podman --root "$PWD/masked" --runroot "$XDG_RUNTIME_DIR/masked" --storage-opt "overlay.mount_program=$PROGRAM" \
            --storage-opt overlay.force_mask=0755 "$@"
    }
    podman import -q "$GROUND/busybox.tar" box
    start c box
    has "$(tr '\0' ' ' <"/proc/$(daemon c)/cmdline")" 'xattr_permissions=2'
    is "the mode on disk" "755" "$(command podman unshare sh -c 'stat -c %a masked/overlay/*/diff/etc/passwd')"
    podman exec c sh -ec 'echo x > /f; chmod 640 /f; chown 5:6 /f; mkdir -m 2770 /d; chown 7:8 /d; mkfifo -m 622 /p; ln -s f /l
        chmod 4700 /bin/busybox; chown 11:12 /etc/group; touch /d/in'
    podman exec c sh -c "$LISTING" >before
    has "$(cat before)" '/f regular file 640 5:6'
    has "$(cat before)" '/d directory 2770 7:8'
    has "$(cat before)" '/p fifo 622 0:0'
    has "$(cat before)" '/l symbolic link 777 0:0'
    has "$(cat before)" '/d/in .* 644 0:8'
    podman stop -t 0 c >/dev/null
    podman start c >/dev/null
    podman exec c sh -c "$LISTING" | diff before -
    # podman cannot give the attribute to a FIFO.
    podman exec c rm /p
    podman exec c sh -c "$LISTING" >before
    podman commit -q c masked
    # Neither does it keep set-id and sticky bits in such a storage.
    in_image masked "$LISTING" >after
    sed -i 's/ [1-7]\([0-7]\{3\} [0-9]*:\)/ \1/' before after
    diff before after
    podman rm -f -t 0 c >/dev/null
    podman rmi -f -a >/dev/null
}
