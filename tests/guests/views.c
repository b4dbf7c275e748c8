// One memory at several addresses: two maps of a file, other processes that map the file by themselves, and
// calls of others about the file.
//! targets: !sparc64
//! stdout: second map 1
//! stdout: read 1
//! stdout: written 1
//! stdout: allowed later 1
//! stdout: kept when protected 1
//! stdout: the child's own map 1
//! stdout: what the child stored 1
//! stdout: what the child reads 1
//! stdout: what the child wrote 1
//! stdout: one map left 1
//! stdout: a new map 1
//! stdout: other files are left alone 1
//! stdout: stored before a kill 1
//! stdout: cut off 1
//! stdout: replaced by another map 1
#include "process.h"

static void tell(const int *pipe, int what) { SYS(write, pipe[1], &what, sizeof what, 0); }
static int hear(const int *pipe) {
  int what = -1;
  SYS(read, pipe[0], &what, sizeof what, 0);
  return what;
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  int back;
  long fd = SYS(openat, AT_FDCWD, "viewed", O_RDWR | O_CREAT | O_TRUNC, 0600);
  check("open", fd >= 0);
  SYS(ftruncate, fd, 2 * BLOCK, 0, 0);
  volatile int *one = (int *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile int *two = (int *)map(0, 2 * BLOCK, PROT_READ, MAP_SHARED, fd, 0);
  check("maps", mapped((char *)one) && mapped((char *)two));
  one[0] = 1234;
  say("second map", two[0] == 1234 && two[BLOCK / sizeof(int)] == 0);
  SYS(read, fd, &back, sizeof back, 0);
  say("read", back == 1234);
  back = 77;
  SYS(write, fd, &back, sizeof back, 0);
  say("written", one[1] == 77 && two[1] == 77);
  // What a map without any access holds.
  volatile int *later = (int *)map(0, BLOCK, 0, MAP_PRIVATE, fd, 0);
  SYS(mprotect, later, BLOCK, PROT_READ, 0);
  say("allowed later", later[0] == 1234 && later[1] == 77);
  one[2] = 5;
  SYS(mprotect, one, BLOCK, PROT_READ, 0);
  SYS(read, fd, &back, sizeof back, 0);
  say("kept when protected", back == 5);
  SYS(mprotect, one, BLOCK, PROT_READ | PROT_WRITE, 0);
  int ask[2], answer[2];
  check("pipes", SYS(pipe2, ask, 0, 0, 0) == 0 && SYS(pipe2, answer, 0, 0, 0) == 0);
  long child = fork_child();
  if (child == 0) {
    SYS(munmap, one, BLOCK, 0, 0);
    SYS(munmap, two, 2 * BLOCK, 0, 0);
    long own = SYS(openat, AT_FDCWD, "viewed", O_RDWR, 0);
    volatile int *mine = (int *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
    int saw = mapped((char *)mine) && mine[0] == 1234;
    mine[3] = 33;
    tell(answer, saw);
    hear(ask);
    SYS(munmap, mine, BLOCK, 0, 0);
    SYS(lseek, own, 4 * sizeof(int), 0, 0);
    SYS(read, own, &back, sizeof back, 0);
    tell(answer, back == 44);
    back = 55;
    SYS(write, own, &back, sizeof back, 0);
    tell(answer, 1);
    quit(0);
  }
  say("the child's own map", hear(answer));
  say("what the child stored", one[3] == 33 && two[3] == 33);
  one[4] = 44;
  tell(ask, 1);
  say("what the child reads", hear(answer));
  hear(answer);
  say("what the child wrote", one[5] == 55 && two[5] == 55);
  wait_for(child, 0);
  SYS(munmap, one, BLOCK, 0, 0);
  say("one map left", two[0] == 1234 && two[5] == 55);
  volatile int *again = (int *)map(0, BLOCK, PROT_READ, MAP_SHARED, fd, 0);
  say("a new map", again[0] == 1234 && again[5] == 55);
  // Two files, and two processes that have both: a call about one does nothing to the other.
  long other = SYS(openat, AT_FDCWD, "other", O_RDWR | O_CREAT | O_TRUNC, 0600);
  SYS(ftruncate, other, BLOCK, 0, 0);
  volatile int *first = (int *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile int *second = (int *)map(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
  child = fork_child();
  if (child == 0) {
    hear(ask);
    second[1] = 22;
    SYS(kill, own_pid(), 9, 0, 0);
  }
  first[6] = 66;
  SYS(lseek, other, 0, 0, 0);
  SYS(read, other, (void *)(first + 8), 64, 0);
  first[9] = 99;
  SYS(read, other, &back, sizeof back, 0);
  say("other files are left alone", first[6] == 66 && first[9] == 99 && first[8] == 0);
  SYS(munmap, second, BLOCK, 0, 0);
  tell(ask, 1);
  wait_for(child, 0);
  SYS(lseek, other, sizeof(int), 0, 0);
  SYS(read, other, &back, sizeof back, 0);
  say("stored before a kill", back == 22);
  SYS(ftruncate, fd, 0, 0, 0);
  SYS(ftruncate, fd, BLOCK, 0, 0);
  SYS(lseek, fd, 0, 0, 0);
  SYS(read, fd, &back, sizeof back, 0);
  say("cut off", back == 0 && first[6] == 0);
  first[7] = 77;
  map((void *)first, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  SYS(lseek, fd, 7 * sizeof(int), 0, 0);
  SYS(read, fd, &back, sizeof back, 0);
  say("replaced by another map", back == 77);
  return 0;
}
