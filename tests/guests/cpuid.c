// What the processor says of itself is what /proc/cpuinfo says of it, also whether there is a hypervisor; and it can do what it says.
//! stdout: the same vendor 1
//! stdout: the same model 1
//! stdout: the same name 1
//! stdout: does what it says 1
//! stdout: the same abilities 1
//! stdout: the same hypervisor 1
//! targets: x86 x86_64
//! under: native
#include "guest.h"

static char info[8192];
static unsigned answer[4];

static unsigned *ask(unsigned leaf, unsigned index) {
  __asm__ volatile("cpuid" : "=a"(answer[0]), "=b"(answer[1]), "=c"(answer[2]), "=d"(answer[3]) : "0"(leaf), "2"(index));
  return answer;
}

// The value of the first line of this name.
static const char *line(const char *name) {
  word size = length(name);
  for (const char *at = info; *at; at++)
    if ((at == info || at[-1] == '\n') && same(at, name, size)) {
      at += size;
      while (*at == '\t' || *at == ' ' || *at == ':') at++;
      return at;
    }
  return "";
}

static int begins(const char *text, const char *with) {
  word size = length(with);
  return same(text, with, size) && text[size] == '\n';
}

static unsigned value(const char *text) {
  unsigned value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (unsigned)(*text++ - '0');
  return value;
}

static int has(const char *flag) {
  word size = length(flag);
  for (const char *at = line("flags"); *at && *at != '\n'; at++)
    if (at[-1] == ' ' && same(at, flag, size) && (at[size] == ' ' || at[size] == '\n')) return 1;
  return 0;
}

// A name in /proc/cpuinfo, and where CPUID has it.
static const struct ability { char name[12]; unsigned leaf, place, bit; } abilities[] = {
    {"pni", 1, 2, 0}, {"pclmulqdq", 1, 2, 1}, {"ssse3", 1, 2, 9}, {"cx16", 1, 2, 13}, {"sse4_1", 1, 2, 19}, {"sse4_2", 1, 2, 20},
    {"movbe", 1, 2, 22}, {"popcnt", 1, 2, 23}, {"aes", 1, 2, 25}, {"xsave", 1, 2, 26}, {"rdrand", 1, 2, 30},
    {"fsgsbase", 7, 1, 0}, {"bmi1", 7, 1, 3}, {"bmi2", 7, 1, 8}, {"erms", 7, 1, 9},
    {"nx", 0x80000001, 3, 20}, {"rdtscp", 0x80000001, 3, 27}, {"lm", 0x80000001, 3, 29},
    {"lahf_lm", 0x80000001, 2, 0}, {"abm", 0x80000001, 2, 5},
    {"fpu", 1, 3, 0}, {"tsc", 1, 3, 4}, {"cx8", 1, 3, 8}, {"cmov", 1, 3, 15}, {"mmx", 1, 3, 23}, {"fxsr", 1, 3, 24}, {"sse", 1, 3, 25},
    {"sse2", 1, 3, 26},
};

