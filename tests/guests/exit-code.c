// An exit code that is not 0, out of the arguments: the sum of the lengths of argv[1..].
//! args: fourteen fifteen-letters twelve-chars
//! exit: 35
//! stdout: argc 4
//! stdout: fourteen
//! stdout: fifteen-letters
//! stdout: twelve-chars
#include "guest.h"

int guest(int argc, char **argv) {
  word sum = 0;
  say("argc", argc);
  for (int i = 1; i < argc; i++) {
    put(argv[i]);
    put("\n");
    sum += length(argv[i]);
  }
  check("argv ends with a null pointer", argv[argc] == 0);
  return (int)sum;
}
