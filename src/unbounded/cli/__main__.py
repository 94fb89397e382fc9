"""`python -m unbounded.cli`: the command without its console entry point."""

from unbounded.cli import main

main()
