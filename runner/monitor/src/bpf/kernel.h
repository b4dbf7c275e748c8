// What this program needs of the kernel's own structures, and no more. Fields are found at load time by the kernel's BTF
// (CO-RE), so that one object loads on all kernels; offsets below mean nothing.
#pragma once

typedef _Bool bool;
enum { false = 0, true = 1 };

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
typedef int s32;
// Names that libbpf's headers use.
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;

// include/linux/fs.h: the file was made when it was opened.
enum { FMODE_CREATED = 0x100000 };
// include/uapi/asm-generic/siginfo.h, include/linux/sched/signal.h, include/uapi/asm-generic/signal.h
enum { SI_TIMER = -2, SI_KERNEL = 0x80, SEND_SIG_PRIV = 1, SIGALRM = 14 };
// include/linux/sched/signal.h: a process ends as a whole.
enum { SIGNAL_GROUP_EXIT = 4 };
// include/uapi/linux/bpf.h
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_RINGBUF = 27, BPF_MAP_TYPE_TASK_STORAGE = 29 };
enum { BPF_F_NO_PREALLOC = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };
// include/linux/errno.h: how a call comes back that is to begin again. The first and the last of them, and one between that is none.
enum { ERESTARTSYS = 512, ENOIOCTLCMD = 515, ERESTART_RESTARTBLOCK = 516 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

// Registers at the entry of a system call, by architecture (arch/*/include/asm/ptrace.h, arch/x86/include/uapi/asm/ptrace.h).
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
  unsigned long r10, r9, r8, ax, dx, si, di, orig_ax, ip, sp;
};
enum { RT_SIGACTION = 13, CLONE = 56, RESTART_SYSCALL = 219, CLONE3 = 435 }; // arch/x86/entry/syscalls/syscall_64.tbl
#define ARGUMENTS(regs) {(regs)->di, (regs)->si, (regs)->dx, (regs)->r10, (regs)->r8, (regs)->r9}
#define NUMBER(regs) ((regs)->orig_ax)
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
  unsigned long regs[31];
  unsigned long orig_x0;
  s32 syscallno;
};
enum { RT_SIGACTION = 134, CLONE = 220, RESTART_SYSCALL = 128, CLONE3 = 435 }; // include/uapi/asm-generic/unistd.h
#define ARGUMENTS(r) {(r)->orig_x0, (r)->regs[1], (r)->regs[2], (r)->regs[3], (r)->regs[4], (r)->regs[5]}
#define NUMBER(regs) ((regs)->syscallno)
#else
#error "which registers hold the arguments of a system call here?"
#endif

struct mm_struct {
  unsigned long total_vm;
};

struct upid {
  int nr;
};

struct pid {
  unsigned int level;
  struct upid numbers[];
};

struct inode;

struct file {
  struct inode *f_inode;
  unsigned int f_mode;
};

struct fdtable {
  unsigned int max_fds;
  struct file **fd;
};

struct files_struct {
  struct fdtable *fdt;
};

struct live_counter {
  int counter;
};

struct signal_struct {
  struct live_counter live;
  int group_exit_code;
  unsigned int flags;
};

struct task_struct {
  struct signal_struct *signal;
  int pid;
  int tgid;
  int exit_code;
  struct task_struct *real_parent;
  struct task_struct *group_leader;
  struct pid *thread_pid;
  struct files_struct *files;
  struct mm_struct *mm;
};

struct linux_binprm {
  struct file *file;
  const char *filename;
};

struct bpf_sock_addr;

struct kernel_siginfo {
  int si_signo;
  int si_code;
};

#pragma clang attribute pop
