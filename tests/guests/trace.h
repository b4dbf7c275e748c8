// What guests need that make processes and trace them: numbers of calls, requests of ptrace, registers of each architecture.
#ifndef TRACE_H
#define TRACE_H
#include "guest.h"

#if defined(__x86_64__)
#define NR_ptrace 101
#define NR_process_vm_readv 310
#define NR_process_vm_writev 311
#define NR_wait4 61
#define NR_clone 56
#define NR_lseek 8
#define NR_getppid 110
#define NR_nanosleep 35
#define NR_sched_yield 24
#define NR_clock_gettime 228
#elif defined(__i386__)
#define NR_ptrace 26
#define NR_process_vm_readv 347
#define NR_process_vm_writev 348
#define NR_wait4 114
#define NR_clone 120
#define NR_lseek 19
#define NR_getppid 64
#define NR_nanosleep 162
#define NR_sched_yield 158
#define NR_clock_gettime 265
#elif defined(__arm__)
#define NR_ptrace 26
#define NR_process_vm_readv 376
#define NR_process_vm_writev 377
#define NR_wait4 114
#define NR_clone 120
#define NR_lseek 19
#define NR_getppid 64
#define NR_nanosleep 162
#define NR_sched_yield 158
#define NR_clock_gettime 263
#elif defined(__aarch64__) || defined(__riscv)
#define NR_ptrace 117
#define NR_process_vm_readv 270
#define NR_process_vm_writev 271
#define NR_wait4 260
#define NR_clone 220
#define NR_lseek 62
#define NR_getppid 173
#define NR_nanosleep 101
#define NR_sched_yield 124
#define NR_clock_gettime 113
#elif defined(__mips__) && defined(__mips64)
#define NR_ptrace 5099
#define NR_process_vm_readv 5304
#define NR_process_vm_writev 5305
#define NR_wait4 5059
#define NR_clone 5055
#define NR_lseek 5008
#define NR_getppid 5108
#define NR_nanosleep 5034
#define NR_sched_yield 5023
#define NR_clock_gettime 5222
#elif defined(__mips__)
#define NR_ptrace 4026
#define NR_process_vm_readv 4345
#define NR_process_vm_writev 4346
#define NR_wait4 4114
#define NR_clone 4120
#define NR_lseek 4019
#define NR_getppid 4064
#define NR_nanosleep 4166
#define NR_sched_yield 4162
#define NR_clock_gettime 4263
#elif defined(__powerpc__)
#define NR_ptrace 26
#define NR_process_vm_readv 351
#define NR_process_vm_writev 352
#define NR_wait4 114
#define NR_clone 120
#define NR_lseek 19
#define NR_getppid 64
#define NR_nanosleep 162
#define NR_sched_yield 158
#define NR_clock_gettime 246
#elif defined(__s390x__)
#define NR_ptrace 26
#define NR_process_vm_readv 340
#define NR_process_vm_writev 341
#define NR_wait4 114
#define NR_clone 120
#define NR_lseek 19
#define NR_getppid 64
#define NR_nanosleep 162
#define NR_sched_yield 158
#define NR_clock_gettime 260
#endif

#define PTRACE_TRACEME 0
#define PTRACE_PEEKDATA 2
#define PTRACE_POKETEXT 4
#define PTRACE_POKEDATA 5
#define PTRACE_CONT 7
#define PTRACE_ATTACH 16
#define PTRACE_DETACH 17
#define PTRACE_SYSCALL 24
#define PTRACE_SETOPTIONS 0x4200
#define PTRACE_GETEVENTMSG 0x4201
#define PTRACE_GETSIGINFO 0x4202
#define PTRACE_GETREGSET 0x4204
#define PTRACE_SETREGSET 0x4205
#define PTRACE_SEIZE 0x4206
#define PTRACE_INTERRUPT 0x4207
#define WALL 0x40000000

// The signals whose numbers differ.
#if defined(__mips__)
#define SIGCHLD 18
#define SIGSTOP 23
#else
#define SIGCHLD 17
#define SIGSTOP 19
#endif
#define SIGTRAP 5
#define EPERM 1
#define ESRCH 3

