// With a word it takes memory for as long as it is given some: `all` by itself, `child` in a child. Without one: a little.
//! targets: !sparc64
//! stdout: begun
#include "process.h"

static void take(void) {
  const word piece = 64 * BLOCK;
  char *at;
  while (mapped(at = map(0, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
    for (word byte = 0; byte < piece; byte += 4096) at[byte] = 1;
}

int guest(int argc, char **argv) {
  put("begun\n");
  if (argc < 2) return !mapped(map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (same(argv[1], "child", 6)) {
    long child = fork_child();
    if (child) {
      int status = wait_for(child, 0);
      say("the child ended by", status & 127);
      return 0;
    }
  }
  take();
  put("all is taken\n");
  return 0;
}
