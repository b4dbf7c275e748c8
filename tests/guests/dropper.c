// Does what a dropper does, harmlessly: looks at itself, writes a payload below argv[1] (a folder; "" is the root), makes
// it executable, adds a line for cron, hides its traces. The payload is text that says what it is. Nothing is fetched or run.
//! args: .
//! stdout: dropped 63
//! stdout: persisted 36
//! stdout: cleaned 0
#include "guest.h"

static const char payload[] = "#!/bin/sh\n# A harmless payload of a test program.\necho dropped\n";
static const char line[] = "*/5 * * * * root /tmp/.x/agent -d \\\n";

static long write_file(const char *path, const char *text, long mode) {
  long fd = SYS(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
  if (fd < 0) return fd;
  long n = SYS(write, fd, text, length(text), 0);
  SYS(close, fd, 0, 0, 0);
  return n;
}

int guest(int argc, char **argv) {
  char path[256], self[256];
  const char *root = argc > 1 ? argv[1] : "";
  check("the folder's name is short", length(root) < 128);
  SYS(readlinkat, AT_FDCWD, "/proc/self/exe", self, sizeof self);

  join(path, root, "/tmp");
  SYS(mkdirat, AT_FDCWD, path, 01777, 0);
  join(path, root, "/tmp/.x");
  SYS(mkdirat, AT_FDCWD, path, 0700, 0);
  join(path, root, "/tmp/.x/agent");
  say("dropped", write_file(path, payload, 0644));
  check("chmod", SYS(fchmodat, AT_FDCWD, path, 0755, 0) == 0);

  join(path, root, "/etc");
  SYS(mkdirat, AT_FDCWD, path, 0755, 0);
  join(path, root, "/etc/cron.d");
  SYS(mkdirat, AT_FDCWD, path, 0755, 0);
  join(path, root, "/etc/cron.d/agent");
  say("persisted", write_file(path, line, 0644));

  join(path, root, "/root/.bash_history");
  SYS(unlinkat, AT_FDCWD, path, 0, 0);
  say("cleaned", 0);
  return 0;
}
