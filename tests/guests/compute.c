// Only computes: as many rounds of 65536 steps as its argument says, over a table of 4 KiB. The same number on every
// architecture, whatever its word size and byte order. `xtask weights` runs it for long.
//! args: 2
//! stdout: ed046584
#include "guest.h"

static unsigned table[1024];

int guest(int argc, char **argv) {
  unsigned rounds = argc > 1 ? (unsigned)number(argv[1]) : 1;
  unsigned state = 2463534242u, sum = 0;
  for (unsigned place = 0; place < 1024; place++) table[place] = place * 2654435761u;
  while (rounds--)
    for (unsigned step = 0; step < 65536; step++) {
      // xorshift (Marsaglia 2003), a multiplication, a load, a store, and a branch that cannot be foreseen.
      state ^= state << 13, state ^= state >> 17, state ^= state << 5;
      unsigned *cell = &table[(state >> 7) & 1023];
      if (*cell & 1) sum += *cell * 31u;
      else sum ^= state;
      *cell += sum;
    }
  char text[9];
  for (int place = 0; place < 8; place++) text[place] = "0123456789abcdef"[(sum >> (28 - 4 * place)) & 15];
  text[8] = 0;
  put(text);
  put("\n");
  return 0;
}
