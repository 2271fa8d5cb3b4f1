"""A file system in memory whose files cannot be mapped shared: unmappable_fs.py DIRECTORY

Speaks the kernel's FUSE protocol itself and asks for direct I/O. Root only. Prints "ready" when it is
mounted, ends when it is unmounted.
"""

import ctypes
import errno
import os
import stat
import struct
import sys

DIRECT_IO = 1
LARGEST_WRITE = 128 << 10
ROOT = 1


class Node:
    def __init__(self, mode):
        self.mode = mode
        self.data = bytearray()


class FileSystem:
    def __init__(self):
        self.nodes = {ROOT: Node(stat.S_IFDIR | 0o755)}
        self.names = {}
        self.next = ROOT + 1

    def attributes(self, number):
        node = self.nodes[number]
        size = len(node.data)
        times = (0, 0, 0, 0, 0, 0)
        return struct.pack(
            "<QQQQQQIIIIIIIIII",
            *(number, size, -(-size // 512)),
            *times,
            *(node.mode, 1, os.getuid(), os.getgid(), 0, 4096, 0),
        )

    def entry(self, number):
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self.attributes(number)

    def lookup(self, name):
        if name not in self.names:
            raise OSError(errno.ENOENT, "")
        return self.entry(self.names[name])

    def create(self, body):
        _, mode = struct.unpack_from("<II", body)
        name = body[16:].split(b"\0")[0]
        number, self.next = self.next, self.next + 1
        self.nodes[number] = Node(stat.S_IFREG | (mode & 0o7777))
        self.names[name] = number
        return self.entry(number) + struct.pack("<QII", 0, DIRECT_IO, 0)

    def set_attributes(self, number, body):
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        (mode,) = struct.unpack_from("<I", body, 68)
        node = self.nodes[number]
        if valid & 8:
            del node.data[size:]
            node.data.extend(bytes(size - len(node.data)))
        if valid & 1:
            node.mode = stat.S_IFREG | (mode & 0o7777)
        return struct.pack("<QII", 0, 0, 0) + self.attributes(number)

    def read(self, number, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self.nodes[number].data[offset : offset + size])

    def write(self, number, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        data = self.nodes[number].data
        data.extend(bytes(max(0, offset + size - len(data))))
        data[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def rename(self, names):
        old, new = names.split(b"\0")[:2]
        if old not in self.names:
            raise OSError(errno.ENOENT, "")
        self.names[new] = self.names.pop(old)
        return b""

    def unlink(self, name):
        if self.names.pop(name, None) is None:
            raise OSError(errno.ENOENT, "")
        return b""

    def directory(self, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        entries = b""
        for index, (name, number) in enumerate(sorted(self.names.items())):
            entry = struct.pack("<QQII", number, index + 1, len(name), 8) + name
            entry += bytes(-len(entry) % 8)
            if index >= offset and len(entries) + len(entry) <= size:
                entries += entry
        return entries

    def answer(self, operation, number, body):
        if operation == 26:
            sizes = struct.pack("<HHIIHHI", 0, 0, LARGEST_WRITE, 1, 32, 0, 0)
            return struct.pack("<IIII", 7, 31, 0, 1 << 5) + sizes + bytes(28)
        if operation == 1:
            return self.lookup(body.split(b"\0")[0])
        if operation == 3:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(number)
        if operation == 4:
            return self.set_attributes(number, body)
        if operation == 10:
            return self.unlink(body.split(b"\0")[0])
        if operation == 12:
            return self.rename(body[8:])
        if operation == 45:
            return self.rename(body[16:])
        if operation in (14, 27):
            return struct.pack("<QII", 0, DIRECT_IO, 0)
        if operation == 15:
            return self.read(number, body)
        if operation == 16:
            return self.write(number, body)
        if operation == 28:
            return self.directory(body)
        if operation == 17:
            return struct.pack("<QQQQQIIII", 1 << 20, 1 << 20, 1 << 20, 0, 0, 4096, 255, 4096, 0) + bytes(24)
        if operation == 35:
            return self.create(body)
        if operation in (18, 20, 25, 29):
            return b""
        raise OSError(errno.ENOSYS, "")


def mount(directory):
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    words = [b"unmappable", os.fsencode(directory), b"fuse"]
    if libc.mount(*words, ctypes.c_ulong(2 | 4), options.encode()) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return device


def main():
    device = mount(sys.argv[1])
    print("ready", flush=True)
    files = FileSystem()
    while True:
        try:
            request = os.read(device, LARGEST_WRITE + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT):
                continue
            raise
        _, operation, unique, number = struct.unpack_from("<IIQQ", request)
        if operation in (2, 36, 42):
            # Forgotten nodes and interrupted requests want no answer.
            continue
        try:
            answer, code = files.answer(operation, number, request[40:]), 0
        except OSError as error:
            answer, code = b"", -error.errno
        os.write(device, struct.pack("<IiQ", 16 + len(answer), code, unique) + answer)


main()
