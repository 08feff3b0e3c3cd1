"""One rank of several training commands, one after another: what a rank is takes two seconds to import only once.

Started by torchrun with a JSON list of command lines; ends with the first status that is not 0. The process group
lives as long as the process: DeepSpeed keeps references to groups, and cannot make all of them anew.
"""

import json
import sys

from lediflow.engine.deepspeed import DeepSpeedEngine
from lediflow.train import main

if __name__ == "__main__":
    DeepSpeedEngine.close = lambda engine: engine.group.flush()  # type: ignore[method-assign]
    for arguments in json.loads(sys.argv[1]):
        sys.argv[1:] = arguments
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
