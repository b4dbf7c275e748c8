// The same place of a file that is mapped twice, written again and again at one address while it runs at the other; and memory
// that gets a second place. (Judged only where the host itself does it: qemu-user knows neither.)
//! targets: !armeb !sparc64
//! under: native
//! stdout: turns 850
//! stdout: another place 1
//! stdout: executed from a map 1
#include "code.h"
#include "process.h"

int guest(int argc, char **argv) {
  if (argc > 1) return 0;
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
  // A program that is written through a map, and executed while it is mapped.
  long from = SYS(openat, AT_FDCWD, "/proc/self/exe", O_RDONLY, 0);
  long to = SYS(memfd_create, "program", 0, 0, 0);
  check("a copy", from >= 0 && to >= 0 && SYS(ftruncate, to, 4 * BLOCK, 0, 0) == 0);
  char *copy_of = map(0, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
  long size = SYS(read, from, copy_of, 4 * BLOCK, 0);
  check("its size", size > 0 && SYS(ftruncate, to, size, 0, 0) == 0);
  long child = fork_child();
  if (child == 0) {
    const char *words[] = {argv[0], "again", 0};
    SYS5(execveat, to, "", words, 0, 0x1000); // AT_EMPTY_PATH
    quit(9);
  }
  say("executed from a map", wait_for(child, 0) == 0);
  return 0;
}
