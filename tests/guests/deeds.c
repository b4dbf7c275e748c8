// Does what it is told to, so that somebody can forbid it: reaches for an address, listens, runs a program, makes and removes files.
// `deeds DEED`: does it and says what came of it. `deeds DEED COUNT`: so many children do it, one after the other, each of which
// says `further` when it goes on. `deeds all`: all but `exec`. Zero: it could be done, or failed for reasons of its own.
//! args: all
//! stdout: connect 0
//! stdout: message 0
//! stdout: listen 0
//! stdout: create 0
//! stdout: mkdir 0
//! stdout: delete 0
//! targets: !sparc64
#include "process.h"
#include "sockets.h"

#define EPERM 1

static const char *const deeds[] = {"connect", "message", "listen", "create", "mkdir", "delete", 0};

static int is(const char *a, const char *b) { return length(a) == length(b) && same(a, b, length(a)); }

static long deed(const char *what) {
  // Nobody answers at the port for discarding (RFC 863).
  struct inet_address nobody = {AF_INET, {0, 9}, {127, 0, 0, 1}, {0}};
  struct iov iov = {"x", 1};
  struct message message = {&nobody, sizeof nobody, &iov, 1, 0, 0, 0};
  if (is(what, "connect")) return SYS(connect, SYS(socket, AF_INET, SOCK_STREAM, 0, 0), &nobody, sizeof nobody, 0);
  long datagrams = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  if (is(what, "message")) return SYS(sendmsg, datagrams, &message, 0, 0);
  SYS(close, datagrams, 0, 0, 0);
  if (is(what, "listen")) return SYS(listen, SYS(socket, AF_INET, SOCK_STREAM, 0, 0), 1, 0, 0);
  if (is(what, "create")) return SYS(openat, AT_FDCWD, "deeds-file", O_WRONLY | O_CREAT, 0600);
  if (is(what, "mkdir")) return SYS(mkdirat, AT_FDCWD, "deeds-folder", 0700, 0);
  if (is(what, "delete")) return SYS(unlinkat, AT_FDCWD, "deeds-file", 0, 0);
  if (is(what, "exec")) {
    const char *arguments[] = {"/tmp/sample", "hello", 0};
    return SYS(execve, arguments[0], arguments, arguments + 2, 0);
  }
  if (is(what, "hello")) { put("executed\n"); return 0; }
  check("a deed that it knows", 0);
  return 0;
}

static void tell(const char *what) { say(what, deed(what) == -EPERM ? -EPERM : 0); }

int guest(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "all";
  if (is(what, "all")) {
    for (int i = 0; deeds[i]; i++) tell(deeds[i]);
    return 0;
  }
  if (argc < 3) {
    tell(what);
    return 0;
  }
  long ended = 0, count = (long)number(argv[2]);
  for (long i = 0; i < count; i++) {
    long child = fork_child();
    check("fork", child >= 0);
    if (!child) {
      deed(what);
      put("further\n");
      quit(0);
    }
    int status = wait_for(child, 0);
    if ((status & 0x7f) == SIGKILL) ended++;
  }
  say("ended", ended);
  return 0;
}
