// Everything that a program tries which wants out of its cell. Without the word `try` it does nothing: only in a cell may it.
//! targets: !sparc64
//! stdout: nothing was tried
// `try FILE PORT NAME PID`: a file, a port of TCP, an abstract name of a unix socket, and a process, all of the host's. It says
// `OUT what` of each thing that it should not have been able to do, and at last how many it has tried.
#include "process.h"
#include "sockets.h"

#define CLONE_NEWTIME 0x80
#define CLONE_NEWNS 0x20000
#define CLONE_NEWCGROUP 0x2000000
#define CLONE_NEWUTS 0x4000000
#define CLONE_NEWIPC 0x8000000
#define CLONE_NEWUSER 0x10000000
#define CLONE_NEWPID 0x20000000
#define CLONE_NEWNET 0x40000000
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MNT_DETACH 2
#define S_IFCHR 020000
#define S_IFBLK 060000

static long tried;
static char path[4096], other[4096];

// What must not succeed.
static int refused(const char *what, long result) {
  tried++;
  if (result < 0) return 1;
  put("OUT "), say(what, result);
  return 0;
}

static void closed(const char *what, long fd) {
  if (!refused(what, fd)) SYS(close, fd, 0, 0, 0);
}

static long open_at(const char *name, int flags) { return SYS(openat, AT_FDCWD, name, flags, 0); }

static void text_of(char *to, long value) {
  char digits[24];
  int at = sizeof digits - 1;
  digits[at] = 0;
  do { digits[--at] = (char)('0' + value % 10); value /= 10; } while (value);
  join(to, digits + at, "");
}

static void append(char *to, const char *more) { join(to + length(to), more, ""); }

// Runs in a child: what it does to itself is not the others' trouble. 0: it did not get out.
static void in_child(const char *what, int (*attempt)(void)) {
  long child = fork_child();
  if (child == 0) quit(attempt() ? 1 : 0);
  int status = wait_for(child, 0);
  // A signal is a refusal too.
  refused(what, (status & 127) == 0 && status >> 8 ? 0 : -1);
}

static const char *host_file;

static void mounts(void) {
  SYS(mkdirat, AT_FDCWD, "here", 0755, 0);
  refused("mount tmpfs", SYS5(mount, "x", "here", "tmpfs", 0, 0));
  refused("mount proc", SYS5(mount, "x", "here", "proc", 0, 0));
  refused("mount bind", SYS5(mount, "/proc", "here", "", MS_BIND, 0));
  refused("remount proc", SYS5(mount, "x", "/proc", "", MS_REMOUNT | MS_BIND, 0));
  refused("remount root", SYS5(mount, "x", "/", "", MS_REMOUNT, 0));
  refused("mount binfmt_misc", SYS5(mount, "x", "here", "binfmt_misc", 0, 0));
  refused("mount cgroup2", SYS5(mount, "x", "here", "cgroup2", 0, 0));
  refused("mount overlay", SYS5(mount, "x", "here", "overlay", 0, "lowerdir=/,upperdir=/tmp,workdir=/tmp/here"));
  refused("umount proc", SYS(umount2, "/proc", MNT_DETACH, 0, 0));
  refused("umount cover", SYS(umount2, "/proc/cpuinfo", MNT_DETACH, 0, 0));
  refused("umount device", SYS(umount2, "/dev/null", MNT_DETACH, 0, 0));
  refused("umount root", SYS(umount2, "/", MNT_DETACH, 0, 0));
  refused("pivot_root", SYS(pivot_root, ".", ".", 0, 0));
  refused("open_tree", SYS(open_tree, AT_FDCWD, "/", 1, 0));
  refused("fsopen", SYS(fsopen, "tmpfs", 0, 0, 0));
  refused("move_mount", SYS5(move_mount, AT_FDCWD, "/proc", AT_FDCWD, "here", 0));
  word attributes[4] = {0, 1, 0, 0};
  refused("mount_setattr", SYS5(mount_setattr, AT_FDCWD, "/proc", 0, attributes, sizeof attributes));
}

static int out_of_a_root(void) {
  SYS(mkdirat, AT_FDCWD, "jail", 0755, 0);
  long top = open_at("/", O_RDONLY);
  if (SYS(chroot, "jail", 0, 0, 0) < 0) return 0;
  SYS(fchdir, top, 0, 0, 0);
  for (int up = 0; up < 32; up++) SYS(chdir, "..", 0, 0, 0);
  SYS(chroot, ".", 0, 0, 0);
  return 1;
}

