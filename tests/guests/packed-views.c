// Code that is written at one address and runs at another, as packers do who want no memory that is both: in a file without a name
// that is mapped twice. (armeb is left out: its code is little-endian under BE8 and big-endian under BE32.)
//! targets: !armeb !sparc64
//! stdout: first 42
//! stdout: beside 43
//! stdout: the other way round 42
#include "code.h"
#include "process.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  long fd = SYS(memfd_create, "packed", 0, 0, 0);
  check("memfd_create", fd >= 0 && SYS(ftruncate, fd, BLOCK, 0, 0) == 0);
  volatile unit *written = (unit *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile unit *runs = (unit *)map(0, BLOCK, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  check("maps", mapped((char *)written) && mapped((char *)runs));
  write_code(written, forty_two, runs);
  say("first", run_code(runs));
  write_code(written + 1024 / sizeof(unit), forty_three, runs + 1024 / sizeof(unit));
  say("beside", run_code(runs + 1024 / sizeof(unit)));
  // Mapped to run first, to be written later.
  volatile unit *late = (unit *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check("a third map", mapped((char *)late));
  write_code(late + 2048 / sizeof(unit), forty_two, runs + 2048 / sizeof(unit));
  say("the other way round", run_code(runs + 2048 / sizeof(unit)));
  return 0;
}
