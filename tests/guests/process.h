// What guests about threads, signals, clocks and memory share: structures, a thread, a map (arch/*/include/uapi: asm/signal.h,
// asm/siginfo.h, asm/mman.h).
#ifndef PROCESS_H
#define PROCESS_H

#include "guest.h"

#define EINTR 4
#define EBADF 9
#define EINVAL 22
#define EPIPE 32
#define ESRCH 3
#define EFAULT 14
#define ENOMEM 12
#define ECHILD 10
#if defined(__mips__)
#define ETIMEDOUT 145
#else
#define ETIMEDOUT 110
#endif

// Signals.
#define SIGPIPE 13
#define SIGALRM 14
#if defined(__mips__)
#define SIGBUS 10
#define SIGUSR1 16
#define SIGUSR2 17
#define SIGCHLD 18
#define SIGCONT 25
#define SIGSTOP 23
#define SIG_BLOCK 1
#define SIG_UNBLOCK 2
#define SIG_SETMASK 3
#define SA_SIGINFO 8
#define SET_WORDS (16 / sizeof(word))
#else
#define SIGBUS 7
#define SIGUSR1 10
#define SIGUSR2 12
#define SIGCHLD 17
#define SIGCONT 18
#define SIGSTOP 19
#define SIG_BLOCK 0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
#define SA_SIGINFO 4
#define SET_WORDS (8 / sizeof(word))
#endif
#define SA_ONSTACK 0x08000000
#define SA_RESTART 0x10000000
#define SA_NODEFER 0x40000000
#define SA_RESETHAND 0x80000000
#define SET_SIZE (SET_WORDS * sizeof(word))
#define SI_USER 0
#define SI_QUEUE (-1)
#define SI_TIMER (-2)
#define SI_TKILL (-6)

// Memory.
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#if defined(__mips__)
#define MAP_ANONYMOUS 0x800
#else
#define MAP_ANONYMOUS 0x20
#endif
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#define MADV_DONTNEED 4
#define MS_SYNC 4
// No page is larger than this.
#define BLOCK 65536ul

typedef struct { word bits[SET_WORDS]; } sigset;

// The kernel's sigaction.
struct action {
#if defined(__mips__)
  unsigned flags;
  void *handler;
  sigset mask;
#else
  void *handler;
  word flags;
#if !defined(__riscv)
  void *restorer;
#endif
  sigset mask;
#if defined(__riscv)
  sigset again; // where qemu-user looks for it: it knows of a restorer that this kernel has not
#endif
#endif
};

struct siginfo {
  int signo;
#if defined(__mips__)
  int code, error;
#else
  int error, code;
#endif
  union {
    struct { int pid; unsigned uid; union { int status; word value; } u; } from;
    struct { int id, overrun; word value; } timer;
    word address;
    char all[sizeof(word) == 8 ? 128 - 16 : 128 - 12];
  } u;
};

#if defined(__mips__)
struct stack { void *at; word size; int flags; };
#else
struct stack { void *at; int flags; word size; };
#endif

struct timespec { long seconds, nanoseconds; };
struct timer_value { struct timespec interval, value; };

static inline void set_add(sigset *set, int signal) {
  set->bits[(word)(signal - 1) / (8 * sizeof(word))] |= 1ul << ((word)(signal - 1) % (8 * sizeof(word)));
}
static inline int set_has(const sigset *set, int signal) {
  return set->bits[(word)(signal - 1) / (8 * sizeof(word))] >> ((word)(signal - 1) % (8 * sizeof(word))) & 1;
}
static inline sigset set_of(int signal) {
  sigset set;
  for (word i = 0; i < SET_WORDS; i++) { set.bits[i] = 0; __asm__ volatile("" ::: "memory"); }
  if (signal) set_add(&set, signal);
  return set;
}

// The way back from a handler, where it is the C library's to give (and qemu-user's own is none).
#define SA_RESTORER 0x04000000
#if defined(__x86_64__)
__asm__(".globl back_from_handler\nback_from_handler: mov $15,%eax\n syscall\n");
#elif defined(__i386__)
__asm__(".globl back_from_handler\nback_from_handler: mov $173,%eax\n int $0x80\n");
#elif defined(__arm__)
__asm__(".globl back_from_handler\n.type back_from_handler,%function\nback_from_handler: mov r7,#173\n svc 0\n");
#endif
void back_from_handler(void);

