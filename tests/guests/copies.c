// Writes a file of 16 MiB and reads it back, as often as its argument says, 64 KiB at a time.
//! args: 1
//! stdout: bytes 33554432
#include "guest.h"

static char buffer[1 << 16];

int guest(int argc, char **argv) {
  word times = argc > 1 ? number(argv[1]) : 1;
  long bytes = 0;
  for (word place = 0; place < sizeof buffer; place++) buffer[place] = (char)(place * 31 >> 3);
  while (times--)
    for (int reads = 0; reads < 2; reads++) {
      long fd = SYS(openat, AT_FDCWD, "guest-copy", reads ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
      check("open", fd >= 0);
      for (int part = 0; part < 256; part++) {
        long done = reads ? SYS(read, fd, buffer, sizeof buffer, 0) : SYS(write, fd, buffer, sizeof buffer, 0);
        check("a part", done == sizeof buffer);
        bytes += done;
      }
      SYS(close, fd, 0, 0, 0);
    }
  SYS(unlinkat, AT_FDCWD, "guest-copy", 0, 0);
  say("bytes", bytes);
  return 0;
}
