// Who hears whom: long messages through full streams, peers of connected datagram sockets, connections that are taken back.
//! stdout: waited for all 300000
//! stdout: sum 11366
//! stdout: short at the end 1000
//! stdout: stream 600000
//! stdout: pipe 600000
//! stdout: a whole megabyte 1000000
//! stdout: a part 1
//! stdout: nothing to nobody 0
//! stdout: from the peer 1
//! stdout: from nobody else -11
//! stdout: to whom it is meant 1
//! stdout: own address 127
//! stdout: reset -104
//! stdout: again 5
//! stdout: nobody listens any more -104
//! stdout: shared port 1
//! stdout: alone 1
//! stdout: done 0
//! targets: !sparc64
#include "process.h"
#include "sockets.h"

#define MSG_DONTWAIT 0x40
#define MSG_WAITALL 0x100
#if defined(__mips__)
#define SO_REUSEPORT 0x200
#define ECONNRESET 131
#else
#define SO_REUSEPORT 15
#define ECONNRESET 104
#endif

#define LONG 600000
static char large[1000000];
static char buffer[LONG + 10007]; // a read may ask for more than is left

static long receive(long fd, void *at, word size, long flags) {
  struct iov iov = {at, size};
  struct message message = {0, 0, &iov, 1, 0, 0, 0};
  return SYS(recvmsg, fd, &message, flags, 0);
}

static void fill(void) {
  for (word i = 0; i < LONG; i++) buffer[i] = (char)(i * 7 + i / 251);
}

static word sum(word size) {
  word all = 0;
  for (word i = 0; i < size; i++) all = (all * 31 + (unsigned char)buffer[i]) & 0xffff;
  return all;
}

