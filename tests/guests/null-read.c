// Reads address 0.
//! signal: SIGSEGV
//! stdout: before
#include "guest.h"

int guest(int argc, char **argv) {
  (void)argv;
  put("before\n");
  // From the arguments, so that the compiler cannot know that it is 0.
  volatile int *nowhere = (volatile int *)(word)(argc - 1);
  int value = *nowhere;
  say("after", value);
  return 0;
}
