"""``python -m probes``: debugnet's command line with the test stages in it."""

import sys

from debugnet.cli.app import main
from debugnet.registry import STAGES

STAGES.add("probe", "probes.stages.probe:run", "Do what the test asks for.")
STAGES.add("study-probe", "probes.stages.probe:run", "The same, as a command of two words.")
STAGES.add("second", "probes.stages.second:run", "Count the characters of a probe.")

if __name__ == "__main__":
    sys.exit(main())