// The child says it in pieces and ends; whoever wants all waits for all.
static void all_of_it(void) {
  int pair[2];
  check("socketpair", SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  fill();
  word expected = sum(300000);
  long child = fork_child();
  if (child == 0) {
    for (word at = 0; at < 301000; at += 7000) {
      nap(1);
      SYS(write, pair[1], buffer + at, 7000, 0);
    }
    SYS(exit, 0, 0, 0, 0);
  }
  SYS(close, pair[1], 0, 0, 0);
  for (word i = 0; i < LONG; i++) buffer[i] = 0;
  say("waited for all", receive(pair[0], buffer, 300000, MSG_WAITALL));
  check("as it was said", sum(300000) == expected);
  say("sum", (long)expected);
  say("short at the end", receive(pair[0], buffer, 5000, MSG_WAITALL));
  wait_for(child, 0);
  SYS(close, pair[0], 0, 0, 0);
}

// A writer that fills what is between it and a slow reader, many times over, in one call.
static void in_one_call(const char *what, long from, long to) {
  fill();
  word expected = sum(LONG);
  long child = fork_child();
  if (child == 0) SYS(exit, SYS(write, to, buffer, LONG, 0) != LONG, 0, 0, 0);
  SYS(close, to, 0, 0, 0);
  for (word i = 0; i < LONG; i++) buffer[i] = 0;
  long all = 0;
  for (;;) {
    long got = SYS(read, from, buffer + all, 10007, 0);
    if (got <= 0) break;
    all += got;
  }
  say(what, all);
  check("all was written", wait_for(child, 0) == 0);
  check("in its order", sum(LONG) == expected);
  SYS(close, from, 0, 0, 0);
}

// One who writes more than fits and one who waits for more than fits; one who stops reading; and nothing at all.
static void both_wait(void) {
  int pair[2];
  check("socketpair", SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  long child = fork_child();
  if (child == 0) SYS(exit, SYS(write, pair[1], large, sizeof large, 0) != sizeof large, 0, 0, 0);
  say("a whole megabyte", receive(pair[0], large, sizeof large, MSG_WAITALL));
  check("all was written", wait_for(child, 0) == 0);

  child = fork_child();
  if (child == 0) {
    SYS(close, pair[0], 0, 0, 0);
    long got = SYS(read, pair[1], large, 5000, 0);
    nap(20);
    SYS(exit, got != 5000, 0, 0, 0);
  }
  SYS(close, pair[1], 0, 0, 0);
  long wrote = SYS(write, pair[0], large, sizeof large, 0);
  say("a part", wrote > 0 && wrote < (long)sizeof large);
  check("a part was read", wait_for(child, 0) == 0);
  SYS(close, pair[0], 0, 0, 0);

  check("pipe", SYS(pipe2, pair, 0, 0, 0) == 0);
  SYS(close, pair[0], 0, 0, 0);
  say("nothing to nobody", SYS(write, pair[1], large, 0, 0));
  SYS(close, pair[1], 0, 0, 0);
}

static long udp(struct inet_address *own) {
  struct inet_address any = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
  unsigned length = sizeof any;
  long fd = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  check("bind", SYS(bind, fd, own->family ? own : &any, sizeof any, 0) == 0);
  check("getsockname", SYS(getsockname, fd, own, &length, 0) == 0);
  return fd;
}

static long send_to(long fd, struct inet_address *to, const char *text) {
  struct iov iov = {(void *)text, 1};
  struct message message = {to, sizeof *to, &iov, 1, 0, 0, 0};
  return SYS(sendmsg, fd, &message, 0, 0);
}

static void datagrams(void) {
  struct inet_address server_name = {0}, peer_name = {0}, other_name = {0};
  // A port that was asked for by its number is kept when the peer is forgotten.
  SYS(close, udp(&server_name), 0, 0, 0);
  long server = udp(&server_name), peer = udp(&peer_name), other = udp(&other_name);
  check("connect", SYS(connect, server, &peer_name, sizeof peer_name, 0) == 0);
  check("sent", send_to(other, &server_name, "o") == 1 && send_to(peer, &server_name, "p") == 1);
  char got[4] = {0};
  say("from the peer", receive(server, got, 4, MSG_DONTWAIT));
  check("its word", got[0] == 'p');
  say("from nobody else", receive(server, got, 4, MSG_DONTWAIT));
  struct inet_address nobody = {0};
  check("no peer any more", SYS(connect, server, &nobody, sizeof nobody, 0) == 0);
  check("sent", send_to(other, &server_name, "o") == 1);
  say("to whom it is meant", receive(server, got, 4, MSG_DONTWAIT));

  // Whoever is bound to all addresses speaks from one of them.
  struct inet_address all = {AF_INET, {0, 0}, {0, 0, 0, 0}, {0}}, from = {0};
  long wild = udp(&all);
  check("sent", send_to(wild, &server_name, "w") == 1);
  struct iov iov = {got, 4};
  struct message message = {&from, sizeof from, &iov, 1, 0, 0, 0};
  check("received", SYS(recvmsg, server, &message, MSG_DONTWAIT, 0) == 1);
  say("own address", from.host[0]);
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
}

static void taken_back(void) {
  struct inet_address own = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}}, nobody = {0};
  unsigned length = sizeof own;
  long server = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("bind", SYS(bind, server, &own, sizeof own, 0) == 0 && SYS(listen, server, 4, 0, 0) == 0);
  check("getsockname", SYS(getsockname, server, &own, &length, 0) == 0);
  long client = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("connect", SYS(connect, client, &own, sizeof own, 0) == 0);
  long accepted = SYS(accept4, server, 0, 0, 0);
  check("connected already", SYS(connect, client, &own, sizeof own, 0) < 0);
  check("disconnect", SYS(connect, client, &nobody, sizeof nobody, 0) == 0);
  char got[8];
  say("reset", SYS(read, accepted, got, 8, 0) == -ECONNRESET ? -104 : 0);
  check("connect again", SYS(connect, client, &own, sizeof own, 0) == 0);
  long second = SYS(accept4, server, 0, 0, 0);
  check("write", SYS(write, client, "again", 5, 0) == 5);
  say("again", SYS(read, second, got, 8, 0));
  long third = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("connect", SYS(connect, third, &own, sizeof own, 0) == 0);
  check("no listener any more", SYS(connect, server, &nobody, sizeof nobody, 0) == 0);
  say("nobody listens any more", SYS(read, third, got, 8, 0) == -ECONNRESET ? -104 : 0);
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
}

static void shared_port(void) {
  struct inet_address own = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
  unsigned length = sizeof own;
  int on = 1;
  long fds[3];
  for (int i = 0; i < 3; i++) fds[i] = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  for (int i = 0; i < 2; i++) check("share", SYS5(setsockopt, fds[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
  check("bind", SYS(bind, fds[0], &own, sizeof own, 0) == 0 && SYS(listen, fds[0], 4, 0, 0) == 0);
  check("getsockname", SYS(getsockname, fds[0], &own, &length, 0) == 0);
  say("shared port", SYS(bind, fds[1], &own, sizeof own, 0) == 0 && SYS(listen, fds[1], 4, 0, 0) == 0);
  say("alone", SYS(bind, fds[2], &own, sizeof own, 0) == -EADDRINUSE);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  int pair[2];
  all_of_it();
  check("socketpair", SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  in_one_call("stream", pair[0], pair[1]);
  check("pipe", SYS(pipe2, pair, 0, 0, 0) == 0);
  in_one_call("pipe", pair[0], pair[1]);
  both_wait();
  datagrams();
  taken_back();
  shared_port();
  say("done", 0);
  return 0;
}
