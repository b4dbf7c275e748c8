// Unix sockets, TCP and UDP over the loopback, descriptors sent along, and who waits for them: epoll, eventfd, timerfd, FIFOs.
//! stdout: pair 5
//! stdout: end of the stream 0
//! stdout: nobody there -2
//! stdout: listening 1
//! stdout: accepted 4
//! stdout: descriptor 3
//! stdout: tcp 6
//! stdout: udp 4
//! stdout: epoll 1
//! stdout: edge 0
//! stdout: one shot 0
//! stdout: eventfd 5
//! stdout: empty -11
//! stdout: semaphore 1
//! stdout: timer 1
//! stdout: fifo 4
//! stdout: memory file 6
//! stdout: done 0
//! targets: !sparc64
#include "sockets.h"

#define S_IFIFO 0010000

#if defined(__x86_64__)
struct __attribute__((packed)) event { unsigned events; unsigned long long data; };
#else
struct event { unsigned events; unsigned long long data; };
#endif
#define EPOLLIN 1u
#define EPOLLONESHOT (1u << 30)
#define EPOLLET (1u << 31)

static long wait_for(int poll, struct event *found, int most, int timeout) {
  return SYS5(epoll_pwait, poll, found, most, timeout, 0);
}

static void streams(void) {
  char buffer[64];
  int pair[2];
  check("socketpair", SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  check("write", SYS(write, pair[0], "hello", 5, 0) == 5);
  say("pair", SYS(read, pair[1], buffer, sizeof buffer, 0));
  check("what was written", same(buffer, "hello", 5));
  check("shutdown", SYS(shutdown, pair[0], 1, 0, 0) == 0);
  say("end of the stream", SYS(read, pair[1], buffer, sizeof buffer, 0));
  check("the other way", SYS(write, pair[1], "x", 1, 0) == 1 && SYS(read, pair[0], buffer, 1, 0) == 1);
  SYS(close, pair[0], 0, 0, 0);
  struct iov iov = {"x", 1};
  struct message to_nobody = {0, 0, &iov, 1, 0, 0, 0};
  check("nobody hears it", SYS(sendmsg, pair[1], &to_nobody, MSG_NOSIGNAL, 0) == -EPIPE);
  SYS(close, pair[1], 0, 0, 0);
}

static void names(void) {
  char buffer[64];
  struct unix_address name = {AF_UNIX, "guest.sock"};
  long client = SYS(socket, AF_UNIX, SOCK_STREAM, 0, 0);
  say("nobody there", SYS(connect, client, &name, sizeof name, 0));
  long server = SYS(socket, AF_UNIX, SOCK_STREAM, 0, 0);
  check("bind", SYS(bind, server, &name, sizeof name, 0) == 0);
  check("the file is there", SYS(connect, client, &name, sizeof name, 0) == -ECONNREFUSED);
  check("listen", SYS(listen, server, 4, 0, 0) == 0);
  long second = SYS(socket, AF_UNIX, SOCK_STREAM, 0, 0);
  check("the name is taken", SYS(bind, second, &name, sizeof name, 0) == -EADDRINUSE);
  check("connect", SYS(connect, client, &name, sizeof name, 0) == 0);
  int type = 0;
  unsigned size = sizeof type;
  check("getsockopt", SYS5(getsockopt, server, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM);
  say("listening", size == 4);
  struct unix_address peer;
  unsigned length = sizeof peer;
  long accepted = SYS(accept4, server, &peer, &length, 0);
  check("accept", accepted >= 0 && peer.family == AF_UNIX);
  check("write", SYS(write, client, "ping", 4, 0) == 4);
  say("accepted", SYS(read, accepted, buffer, sizeof buffer, 0));

  // A pipe's end goes over, and is read here.
  int pipe[2];
  check("pipe", SYS(pipe2, pipe, 0, 0, 0) == 0 && SYS(write, pipe[1], "abc", 3, 0) == 3);
  struct iov iov = {buffer, 1};
  struct rights rights = {sizeof(word) + 8 + 4, SOL_SOCKET, SCM_RIGHTS, pipe[0], 0};
  struct message message = {0, 0, &iov, 1, &rights, sizeof(word) + 8 + 4, 0};
  buffer[0] = '!';
  check("sendmsg", SYS(sendmsg, client, &message, 0, 0) == 1);
  SYS(close, pipe[0], 0, 0, 0);
  struct rights got = {0, 0, 0, -1, 0};
  message.control = &got, message.control_length = sizeof got;
  check("recvmsg", SYS(recvmsg, accepted, &message, 0, 0) == 1);
  check("control", got.level == SOL_SOCKET && got.type == SCM_RIGHTS && got.fd >= 0);
  say("descriptor", SYS(read, got.fd, buffer, sizeof buffer, 0));
  check("through it", same(buffer, "abc", 3));
  check("unlink", SYS(unlinkat, AT_FDCWD, "guest.sock", 0, 0) == 0);
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
}

static void loopback(void) {
  char buffer[64];
  struct inet_address own = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}}, peer;
  unsigned length = sizeof own;
  long server = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("bind", SYS(bind, server, &own, sizeof own, 0) == 0);
  check("getsockname", SYS(getsockname, server, &own, &length, 0) == 0 && (own.port[0] || own.port[1]));
  long client = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("nobody listens", SYS(connect, client, &own, sizeof own, 0) == -ECONNREFUSED);
  check("listen", SYS(listen, server, 1, 0, 0) == 0);
  client = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("connect", SYS(connect, client, &own, sizeof own, 0) == 0);
  length = sizeof peer;
  long accepted = SYS(accept4, server, &peer, &length, 0);
  check("accept", accepted >= 0 && peer.family == AF_INET && peer.host[0] == 127);
  check("write", SYS(write, accepted, "secret", 6, 0) == 6);
  say("tcp", SYS(read, client, buffer, sizeof buffer, 0));

  struct inet_address to = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
  long a = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0), b = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  check("bind", SYS(bind, a, &to, sizeof to, 0) == 0);
  length = sizeof to;
  check("getsockname", SYS(getsockname, a, &to, &length, 0) == 0);
  struct iov iov = {"ping", 4};
  struct message message = {&to, sizeof to, &iov, 1, 0, 0, 0};
  check("sendmsg", SYS(sendmsg, b, &message, 0, 0) == 4);
  iov.base = buffer, iov.length = 2, message.name = &peer, message.name_length = sizeof peer;
  check("the first half", SYS(recvmsg, a, &message, 0x20, 0) == 4 && same(buffer, "pi", 2) && message.flags & 0x20);
  length = sizeof own;
  check("its sender", SYS(getsockname, b, &own, &length, 0) == 0 && peer.port[0] == own.port[0] && peer.port[1] == own.port[1]);
  check("an answer", SYS(connect, a, &peer, sizeof peer, 0) == 0 && SYS(write, a, "pong", 4, 0) == 4);
  say("udp", SYS(read, b, buffer, sizeof buffer, 0));

  // An address that connect chose is given up, one that was asked for stays.
  struct inet_address nobody = {0, {0, 0}, {0, 0, 0, 0}, {0}};
  long e = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  check("connect", SYS(connect, e, &to, sizeof to, 0) == 0);
  length = sizeof own;
  check("a source", SYS(getsockname, e, &own, &length, 0) == 0 && own.host[0] == 127 && (own.port[0] || own.port[1]));
  check("disconnect", SYS(connect, e, &nobody, sizeof nobody, 0) == 0);
  length = sizeof own;
  check("no source", SYS(getsockname, e, &own, &length, 0) == 0 && own.host[0] == 0 && !own.port[0] && !own.port[1]);
  check("disconnect", SYS(connect, a, &nobody, sizeof nobody, 0) == 0);
  length = sizeof own;
  check("its own", SYS(getsockname, a, &own, &length, 0) == 0 && own.host[0] == 127);
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
}

