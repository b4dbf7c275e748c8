// What the kernel part tells the user part, and the other way round. `record.rs` has the same layouts; a test compares the
// sizes. All numbers in the host's byte order.
#pragma once

enum {
  CELLS = 256,       // cells watched at once
  CALLS = 512,       // greatest number of a system call, and one more
  TEXTS = 3,         // pieces of memory kept of one call
  TEXT = 512,        // bytes of a text at most
  DATA = 256,        // bytes of what is read and written at most
  LISTED = 24,       // texts of a list (argv) at most
};

// Bytes that the ring keeps before each record (BPF_RINGBUF_HDR_SZ, include/uapi/linux/bpf.h); it begins at a multiple of 8.
enum { RECORD_HEAD = 8 };

// Kinds of records.
enum kind {
  CALL = 1,   // a system call came back
  BEGAN = 2,  // a system call began whose texts are needed now, or which may take long
  FORK = 3,   // a task made another
  EXEC = 4,   // a task runs another program
  EXIT = 5,   // a task ended
  SIGNAL = 6, // a signal was sent to a task of the cell
  KILLED = 7, // the kernel part decided that a task must end
};

// Every record begins so.
struct head {
  u64 time; // CLOCK_MONOTONIC, nanoseconds
  u32 cell;
  u32 pid;
  u32 tid;
  u16 kind;
  u16 length; // bytes of texts behind the record
};

struct piece {
  u8 argument;
  u8 cut; // more was there
  u16 length;
};

struct call {
  struct head head;
  u64 arguments[6];
  s64 result;
  u32 number;
  u32 pieces;
  struct piece piece[TEXTS];
  u32 outcome;
};

enum outcome {
  UNFINISHED = 1, // the task ended within the call
  ENDS = 2,       // it does not come back
  CREATED = 4,    // the file that it opened was not there before
};

struct fork {
  struct head head;
  u32 child_pid;
  u32 child_tid;
  u32 inner_pid; // as its own namespace of processes numbers it
  u32 inner_tid;
};

struct exit {
  struct head head;
  u32 code; // as wait(2) tells it
  u32 last; // the process ended with this thread
};

struct signal {
  struct head head;
  u32 to_pid;
  u32 number;
  s32 code;
  u32 zero;
};

// How an argument is read.
enum reading {
  NUMBER = 0,
  PATH = 1,      // text that ends with zero, read when the call begins
  LIST = 2,      // texts that a list of addresses names
  SOCKET = 3,    // a socket address; its length is the next argument
  BUFFER = 4,    // as many bytes as the result says, read when the call has come back
  WRITTEN = 5,   // as many bytes as the next argument says, read when the call has come back
  SOCKET_OUT = 6 // a socket address; the next argument points at its length; read when the call has come back
};

enum flag {
  TELL = 1,   // tell of this call
  EARLY = 2,  // tell also when it begins
  NEVER = 4,  // it does not come back
  LENGTH = 8, // its second argument is the length of a mapping
  OPENS = 16, // its result is a descriptor of a file
  READS = 32, // it changes nothing, or only the process itself; one that opens may write all the same
};

// O_WRONLY, O_RDWR, O_CREAT, O_TRUNC (include/uapi/asm-generic/fcntl.h); x86 and arm64 have them alike.
enum { OPEN_WRITES = 01 | 02 | 0100 | 01000 };

struct row {
  u8 reading[6];
  u8 flags;
  u8 zero;
};

// Ends a process that makes the call, if one of the bits is set in the argument; without bits, always. With a family, if the
// argument points at an address of it, and the call has failed with EACCES.
struct deny {
  u32 number;
  u32 argument;
  u64 bits;
  u32 rule; // which of the cell's rules says so
  u32 family;
};

enum { DENIES = 32, EINTR = 4, EACCES = 13 };

// What happens to who reaches for an IP address.
enum connecting {
  ALLOWED = 0,
  REFUSED = 1,
  ENDED = 2, // refused, and the process is ended
};

struct policy {
  u32 count;
  u32 emulated;   // programs run in an emulator, which is heard only once it has begun with them
  u32 connecting;
  u32 connecting_rule;
  struct deny deny[DENIES];
};

struct counts {
  u64 told;
  u64 lost;
  u64 calls;
  u64 switches;
  u64 mapped;      // bytes of mappings made
  u64 largest;     // the largest of them, bytes
  u64 allocated;   // calls of malloc, calloc, realloc
  u64 freed;       // calls of free
  u64 living;      // tasks made here, less those that ended here: all processors together have those that live
};

// What is kept of a task.
struct kept {
  u32 cell; // and one more; 0: not watched
  u32 silent; // only its children are watched
  u32 number;
  u32 within; // `enum within`
  u32 told;   // BEGAN was told with texts
  u32 begun;  // the emulator has begun with its program; without an emulator: a program runs
  u32 helper; // a thread of the emulator's own
  u32 fresh;  // a copy of a process that has done nothing yet
  u32 ends;   // the cell's rule, and one more, for which its process ends when the call comes back
  u32 fails;  // only if the call comes back with EACCES
  u64 emulator; // what was executed first: the emulator's file
  u64 arguments[6]; // of a call that was broken off
  u32 again; // it was, and the kernel may begin it again
  u32 zero;
};

// What is known of the call that a task is in. One that comes back without having begun was refused by a filter of the cell
// (seccomp(2)), which is asked first.
enum within {
  NO_CALL = 0,
  HEARD = 1,
  UNHEARD = 2, // begun by the emulator for itself, or before the task was there
};
