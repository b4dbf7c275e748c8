// What a guest program needs and no C library gives: an entry, system calls by name, and little more.
//
// A guest is one file, tests/guests/NAME.c or NAME.S, built for every target of runner/xtask/src/guests.rs by
// `cargo run -p xtask -- guests`. Before any engine of ours runs a guest it must pass under qemu-user. Lines that begin
// with `//! ` say what passing means:
//
//   //! args: WORD...        arguments after the program's name
//   //! exit: N              exit code (0 when the line is absent)
//   //! signal: SIGNAME      the signal that ends it, instead of an exit code
//   //! stdout: TEXT         a line of standard output; several lines in order. No such line: output is not compared
//   //! targets: NAME...     only for these targets (`!NAME`: not for this one)
//   //! flags: FLAG...       further compiler flags
//   //! under: native        qemu-user does not know what it does: it must pass on the host itself, where that can run it
//
// System call numbers and flag values are Linux's, from arch/*/include/uapi (asm/unistd.h, asm/fcntl.h).
#ifndef GUEST_H
#define GUEST_H

#if defined(__x86_64__)
#define NR_read 0
#define NR_write 1
#define NR_close 3
#define NR_mprotect 10
#define NR_getpid 39
#define NR_kill 62
#define NR_exit_group 231
#define NR_openat 257
#define NR_mkdirat 258
#define NR_unlinkat 263
#define NR_symlinkat 266
#define NR_readlinkat 267
#define NR_fchmodat 268
#elif defined(__i386__)
#define NR_read 3
#define NR_write 4
#define NR_close 6
#define NR_getpid 20
#define NR_kill 37
#define NR_mprotect 125
#define NR_exit_group 252
#define NR_openat 295
#define NR_mkdirat 296
#define NR_unlinkat 301
#define NR_symlinkat 304
#define NR_readlinkat 305
#define NR_fchmodat 306
#elif defined(__arm__)
#define NR_read 3
#define NR_write 4
#define NR_close 6
#define NR_getpid 20
#define NR_kill 37
#define NR_mprotect 125
#define NR_exit_group 248
#define NR_openat 322
#define NR_mkdirat 323
#define NR_unlinkat 328
#define NR_symlinkat 331
#define NR_readlinkat 332
#define NR_fchmodat 333
#elif defined(__aarch64__) || defined(__riscv)
#define NR_mkdirat 34
#define NR_unlinkat 35
#define NR_symlinkat 36
#define NR_fchmodat 53
#define NR_openat 56
#define NR_close 57
#define NR_read 63
#define NR_write 64
#define NR_readlinkat 78
#define NR_exit_group 94
#define NR_kill 129
#define NR_getpid 172
#define NR_mprotect 226
#elif defined(__mips__) && defined(__mips64)
#define NR_read 5000
#define NR_write 5001
#define NR_close 5003
#define NR_mprotect 5010
#define NR_getpid 5038
#define NR_kill 5060
#define NR_exit_group 5205
#define NR_openat 5247
#define NR_mkdirat 5248
#define NR_unlinkat 5253
#define NR_symlinkat 5256
#define NR_readlinkat 5257
#define NR_fchmodat 5258
#elif defined(__mips__)
#define NR_read 4003
#define NR_write 4004
#define NR_close 4006
#define NR_getpid 4020
#define NR_kill 4037
#define NR_mprotect 4125
#define NR_exit_group 4246
#define NR_openat 4288
#define NR_mkdirat 4289
#define NR_unlinkat 4294
#define NR_symlinkat 4297
#define NR_readlinkat 4298
#define NR_fchmodat 4299
#elif defined(__powerpc__)
#define NR_read 3
#define NR_write 4
#define NR_close 6
#define NR_getpid 20
#define NR_kill 37
#define NR_mprotect 125
#define NR_exit_group 234
#define NR_openat 286
#define NR_mkdirat 287
#define NR_unlinkat 292
#define NR_symlinkat 295
#define NR_readlinkat 296
#define NR_fchmodat 297
#elif defined(__s390x__)
#define NR_read 3
#define NR_write 4
#define NR_close 6
#define NR_getpid 20
#define NR_kill 37
#define NR_mprotect 125
#define NR_exit_group 248
#define NR_openat 288
#define NR_mkdirat 289
#define NR_unlinkat 294
#define NR_symlinkat 297
#define NR_readlinkat 298
#define NR_fchmodat 299
#elif defined(__sparc__)
#define NR_read 3
#define NR_write 4
#define NR_close 6
#define NR_getpid 20
#define NR_kill 37
#define NR_mprotect 74
#define NR_exit_group 188
#define NR_openat 284
#define NR_mkdirat 285
#define NR_unlinkat 290
#define NR_symlinkat 293
#define NR_readlinkat 294
#define NR_fchmodat 295
#else
#error "no system call numbers for this architecture"
#endif

