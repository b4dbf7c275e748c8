// What a program asks of the machine's interfaces, through netlink, ioctls, /proc/net and /sys/class/net, which agree.
//! stdout: own number 1
//! stdout: loopback 1
//! stdout: its mtu 65536
//! stdout: its address 127.0.0.1/8
//! stdout: none of that number -19
//! stdout: in the list 1
//! stdout: flags 73
//! stdout: mask 255.0.0.0
//! stdout: hardware 772
//! stdout: mtu 65536
//! stdout: index 1
//! stdout: unknown -19
//! stdout: device 1
//! stdout: listens 1
//! stdout: mtu as text 65536
//! stdout: done 0
//! targets: !sparc64
#include "guest.h"

#define AF_INET 2
#define AF_NETLINK 16
#define SOCK_RAW 3
#if defined(__mips__)
#define SOCK_DGRAM 1
#define SOCK_STREAM 2
#else
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#endif
#define RTM_NEWLINK 16
#define RTM_GETLINK 18
#define RTM_NEWADDR 20
#define RTM_GETADDR 22
#define NLMSG_ERROR 2
#define NLMSG_DONE 3
#define NLM_F_REQUEST 1
#define NLM_F_DUMP 0x300
#define ENODEV 19

struct header { unsigned length; unsigned short kind, flags; unsigned sequence, port; };
struct netlink_address { unsigned short family, pad; unsigned port, groups; };
struct inet_address { unsigned short family; unsigned char port[2]; unsigned char host[4]; char zero[8]; };
struct attribute { unsigned short length, kind; };
struct link { unsigned char family, pad; unsigned short kind; int index; unsigned flags, change; };
struct address { unsigned char family, prefix, flags, scope; unsigned index; };
struct interface { char name[16]; union { struct inet_address address; short flags; int number; char room[sizeof(word) == 8 ? 24 : 16]; } is; };
struct list { int length; struct interface *first; };

// What some compilers make of an initializer.
void *memset(void *to, int value, word n) {
  for (word i = 0; i < n; i++) { ((char *)to)[i] = (char)value; __asm__ volatile("" ::: "memory"); }
  return to;
}
void *memcpy(void *to, const void *from, word n) {
  for (word i = 0; i < n; i++) { ((char *)to)[i] = ((const char *)from)[i]; __asm__ volatile("" ::: "memory"); }
  return to;
}

static word room[4096];
static char *const bytes = (char *)room;

static void *value_of(void *from, void *end, int kind) {
  char *at = from;
  while (at + 4 <= (char *)end) {
    struct attribute *one = (struct attribute *)at;
    if (one->length < 4) return 0;
    if (one->kind == kind) return at + 4;
    at += (one->length + 3) & ~3;
  }
  return 0;
}

static int found_link, found_address;

static void look(struct header *message) {
  char *body = (char *)(message + 1), *end = (char *)message + message->length;
  if (message->kind == RTM_NEWLINK) {
    struct link *link = (struct link *)body;
    char *name = value_of(link + 1, end, 3);
    if (name == 0 || !same(name, "lo", 3)) return;
    found_link = 1;
    check("the first", link->index == 1 && link->kind == 772 && (link->flags & 0x49) == 0x49);
    unsigned *mtu = value_of(link + 1, end, 4);
    say("loopback", 1);
    say("its mtu", mtu ? (long)*mtu : -1);
  }
  if (message->kind == RTM_NEWADDR) {
    struct address *address = (struct address *)body;
    unsigned char *own = value_of(address + 1, end, 2);
    if (address->index != 1 || address->family != AF_INET || own == 0 || own[0] != 127) return;
    found_address = 1;
    put("its address "), put_number(own[0]), put("."), put_number(own[1]), put("."), put_number(own[2]);
    put("."), put_number(own[3]), put("/"), put_number(address->prefix), put("\n");
  }
}

static long ask(long socket, int kind, int flags, int index) {
  static unsigned sequence = 7;
  struct { struct header header; struct link link; } request;
  memset(&request, 0, sizeof request);
  request.header.length = sizeof request, request.header.kind = (unsigned short)kind;
  request.header.flags = (unsigned short)(NLM_F_REQUEST | flags), request.header.sequence = ++sequence;
  request.link.family = kind == RTM_GETADDR ? AF_INET : 0, request.link.index = index;
  check("ask", SYS(write, socket, &request, sizeof request, 0) == sizeof request);
  for (;;) {
    long length = SYS(read, socket, bytes, sizeof room, 0);
    check("an answer", length >= 16);
    for (char *at = bytes; at + 16 <= bytes + length;) {
      struct header *message = (struct header *)at;
      check("whole", message->length >= 16 && message->sequence == sequence);
      if (message->kind == NLMSG_DONE) return 0;
      if (message->kind == NLMSG_ERROR) return *(int *)(message + 1);
      look(message);
      if (!(message->flags & 2)) return 0;
      at += (message->length + 3) & ~3u;
    }
  }
}

