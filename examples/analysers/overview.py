"""One table of all: the section with the highest entropy of each sample. Its input is a folder, since many are wired to it."""

import json
import os

folder = os.environ["HOTCELL_INPUTS"] + "/tables"
rows = []
for name in sorted(os.listdir(folder)):  # 0000, 0001, … in the order of the samples
    with open(f"{folder}/{name}", encoding="utf-8") as opened:
        sections = json.load(opened)["sections"]
    rows.append(max(sections, key=lambda section: section["entropy"], default=None))
print(json.dumps({"highest": rows}, indent=1))
