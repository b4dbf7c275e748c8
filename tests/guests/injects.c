// One process in another: traced, read, written, steered, by every way there is. Harmless: all of them are its own children.
//! stdout: traced by its parent 1
//! stdout: twice -1
//! stdout: stopped by SIGSTOP 1
//! stdout: ended 7
//! stdout: attached 0
//! stdout: again -1
//! stdout: read 4711
//! stdout: stands in the program 1
//! stdout: answers 2
//! stdout: landed 9
//! stdout: register found 1
//! stdout: register changed 8
//! stdout: breakpoint 0
//! stdout: and on 1
//! stdout: stops at calls 3
//! stdout: fault 11
//! stdout: killed 9
//! stdout: fork told 1
//! stdout: grandchild 6
//! stdout: seized 128
//! stdout: read across 4711
//! stdout: no such memory -14
//! stdout: written across 3
//! stdout: written through mem 4
//! stdout: no such process -3
//! stdout: not stopped -3
//! stdout: done 0
//! targets: !sparc64
//! under: native
#include "trace.h"

volatile long secret = 4711;
volatile long flag = 0;

__attribute__((noinline, aligned(32))) long answer(void) { __asm__ volatile(""); return 1; }
__attribute__((noinline, aligned(32))) long other(void) { __asm__ volatile(""); return 2; }
__attribute__((noinline, aligned(32))) void landed(void) { for (;;) SYS(exit_group, 9, 0, 0, 0); }

long (*volatile call)(void) = answer;

// A child that waits until somebody changes its flag.
static long waiting(void) {
  long pid = fork_child();
  if (pid == 0) {
    while (!flag) SYS(sched_yield, 0, 0, 0, 0);
    quit(flag == 1 ? (int)call() : (int)flag);
  }
  return pid;
}

static long line_of_status(const char *name) {
  char text[2048];
  long fd = SYS(openat, AT_FDCWD, "/proc/self/status", O_RDONLY, 0);
  long got = SYS(read, fd, text, sizeof text - 1, 0), value = -1;
  SYS(close, fd, 0, 0, 0);
  word n = length(name);
  for (long at = 0; at + (long)n < got; at++)
    if (same(text + at, name, n)) {
      value = 0;
      for (at += (long)n; text[at] == ':' || text[at] == '\t'; at++) ;
      for (; text[at] >= '0' && text[at] <= '9'; at++) value = value * 10 + text[at] - '0';
      break;
    }
  return value;
}

