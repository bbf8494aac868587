"""What reading a corpus into training costs, beside others on the same shards; ratios are of one interleaved run.

    python jobs/bench_loader.py [--samples 3000] [--rounds 5] [--only decode,index,memory,cold,s3] [--results FILE]

- decode: samples per CPU second of one process, uint8 tensors of 256x256 and 1024x1024 JPEG, shuffled and batched. Each
  of the others once with our decoder (simplejpeg), and once with the one that it has by itself (Pillow). All of them
  take turns, an eighth of a pass each; what a pass needs to begin is counted too.
- index: seconds from nothing to the first sample of 10^6 rows, and from nothing to an opened corpus of 10^7 rows, in
  shards of 1,024: of a corpus that is not finished, of one that is (10^6), and again with the index that is there. In a
  process of its own, imports not counted.
- memory: what the index of 10^6 rows adds, as proportional set size, to one process and to one with 4 forked workers.
- cold: pictures as bytes, nothing cached, of a server that answers after 20 ms and gives 50 MB/s in all: MB/s beside
  those of reading its tars in chunks of 16 MB, four at once.
- s3: the same from a server of 200 MB/s, and requests per 100 MB, beside webdataset's `pipe:curl`.

Energon and DALI are among the others where the extra `readers` is installed, which is too large for every developer;
DALI with its own decoder alone.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.loading.decoding import BATCH, decoding
from jobs.loading.opening import CHILDREN, indexes, memory
from jobs.loading.storage import cold, from_s3
from pipeline.errors import nearest
from pipeline.evaluation.results import add_results_option, machine, write_result

PARTS = ("decode", "index", "memory", "cold", "s3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=3000, help="pictures of 256x256; a sixteenth of 1024x1024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--folder", type=Path, default=Path("out/bench-loader"))
    add_results_option(parser)
    parser.add_argument("--child", choices=("first", "open", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for part in args.only.split(","):
        if part not in PARTS:
            parser.error(f"--only {part}: expected some of {','.join(PARTS)}{nearest(part, PARTS)}")
    for name, least in (("samples", 64), ("rounds", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: expected {least} or more")
    torch.set_num_threads(1)
    os.environ["XDG_CACHE_HOME"] = str(args.folder.absolute() / "home")
    if args.child:
        print(json.dumps(CHILDREN[args.child](args.corpus)))
        return
    here, figures = machine(), {}
    measures: dict[str, Callable[[], Any]] = {
        "decode": lambda: decoding(args.folder, args.samples, args.rounds),
        "index": lambda: indexes(args.folder),
        "memory": lambda: memory(args.folder),
        "cold": lambda: cold(args.folder, args.samples // 2, args.rounds),
        "s3": lambda: from_s3(args.folder, args.samples // 8, args.rounds),
    }
    for part in args.only.split(","):
        figures[part] = measures[part]()
        print(json.dumps({part: figures[part]}, indent=1), flush=True)
    if args.results:
        what = "Reading a corpus into training: CPU, opening, memory and requests, beside others on one machine"
        config = {"samples": args.samples, "rounds": args.rounds, "batch": BATCH}
        write_result(args.results, what=what, config=config, figures=figures, environment=here)


if __name__ == "__main__":
    main()
