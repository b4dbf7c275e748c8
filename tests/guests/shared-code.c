// Code in memory that two processes share: one writes it while the other has run what stood there before. (Only where the
// processor itself sees to it that the other runs the new code; an emulator has to.)
//! targets: x86_64
//! under: native
//! stdout: before 42
//! stdout: after 43
//! stdout: own 44
#include "process.h"

static const unsigned char code[] = {0xb8, 0, 0, 0, 0, 0xc3}; // mov $n,%eax; ret

static void place_code(volatile unsigned char *place, unsigned char n) {
  for (word i = 0; i < sizeof code; i++) place[i] = i == 1 ? n : code[i];
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  char *place = map(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check("mmap", (long)place > 0 || (long)place < -4095);
  place_code((unsigned char *)place, 42);
  int (*run)(void) = (int (*)(void))(word)place;
  say("before", run());
  long child = fork_child();
  if (child == 0) {
    place_code((unsigned char *)place, 43);
    SYS(exit, run() != 43, 0, 0, 0);
  }
  check("the child ran it", wait_for(child, 0) == 0);
  say("after", run());
  place_code((unsigned char *)place, 44);
  say("own", run());
  return 0;
}