static const int NAMESPACES[] = {CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET};
static const char *const NAMED[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};

static void namespaces(void) {
  for (word at = 0; at < sizeof NAMESPACES / sizeof *NAMESPACES; at++) {
    say("namespace", at);
    refused("unshare", SYS(unshare, NAMESPACES[at], 0, 0, 0));
    refused("unshare as user", SYS(unshare, NAMESPACES[at] | CLONE_NEWUSER, 0, 0, 0));
    // The lowest byte is the signal at its end.
    if (NAMESPACES[at] == CLONE_NEWTIME) continue;
#if defined(__s390x__)
    long child = SYS5(clone, 0, NAMESPACES[at] | SIGCHLD, 0, 0, 0);
#else
    long child = SYS5(clone, NAMESPACES[at] | SIGCHLD, 0, 0, 0, 0);
#endif
    if (child == 0) quit(0);
    refused("clone", child);
  }
  static unsigned long long three[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
  long child = SYS(clone3, three, sizeof three, 0, 0);
  if (child == 0) quit(0);
  refused("clone3", child);
  for (word at = 0; at < sizeof NAMED / sizeof *NAMED; at++)
    for (int whose = 0; whose < 2; whose++) {
      join(path, whose ? "/proc/1/ns/" : "/proc/self/ns/", NAMED[at]);
      long fd = open_at(path, O_RDONLY);
      if (whose) refused(path, fd);
      refused("setns", SYS(setns, fd, 0, 0, 0));
      SYS(close, fd, 0, 0, 0);
    }
}

static void others(long host) {
  long parent = SYS(getppid, 0, 0, 0, 0);
  const long whom[] = {1, host, parent};
  for (word at = 0; at < 3; at++) {
    // Attach, seize.
    refused("ptrace attach", SYS(ptrace, 16, whom[at], 0, 0));
    refused("ptrace seize", SYS(ptrace, 0x4206, whom[at], 0, 0));
    struct iov mine = {path, 8}, theirs = {(void *)host_file, 8};
    refused("process_vm_readv", SYS5(process_vm_readv, whom[at], &mine, 1, &theirs, 1));
    refused("process_vm_writev", SYS5(process_vm_writev, whom[at], &mine, 1, &theirs, 1));
    refused("kcmp", SYS5(kcmp, whom[at], whom[at], 0, 0, 0));
    long pidfd = SYS(pidfd_open, whom[at], 0, 0, 0);
    if (whom[at] == host) refused("pidfd of the host's", pidfd);
    if (pidfd >= 0) {
      refused("pidfd_getfd", SYS(pidfd_getfd, pidfd, 0, 0, 0));
      refused("setns by pidfd", SYS(setns, pidfd, CLONE_NEWNS, 0, 0));
      SYS(close, pidfd, 0, 0, 0);
    }
  }
  refused("kill the host's", SYS(kill, host, SIGKILL, 0, 0));
  refused("kill the host's group", SYS(kill, -host, SIGKILL, 0, 0));
  // The first process of a namespace hears nothing from within: who goes on has not ended it.
  SYS(kill, 1, SIGKILL, 0, 0);
  SYS(kill, 1, SIGSTOP, 0, 0);
  SYS(kill, parent, SIGKILL, 0, 0);
}

static void proc(void) {
  static const char *const links[] = {"/root", "/cwd", "/exe", "/fd", "/mem", "/maps", "/environ", "/map_files", "/stack", "/auxv", "/syscall"};
  for (long pid = 0; pid < 300; pid++) {
    // Its own threads (QEMU has some) are itself.
    join(path, "/proc/self/task/", "");
    text_of(path + 16, pid);
    long own = open_at(path, O_RDONLY);
    if (own >= 0) {
      SYS(close, own, 0, 0, 0);
      continue;
    }
    join(other, "/proc/", "");
    text_of(other + 6, pid);
    for (word at = 0; at < sizeof links / sizeof *links; at++) {
      join(path, other, links[at]);
      closed(path, open_at(path, O_RDONLY));
    }
    for (int fd = 0; fd < 16 && pid <= 2; fd++) {
      join(path, other, "/fd/");
      text_of(path + length(path), fd);
      closed(path, open_at(path, O_RDONLY));
      closed(path, open_at(path, O_RDWR));
    }
    join(path, other, "/root");
    append(path, host_file);
    closed(path, open_at(path, O_RDONLY));
    join(path, other, "/cwd/../../../../../..");
    append(path, host_file);
    closed(path, open_at(path, O_RDONLY));
    join(path, other, "/oom_score_adj");
    closed(path, open_at(path, O_RDWR));
  }
  static const char *const written[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe",
                                 "/proc/sys/kernel/panic", "/proc/sys/kernel/sysrq", "/proc/sys/vm/drop_caches",
                                 "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status",
                                 "/proc/sys/kernel/ns_last_pid", "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger", "/proc/kcore",
                                 "/proc/kmsg", "/proc/acpi", "/proc/bus/pci", "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/scsi/scsi",
                                 "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"};
  for (word at = 0; at < sizeof written / sizeof *written; at++) {
    long fd = open_at(written[at], O_WRONLY);
    // These can be opened by whoever they belong to, and take nothing.
    if (fd >= 0) {
      long took = SYS(write, fd, "0 0 1", 5, 0);
      refused(written[at], took);
      SYS(close, fd, 0, 0, 0);
    } else {
      refused(written[at], fd);
    }
  }
  // Who may not become less likely to end than those who tell of it may not become as likely either.
  closed("oom_score_adj", open_at("/proc/self/oom_score_adj", O_WRONLY));
  closed("oom_adj", open_at("/proc/self/oom_adj", O_WRONLY));
  closed("its own memory", open_at("/proc/self/mem", O_RDWR));
}

static void names(void) {
  closed("the host's file", open_at(host_file, O_RDONLY));
  static const char *const ways[] = {"/../../../../../..", "../../../../../../../../../..", "/proc/self/root/../../../../..", "/proc/self/cwd/../../../../../..",
                              "/proc/thread-self/root/../..", "/dev/../..", "/proc/self/fd/0/../../..", "/.hotcell/../.."};
  for (word at = 0; at < sizeof ways / sizeof *ways; at++) {
    join(path, ways[at], host_file);
    closed(path, open_at(path, O_RDONLY));
    join(other, "link", "");
    text_of(other + 4, (long)at);
    SYS(symlinkat, path, AT_FDCWD, other, 0);
    closed("by a link", open_at(other, O_RDWR));
  }
  refused("a hard link", SYS5(linkat, AT_FDCWD, host_file, AT_FDCWD, "hard", 0));
  // These stay behind for whoever collects.
  SYS(symlinkat, host_file, AT_FDCWD, "left", 0);
  SYS(symlinkat, "/", AT_FDCWD, "folder", 0);
  SYS(mknodat, AT_FDCWD, "pipe", 010600, 0);
}

static void devices(void) {
  // Memory, kernel messages, a disk, a loop, fuse, tun.
  static const int numbers[] = {0x101, 0x10b, 0x104, 0xae5, 0xac8};
  for (word at = 0; at < sizeof numbers / sizeof *numbers; at++)
    refused("mknod of characters", SYS(mknodat, AT_FDCWD, "node", S_IFCHR | 0666, numbers[at]));
  refused("mknod of blocks", SYS(mknodat, AT_FDCWD, "node", S_IFBLK | 0666, 0x800));
  refused("mknod of a whiteout", SYS(mknodat, AT_FDCWD, "node", S_IFCHR, 0));
  static const char *const nodes[] = {"/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/loop-control",
                               "/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/vsock", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/ptmx", "/dev/tty",
                               "/dev/tty0", "/dev/tty1", "/dev/console", "/dev/userfaultfd", "/dev/cpu/0/msr", "/dev/dri/card0", "/dev/uinput",
                               "/dev/shm/x", "/sys/kernel/debug", "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/uevent_helper"};
  for (word at = 0; at < sizeof nodes / sizeof *nodes; at++) closed(nodes[at], open_at(nodes[at], O_RDWR));
  // The few that it has are the host's own.
  static const char *const given[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"};
  for (word at = 0; at < sizeof given / sizeof *given; at++) {
    refused("chmod of a device", SYS(fchmodat, AT_FDCWD, given[at], 0777, 0));
    refused("times of a device", SYS(utimensat, AT_FDCWD, given[at], 0, 0));
    refused("end of a device", SYS(unlinkat, AT_FDCWD, given[at], 0, 0));
    refused("name of a device", SYS5(linkat, AT_FDCWD, given[at], AT_FDCWD, "device", 0));
  }
#if !defined(__mips__) && !defined(__powerpc__)
  // TIOCSTI, TIOCSCTTY, TIOCLINUX
  for (long fd = 0; fd < 3; fd++) {
    refused("a key of a terminal", SYS(ioctl, fd, 0x5412, "x", 0));
    refused("a terminal", SYS(ioctl, fd, 0x540e, 1, 0));
    refused("the console", SYS(ioctl, fd, 0x541c, "\3", 0));
  }
#endif
}

static void kernel(void) {
  static unsigned char zero[256];
  long time[2] = {1000000000, 0};
  refused("bpf", SYS(bpf, 0, zero, 48, 0));
  refused("bpf prog", SYS(bpf, 5, zero, 48, 0));
  refused("keyctl", SYS(keyctl, 0, -3, 1, 0));
  refused("add_key", SYS5(add_key, "user", "x", "y", 1, -3));
  refused("io_uring", SYS(io_uring_setup, 8, zero, 0, 0));
  static unsigned event[32] = {1, 128};
  refused("perf_event_open", SYS5(perf_event_open, event, 0, -1, -1, 0));
  refused("userfaultfd", SYS(userfaultfd, 0, 0, 0, 0));
  refused("userfaultfd of users", SYS(userfaultfd, 1, 0, 0, 0));
  refused("sethostname", SYS(sethostname, "out", 3, 0, 0));
  refused("setdomainname", SYS(setdomainname, "out", 3, 0, 0));
  refused("init_module", SYS(init_module, zero, sizeof zero, "", 0));
  refused("finit_module", SYS(finit_module, 0, "", 0, 0));
  refused("kexec_load", SYS(kexec_load, 0, 0, 0, 0));
  refused("reboot", SYS(reboot, 0xfee1dead, 672274793, 0, 0));
  refused("swapon", SYS(swapon, "made", 0, 0, 0));
  refused("acct", SYS(acct, "made", 0, 0, 0));
  refused("settimeofday", SYS(settimeofday, time, 0, 0, 0));
  refused("clock_settime", SYS(clock_settime, 0, time, 0, 0));
  refused("syslog", SYS(syslog, 3, path, 256, 0));
  refused("quotactl", SYS(quotactl, 0x80000700, "/dev/sda", 0, path));
  static unsigned handle[34] = {128};
  int at = 0;
  refused("name_to_handle_at", SYS5(name_to_handle_at, AT_FDCWD, "/", handle, &at, 0));
  long top = open_at("/", O_RDONLY);
  unsigned root[4] = {8, 1, 2, 0};
  refused("open_by_handle_at", SYS(open_by_handle_at, top, root, O_RDONLY, 0));
  refused("move_pages", SYS5(move_pages, 1, 1, zero, 0, 0));
  refused("migrate_pages", SYS(migrate_pages, 1, 64, zero, zero));
  unsigned char before[128], after[128];
  long size = SYS(sched_getaffinity, 0, sizeof before, before, 0);
  static unsigned char one[128] = {1};
  SYS(sched_setaffinity, 0, sizeof one, one, 0);
  SYS(sched_getaffinity, 0, sizeof after, after, 0);
  refused("other processors", size > 0 && same((char *)before, (char *)after, (word)size) ? -1 : 0);
  refused("a better priority", SYS(setpriority, 0, 0, -20, 0));
  int first = 1;
  refused("a place before all others", SYS(sched_setscheduler, 0, 1, &first, 0));
#if defined(__x86_64__)
  refused("iopl", sys5(172, 3, 0, 0, 0, 0));
  refused("ioperm", sys5(173, 0x70, 2, 1, 0, 0));
  // The same calls by other doors: x32, whose numbers have bit 30, and that of 32-bit programs.
  refused("x32 mount", sys5(0x40000000 + 165, (long)"x", (long)"here", (long)"tmpfs", 0, 0));
  refused("x32 unshare", sys5(0x40000000 + 272, CLONE_NEWUSER, 0, 0, 0, 0));
  refused("x32", sys5(0x40000000 + 39, 0, 0, 0, 0, 0));
#endif
}

#if defined(__x86_64__)
static int by_the_other_door(void) {
  long result = 310;
  __asm__ volatile("int $0x80" : "+a"(result) : "b"(CLONE_NEWUSER) : "memory");
  return result == 0;
}
#endif

// A filter of one's own could have calls come back with what did not happen, and who watches would believe it.
static void filters(void) {
  static const struct { unsigned short code; unsigned char yes, no; unsigned value; } allow = {6, 0, 0, 0x7fff0000};
  static struct { unsigned short length; const void *filter; } program = {1, &allow};
  refused("filter", SYS(seccomp, 1, 0, &program, 0));
  refused("filter by prctl", SYS5(prctl, 22, 2, &program, 0, 0));
  // The kernel looks at half of the number.
  if (sizeof(word) == 8) refused("filter by half a number", SYS5(prctl, (word)22 | (word)1 << 16 << 16, 2, &program, 0, 0));
}

// What runs it is not its own: neither to read (a secret in it tells it from the guest's programs) nor to change.
static void emulator(void) {
  static const char *const ours[] = {"/.hotcell/qemu", "/.hotcell"};
  // Natively there is none.
  long folder = open_at(ours[1], O_RDONLY);
  if (folder < 0) return;
  SYS(close, folder, 0, 0, 0);
  for (word at = 0; at < 2; at++) {
    refused("mode of ours", SYS(fchmodat, AT_FDCWD, ours[at], 0777, 0));
    refused("times of ours", SYS(utimensat, AT_FDCWD, ours[at], 0, 0));
    refused("ours elsewhere", SYS5(renameat2, AT_FDCWD, ours[at], AT_FDCWD, "ours", 0));
    refused("something else for ours", SYS5(renameat2, AT_FDCWD, "own", AT_FDCWD, ours[at], 0));
    refused("end of ours", SYS(unlinkat, AT_FDCWD, ours[at], at ? 0x200 : 0, 0));
    closed("ours for writing", open_at(ours[at], O_WRONLY));
  }
  refused("ours by another name", SYS5(linkat, AT_FDCWD, ours[0], AT_FDCWD, "ours", 0));
  closed("ours", open_at(ours[0], O_RDONLY));
  closed("beside ours", SYS(openat, AT_FDCWD, "/.hotcell/more", O_CREAT | O_WRONLY, 0755));
}

// Folders that no path reaches to their end: whoever collects files must not stumble.
static void depths(void) {
  static char name[251];
  for (int at = 0; at < 250; at++) name[at] = 'd';
  for (int depth = 0; depth < 20; depth++) {
    check("folder", SYS(mkdirat, AT_FDCWD, name, 0755, 0) == 0);
    check("into it", SYS(chdir, name, 0, 0, 0) == 0);
  }
}

static void rights(void) {
  SYS(close, SYS(openat, AT_FDCWD, "own", O_CREAT | O_WRONLY, 0644), 0, 0, 0);
  // Programs that would make their caller somebody else.
  refused("setresuid", SYS(setresuid, 1, 1, 1, 0));
  refused("setresuid to nobody", SYS(setresuid, 65534, 65534, 65534, 0));
  refused("chown", SYS5(fchownat, AT_FDCWD, "own", 1, 1, 0));
  static unsigned head[2] = {0x20080522, 0}, sets[6] = {~0u, ~0u, 0, ~0u, ~0u, 0};
  refused("capset", SYS(capset, head, sets, 0, 0));
  for (long which = 0; which < 41; which++) {
    refused("ambient", SYS5(prctl, 47, 2, which, 0, 0));
    // Whether it could be had back: PR_CAPBSET_READ gives 1 then.
    long bounded = SYS5(prctl, 23, which, 0, 0, 0);
    refused("bounding set", bounded > 0 ? 0 : -1);
  }
  refused("securebits", SYS5(prctl, 28, 0x2f, 0, 0, 0));
  // PR_GET_NO_NEW_PRIVS, and that it stays.
  refused("new privileges", SYS5(prctl, 39, 0, 0, 0, 0) == 1 ? -1 : 0);
  static char status[4096];
  long fd = open_at("/proc/self/status", O_RDONLY);
  long got = SYS(read, fd, status, sizeof status - 1, 0);
  SYS(close, fd, 0, 0, 0);
  static const char *const lines[] = {"\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n",
                               "\nCapBnd:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"};
  for (word line = 0; line < sizeof lines / sizeof *lines; line++) {
    int found = 0;
    for (long at = 0; at < got; at++) found |= same(status + at, lines[line], length(lines[line]));
    if (refused(lines[line], found ? -1 : 0)) continue;
  }
}

static void descriptors(void) {
  for (long fd = 3; fd < 1024; fd++) {
    join(path, "/proc/self/fd/", "");
    text_of(path + 14, fd);
    char where[128];
    refused("an inherited descriptor", SYS(readlinkat, AT_FDCWD, path, where, sizeof where));
  }
}

static void sockets(word port, const char *name) {
  struct inet_address tcp = {AF_INET, {(unsigned char)(port >> 8), (unsigned char)port}, {127, 0, 0, 1}, {0}};
  long fd = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  refused("the host's loopback", SYS(connect, fd, &tcp, sizeof tcp, 0));
  SYS(close, fd, 0, 0, 0);
  // One of the host's addresses may be any: none can be reached at all.
  struct inet_address far = {AF_INET, {0, 53}, {192, 0, 2, 1}, {0}};
  fd = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  refused("the network", SYS(connect, fd, &far, sizeof far, 0));
  SYS(close, fd, 0, 0, 0);
  static struct { unsigned short family; char name[100]; } hidden = {1, {0}};
  join(hidden.name + 1, name, "");
  fd = SYS(socket, 1, SOCK_STREAM, 0, 0);
  refused("the host's abstract socket", SYS(connect, fd, &hidden, 3 + length(name), 0));
  SYS(close, fd, 0, 0, 0);
  fd = SYS(socket, 1, SOCK_STREAM, 0, 0);
  join(hidden.name, "/run/dbus/system_bus_socket", "");
  refused("the host's bus", SYS(connect, fd, &hidden, sizeof hidden, 0));
  SYS(close, fd, 0, 0, 0);
  // Families that know no namespaces of networks, or that nobody needs: vsock, algorithms, keys, TIPC, RDS, CAN, Bluetooth, NFC, XDP, SMC, QIPCRTR.
  static const int families[] = {40, 38, 15, 30, 21, 29, 31, 39, 44, 43, 42};
  for (word at = 0; at < sizeof families / sizeof *families; at++)
    for (int type = 1; type < 6; type++) closed("a family of sockets", SYS(socket, families[at], type, 0, 0));
  // What is sent by others than TCP and UDP: ICMP, SCTP, DCCP, UDP-Lite, MPTCP.
  static const int protocols[] = {1, 58, 132, 33, 136, 262};
  for (word at = 0; at < sizeof protocols / sizeof *protocols; at++)
    for (int type = 1; type < 7; type++) {
      closed("a protocol", SYS(socket, AF_INET, type, protocols[at], 0));
      closed("a protocol of IPv6", SYS(socket, 10, type, protocols[at], 0));
    }
  // Packets by hand.
  closed("packets", SYS(socket, 17, 3, 0x300, 0));
  closed("raw packets", SYS(socket, AF_INET, 3, 1, 0));
}

int guest(int argc, char **argv) {
  int at = 1;
  while (at < argc && !same(argv[at], "try", 4)) at++;
  if (at + 4 >= argc) {
    put("nothing was tried\n");
    return 0;
  }
  host_file = argv[at + 1];
  put("descriptors\n"), descriptors();
  put("mounts\n"), mounts();
  put("roots\n"), in_child("chroot", out_of_a_root);
  put("namespaces\n"), namespaces();
  put("others\n"), others((long)number(argv[at + 4]));
  put("proc\n"), proc();
  put("names\n"), names();
  put("devices\n"), devices();
  put("kernel\n"), kernel();
#if defined(__x86_64__)
  in_child("32-bit call", by_the_other_door);
#endif
  put("rights\n"), rights();
  put("filters\n"), filters();
  put("ours\n"), emulator();
  put("sockets\n"), sockets(number(argv[at + 2]), argv[at + 3]);
  long file = SYS(openat, AT_FDCWD, "made", O_CREAT | O_WRONLY, 0644);
  SYS(write, file, "inside", 6, 0);
  depths();
  say("tried", tried);
  return 0;
}
