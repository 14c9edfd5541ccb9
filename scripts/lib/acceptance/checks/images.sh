# Images: built, of many layers, saved, sent and fetched.

given_an_image_of_debian() {
    podman import -q -c CMD=bash "$GROUND/debian.tar" debian
    has "$(debian 'cat /etc/os-release')" Debian
}

# A file of one line for each COPY.
context() {
    mkdir context
    cp /bin/busybox context
    echo one >context/one
}

check_image_from_scratch_with_busybox() {
    context
    cat >context/Containerfile <<-'END'
		FROM scratch
		COPY busybox /bin/busybox
		RUN ["/bin/busybox", "--install", "-s", "/bin"]
		ENTRYPOINT ["/bin/sh", "-c"]
	END
    podman build -q --network=none --layers -t scratchy context
    is "layers" 2 "$(podman inspect scratchy --format '{{len .RootFS.Layers}}')"
    is "what it says" hello "$(podman run --rm --network=none scratchy 'echo hello')"
    podman rmi -f scratchy >/dev/null
}

# The shape of quay.io/coreos/flannel:v0.14.0: seven layers, and six lines of history without one.
check_image_of_seven_layers_and_six_empty_ones() {
    context
    cat >context/Containerfile <<-'END'
		FROM scratch
		ADD busybox /bin/busybox
		CMD ["/bin/sh"]
		LABEL maintainer=nobody
		ENV FLANNEL_ARCH=amd64 PATH=/bin
		RUN ["/bin/busybox", "--install", "-s", "/bin"]
		RUN mkdir /opt && echo wireguard > /opt/tools
		COPY one /opt/bin/flanneld
		COPY one /opt/bin/mk-docker-opts.sh
		COPY one /iptables-wrapper-installer.sh
		RUN rm /iptables-wrapper-installer.sh && echo installed > /opt/iptables
		WORKDIR /
		EXPOSE 8472/udp
		ENTRYPOINT ["/bin/sh", "-c"]
	END
    podman build -q --network=none --layers -t seven context
    is "layers" 7 "$(podman inspect seven --format '{{range .RootFS.Layers}}{{println .}}{{end}}' | grep -c '^sha256:[0-9a-f]\{64\}$')"
    is "the form of RootFS" layers "$(podman inspect seven --format '{{.RootFS.Type}}')"
    podman history --format '{{.Size}}|{{.CreatedBy}}' seven >history
    is "lines of history" 13 "$(wc -l <history)"
    is "empty ones" 6 "$(podman inspect seven --format '{{range .History}}{{println .EmptyLayer}}{{end}}' | grep -c true)"
    has "$(head -1 history)" 'ENTRYPOINT'
    has "$(sed -n 10,13p history)" 'ENV|LABEL|CMD|ADD'
    podman save -q -o seven.tar seven
    podman rmi -f seven >/dev/null
    podman load -q -i seven.tar
    is "lines below the top, which have no image" 12 "$(podman history --no-trunc --format '{{.ID}}' seven | tail -n +2 | grep -c '<missing>')"
    is "what is there" "$(printf 'bin\niptables\ntools\nflanneld\nmk-docker-opts.sh')" "$(podman run --rm --network=none seven 'ls /opt /opt/bin | grep -v :; ls /iptables* 2>/dev/null' | grep .)"
    podman rmi -f seven >/dev/null
}

# containers/storage of Debian 12 refuses more than 127 layers below a container.
check_image_of_127_layers() {
    podman load -q -i "$GROUND/layers.tar" >/dev/null
    is "the union" "125 64" "$(many layers 'echo $(busybox cat /count) $(busybox ls /layer | busybox wc -l)')"
    podman run --name many --network=none layers /bin/busybox sh -c 'busybox rm /layer/124; echo x > /layer/new; busybox mv /layer /moved'
    podman commit -q many layers127 >/dev/null
    is "layers" 127 "$(podman inspect layers127 --format '{{len .RootFS.Layers}}')"
    is "on top of it" "64 x" "$(many layers127 'echo $(busybox ls /moved | busybox wc -l) $(busybox cat /moved/new)')"
    podman rm many >/dev/null
    podman rmi -f layers127 layers >/dev/null
}

many() { podman run --rm --network=none "$1" /bin/busybox sh -ec "$2"; }

check_build_with_several_stages() {
    context
    cat >context/Containerfile <<-'END'
		FROM box AS made
		RUN mkdir /out && echo made > /out/file && ln /out/file /out/hard && ln -s file /out/link && chmod 1711 /out/file
		FROM box AS middle
		COPY --from=made /out /middle
		RUN rm /middle/link && echo more >> /middle/file
		FROM box
		COPY --from=middle /middle /final
		COPY --from=made --chown=5:6 /out/link /final/
	END
    podman build -q --network=none -t staged context
    is "the last stage" "made more made 1711" "$(in_image staged 'echo $(cat /final/file /final/link) $(stat -c %a /final/file)')"
    podman rmi -f staged >/dev/null
}

