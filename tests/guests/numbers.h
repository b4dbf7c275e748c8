// Numbers of system calls, each in one line: of arch/*/include/uapi (asm/unistd.h). fcntl64 is fcntl where positions have 64 bits
// anyway. X: no guest makes the call there.
#ifndef NUMBERS_H
#define NUMBERS_H

#if defined(__x86_64__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = x86_64,
#elif defined(__i386__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = i386,
#elif defined(__arm__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = arm,
#elif defined(__aarch64__) || defined(__riscv)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = generic,
#elif defined(__mips__) && defined(__mips64)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = mips64,
#elif defined(__mips__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = mips,
#elif defined(__powerpc64__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = ppc64,
#elif defined(__powerpc__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = ppc,
#elif defined(__s390x__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = s390x,
#elif defined(__sparc__)
#define NR(name, x86_64, i386, arm, generic, mips64, mips, ppc64, ppc, s390x, sparc) NR_##name = sparc,
#else
#error "no system call numbers for this architecture"
#endif
#define X (-1)

enum {
  NR(accept4, 288, 364, 366, 242, 5293, 4334, 344, 344, 364, X)
  NR(bind, 49, 361, 282, 200, 5048, 4169, 327, 327, 361, X)
  NR(brk, 12, 45, 45, 214, 5012, 4045, 45, 45, 45, X)
  NR(clock_getres, 229, 266, 264, 114, 5223, 4264, 247, 247, 261, X)
  NR(clock_gettime, 228, 265, 263, 113, 5222, 4263, 246, 246, 260, X)
  NR(clock_nanosleep, 230, 267, 265, 115, 5224, 4265, 248, 248, 262, X)
  NR(clone, 56, 120, 120, 220, 5055, 4120, 120, 120, 120, X)
  NR(close, 3, 6, 6, 57, 5003, 4006, 6, 6, 6, 6)
  NR(connect, 42, 362, 283, 203, 5041, 4170, 328, 328, 362, X)
  NR(dup3, 292, 330, 358, 24, 5286, 4327, 316, 316, 326, X)
  NR(epoll_create1, 291, 329, 357, 20, 5285, 4326, 315, 315, 327, X)
  NR(epoll_ctl, 233, 255, 251, 21, 5208, 4249, 237, 237, 250, X)
  NR(epoll_pwait, 281, 319, 346, 22, 5272, 4313, 303, 303, 312, X)
  NR(eventfd2, 290, 328, 356, 19, 5284, 4325, 314, 314, 323, X)
  NR(exit, 60, 1, 1, 93, 5058, 4001, 1, 1, 1, X)
  NR(exit_group, 231, 252, 248, 94, 5205, 4246, 234, 234, 248, 188)
  NR(fchmodat, 268, 306, 333, 53, 5258, 4299, 297, 297, 299, 295)
  NR(fcntl64, 72, 221, 221, 25, 5070, 4220, 55, 204, 55, X)
  NR(flock, 73, 143, 143, 32, 5071, 4143, 143, 143, 143, X)
  NR(fsetxattr, 190, 228, 228, 7, 5182, 4226, 211, 211, 226, X)
  NR(ftruncate, 77, 93, 93, 46, 5075, 4093, 93, 93, 93, X)
  NR(futex, 202, 240, 240, 98, 5194, 4238, 221, 221, 238, X)
  NR(getitimer, 36, 105, 105, 102, 5035, 4105, 105, 105, 105, X)
  NR(getpeername, 52, 368, 287, 205, 5051, 4171, 332, 332, 368, X)
  NR(getpid, 39, 20, 20, 172, 5038, 4020, 20, 20, 20, 20)
  NR(getppid, 110, 64, 64, 173, 5108, 4064, 64, 64, 64, X)
  NR(getsockname, 51, 367, 286, 204, 5050, 4172, 331, 331, 367, X)
  NR(getsockopt, 55, 365, 295, 209, 5054, 4173, 340, 340, 365, X)
  NR(gettid, 186, 224, 224, 178, 5178, 4222, 207, 207, 236, X)
  NR(gettimeofday, 96, 78, 78, 169, 5094, 4078, 78, 78, 78, X)
  NR(getxattr, 191, 229, 229, 8, 5183, 4227, 212, 212, 227, X)
  NR(inotify_add_watch, 254, 292, 317, 27, 5244, 4285, 276, 276, 285, X)
  NR(inotify_init1, 294, 332, 360, 26, 5288, 4329, 318, 318, 324, X)
  NR(inotify_rm_watch, 255, 293, 318, 28, 5245, 4286, 277, 277, 286, X)
  NR(ioctl, 16, 54, 54, 29, 5015, 4054, 54, 54, 54, X)
  NR(kill, 62, 37, 37, 129, 5060, 4037, 37, 37, 37, 37)
  NR(linkat, 265, 303, 330, 37, 5255, 4296, 294, 294, 296, X)
  NR(listen, 50, 363, 284, 201, 5049, 4174, 329, 329, 363, X)
  NR(listxattr, 194, 232, 232, 11, 5186, 4230, 215, 215, 230, X)
  NR(lseek, 8, 19, 19, 62, 5008, 4019, 19, 19, 19, X)
  NR(lsetxattr, 189, 227, 227, 6, 5181, 4225, 210, 210, 225, X)
  NR(madvise, 28, 219, 220, 233, 5027, 4218, 205, 205, 219, X)
  NR(memfd_create, 319, 356, 385, 279, 5314, 4354, 360, 360, 350, X)
  NR(mincore, 27, 218, 219, 232, 5026, 4217, 206, 206, 218, X)
  NR(mkdirat, 258, 296, 323, 34, 5248, 4289, 287, 287, 289, 285)
  NR(mknodat, 259, 297, 324, 33, 5249, 4290, 288, 288, 290, X)
  NR(mprotect, 10, 125, 125, 226, 5010, 4125, 125, 125, 125, 74)
  NR(mremap, 25, 163, 163, 216, 5024, 4167, 163, 163, 163, X)
  NR(msync, 26, 144, 144, 227, 5025, 4144, 144, 144, 144, X)
  NR(munmap, 11, 91, 91, 215, 5011, 4091, 91, 91, 91, X)
  NR(nanosleep, 35, 162, 162, 101, 5034, 4166, 162, 162, 162, X)
  NR(openat, 257, 295, 322, 56, 5247, 4288, 286, 286, 288, 284)
  NR(pidfd_getfd, 438, 438, 438, 438, 5438, 4438, 438, 438, 438, X)
  NR(pidfd_open, 434, 434, 434, 434, 5434, 4434, 434, 434, 434, X)
  NR(pidfd_send_signal, 424, 424, 424, 424, 5424, 4424, 424, 424, 424, X)
  NR(pipe2, 293, 331, 359, 59, 5287, 4328, 317, 317, 325, X)
  NR(ppoll, 271, 309, 336, 73, 5261, 4302, 281, 281, 302, X)
  NR(process_vm_readv, 310, 347, 376, 270, 5304, 4345, 351, 351, 340, X)
  NR(process_vm_writev, 311, 348, 377, 271, 5305, 4346, 352, 352, 341, X)
  NR(ptrace, 101, 26, 26, 117, 5099, 4026, 26, 26, 26, X)
  NR(read, 0, 3, 3, 63, 5000, 4003, 3, 3, 3, 3)
  NR(readlinkat, 267, 305, 332, 78, 5257, 4298, 296, 296, 298, 294)
  NR(recvmsg, 47, 372, 297, 212, 5046, 4177, 342, 342, 372, X)
  NR(removexattr, 197, 235, 235, 14, 5189, 4233, 218, 218, 233, X)
  NR(renameat2, 316, 353, 382, 276, 5311, 4351, 357, 357, 347, X)
  NR(rt_sigaction, 13, 174, 174, 134, 5013, 4194, 173, 173, 174, X)
  NR(rt_sigpending, 127, 176, 176, 136, 5125, 4196, 175, 175, 176, X)
  NR(rt_sigprocmask, 14, 175, 175, 135, 5014, 4195, 174, 174, 175, X)
  NR(rt_sigqueueinfo, 129, 178, 178, 138, 5127, 4198, 177, 177, 178, X)
  NR(rt_sigsuspend, 130, 179, 179, 133, 5128, 4199, 178, 178, 179, X)
  NR(rt_sigtimedwait, 128, 177, 177, 137, 5126, 4197, 176, 176, 177, X)
  NR(sched_yield, 24, 158, 158, 124, 5023, 4162, 158, 158, 158, X)
  NR(sendmsg, 46, 370, 296, 211, 5045, 4179, 341, 341, 370, X)
  NR(setitimer, 38, 104, 104, 103, 5036, 4104, 104, 104, 104, X)
  NR(setpgid, 109, 57, 57, 154, 5107, 4057, 57, 57, 57, X)
  NR(setsockopt, 54, 366, 294, 208, 5053, 4181, 339, 339, 366, X)
  NR(setxattr, 188, 226, 226, 5, 5180, 4224, 209, 209, 224, X)
  NR(shutdown, 48, 373, 293, 210, 5047, 4182, 338, 338, 373, X)
  NR(sigaltstack, 131, 186, 186, 132, 5129, 4206, 185, 185, 186, X)
  NR(signalfd4, 289, 327, 355, 74, 5283, 4324, 313, 313, 322, X)
  NR(socket, 41, 359, 281, 198, 5040, 4183, 326, 326, 359, X)
  NR(socketpair, 53, 360, 288, 199, 5052, 4184, 333, 333, 360, X)
  NR(symlinkat, 266, 304, 331, 36, 5256, 4297, 295, 295, 297, 293)
  NR(tgkill, 234, 270, 268, 131, 5225, 4266, 250, 250, 241, X)
  NR(timer_create, 222, 259, 257, 107, 5216, 4257, 240, 240, 254, X)
  NR(timer_delete, 226, 263, 261, 111, 5220, 4261, 244, 244, 258, X)
  NR(timer_getoverrun, 225, 262, 260, 109, 5219, 4260, 243, 243, 257, X)
  NR(timer_gettime, 224, 261, 259, 108, 5218, 4259, 242, 242, 256, X)
  NR(timer_settime, 223, 260, 258, 110, 5217, 4258, 241, 241, 255, X)
  NR(timerfd_create, 283, 322, 350, 85, 5280, 4321, 306, 306, 319, X)
  NR(timerfd_gettime, 287, 326, 354, 87, 5281, 4322, 312, 312, 321, X)
  NR(timerfd_settime, 286, 325, 353, 86, 5282, 4323, 311, 311, 320, X)
  NR(unlinkat, 263, 301, 328, 35, 5253, 4294, 292, 292, 294, 290)
  NR(wait4, 61, 114, 114, 260, 5059, 4114, 114, 114, 114, X)
  NR(waitid, 247, 284, 280, 95, 5237, 4278, 272, 272, 281, X)
  NR(write, 1, 4, 4, 64, 5001, 4004, 4, 4, 4, 4)
  // A number that no architecture uses: the call must fail with ENOSYS.
  NR(nothing, 999, 999, 999, 999, 5999, 4999, 999, 999, 999, 999)
};
#undef X
#undef NR

#endif // NUMBERS_H
