// The least that is a program: one write, one exit.
//! stdout: hello from the guest
#include "guest.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  put("hello from the guest\n");
  return 0;
}
