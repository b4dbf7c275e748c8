// Says that it has begun, and with a word for how, never ends: `spins`; `twice`, a child spins too; `closed`, without its output.
//! targets: !sparc64
//! stdout: begun
#include "process.h"

int guest(int argc, char **argv) {
  long file = SYS(openat, AT_FDCWD, "made", O_CREAT | O_WRONLY, 0644);
  check("a file", file >= 0 && SYS(write, file, "before", 6, 0) == 6);
  put("begun\n");
  if (argc < 2) return 0;
  if (same(argv[1], "twice", 6)) fork_child();
  if (same(argv[1], "closed", 7))
    for (long stream = 1; stream < 3; stream++) SYS(close, stream, 0, 0, 0);
  for (;;) __asm__ volatile("" ::: "memory");
}