static void waiting(void) {
  char buffer[64];
  int pair[2];
  struct event event = {EPOLLIN, 7}, found[4];
  check("socketpair", SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  long poll = SYS(epoll_create1, 0, 0, 0, 0);
  check("add", SYS(epoll_ctl, poll, 1, pair[0], &event) == 0);
  check("nothing yet", wait_for((int)poll, found, 4, 0) == 0);
  SYS(write, pair[1], "x", 1, 0);
  say("epoll", wait_for((int)poll, found, 4, -1));
  check("what and who", found[0].events == EPOLLIN && found[0].data == 7);
  event.events = EPOLLIN | EPOLLET;
  check("modify", SYS(epoll_ctl, poll, 3, pair[0], &event) == 0);
  check("an edge", wait_for((int)poll, found, 4, 0) == 1);
  say("edge", wait_for((int)poll, found, 4, 0));
  SYS(write, pair[1], "y", 1, 0);
  check("another", wait_for((int)poll, found, 4, 0) == 1);
  event.events = EPOLLIN | EPOLLONESHOT;
  check("modify", SYS(epoll_ctl, poll, 3, pair[0], &event) == 0);
  check("once", wait_for((int)poll, found, 4, 0) == 1);
  say("one shot", wait_for((int)poll, found, 4, 0));
  check("delete", SYS(epoll_ctl, poll, 2, pair[0], 0) == 0 && SYS(epoll_ctl, poll, 2, pair[0], 0) == -ENOENT);

  unsigned long long value = 2, sum = 0;
  long counter = SYS(eventfd2, 3, O_NONBLOCK, 0, 0);
  check("count", SYS(write, counter, &value, 8, 0) == 8 && SYS(read, counter, &sum, 8, 0) == 8);
  say("eventfd", (long)sum);
  say("empty", SYS(read, counter, &sum, 8, 0));
  long semaphore = SYS(eventfd2, 3, 1, 0, 0);
  check("one of three", SYS(read, semaphore, &sum, 8, 0) == 8);
  say("semaphore", (long)sum);

  long timer = SYS(timerfd_create, 1, 0, 0, 0);
  long times[4] = {0, 0, 0, 200000000};
  check("settime", SYS(timerfd_settime, timer, 0, times, 0) == 0);
  event.events = EPOLLIN, event.data = 9;
  check("add", SYS(epoll_ctl, poll, 1, timer, &event) == 0);
  check("not yet", wait_for((int)poll, found, 4, 0) == 0);
  check("later", wait_for((int)poll, found, 4, 5000) == 1 && found[0].data == 9);
  check("read", SYS(read, timer, &sum, 8, 0) == 8);
  say("timer", (long)sum);

  check("mknod", SYS(mknodat, AT_FDCWD, "guest-fifo", S_IFIFO | 0600, 0) == 0);
  check("nobody reads", SYS(openat, AT_FDCWD, "guest-fifo", O_WRONLY | O_NONBLOCK, 0) == -6);
  long reader = SYS(openat, AT_FDCWD, "guest-fifo", O_RDONLY | O_NONBLOCK, 0);
  long writer = SYS(openat, AT_FDCWD, "guest-fifo", O_WRONLY, 0);
  check("open", reader >= 0 && writer >= 0 && SYS(write, writer, "fifo", 4, 0) == 4);
  say("fifo", SYS(read, reader, buffer, sizeof buffer, 0));
  check("unlink", SYS(unlinkat, AT_FDCWD, "guest-fifo", 0, 0) == 0);

  long memory = SYS(memfd_create, "guest", 0, 0, 0);
  check("memfd", memory >= 0 && SYS(write, memory, "inside", 6, 0) == 6);
  char path[32] = "/proc/self/fd/";
  path[14] = (char)('0' + memory / 10), path[15] = (char)('0' + memory % 10), path[16] = 0;
  if (memory < 10) path[14] = path[15], path[15] = 0;
  long again = SYS(openat, AT_FDCWD, path, O_RDONLY, 0);
  say("memory file", SYS(read, again, buffer, sizeof buffer, 0));
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  streams();
  names();
  loopback();
  waiting();
  say("done", 0);
  return 0;
}
