// Writes machine code into its own memory and runs it, with different code in the same place, beside data, and where nothing
// may run while it is written: a loader or a packer does the same. (armeb is left out: its code is little-endian under BE8 and big-endian under BE32.)
//! targets: !armeb
//! stdout: first 42
//! stdout: second 43
//! stdout: alternating 425
//! stdout: protected 42
#include "code.h"

// 64 KiB: the greatest page size among the targets, so that mprotect touches nothing else.
static volatile unit place[0x10000 / sizeof(unit)] __attribute__((aligned(0x10000)));

static long run(const unit *code) {
  write_code(place, code, place);
  return run_code(place);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_WRITE | PROT_EXEC, 0) == 0);
  say("first", run(forty_two));
  say("second", run(forty_three));
  // Beside data of the same page.
  volatile unsigned *sum = (volatile unsigned *)(place + 1024 / sizeof(unit));
  for (int turn = 0; turn < 10; turn++) {
    *sum += (unsigned)(turn & 1 ? run(forty_three)
                                : run(forty_two));
    sum[1] = *sum;
  }
  say("alternating", (long)*sum);
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_WRITE, 0) == 0);
  write_code(place, forty_two, place);
  check("mprotect", SYS(mprotect, place, sizeof place, PROT_READ | PROT_EXEC, 0) == 0);
  say("protected", run_code(place));
  return 0;
}
