// The calls that the oldest programs of x86_64 jump to, at addresses that never change.
//! stdout: gettimeofday 0
//! stdout: time 1
//! stdout: getcpu 0
//! stdout: in the maps 1
//! targets: x86_64
#include "guest.h"

static char maps[16384];

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  long (*gettimeofday)(long *, void *) = (long (*)(long *, void *))0xffffffffff600000;
  long (*time)(long *) = (long (*)(long *))0xffffffffff600400;
  long (*getcpu)(unsigned *, unsigned *, void *) = (long (*)(unsigned *, unsigned *, void *))0xffffffffff600800;
  long now[2] = {0, -1}, then = 0;
  unsigned cpu = 99, node = 99;
  say("gettimeofday", gettimeofday(now, 0));
  check("a time", now[0] > 1000000000 && now[1] >= 0 && now[1] < 1000000);
  say("time", time(&then) == then && then >= now[0] && then - now[0] < 60);
  say("getcpu", getcpu(&cpu, &node, 0));
  check("a processor", cpu < 99 && node < 99);
  long fd = SYS(openat, AT_FDCWD, "/proc/self/maps", O_RDONLY, 0), held = 0, more;
  while (held < (long)sizeof maps && (more = SYS(read, fd, maps + held, sizeof maps - (word)held, 0)) > 0) held += more;
  int there = 0;
  for (long at = 0; at + 10 <= held; at++) there |= same(maps + at, "[vsyscall]", 10);
  say("in the maps", there);
  return 0;
}
