// What /proc/self tells of a program: what it calls itself, what it was told, and who it became.
//! args: first second
//! stdout: auxv 1
//! stdout: renamed 1
//! stdout: longer 1
//! stdout: executed 1
//! under: native
#include "guest.h"

static char text[4096];

static long read_all(const char *path) {
  long fd = SYS(openat, AT_FDCWD, path, O_RDONLY, 0), held = 0, more;
  while (held < (long)sizeof text && (more = SYS(read, fd, text + held, sizeof text - (word)held, 0)) > 0) held += more;
  SYS(close, fd, 0, 0, 0);
  return held;
}

int guest(int argc, char **argv) {
  if (argc == 2) {
    // The program that was executed, with the file of the one before still open.
    long held = SYS(read, argv[1][0] - '0', text, sizeof text, 0);
    char *name = "new";
    say("executed", held == 6 && same(text, name, 4) && same(text + 4, argv[1], 2));
    return 0;
  }
  char **environment = argv + argc + 1;
  while (*environment) environment++;
  word *told = (word *)(environment + 1), length = 0;
  while (told[length]) length += 2;
  length = (length + 2) * sizeof(word);
  // Linux tells more of the vector than it puts there: zeros behind the end.
  say("auxv", read_all("/proc/self/auxv") >= (long)length && same(text, (char *)told, (int)length));

  argv[1][0] = 'F';
  argv[2][0] = 'S';
  long held = read_all("/proc/self/cmdline");
  say("renamed", held > 13 && same(text + held - 13, "First\0Second", 13));
  // Over the end of the arguments.
  char *end = argv[2] + 6;
  *end = '!';
  argv[0][0] = 'N';
  for (char *at = argv[0]; at < end; at++) *at = 'n';
  held = read_all("/proc/self/cmdline");
  say("longer", held > end - argv[0] && text[0] == 'n' && text[end - argv[0]] == '!' && text[held - 1] == 0);

  long fd = SYS(openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY, 0);
  char number[2] = {(char)('0' + fd), 0};
  char *arguments[] = {"new", number, 0}, *none[] = {0};
  return (int)SYS(execve, "/proc/self/exe", arguments, none, 0);
}
