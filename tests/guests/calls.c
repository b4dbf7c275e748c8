// Asks who it is, as often as its argument says: the shortest system call there is. `make bench` has it ask a hundred thousand times.
//! args: 10
//! stdout: asked 10
#include "guest.h"

int guest(int argc, char **argv) {
  word times = argc > 1 ? number(argv[1]) : 1;
  long first = SYS(getpid, 0, 0, 0, 0);
  for (word time = 0; time < times; time++)
    if (SYS(getpid, 0, 0, 0, 0) != first) return 1;
  say("asked", (long)times);
  return 0;
}
