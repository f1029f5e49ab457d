"""Run the diamond in a process of its own, so that a test can kill all of it: `kill_me.py ROOT NOTES`."""

import sys
from pathlib import Path

from pipeline.runners import local

if __name__ == "__main__":
    local.run(
        local.RunSpec(
            root=Path(sys.argv[1]),
            name="diamond",
            factory="tests.pipeline.runners.tiny_pipelines:diamond",
            factory_kwargs={"notes": sys.argv[2]},
        )
    )
