// The kernel part of the monitor: tells what tasks of watched cells do, and nothing of others.
//
// A task is watched if its storage names a cell; children inherit it before they run. A record is as long as what it
// says; the reader is woken when many have come. What does not fit into the ring is counted, one by one.
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "record.h"

char LICENSE[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct kept);
} tasks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 24);
} ring SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, CALLS);
  __type(key, u32);
  __type(value, struct row);
} rows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, CELLS);
  __type(key, u32);
  __type(value, struct policy);
} policies SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, CELLS);
  __type(key, u32);
  __type(value, struct counts);
} cells SEC(".maps");

// Bytes of records that a cell was told of in all.
struct told {
  struct {
    u64 bytes;
    u64 zero[7]; // cells that run on several processors are not to slow each other down: a line of memory each
  } of[CELLS];
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, struct told);
} told SEC(".maps");

// How many of them were taken out of the ring: written by the reader, after each of its turns.
struct taken {
  u64 ring; // bytes of the ring itself
  u64 of[CELLS];
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, struct taken);
} taken SEC(".maps");

// Room for a call's record and its texts.
struct room {
  struct call call;
  u8 text[TEXTS * TEXT + TEXT];
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, struct room);
} rooms SEC(".maps");

// Bytes in the ring at which its reader is woken. Set before loading.
const volatile u32 wake_at = 256 << 10;
// While so many more come: of several that tell at once none may see it reached.
enum { WAKING = 16 << 10 };

static __always_inline struct counts *counts_of(u32 cell) {
  return bpf_map_lookup_elem(&cells, &cell);
}

// Puts a record into the ring. A cell may have as much unread there as others have room left for: whoever does more than is read
// loses its own records, and not theirs.
static __always_inline void tell(u32 cell, void *record, u64 length, bool now) {
  u32 zero = 0;
  struct counts *counts = counts_of(cell);
  struct told *all = bpf_map_lookup_elem(&told, &zero);
  struct taken *read = bpf_map_lookup_elem(&taken, &zero);
  if (!counts || !all || !read) return;
  u32 at = cell & (CELLS - 1); // It has counts, and so it is one of them.
  u64 *bytes = &all->of[at].bytes;
  u64 size = (length + RECORD_HEAD + 7) & ~7ULL, used = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
  if (*bytes - read->of[at] + size + used > read->ring) {
    counts->lost++;
    return;
  }
  // Who has fallen behind is awake, and to be woken for each record would cost more than all the rest.
  bool wakes = now || (used >= wake_at && used < wake_at + WAKING);
  // First: its reader may be faster than this.
  __sync_fetch_and_add(bytes, size);
  if (bpf_ringbuf_output(&ring, record, length, wakes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP)) {
    __sync_fetch_and_add(bytes, -size);
    counts->lost++;
  } else {
    __sync_fetch_and_add(&counts->told, 1); // Its reader waits for exactly so many.
  }
}

static __always_inline struct kept *kept_of(struct task_struct *task) {
  struct kept *kept = bpf_task_storage_get(&tasks, task, 0, 0);
  return kept && kept->cell && !kept->silent ? kept : 0;
}

static __always_inline void begin(struct head *head, u16 kind, u32 cell) {
  u64 id = bpf_get_current_pid_tgid();
  head->time = bpf_ktime_get_ns();
  head->cell = cell;
  head->pid = id >> 32;
  head->tid = (u32)id;
  head->kind = kind;
  head->length = 0;
}

// Copies a text behind the record. `at` is where it goes; returns where the next one goes.
static __always_inline u64 add(struct room *room, u64 at, u8 argument, u64 address, u64 most, bool text) {
  struct call *call = &room->call;
  u32 index = call->pieces;
  barrier_var(at);
  barrier_var(most);
  if (at > TEXTS * TEXT || index >= TEXTS) return at;
  if (most > TEXT) most = TEXT;
  long length;
  if (text) {
    length = bpf_probe_read_user_str(&room->text[at], most, (void *)address);
  } else {
    length = bpf_probe_read_user(&room->text[at], most, (void *)address) ? -1 : most;
  }
  if (length < 0 || length > TEXT) return at;
  call->pieces = index + 1;
  call->piece[index].argument = argument;
  call->piece[index].cut = text && length == most;
  call->piece[index].length = length;
  return at + length;
}

