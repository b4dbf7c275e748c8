// Small functions as machine code, and what a processor must be told when code has been written.
#ifndef CODE_H
#define CODE_H

#include "guest.h"

#if defined(__x86_64__) || defined(__i386__)
typedef unsigned char unit;
#define CODE(n) {0xb8, n, 0, 0, 0, 0xc3} // mov $n,%eax; ret
#elif defined(__arm__)
typedef unsigned int unit;
#define CODE(n) {0xe3a00000u | n, 0xe12fff1eu} // mov r0,#n; bx lr
#elif defined(__aarch64__)
typedef unsigned int unit;
#define CODE(n) {0x52800000u | n << 5, 0xd65f03c0u} // mov w0,#n; ret
#elif defined(__mips__)
typedef unsigned int unit;
#define CODE(n) {0x03e00008u, 0x24020000u | n} // jr ra; li v0,n
#elif defined(__powerpc__)
typedef unsigned int unit;
#define CODE(n) {0x38600000u | n, 0x4e800020u} // li r3,n; blr
#elif defined(__riscv)
typedef unsigned int unit;
#define CODE(n) {0x00000513u | n << 20, 0x00008067u} // li a0,n; ret
#elif defined(__s390x__)
typedef unsigned short unit;
#define CODE(n) {0xa729, n, 0x07fe} // lghi r2,n; br r14
#elif defined(__sparc__)
typedef unsigned int unit;
#define CODE(n) {0x81c3e008u, 0x90102000u | n} // retl; mov n,%o0
#endif

static const unit forty_two[] = CODE(42), forty_three[] = CODE(43);
#define UNITS (sizeof forty_two / sizeof *forty_two)

// Writes code that will run at `runs`.
static inline void write_code(volatile unit *place, const unit *code, volatile unit *runs) {
  for (word i = 0; i < UNITS; i++) place[i] = code[i];
  (void)runs;
#if defined(__arm__)
  register long r7 __asm__("r7") = 0xf0002; // ARM's private call cacheflush
  register word r0 __asm__("r0") = (word)runs;
  register word r1 __asm__("r1") = (word)(runs + UNITS);
  register long r2 __asm__("r2") = 0;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
#elif defined(__aarch64__)
  __asm__ volatile("dc cvau,%0\n dsb ish\n ic ivau,%0\n dsb ish\n isb" ::"r"(runs) : "memory");
#elif defined(__powerpc__)
  __asm__ volatile("dcbst 0,%0\n sync\n icbi 0,%1\n isync" ::"r"(place), "r"(runs) : "memory");
#elif defined(__riscv)
  __asm__ volatile("fence.i" ::: "memory");
#elif defined(__sparc__)
  __asm__ volatile("flush %0" ::"r"(runs) : "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

static inline int run_code(volatile unit *place) { return ((int (*)(void))(word)place)(); }

#endif
