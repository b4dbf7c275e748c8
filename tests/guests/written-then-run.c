// Writes machine code into its own memory and runs it, with different code in the same place, beside data, and where nothing
// may run while it is written: a loader or a packer does the same. (armeb is left out: its code is little-endian under BE8 and big-endian under BE32.)
//! targets: !armeb
//! stdout: first 42
//! stdout: second 43
//! stdout: alternating 425
//! stdout: protected 42
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
// 64 KiB: the greatest page size among the targets, so that mprotect touches nothing else.
static volatile unit place[0x10000 / sizeof(unit)] __attribute__((aligned(0x10000)));

static void write_code(const unit *code, word units) {
  for (word i = 0; i < units; i++) place[i] = code[i];
#if defined(__arm__)
  register long r7 __asm__("r7") = 0xf0002; // ARM's private call cacheflush
  register word r0 __asm__("r0") = (word)place;
  register word r1 __asm__("r1") = (word)(place + units);
  register long r2 __asm__("r2") = 0;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
#elif defined(__aarch64__)
  __asm__ volatile("dc cvau,%0\n dsb ish\n ic ivau,%0\n dsb ish\n isb" ::"r"(place) : "memory");
#elif defined(__powerpc__)
  __asm__ volatile("dcbst 0,%0\n sync\n icbi 0,%0\n isync" ::"r"(place) : "memory");
#elif defined(__riscv)
  __asm__ volatile("fence.i" ::: "memory");
#elif defined(__sparc__)
  __asm__ volatile("flush %0" ::"r"(place) : "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

static long run(const unit *code, word units) {
  write_code(code, units);
  return ((int (*)(void))(word)place)();
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_WRITE | PROT_EXEC, 0) == 0);
  say("first", run(forty_two, sizeof forty_two / sizeof *forty_two));
  say("second", run(forty_three, sizeof forty_three / sizeof *forty_three));
  // Beside data of the same page.
  volatile unsigned *sum = (volatile unsigned *)(place + 1024 / sizeof(unit));
  for (int turn = 0; turn < 10; turn++) {
    *sum += (unsigned)(turn & 1 ? run(forty_three, sizeof forty_three / sizeof *forty_three)
                                : run(forty_two, sizeof forty_two / sizeof *forty_two));
    sum[1] = *sum;
  }
  say("alternating", (long)*sum);
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_WRITE, 0) == 0);
  write_code(forty_two, sizeof forty_two / sizeof *forty_two);
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_EXEC, 0) == 0);
  say("protected", ((int (*)(void))(word)place)());
  return 0;
}
