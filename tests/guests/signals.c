// Signals: what a handler is told, masks, a stack of its own, calls that go on or do not, waiting for signals in three ways,
// timers, processes that send each other some, stand still and go on, and how they ended.
//! signal: SIGTERM
//! targets: !sparc64
//! stdout: told SIGUSR1 by us 1
//! stdout: depth 2
//! stdout: waits 1
//! stdout: came 1
//! stdout: order 21
//! stdout: once 1
//! stdout: on its own stack 1
//! stdout: read again 1
//! stdout: read interrupted 1
//! stdout: suspended 1
//! stdout: mask again 1
//! stdout: nothing came 1
//! stdout: taken 1 with 0
//! stdout: child told 3
//! stdout: alarms 3
//! stdout: broken pipe 1
//! stdout: exited 3
//! stdout: killed 9
//! stdout: stands still 1
//! stdout: goes on 1
//! stdout: sleeps on 5
//! stdout: no child 1
//! stdout: ping-pong 10
//! stdout: nobody 1
#include "process.h"

static volatile int seen, told, depth, deepest, order, on_stack, alarms, pings;
static volatile long partner;
static int pipe_ends[2];
static char *other_stack;

static void on_told(int signal, struct siginfo *info, void *context) {
  (void)context;
  seen++;
  told = signal == info->signo && info->code == SI_USER && info->u.from.pid == own_pid();
}
static void on_nested(int signal, struct siginfo *info, void *context) {
  (void)info, (void)context;
  depth++;
  if (depth > deepest) deepest = depth;
  if (depth < 2) SYS(kill, own_pid(), signal, 0, 0);
  depth--;
}
// USR2 is blocked while USR1 is handled.
static void on_first(int signal) {
  (void)signal;
  SYS(kill, own_pid(), SIGUSR2, 0, 0);
  order = order * 10 + 2;
}
static void on_second(int signal) { (void)signal; order = order * 10 + 1; }
static void on_own_stack(int signal) {
  (void)signal;
  char here;
  on_stack = (word)&here - (word)other_stack < BLOCK;
}
static void on_alarm(int signal) { (void)signal; alarms++; SYS(write, pipe_ends[1], "x", 1, 0); }
static void on_silent_alarm(int signal) { (void)signal; alarms++; }
static void on_ping(int signal) { (void)signal; if (++pings <= 10) SYS(kill, partner, SIGUSR1, 0, 0); }

static void alarm_in(long microseconds, long again) {
  long timer[4] = { 0, again, 0, microseconds };
  check("setitimer", SYS(setitimer, 0, timer, 0, 0) == 0);
}
static int blocked(int signal) {
  sigset set;
  check("sigprocmask", SYS(rt_sigprocmask, SIG_BLOCK, 0, &set, SET_SIZE) == 0);
  return set_has(&set, signal);
}
static int pending(int signal) {
  sigset set;
  check("sigpending", SYS(rt_sigpending, &set, SET_SIZE, 0, 0) == 0);
  return set_has(&set, signal);
}

