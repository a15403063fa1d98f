"""`python -m fewshotseg_training`: the command, for where its script is not installed."""

from fewshotseg_training.cli import main

main()
