"""`python -m stkd_screen` is the command `stkd-screen`."""

from stkd_screen.cli import main

if __name__ == "__main__":
    main()
