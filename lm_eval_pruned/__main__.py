"""`python -m lm_eval_pruned` is the `lm-eval-pruned` command."""

import sys

from lm_eval_pruned.cli import main

if __name__ == "__main__":
    sys.exit(main())
