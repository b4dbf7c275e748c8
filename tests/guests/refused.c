// What a processor of x86 refuses a program, and what the signal says of it: its number, its code, and whether it names the
// instruction, what is behind it, the address it was to reach, or nothing. One fault does not change how the next is told.
//! targets: x86 x86_64
//! under: native
//! stdout: ud2 4 2 instruction
//! stdout: int3 5 128 nothing
//! stdout: icebp 5 1 behind
//! stdout: int_1 11 128 nothing
//! stdout: in 11 128 nothing
//! stdout: out 11 128 nothing
//! stdout: hlt 11 128 nothing
//! stdout: divide 8 1 instruction
//! stdout: movaps 11 128 nothing
//! stdout: andps 11 128 nothing
//! stdout: movups 0 0 nothing
//! stdout: cvtps2pd 0 0 nothing
//! stdout: roundsd 0 0 nothing
//! stdout: trap_flag 5 2 behind
//! stdout: null 11 1 address
//! stdout: second 8 1 instruction
#include "process.h"

#if defined(__x86_64__)
#define SP "%rsp"
#else
#define SP "%esp"
#endif

static const char *name;
static char *want_at, *want_behind;
static int faults;

static void told(int signal, int code, char *address) {
  put(name);
  put(" ");
  put_number(signal);
  put(" ");
  put_number(code);
  put(!address                 ? " nothing\n"
      : address == want_at     ? " instruction\n"
      : address == want_behind ? " behind\n"
      : address == (char *)8   ? " address\n"
                               : " elsewhere\n");
  quit(0);
}

// One instruction between two labels.
#define PIECE(what, before, instruction)                                                                     \
  __asm__(#what ": " before "\n" #what "_at: " instruction "\n" #what "_behind: ret\n");                     \
  void what(void);                                                                                           \
  extern char what##_at[], what##_behind[];
#define ATTEMPT(what)                                                                                        \
  if (fork_child() == 0) {                                                                                   \
    name = #what, want_at = what##_at, want_behind = what##_behind;                                          \
    what();                                                                                                  \
    told(0, 0, 0);                                                                                           \
  } else SYS(wait4, -1, 0, 0, 0)

PIECE(ud2, "", "ud2")
PIECE(int3, "", "int3")
PIECE(icebp, "", ".byte 0xf1")
PIECE(int_1, "", "int $1")
PIECE(in, "", "inb $0x80,%al")
PIECE(out, "", "outb %al,$0x80")
PIECE(hlt, "", "hlt")
PIECE(divide, "xor %ecx,%ecx", "idivl %ecx")
PIECE(movaps, "and $-16," SP "\n sub $4096," SP, "movaps 1(" SP "),%xmm0")
PIECE(andps, "and $-16," SP "\n sub $4096," SP, "andps 8(" SP "),%xmm0")
PIECE(movups, "", "movups -31(" SP "),%xmm0")
PIECE(cvtps2pd, "", "cvtps2pd -31(" SP "),%xmm0")
PIECE(roundsd, "", "roundsd $9,-31(" SP "),%xmm0")
PIECE(trap_flag, "pushf\n orl $0x100,(" SP ")\n popf", "nop")
PIECE(null, "", "movl $1,8")
PIECE(first, "", "hlt")
PIECE(second, "xor %ecx,%ecx", "idivl %ecx")

static void on_signal(int signal, struct siginfo *info, void *context) {
  (void)context;
  if (faults++ == 0 && want_at == second_at) second();
  told(signal, info->code, (char *)info->u.address);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  static const int signals[] = {4, 5, 7, 8, 11};
  for (word i = 0; i < sizeof signals / sizeof *signals; i++) handle(signals[i], (void *)on_signal, SA_NODEFER, 0);
  ATTEMPT(ud2);
  ATTEMPT(int3);
  ATTEMPT(icebp);
  ATTEMPT(int_1);
  ATTEMPT(in);
  ATTEMPT(out);
  ATTEMPT(hlt);
  ATTEMPT(divide);
  ATTEMPT(movaps);
  ATTEMPT(andps);
  ATTEMPT(movups);
  ATTEMPT(cvtps2pd);
  ATTEMPT(roundsd);
  ATTEMPT(trap_flag);
  ATTEMPT(null);
  // A division by zero in the handler of another fault.
  if (fork_child() == 0) {
    name = "second", want_at = second_at, want_behind = second_behind;
    first();
  } else SYS(wait4, -1, 0, 0, 0);
  return 0;
}
