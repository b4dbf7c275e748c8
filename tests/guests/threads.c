// Threads: a mutex and a condition of futexes, times that run out, signals to one thread, who is who, joining by the cleared
// number, and a process whose first thread ends before it.
//! exit: 7
//! targets: !sparc64
//! stdout: counter 4000
//! stdout: numbers 4
//! stdout: process 1
//! stdout: wrong value 1
//! stdout: time out 1
//! stdout: woken 3
//! stdout: slept 3
//! stdout: signal came to 3
//! stdout: first thread gone
#include "process.h"

#define THREADS 4
#define STACK BLOCK

static volatile int tids[THREADS], numbers[THREADS];
static volatile int mutex, counter, same_process, slept, gate, stop, asked, got = -1;
static long process;

// 0: free, 1: taken, 2: taken, and somebody waits.
static void lock(void) {
  if (swap_if(&mutex, 0, 1)) return;
  for (;;) {
    swap_if(&mutex, 1, 2);
    if (swap_if(&mutex, 0, 2)) return;
    sleep_on(&mutex, 2);
  }
}
static void unlock(void) {
  if (swap_if(&mutex, 1, 0)) return;
  mutex = 0;
  wake(&mutex, 1);
}

static void count(word index) {
  numbers[index] = (int)own_tid();
  if (own_pid() == process) add(&same_process, 1);
  for (int i = 0; i < 1000; i++) {
    lock();
    int now = counter;
    if (i % 100 == 0) SYS(sched_yield, 0, 0, 0, 0);
    counter = now + 1;
    unlock();
  }
  end_thread();
}

static void sleeper(word index) {
  (void)index;
  add(&asked, 1);
  while (!gate) sleep_on(&gate, 0);
  add(&slept, 1);
  end_thread();
}

static void on_signal(int signal) {
  (void)signal;
  for (int i = 0; i < THREADS; i++)
    if (numbers[i] == own_tid()) got = i;
}
static void listener(word index) {
  numbers[index] = (int)own_tid();
  add(&asked, 1);
  while (!stop) sleep_on(&stop, 0);
  end_thread();
}

static void last(word index) {
  (void)index;
  // The first thread's number stays while its process lives.
  join_thread(&gate);
  put("first thread gone\n");
  SYS(exit_group, 7, 0, 0, 0);
}

static void all(void (*main)(word), int many, char *stacks) {
  for (int i = 0; i < many; i++)
    check("clone", start_thread(stacks + (word)(i + 1) * STACK, &tids[i], main, (word)i) > 0);
}
static void join_all(int many) {
  for (int i = 0; i < many; i++) join_thread(&tids[i]);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  char *stacks = anonymous(THREADS * STACK);
  process = own_pid();
  all(count, THREADS, stacks);
  join_all(THREADS);
  say("counter", counter);
  int different = 0;
  for (int i = 0; i < THREADS; i++) {
    int first = numbers[i] > 0 && numbers[i] != process;
    for (int j = 0; j < i; j++) first &= numbers[i] != numbers[j];
    different += first;
  }
  say("numbers", different);
  say("process", same_process == THREADS);

  struct timespec soon = { 0, 20000000 };
  say("wrong value", SYS5(futex, &gate, FUTEX_WAIT, 1, &soon, 0) == -EAGAIN);
  say("time out", SYS5(futex, &gate, FUTEX_WAIT, 0, &soon, 0) == -ETIMEDOUT);

  all(sleeper, 3, stacks);
  while (asked < 3) SYS(sched_yield, 0, 0, 0, 0);
  // Nobody goes on while the gate is shut, however often it is woken; each is woken once it sleeps.
  int woken = 0;
  while (woken < 3) { woken += (int)wake(&gate, 3 - woken); SYS(sched_yield, 0, 0, 0, 0); }
  say("woken", woken);
  gate = 1;
  wake(&gate, 100);
  join_all(3);
  say("slept", slept);

  check("sigaction", handle(SIGUSR1, (void *)on_signal, 0, 0) == 0);
  asked = 0;
  all(listener, THREADS, stacks);
  while (asked < THREADS) SYS(sched_yield, 0, 0, 0, 0);
  check("tgkill", SYS(tgkill, process, numbers[3], SIGUSR1, 0) == 0);
  while (got < 0) SYS(sched_yield, 0, 0, 0, 0);
  say("signal came to", got);
  check("tgkill of nobody", SYS(tgkill, process, 0x7ffffff, SIGUSR1, 0) == -ESRCH);
  stop = 1;
  wake(&stop, 100);
  join_all(THREADS);

  all(last, 1, stacks);
  gate = 0;
  wake(&gate, 100);
  end_thread();
  return 0;
}