// Calls of guests about sockets and waiting; not for sparc.
#if defined(__x86_64__)
#define NR_pipe2 293
#define NR_socket 41
#define NR_socketpair 53
#define NR_bind 49
#define NR_listen 50
#define NR_accept4 288
#define NR_connect 42
#define NR_getsockname 51
#define NR_getpeername 52
#define NR_shutdown 48
#define NR_sendmsg 46
#define NR_recvmsg 47
#define NR_setsockopt 54
#define NR_getsockopt 55
#define NR_epoll_create1 291
#define NR_epoll_ctl 233
#define NR_epoll_pwait 281
#define NR_eventfd2 290
#define NR_timerfd_create 283
#define NR_timerfd_settime 286
#define NR_memfd_create 319
#define NR_mknodat 259
#define NR_ftruncate 77
#elif defined(__i386__)
#define NR_pipe2 331
#define NR_socket 359
#define NR_socketpair 360
#define NR_bind 361
#define NR_listen 363
#define NR_accept4 364
#define NR_connect 362
#define NR_getsockname 367
#define NR_getpeername 368
#define NR_shutdown 373
#define NR_sendmsg 370
#define NR_recvmsg 372
#define NR_setsockopt 366
#define NR_getsockopt 365
#define NR_epoll_create1 329
#define NR_epoll_ctl 255
#define NR_epoll_pwait 319
#define NR_eventfd2 328
#define NR_timerfd_create 322
#define NR_timerfd_settime 325
#define NR_memfd_create 356
#define NR_mknodat 297
#define NR_ftruncate 93
#elif defined(__arm__)
#define NR_pipe2 359
#define NR_socket 281
#define NR_socketpair 288
#define NR_bind 282
#define NR_listen 284
#define NR_accept4 366
#define NR_connect 283
#define NR_getsockname 286
#define NR_getpeername 287
#define NR_shutdown 293
#define NR_sendmsg 296
#define NR_recvmsg 297
#define NR_setsockopt 294
#define NR_getsockopt 295
#define NR_epoll_create1 357
#define NR_epoll_ctl 251
#define NR_epoll_pwait 346
#define NR_eventfd2 356
#define NR_timerfd_create 350
#define NR_timerfd_settime 353
#define NR_memfd_create 385
#define NR_mknodat 324
#define NR_ftruncate 93
#elif defined(__aarch64__) || defined(__riscv)
#define NR_pipe2 59
#define NR_socket 198
#define NR_socketpair 199
#define NR_bind 200
#define NR_listen 201
#define NR_accept4 242
#define NR_connect 203
#define NR_getsockname 204
#define NR_getpeername 205
#define NR_shutdown 210
#define NR_sendmsg 211
#define NR_recvmsg 212
#define NR_setsockopt 208
#define NR_getsockopt 209
#define NR_epoll_create1 20
#define NR_epoll_ctl 21
#define NR_epoll_pwait 22
#define NR_eventfd2 19
#define NR_timerfd_create 85
#define NR_timerfd_settime 86
#define NR_memfd_create 279
#define NR_mknodat 33
#define NR_ftruncate 46
#elif defined(__mips__) && defined(__mips64)
#define NR_pipe2 5287
#define NR_socket 5040
#define NR_socketpair 5052
#define NR_bind 5048
#define NR_listen 5049
#define NR_accept4 5293
#define NR_connect 5041
#define NR_getsockname 5050
#define NR_getpeername 5051
#define NR_shutdown 5047
#define NR_sendmsg 5045
#define NR_recvmsg 5046
#define NR_setsockopt 5053
#define NR_getsockopt 5054
#define NR_epoll_create1 5285
#define NR_epoll_ctl 5208
#define NR_epoll_pwait 5272
#define NR_eventfd2 5284
#define NR_timerfd_create 5280
#define NR_timerfd_settime 5282
#define NR_memfd_create 5314
#define NR_mknodat 5249
#define NR_ftruncate 5075
#elif defined(__mips__)
#define NR_pipe2 4328
#define NR_socket 4183
#define NR_socketpair 4184
#define NR_bind 4169
#define NR_listen 4174
#define NR_accept4 4334
#define NR_connect 4170
#define NR_getsockname 4172
#define NR_getpeername 4171
#define NR_shutdown 4182
#define NR_sendmsg 4179
#define NR_recvmsg 4177
#define NR_setsockopt 4181
#define NR_getsockopt 4173
#define NR_epoll_create1 4326
#define NR_epoll_ctl 4249
#define NR_epoll_pwait 4313
#define NR_eventfd2 4325
#define NR_timerfd_create 4321
#define NR_timerfd_settime 4323
#define NR_memfd_create 4354
#define NR_mknodat 4290
#define NR_ftruncate 4093
#elif defined(__powerpc64__)
#define NR_pipe2 317
#define NR_socket 326
#define NR_socketpair 333
#define NR_bind 327
#define NR_listen 329
#define NR_accept4 344
#define NR_connect 328
#define NR_getsockname 331
#define NR_getpeername 332
#define NR_shutdown 338
#define NR_sendmsg 341
#define NR_recvmsg 342
#define NR_setsockopt 339
#define NR_getsockopt 340
#define NR_epoll_create1 315
#define NR_epoll_ctl 237
#define NR_epoll_pwait 303
#define NR_eventfd2 314
#define NR_timerfd_create 306
#define NR_timerfd_settime 311
#define NR_memfd_create 360
#define NR_mknodat 288
#define NR_ftruncate 93
#elif defined(__powerpc__)
#define NR_pipe2 317
#define NR_socket 326
#define NR_socketpair 333
#define NR_bind 327
#define NR_listen 329
#define NR_accept4 344
#define NR_connect 328
#define NR_getsockname 331
#define NR_getpeername 332
#define NR_shutdown 338
#define NR_sendmsg 341
#define NR_recvmsg 342
#define NR_setsockopt 339
#define NR_getsockopt 340
#define NR_epoll_create1 315
#define NR_epoll_ctl 237
#define NR_epoll_pwait 303
#define NR_eventfd2 314
#define NR_timerfd_create 306
#define NR_timerfd_settime 311
#define NR_memfd_create 360
#define NR_mknodat 288
#define NR_ftruncate 93
#elif defined(__s390x__)
#define NR_pipe2 325
#define NR_socket 359
#define NR_socketpair 360
#define NR_bind 361
#define NR_listen 363
#define NR_accept4 364
#define NR_connect 362
#define NR_getsockname 367
#define NR_getpeername 368
#define NR_shutdown 373
#define NR_sendmsg 370
#define NR_recvmsg 372
#define NR_setsockopt 366
#define NR_getsockopt 365
#define NR_epoll_create1 327
#define NR_epoll_ctl 250
#define NR_epoll_pwait 312
#define NR_eventfd2 323
#define NR_timerfd_create 319
#define NR_timerfd_settime 320
#define NR_memfd_create 350
#define NR_mknodat 290
#define NR_ftruncate 93
#endif

