"""``python -m rdm_cli``."""

import sys

from rdm_cli.cli import main

sys.exit(main())
