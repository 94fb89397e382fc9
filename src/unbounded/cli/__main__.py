"""`python -m unbounded.cli`: the command, where the console's entry point is not on the path."""

from unbounded.cli import main

main()
