// Executes an instruction that the processor does not know.
//! signal: SIGILL
//! stdout: before
#include "guest.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  put("before\n");
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("ud2");
#elif defined(__arm__)
  __asm__ volatile(".inst 0xe7f000f0"); // udf #0
#elif defined(__aarch64__)
  __asm__ volatile(".inst 0"); // udf #0
#elif defined(__mips__)
  __asm__ volatile(".word 0xec000000"); // an opcode that is reserved before release 6
#elif defined(__sparc__)
  __asm__ volatile("unimp 0");
#elif defined(__riscv)
  __asm__ volatile("unimp");
#else
  __asm__ volatile(".long 0"); // powerpc, s390x: opcode 0
#endif
  put("after\n");
  return 0;
}
