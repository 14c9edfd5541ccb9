# Unions that the root of a user namespace mounts without podman.

# union : mounts up over low at m, in the namespace it is called in. Exported to the shells of namespaces.
union() {
    if [ "$NAME" = kernel ]; then
        mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work,userxattr m
    else
        "$PROGRAM" -o lowerdir=low,upperdir=up,workdir=work m
        grep -q " $PWD/m .* - fuse" /proc/self/mountinfo
    fi
}

# changed : every kind of change, which a second mount shows again.
changed() {
    mkdir -p low/d low/gone up work m
    echo 1 >low/d/f && echo x >low/gone/x && echo l >low/file && echo deleted >low/deleted
    union
    echo new >m/new && rm -r m/gone && mkdir m/gone && echo more >>m/file && mkfifo m/p && ln m/new m/hard && ln -s new m/l
    mv m/d m/moved && rm m/deleted && chmod 4750 m/new && setfattr -n user.a -v b m/file
    listed >before
    umount m
    union
    listed | diff before -
    umount m
    [ "$(wc -l <before)" = 12 ]
}
listed() { (cd m && find . -printf '%p %y %m %U:%G ' \( -type d -printf '\n' -o -printf '%n %l\n' \) | sort && cat file moved/f && getfattr --absolute-names -n user.a file >/dev/null); }
export -f union changed listed refused fail

check_namespace_of_one_id() {
    unshare -Urm bash -euc 'changed; union; refused chown 1 m/new; chown 0:0 m/new; umount m'
}

# What a root with all ids does: owners of every kind, and programs that change theirs.
ranges='changed; union; chown 5:6 m/new; chown -h 7:8 m/l; chown 65535 m/gone; chmod 2775 m/gone; chgrp 9 m/gone
    setpriv --reuid 5 --regid 6 --clear-groups sh -c "echo mine >> m/new"
    refused setpriv --reuid 6 --regid 7 --clear-groups sh -c "echo not >> m/new"
    touch m/gone/in; [ "$(stat -c %u:%g m/gone/in)" = 0:9 ]
    refused chown 400000 m/new
    umount m; union
    [ "$(stat -c %u:%g m/new m/l m/gone | xargs)" = "5:6 7:8 65535:9" ]; umount m; rm -r low up work'

check_namespace_of_all_ids() {
    unshare -Um --map-auto --map-root-user bash -euc "$ranges"
}

# inner IDS COMMANDS : in a namespace of the ids 0 to IDS of the one it is called in.
inner() {
    local pid map
    # The maps of the namespace of a process are written from outside.
    unshare -Um bash -c 'until grep -q . /proc/self/uid_map && grep -q . /proc/self/gid_map; do sleep 0.01; done
        exec setpriv --reuid 0 --regid 0 --clear-groups bash -euc "$0"' "$2" &
    pid=$!
    until [ "$(readlink "/proc/$pid/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
    # A line may not reach over the end of one of the outer map, which has a line for root alone.
    map=$(printf '0 0 1\n' && [ "$1" = 1 ] || printf '1 1 %d\n' $(($1 - 1)))
    # It is written at once, as the shell itself does not.
    cat <<<"$map" >"/proc/$pid/uid_map"
    cat <<<"$map" >"/proc/$pid/gid_map"
    wait "$pid"
}
export -f inner

check_namespace_in_a_namespace() {
    unshare -Um --map-auto --map-root-user bash -euc 'chmod 777 .; inner 65536 "$0"; inner 1 changed; rm -r low up work' "$ranges"
    # The layers of the inner union are in the outer one.
    mkdir -p outer/low outer/up outer/work outer/m
    unshare -Um --map-auto --map-root-user bash -euc 'cd outer; union; cd m; chmod 777 .; inner 65536 "$0"; unshare -Urm bash -euc changed
        cd ..; umount -l m; rm -r ../outer' "$ranges"
}

# /proc as containers have it, with only what belongs to processes, and read-only.
check_namespace_with_a_masked_proc() {
    unshare -Urmpf bash -euc 'mount -t proc -o subset=pid proc /proc; mount -o remount,ro,bind /proc; refused ls /proc/sys; changed'
}
