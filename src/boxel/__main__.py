"""`python -m boxel`: the command line, where the console script is not on the path."""

import sys

from boxel.cli import main

sys.exit(main())
