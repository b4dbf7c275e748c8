// The same place of a file that is mapped twice, written again and again at one address while it runs at the other; and memory
// that gets a second place. (Judged only where the host itself does it: qemu-user knows neither.)
//! targets: !armeb !sparc64
//! under: native
//! stdout: turns 850
//! stdout: another place 1
#include "code.h"
#include "process.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  long fd = SYS(memfd_create, "packed", 0, 0, 0);
  check("memfd_create", fd >= 0 && SYS(ftruncate, fd, BLOCK, 0, 0) == 0);
  volatile unit *written = (unit *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile unit *runs = (unit *)map(0, BLOCK, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  check("maps", mapped((char *)written) && mapped((char *)runs));
  volatile unsigned *sum = (volatile unsigned *)(written + 1024 / sizeof(unit));
  for (int turn = 0; turn < 20; turn++) {
    write_code(written, turn & 1 ? forty_three : forty_two, runs);
    *sum += (unsigned)run_code(runs);
  }
  say("turns", (long)*(volatile unsigned *)(runs + 1024 / sizeof(unit)));
  // mremap(2): an old size of zero.
  volatile int *old = (int *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  volatile int *copy = (int *)SYS(mremap, old, 0, BLOCK, MREMAP_MAYMOVE);
  check("mremap", mapped((char *)copy));
  old[5] = 9;
  say("another place", copy != old && copy[5] == 9);
  return 0;
}
