"""The tests.  What Python compiles is kept: commands that tests start by the hundred need not compile it again."""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
