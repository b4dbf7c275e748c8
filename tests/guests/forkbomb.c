// With the word `bomb`: forks for as long as it can, as do all that come of it. Without it: a single child. For the tests of limits.
//! targets: !sparc64
//! stdout: begun
#include "process.h"

int guest(int argc, char **argv) {
  put("begun\n");
  if (argc < 2 || !same(argv[1], "bomb", 5)) {
    long child = fork_child();
    if (child == 0) quit(0);
    return wait_for(child, 0);
  }
  for (;;) fork_child();
}
