// The shared object of calls that the kernel puts into every program: its symbols are found by name and version as a libc finds them,
// and its clock says what the system call says, also in a child. Where there is none (older qemu-user) nothing is checked.
//! stdout: well formed 1
//! stdout: clock 1
//! stdout: refused 1
//! stdout: in a child 0
//! stdout: cannot be written 1
//! stdout: in the maps 1
//! targets: !sparc64
#include "process.h"

// Elf32_* and Elf64_* (elf.h): `word` has the class's width.
typedef unsigned short half;
typedef unsigned int word32;
struct header { unsigned char ident[16]; half type, machine; word32 version; word entry, phoff, shoff; word32 flags; half sizes[6]; };
#if __SIZEOF_LONG__ == 8
struct segment { word32 type, flags; word offset, vaddr, paddr, filesz, memsz, align; };
struct symbol { word32 name; unsigned char info, other; half section; word value, size; };
#else
struct segment { word32 type, offset, vaddr, paddr, filesz, memsz, flags, align; };
struct symbol { word32 name; word value, size; unsigned char info, other; half section; };
#endif
struct entry { word tag, value; };
struct version { half version, flags, index, count; word32 hash, aux, next; };
#if defined(__s390x__)
typedef word bucket;
#else
typedef word32 bucket;
#endif

#if defined(__x86_64__) || defined(__i386__) || defined(__arm__) || defined(__mips__)
#define CLOCK "__vdso_clock_gettime"
#define VERSION "LINUX_2.6"
#elif defined(__aarch64__)
#define CLOCK "__kernel_clock_gettime"
#define VERSION "LINUX_2.6.39"
#elif defined(__riscv)
#define CLOCK "__vdso_clock_gettime"
#define VERSION "LINUX_4.15"
#elif defined(__powerpc__)
#define CLOCK "__kernel_clock_gettime"
#define VERSION "LINUX_2.6.15"
#elif defined(__s390x__)
#define CLOCK "__kernel_clock_gettime"
#define VERSION "LINUX_2.6.29"
#endif

static int equal(const char *a, const char *b) { return length(a) == length(b) && same(a, b, length(a)); }

static word32 hash(const char *name) {
  word32 all = 0;
  for (; *name; name++) {
    all = (all << 4) + (unsigned char)*name;
    all ^= all >> 24 & 0xf0;
    all &= 0xfffffff;
  }
  return all;
}

// a % b: some processors have no division.
static word32 rest(word32 a, word32 b) {
  for (int at = 31; at >= 0; at--)
    if (a >> at >= b) a -= b << at;
  return a;
}

// A symbol of this name and version, by the tables that PT_DYNAMIC names.
static word find(word base, const char *name, const char *wanted) {
  struct header *header = (struct header *)base;
  check("ELF", same((char *)header->ident, "\177ELF", 4) && header->type == 3);
  struct segment *segments = (struct segment *)(base + header->phoff);
  struct entry *dynamic = 0;
  word loaded = 0, notes = 0;
  for (half at = 0; at < header->sizes[2]; at++) {
    if (segments[at].type == 1) loaded = segments[at].memsz, check("read and execute", segments[at].flags == 5);
    if (segments[at].type == 2) dynamic = (struct entry *)(base + segments[at].vaddr);
    if (segments[at].type == 4) notes++;
  }
  check("segments", loaded && dynamic && notes == 1);
  char *strings = 0;
  struct symbol *symbols = 0;
  bucket *buckets = 0;
  half *versions = 0;
  char *definitions = 0;
  for (; dynamic->tag; dynamic++) {
    word there = base + dynamic->value;
    if (dynamic->tag == 4) buckets = (bucket *)there;
    if (dynamic->tag == 5) strings = (char *)there;
    if (dynamic->tag == 6) symbols = (struct symbol *)there;
    if (dynamic->tag == 0x6ffffff0) versions = (half *)there;
    if (dynamic->tag == 0x6ffffffc) definitions = (char *)there;
  }
  check("tables", strings && symbols && buckets && versions && definitions);
  for (bucket at = buckets[2 + rest(hash(name), (word32)buckets[0])]; at; at = buckets[2 + buckets[0] + at]) {
    struct symbol *symbol = symbols + at;
    if (!equal(strings + symbol->name, name)) continue;
    for (struct version *one = (struct version *)definitions;; one = (struct version *)((char *)one + one->next)) {
      if (one->index == (versions[at] & 0x7fff)) {
        char *is = strings + *(word32 *)((char *)one + one->aux);
        check("version", equal(is, wanted) && one->hash == hash(wanted));
        return symbol->section && symbol->value < loaded ? base + symbol->value : 0;
      }
      check("a version for each", one->next != 0);
    }
  }
  return 0;
}

typedef long clock_call(long, long *);

static int agrees(clock_call *clock) {
  long before[2], now[2] = {0, 0}, after[2];
  for (long id = 0; id < 2; id++) {
    SYS(clock_gettime, id, before, 0, 0);
    if (clock(id, now) != 0) return 0;
    SYS(clock_gettime, id, after, 0, 0);
    if (now[0] < before[0] || (now[0] == before[0] && now[1] < before[1])) return 0;
    if (now[0] > after[0] || (now[0] == after[0] && now[1] > after[1])) return 0;
  }
  return 1;
}

static char maps[16384];

int guest(int argc, char **argv) {
  word *at = (word *)(argv + argc + 1), base = 0, entry = 0;
  while (*at++) {}
  for (; at[0]; at += 2) {
    if (at[0] == 33) base = at[1];
    if (at[0] == 32) entry = at[1];
  }
  clock_call *clock = base ? (clock_call *)find(base, CLOCK, VERSION) : 0;
  say("well formed", !base || (clock && !find(base, "__vdso_nothing", VERSION)));
  say("clock", !clock || agrees(clock));
  long time[2];
  say("refused", !clock || clock(99, time) != 0);
#if defined(__i386__)
  // AT_SYSINFO: a system call without `int $0x80`.
  if (entry) {
    long result;
    check("the entry's symbol", find(base, "__kernel_vsyscall", "LINUX_2.5") == entry);
    __asm__ volatile("call *%2" : "=a"(result) : "0"(NR_getpid), "r"(entry) : "memory");
    check("the entry", result == own_pid());
  }
#else
  check("no entry", !entry);
#endif
  long pid = fork_child();
  if (pid == 0) quit(clock ? !agrees(clock) : 0);
  say("in a child", wait_for(pid, 0));
  say("cannot be written", !base || SYS(clock_gettime, 0, base, 0, 0) == -14);
  long fd = SYS(openat, AT_FDCWD, "/proc/self/maps", O_RDONLY, 0), held = 0, more;
  while (held < (long)sizeof maps && (more = SYS(read, fd, maps + held, sizeof maps - (word)held, 0)) > 0) held += more;
  int there = 0;
  for (long i = 0; i + 6 <= held; i++) there |= same(maps + i, "[vdso]", 6);
  say("in the maps", !base || there);
  return 0;
}
