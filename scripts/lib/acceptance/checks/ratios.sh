# What is timed. Each leaves its milliseconds with `measured`.

# The image with tools comes from the first program that could build it: apt-get fails on fuse-overlayfs 2.0.0.
tools() {
    if ! podman image exists tools; then
        podman load -q -i /var/tmp/tools.tar >/dev/null
    elif [ ! -e /var/tmp/tools.tar ]; then
        podman save -q -o /var/tmp/tools.tar tools
    fi
}

timed_build_of_5_steps() {
    local step
    tools
    { echo FROM tools
        for step in 1 2 3 4 5; do echo "RUN mkdir /$step && cp -r /usr/share/perl5 /$step && rm -r /usr/share/doc/[a-$step]*; echo $step > /etc/issue"; done
    } >Containerfile
    measured podman build -q --no-cache --layers --network=none -t five .
    podman rmi -f five >/dev/null
}

timed_five_container_starts() {
    tools
    measured five_starts
}

five_starts() {
    local start
    for start in 1 2 3 4 5; do
        in_image tools true
    done
}

timed_apt_get_install() {
    start c debian -v "$GROUND/debs:/debs:ro"
    podman exec c bash -c 'cp /debs/*.deb /var/cache/apt/archives/'
    measured podman exec -e DEBIAN_FRONTEND=noninteractive c apt-get install -qq -y --no-install-recommends git sqlite3 python3-venv figlet >/dev/null
}

timed_venv_and_pip_install() {
    tools
    start c tools
    measured podman exec c bash -euc 'python3 -m venv /venv; /venv/bin/pip install -q --no-index --find-links /usr/share/python-wheels --force-reinstall setuptools'
}

# Two images that are not parent and child: podman walks both through mounts, with lstat(2), getxattr(2) and listxattr(2).
timed_diff_of_50000_files() {
    if ! podman image exists files2; then
        start c box
        podman exec c sh -ec 'for d in $(seq 500); do mkdir -p /files/$d; for f in $(seq 100); do echo $f > /files/$d/$f; done; done'
        podman commit -q c files
        podman rm -f -t 0 c >/dev/null
        printf 'FROM files\nRUN echo x > /files/1/1; rm /files/2/2\n' >one
        printf 'FROM files\nRUN echo x > /files/3/3\n' >two
        podman build -q --network=none -f one -t files1 .
        podman build -q --network=none -f two -t files2 .
    fi
    measured podman image diff files1 files2 >found
    has "$(cat found)" '^D /files/2/2'
}
