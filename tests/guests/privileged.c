// What only a kernel may do is refused to a program: it is signalled.
//! targets: x86 x86_64
//! stdout: cli 11
//! stdout: hlt 11
//! stdout: rdmsr 11
//! stdout: cr0 11
//! stdout: clts 11
#include "process.h"

static void cli(void) { __asm__ volatile("cli"); }
static void hlt(void) { __asm__ volatile("hlt"); }
static void rdmsr(void) { __asm__ volatile("rdmsr" ::"c"(0x10) : "eax", "edx"); }
static void clts(void) { __asm__ volatile("clts"); }
static void cr0(void) {
  word value;
  __asm__ volatile("mov %%cr0,%0" : "=r"(value));
}

static void attempt(const char *name, void (*what)(void)) {
  long child = fork_child();
  if (child == 0) {
    what();
    SYS(exit, 0, 0, 0, 0);
  }
  int status = -1;
  SYS(wait4, child, &status, 0, 0);
  say(name, status & 127);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  attempt("cli", cli);
  attempt("hlt", hlt);
  attempt("rdmsr", rdmsr);
  attempt("cr0", cr0);
  attempt("clts", clts);
  return 0;
}
