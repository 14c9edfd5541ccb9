"""layers.py COUNT FILE: an image in docker's archive format of COUNT layers over one with busybox.

Layer N adds /layer/N, replaces /count, and deletes /layer/(N - 2) where N is even, so that the union has half of the names.
"""

import hashlib
import io
import json
import sys
import tarfile


def entry(archive, name, data=b"", mode=0o644, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, len(data)
    archive.addfile(info, io.BytesIO(data))


def layer(fill):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        fill(archive)
    return data.getvalue()


def bottom(archive):
    entry(archive, "bin", mode=0o755, kind=tarfile.DIRTYPE)
    entry(archive, "layer", mode=0o755, kind=tarfile.DIRTYPE)
    with open("/bin/busybox", "rb") as program:
        entry(archive, "bin/busybox", program.read(), 0o755)


def numbered(number):
    def fill(archive):
        entry(archive, f"layer/{number}", b"%d\n" % number)
        entry(archive, "count", b"%d\n" % number)
        if number % 2 == 0 and number > 2:
            entry(archive, f"layer/.wh.{number - 2}")

    return fill


def main(count, path):
    layers = [layer(bottom)] + [layer(numbered(number)) for number in range(1, count)]
    digests = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/busybox", "sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {n}"} for n in range(count)],
    }
    names = [f"{number}.tar" for number in range(count)]
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/layers:latest"], "Layers": names}]
    with tarfile.open(path, "w") as archive:
        entry(archive, "manifest.json", json.dumps(manifest).encode())
        entry(archive, "config.json", json.dumps(config).encode())
        for name, data in zip(names, layers):
            entry(archive, name, data)


main(int(sys.argv[1]), sys.argv[2])
