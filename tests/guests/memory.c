// Memory: maps of nothing and of files, private and shared, what is allowed and what a handler does about it, maps that move
// and shrink, the break, advice, and two processes that do not see each other's.
//! targets: !sparc64
//! stdout: zeroes 1
//! stdout: there 1
//! stdout: private 1
//! stdout: shared 1
//! stdout: file unchanged 1
//! stdout: file changed 1
//! stdout: written again 1
//! stdout: not allowed 1
//! stdout: allowed 1
//! stdout: not there 1
//! stdout: mended 5
//! stdout: hole 1
//! stdout: neighbours 1
//! stdout: grown 1
//! stdout: shrunk 1
//! stdout: moved 1
//! stdout: forgotten 1
//! stdout: shared still 1
//! stdout: nothing beyond 1
//! stdout: break 1
//! stdout: break back 1
//! stdout: fork 1 2
//! stdout: errors 4
#include "process.h"

static volatile int code, mends, absent;
static volatile word fault_at;

// Why it was (SEGV_MAPERR 1, SEGV_ACCERR 2; qemu-user for ppc does not know), and where (s390x tells only the page).
static int was(int why, char *where) {
#if defined(__powerpc__)
  why = code;
#elif defined(__s390x__)
  where = (char *)((word)where & ~4095ul);
  fault_at &= ~4095ul;
#endif
  return code == why && fault_at == (word)where;
}

