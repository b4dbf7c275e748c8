// What a handler finds in its ucontext_t: registers as they were, and what it changes there is how its program goes on.
//! stdout: fault address 0
//! stdout: at the instruction 1
//! stdout: register seen 5
//! stdout: went on 1
//! stdout: register changed 42
//! stdout: illegal at the instruction 1
//! stdout: went on 1
//! stdout: register changed 42
//! stdout: not blocked 0
//! stdout: blocked by the handler 1
//! stdout: nothing changed 1
//! targets: !sparc64
#include "process.h"

#define SIGILL 4

// Bytes from the beginning of ucontext_t to the program counter, to one general register (whose name follows) and to uc_sigmask
// (asm/ucontext.h, asm/sigcontext.h). ppc has a pointer to its registers there.
#if defined(__x86_64__)
enum { PC = 40 + 16 * 8, KEPT = 40 + 11 * 8, MASK = 296 };
#define KEPT_NAME "rbx"
#define LOAD "mov (%1), %%rax"
#define CLOBBERS "rax"
#define ILLEGAL "ud2"
#elif defined(__i386__)
enum { PC = 20 + 14 * 4, KEPT = 20 + 4 * 4, MASK = 108 };
#define KEPT_NAME "edi"
#define LOAD "mov (%1), %%eax"
#define CLOBBERS "eax"
#define ILLEGAL "ud2"
#elif defined(__arm__)
enum { PC = 20 + 18 * 4, KEPT = 20 + 7 * 4, MASK = 104 };
#define KEPT_NAME "r4"
#define LOAD "ldr r3, [%1]"
#define CLOBBERS "r3"
#define ILLEGAL ".inst 0xe7f000f0"
#elif defined(__aarch64__)
enum { PC = 176 + 33 * 8, KEPT = 176 + 20 * 8, MASK = 40 };
#define KEPT_NAME "x19"
#define LOAD "ldr x9, [%1]"
#define CLOBBERS "x9"
#define ILLEGAL ".inst 0"
#elif defined(__riscv)
enum { PC = 176, KEPT = 176 + 9 * 8, MASK = 40 };
#define KEPT_NAME "s1"
#define LOAD "ld t0, 0(%1)"
#define CLOBBERS "t0"
#define ILLEGAL "unimp"
#elif defined(__mips__) && defined(__mips64)
enum { PC = 40 + 72 * 8, KEPT = 40 + 16 * 8, MASK = 640 };
#define KEPT_NAME "$16"
#define LOAD "ld $8, 0(%1)"
#define CLOBBERS "$8"
#define ILLEGAL ".word 0xec000000"
#elif defined(__mips__)
enum { PC = 24 + 8, KEPT = 24 + 16 + 16 * 8, MASK = 616 };
#define WIDE 1
#define KEPT_NAME "$16"
#define LOAD "lw $8, 0(%1)"
#define CLOBBERS "$8"
#define ILLEGAL ".word 0xec000000"
#elif defined(__powerpc64__)
enum { POINTER = 224, PC = 32 * 8, KEPT = 29 * 8, MASK = 40 };
#define KEPT_NAME "r29"
#define LOAD "ld 9, 0(%1)"
#define CLOBBERS "r9"
#define ILLEGAL ".long 0"
#elif defined(__powerpc__)
enum { POINTER = 48, PC = 32 * 4, KEPT = 29 * 4, MASK = 52 };
#define KEPT_NAME "r29"
#define LOAD "lwz 9, 0(%1)"
#define CLOBBERS "r9"
#define ILLEGAL ".long 0"
#elif defined(__s390x__)
enum { PC = 40 + 8, KEPT = 40 + 16 + 7 * 8, MASK = 384 };
#define KEPT_NAME "r7"
#define LOAD "lg %%r0, 0(%1)"
#define CLOBBERS "r0"
#define ILLEGAL ".short 0"
#endif

#if defined(WIDE)
typedef unsigned long long field;
#else
typedef word field;
#endif

static field *in(void *context, word at) {
  char *from = context;
#if defined(__powerpc__)
  from = *(char **)(from + POINTER);
#endif
  return (field *)(from + at);
}

extern char fault_at[], fault_after[], illegal_at[], illegal_after[];

static void on_fault(int signal, struct siginfo *info, void *context) {
  (void)signal;
  say("fault address", (long)info->u.address);
  say("at the instruction", *in(context, PC) == (field)(word)fault_at);
  say("register seen", (long)*in(context, KEPT));
  *in(context, PC) = (field)(word)fault_after;
  *in(context, KEPT) = 42;
}
static void on_illegal(int signal, struct siginfo *info, void *context) {
  (void)signal, (void)info;
#if defined(__s390x__)
  // It stands behind the instruction.
  say("illegal at the instruction", *in(context, PC) == (field)(word)illegal_after);
#else
  say("illegal at the instruction", *in(context, PC) == (field)(word)illegal_at);
#endif
  *in(context, PC) = (field)(word)illegal_after;
  *in(context, KEPT) = 42;
}
static void on_told(int signal, struct siginfo *info, void *context) {
  (void)signal, (void)info;
  set_add((sigset *)((char *)context + MASK), SIGUSR2);
}
static volatile int seen;
static void on_nothing(int signal) { (void)signal; seen++; }

__attribute__((noinline)) static void fault(char *null) {
  register long kept __asm__(KEPT_NAME) = 5;
  __asm__ volatile(".globl fault_at, fault_after\nfault_at: " LOAD "\nfault_after:" : "+r"(kept) : "r"(null) : CLOBBERS, "memory");
  long now = kept;
  say("went on", 1);
  say("register changed", now);
}
__attribute__((noinline)) static void illegal(void) {
  register long kept __asm__(KEPT_NAME) = 5;
  __asm__ volatile(".globl illegal_at, illegal_after\nillegal_at: " ILLEGAL "\nillegal_after:" : "+r"(kept) : : "memory");
  long now = kept;
  say("went on", 1);
  say("register changed", now);
}

static int is_blocked(int signal) {
  sigset set = set_of(0);
  check("sigprocmask", SYS(rt_sigprocmask, SIG_BLOCK, 0, &set, SET_SIZE) == 0);
  return set_has(&set, signal);
}

int guest(int argc, char **argv) {
  (void)argv;
  handle(SIGSEGV, (void *)on_fault, 0, 0);
  handle(SIGILL, (void *)on_illegal, 0, 0);
  handle(SIGUSR1, (void *)on_told, 0, 0);
  // Null as far as the compiler does not see it.
  fault((char *)(word)(argc - 1));
  illegal();
  say("not blocked", is_blocked(SIGUSR2));
  SYS(kill, own_pid(), SIGUSR1, 0, 0);
  say("blocked by the handler", is_blocked(SIGUSR2));
  // A call that goes on after a handler that changes nothing.
  handle(SIGALRM, (void *)on_nothing, 0, 0);
  SYS(kill, own_pid(), SIGALRM, 0, 0);
  say("nothing changed", seen);
  return 0;
}