static void traces_itself(void) {
  long pid = fork_child();
  if (pid == 0) {
    check("TRACEME", ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    say("traced by its parent", line_of_status("TracerPid") == SYS(getppid, 0, 0, 0, 0));
    say("twice", ptrace(PTRACE_TRACEME, 0, 0, 0));
    SYS(kill, SYS(getpid, 0, 0, 0, 0), SIGSTOP, 0, 0);
    quit(7);
  }
  say("stopped by SIGSTOP", status_of(pid) == (SIGSTOP << 8 | 0x7f));
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  say("ended", status_of(pid) >> 8);
}

static void attach(long pid) {
  check("ATTACH", ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
  check("stopped", status_of(pid) == (SIGSTOP << 8 | 0x7f));
}

static void patches(void) {
  long pid = waiting();
  long attached = ptrace(PTRACE_ATTACH, pid, 0, 0);
  say("attached", attached);
  check("stopped", status_of(pid) == (SIGSTOP << 8 | 0x7f));
  say("again", ptrace(PTRACE_ATTACH, pid, 0, 0));
  long read = 0;
  check("PEEK", ptrace(PTRACE_PEEKDATA, pid, (long)&secret, (long)&read) == 0);
  say("read", read);
  word registers[WORDS];
  struct iov iov = {registers, sizeof registers};
  check("GETREGSET", ptrace(PTRACE_GETREGSET, pid, 1, (long)&iov) == 0);
  check("size", iov.length == sizeof registers);
  word pc = registers[PC], here = (word)answer;
  say("stands in the program", pc - (here - 0x100000) < 0x200000);
  for (long at = 0; at < 32; at += sizeof(long))
    check("POKE", ptrace(PTRACE_POKETEXT, pid, (long)answer + at, *(volatile long *)((char *)other + at)) == 0);
  check("POKE flag", ptrace(PTRACE_POKEDATA, pid, (long)&flag, 1) == 0);
  check("DETACH", ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
  say("answers", status_of(pid) >> 8);
}

static void steers(void) {
  long pid = waiting();
  attach(pid);
  word registers[WORDS];
  struct iov iov = {registers, sizeof registers};
  check("GETREGSET", ptrace(PTRACE_GETREGSET, pid, 1, (long)&iov) == 0);
  registers[PC] = (word)landed;
#if defined(__x86_64__)
  registers[15] = (word)-1;  // orig_rax: no call is to be made again
#elif defined(__i386__)
  registers[11] = (word)-1;
#endif
  check("SETREGSET", ptrace(PTRACE_SETREGSET, pid, 1, (long)&iov) == 0);
  check("DETACH", ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
  say("landed", status_of(pid) >> 8);
}

// A child that turns in a loop as long as one of its registers holds a number.
static void changes_a_register(void) {
  const word kept = 0x4711471u, other_one = 0x4711408u;
  long pid = fork_child();
  if (pid == 0) {
    word number = kept;
    while (number != other_one) __asm__ volatile("" : "+r"(number));
    quit((int)(number & 0xff));
  }
  // It has begun to turn when its turn is over.
  long moment[2] = {0, 50000000};
  SYS(nanosleep, moment, 0, 0, 0);
  attach(pid);
  word registers[WORDS];
  struct iov iov = {registers, sizeof registers};
  check("GETREGSET", ptrace(PTRACE_GETREGSET, pid, 1, (long)&iov) == 0);
  int found = 0;
  for (word at = 0; at < WORDS; at++)
    if (registers[at] == kept) { registers[at] = other_one; found = 1; }
  say("register found", found);
  check("SETREGSET", ptrace(PTRACE_SETREGSET, pid, 1, (long)&iov) == 0);
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  say("register changed", status_of(pid) >> 8);
}

// The instruction of a breakpoint, and how far behind it the program counter stands then.
#if defined(__x86_64__) || defined(__i386__)
static const unsigned char breakpoint[] = {0xcc};
#define BEHIND 1
#elif defined(__arm__)
static const unsigned char breakpoint[] = {0xf0, 0x01, 0xf0, 0xe7};
#define BEHIND 0
#elif defined(__aarch64__)
static const unsigned char breakpoint[] = {0x00, 0x00, 0x20, 0xd4};
#define BEHIND 0
#elif defined(__riscv)
static const unsigned char breakpoint[] = {0x73, 0x00, 0x10, 0x00};
#define BEHIND 0
#elif defined(__mips__)
static const unsigned int breakpoint[] = {0x0000000d};
#define BEHIND 0
#elif defined(__powerpc__)
static const unsigned int breakpoint[] = {0x7fe00008};
#define BEHIND 0
#elif defined(__s390x__)
static const unsigned char breakpoint[] = {0x00, 0x01};
#define BEHIND 2
#endif

static void breaks(void) {
  long pid = waiting();
  attach(pid);
  long code = *(volatile long *)answer, broken = code;
  for (word at = 0; at < sizeof breakpoint; at++) ((char *)&broken)[at] = ((const char *)breakpoint)[at];
  check("POKE", ptrace(PTRACE_POKETEXT, pid, (long)answer, broken) == 0);
  check("POKE flag", ptrace(PTRACE_POKEDATA, pid, (long)&flag, 1) == 0);
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  check("trap", status_of(pid) == (SIGTRAP << 8 | 0x7f));
  word registers[WORDS];
  struct iov iov = {registers, sizeof registers};
  check("GETREGSET", ptrace(PTRACE_GETREGSET, pid, 1, (long)&iov) == 0);
  say("breakpoint", (long)(registers[PC] - BEHIND - (word)answer));
  registers[PC] = (word)answer;
  check("POKE back", ptrace(PTRACE_POKETEXT, pid, (long)answer, code) == 0);
  check("SETREGSET", ptrace(PTRACE_SETREGSET, pid, 1, (long)&iov) == 0);
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  say("and on", status_of(pid) >> 8);
}

static void follows_calls(void) {
  long pid = fork_child();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    SYS(kill, SYS(getpid, 0, 0, 0, 0), SIGSTOP, 0, 0);
    SYS(getppid, 0, 0, 0, 0);
    quit(5);
  }
  status_of(pid);
  check("SETOPTIONS", ptrace(PTRACE_SETOPTIONS, pid, 0, 1) == 0);
  int stops = 0, status;
  for (;;) {
    check("SYSCALL", ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
    status = status_of(pid);
    if (status != ((SIGTRAP | 0x80) << 8 | 0x7f)) break;
    stops++;
  }
  check("exit", status == 5 << 8);
  say("stops at calls", stops);
}

static void faults(void) {
  long pid = fork_child();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    volatile int *nowhere = (int *)8;
    *nowhere = 1;
    quit(1);
  }
  int info[32];
  check("held", status_of(pid) == (SIGSEGV << 8 | 0x7f));
  check("GETSIGINFO", ptrace(PTRACE_GETSIGINFO, pid, 0, (long)info) == 0);
  say("fault", info[0]);
  SYS(kill, pid, SIGKILL, 0, 0);
  say("killed", status_of(pid));
}

static void follows_forks(void) {
  long pid = fork_child();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    SYS(kill, SYS(getpid, 0, 0, 0, 0), SIGSTOP, 0, 0);
    long child = fork_child();
    if (child == 0) quit(6);
    quit(status_of(child) >> 8);
  }
  status_of(pid);
  check("SETOPTIONS", ptrace(PTRACE_SETOPTIONS, pid, 0, 2) == 0);
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  say("fork told", status_of(pid) == (SIGTRAP << 8 | 0x7f | 1 << 16));
  long child = 0;
  check("GETEVENTMSG", ptrace(PTRACE_GETEVENTMSG, pid, 0, (long)&child) == 0);
  check("new one", status_of(child) == (SIGSTOP << 8 | 0x7f));
  check("CONT child", ptrace(PTRACE_CONT, child, 0, 0) == 0);
  check("CONT parent", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  check("end of the new one", status_of(child) == 6 << 8);
  // Its SIGCHLD comes first.
  int status = status_of(pid);
  if (status == (SIGCHLD << 8 | 0x7f)) {
    ptrace(PTRACE_CONT, pid, 0, SIGCHLD);
    status = status_of(pid);
  }
  say("grandchild", status >> 8);
}

static void seizes(void) {
  long pid = fork_child();
  if (pid == 0) {
    long forever[2] = {100, 0};
    SYS(nanosleep, forever, 0, 0, 0);
    quit(1);
  }
  check("SEIZE", ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
  check("INTERRUPT", ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
  say("seized", status_of(pid) >> 16);
  check("CONT", ptrace(PTRACE_CONT, pid, 0, 0) == 0);
  SYS(kill, pid, SIGKILL, 0, 0);
  check("killed", status_of(pid) == SIGKILL);
}

static void across(void) {
  long pid = waiting(), read = 0, set = 3;
  struct iov here = {&read, sizeof read}, there = {(void *)&secret, sizeof secret}, nowhere = {(void *)8, 8};
  check("readv", SYS5(process_vm_readv, pid, &here, 1, &there, 1) == sizeof read);
  say("read across", read);
  say("no such memory", SYS5(process_vm_readv, pid, &here, 1, &nowhere, 1));
  here.base = &set;
  there.base = (void *)&flag;
  check("writev", SYS5(process_vm_writev, pid, &here, 1, &there, 1) == sizeof set);
  say("written across", status_of(pid) >> 8);
}

static void through_mem(void) {
  long pid = waiting(), set = 4, back = 0;
  char digits[16], path[40];
  int at = 15;
  digits[at] = 0;
  for (long rest = pid; rest; rest /= 10) digits[--at] = (char)('0' + rest % 10);
  join(path, "/proc/", digits + at);
  join(digits, "/mem", "");
  char *end = path;
  while (*end) end++;
  join(end, digits, "");
  long fd = SYS(openat, AT_FDCWD, path, O_RDWR, 0);
  check("open mem", fd >= 0);
  check("lseek", SYS(lseek, fd, &secret, 0, 0) == (long)&secret);
  check("read", SYS(read, fd, &back, sizeof back, 0) == sizeof back && back == 4711);
  check("back", SYS(lseek, fd, &flag, 0, 0) == (long)&flag);
  check("write", SYS(write, fd, &set, sizeof set, 0) == sizeof set);
  SYS(close, fd, 0, 0, 0);
  say("written through mem", status_of(pid) >> 8);
}

static void refused(void) {
  say("no such process", ptrace(PTRACE_ATTACH, 4194000, 0, 0));
  long pid = waiting(), read;
  say("not stopped", ptrace(PTRACE_PEEKDATA, pid, (long)&secret, (long)&read));
  SYS(kill, pid, SIGKILL, 0, 0);
  status_of(pid);
}

int guest(int argc, char **argv) {
  (void)argc; (void)argv;
  traces_itself();
  patches();
  steers();
  changes_a_register();
  breaks();
  follows_calls();
  faults();
  follows_forks();
  seizes();
  across();
  through_mem();
  refused();
  say("done", 0);
  return 0;
}
