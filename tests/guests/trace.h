// What guests need that make processes and trace them: requests of ptrace, registers of each architecture.
#ifndef TRACE_H
#define TRACE_H
#include "process.h"

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

#define SIGTRAP 5
#define EPERM 1

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


#endif
