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
// Values of flags are Linux's, from arch/*/include/uapi (asm/fcntl.h).
#ifndef GUEST_H
#define GUEST_H

#include "numbers.h"

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

typedef unsigned long word;

// A system call with up to five arguments, and zero for a sixth; the answer is the result, or minus the error's number, everywhere.
static inline long sys5(long number, long a, long b, long c, long d, long e) {
#if defined(__x86_64__)
  long result;
  register long r9 __asm__("r9") = 0;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#elif defined(__i386__)
  long result;
  __asm__ volatile("push %%ebp\n\txor %%ebp,%%ebp\n\tint $0x80\n\tpop %%ebp"
                   : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
  return result;
#elif defined(__arm__)
  register long r7 __asm__("r7") = number;
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  register long r5 __asm__("r5") = 0;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
  return r0;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = number;
  register long a0 __asm__("a0") = a;
  register long a1 __asm__("a1") = b;
  register long a2 __asm__("a2") = c;
  register long a3 __asm__("a3") = d;
  register long a4 __asm__("a4") = e;
  register long a5 __asm__("a5") = 0;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
  return a0;
#elif defined(__mips__) && defined(__mips64)
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long a4 __asm__("$8") = e;
  register long a5 __asm__("$9") = 0;
  __asm__ volatile("syscall"
                   : "+r"(v0), "+r"(a3), "+r"(a4), "+r"(a5)
                   : "r"(a0), "r"(a1), "r"(a2)
                   : "$1", "$3", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "memory");
  return a3 ? -v0 : v0;
#elif defined(__mips__)
  register long v0 __asm__("$2") = number;
  register long a0 __asm__("$4") = a;
  register long a1 __asm__("$5") = b;
  register long a2 __asm__("$6") = c;
  register long a3 __asm__("$7") = d;
  register long t0 __asm__("$8") = e;
  __asm__ volatile("subu $29,$29,32\n\tsw $8,16($29)\n\tsw $0,20($29)\n\tsyscall\n\taddu $29,$29,32"
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
  register long r8 __asm__("r8") = 0;
  __asm__ volatile("sc\n\tbns+ 1f\n\tneg 3,3\n1:"
                   : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7), "+r"(r8)
                   :
                   : "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
  return r3;
#elif defined(__s390x__)
  register long r1 __asm__("1") = number;
  register long r2 __asm__("2") = a;
  register long r3 __asm__("3") = b;
  register long r4 __asm__("4") = c;
  register long r5 __asm__("5") = d;
  register long r6 __asm__("6") = e;
  register long r7 __asm__("7") = 0;
  __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6), "d"(r7) : "memory");
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

#endif // GUEST_H