static void handlers(void) {
  long self = own_pid();
  char byte;
  handle(SIGUSR1, (void *)on_told, 0, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  say("told SIGUSR1 by us", told);
  handle(SIGUSR1, (void *)on_nested, SA_NODEFER, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  say("depth", deepest);

  seen = 0;
  handle(SIGUSR1, (void *)on_told, 0, 0);
  block(SIG_BLOCK, SIGUSR1);
  SYS(kill, self, SIGUSR1, 0, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  say("waits", pending(SIGUSR1) && seen == 0);
  block(SIG_UNBLOCK, SIGUSR1);
  say("came", seen == 1 && !pending(SIGUSR1));

  handle(SIGUSR1, (void *)on_first, 0, SIGUSR2);
  handle(SIGUSR2, (void *)on_second, 0, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  say("order", order);

  handle(SIGUSR1, (void *)on_told, SA_RESETHAND, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  struct action now;
  SYS(rt_sigaction, SIGUSR1, 0, &now, SET_SIZE);
  say("once", now.handler == 0);

  other_stack = anonymous(BLOCK);
  struct stack stack;
  stack.at = other_stack, stack.flags = 0, stack.size = BLOCK;
  check("sigaltstack", SYS(sigaltstack, &stack, 0, 0, 0) == 0);
  handle(SIGUSR1, (void *)on_own_stack, SA_ONSTACK, 0);
  SYS(kill, self, SIGUSR1, 0, 0);
  say("on its own stack", on_stack);

  handle(SIGALRM, (void *)on_alarm, SA_RESTART, 0);
  alarm_in(20000, 0);
  say("read again", SYS(read, pipe_ends[0], &byte, 1, 0));
  handle(SIGALRM, (void *)on_silent_alarm, 0, 0);
  alarm_in(20000, 0);
  say("read interrupted", SYS(read, pipe_ends[0], &byte, 1, 0) == -EINTR);
}

static void waiting(void) {
  sigset none = set_of(0), usr1 = set_of(SIGUSR1), chld = set_of(SIGCHLD);
  struct siginfo info;
  seen = 0;
  handle(SIGUSR1, (void *)on_told, 0, 0);
  block(SIG_BLOCK, SIGUSR1);
  SYS(kill, own_pid(), SIGUSR1, 0, 0);
  long answer = SYS(rt_sigsuspend, &none, SET_SIZE, 0, 0);
  say("suspended", answer == -EINTR && seen == 1);
  say("mask again", blocked(SIGUSR1));

  struct timespec soon = { 0, 20000000 };
  say("nothing came", SYS(rt_sigtimedwait, &usr1, &info, &soon, SET_SIZE) == -EAGAIN);
  SYS(kill, own_pid(), SIGUSR1, 0, 0);
  answer = SYS(rt_sigtimedwait, &usr1, &info, 0, SET_SIZE);
  put("taken ");
  put_number(answer == SIGUSR1 && info.signo == SIGUSR1 && info.u.from.pid == own_pid());
  say(" with", info.code);
  block(SIG_BLOCK, SIGCHLD);
  long child = fork_child();
  if (child == 0) quit(3);
  answer = SYS(rt_sigtimedwait, &chld, &info, 0, SET_SIZE);
  check("SIGCHLD", answer == SIGCHLD && info.code == 1 && info.u.from.pid == child);
  say("child told", info.u.from.u.status);
  wait_for(child, 0);
  block(SIG_UNBLOCK, SIGCHLD);

  alarms = 0;
  handle(SIGALRM, (void *)on_silent_alarm, 0, 0);
  alarm_in(10000, 10000);
  while (alarms < 3) SYS(rt_sigsuspend, &none, SET_SIZE, 0, 0);
  alarm_in(0, 0);
  say("alarms", alarms);
}

static void processes(void) {
  int broken[2];
  check("pipe", SYS(pipe2, broken, 0, 0, 0) == 0);
  SYS(close, broken[0], 0, 0, 0);
  handle(SIGPIPE, (void *)1, 0, 0);
  say("broken pipe", SYS(write, broken[1], "x", 1, 0) == -EPIPE);

  long child = fork_child();
  if (child == 0) quit(3);
  say("exited", wait_for(child, 0) >> 8);
  child = fork_child();
  if (child == 0) for (;;) nap(1000);
  SYS(kill, child, SIGKILL, 0, 0);
  say("killed", wait_for(child, 0));
  child = fork_child();
  if (child == 0) for (;;) nap(1000);
  SYS(kill, child, SIGSTOP, 0, 0);
  say("stands still", wait_for(child, 2) == (SIGSTOP << 8 | 0x7f)); // WUNTRACED
  SYS(kill, child, SIGCONT, 0, 0);
  say("goes on", wait_for(child, 8) == 0xffff); // WCONTINUED
  SYS(kill, child, SIGKILL, 0, 0);
  wait_for(child, 0);
  child = fork_child();
  if (child == 0) {
    struct timespec time = { 0, 30000000 };
    quit(SYS(nanosleep, &time, 0, 0, 0) == 0 ? 5 : 6);
  }
  SYS(kill, child, SIGSTOP, 0, 0);
  wait_for(child, 2);
  SYS(kill, child, SIGCONT, 0, 0);
  say("sleeps on", wait_for(child, 0) >> 8);
  int status;
  say("no child", SYS(wait4, -1, &status, 0, 0) == -ECHILD);

  // Each answers until ten signals have come.
  handle(SIGUSR1, (void *)on_ping, 0, 0);
  block(SIG_BLOCK, SIGUSR1);
  sigset none = set_of(0);
  partner = own_pid();
  child = fork_child();
  if (child == 0) {
    SYS(kill, partner, SIGUSR1, 0, 0);
    while (pings < 10) SYS(rt_sigsuspend, &none, SET_SIZE, 0, 0);
    quit(pings);
  }
  partner = child;
  while (pings < 10) SYS(rt_sigsuspend, &none, SET_SIZE, 0, 0);
  check("child's pings", wait_for(child, 0) >> 8 == 10);
  say("ping-pong", pings);
  say("nobody", SYS(kill, child, 0, 0, 0) == -ESRCH);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  check("pipe", SYS(pipe2, pipe_ends, 0, 0, 0) == 0);
  handlers();
  waiting();
  processes();
  SYS(kill, own_pid(), SIGTERM, 0, 0);
  return 1;
}