// Asks for a handler that is told everything; also blocked meanwhile, beside the signal itself: `also` (0: nothing).
static inline long handle(int signal, void *handler, word flags, int also) {
  struct action action;
  action.handler = handler;
  action.flags = flags | SA_SIGINFO;
  action.mask = set_of(also);
#if defined(__x86_64__) || defined(__i386__) || defined(__arm__)
  action.flags |= SA_RESTORER;
  action.restorer = (void *)back_from_handler;
#elif defined(__riscv)
  action.again = action.mask;
#elif !defined(__mips__)
  action.restorer = 0;
#endif
  return SYS(rt_sigaction, signal, &action, 0, SET_SIZE);
}
static inline void block(int how, int signal) {
  sigset set = set_of(signal);
  check("sigprocmask", SYS(rt_sigprocmask, how, &set, 0, SET_SIZE) == 0);
}
static inline long own_pid(void) { return SYS(getpid, 0, 0, 0, 0); }
static inline long own_tid(void) { return SYS(gettid, 0, 0, 0, 0); }
static inline void nap(long milliseconds) {
  struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
  SYS(nanosleep, &time, 0, 0, 0);
}
static inline long fork_child(void) {
#if defined(__s390x__)
  return SYS5(clone, 0, SIGCHLD, 0, 0, 0);
#else
  return SYS5(clone, SIGCHLD, 0, 0, 0, 0);
#endif
}
static inline int wait_for(long pid, int how) {
  int status = -1;
  check("wait", SYS(wait4, pid, &status, how, 0) == pid);
  return status;
}

