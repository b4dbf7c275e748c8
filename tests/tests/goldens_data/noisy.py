"""A bot whose process numbers, times, ports and the order of its children differ from run to run.

noisy.py CHANCE [PATH]: with this chance it also looks at /etc/localtime; it writes PATH, where one is given.
"""
import json
import random
import sys

r = random.SystemRandom()
def line(x): return json.dumps(x)
base = r.randrange(1000, 30000)
seq = 0
out = [line({"format": "hotcell-events", "version": 1, "cell": "x", "engine": "command", "os": "linux", "arch": "x86_64"})]
def ev(pid, parent, what):
    global seq
    out.append(line({"seq": seq, "time": r.randrange(1 << 30), "witness": "kernel",
        "task": {"pid": pid, "tid": pid, "parent": parent, "image": "/bin/bot"}, "what": what}))
    seq += 1
ev(base, 1, {"process": {"op": "start", "path": "/bin/bot", "argv": ["bot"]}})
ev(base, 1, {"file": {"op": "open", "path": "/etc/passwd"}})
ev(base, 1, {"process": {"op": "fork", "child": base + 3}})
ev(base, 1, {"process": {"op": "fork", "child": base + 7}})
kids = [base + 3, base + 7]
r.shuffle(kids)
for k in kids:
    ev(k, base, {"file": {"op": "written", "path": f"/tmp/bot.{k}.pid", "bytes": 3}})
    ev(k, base, {"network": {"op": "connect", "protocol": "tcp", "peer": f"192.0.2.1:{r.randrange(40000, 60000)}"}})
if r.random() < float(sys.argv[1]):
    ev(base, 1, {"file": {"op": "stat", "path": "/etc/localtime"}})
if len(sys.argv) > 2:
    ev(base, 1, {"file": {"op": "written", "path": sys.argv[2]}})
ev(base, 1, {"process": {"op": "exit", "code": 0}})
print("\n".join(out))