// A number that no architecture uses: the call must fail with ENOSYS.
#if defined(__mips__) && defined(__mips64)
#define NR_nothing 5999
#elif defined(__mips__)
#define NR_nothing 4999
#else
#define NR_nothing 999
#endif

#define AT_FDCWD (-100)
#define AT_REMOVEDIR 0x200
#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#if defined(__mips__)
#define O_CREAT 0x100
#define O_TRUNC 0x200
#define O_APPEND 0x8
#define O_NONBLOCK 0x80
#elif defined(__sparc__)
#define O_CREAT 0x200
#define O_TRUNC 0x400
#define O_APPEND 0x8
#else
#define O_CREAT 0x40
#define O_TRUNC 0x200
#define O_APPEND 0x400
#define O_NONBLOCK 0x800
#endif
#define ENOENT 2
#define EAGAIN 11
#define EISDIR 21
#if defined(__mips__)
#define ENOSYS 89
#elif defined(__sparc__)
#define ENOSYS 90
#else
#define ENOSYS 38
#endif
#define SIGKILL 9
#define SIGSEGV 11
#define SIGTERM 15
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4

#ifndef __ASSEMBLER__

typedef unsigned long word;

// A system call with up to five arguments; the answer is the result, or minus the error's number, everywhere.
static inline long sys5(long number, long a, long b, long c, long d, long e) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
#elif defined(__i386__)
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
  return result;
