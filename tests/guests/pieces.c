// Memory in thousands of pieces: every second block of a map goes, every fourth is kept from being written, and all
// the others still hold what they held; then the same blocks come back at the same addresses, empty.
//! targets: !sparc64
//! stdout: holes made 1
//! stdout: kept from being written 1
//! stdout: nothing was lost 1
//! stdout: filled again 1
//! stdout: the new ones are empty 1
//! stdout: gone 1
#include "process.h"

enum { PIECES = 1200 };

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  char *all = (char *)map(0, PIECES * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check("map", mapped(all));
  for (int i = 0; i < PIECES; i++) *(int *)(all + i * BLOCK) = i + 1;
  int good = 1;
  for (int i = 1; i < PIECES; i += 2) good &= SYS(munmap, all + i * BLOCK, BLOCK, 0, 0) == 0;
  say("holes made", good);
  for (int i = 0; i < PIECES; i += 4) good &= SYS(mprotect, all + i * BLOCK, BLOCK, PROT_READ, 0) == 0;
  say("kept from being written", good);
  for (int i = 0; i < PIECES; i += 2) good &= *(int *)(all + i * BLOCK) == i + 1;
  for (int i = 2; i < PIECES; i += 4) *(int *)(all + i * BLOCK + 4) = i;
  say("nothing was lost", good);
  for (int i = 1; i < PIECES; i += 2) {
    char *at = (char *)map(all + i * BLOCK, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    good &= at == all + i * BLOCK;
  }
  say("filled again", good);
  for (int i = 0; i < PIECES; i++) good &= *(int *)(all + i * BLOCK) == (i % 2 ? 0 : i + 1);
  for (int i = 2; i < PIECES; i += 4) good &= *(int *)(all + i * BLOCK + 4) == i;
  say("the new ones are empty", good);
  say("gone", SYS(munmap, all, PIECES * BLOCK, 0, 0) == 0);
  return 0;
}