// Makes what was in the way writable, and goes on where it happened.
static void on_fault(int signal, struct siginfo *info, void *context) {
  (void)signal, (void)context;
  code = info->code;
  fault_at = info->u.address;
  word start = fault_at & ~(BLOCK - 1);
  if (absent) map((void *)start, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  else SYS(mprotect, start, BLOCK, PROT_READ | PROT_WRITE, 0);
  if (++mends > 20) quit(2);
}

// A map that begins at a multiple of BLOCK.
static char *aligned(word size) {
  char *at = anonymous(size + BLOCK);
  return (char *)(((word)at + BLOCK - 1) & ~(BLOCK - 1));
}

static void files(void) {
  char page[8] = "content", back[8];
  long fd = SYS(openat, AT_FDCWD, "mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
  check("open", fd >= 0);
  SYS(write, fd, page, 8, 0);
  SYS(ftruncate, fd, 3 * BLOCK, 0, 0);
  char *private = map(0, 3 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char *shared = map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char *second = map(0, BLOCK, PROT_READ, MAP_SHARED, fd, BLOCK);
  check("maps of a file", mapped(private) && mapped(shared) && mapped(second));
  say("private", same(private, page, 8) && private[2 * BLOCK] == 0);
  say("shared", same(shared, page, 8) && second[0] == 0);
  private[0] = 'P';
  SYS(lseek, fd, 0, 0, 0);
  SYS(read, fd, back, 8, 0);
  say("file unchanged", same(back, "content", 8));
  shared[0] = 'S';
  check("msync", SYS(msync, shared, BLOCK, MS_SYNC, 0) == 0);
  SYS(lseek, fd, 0, 0, 0);
  SYS(read, fd, back, 8, 0);
  say("file changed", same(back, "Sontent", 8) && private[0] == 'P');
  SYS(munmap, shared, BLOCK, 0, 0);
  SYS(close, fd, 0, 0, 0);
  fd = SYS(openat, AT_FDCWD, "mapped", O_RDONLY, 0);
  SYS(read, fd, back, 8, 0);
  say("written again", same(back, "Sontent", 8));
  SYS(close, fd, 0, 0, 0);
  SYS(unlinkat, AT_FDCWD, "mapped", 0, 0);
}

static void faults(void) {
  check("sigaction", handle(SIGSEGV, (void *)on_fault, 0, 0) == 0);
  char *at = aligned(4 * BLOCK);
  at[5] = 1;
  check("mprotect", SYS(mprotect, at, BLOCK, PROT_READ, 0) == 0);
  ((volatile char *)at)[5] = 2;
  say("not allowed", was(2, at + 5));
  say("allowed", at[5] == 2 && mends == 1);
  check("munmap", SYS(munmap, at + BLOCK, BLOCK, 0, 0) == 0);
  absent = 1;
  ((volatile char *)at)[BLOCK + 7] = 3;
  absent = 0;
  say("not there", was(1, at + BLOCK + 7) && at[BLOCK + 7] == 3);
  // Nothing may be done with it at all, then all again; and three pages in turn.
  SYS(mprotect, at, 3 * BLOCK, 0, 0);
  int sum = 0;
  for (int i = 0; i < 3; i++) sum += ((volatile char *)at)[(word)i * BLOCK + 5];
  check("what was there is there again", sum == 2);
  say("mended", mends);
}

static void shapes(void) {
  char *at = aligned(4 * BLOCK);
  for (int i = 0; i < 4; i++) at[(word)i * BLOCK] = (char)('a' + i);
  SYS(munmap, at + BLOCK, BLOCK, 0, 0);
  say("hole", SYS(write, 1, at + BLOCK, 1, 0) == -EFAULT);
  say("neighbours", at[0] == 'a' && at[2 * BLOCK] == 'c' && at[3 * BLOCK] == 'd');
  char *moving = aligned(2 * BLOCK);
  moving[0] = 'm', moving[2 * BLOCK - 1] = 'n';
  char *grown = (char *)SYS5(mremap, moving, 2 * BLOCK, 8 * BLOCK, MREMAP_MAYMOVE, 0);
  say("grown", mapped(grown) && grown[0] == 'm' && grown[2 * BLOCK - 1] == 'n' && grown[7 * BLOCK] == 0);
  char *shrunk = (char *)SYS5(mremap, grown, 8 * BLOCK, BLOCK, 0, 0);
  say("shrunk", shrunk == grown && shrunk[0] == 'm' && SYS(write, 1, grown + BLOCK, 1, 0) == -EFAULT);
  char *to = aligned(2 * BLOCK);
  char *moved = (char *)SYS5(mremap, shrunk, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  say("moved", moved == to && to[0] == 'm' && SYS(write, 1, shrunk, 1, 0) == -EFAULT);
  char *advised = anonymous(2 * BLOCK);
  advised[0] = advised[BLOCK] = 'x';
  check("madvise", SYS(madvise, advised, 2 * BLOCK, MADV_DONTNEED, 0) == 0);
  say("forgotten", advised[0] == 0 && advised[BLOCK] == 0);
}

// What two processes share, one of them moves, cuts and grows: behind its end is nothing.
static void sharing(void) {
  char *both = map(0, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check("mmap shared", mapped(both));
  both[0] = 's';
  long child = fork_child();
  if (child == 0) {
    char *to = aligned(4 * BLOCK);
    char *moved = (char *)SYS5(mremap, both, 2 * BLOCK, 2 * BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    check("moved", moved == to);
    moved[1] = moved[0], moved[BLOCK] = 'b';
    char *cut = (char *)SYS5(mremap, moved, 2 * BLOCK, BLOCK, 0, 0);
    cut[2] = 'c';
    quit(cut == moved);
  }
  check("moves", wait_for(child, 0) >> 8 == 1);
  say("shared still", both[1] == 's' && both[2] == 'c' && both[BLOCK] == 'b');
  child = fork_child();
  if (child == 0) {
    char *grown = (char *)SYS5(mremap, both, 2 * BLOCK, 4 * BLOCK, MREMAP_MAYMOVE, 0);
    if (mapped(grown) && SYS(write, 1, grown + 3 * BLOCK, 1, 0) == -EFAULT) grown[1] = 'g';
    handle(SIGBUS, 0, 0, 0);
    ((volatile char *)grown)[2 * BLOCK] = 1;
    quit(1);
  }
  say("nothing beyond", (wait_for(child, 0) & 0x7f) == SIGBUS && both[1] == 'g');
}

static void the_break(void) {
  word start = (word)SYS(brk, 0, 0, 0, 0);
  word end = (word)SYS(brk, start + 3 * BLOCK, 0, 0, 0);
  char *heap = (char *)start;
  int fresh = end == start + 3 * BLOCK && heap[3 * BLOCK - 1] == 0;
  heap[0] = heap[3 * BLOCK - 1] = 'h';
  say("break", fresh && heap[0] == 'h');
  word back = (word)SYS(brk, start + BLOCK, 0, 0, 0);
  word again = (word)SYS(brk, start + 3 * BLOCK, 0, 0, 0);
  say("break back", back == start + BLOCK && again == end && heap[0] == 'h' && heap[3 * BLOCK - 1] == 0);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  char *at = anonymous(16 * BLOCK);
  int zeroes = 1;
  for (word i = 0; i < 16 * BLOCK; i += 4096) zeroes &= at[i] == 0;
  say("zeroes", zeroes);
  at[15 * BLOCK + 1] = 'z';
  say("there", at[15 * BLOCK + 1] == 'z');
  files();
  faults();
  shapes();
  sharing();
  the_break();
  at[0] = 1;
  long child = fork_child();
  if (child == 0) { at[0] = 2; quit(at[0]); }
  int status = wait_for(child, 0) >> 8;
  put("fork ");
  put_number(at[0]);
  say("", status);
  int errors = (long)map(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -EINVAL;
  errors += (long)map(0, BLOCK, PROT_READ, MAP_PRIVATE, -1, 0) == -EBADF;
  errors += SYS(munmap, at + 1, BLOCK, 0, 0) == -EINVAL;
  errors += SYS(mprotect, at + 1, BLOCK, PROT_READ, 0) == -EINVAL;
  say("errors", errors);
  return 0;
}
