// Who watches files, signals and processes, locks what it shares, and keeps attributes: inotify, signalfd, pidfd, flock, fcntl, xattrs.
//! stdout: created 256
//! stdout: opened 32
//! stdout: modified 2
//! stdout: closed 8
//! stdout: one of two the same -11
//! stdout: moved 64 128
//! stdout: into a folder 1073742080
//! stdout: attributes 4
//! stdout: deleted 512
//! stdout: itself 1024 32768
//! stdout: once 32 32768
//! stdout: not a folder -20
//! stdout: too little room -22
//! stdout: a signal is read 1
//! stdout: a child ended 1
//! stdout: its code 7
//! stdout: nobody there -3
//! stdout: somebody reads 0
//! stdout: nobody may write -11
//! stdout: in the way 10 19
//! stdout: the rest 5
//! stdout: given up 0
//! stdout: of the file -11
//! stdout: a value 5
//! stdout: too short -34
//! stdout: names 20
//! stdout: through a rename 5
//! stdout: gone 1
//! stdout: done 0
//! targets: !sparc64
#include "guest.h"

#if defined(__mips__)
#define SIGUSR1 16
#define SIGCHLD 18
#define SIG_BLOCK 1
#define SET_SIZE 16
#else
#define SIGUSR1 10
#define SIGCHLD 17
#define SIG_BLOCK 0
#define SET_SIZE 8
#endif
#define ENODATA 61

#if defined(__mips__) && !defined(__mips64)
#define F_GETLK 33
#define F_SETLK 34
#elif defined(__mips__)
#define F_GETLK 14
#define F_SETLK 6
#elif __SIZEOF_POINTER__ == 4
#define F_GETLK 12
#define F_SETLK 13
#else
#define F_GETLK 5
#define F_SETLK 6
#endif
#define F_OFD_SETLK 37
#define F_RDLCK 0
#define F_WRLCK 1
#define F_UNLCK 2
#define LOCK_SH 1
#define LOCK_EX 2
#define LOCK_NB 4
#define LOCK_UN 8
#define P_PIDFD 3
#define WEXITED 4

struct news { int watch; unsigned what, cookie, length; char name[]; };
struct lock { short kind, whence; long long start, length; int pid; };

// What some compilers make of an initializer.
void *memset(void *to, int value, word n) {
  for (word i = 0; i < n; i++) { ((char *)to)[i] = (char)value; __asm__ volatile("" ::: "memory"); }
  return to;
}
void *memcpy(void *to, const void *from, word n) {
  for (word i = 0; i < n; i++) { ((char *)to)[i] = ((const char *)from)[i]; __asm__ volatile("" ::: "memory"); }
  return to;
}

static word room[128];
static char *const events = (char *)room;
static long held, at;

// The next thing that an inotify tells.
static struct news *next(long watcher) {
  if (at >= held) {
    held = SYS(read, watcher, events, sizeof room, 0), at = 0;
    check("something happened", held >= 16);
  }
  struct news *news = (struct news *)(events + at);
  at += 16 + (long)news->length;
  return news;
}

static int is(struct news *news, const char *name) { return news->length > length(name) && same(news->name, name, length(name) + 1); }
static void say_two(const char *what, long a, long b) { put(what); put(" "); put_number(a); put(" "); put_number(b); put("\n"); }
static long make(const char *name) { return SYS(openat, AT_FDCWD, name, O_RDWR | O_CREAT, 0644); }
static long move(const char *from, const char *to) { return SYS5(renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); }
static long remove(const char *name) { return SYS(unlinkat, AT_FDCWD, name, 0, 0); }
static long fork(void) {
#if defined(__s390x__)
  return SYS5(clone, 0, SIGCHLD, 0, 0, 0);
#else
  return SYS5(clone, SIGCHLD, 0, 0, 0, 0);
#endif
}

