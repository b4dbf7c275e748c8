// What guests about sockets share: numbers of asm/socket.h, asm/errno.h and linux/socket.h, and structures.
#ifndef SOCKETS_H
#define SOCKETS_H

#include "guest.h"

#define AF_UNIX 1
#define AF_INET 2
#if defined(__mips__)
#define SOCK_DGRAM 1
#define SOCK_STREAM 2
#define SOL_SOCKET 0xffff
#define SO_TYPE 0x1008
#define ECONNREFUSED 146
#define EADDRINUSE 125
#else
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOL_SOCKET 1
#define SO_TYPE 3
#define ECONNREFUSED 111
#define EADDRINUSE 98
#endif
#define SCM_RIGHTS 1
#define MSG_NOSIGNAL 0x4000
#define EPIPE 32

struct unix_address { unsigned short family; char path[32]; };
struct inet_address { unsigned short family; unsigned char port[2]; unsigned char host[4]; char zero[8]; };
struct iov { void *base; word length; };
struct message { void *name; unsigned name_length; struct iov *iov; word iov_length; void *control; word control_length; unsigned flags; };
struct rights { word length; int level; int type; int fd; int pad; };
// What some compilers make of an initializer.
void *memcpy(void *to, const void *from, word n) {
  for (word i = 0; i < n; i++) { ((char *)to)[i] = ((const char *)from)[i]; __asm__ volatile("" ::: "memory"); }
  return to;
}

#endif
