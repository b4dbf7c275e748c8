"""One program under Qiling: qiling_one.py ROOT SCRIPT. The first line of SCRIPT names its interpreter, which Qiling cannot know."""
import os, sys

from qiling import Qiling
from qiling.const import QL_VERBOSE

root, script = sys.argv[1:]
with open(root + script) as file:
    words = file.readline().removeprefix("#!").split(maxsplit=1)
interpreter = root + words[0]
while os.path.islink(interpreter):
    target = os.readlink(interpreter)
    interpreter = root + target if target.startswith("/") else os.path.join(os.path.dirname(interpreter), target)
environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
ql = Qiling([interpreter, *(words[1].split() if len(words) > 1 else []), script], root, env=environment, verbose=QL_VERBOSE.OFF)
ql.run()
sys.stdout.flush()
os._exit((ql.os.exit_code or 0) & 255)
