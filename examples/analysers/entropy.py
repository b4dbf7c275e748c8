"""How random each section of an ELF file is, in bits for each byte: as a whole, and the most random block of it.

A section with such a block is a finding: it looks encrypted or packed.

Arguments: the file, and what `inspect/elf` found in it.
"""

import json
import math
import os
import sys

SUSPICIOUS = 7.2  # of at most 8
BLOCK = 1024  # bytes; shorter ones say nothing


def entropy(data):
    counts = [0] * 256
    for byte in data:
        counts[byte] += 1
    parts = [count / len(data) for count in counts if count]
    # Rounded: the last bits of a logarithm are the C library's.
    return round(-sum(part * math.log2(part) for part in parts), 3) + 0.0


def main(file, info):
    with open(file, "rb") as opened:
        data = opened.read()
    with open(info, encoding="utf-8") as opened:
        facts = json.load(opened)

    sections, findings = [], []
    for section in facts["sections"]:
        # What the header says can be a lie: a section may lie outside of the file.
        start = section["offset"]
        content = data[start : start + section["size"]] if section["kind"] != "NOBITS" else b""
        if not content:
            continue
        blocks = [content[at : at + BLOCK] for at in range(0, len(content) - BLOCK + 1, BLOCK)]
        peak = max(map(entropy, blocks), default=None)
        sections.append(
            {"name": section["name"], "bytes": len(content), "entropy": entropy(content), "peak": peak}
        )
        if peak is not None and peak >= SUSPICIOUS:
            findings.append(
                {
                    "rule": "example/random-section",
                    "title": f"The section {section['name']} looks encrypted or packed",
                    "severity": "medium",
                    "attack": ["T1027"],
                    "evidence": [{"offset": start, "text": f"{peak} bits for each byte of a block"}],
                }
            )

    outputs = os.environ["HOTCELL_OUTPUTS"]
    with open(f"{outputs}/table", "w", encoding="utf-8") as opened:
        json.dump({"sections": sections}, opened, indent=1)
    with open(f"{outputs}/findings", "w", encoding="utf-8") as opened:
        json.dump({"format": "hotcell-findings", "version": 1, "findings": findings}, opened, indent=1)


main(*sys.argv[1:])
