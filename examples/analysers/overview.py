"""One table of all: the section with the highest entropy of each sample. Its input is a folder, since many are wired to it."""

import json
import os

folder = os.environ["HOTCELL_INPUTS"] + "/tables"
with open(f"{folder}/index.json", encoding="utf-8") as opened:
    inputs = json.load(opened)["inputs"]  # where each file came from, in the order of the samples
rows = []
for one in inputs:
    with open(f"{folder}/{one['path']}", encoding="utf-8") as opened:
        sections = json.load(opened)["sections"]
    highest = max(sections, key=lambda section: section["entropy"], default=None)
    rows.append({"sample": one["sample"][:12], "section": highest})
print(json.dumps({"highest": rows}, indent=1))
