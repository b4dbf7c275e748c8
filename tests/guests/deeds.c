// Does what it is told to, so that somebody can forbid it: reaches for an address, listens, runs a program, makes, names and removes files.
// `revive` and `flood` go on for ever.
// `deeds DEED`: does it and says what came of it. `deeds DEED COUNT`: so many children do it, one after the other, each of which
// says `further` when it goes on. `deeds option` and `deeds variable` run a program in an emulator that is told to write a file.
// `deeds all`: a list of them, each told. Zero: it could be done, or failed for reasons of its own.
//! args: all
//! stdout: connect 0
//! stdout: message 0
//! stdout: listen 0
//! stdout: create 0
//! stdout: mkdir 0
//! stdout: bind 0
//! stdout: rename 0
//! stdout: delete 0
//! targets: !sparc64
#include "process.h"
#include "sockets.h"

#define EPERM 1
#define EACCES 13

static const char *const deeds[] = {"connect", "message", "listen", "create", "mkdir", "bind", "rename", "delete", 0};

static int is(const char *a, const char *b) { return length(a) == length(b) && same(a, b, length(a)); }

// Has the kernel tell it to go on, a thousand times a second, whoever stopped it.
static void revive(void) {
  static struct { word value; int signal, notify; long space[16]; } event;
  static word often[4];
  event.signal = SIGCONT;
  often[1] = often[3] = 1000000;
  int timer = 0;
  check("timer_create", SYS(timer_create, 1, &event, &timer, 0) == 0);
  check("timer_settime", SYS(timer_settime, timer, 0, often, 0) == 0);
}

// So many calls that nobody counts further.
static void flood(long calls) {
  for (long at = 0; at < calls; at++) SYS(close, -1, 0, 0, 0);
}

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
  if (is(what, "revive")) {
    revive();
    deed("create");
    for (;;) flood(1000);
  }
  if (is(what, "flood")) {
    flood(3000);
    deed("create");
    for (;;) flood(1000);
  }
  if (is(what, "clone3")) {
    static unsigned long long nothing[11];
    return SYS(clone3, nothing, 0, 0, 0);
  }
  if (is(what, "bind")) {
    struct { unsigned short family; char name[100]; } file = {1, "deeds-socket"};
    return SYS(bind, SYS(socket, 1, SOCK_STREAM, 0, 0), &file, sizeof file, 0);
  }
  if (is(what, "rename")) return SYS5(renameat2, AT_FDCWD, "deeds-file", AT_FDCWD, "deeds-file", 0);
  if (is(what, "mkdir")) return SYS(mkdirat, AT_FDCWD, "deeds-folder", 0700, 0);
  if (is(what, "delete")) return SYS(unlinkat, AT_FDCWD, "deeds-file", 0, 0);
  if (is(what, "exec")) {
    const char *arguments[] = {"/tmp/sample", "hello", 0};
    return SYS(execve, arguments[0], arguments, arguments + 2, 0);
  }
  if (is(what, "option")) {
    const char *arguments[] = {"qemu", "-d", "unimp", "-D", "/tmp/deeds-log", "/tmp/sample", "hello", 0};
    return SYS(execve, "/.hotcell/qemu", arguments, arguments + 7, 0);
  }
  if (is(what, "variable")) {
    const char *arguments[] = {"/tmp/sample", "hello", 0}, *variables[] = {"QEMU_LOG=unimp", "QEMU_LOG_FILENAME=/tmp/deeds-log", 0};
    return SYS(execve, arguments[0], arguments, variables, 0);
  }
  if (is(what, "hello")) { put("executed\n"); return 0; }
  check("a deed that it knows", 0);
  return 0;
}

static void tell(const char *what) {
  long result = deed(what);
  say(what, result == -EPERM || result == -EACCES ? -EPERM : 0);
}

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