static __always_inline u64 add_list(struct room *room, u64 at, u8 argument, u64 address) {
  struct call *call = &room->call;
  u32 index = call->pieces;
  if (index >= TEXTS) return at;
  u64 first = at;
  bool more = false;
  for (int i = 0; i < LISTED; i++) {
    u64 one = 0;
    if (bpf_probe_read_user(&one, sizeof one, (void *)(address + i * sizeof one)) || !one) break;
    barrier_var(at);
    if (at > TEXTS * TEXT) break;
    long length = bpf_probe_read_user_str(&room->text[at], TEXT, (void *)one);
    if (length < 0 || length > TEXT) break;
    at += length;
    more = i == LISTED - 1 || at - first > 2 * TEXT;
    if (more) break;
  }
  call->pieces = index + 1;
  call->piece[index].argument = argument;
  call->piece[index].cut = more;
  call->piece[index].length = at - first;
  return at;
}

static __always_inline void tell_call(struct room *room, u32 cell, u64 at, bool now) {
  room->call.head.length = at;
  u64 length = sizeof room->call + at;
  barrier_var(length);
  if (length > sizeof *room) length = sizeof *room;
  tell(cell, room, length, now);
}

static __always_inline struct room *room_of(void) {
  u32 zero = 0;
  return bpf_map_lookup_elem(&rooms, &zero);
}

// Texts that are there when the call begins.
static __always_inline u64 add_early(struct room *room, struct row *row, u64 *arguments) {
  u64 at = 0;
#pragma unroll
  for (int i = 0; i < 6; i++) {
    if (row->reading[i] == PATH) at = add(room, at, i, arguments[i], TEXT, true);
    else if (row->reading[i] == LIST) at = add_list(room, at, i, arguments[i]);
    else if (row->reading[i] == SOCKET && i < 5) {
      u32 length = arguments[i + 1] > 128 ? 128 : (u32)arguments[i + 1]; // struct sockaddr_storage
      at = add(room, at, i, arguments[i], length, false);
    }
  }
  return at;
}

static __always_inline u64 argument_of(u64 *arguments, u32 index) {
  switch (index) {
  case 0: return arguments[0];
  case 1: return arguments[1];
  case 2: return arguments[2];
  case 3: return arguments[3];
  case 4: return arguments[4];
  case 5: return arguments[5];
  default: return 0;
  }
}

// The task's number in its own namespace.
static __always_inline u32 inner(struct task_struct *task) {
  struct pid *pid = BPF_CORE_READ(task, thread_pid);
  u32 level = BPF_CORE_READ(pid, level);
  u32 number = 0;
  if (level > 32) return 0; // MAX_PID_NS_LEVEL (linux/pid_namespace.h)
  u64 at = bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);
  bpf_probe_read_kernel(&number, sizeof number, (void *)pid + at);
  return number;
}

static __always_inline bool is_emulated(u32 cell) {
  struct policy *policy = bpf_map_lookup_elem(&policies, &cell);
  return policy && policy->emulated;
}

// Whether an emulator that begins, or a thread of its own, does this because somebody told it to (`-D`, `-g`, what its environment
// says): by itself it only reads.
static __always_inline bool is_told_to(u32 number, u64 *arguments) {
  struct row *row = bpf_map_lookup_elem(&rows, &number);
  if (!row || !(row->flags & TELL)) return false;
  if (!(row->flags & READS)) return true;
  return row->flags & OPENS && argument_of(arguments, row->reading[0] == PATH ? 1 : 2) & OPEN_WRITES;
}

// Whether what a task does is its program's doing, and not its emulator's.
static __always_inline bool is_heard(struct kept *kept, long number, u64 *arguments) {
  if (kept->begun && !kept->helper) return true;
  // What comes before the first program is its keeper's doing.
  if (!is_emulated(kept->cell - 1) || !kept->emulator) return false;
  if (is_told_to(number, arguments)) {
    kept->begun = 1;
    kept->helper = 0;
    return true;
  }
  // The last thing that QEMU does before its program begins is to take all signals (linux-user/signal.c).
  if (!kept->helper && number == RT_SIGACTION && arguments[0] == 64) kept->begun = 1;
  return false;
}

// Ends the process that runs.
static __always_inline void end(u32 cell, u32 number, u32 rule) {
  bpf_send_signal(9);
  struct signal record = {.number = number, .code = rule};
  begin(&record.head, KILLED, cell);
  record.to_pid = record.head.pid;
  tell(cell, &record, sizeof record, true);
}

