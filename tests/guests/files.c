// Makes, writes, reads, links and removes files below the working folder, and checks what the kernel says of each.
//! stdout: written 26
//! stdout: appended 4
//! stdout: read 30
//! stdout: link 4
//! stdout: missing -2
//! stdout: directory -21
//! stdout: done 0
#include "guest.h"

static const char text[] = "abcdefghijklmnopqrstuvwxyz";

int guest(int argc, char **argv) {
  (void)argc, (void)argv;
  char buffer[64];
  check("mkdir", SYS(mkdirat, AT_FDCWD, "guest-dir", 0755, 0) == 0);
  long fd = SYS(openat, AT_FDCWD, "guest-dir/file", O_WRONLY | O_CREAT | O_TRUNC, 0640);
  check("create", fd >= 0);
  say("written", SYS(write, fd, text, 26, 0));
  check("close", SYS(close, fd, 0, 0, 0) == 0);

  fd = SYS(openat, AT_FDCWD, "guest-dir/file", O_WRONLY | O_APPEND, 0);
  say("appended", SYS(write, fd, "1234", 4, 0));
  SYS(close, fd, 0, 0, 0);

  fd = SYS(openat, AT_FDCWD, "guest-dir/file", O_RDONLY, 0);
  say("read", SYS(read, fd, buffer, sizeof buffer, 0));
  check("what was written is read", same(buffer, text, 26) && same(buffer + 26, "1234", 4));
  check("end of file", SYS(read, fd, buffer, sizeof buffer, 0) == 0);
  SYS(close, fd, 0, 0, 0);

  check("symlink", SYS(symlinkat, "file", AT_FDCWD, "guest-dir/link", 0) == 0);
  say("link", SYS(readlinkat, AT_FDCWD, "guest-dir/link", buffer, sizeof buffer));
  check("the link's target", same(buffer, "file", 4));
  say("missing", SYS(openat, AT_FDCWD, "guest-dir/none", O_RDONLY, 0));
  say("directory", SYS(openat, AT_FDCWD, "guest-dir", O_WRONLY, 0));

  check("chmod", SYS(fchmodat, AT_FDCWD, "guest-dir/file", 0600, 0) == 0);
  check("unlink", SYS(unlinkat, AT_FDCWD, "guest-dir/link", 0, 0) == 0);
  check("unlink", SYS(unlinkat, AT_FDCWD, "guest-dir/file", 0, 0) == 0);
  check("rmdir", SYS(unlinkat, AT_FDCWD, "guest-dir", AT_REMOVEDIR, 0) == 0);
  say("done", SYS(openat, AT_FDCWD, "guest-dir", O_RDONLY, 0) == -ENOENT ? 0 : 1);
  return 0;
}
