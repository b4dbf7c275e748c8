"""A machine for one program, of namespaces: what a guest of hotcell has of its persona and the simulated web, this gives to the
same program under another emulator, or to this host's own processor.

    unshare --user --map-root-user --mount --net --pid --fork --kill-child python3 machine.py ROOT PROGRAM WORK EMULATOR...

ROOT is a folder with the unpacked packages, which stays as it is; WORK an empty one. EMULATOR is nothing (the host runs it),
`binfmt QEMU` (a static qemu-user, for whatever the program starts, too), or the words of a program that is told ROOT and PROGRAM."""
import ctypes, fcntl, http.server, os, shutil, signal, socket, struct, sys

HOST = "conformance.example"
PAGES = {"/page": b"a page\nof two lines\n"}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": f"127.0.0.1 localhost {HOST}\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
# Of the kernel's headers: linux/mount.h, linux/sockios.h, linux/if.h.
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, data=None):
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        number = ctypes.get_errno()
        sys.exit(f"machine: {kind or 'bind'} at {target}: {os.strerror(number)}")


class Web(http.server.BaseHTTPRequestHandler):
    """The page of the manifest, for every name that leads here."""

    def do_GET(self):
        page = PAGES.get(self.path, b"")
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def network():
    """The loopback, and who answers on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo"
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", name, 0)))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))
    server = http.server.HTTPServer(("127.0.0.1", 80), Web)
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for stream in 0, 1, 2:
            os.dup2(null, stream)
        server.serve_forever()
    server.server_close()


def binfmt(qemu, program):
    """From now on this namespace's kernel starts programs of that architecture with qemu (its own registry: Linux 6.7), which is opened
    at once (F), and told what they are called (P)."""
    folder = "/proc/sys/fs/binfmt_misc"
    mount("binfmt_misc", folder, "binfmt_misc")
    with open(program, "rb") as file:
        head = bytearray(file.read(20))
    little = head[5] == 1
    mask = bytearray(b"\xff" * 7 + b"\0" * 9 + (b"\xfe\xff\xff\xff" if little else b"\xff\xfe\xff\xff"))
    text = b"".join(b"\\x%02x" % byte for byte in head), b"".join(b"\\x%02x" % byte for byte in mask)
    with open(f"{folder}/register", "wb", buffering=0) as file:
        file.write(b":guest:M::%s:%s:%s:FP" % (*text, os.fsencode(qemu)))


def main(root, program, work, *emulator):
    for number in signal.SIGPIPE, signal.SIGXFSZ:
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so in a new program
    network()
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", work, "tmpfs")
    for name in "upper", "scratch", "root":
        os.mkdir(f"{work}/{name}")
    top = f"{work}/root"
    mount("overlay", top, "overlay", 0, f"lowerdir={root},upperdir={work}/upper,workdir={work}/scratch")
    for name in "dev", "proc", "tmp", "root", "etc":
        os.makedirs(f"{top}/{name}", exist_ok=True)
    os.chmod(f"{top}/tmp", 0o1777)
    for name, text in FILES.items():
        with open(f"{top}/{name}", "w") as file:
            file.write(text)
    for name in "null", "zero", "full", "random", "urandom":
        open(f"{top}/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{top}/dev/{name}", None, MS_BIND)
    for name, target in ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"):
        os.symlink(target, f"{top}/dev/{name}")
    inside = f"/tmp/{os.path.basename(program)}"
    shutil.copy(program, top + inside)
    os.chmod(top + inside, 0o755)
    if emulator and emulator[0] != "binfmt":
        os.chdir(f"{top}/tmp")
        os.execvp(emulator[0], [*emulator, top, inside])
    if emulator:
        binfmt(emulator[1], f"{top}/bin/busybox")
    mount("proc", f"{top}/proc", "proc")
    os.chroot(top)
    os.chdir("/tmp")
    os.execve(inside, [inside], ENVIRONMENT)


main(*sys.argv[1:])
