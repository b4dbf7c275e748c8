// What samples ask before they show themselves: is somebody tracing, is this a virtual machine, do sleeps take their time. It does not
// act on the answers, and its checks of places that only some machines have may find something or nothing.
//! stdout: reads itself 1
//! stdout: one processor at least 1
//! stdout: slept 1
//! stdout: waits no more 9
//! stdout: done 0
//! targets: !sparc64
#include "trace.h"

static long read_file(const char *path, char *text, word room) {
  long fd = SYS(openat, AT_FDCWD, path, O_RDONLY, 0);
  if (fd < 0) return fd;
  long got = SYS(read, fd, text, room, 0);
  SYS(close, fd, 0, 0, 0);
  return got;
}

// The processor's counter, where there is one that programs read.
#if defined(__x86_64__) || defined(__i386__)
static long counter(void) { long low; __asm__ volatile("rdtsc" : "=a"(low) : : "edx"); return low; }
#elif defined(__aarch64__)
static long counter(void) { long now; __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now)); return now; }
#elif defined(__riscv)
static long counter(void) { long now; __asm__ volatile("rdtime %0" : "=r"(now)); return now; }
#elif defined(__mips__)
static long counter(void) { long now; __asm__ volatile("rdhwr %0, $2" : "=r"(now)); return now; }
#elif defined(__s390x__)
static long counter(void) { long now; __asm__ volatile("stck %0" : "=Q"(now) : : "cc"); return now; }
#else
static long counter(void) { return 0; }
#endif

static void ask_processor(void) {
#if defined(__x86_64__) || defined(__i386__)
  // The name of a hypervisor, and how long CPUID takes.
  unsigned leaf = 0x40000000, b, c = 0, d;
  counter();
  __asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d));
  counter();
#else
  for (int times = 0; times < 32; times++) counter();
#endif
}

int guest(int argc, char **argv) {
  (void)argc; (void)argv;
  char text[1024];
  ask_processor();
  // qemu-user has no ptrace: the answer is not looked at.
  ptrace(PTRACE_TRACEME, 0, 0, 0);
  say("reads itself", read_file("/proc/self/status", text, sizeof text) > 0);
  say("one processor at least", read_file("/proc/cpuinfo", text, sizeof text) > 0);
  static const char *const places[] = {
      "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/sys_vendor", "/proc/scsi/scsi", "/.dockerenv",
      "/dev/vboxguest", "/usr/bin/strace", "/usr/bin/qemu-ga", "/opt/cuckoo",
  };
  for (word at = 0; at < sizeof places / sizeof *places; at++) read_file(places[at], text, sizeof text);
  // A long sleep in a child that is not waited for to the end, and a short one that is timed.
  long pid = fork_child();
  if (pid == 0) {
    long ten_minutes[2] = {600, 0};
    SYS(nanosleep, ten_minutes, 0, 0, 0);
    quit(1);
  }
  long before[2], after[2], second[2] = {1, 0};
  check("clock", SYS(clock_gettime, 1, before, 0, 0) == 0);
  check("sleep", SYS(nanosleep, second, 0, 0, 0) == 0);
  check("clock", SYS(clock_gettime, 1, after, 0, 0) == 0);
  say("slept", after[0] - before[0] >= 1 && after[0] - before[0] < 60);
  SYS(kill, pid, SIGKILL, 0, 0);
  say("waits no more", status_of(pid));
  say("done", 0);
  return 0;
}