static void files(void) {
  check("mkdir", SYS(mkdirat, AT_FDCWD, "watched", 0755, 0) == 0);
  long watcher = SYS(inotify_init1, O_NONBLOCK, 0, 0, 0);
  long watch = SYS(inotify_add_watch, watcher, "watched", 0xfff, 0);
  check("watch", watcher >= 0 && watch == 1);
  long fd = make("watched/file");
  struct news *news = next(watcher);
  check("who", news->watch == watch && is(news, "file") && news->length == 16);
  say("created", news->what);
  say("opened", next(watcher)->what);
  SYS(write, fd, "x", 1, 0);
  SYS(write, fd, "y", 1, 0);
  int waiting = 0;
#if defined(__mips__)
  check("ioctl", SYS(ioctl, watcher, 0x467f, &waiting, 0) == 0 && waiting == 32);
#elif defined(__powerpc__)
  check("ioctl", SYS(ioctl, watcher, 0x4004667f, &waiting, 0) == 0 && waiting == 32);
#else
  check("ioctl", SYS(ioctl, watcher, 0x541b, &waiting, 0) == 0 && waiting == 32);
#endif
  say("modified", next(watcher)->what);
  SYS(close, fd, 0, 0, 0);
  say("closed", next(watcher)->what);
  say("one of two the same", SYS(read, watcher, events, sizeof room, 0));
  check("rename", move("watched/file", "watched/other") == 0);
  news = next(watcher);
  unsigned from = news->what, cookie = news->cookie;
  check("whence", is(news, "file") && cookie != 0);
  news = next(watcher);
  check("whither", is(news, "other") && news->cookie == cookie);
  say_two("moved", from, news->what);
  check("mkdir", SYS(mkdirat, AT_FDCWD, "watched/inner", 0755, 0) == 0);
  say("into a folder", next(watcher)->what);
  check("chmod", SYS(fchmodat, AT_FDCWD, "watched/other", 0600, 0) == 0);
  say("attributes", next(watcher)->what);
  check("remove", remove("watched/other") == 0);
  say("deleted", next(watcher)->what);
  SYS(unlinkat, AT_FDCWD, "watched/inner", AT_REMOVEDIR, 0);
  check("the folder in it", next(watcher)->what == (0x200 | 1u << 30));
  check("rmdir", SYS(unlinkat, AT_FDCWD, "watched", AT_REMOVEDIR, 0) == 0);
  from = next(watcher)->what;
  say_two("itself", from, next(watcher)->what);

  fd = make("single");
  long once = SYS(inotify_add_watch, watcher, "single", 0x20 | 1u << 31, 0);
  check("another number", once == 2);
  SYS(close, fd, 0, 0, 0);
  for (int i = 0; i < 2; i++) SYS(close, SYS(openat, AT_FDCWD, "single", O_RDONLY, 0), 0, 0, 0);
  news = next(watcher);
  check("without a name", news->watch == once && news->length == 0);
  from = news->what;
  say_two("once", from, next(watcher)->what);
  check("no more", SYS(read, watcher, events, sizeof room, 0) == -EAGAIN);
  say("not a folder", SYS(inotify_add_watch, watcher, "single", 0x20 | 0x1000000, 0));
  check("a watch", SYS(inotify_add_watch, watcher, "single", 0x20, 0) == 3);
  check("given up", SYS(inotify_rm_watch, watcher, 3, 0, 0) == 0 && SYS(inotify_rm_watch, watcher, 3, 0, 0) == -22);
  say("too little room", SYS(read, watcher, events, 8, 0));
  check("told", next(watcher)->what == 0x8000);
  SYS(close, watcher, 0, 0, 0);
  check("remove", remove("single") == 0);
}

static void processes(void) {
  unsigned long set[4] = {1ul << (SIGUSR1 - 1) | 1ul << (SIGCHLD - 1)};
  check("block", SYS(rt_sigprocmask, SIG_BLOCK, set, 0, SET_SIZE) == 0);
  long signals = SYS(signalfd4, -1, set, SET_SIZE, O_NONBLOCK);
  check("signalfd", signals >= 0 && SYS(read, signals, events, 128, 0) == -EAGAIN);
  check("too small", SYS(read, signals, events, 127, 0) == -22);
  check("kill", SYS(kill, SYS(getpid, 0, 0, 0, 0), SIGUSR1, 0, 0) == 0);
  check("read", SYS(read, signals, events, sizeof room, 0) == 128);
  say("a signal is read", *(unsigned *)room == SIGUSR1);

  int gate[2];
  check("pipe", SYS(pipe2, gate, 0, 0, 0) == 0);
  long child = fork();
  if (child == 0) {
    SYS(close, gate[1], 0, 0, 0);
    SYS(read, gate[0], events, 1, 0);
    quit(7);
  }
  long process = SYS(pidfd_open, child, 0, 0, 0);
  check("pidfd", process >= 0 && SYS(pidfd_send_signal, process, 0, 0, 0) == 0);
  check("no such", SYS(pidfd_open, child, 1, 0, 0) == -22 && SYS(pidfd_open, 0, 0, 0, 0) == -22);
  SYS(close, gate[1], 0, 0, 0);
  check("wait", SYS5(waitid, P_PIDFD, process, room, WEXITED, 0) == 0);
  int *info = (int *)room;
  check("who", info[0] == SIGCHLD && info[__SIZEOF_POINTER__ == 4 ? 3 : 4] == child);
  say("a child ended", SYS(read, signals, events + 256, 128, 0) == 128 && *(unsigned *)(events + 256) == SIGCHLD);
  say("its code", info[__SIZEOF_POINTER__ == 4 ? 5 : 6]);
  say("nobody there", SYS(pidfd_send_signal, process, 0, 0, 0));
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
}

