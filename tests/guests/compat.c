// A 64-bit program that makes calls in the way of 32-bit ones; and what else its processor does with a call and with an address that
// no program can have.
//! targets: x86_64
//! under: native
//! stdout: written by int 0x80
//! stdout: same process 1
//! stdout: low memory 1
//! stdout: time 1
//! stdout: no such descriptor 1
//! stdout: child 7
//! stdout: below two gigabytes 1
//! stdout: call keeps 1 1
//! stdout: flags 1
//! stdout: far 11 128
#include "process.h"

static long old_call(unsigned number, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
  return result;
}

static void on_signal(int signal, struct siginfo *info, void *context) {
  (void)context;
  put("far ");
  put_number(signal);
  put(" ");
  put_number(info->code);
  put("\n");
  quit(info->u.address != 0);
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  // i386: mmap2 192, write 4, getpid 20, gettimeofday 78, close 6, fork 2, waitpid 7, exit 1.
  char *low = (char *)old_call(192, 0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (unsigned)-1);
  check("mmap2", mapped(low));
  static const char text[] = "written by int 0x80\n";
  for (word i = 0; i < sizeof text; i++) ((volatile char *)low)[i] = text[i];
  check("write", old_call(4, 1, (unsigned)(word)low, sizeof text - 1, 0, 0) == sizeof text - 1);
  say("same process", old_call(20, 0, 0, 0, 0, 0) == own_pid());
  say("low memory", (word)low < 1ul << 32);
  // Its struct timeval has two words of 32 bits.
  volatile unsigned *time = (unsigned *)(low + 64);
  time[2] = 0x5a5a5a5a;
  check("gettimeofday", old_call(78, (unsigned)(word)time, 0, 0, 0, 0) == 0);
  say("time", time[0] > 1000000000 && time[1] < 1000000 && time[2] == 0x5a5a5a5a);
  say("no such descriptor", old_call(6, 99, 0, 0, 0, 0) == -EBADF);
  long child = old_call(2, 0, 0, 0, 0, 0);
  if (child == 0) old_call(1, 7, 0, 0, 0, 0);
  volatile int *status = (int *)(low + 128);
  check("waitpid", old_call(7, (unsigned)child, (unsigned)(word)status, 0, 0, 0) == child);
  say("child", *status >> 8);
  char *lower = map(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | 0x40, -1, 0);
  say("below two gigabytes", mapped(lower) && (word)lower < 1ul << 31);
  word back, flags, behind;
  __asm__ volatile("lea 1f(%%rip),%2\n syscall\n 1: mov %%rcx,%0\n mov %%r11,%1"
                   : "=&r"(back), "=&r"(flags), "=&r"(behind)
                   : "a"(39)
                   : "rcx", "r11", "memory");
  put("call keeps ");
  put_number(back == behind);
  put(" ");
  put_number((flags & 0x202) == 0x202);
  put("\n");
  __asm__ volatile("pushf\n pop %0" : "=r"(flags));
  say("flags", (flags & 0x202) == 0x202);
  handle(11, (void *)on_signal, 0, 0);
  *(volatile int *)0x8000000000000000 = 1;
  return 1;
}