static void netlink(void) {
  long socket = SYS(socket, AF_NETLINK, SOCK_RAW, 0, 0);
  struct netlink_address own = {AF_NETLINK, 0, 0, 0};
  unsigned length = sizeof own;
  check("netlink", socket >= 0 && SYS(bind, socket, &own, sizeof own, 0) == 0);
  check("getsockname", SYS(getsockname, socket, &own, &length, 0) == 0 && length == sizeof own);
  say("own number", own.family == AF_NETLINK && own.port == (unsigned)SYS(getpid, 0, 0, 0, 0));
  check("links", ask(socket, RTM_GETLINK, NLM_F_DUMP, 0) == 0 && found_link);
  check("addresses", ask(socket, RTM_GETADDR, NLM_F_DUMP, 0) == 0 && found_address);
  say("none of that number", ask(socket, RTM_GETLINK, 0, 99999));
  check("an unknown protocol", SYS(socket, AF_NETLINK, SOCK_RAW, 31, 0) < 0);
  SYS(close, socket, 0, 0, 0);
}

static void requests(void) {
  long socket = SYS(socket, AF_INET, SOCK_DGRAM, 0, 0);
  struct interface *all = (struct interface *)room;
  struct list list = {sizeof room, all};
  check("SIOCGIFCONF", SYS(ioctl, socket, 0x8912, &list, 0) == 0 && list.length > 0);
  int there = 0;
  for (int i = 0; (i + 1) * (int)sizeof *all <= list.length; i++)
    if (same(all[i].name, "lo", 3)) there = all[i].is.address.host[0] == 127;
  say("in the list", there);
  struct interface lo;
  memset(&lo, 0, sizeof lo);
  memcpy(lo.name, "lo", 3);
  check("SIOCGIFFLAGS", SYS(ioctl, socket, 0x8913, &lo, 0) == 0);
  say("flags", lo.is.flags & 0x49);
  check("SIOCGIFADDR", SYS(ioctl, socket, 0x8915, &lo, 0) == 0 && lo.is.address.family == AF_INET && lo.is.address.host[3] == 1);
  check("SIOCGIFNETMASK", SYS(ioctl, socket, 0x891b, &lo, 0) == 0);
  unsigned char *host = lo.is.address.host;
  put("mask "), put_number(host[0]), put("."), put_number(host[1]), put("."), put_number(host[2]), put("."), put_number(host[3]), put("\n");
  check("SIOCGIFHWADDR", SYS(ioctl, socket, 0x8927, &lo, 0) == 0);
  say("hardware", lo.is.address.family);
  check("SIOCGIFMTU", SYS(ioctl, socket, 0x8921, &lo, 0) == 0);
  say("mtu", lo.is.number);
  check("SIOCGIFINDEX", SYS(ioctl, socket, 0x8933, &lo, 0) == 0);
  say("index", lo.is.number);
  memcpy(lo.name, "none0", 6);
  say("unknown", SYS(ioctl, socket, 0x8913, &lo, 0));
  SYS(close, socket, 0, 0, 0);
}

// Whether a file has a text in it.
static int has(const char *path, const char *text) {
  long fd = SYS(openat, AT_FDCWD, path, O_RDONLY, 0), held = 0, more;
  check(path, fd >= 0);
  while (held < (long)sizeof room && (more = SYS(read, fd, bytes + held, sizeof room - (word)held, 0)) > 0) held += more;
  SYS(close, fd, 0, 0, 0);
  for (long at = 0; at + (long)length(text) <= held; at++)
    if (same(bytes + at, text, length(text))) return 1;
  return 0;
}

static void files(void) {
  say("device", has("/proc/net/dev", "    lo:") && !has("/proc/net/dev", "none0:"));
  struct inet_address own = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
  unsigned size = sizeof own;
  long server = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("listen", SYS(bind, server, &own, sizeof own, 0) == 0 && SYS(listen, server, 1, 0, 0) == 0);
  check("getsockname", SYS(getsockname, server, &own, &size, 0) == 0);
  static const char digits[] = "0123456789ABCDEF";
  char line[] = ":0000 00000000:0000 0A ";
  for (int i = 0; i < 2; i++) line[1 + 2 * i] = digits[own.port[i] >> 4], line[2 + 2 * i] = digits[own.port[i] & 15];
  say("listens", has("/proc/net/tcp", line));
  SYS(close, server, 0, 0, 0);
  check("no more", !has("/proc/net/tcp", line));
  check("sysfs", has("/sys/class/net/lo/mtu", "65536\n") && has("/sys/class/net/lo/address", "00:00:00:00:00:00\n"));
  say("mtu as text", 65536);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  netlink();
  requests();
  files();
  say("done", 0);
  return 0;
}