// Runs something in a child, and gives what it exits with.
static long in_child(long (*work)(long), long value) {
  long child = fork();
  if (child == 0) quit((int)(work(value) & 0xff));
  check("wait", SYS5(waitid, 1, child, room, WEXITED, 0) == 0);
  return (signed char)((int *)room)[__SIZEOF_POINTER__ == 4 ? 5 : 6];
}
static long try_to_write(long fd) {
  struct lock lock = {F_WRLCK, 0, 0, 0, 0};
  return SYS(fcntl64, fd, F_SETLK, &lock, 0) == -EAGAIN ? -EAGAIN : 1;
}
static long ask_from(long fd) {
  struct lock lock = {F_WRLCK, 0, 5, 0, 0};
  check("ask", SYS(fcntl64, fd, F_GETLK, &lock, 0) == 0);
  say_two("in the way", (long)lock.start, (long)(lock.start + lock.length - 1));
  return lock.kind == F_WRLCK ? 0 : 1;
}
static long ask_first(long fd) {
  struct lock lock = {F_WRLCK, 0, 0, 5, 0};
  return SYS(fcntl64, fd, F_GETLK, &lock, 0) == 0 && lock.kind == F_UNLCK ? 5 : 1;
}

static void locks(void) {
  long a = make("locked"), b = make("locked");
  check("flock", SYS(flock, a, LOCK_SH, 0, 0) == 0);
  say("somebody reads", SYS(flock, b, LOCK_SH | LOCK_NB, 0, 0));
  say("nobody may write", SYS(flock, b, LOCK_EX | LOCK_NB, 0, 0));
  check("unlock", SYS(flock, a, LOCK_UN, 0, 0) == 0 && SYS(flock, b, LOCK_EX | LOCK_NB, 0, 0) == 0);
  check("neither", SYS(flock, a, LOCK_SH | LOCK_EX, 0, 0) == -22);
  SYS(close, b, 0, 0, 0);
  check("closed", SYS(flock, a, LOCK_EX | LOCK_NB, 0, 0) == 0);

  struct lock lock = {F_WRLCK, 0, 10, 20, 0}, half = {F_UNLCK, 0, 20, 10, 0};
  check("lock", SYS(fcntl64, a, F_SETLK, &lock, 0) == 0);
  check("its half", SYS(fcntl64, a, F_SETLK, &half, 0) == 0);
  check("another process", in_child(try_to_write, a) == -EAGAIN && in_child(ask_from, a) == 0);
  say("the rest", in_child(ask_first, a));
  b = make("locked");
  SYS(close, b, 0, 0, 0);
  say("given up", in_child(try_to_write, a) == 1 ? 0 : 1);
  b = make("locked");
  struct lock own = {F_WRLCK, 0, 0, 0, 0};
  check("of the open file", SYS(fcntl64, a, F_OFD_SETLK, &own, 0) == 0);
  say("of the file", SYS(fcntl64, b, F_OFD_SETLK, &own, 0));
  long reader = SYS(openat, AT_FDCWD, "locked", O_RDONLY, 0);
  check("not to write", SYS(fcntl64, reader, F_SETLK, &lock, 0) == -9);
  for (long fd = 3; fd < 16; fd++) SYS(close, fd, 0, 0, 0);
  check("remove", remove("locked") == 0);
}

static void attributes(void) {
  long fd = make("described");
  check("set", SYS5(setxattr, "described", "user.first", "value", 5, 0) == 0);
  check("there", SYS5(fsetxattr, fd, "user.first", "other", 5, 1) == -17);
  check("not there", SYS5(setxattr, "described", "user.none", "other", 5, 2) == -ENODATA);
  say("a value", SYS(getxattr, "described", "user.first", events, 64));
  check("it", same(events, "value", 5) && SYS(getxattr, "described", "user.first", 0, 0) == 5);
  say("too short", SYS(getxattr, "described", "user.first", events, 4));
  check("second", SYS5(fsetxattr, fd, "user.also", 0, 0, 0) == 0);
  check("empty", SYS(getxattr, "described", "user.also", events, 64) == 0);
  check("whose", SYS5(setxattr, "described", "nobody.first", "x", 1, 0) < 0 && SYS5(setxattr, "described", "user.", "x", 1, 0) < 0);
  // The host may have attributes of its own on every file.
  long size = SYS(listxattr, "described", events, sizeof room, 0), own = 0;
  for (long i = 0; i < size; i += (long)length(events + i) + 1)
    if (same(events + i, "user.", 5)) own += (long)length(events + i) + 1;
  say("names", own - 1);
  check("rename", move("described", "renamed") == 0);
  say("through a rename", SYS(getxattr, "renamed", "user.first", events, 64));
  check("remove", SYS(removexattr, "renamed", "user.first", 0, 0) == 0);
  say("gone", SYS(getxattr, "renamed", "user.first", events, 64) == -ENODATA);
  SYS(close, fd, 0, 0, 0);
  check("remove", remove("renamed") == 0);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  files();
  processes();
  locks();
  attributes();
  say("done", 0);
  return 0;
}