// Ends the process that makes a call for which the cell's are ended.
static __always_inline void judge(struct kept *kept, u32 cell, u32 number, u64 *arguments) {
  struct policy *policy = bpf_map_lookup_elem(&policies, &cell);
  if (!policy || !policy->count) return;
  for (u32 i = 0; i < DENIES && i < policy->count; i++) {
    struct deny *deny = &policy->deny[i];
    if (deny->number != number) continue;
    if (deny->bits && !(argument_of(arguments, deny->argument) & deny->bits)) continue;
    if (deny->family) {
      u16 family = 0;
      bpf_probe_read_user(&family, sizeof family, (void *)argument_of(arguments, deny->argument));
      if (family != deny->family) continue;
      kept->ends = deny->rule + 1;
      kept->fails = 1;
      return;
    }
    end(cell, number, deny->rule);
    return;
  }
}

// Whether a call that was broken off has not come back for its program: the kernel begins it again, unless a handler of a signal
// runs first.
static __always_inline bool is_broken_off(long result) {
  return result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK && result != -ENOIOCTLCMD;
}

// Whether the call that begins is the one that was broken off, for which nothing is told: who was made to stand still sees
// nothing of it, and neither does who reads of him. Else a handler ran, and the program has seen that it was broken off.
static __always_inline bool goes_on(struct kept *kept, u32 cell, long number, u64 *arguments) {
  kept->again = 0;
  if (number == RESTART_SYSCALL) return true;
  bool same = number == kept->number;
#pragma unroll
  for (int i = 0; i < 6; i++) same = same && arguments[i] == kept->arguments[i];
  if (same) return true;
  u32 index = kept->number;
  struct counts *counts = counts_of(cell);
  if (counts) counts->calls++;
  struct row *row = bpf_map_lookup_elem(&rows, &index);
  struct room *room = room_of();
  if (!row || !(row->flags & TELL) || !room) return false;
  struct call *call = &room->call;
  begin(&call->head, CALL, cell);
  __builtin_memcpy(call->arguments, kept->arguments, sizeof call->arguments);
  call->result = -EINTR;
  call->number = index;
  call->pieces = 0;
  call->outcome = 0;
  tell_call(room, cell, 0, false);
  return false;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long number) {
  struct kept *kept = kept_of(bpf_get_current_task_btf());
  if (!kept) return 0;
  u64 first[6] = ARGUMENTS(regs);
  if (kept->again && goes_on(kept, kept->cell - 1, number, first)) return 0;
  kept->within = UNHEARD;
  if (!is_heard(kept, number, first)) return 0;
  u32 cell = kept->cell - 1, index = number;
  kept->number = number;
  kept->within = HEARD;
  kept->told = 0;
  judge(kept, cell, number, first);

  // The others are told when they come back: their registers are still there.
  struct row *row = bpf_map_lookup_elem(&rows, &index);
  if (!row || !(row->flags & TELL)) return 0;
  if (index != CLONE) kept->fresh = 0;
  if (!(row->flags & EARLY)) return 0;
  struct room *room = room_of();
  if (!room) return 0;
  u64 arguments[6] = ARGUMENTS(regs);
  begin(&room->call.head, row->flags & NEVER ? CALL : BEGAN, cell);
  __builtin_memcpy(room->call.arguments, arguments, sizeof arguments);
  room->call.result = 0;
  room->call.number = number;
  room->call.pieces = 0;
  room->call.outcome = row->flags & NEVER ? ENDS : 0;
  tell_call(room, cell, add_early(room, row, arguments), false);
  kept->told = room->call.pieces;
  return 0;
}

// Whether the file that a descriptor was just opened for was not there before.
static __always_inline bool was_created(u32 descriptor) {
  struct task_struct *task = bpf_get_current_task_btf();
  struct fdtable *table = BPF_CORE_READ(task, files, fdt);
  if (descriptor >= BPF_CORE_READ(table, max_fds)) return false;
  struct file **place = BPF_CORE_READ(table, fd), *file = 0;
  bpf_probe_read_kernel(&file, sizeof file, place + descriptor);
  return file && BPF_CORE_READ(file, f_mode) & FMODE_CREATED;
}

