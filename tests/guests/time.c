// Time: clocks that go on and agree, sleeps, timers by signal and by descriptor, times that run out.
//! targets: !sparc64
//! stdout: clocks 5
//! stdout: no clock 1
//! stdout: resolution 1
//! stdout: real times agree 1
//! stdout: slept 1
//! stdout: slept until 1
//! stdout: interrupted, left 1
//! stdout: descriptor 3
//! stdout: left of it 1
//! stdout: nothing yet 1
//! stdout: poll 1
//! stdout: timer told 3
//! stdout: value 77
//! stdout: left of timer 1
//! stdout: no timer 1
//! stdout: interval 1
//! stdout: wrong times 1
#include "process.h"

static struct timespec now(int clock) {
  struct timespec time = { -1, -1 };
  check("clock_gettime", SYS(clock_gettime, clock, &time, 0, 0) == 0);
  return time;
}
// Milliseconds from one time to another.
static long between(struct timespec a, struct timespec b) {
  return (b.seconds - a.seconds) * 1000 + (b.nanoseconds - a.nanoseconds) / 1000000;
}
static void on_alarm(int signal) { (void)signal; }
static void alarm_in(long microseconds) {
  long timer[4] = { 0, 0, 0, microseconds };
  check("setitimer", SYS(setitimer, 0, timer, 0, 0) == 0);
}

static void clocks(void) {
  // CLOCK_REALTIME, _MONOTONIC, _PROCESS_CPUTIME_ID, _MONOTONIC_RAW, _BOOTTIME
  static const int all[] = { 0, 1, 2, 4, 7 };
  int good = 0;
  for (int i = 0; i < 5; i++) {
    struct timespec first = now(all[i]);
    for (volatile int j = 0; j < 1000; j++) { }
    struct timespec second = now(all[i]);
    int on = second.seconds > first.seconds || (second.seconds == first.seconds && second.nanoseconds >= first.nanoseconds);
    good += on && first.nanoseconds >= 0 && first.nanoseconds < 1000000000;
  }
  say("clocks", good);
  struct timespec time;
  say("no clock", SYS(clock_gettime, 99, &time, 0, 0) == -EINVAL);
  say("resolution", SYS(clock_getres, 1, &time, 0, 0) == 0 && time.seconds == 0 && time.nanoseconds > 0);
  long of_day[2];
  struct timespec real = now(0);
  check("gettimeofday", SYS(gettimeofday, of_day, 0, 0, 0) == 0);
  struct timespec again = { of_day[0], of_day[1] * 1000 };
  long apart = between(real, again);
  say("real times agree", apart >= -1 && apart < 5000 && real.seconds > 1000000000);
}

static void sleeps(void) {
  struct timespec before = now(1), wanted = { 0, 30000000 }, left = { 0, 0 };
  check("nanosleep", SYS(nanosleep, &wanted, 0, 0, 0) == 0);
  long passed = between(before, now(1));
  say("slept", passed >= 29 && passed < 10000);
  before = now(1);
  wanted = before;
  wanted.nanoseconds += 40000000;
  if (wanted.nanoseconds >= 1000000000) wanted.seconds++, wanted.nanoseconds -= 1000000000;
  check("clock_nanosleep", SYS(clock_nanosleep, 1, 1, &wanted, 0) == 0); // TIMER_ABSTIME
  passed = between(before, now(1));
  say("slept until", passed >= 39 && passed < 10000);
  handle(SIGALRM, (void *)on_alarm, 0, 0);
  alarm_in(20000);
  wanted.seconds = 100, wanted.nanoseconds = 0;
  long answer = SYS(nanosleep, &wanted, &left, 0, 0);
  say("interrupted, left", answer == -EINTR && left.seconds >= 80 && left.seconds < 100);
}

static void descriptors(void) {
  long fd = SYS(timerfd_create, 1, O_NONBLOCK, 0, 0);
  check("timerfd_create", fd >= 0);
  unsigned long long times = 0, sum = 0;
  struct timer_value timer = { { 0, 10000000 }, { 0, 10000000 } };
  check("timerfd_settime", SYS(timerfd_settime, fd, 0, &timer, 0) == 0);
  // Each read says how often it has expired since the last one.
  while (sum < 3) {
    nap(5);
    if (SYS(read, fd, &times, 8, 0) == 8) sum += times;
  }
  say("descriptor", sum > 3 ? 3 : (long)sum);
  timer.interval.nanoseconds = 0, timer.value.seconds = 50, timer.value.nanoseconds = 0;
  check("timerfd_settime", SYS(timerfd_settime, fd, 0, &timer, 0) == 0);
  check("timerfd_gettime", SYS(timerfd_gettime, fd, &timer, 0, 0) == 0);
  say("left of it", timer.value.seconds >= 40 && timer.value.seconds <= 50 && timer.interval.seconds == 0);
  say("nothing yet", SYS(read, fd, &times, 8, 0) == -EAGAIN);
  struct { int fd; short events, found; } entry = { (int)fd, 1, 0 };
  struct timespec soon = { 0, 10000000 };
  int quiet = SYS5(ppoll, &entry, 1, &soon, 0, 0) == 0;
  timer.value.seconds = 0, timer.value.nanoseconds = 10000000;
  SYS(timerfd_settime, fd, 0, &timer, 0);
  say("poll", quiet && SYS5(ppoll, &entry, 1, 0, 0, 0) == 1 && entry.found == 1);
}

static void timers(void) {
  // struct sigevent, 64 bytes: value, signal, how.
  static union { struct { word value; int signal, how; } as; char all[64]; } event;
  event.as.value = 77, event.as.signal = SIGUSR1;
  int id = -1, told = 0;
  sigset set = set_of(SIGUSR1);
  struct siginfo info;
  block(SIG_BLOCK, SIGUSR1);
  check("timer_create", SYS(timer_create, 1, &event, &id, 0) == 0);
  struct timer_value timer = { { 0, 20000000 }, { 0, 20000000 } };
  check("timer_settime", SYS(timer_settime, id, 0, &timer, 0) == 0);
  for (int i = 0; i < 3; i++)
    told += SYS(rt_sigtimedwait, &set, &info, 0, SET_SIZE) == SIGUSR1 && info.code == SI_TIMER;
  say("timer told", told);
  say("value", (long)info.u.timer.value);
  check("timer_getoverrun", SYS(timer_getoverrun, id, 0, 0, 0) >= 0);
  timer.interval.nanoseconds = 0, timer.value.seconds = 50, timer.value.nanoseconds = 0;
  SYS(timer_settime, id, 0, &timer, 0);
  check("timer_gettime", SYS(timer_gettime, id, &timer, 0, 0) == 0);
  say("left of timer", timer.value.seconds >= 40 && timer.value.seconds <= 50);
  check("timer_delete", SYS(timer_delete, id, 0, 0, 0) == 0);
  say("no timer", SYS(timer_gettime, id, &timer, 0, 0) == -EINVAL);
  long itimer[4] = { 7, 0, 60, 0 }, old[4];
  SYS(setitimer, 0, itimer, 0, 0);
  SYS(getitimer, 0, old, 0, 0);
  say("interval", old[0] == 7 && old[2] >= 50 && old[2] <= 60);
  alarm_in(0);
  struct timespec wrong = { 0, 1000000000 };
  say("wrong times", SYS(nanosleep, &wrong, 0, 0, 0) == -EINVAL);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  clocks();
  sleeps();
  descriptors();
  timers();
  return 0;
}