// mmap, whose six arguments each family takes in its own way; positions are multiples of BLOCK.
static inline char *map(void *at, word size, int protection, int flags, long fd, word position) {
#if defined(__i386__) || defined(__s390x__)
  word words[6] = { (word)at, size, (word)protection, (word)flags, (word)fd, position };
  return (char *)sys5(90, (long)words, 0, 0, 0, 0);
#elif defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = flags;
  register long r8 __asm__("r8") = fd;
  register long r9 __asm__("r9") = (long)position;
  __asm__ volatile("syscall" : "=a"(result) : "a"(9), "D"(at), "S"(size), "d"((long)protection), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return (char *)result;
#elif defined(__arm__)
  register long r7 __asm__("r7") = 192; // mmap2 counts in 4096 bytes
  register long r0 __asm__("r0") = (long)at;
  register long r1 __asm__("r1") = (long)size;
  register long r2 __asm__("r2") = protection;
  register long r3 __asm__("r3") = flags;
  register long r4 __asm__("r4") = fd;
  register long r5 __asm__("r5") = (long)(position / 4096);
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
  return (char *)r0;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = 222;
  register long x0 __asm__("x0") = (long)at;
  register long x1 __asm__("x1") = (long)size;
  register long x2 __asm__("x2") = protection;
  register long x3 __asm__("x3") = flags;
  register long x4 __asm__("x4") = fd;
  register long x5 __asm__("x5") = (long)position;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return (char *)x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = 222;
  register long a0 __asm__("a0") = (long)at;
  register long a1 __asm__("a1") = (long)size;
  register long a2 __asm__("a2") = protection;
  register long a3 __asm__("a3") = flags;
  register long a4 __asm__("a4") = fd;
  register long a5 __asm__("a5") = (long)position;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
  return (char *)a0;
#elif defined(__mips__) && defined(__mips64)
  register long v0 __asm__("$2") = 5009;
  register long a0 __asm__("$4") = (long)at;
  register long a1 __asm__("$5") = (long)size;
  register long a2 __asm__("$6") = protection;
  register long a3 __asm__("$7") = flags;
  register long a4 __asm__("$8") = fd;
  register long a5 __asm__("$9") = (long)position;
  __asm__ volatile("syscall" : "+r"(v0), "+r"(a3), "+r"(a4), "+r"(a5) : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return (char *)(a3 ? -v0 : v0);
#elif defined(__mips__)
  register long v0 __asm__("$2") = 4090;
  register long a0 __asm__("$4") = (long)at;
  register long a1 __asm__("$5") = (long)size;
  register long a2 __asm__("$6") = protection;
  register long a3 __asm__("$7") = flags;
  register long t0 __asm__("$8") = fd;
  register long t1 __asm__("$9") = (long)position;
  __asm__ volatile("subu $29,$29,32\n\tsw $8,16($29)\n\tsw $9,20($29)\n\tsyscall\n\taddu $29,$29,32"
                   : "+r"(v0), "+r"(a3), "+r"(t0), "+r"(t1) : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return (char *)(a3 ? -v0 : v0);
#elif defined(__powerpc__)
  register long r0 __asm__("r0") = 90;
  register long r3 __asm__("r3") = (long)at;
  register long r4 __asm__("r4") = (long)size;
  register long r5 __asm__("r5") = protection;
  register long r6 __asm__("r6") = flags;
  register long r7 __asm__("r7") = fd;
  register long r8 __asm__("r8") = (long)position;
  __asm__ volatile("sc\n\tbns+ 1f\n\tneg 3,3\n1:" : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7), "+r"(r8)
                   : : "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
  return (char *)r3;
#endif
}
static inline int mapped(const char *at) { return (word)at < (word)-4095; }
static inline char *anonymous(word size) {
  char *at = map(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check("mmap", mapped(at));
  return at;
}

// *at becomes `to` if it is `from`; whether it was.
static inline int swap_if(volatile int *at, int from, int to) {
#if defined(__arm__) && __ARM_ARCH < 6
  // The kernel's own, at a fixed address (Documentation/arch/arm/kernel_user_helpers.rst).
  return ((int (*)(int, int, volatile int *))0xffff0fc0)(from, to, at) == 0;
#else
  return __atomic_compare_exchange_n(at, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
#endif
}
static inline int add(volatile int *at, int more) {
  int old;
  do old = *at; while (!swap_if(at, old, old + more));
  return old + more;
}

#define CLONE_THREAD_OF_PROCESS 0x50f00 // VM FS FILES SIGHAND THREAD SYSVSEM
#define CLONE_PARENT_SETTID 0x100000
#define CLONE_CHILD_CLEARTID 0x200000
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

// A thread: `main` with `argument` on the stack that ends at `top`. `main` must not return. `tid` is set before it runs, and
// cleared, and whoever waits there woken, when it has ended.
static inline long start_thread(char *top, volatile int *tid, void (*main)(word), word argument) {
  word flags = CLONE_THREAD_OF_PROCESS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  word *stack = (word *)(((word)top - 512) & ~63ul);
#if defined(__i386__)
  stack--; // so that the argument is where a function expects it
#endif
  stack[0] = (word)main;
  stack[1] = argument;
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = (long)tid;
  register long r8 __asm__("r8") = 0;
  __asm__ volatile("syscall\n\ttest %%eax,%%eax\n\tjnz 1f\n\txor %%ebp,%%ebp\n\tpop %%rax\n\tpop %%rdi\n\tcall *%%rax\n\thlt\n1:"
                   : "=a"(result) : "a"(NR_clone), "D"(flags), "S"(stack), "d"(tid), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
#elif defined(__i386__)
  long result;
  __asm__ volatile("int $0x80\n\ttest %%eax,%%eax\n\tjnz 1f\n\tpop %%eax\n\tcall *%%eax\n\thlt\n1:"
                   : "=a"(result) : "a"(NR_clone), "b"(flags), "c"(stack), "d"(tid), "S"(0), "D"(tid) : "memory");
  return result;
#elif defined(__arm__)
  register long r7 __asm__("r7") = NR_clone;
  register long r0 __asm__("r0") = (long)flags;
  register long r1 __asm__("r1") = (long)stack;
  register long r2 __asm__("r2") = (long)tid;
  register long r3 __asm__("r3") = 0;
  register long r4 __asm__("r4") = (long)tid;
  __asm__ volatile("svc 0\n\tcmp r0,#0\n\tbne 1f\n\tldr r1,[sp]\n\tldr r0,[sp,#4]\n\tblx r1\n1:"
                   : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4) : "memory", "cc", "lr");
  return r0;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = NR_clone;
  register long x0 __asm__("x0") = (long)flags;
  register long x1 __asm__("x1") = (long)stack;
  register long x2 __asm__("x2") = (long)tid;
  register long x3 __asm__("x3") = 0;
  register long x4 __asm__("x4") = (long)tid;
  __asm__ volatile("svc 0\n\tcbnz x0,1f\n\tldr x1,[sp]\n\tldr x0,[sp,#8]\n\tblr x1\n1:"
                   : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory", "x30");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = NR_clone;
  register long a0 __asm__("a0") = (long)flags;
  register long a1 __asm__("a1") = (long)stack;
  register long a2 __asm__("a2") = (long)tid;
  register long a3 __asm__("a3") = 0;
  register long a4 __asm__("a4") = (long)tid;
  __asm__ volatile("ecall\n\tbnez a0,1f\n\tld t0,0(sp)\n\tld a0,8(sp)\n\tjalr t0\n1:"
                   : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory", "t0", "ra");
  return a0;
#elif defined(__mips__) && defined(__mips64)
  register long v0 __asm__("$2") = NR_clone;
  register long a0 __asm__("$4") = (long)flags;
  register long a1 __asm__("$5") = (long)stack;
  register long a2 __asm__("$6") = (long)tid;
  register long a3 __asm__("$7") = 0;
  register long a4 __asm__("$8") = (long)tid;
  __asm__ volatile(".set push\n\t.set noreorder\n\tsyscall\n\tbnez $2,1f\n\tnop\n\tld $25,0($29)\n\tld $4,8($29)\n\tjalr $25\n\tnop\n1:\t.set pop"
                   : "+r"(v0), "+r"(a3), "+r"(a4) : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "$31", "memory");
  return a3 ? -v0 : v0;
#elif defined(__mips__)
  register long v0 __asm__("$2") = NR_clone;
  register long a0 __asm__("$4") = (long)flags;
  register long a1 __asm__("$5") = (long)stack;
  register long a2 __asm__("$6") = (long)tid;
  register long a3 __asm__("$7") = 0;
  register long t0 __asm__("$8") = (long)tid;
  __asm__ volatile(".set push\n\t.set noreorder\n\taddiu $29,$29,-32\n\tsw $8,16($29)\n\tsyscall\n\tbnez $2,1f\n\tnop\n\tlw $25,0($29)\n\tlw $4,4($29)\n\t"
                   "jalr $25\n\tnop\n1:\taddiu $29,$29,32\n\t.set pop"
                   : "+r"(v0), "+r"(a3), "+r"(t0) : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "$31", "memory");
  return a3 ? -v0 : v0;
#elif defined(__powerpc__)
  register long r0 __asm__("r0") = NR_clone;
  register long r3 __asm__("r3") = (long)flags;
  register long r4 __asm__("r4") = (long)stack;
  register long r5 __asm__("r5") = (long)tid;
  register long r6 __asm__("r6") = 0;
  register long r7 __asm__("r7") = (long)tid;
  __asm__ volatile("sc\n\tbns+ 2f\n\tneg 3,3\n2:\tcmpwi 3,0\n\tbne 1f\n\t"
#if defined(__powerpc64__)
                   "ld 12,0(1)\n\tld 3,8(1)\n\t"
#else
                   "lwz 12,0(1)\n\tlwz 3,4(1)\n\t"
#endif
                   "mtctr 12\n\tbctrl\n1:"
                   : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
                   : : "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "lr", "memory");
  return r3;
#elif defined(__s390x__)
  register long r1 __asm__("1") = NR_clone;
  register long r2 __asm__("2") = (long)stack;
  register long r3 __asm__("3") = (long)flags;
  register long r4 __asm__("4") = (long)tid;
  register long r5 __asm__("5") = (long)tid;
  register long r6 __asm__("6") = 0;
  __asm__ volatile("svc 0\n\tltgr %%r2,%%r2\n\tjne 1f\n\tlg %%r1,0(%%r15)\n\tlg %%r2,8(%%r15)\n\tbasr %%r14,%%r1\n1:"
                   : "+d"(r2), "+d"(r1) : "d"(r3), "d"(r4), "d"(r5), "d"(r6) : "r14", "memory", "cc");
  return r2;
#endif
}
static inline void end_thread(void) { for (;;) SYS(exit, 0, 0, 0, 0); }
static inline void sleep_on(volatile int *at, int while_it_is) { SYS5(futex, at, FUTEX_WAIT, while_it_is, 0, 0); }
static inline long wake(volatile int *at, int most) { return SYS5(futex, at, FUTEX_WAKE, most, 0, 0); }
static inline void join_thread(volatile int *tid) { for (int now; (now = *tid) != 0;) sleep_on(tid, now); }

#endif // PROCESS_H
