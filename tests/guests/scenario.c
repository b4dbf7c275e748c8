// What samples do, harmlessly: `scenario NAME`, of the names below. Without a word it says which it knows. It is its own shell, its
// own download tool and its own payload, by the name that it is run as, so that nothing else must be there.
// Each begins where no file of it is, in a root that is its own: never run one outside of a cell.
//! stdout: shellcode
//! stdout: injection
//! stdout: ransom
//! stdout: fetch
//! stdout: persist
//! stdout: mine
//! stdout: vanish
//! targets: !sparc64 !armeb
#include "code.h"
#include "process.h"
#include "sockets.h"

static char self[256];

static int is(const char *a, const char *b) { return length(a) == length(b) && same(a, b, length(a)); }

static void write_all(long fd, const char *bytes, word count) {
  while (count) {
    long done = SYS(write, fd, bytes, count, 0);
    check("write", done > 0);
    bytes += done, count -= (word)done;
  }
}

static void make(const char *path, const char *text, long mode) {
  long fd = SYS(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
  check(path, fd >= 0);
  write_all(fd, text, length(text));
  SYS(close, fd, 0, 0, 0);
}

static void folder(const char *path) { SYS(mkdirat, AT_FDCWD, path, 0755, 0); }

// Runs a program in a child; its code.
static long program(const char *path, const char *const *arguments) {
  static const char *const nothing[] = {0};
  long child = fork_child();
  check("fork", child >= 0);
  if (!child) {
    SYS(execve, path, arguments, nothing, 0);
    quit(127);
  }
  return wait_for(child, 0) >> 8;
}

// Code that comes as bytes, into memory that no file knows.
static void shellcode(void) {
  volatile unit *place = (volatile unit *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  write_code(place, forty_two, place);
  check("mprotect", SYS(mprotect, place, BLOCK, PROT_READ | PROT_EXEC, 0) == 0);
  say("shellcode", run_code(place));
}

// A page that runs `ping` with whatever it was given.
static void injection(void) {
  folder("/www");
  const char *command[] = {"sh", "-c", "ping -c 1 192.0.2.1; echo owned >/www/owned", 0};
  say("injected", program(self, command));
}

// A shell that knows two words, and how to end one command and begin the next.
static int shell(const char *text) {
  int code = 0;
  while (*text) {
    while (*text == ' ') text++;
    if (same(text, "echo ", 5)) {
      const char *word_at = text + 5, *end = word_at, *to = word_at;
      while (*to && *to != '>') to++;
      while (*end && *end != ' ') end++;
      long fd = *to ? SYS(openat, AT_FDCWD, to + 1, O_WRONLY | O_CREAT | O_TRUNC, 0644) : 1;
      write_all(fd, word_at, (word)(end - word_at));
      write_all(fd, "\n", 1);
      code = 0;
    } else {
      code = 127;
    }
    while (*text && *text != ';') text++;
    if (*text) text++;
  }
  return code;
}

// Every document is read, written again and renamed, and a note says what to do.
static void ransom(void) {
  enum { DOCUMENTS = 24 };
  char path[64], locked[64], text[64];
  folder("/srv"), folder("/srv/share");
  for (int i = 0; i < DOCUMENTS; i++) {
    char name[] = "/srv/share/00.txt";
    name[11] = (char)('0' + i / 10), name[12] = (char)('0' + i % 10);
    make(name, "what somebody would miss\n", 0644);
  }
  for (int i = 0; i < DOCUMENTS; i++) {
    char name[] = "/srv/share/00.txt";
    name[11] = (char)('0' + i / 10), name[12] = (char)('0' + i % 10);
    join(path, name, ""), join(locked, name, ".locked");
    long fd = SYS(openat, AT_FDCWD, path, O_RDWR, 0);
    long size = SYS(read, fd, text, sizeof text, 0);
    for (long at = 0; at < size; at++) text[at] ^= 0x5a;
    SYS(lseek, fd, 0, 0, 0);
    write_all(fd, text, (word)size);
    SYS(close, fd, 0, 0, 0);
    check("rename", SYS5(renameat2, AT_FDCWD, path, AT_FDCWD, locked, 0) == 0);
  }
  make("/srv/share/README.txt", "This is a test: 0x5a takes it back.\n", 0644);
  say("locked", DOCUMENTS);
}

static const struct inet_address web = {AF_INET, {8080 >> 8, 8080 & 0xff}, {127, 0, 0, 1}, {0}};
static char page[4096];

// Gives the file that it runs from to whoever asks first.
static void serve(long listener) {
  long peer = SYS(accept4, listener, 0, 0, 0);
  check("accept", peer >= 0);
  check("a question", SYS(read, peer, page, sizeof page, 0) > 0);
  static const char head[] = "HTTP/1.0 200 OK\r\n\r\n";
  write_all(peer, head, sizeof head - 1);
  long fd = SYS(openat, AT_FDCWD, self, O_RDONLY, 0), size;
  while ((size = SYS(read, fd, page, sizeof page, 0)) > 0) write_all(peer, page, (word)size);
  SYS(close, fd, 0, 0, 0);
  SYS(close, peer, 0, 0, 0);
}

// `wget URL -O FILE`, for the one place that there is.
static int download(const char *to) {
  long peer = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("connect", SYS(connect, peer, &web, sizeof web, 0) == 0);
  static const char question[] = "GET /agent HTTP/1.0\r\n\r\n";
  write_all(peer, question, sizeof question - 1);
  // The answer's head is as long as it is; nothing of the file comes with it.
  for (int ends = 0; ends < 2;) {
    char letter;
    check("an answer", SYS(read, peer, &letter, 1, 0) == 1);
    ends = letter == '\n' ? ends + 1 : letter == '\r' ? ends : 0;
  }
  long fd = SYS(openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC, 0644), size;
  check("a file", fd >= 0);
  while ((size = SYS(read, peer, page, sizeof page, 0)) > 0) write_all(fd, page, (word)size);
  SYS(close, fd, 0, 0, 0);
  return 0;
}

// Gets its next stage and runs it.
static void fetch(void) {
  long listener = SYS(socket, AF_INET, SOCK_STREAM, 0, 0);
  check("bind", SYS(bind, listener, &web, sizeof web, 0) == 0);
  check("listen", SYS(listen, listener, 1, 0, 0) == 0);
  long server = fork_child();
  if (!server) {
    serve(listener);
    quit(0);
  }
  SYS(close, listener, 0, 0, 0);
  const char *get[] = {"wget", "http://127.0.0.1:8080/agent", "-O", "/tmp/agent", 0};
  check("wget", program(self, get) == 0);
  check("chmod", SYS(fchmodat, AT_FDCWD, "/tmp/agent", 0755, 0) == 0);
  const char *agent[] = {"agent", 0};
  say("fetched", program("/tmp/agent", agent));
  wait_for(server, 0);
}

// Where it would be run again from.
static void persist(void) {
  folder("/etc"), folder("/etc/cron.d"), folder("/root");
  make("/etc/cron.d/agent", "@reboot root /tmp/.x/agent\n", 0644);
  make("/etc/rc.local", "/tmp/.x/agent &\n", 0755);
  make("/root/.profile", "/tmp/.x/agent &\n", 0644);
  say("persists", 0);
}

// Nothing but arithmetic, for as long as it is let.
static void mine(void) {
  put("mines\n");
  for (volatile unsigned long hash = 1;;) hash = hash * 2654435761u + 12345;
}

// Leaves nothing behind to be looked at.
static void vanish(void) {
  check("unlink", SYS(unlinkat, AT_FDCWD, self, 0, 0) == 0);
  say("vanished", 0);
}

static const struct { const char *name; void (*act)(void); } scenarios[] = {
    {"shellcode", shellcode}, {"injection", injection}, {"ransom", ransom}, {"fetch", fetch},
    {"persist", persist},     {"mine", mine},           {"vanish", vanish},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

int guest(int argc, char **argv) {
  if (argc == 3 && is(argv[0], "sh")) return shell(argv[2]);
  if (argc == 4 && is(argv[0], "wget")) return download(argv[3]);
  if (is(argv[0], "agent")) {
    put("the next stage\n");
    return 7;
  }
  long size = SYS(readlinkat, AT_FDCWD, "/proc/self/exe", self, sizeof self - 1);
  check("its own path", size > 0);
  for (word at = 0; at < SCENARIOS; at++) {
    if (argc < 2) {
      put(scenarios[at].name), put("\n");
    } else if (is(argv[1], scenarios[at].name)) {
      scenarios[at].act();
      return 0;
    }
  }
  check("a scenario that it knows", argc < 2);
  return 0;
}
