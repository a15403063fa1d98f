"""The list of trainings to run next (`QUEUE.md`): run on whatever machine there is, and taken to one without network and back."""
