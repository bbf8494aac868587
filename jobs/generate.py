"""Entry point of a Ray job: ``ray job submit --working-dir . -- python jobs/generate.py CONFIG [KEY=VALUE ...]``.

The same as ``lacuna run`` with the same arguments. Kill it and submit it again: it goes on from storage.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed
    from pipeline.cli import entry

    sys.argv.insert(1, "run")
    entry()
