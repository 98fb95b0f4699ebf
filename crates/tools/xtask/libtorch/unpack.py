"""Takes out of wheels what a CPU libtorch is made of.

usage: unpack.py LIBTORCH WHEEL...

The rest of the torch wheel is left packed: its CUDA libraries alone are half a gigabyte.
"""

import pathlib
import shutil
import sys
import zipfile

# libtorch_cpu.so of this wheel is linked to the CUDA runtime and CUPTI. They load without a GPU.
LIBRARIES = {
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
}
HEADERS = "torch/include/"


def place(name):
    """Where a member of a wheel goes below LIBTORCH, or None if it is not wanted."""
    if name in LIBRARIES:
        return "lib/" + name.rsplit("/", 1)[1]
    if name.startswith(HEADERS) and not name.endswith("/"):
        return "include/" + name[len(HEADERS):]
    return None


def main(libtorch, wheels):
    missing = set(LIBRARIES)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if (placed := place(name)) is None:
                    continue
                target = pathlib.Path(libtorch, placed)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                missing.discard(name)
    if missing:
        sys.exit("not in the wheels: " + ", ".join(sorted(missing)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
