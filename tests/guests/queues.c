// Signals that wait: real-time ones in order and with what was said of each, behind a descriptor too; those of a process, which any of its
// threads takes that wants to, also later.
//! under: native
//! targets: !sparc64
//! stdout: order 40 2
//! stdout: order 41 1
//! stdout: order 41 3
//! stdout: once 1
//! stdout: read 40 by us 1 with 7
//! stdout: waited for by the other 1
//! stdout: let in by the other 1
//! stdout: ended by one that nobody blocks
//! signal: SIGTERM
#include "process.h"

static volatile int tid, waits, taken, opens, handled_by;
static char *stack;

static sigset both(int a, int b) {
  sigset set = set_of(a);
  set_add(&set, b);
  return set;
}
static void queue(int signal, word value) {
  struct siginfo info;
  for (word i = 0; i < sizeof info; i++) { ((char *)&info)[i] = 0; __asm__ volatile("" ::: "memory"); }
  info.signo = signal;
  info.code = SI_QUEUE;
  info.u.from.pid = (int)own_pid();
  info.u.from.u.value = value;
  check("sigqueue", SYS(rt_sigqueueinfo, own_pid(), signal, &info, 0) == 0);
}

static void waiter(word argument) {
  (void)argument;
  sigset usr1 = set_of(SIGUSR1);
  struct siginfo info;
  waits = 1;
  wake(&waits, 1);
  taken = SYS(rt_sigtimedwait, &usr1, &info, 0, SET_SIZE) == SIGUSR1 && info.code == SI_USER;
  end_thread();
}
static void on_usr2(int signal) { (void)signal; handled_by = (int)own_tid(); }
static void opener(word argument) {
  (void)argument;
  opens = (int)own_tid();
  block(SIG_UNBLOCK, SIGUSR2);
  end_thread();
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  sigset mine = both(40, 41);
  check("sigprocmask", SYS(rt_sigprocmask, SIG_BLOCK, &mine, 0, SET_SIZE) == 0);
  queue(41, 1), queue(40, 2), queue(41, 3);
  struct siginfo info;
  for (int i = 0; i < 3; i++) {
    put("order ");
    put_number(SYS(rt_sigtimedwait, &mine, &info, 0, SET_SIZE));
    say("", (long)info.u.from.u.value);
  }
  block(SIG_BLOCK, SIGUSR1);
  SYS(kill, own_pid(), SIGUSR1, 0, 0);
  queue(SIGUSR1, 9);
  sigset usr1 = set_of(SIGUSR1);
  struct timespec now = { 0, 0 };
  int first = SYS(rt_sigtimedwait, &usr1, &info, &now, SET_SIZE) == SIGUSR1 && info.code == SI_USER;
  say("once", first && SYS(rt_sigtimedwait, &usr1, &info, &now, SET_SIZE) == -EAGAIN);

  // ssi_signo, ssi_errno, ssi_code, ssi_pid ... ssi_int is the twelfth.
  int told[32];
  long fd = SYS(signalfd4, -1, &mine, SET_SIZE, 0);
  queue(40, 7);
  check("read", SYS(read, fd, told, sizeof told, 0) == sizeof told);
  put("read ");
  put_number(told[0]);
  put(" by us ");
  put_number(told[2] == SI_QUEUE && told[3] == own_pid());
  // On big-endian machines of 64 bits the value's first half.
  long value = sizeof(word) == 8 && *(const char *)&(const int){1} == 0 ? told[13] : told[11];
  say(" with", value);

  stack = anonymous(2 * BLOCK);
  check("clone", start_thread(stack + BLOCK, &tid, waiter, 0) > 0);
  while (!waits) sleep_on(&waits, 0);
  nap(20);
  SYS(kill, own_pid(), SIGUSR1, 0, 0);
  join_thread(&tid);
  say("waited for by the other", taken);

  handle(SIGUSR2, (void *)on_usr2, 0, 0);
  block(SIG_BLOCK, SIGUSR2);
  SYS(kill, own_pid(), SIGUSR2, 0, 0);
  check("clone", start_thread(stack + 2 * BLOCK, &tid, opener, 0) > 0);
  join_thread(&tid);
  say("let in by the other", handled_by != 0 && handled_by == opens);
  put("ended by one that nobody blocks\n");
  SYS(kill, own_pid(), SIGTERM, 0, 0);
  return 1;
}