// Tells of a call that has come back.
static __always_inline void tell_left(struct kept *kept, struct pt_regs *regs, u32 cell, u32 index, s64 result) {
  struct counts *counts = counts_of(cell);
  if (counts) counts->calls++;
  struct row *row = bpf_map_lookup_elem(&rows, &index);
  if (!row || !(row->flags & TELL)) return;
  u64 arguments[6] = ARGUMENTS(regs);
  if (row->flags & LENGTH && result >= 0 && counts) {
    u64 length = arguments[1];
    counts->mapped += length;
    if (length > counts->largest) counts->largest = length;
  }
  struct room *room = room_of();
  if (!room) return;
  struct call *call = &room->call;
  begin(&call->head, CALL, cell);
  __builtin_memcpy(call->arguments, arguments, sizeof arguments);
  call->result = result;
  call->number = index;
  call->pieces = 0;
  call->outcome = row->flags & OPENS && result >= 0 && was_created(result) ? CREATED : 0;
  u64 at = 0;
  // Pages that were not there when it began are there now.
  if (row->flags & EARLY && !kept->told) at = add_early(room, row, arguments);
  if (result > 0) {
#pragma unroll
    for (int i = 0; i < 5; i++) {
      if (row->reading[i] == BUFFER || row->reading[i] == WRITTEN)
        at = add(room, at, i, arguments[i], result > DATA ? DATA : result, false);
    }
  }
#pragma unroll
  for (int i = 0; i < 5; i++) {
    if (row->reading[i] == SOCKET_OUT && result >= 0 && arguments[i]) {
      u32 length = 0;
      bpf_probe_read_user(&length, sizeof length, (void *)arguments[i + 1]);
      at = add(room, at, i, arguments[i], length > 128 ? 128 : length, false);
    }
  }
  tell_call(room, cell, at, false);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long result) {
  struct kept *kept = kept_of(bpf_get_current_task_btf());
  if (!kept) return 0;
  if (kept->within == HEARD && is_broken_off(result)) {
    u64 arguments[6] = ARGUMENTS(regs);
    __builtin_memcpy(kept->arguments, arguments, sizeof arguments);
    kept->again = 1;
    return 0;
  }
  u32 within = kept->within, ends = kept->fails && result != -EACCES ? 0 : kept->ends, cell = kept->cell - 1;
  kept->within = NO_CALL;
  kept->ends = kept->fails = 0;
  if (within == UNHEARD || kept->helper || (within == NO_CALL && !kept->begun)) return 0;
  if (within == NO_CALL) {
    // What the emulator's library asks for first when it makes a thread.
    if (NUMBER(regs) == CLONE3 && is_emulated(cell)) return 0;
    kept->number = NUMBER(regs);
    kept->told = 0;
  }
  tell_left(kept, regs, cell, kept->number, result);
  // Who is ended here has done nothing: the call was refused, and no instruction of its program follows.
  if (within == NO_CALL) {
    u64 arguments[6] = ARGUMENTS(regs);
    judge(kept, cell, kept->number, arguments);
  } else if (ends) {
    end(cell, kept->number, ends - 1);
  }
  return 0;
}

// Whether the task that runs may reach for an IP address. Others than watched cells' may.
static __always_inline int may_connect(void) {
  struct kept *kept = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, 0);
  if (!kept || !kept->cell) return 1;
  u32 cell = kept->cell - 1;
  struct policy *policy = bpf_map_lookup_elem(&policies, &cell);
  if (!policy || policy->connecting == ALLOWED) return 1;
  if (policy->connecting == ENDED) kept->ends = policy->connecting_rule + 1;
  return 0;
}

SEC("cgroup/connect4")
int connects4(struct bpf_sock_addr *address) {
  return may_connect();
}

SEC("cgroup/connect6")
int connects6(struct bpf_sock_addr *address) {
  return may_connect();
}

SEC("cgroup/sendmsg4")
int sends4(struct bpf_sock_addr *address) {
  return may_connect();
}