// Where NT_PRSTATUS has the program counter, and how many words it has.
#if defined(__x86_64__)
#define PC 16
#define WORDS 27
#elif defined(__i386__)
#define PC 12
#define WORDS 17
#elif defined(__arm__)
#define PC 15
#define WORDS 18
#elif defined(__aarch64__)
#define PC 32
#define WORDS 34
#elif defined(__riscv)
#define PC 0
#define WORDS 32
#elif defined(__mips__) && defined(__mips64)
#define PC 34
#define WORDS 45
#elif defined(__mips__)
#define PC 40
#define WORDS 45
#elif defined(__powerpc__)
#define PC 32
#define WORDS 48
#elif defined(__s390x__)
#define PC 1
#define WORDS 27
#endif

struct iov { void *base; word length; };

static inline long fork_(void) {
#if defined(__s390x__)
  return SYS5(clone, 0, SIGCHLD, 0, 0, 0);
#else
  return SYS5(clone, SIGCHLD, 0, 0, 0, 0);
#endif
}

// The status of the next that stops or ends; it must be this one.
static inline int status_of(long pid) {
  int status = -1;
  long got = SYS(wait4, pid, &status, WALL, 0);
  check("wait", got == pid);
  return status;
}

static inline long ptrace(long request, long pid, long address, long data) {
  return SYS(ptrace, request, pid, address, data);
}

// A call whose sixth argument is zero.
static inline long sys6_zero(long number, long a, long b, long c, long d, long e) {
#if defined(__x86_64__)
  long result;
  register long r9 __asm__("r9") = 0;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#elif defined(__i386__)
  long result;
  __asm__ volatile("push %%ebp\n\txor %%ebp,%%ebp\n\tint $0x80\n\tpop %%ebp"
                   : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
  return result;
#elif defined(__arm__)
  register long r7 __asm__("r7") = number;
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  register long r5 __asm__("r5") = 0;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
  return r0;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = number;
  register long a0 __asm__("a0") = a;
  register long a1 __asm__("a1") = b;
  register long a2 __asm__("a2") = c;
  register long a3 __asm__("a3") = d;
  register long a4 __asm__("a4") = e;
  register long a5 __asm__("a5") = 0;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
  return a0;
#elif defined(__mips__) && defined(__mips64)
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long a4 __asm__("$8") = e;
  register long a5 __asm__("$9") = 0;
  __asm__ volatile("syscall"
                   : "+r"(v0), "+r"(a3), "+r"(a4), "+r"(a5)
                   : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return a3 ? -v0 : v0;
#elif defined(__mips__)
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long t0 __asm__("$8") = e;
  __asm__ volatile("subu $29,$29,32\n\tsw $8,16($29)\n\tsw $0,20($29)\n\tsyscall\n\taddu $29,$29,32"
                   : "+r"(v0), "+r"(a3), "+r"(t0)
                   : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return a3 ? -v0 : v0;
#elif defined(__powerpc__)
  register long r0 __asm__("r0") = number;
  register long r3 __asm__("r3") = a;
  register long r4 __asm__("r4") = b;
  register long r5 __asm__("r5") = c;
  register long r6 __asm__("r6") = d;
  register long r7 __asm__("r7") = e;
  register long r8 __asm__("r8") = 0;
  __asm__ volatile("sc\n\tbns+ 1f\n\tneg 3,3\n1:"
                   : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7), "+r"(r8)
                   :
                   : "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
  return r3;
#elif defined(__s390x__)
  register long r1 __asm__("1") = number;
  register long r2 __asm__("2") = a;
  register long r3 __asm__("3") = b;
  register long r4 __asm__("4") = c;
  register long r5 __asm__("5") = d;
  register long r6 __asm__("6") = e;
  register long r7 __asm__("7") = 0;
  __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6), "d"(r7) : "memory");
  return r2;
#endif
}
#define SYS6_ZERO(name, a, b, c, d, e) sys6_zero(NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

#endif