#elif defined(__arm__)
  register long r7 __asm__("r7") = number;
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4) : "memory");
  return r0;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = number;
  register long a0 __asm__("a0") = a;
  register long a1 __asm__("a1") = b;
  register long a2 __asm__("a2") = c;
  register long a3 __asm__("a3") = d;
  register long a4 __asm__("a4") = e;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
  return a0;
#elif defined(__mips__) && defined(__mips64)
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long a4 __asm__("$8") = e;
  __asm__ volatile("syscall"
                   : "+r"(v0), "+r"(a3), "+r"(a4)
                   : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return a3 ? -v0 : v0;
#elif defined(__mips__)
  // o32 takes it from the stack.
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long t0 __asm__("$8") = e;
  __asm__ volatile("subu $29,$29,32\n\tsw $8,16($29)\n\tsyscall\n\taddu $29,$29,32"
                   : "+r"(v0), "+r"(a3), "+r"(t0)
                   : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return a3 ? -v0 : v0;
#elif defined(__powerpc__)
  register long r0 __asm__("r0") = number;
  register long r3 __asm__("r3") = a;
  register long r4 __asm__("r4") = b;
  register long r5 __asm__("r5") = c;
  register long r6 __asm__("r6") = d;
  register long r7 __asm__("r7") = e;
  __asm__ volatile("sc\n\tbns+ 1f\n\tneg 3,3\n1:"
                   : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
                   :
                   : "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
  return r3;
#elif defined(__s390x__)
  register long r1 __asm__("1") = number;
  register long r2 __asm__("2") = a;
  register long r3 __asm__("3") = b;
  register long r4 __asm__("4") = c;
  register long r5 __asm__("5") = d;
  register long r6 __asm__("6") = e;
  __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6) : "memory");
  return r2;
#elif defined(__sparc__)
  register long g1 __asm__("g1") = number;
  register long o0 __asm__("o0") = a;
  register long o1 __asm__("o1") = b;
  register long o2 __asm__("o2") = c;
  register long o3 __asm__("o3") = d;
  register long o4 __asm__("o4") = e;
  __asm__ volatile("ta 0x6d\n\tbcc,pt %%xcc, 1f\n\tnop\n\tsub %%g0, %%o0, %%o0\n1:"
                   : "+r"(g1), "+r"(o0)
                   : "r"(o1), "r"(o2), "r"(o3), "r"(o4)
                   : "cc", "memory");
  return o0;
#endif
}

#define SYS5(name, a, b, c, d, e) sys5(NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define SYS(name, a, b, c, d) SYS5(name, a, b, c, d, 0)


static inline void quit(int code) {
  for (;;) SYS(exit_group, code, 0, 0, 0);
}

static inline word length(const char *text) {
  word n = 0;
  // The barrier keeps the compiler from making this a call of strlen.
  while (text[n]) { n++; __asm__ volatile("" ::: "memory"); }
  return n;
}

// A number in decimal digits.
static inline word number(const char *digits) {
  word value = 0;
  while (*digits) value = value * 10 + (word)(*digits++ - '0');
  return value;
}

