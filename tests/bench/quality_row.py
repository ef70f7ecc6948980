"""quality_row.py METHOD RUN_FOLDER RTN_FILE: one line of the table of tests/bench/quality.sh.

The KL of `rtn` is kept in RTN_FILE, so that later rows can show their share of it.
"""

import json
import pathlib
import sys

method, folder, rtn_file = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
results = json.loads((folder / "results.json").read_text())
texts = results["attar"]["texts"]
text = texts[0]
events = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
done = [e for e in events if e["event"] == "phase_done" and e["phase"].startswith("passes")]
bits = results["attar"]["bits_per_weight"]
kl = text["kl_mean"]["value"]
kls = " | ".join(f"{t['kl_mean']['value']:.4f}" for t in texts)
if method == "rtn":
    rtn_file.write_text(str(kl))
share = f"{kl / float(rtn_file.read_text()):.3f}" if rtn_file.exists() else ""
print(f"| {method} | {bits:.2f} | {kls} | {share} | {text['top1']['value']:.4f} | "
      f"{text['perplexity_after']['value']:.2f} | {sum(e['seconds'] for e in done):.0f} | "
      f"{max(e['peak_rss_bytes'] for e in done) / 1e6:.0f} |", flush=True)