// Does one instruction of each ability: what cannot be done ends the guest.
static int does(void) {
  unsigned four = ask(1, 0)[2], seven = ask(7, 0)[1], more = ask(0x80000001, 0)[2];
  static word aligned[4] __attribute__((aligned(16)));
  if (four >> 1 & 1) __asm__ volatile(".byte 0x66,0x0f,0x3a,0x44,0xc0,0x00" ::: "memory"); // pclmulqdq $0, %xmm0, %xmm0
  if (four >> 9 & 1) __asm__ volatile(".byte 0x66,0x0f,0x38,0x1c,0xc0" ::: "memory");      // pabsb %xmm0, %xmm0
  if (four >> 19 & 1) __asm__ volatile(".byte 0x66,0x0f,0x38,0x17,0xc0" ::: "cc");         // ptest %xmm0, %xmm0
  if (four >> 20 & 1) __asm__ volatile(".byte 0xf2,0x0f,0x38,0xf1,0xc0" ::: "eax");        // crc32 %eax, %eax
  if (four >> 22 & 1) __asm__ volatile(".byte 0x0f,0x38,0xf0,0x01" ::"c"(aligned) : "eax"); // movbe (%ecx), %eax
  if (four >> 23 & 1) __asm__ volatile(".byte 0xf3,0x0f,0xb8,0xc0" ::: "eax", "cc");       // popcnt %eax, %eax
  if (four >> 25 & 1) __asm__ volatile(".byte 0x66,0x0f,0x38,0xdb,0xc0" ::: "memory");     // aesimc %xmm0, %xmm0
  if (four >> 27 & 1) __asm__ volatile(".byte 0x0f,0x01,0xd0" ::"c"(0) : "eax", "edx");    // xgetbv
  if (four >> 30 & 1) __asm__ volatile(".byte 0x0f,0xc7,0xf0" ::: "eax", "cc");            // rdrand %eax
  if (seven >> 3 & 1) __asm__ volatile(".byte 0xc4,0xe2,0x78,0xf2,0xc0" ::: "eax", "cc");  // andn %eax, %eax, %eax
  if (seven >> 8 & 1) __asm__ volatile(".byte 0xc4,0xe3,0x7b,0xf0,0xc0,0x01" ::: "eax");   // rorx $1, %eax, %eax
  if (more >> 5 & 1) __asm__ volatile(".byte 0xf3,0x0f,0xbd,0xc0" ::: "eax", "cc");        // lzcnt %eax, %eax
  if (ask(0x80000001, 0)[3] >> 27 & 1) __asm__ volatile(".byte 0x0f,0x01,0xf9" ::: "eax", "ecx", "edx"); // rdtscp
#if defined(__x86_64__)
  if (seven & 1) __asm__ volatile(".byte 0xf3,0x48,0x0f,0xae,0xc0" ::: "rax"); // rdfsbase %rax
  if (four >> 13 & 1) __asm__ volatile("cmpxchg16b (%0)" ::"r"(aligned), "a"(1), "b"(1), "c"(1), "d"(1) : "cc", "memory");
#endif
  return 1;
}

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  long fd = SYS(openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY, 0), held = 0, more;
  while (held < (long)sizeof info - 1 && (more = SYS(read, fd, info + held, sizeof info - 1 - (word)held, 0)) > 0) held += more;
  char name[49];
  unsigned *at = ask(0, 0);
  unsigned vendor[3] = {at[1], at[3], at[2]};
  for (word i = 0; i < 12; i++) name[i] = ((char *)vendor)[i];
  name[12] = 0;
  say("the same vendor", begins(line("vendor_id"), name));
  unsigned says = ask(1, 0)[0], family = says >> 8 & 15, model = says >> 4 & 15;
  if (family == 15) family += says >> 20 & 255;
  if (family >= 6) model |= says >> 12 & 0xf0;
  say("the same model", value(line("cpu family")) == family && value(line("model\t")) == model && value(line("stepping")) == (says & 15));
  for (unsigned part = 0; part < 3; part++) {
    at = ask(0x80000002 + part, 0);
    for (word i = 0; i < 16; i++) name[part * 16 + i] = ((char *)at)[i];
  }
  name[48] = 0;
  for (word end = length(name); end && name[end - 1] == ' '; end--) name[end - 1] = 0;
  char *first = name;
  while (*first == ' ') first++;
  say("the same name", begins(line("model name"), first));
  say("does what it says", does());
  int agree = 1;
  for (word i = 0; i < sizeof abilities / sizeof *abilities; i++) {
    const struct ability *one = abilities + i;
    if (has(one->name) && !(ask(one->leaf, 0)[one->place] >> one->bit & 1)) agree = 0, put(one->name), put(" is not there\n");
  }
  say("the same abilities", agree && has("sse2"));
  say("the same hypervisor", has("hypervisor") == (int)(ask(1, 0)[2] >> 31));
  return 0;
}
