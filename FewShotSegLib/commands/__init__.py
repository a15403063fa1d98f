"""The commands of `fewshotseg`, one file each, and what they share on the terminal (`console`, `options`).

No file here imports the library's heavy parts at its top: `fewshotseg --help` must be quick.
"""