check_build_uses_its_cache() {
    context
    printf 'FROM box\nRUN date +%%N > /when\nCOPY one /one\nRUN rm -r /usr && mkdir /usr\n' >context/Containerfile
    podman build -q --network=none --layers -t first context
    when=$(in_image first 'cat /when')
    podman build --network=none --layers -t second context >log
    is "steps from the cache" 3 "$(grep -c 'Using cache' log)"
    is "the cached step" "$when" "$(in_image second 'cat /when')"
    echo two >context/one
    podman build --network=none --layers -t third context >log
    is "steps from the cache" 1 "$(grep -c 'Using cache' log)"
    is "the new file" "$when two" "$(in_image third 'echo $(cat /when /one) $(ls /usr)')"
    podman rmi -f first second third >/dev/null
}

check_build_without_layers_and_squashed() {
    context
    printf 'FROM box\nRUN echo 1 > /1; rm /bin/yes\nRUN echo 2 > /2; rm /1; rm -r /usr; mkdir /usr; echo new > /usr/new\n' >context/Containerfile
    local how
    for how in --layers=false --squash --squash-all; do
        podman build -q --network=none "$how" -t how context
        is "built with $how" "/2 new" "$(in_image how 'echo $(ls -d /1 /2 /bin/yes 2>/dev/null) $(ls /usr)')"
        podman rmi -f how >/dev/null
    done
}

check_build_with_mounts() {
    context
    cat >context/Containerfile <<-'END'
		FROM box
		RUN --mount=type=bind,src=one,target=/mounted cp /mounted /copied
		RUN --mount=type=cache,target=/cache echo x > /cache/file; mkdir /kept; cp /cache/file /kept
		RUN --mount=type=bind,from=box,src=/etc,target=/else cp /else/passwd /kept/
	END
    podman build -q --network=none -t mounts context
    is "copied" "one file passwd" "$(in_image mounts 'echo $(cat /copied) $(ls /kept) $(ls /cache)')"
    podman rmi -f mounts >/dev/null
}

# An image with every mark that a layer can have, called marked, and its listing.
marked() {
    start c box
    podman exec c sh -ec 'rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /usr/g; ln -s f /usr/l; mkfifo /usr/p; chmod 6755 /usr/f; chown -h 7:8 /usr/l'
    podman commit -q c marked
    podman rm -f -t 0 c >/dev/null
    in_image marked "$LISTING" >listing
}

check_save_and_load() {
    marked
    local form
    for form in docker-archive oci-archive; do
        podman save -q --format "$form" -o "$form.tar" marked
        podman rmi -f marked >/dev/null
        podman load -q -i "$form.tar"
        in_image marked "$LISTING" | diff listing -
    done
    podman rmi -f marked >/dev/null
}

# registry : one on 127.0.0.1:5000, until the check ends.
registry() {
    cat >registry.yml <<-END
		version: 0.1
		storage: {filesystem: {rootdirectory: $PWD/registry}}
		http: {addr: "127.0.0.1:5000"}
	END
    docker-registry serve registry.yml >registry.log 2>&1 &
    registry=$!
    eventually curl -sf http://127.0.0.1:5000/v2/ -o answer
}

check_registry_push_and_pull() {
    marked
    registry
    sent_and_fetched marked zstd
    has "$(skopeo inspect --raw --tls-verify=false docker://127.0.0.1:5000/zstd:1)" 'tar\+zstd'
    printf 'FROM box\nRUN date > /date; rm /bin/no; rm -r /usr; mkdir -m 700 /usr\n' >Containerfile
    podman build -q --network=none -t other .
    in_image other "$LISTING" >listing
    sent_and_fetched other gzip
    skopeo copy -q --src-tls-verify=false docker://127.0.0.1:5000/gzip:1 oci:copied:1
    podman rmi -f marked other >/dev/null
    kill "$registry"
    wait "$registry" || true
}

# sent_and_fetched IMAGE COMPRESSION : the image that comes back is as before.
sent_and_fetched() {
    local name=127.0.0.1:5000/$2:1
    podman push -q --tls-verify=false --format oci --compression-format "$2" "$1" "$name"
    podman rmi -f "$1" >/dev/null
    podman pull -q --tls-verify=false "$name"
    podman tag "$name" "$1"
    podman untag "$name" "$name"
    in_image "$1" "$LISTING" | diff listing -
}

check_commit_of_debian_keeps_everything() {
    start c debian
    podman exec c sh -ec 'rm -rf /usr/share/doc /var/log; mkdir /var/log; mv /usr/share/zoneinfo /zones; chown -R 12:34 /usr/share/perl5; echo x >> /etc/passwd'
    podman exec c sh -c "$LISTING" >before
    podman commit -q c committed
    in_image committed "$LISTING" >after
    podman rmi -f committed >/dev/null
    diff before after
    [ "$(wc -l <after)" -gt 5000 ]
}
