// Makes a system call that no Linux has: it must fail with ENOSYS, and the program go on.
//! stdout: ENOSYS 1
#include "guest.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  say("ENOSYS", sys5(NR_nothing, 1, 2, 3, 4, 5) == -ENOSYS);
  return 0;
}
