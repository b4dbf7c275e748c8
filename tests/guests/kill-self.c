// Sends itself a signal that nothing handles.
//! signal: SIGTERM
//! stdout: before
#include "guest.h"

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  put("before\n");
  SYS(kill, SYS(getpid, 0, 0, 0, 0), SIGTERM, 0, 0);
  put("after\n");
  return 0;
}