static inline void put(const char *text) { SYS(write, 1, text, length(text), 0); }

static inline void put_number(long number) {
  char digits[24];
  int at = sizeof digits;
  unsigned long rest = number < 0 ? 0ul - (unsigned long)number : (unsigned long)number;
  digits[--at] = 0;
  do { digits[--at] = (char)('0' + rest % 10); rest /= 10; } while (rest);
  if (number < 0) digits[--at] = '-';
  put(digits + at);
}

// One line: what, and a number. What fails a check says so and ends the guest with code 1.
static inline void say(const char *what, long number) { put(what); put(" "); put_number(number); put("\n"); }
static inline void check(const char *what, int holds) {
  if (!holds) { put("FAILED: "); put(what); put("\n"); quit(1); }
}
static inline int same(const char *a, const char *b, word n) {
  for (word i = 0; i < n; i++) if (a[i] != b[i]) return 0;
  return 1;
}

// dst = a + b, as text.
static inline void join(char *dst, const char *a, const char *b) {
  while (*a) { *dst++ = *a++; __asm__ volatile("" ::: "memory"); }
  while (*b) { *dst++ = *b++; __asm__ volatile("" ::: "memory"); }
  *dst = 0;
}

// The program: argv ends with a null pointer, env follows.
int guest(int argc, char **argv);

__attribute__((used, noreturn)) void guest_start(word *stack) {
  quit(guest((int)stack[0], (char **)(stack + 1)));
  __builtin_unreachable();
}

// Where the kernel starts the program: the stack pointer, as the kernel left it, becomes the argument of guest_start.
#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call guest_start\n hlt\n");
#elif defined(__i386__)
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %esp,%eax\n and $-16,%esp\n sub $12,%esp\n push %eax\n"
        " call guest_start\n hlt\n");
#elif defined(__arm__)
__asm__(".globl _start\n.type _start,%function\n_start: mov fp,#0\n mov lr,#0\n mov r0,sp\n bic ip,sp,#7\n mov sp,ip\n"
        " bl guest_start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x29,#0\n mov x30,#0\n mov x0,sp\n and sp,x0,#-16\n bl guest_start\n");
#elif defined(__riscv)
__asm__(".globl _start\n_start: mv a0,sp\n andi sp,sp,-16\n call guest_start\n");
#elif defined(__mips__) && defined(__mips64)
__asm__(".set noreorder\n.globl _start\n_start: move $fp,$0\n move $a0,$sp\n li $t0,-16\n and $sp,$sp,$t0\n"
        " daddiu $sp,$sp,-32\n jal guest_start\n nop\n.set reorder\n");
#elif defined(__mips__)
__asm__(".set noreorder\n.globl _start\n_start: move $fp,$0\n move $a0,$sp\n li $t0,-8\n and $sp,$sp,$t0\n"
        " addiu $sp,$sp,-32\n jal guest_start\n nop\n.set reorder\n");
#elif defined(__powerpc64__)
__asm__(".globl _start\n_start: addis 2,12,.TOC.-_start@ha\n addi 2,2,.TOC.-_start@l\n mr 3,1\n clrrdi 1,1,4\n li 0,0\n"
        " stdu 1,-64(1)\n mtlr 0\n std 0,0(1)\n bl guest_start\n nop\n");
#elif defined(__powerpc__)
__asm__(".globl _start\n_start: mr 3,1\n clrrwi 1,1,4\n li 0,0\n stwu 1,-32(1)\n mtlr 0\n stw 0,0(1)\n bl guest_start\n");
#elif defined(__s390x__)
__asm__(".globl _start\n_start: lgr %r2,%r15\n aghi %r15,-160\n xc 0(8,%r15),0(%r15)\n brasl %r14,guest_start\n");
#elif defined(__sparc__)
__asm__(".globl _start\n_start: mov %g0,%fp\n add %sp,2047+128,%o0\n sub %sp,48,%sp\n call guest_start\n nop\n");
#endif

#endif // __ASSEMBLER__
#endif // GUEST_H