SEC("cgroup/sendmsg6")
int sends6(struct bpf_sock_addr *address) {
  return may_connect();
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child) {
  struct kept *kept = bpf_task_storage_get(&tasks, parent, 0, 0);
  if (!kept || !kept->cell) return 0;
  struct kept *own = bpf_task_storage_get(&tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!own) return 0;
  bool thread = child->tgid != child->pid;
  own->cell = kept->cell;
  struct counts *counts = counts_of(kept->cell - 1);
  if (counts) __sync_fetch_and_add(&counts->living, 1);
  // What is done until the first program runs is its keeper's doing.
  own->begun = kept->begun && !kept->silent;
  own->emulator = kept->emulator;
  own->within = UNHEARD; // It comes back from the call that made it.
  if (is_emulated(kept->cell - 1)) {
    own->fresh = !thread;
    // QEMU makes a thread for itself when it begins, and when it has forked.
    own->helper = thread && (!kept->begun || kept->fresh);
    if (own->helper) kept->within = UNHEARD; // It is the emulator's call.
    if (thread) kept->fresh = 0;
  }
  if (own->helper) return 0;
  struct fork record = {.child_pid = child->tgid, .child_tid = child->pid};
  record.inner_pid = inner(BPF_CORE_READ(child, group_leader));
  record.inner_tid = inner(child);
  begin(&record.head, FORK, kept->cell - 1);
  tell(kept->cell - 1, &record, sizeof record, false);
  return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old, struct linux_binprm *program) {
  struct kept *kept = kept_of(task);
  struct room *room = room_of();
  if (!kept || !room) return 0;
  // A program that runs by itself, whatever it is, is heard from its beginning.
  u64 file = (u64)BPF_CORE_READ(program, file, f_inode);
  if (!kept->emulator) kept->emulator = file;
  kept->begun = !is_emulated(kept->cell - 1) || file != kept->emulator;
  kept->fresh = kept->helper = 0;
  struct call *call = &room->call;
  begin(&call->head, EXEC, kept->cell - 1);
  call->pieces = 1;
  call->outcome = 0;
  call->number = 0;
  call->result = old;
  long length = bpf_probe_read_kernel_str(room->text, TEXT, BPF_CORE_READ(program, filename));
  if (length < 0 || length > TEXT) length = 0;
  call->piece[0].argument = 0;
  call->piece[0].cut = length == TEXT;
  call->piece[0].length = length;
  tell_call(room, kept->cell - 1, length, false);
  return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task) {
  struct kept *kept = kept_of(task);
  if (!kept) return 0;
  // A process ends with its last thread, which may be the emulator's; of two that end at once both may be told as the last.
  struct counts *counts = counts_of(kept->cell - 1);
  if (counts) __sync_fetch_and_add(&counts->living, -1);
  struct signal_struct *process = task->signal;
  bool last = BPF_CORE_READ(process, live.counter) == 0;
  if (kept->helper && !last) return 0;
  u32 cell = kept->cell - 1, index = kept->number;
  if (kept->within == HEARD) {
    kept->within = NO_CALL;
    struct row *row = bpf_map_lookup_elem(&rows, &index);
    struct room *room = room_of();
    if (row && row->flags & TELL && !(row->flags & NEVER) && room) {
      struct call *call = &room->call;
      begin(&call->head, CALL, cell);
      __builtin_memset(call->arguments, 0, sizeof call->arguments);
      call->result = 0;
      call->number = index;
      call->pieces = 0;
      call->outcome = UNFINISHED;
      tell_call(room, cell, 0, false);
    }
  }
  bool whole = BPF_CORE_READ(process, flags) & SIGNAL_GROUP_EXIT;
  u32 code = whole ? BPF_CORE_READ(process, group_exit_code) : BPF_CORE_READ(task, group_leader, exit_code);
  struct exit record = {.code = code, .last = last};
  begin(&record.head, EXIT, cell);
  tell(cell, &record, sizeof record, record.last);
  return 0;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signalled, int number, struct kernel_siginfo *info, struct task_struct *task, int group, int result) {
  struct kept *kept = kept_of(task);
  if (!kept) return 0;
  struct signal record = {.to_pid = task->tgid, .number = number};
  // The first two values stand for no information, from a user or from the kernel.
  if ((u64)info > 2) record.code = BPF_CORE_READ(info, si_code);
  else if ((u64)info == SEND_SIG_PRIV) record.code = SI_KERNEL;
  begin(&record.head, SIGNAL, kept->cell - 1);
  // A timer goes off in whatever runs just then: such a signal is its receiver's own.
  bool timer = record.code == SI_TIMER || (record.code == SI_KERNEL && number == SIGALRM);
  if (timer) {
    record.head.pid = task->tgid;
    record.head.tid = task->pid;
  }
  tell(kept->cell - 1, &record, sizeof record, false);
  return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempt, struct task_struct *old, struct task_struct *new) {
  struct kept *kept = kept_of(new);
  if (!kept) return 0;
  struct counts *counts = counts_of(kept->cell - 1);
  if (counts) counts->switches++;
  return 0;
}
