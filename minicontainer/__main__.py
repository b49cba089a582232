"""`python3 -m minicontainer`."""

from __future__ import annotations

import sys

from minicontainer import cli

if __name__ == "__main__":
    cli.main(sys.argv)
